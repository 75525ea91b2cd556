"""Open logins on servers: list them, and have them ended; must not end any itself, the agent does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from keyrack.core import cursors, lookups
from keyrack.core.instance import Instance
from keyrack.core.lookups import own_server
from keyrack.core.work import Attempt, Work
from keyrack.errors import missing
from keyrack.model import Actor, Page, Server, Session
from keyrack.store.hosts import servers, sessions


def find(
    instance: Instance, actor: Actor, server_id: int, *, offset: int = 0, limit: int = 15, cursor: str | None = None
) -> Page[Session]:
    """A page of a server's open logins, oldest first. Raises Refusal MISSING for the server.

    cursor: of the page before, "" for the first one; takes the place of offset.
    """
    attempt = Attempt(instance, actor, "sessions:read", "list sessions", target_kind="session", server_id=server_id)
    with attempt:
        after = cursors.place(cursor, int)

        def question(connection: Connection) -> Page[Session]:
            lookups.require_server(connection, actor, server_id)
            return sessions.find(connection, actor.workspace_id, server_id, offset=offset, limit=limit, after=after)

        return attempt.read(question)


def get(instance: Instance, actor: Actor, server_id: int, session_id: int) -> Session:
    """An open login of a server. Raises Refusal MISSING."""
    attempt = Attempt(instance, actor, "sessions:read", "see a session", target_kind="session", server_id=server_id)
    with attempt:
        session = attempt.read(
            lambda connection: (
                sessions.get(connection, actor.workspace_id, server_id, session_id)
                if servers.own_id(connection, actor.workspace_id, server_id)
                else None
            )
        )
        if session is None:
            raise missing("session")
        return session


@dataclass(frozen=True, slots=True)
class OpenBy:
    """An open login with a key, on one account of one server."""

    server: str
    username: str
    address: str


def of_key(instance: Instance, actor: Actor, fingerprint: str) -> list[OpenBy]:
    """The open logins with a key on the workspace's servers, the oldest first. Raises Refusal FORBIDDEN."""
    with Attempt(instance, actor, "sessions:read", "see what a key holds open", target_kind="session") as attempt:
        openings = attempt.read(lambda connection: sessions.of_key(connection, actor.workspace_id, fingerprint))
        return [OpenBy(row.server_name, row.username, row.address) for row in openings]


def counts(instance: Instance, actor: Actor, hosts: Iterable[Server]) -> dict[int, int]:
    """How many logins are open on each of these servers of the actor's workspace. Raises Refusal FORBIDDEN."""
    wanted = [server.id for server in hosts if server.workspace_id == actor.workspace_id]
    with Attempt(instance, actor, "sessions:read", "count open logins", target_kind="session") as attempt:
        return attempt.read(lambda connection: sessions.counts(connection, wanted))


def end(instance: Instance, actor: Actor, server_id: int, session_id: int) -> Session:
    """Ask a host to end a login, and answer the login; it is listed until the host says that it has ended.

    Raises Refusal MISSING.
    """
    attempt = Attempt(
        instance,
        actor,
        "sessions:write",
        "end a session",
        target_kind="session",
        target_id=session_id,
        server_id=server_id,
    )
    with attempt:

        def change(work: Work) -> Session:
            server = own_server(work, server_id)
            session = sessions.get(work.connection, server.workspace_id, server.id, session_id)
            if session is None:
                raise missing("session")
            sessions.ask_end(work.connection, session.id)
            work.bump_revision(server.id)
            work.record(
                f"Ended the session of {session.username} from {session.address} on {server.name}",
                target_id=session.id,
                level="warning",
                details={"username": session.username, "fingerprint": session.fingerprint},
            )
            ended = sessions.get(work.connection, server.workspace_id, server.id, session.id)
            assert ended is not None
            return ended

        return attempt.write(change)
