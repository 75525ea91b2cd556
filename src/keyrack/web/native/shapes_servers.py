"""Servers, their hosts' state, who is logged in there: what calls take and answer; must call no use case."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from keyrack.core.hosts import ssh_lines, status
from keyrack.core.hosts.facts import WRITERS
from keyrack.core.hosts.resync import Difference as Compared
from keyrack.core.instance import Instance
from keyrack.model import Mode, OfflineAction
from keyrack.model import Server as ServerRecord
from keyrack.model import Session as SessionRecord
from keyrack.model import SystemUser as SystemUserRecord
from keyrack.store.hosts.deleted_servers import DeletedServer as DeletedRecord
from keyrack.web.examples import FINGERPRINT
from keyrack.web.native.shapes import (
    Answer,
    Count,
    CursorWindow,
    Fingerprint,
    Flag,
    Id,
    Listed,
    Name,
    NextCursor,
    Request,
    Time,
    about,
    time,
    time_or_null,
)


class ServerFields(Request):
    """What can be said of a server; what is left out stays."""

    address: Annotated[str | None, about("Its address.", "192.0.2.11")] = None
    provider: Annotated[str | None, about("Its hosting provider; null for none.", "hetzner")] = None
    tags: Annotated[list[str] | None, about("Its tags, these and no others.", ["web"])] = None
    mode: Annotated[
        Mode | None,
        about(
            "observe changes nothing; enforce: Keyrack's keys alone open it; auto: enforce once it is safe.", "observe"
        ),
    ] = None


class ServerChange(ServerFields):
    """What is to change of a server; what is left out stays."""

    name: Annotated[str | None, about("What it is called.", "web-1")] = None


class WantedServer(ServerFields):
    """A server as wanted; what is left out stays, or is what a new server has, which needs an address."""

    system_users: Annotated[list[str], about("Accounts that it has, beside those it had.", ["deploy"])] = Field([])


class NewEnrolment(Request):
    """Which machine is enrolled; the body may be left out."""

    replace: Annotated[
        bool, about("Whether the machine may be enrolled already, as another server or a copy of one.", False)
    ] = False


class OfflinePolicy(Request):
    """What a host does while it cannot reach the service."""

    after_seconds: Annotated[int, about("After how many seconds without contact; 0 for never.", 3600)]
    then: Annotated[OfflineAction, about("What happens then.", "drop-temporary")]


class ResyncDecision(Request):
    """What becomes of what is held back on a host."""

    let_in: Annotated[
        list[Fingerprint],
        Field(default_factory=list),
        about("Fingerprints of keys to let in again.", [FINGERPRINT]),
    ]
    accept_database: Annotated[bool, about("Whether nothing is held back any more.", False)] = False


class Server(Answer):
    """A server with the status of its host."""

    untagged = frozenset(
        {"agent_version", "os", "os_version", "enforcement", "undone", "wanted", "applied", "applied_at"}
        | {"seen_at", "online", "problems", "state", "writers", "ssh_port"}
    )

    id: Annotated[Id, about("Its id.")]
    name: Annotated[Name, about("Its name.")]
    address: Annotated[str, about("Its address.", "192.0.2.10")]
    ssh_port: Annotated[int | None, about("Where its sshd listens, as its agent says; null where nobody said.", 22)]
    provider: Annotated[str | None, about("Its hosting provider; null where none is given.", "hetzner")]
    tags: Annotated[list[str], about("Its tags.", ["web"])]
    agent_version: Annotated[str | None, about("The version of the agent on its host.", "0.1.0")]
    os: Annotated[str | None, about("Its system.", "debian")]
    os_version: Annotated[str | None, about("The version of its system.", "13")]
    enrolled_at: Annotated[Time | None, about("When its host was enrolled.")]
    mode: Annotated[str, about("What was asked: observe, enforce or auto.", "enforce")]
    enforcement: Annotated[str, about("What its host says it does; empty while it said nothing.", "enforce")]
    undone: Annotated[str, about("Why its host took enforcing back, if it did.", "")]
    wanted: Annotated[Count, about("The revision that it is to obey.")]
    applied: Annotated[Count, about("The revision that its host applied.")]
    applied_at: Annotated[Time | None, about("Since when it obeys that one.")]
    seen_at: Annotated[Time | None, about("When its agent was heard of last.")]
    online: Annotated[Flag, about("Whether its agent is in contact.")]
    offline_after_seconds: Annotated[int, about("After how long without contact its offline policy begins.", 0)]
    offline_then: Annotated[OfflineAction, about("What its offline policy does.", "keep")]
    problems: Annotated[list[str], about("What is wrong there, in words.", ["the disk is full"])]
    state: Annotated[str, about("How it stands, in words.", "enforcing")]
    offline_words: Annotated[str, about("Its offline policy, in words.", "keys stay")]
    writers: Annotated[list[str], about("What else writes or serves keys there, as its host says.", [])]


class Servers(Answer):
    """Several servers."""

    items: Annotated[list[Server], about("The servers that were changed.")]


class HeldPolicy(Answer):
    """What a host does while it cannot reach the service."""

    after_seconds: Annotated[Count, about("After how many seconds; 0 for never.")]
    then: Annotated[str, about("What it does then.", "keep")]


class DeletedServer(Answer):
    """A server that was deleted."""

    id: Annotated[Id, about("The id that it had.")]
    name: Annotated[Name, about("The name that it had.")]
    address: Annotated[str, about("The address that it had.", "192.0.2.10")]
    deleted_at: Annotated[Time, about("When it was deleted.")]
    deleted_by: Annotated[str, about("Who deleted it.", "alice")]
    acknowledged_at: Annotated[Time | None, about("When its host said that no key of Keyrack opens it any more.")]


class Enrolment(Answer):
    """How a host is enrolled."""

    line: Annotated[
        str,
        about(
            "The command line to run there as root; it holds a one-time token.",
            "curl -fsSL https://keyrack.example.org/agent/install.sh | KEYRACK_AGENT_TOKEN=... sh",
        ),
    ]


class Session(Answer):
    """An open login."""

    id: Annotated[Id, about("Its id.")]
    username: Annotated[str, about("As which system user.", "deploy")]
    address: Annotated[str, about("Where it comes from.", "198.51.100.9")]
    fingerprint: Annotated[Fingerprint | None, about("The key that opened it, where it is known.")]
    label: Annotated[str | None, about("That key's label.", "laptop")]
    started_at: Annotated[Time, about("Since when.")]
    ending: Annotated[Flag, about("Whether its end was asked for.")]


class HeldBack(Answer):
    """One difference between a host and the database."""

    kind: Annotated[str, about("What differs.", "key")]
    username: Annotated[str | None, about("Of which system user.", "deploy")]
    fingerprint: Annotated[Fingerprint | None, about("Of which key.")]
    options: Annotated[list[str], about("The options of its line.", ["restrict"])]
    name: Annotated[str | None, about("What it is called.", "laptop")]
    decided_at: Annotated[Time | None, about("When somebody decided that it stays refused.")]


class DifferenceAsked(CursorWindow):
    """Which part of it."""


class Difference(Answer):
    """What is held back on a host since the database went back."""

    waiting_for_host: Annotated[Flag, about("Whether its last document is still waited for.")]
    undecided: Annotated[Flag, about("Whether somebody has to decide.")]
    held_back: Annotated[list[HeldBack], about("What differs: what the page holds.")]
    next: NextCursor


class SystemUser(Answer):
    """An account on a server that keys can open."""

    username: Annotated[str, about("Its name.", "deploy")]
    state: Annotated[str, about("How far its host is with it: unmanaged, pending, present or refused.", "present")]
    reason: Annotated[str, about("Why it is not as asked, in the host's words; empty where it did not say.", "")]
    deletable: Annotated[Flag, about("Whether it can be deleted.")]
    created_at: Annotated[Time, about("Since when it is there.")]


class SystemUserPage(Listed[SystemUser]):
    """A page of system users."""


class WaitingServer(Answer):
    """A server whose host knows more than the database."""

    server: Annotated[Name, about("Its name.")]
    server_id: Annotated[Id, about("Its id.")]


class WaitingServers(Answer):
    """Servers on which somebody must decide."""

    items: Annotated[list[WaitingServer], about("The servers, by name.")]


class ServerPage(Listed[Server]):
    """A page of servers."""


class DeletedServerPage(Listed[DeletedServer]):
    """A page of deleted servers."""


class SessionPage(Listed[Session]):
    """A page of open logins."""


def server(instance: Instance, shown: ServerRecord) -> Server:
    """A server with its status."""
    held = status.of(instance, shown)
    return Server(
        id=shown.id,
        name=shown.name,
        address=shown.address,
        ssh_port=ssh_lines.port(shown),
        provider=shown.provider,
        tags=list(shown.tags),
        agent_version=shown.agent_version,
        os=shown.os,
        os_version=shown.os_version,
        enrolled_at=time_or_null(shown.enrolled_at),
        mode=held.mode,
        enforcement=held.enforcement,
        undone=held.undone,
        wanted=held.wanted,
        applied=held.applied,
        applied_at=time_or_null(shown.applied_at),
        seen_at=time_or_null(shown.seen_at),
        online=held.online,
        offline_after_seconds=held.offline_after_seconds,
        offline_then=held.offline_then,
        problems=list(held.problems),
        state=held.state,
        offline_words=held.offline_words,
        writers=[str(name) for name in shown.facts.get(WRITERS) or ()],
    )


def held_policy(record: ServerRecord) -> HeldPolicy:
    """What a host does while it cannot reach the service."""
    return HeldPolicy(after_seconds=record.offline_after_seconds or 0, then=record.offline_then)


def deleted_server(gone: DeletedRecord) -> DeletedServer:
    """A server that was deleted."""
    return DeletedServer(
        id=gone.id,
        name=gone.name,
        address=gone.address,
        deleted_at=time(gone.deleted_at),
        deleted_by=gone.deleted_by,
        acknowledged_at=time_or_null(gone.acknowledged_at),
    )


def system_user(shown: SystemUserRecord) -> SystemUser:
    """An account on a server."""
    return SystemUser(
        username=shown.username,
        state=shown.state,
        reason=shown.reason,
        deletable=shown.deletable,
        created_at=time(shown.created_at),
    )


def session(shown: SessionRecord) -> Session:
    """An open login."""
    return Session(
        id=shown.id,
        username=shown.username,
        address=shown.address,
        fingerprint=shown.fingerprint or None,
        label=shown.label,
        started_at=time(shown.started_at),
        ending=shown.ending,
    )


def difference(record: Compared) -> Difference:
    """What is held back on a server since the database went back."""
    held = [
        HeldBack(
            kind=row.kind,
            username=row.username or None,
            fingerprint=row.fingerprint or None,
            options=list(row.options),
            name=row.name or None,
            decided_at=time_or_null(row.decided_at),
        )
        for row in record.held
    ]
    return Difference(waiting_for_host=record.asked, undecided=record.undecided, held_back=held, next=record.next)
