"""What Git over SSH leaves behind: an event an operation, the last use of a key; must not write once a request."""

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

MOST_WAITING = 10_000
"""Events that are kept while the database is away; beyond it the oldest go, and the log says how many."""
BEGUN = {FETCH: "fetched from", PUSH: "began to push to"}
TRIED = {FETCH: "fetch from", PUSH: "push to"}
MOST_REFS, LONGEST_REFS = 10, 800
"""Of a push, named in its event; the others are counted."""
_NONE = "0" * 7


@dataclass(slots=True)
class PushedRefs:
    """What a push was to change and has changed, as git's own hooks say: how many references, and the first of them,
    lines "OLD NEW REF". known: whether they could say so all the time.
    """

    wanted: int = 0
    changed: int = 0
    lines: str = ""
    known: bool = True


@dataclass(frozen=True, slots=True)
class _GitEvent:
    """An event to be written. reason: why it was refused, "" for what was done."""

    actor: Actor
    at: datetime
    action: str
    reason: str
    repository_id: int | None
    summary: str
    details: dict[str, str]


class GitLog:
    """Collects events and uses, and writes them together; all methods may be called from any thread."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._entries: deque[_GitEvent] = deque()
        self._uses: dict[str, tuple[datetime, str]] = {}
        self._deploy_uses: dict[int, datetime] = {}
        self._lost = 0

    def permitted(self, access: GitAccess) -> None:
        """An operation begins. Its event belongs to the workspace of the repository."""
        holder = access.holder
        self.used(holder)
        with self._lock:
            if access.deploy_key_id is not None:
                self._deploy_uses[access.deploy_key_id] = self._instance.now()
        self._add_about(
            access, f"{holder.words} {BEGUN[access.verb]} {access.repository.path} with {holder.fingerprint}"
        )

    def pushed(self, access: GitAccess, refs: PushedRefs) -> None:
        """A push has ended. What it changed is what git says it changed, not what was asked of it."""
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
        """Somebody known was refused. The event belongs to their own workspace and holds nothing unjudged."""
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
        """A transfer under way was stopped."""
        words = f"Stopped {access.holder.words} in the middle of a {access.verb}: {access.repository.path}"
        self._add_about(access, f"{words} ({refusal.code})", reason=refusal.code)

    def used(self, holder: Holder) -> None:
        """A key opened Git just now."""
        with self._lock:
            self._uses[holder.fingerprint] = (self._instance.now(), holder.actor.address)

    def write(self) -> None:
        """Write what was collected, in one transaction; with the database away it is kept for the next time."""
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
            except BaseException as error:  # whatever it is, what was not written is kept
                with self._lock:
                    self._entries.extendleft(reversed(entries))
                    self._uses = {**uses, **self._uses}
                    self._deploy_uses = {**deploy_uses, **self._deploy_uses}
                    self._lost += lost
                    self._forget_oldest()
                if not isinstance(error, DatabaseUnavailable):
                    raise
                return  # said by the database itself, once
            if lost:
                log.error("events of Git were lost while the database was away", count=lost)

    def _add_about(
        self, access: GitAccess, summary: str, *, reason: str = "", details: Mapping[str, str] | None = None
    ) -> None:
        """An event of a permitted operation, in the log of its repository's workspace."""
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
        while len(self._entries) > MOST_WAITING:
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
    """The references that changed, for people, in one line."""
    phrases: list[str] = []
    for line in refs.lines.splitlines():
        old, new, name = (*line.split(" ", 2), "", "")[:3]
        short = printable(_short(name))
        old, new = old[:7], new[:7]
        if new == _NONE:
            phrases.append(f"{short} deleted, was {old}")
        else:
            phrases.append(f"{short} new at {new}" if old == _NONE else f"{short} {old}..{new}")
        if len(phrases) == MOST_REFS or sum(map(len, phrases)) > LONGEST_REFS:
            break
    more = refs.changed - len(phrases)
    return ", ".join(phrases + ([f"and {more} more"] if more > 0 else []))


def _short(ref: str) -> str:
    """A branch by its name, a tag as tags/NAME, all else as it is, so that no two references are named alike."""
    branch = ref.removeprefix("refs/heads/")
    if branch != ref:
        return ref if branch.startswith(("refs/", "tags/")) else branch
    return ref.removeprefix("refs/") if ref.startswith("refs/tags/") else ref


def _details(holder: Holder, path: str | None, verb: str | None) -> dict[str, str]:
    known = {"fingerprint": holder.fingerprint, "key": holder.title, "repository": path, "verb": verb}
    return {name: value for name, value in known.items() if value}
