"""A host's status: what it was asked to do and what it says it does, as a record and in words; must change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from keyrack.core.hosts import last_seen, refused_logins, report_events
from keyrack.core.hosts.facts import NOBODY, SESSIONS, TRYING, UNDONE, UNINSTALLED, UNMANAGED, UNPROVEN, is_undone
from keyrack.core.instance import Instance
from keyrack.core.next_steps import with_commands
from keyrack.model import AUTO, ENFORCE, OBSERVE, OfflineAction, Server
from keyrack.protocol.document_words import DROP_ALL, DROP_TEMPORARY, KEEP_ALL

NOT_ENROLLED = "not enrolled"
SILENT = "silent"
ENFORCING_UNDONE = "enforcing undone"
KEY_FILES_ONLY = "key files only"
NOT_SHOWN_TO_ENFORCE = "not shown to enforce"
ENFORCING, OBSERVING = "enforcing", "observing"
FOR_SOMEBODY = frozenset({NOT_ENROLLED, SILENT, ENFORCING_UNDONE, KEY_FILES_ONLY, NOT_SHOWN_TO_ENFORCE, UNINSTALLED})
"""States in which somebody has to look after the host."""
OFFLINE_WORDS = {
    KEEP_ALL: "keys stay",
    DROP_TEMPORARY: "temporary keys are dropped",
    DROP_ALL: "all keys are dropped",
}


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What a host was asked to do, and what it says it does.

    mode: what was asked; enforcement: what the host says it does, "" before it said anything: observe, trying, enforce,
    unproven, undone, unmanaged or uninstalled; undone: why it undid enforcing, or ""; wanted, applied: revisions;
    state, offline_words: in words for people.
    """

    mode: str
    enforcement: str
    undone: str
    wanted: int
    applied: int
    applied_at: datetime | None
    seen_at: datetime | None
    online: bool
    offline_after_seconds: int
    offline_then: OfflineAction
    problems: tuple[str, ...]
    state: str
    offline_words: str

    @property
    def needs_somebody(self) -> bool:
        """Whether somebody has to look after the host, because of its state or its problems."""
        return self.state in FOR_SOMEBODY or bool(self.problems)

    @property
    def is_as_decided(self) -> bool:
        """Whether the host does all that was decided."""
        return self.state in (ENFORCING, OBSERVING)


def of(instance: Instance, server: Server) -> HostStatus:
    """The status of a server's host."""
    facts = server.facts
    enforcement = str(facts.get("enforcement") or "")
    online = last_seen.is_online(server, instance.now())
    return HostStatus(
        mode=server.mode,
        enforcement=enforcement,
        undone=str(facts.get("undone") or ""),
        wanted=server.revision,
        applied=server.applied_revision,
        applied_at=server.applied_at,
        seen_at=server.seen_at,
        online=online,
        offline_after_seconds=server.offline_after_seconds,
        offline_then=server.offline_then,
        problems=(
            *_two_machines(server),
            *refused_logins.of(server).closed_accounts(),
            *_rolled_back(server),
            *report_events.standing_refusal(facts),
            *_problems(server, facts),
        ),
        state=_state(server, enforcement, online),
        offline_words=(
            f"after {server.offline_after_seconds} seconds {OFFLINE_WORDS[server.offline_then]}"
            if server.offline_after_seconds and server.offline_then in (KEEP_ALL, DROP_TEMPORARY, DROP_ALL)
            else OFFLINE_WORDS[KEEP_ALL]
        ),
    )


def opens(server: Server) -> bool:
    """Whether sshd on the host reads Keyrack's keys, as the host says: not where it observes, has undone enforcing, or
    has no agent any more.
    """
    return server.facts.get("enforcement") not in (OBSERVE, UNDONE, UNINSTALLED)


def _problems(server: Server, facts: Mapping[str, Any]) -> tuple[str, ...]:
    problems = [*map(str, facts.get("problems") or ()), *([str(facts["scan"])] if facts.get("scan") else ())]
    if facts.get(SESSIONS):
        problems.append(f"{facts[SESSIONS]}; a session of a revoked key may go on unseen")
    if server.mode == AUTO and facts.get("shut_out") not in (None, NOBODY):
        problems.append(
            f"enforcing waits, as it would shut out: {facts['shut_out']}; Keyrack's keys open nothing until then"
        )
    return tuple(problems)


def _two_machines(server: Server) -> tuple[str, ...]:
    if server.copied_at is None:
        return ()
    # Imported here, as few hosts have a copy and a list of hosts is to load little.
    from keyrack.core.hosts import copies

    return (copies.words(server),)


def rolled_back(server: Server) -> str:
    """That the host knows documents which this database does not, and what that means."""
    what = "the host obeyed what this database does not know, so the database went back"
    if server.compared_at is None:
        return f"{what}; nothing new reaches the host until it has told its last document"
    return with_commands(
        f"{what}; what the host refused stays refused until somebody decides", f"hosts resync {server.id}"
    )


def _rolled_back(server: Server) -> tuple[str, ...]:
    return () if server.rolled_back_at is None else (rolled_back(server),)


def _state(server: Server, enforcement: str, online: bool) -> str:
    if server.enrolled_at is None:
        return NOT_ENROLLED
    if enforcement == UNINSTALLED:
        return UNINSTALLED
    if server.copied_at is not None:
        return "two machines"
    if not online:
        return SILENT
    if enforcement == TRYING:
        return "trying to enforce"
    if is_undone(server):
        return ENFORCING_UNDONE
    if enforcement == UNMANAGED:
        return KEY_FILES_ONLY
    if enforcement == UNPROVEN:
        return NOT_SHOWN_TO_ENFORCE
    if server.mode == ENFORCE and enforcement == OBSERVE:
        return "not enforcing yet"
    if server.mode == AUTO and enforcement == OBSERVE:
        return "observing, enforces by itself"
    if server.mode == OBSERVE and enforcement == ENFORCE:
        return "not observing yet"
    if server.is_behind:
        return "not up to date yet"
    return ENFORCING if server.mode == ENFORCE else OBSERVING
