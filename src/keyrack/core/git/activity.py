"""What Git over SSH leaves behind: events and last uses of keys; must not write for each request."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from keyrack.core.git.access import FETCH, NOT_OFFERED, PUSH, GitAccess, Holder
from keyrack.core.instance import Instance
from keyrack.errors import Refusal
from keyrack.logs import logger
from keyrack.model import Actor
from keyrack.ssh.printable import printable
from keyrack.store.audit import events
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.git import git_access

log = logger("keyrack.git")

MAX_WAITING = 10_000
"""Events kept while the database is away; beyond that the oldest are dropped, and the log says how many."""
BEGUN = {FETCH: "fetched from", PUSH: "began to push to"}
TRIED = {FETCH: "fetch from", PUSH: "push to"}
MAX_REFS, LONGEST_REFS = 10, 800
"""So many references, and characters of them, are named in the event of a push; others are only counted."""
_NONE = "0" * 7


@dataclass(slots=True)
class PushedRefs:
    """How many references a push was to change and has changed, as git's hooks report.

    lines: the first changed ones, as "OLD NEW REF"; known: False where the hooks could not report.
    """

    wanted: int = 0
    changed: int = 0
    lines: str = ""
    known: bool = True


@dataclass(frozen=True, slots=True)
class _GitEvent:
    """An event to be written; reason: why it was refused, "" for what was done."""

    actor: Actor
    at: datetime
    action: str
    reason: str
    repository_id: int | None
    summary: str
    details: dict[str, str]


class GitLog:
    """Collects events and uses, and writes them together; thread-safe."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._entries: deque[_GitEvent] = deque()
        self._uses: dict[str, tuple[datetime, str]] = {}
        self._deploy_uses: dict[int, datetime] = {}
        self._lost = 0

    def permitted(self, access: GitAccess) -> None:
        """Note that an operation begins, in the log of the repository's workspace."""
        holder = access.holder
        self.used(holder)
        with self._lock:
            if access.deploy_key_id is not None:
                self._deploy_uses[access.deploy_key_id] = self._instance.now()
        self._add_about(
            access, f"{holder.words} {BEGUN[access.verb]} {access.repository.path} with {holder.fingerprint}"
        )

    def pushed(self, access: GitAccess, refs: PushedRefs) -> None:
        """Note that a push has ended, with the changes that git reports, which may be fewer than asked."""
        holder, path = access.holder, access.repository.path
        reason, details = "", {}
        others = refs.wanted - refs.changed
        if refs.changed:
            details = {"refs": _shown(refs)}
            words = f"{holder.words} pushed to {path}: {details['refs']}"
            if others > 0:
                words += f"; {others} more were refused"
        elif refs.wanted:
            reason = "push-refused"
            words = f"Refused: a push of {holder.words} to {path} changed none of {refs.wanted} branches and tags"
        elif refs.known:
            words = f"A push of {holder.words} to {path} ended without a change: there was none, or it broke off"
        else:
            words = f"A push of {holder.words} to {path} ended; what it changed is not known, as its host was restarted"
        self._add_about(access, f"{words} (with {holder.fingerprint})", reason=reason, details=details)

    def refused(self, holder: Holder, refusal: Refusal, *, verb: str | None = None, path: str | None = None) -> None:
        """Note a refusal of a known holder, in the log of the holder's workspace; holds only text that was checked."""
        if verb is not None:
            what = f"{TRIED[verb]} {path}"
        else:
            what = "run a command that is not offered" if refusal.code == NOT_OFFERED else "open a session"
        self._add(
            _GitEvent(
                actor=holder.actor,
                at=self._instance.now(),
                action=f"git:{verb or 'command'}",
                reason=refusal.code,
                repository_id=None,
                summary=f"Refused: {holder.words} tried to {what} ({refusal.code})",
                details=_details(holder, path, verb),
            )
        )

    def cut(self, access: GitAccess, refusal: Refusal) -> None:
        """Note that a transfer under way was stopped."""
        words = f"Stopped {access.holder.words} in the middle of a {access.verb}: {access.repository.path}"
        self._add_about(access, f"{words} ({refusal.code})", reason=refusal.code)

    def used(self, holder: Holder) -> None:
        """Note that a key has just opened Git."""
        with self._lock:
            self._uses[holder.fingerprint] = (self._instance.now(), holder.actor.address)

    def write(self) -> None:
        """Write what was collected, in one transaction; if the database is away it is kept for the next time."""
        with self._writing:
            with self._lock:
                entries, self._entries = self._entries, deque()
                uses, self._uses = self._uses, {}
                deploy_uses, self._deploy_uses = self._deploy_uses, {}
                lost, self._lost = self._lost, 0
            if not (entries or uses or deploy_uses):
                return

            def command(connection: Connection) -> None:
                for entry in entries:
                    _write_event(connection, entry)
                for fingerprint, (at, address) in sorted(uses.items()):
                    git_access.note_key_use(connection, fingerprint, address, at)
                for key_id, at in sorted(deploy_uses.items()):
                    git_access.note_deploy_key_use(connection, key_id, at)

            try:
                self._instance.database.write(command)
            except BaseException as error:  # whatever happened, keep what was not written
                with self._lock:
                    self._entries.extendleft(reversed(entries))
                    self._uses = {**uses, **self._uses}
                    self._deploy_uses = {**deploy_uses, **self._deploy_uses}
                    self._lost += lost
                    self._forget_oldest()
                if not isinstance(error, DatabaseUnavailable):
                    raise
                return  # the database logs that itself, once
            if lost:
                log.error("events of Git were lost while the database was away", count=lost)

    def _add_about(
        self, access: GitAccess, summary: str, *, reason: str = "", details: Mapping[str, str] | None = None
    ) -> None:
        """Collect an event of a permitted operation, for the log of its repository's workspace."""
        self._add(
            _GitEvent(
                actor=replace(access.holder.actor, workspace_id=access.repository.workspace_id),
                at=self._instance.now(),
                action=f"git:{access.verb}",
                reason=reason,
                repository_id=access.repository.id,
                summary=summary,
                details={**_details(access.holder, access.repository.path, access.verb), **(details or {})},
            )
        )

    def _add(self, entry: _GitEvent) -> None:
        with self._lock:
            self._entries.append(entry)
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        while len(self._entries) > MAX_WAITING:
            self._entries.popleft()
            self._lost += 1


def _write_event(connection: Connection, entry: _GitEvent) -> None:
    events.add(
        connection,
        entry.actor,
        at=entry.at,
        action=entry.action,
        outcome="refused" if entry.reason else "done",
        reason=entry.reason,
        target_kind="repository",
        target_id=entry.repository_id,
        server_id=None,
        summary=entry.summary,
        level="warning" if entry.reason else "info",
        details=entry.details,
    )


def _shown(refs: PushedRefs) -> str:
    """The references that changed, in one line for people."""
    phrases: list[str] = []
    for line in refs.lines.splitlines():
        old, new, name = (*line.split(" ", 2), "", "")[:3]
        short = printable(_short(name))
        old, new = old[:7], new[:7]
        if new == _NONE:
            phrases.append(f"{short} deleted, was {old}")
        else:
            phrases.append(f"{short} new at {new}" if old == _NONE else f"{short} {old}..{new}")
        if len(phrases) == MAX_REFS or sum(map(len, phrases)) > LONGEST_REFS:
            break
    more = refs.changed - len(phrases)
    return ", ".join(phrases + ([f"and {more} more"] if more > 0 else []))


def _short(ref: str) -> str:
    """A branch by its name, a tag as tags/NAME, others in full, so that no two references have one name."""
    branch = ref.removeprefix("refs/heads/")
    if branch != ref:
        return ref if branch.startswith(("refs/", "tags/")) else branch
    return ref.removeprefix("refs/") if ref.startswith("refs/tags/") else ref


def _details(holder: Holder, path: str | None, verb: str | None) -> dict[str, str]:
    known = {"fingerprint": holder.fingerprint, "key": holder.title, "repository": path, "verb": verb}
    return {name: value for name, value in known.items() if value}
