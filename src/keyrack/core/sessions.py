"""Open logins on servers: who is in, and cut them off; must not end anything itself, the agent does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from keyrack.core.credentials import own_server
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt, Work
from keyrack.errors import missing
from keyrack.model import Actor, Page, Server, Session
from keyrack.ssh import names
from keyrack.store import servers, sessions

MOST_OF_A_SERVER = 500
HOST_NAME = re.compile(r"[\x21-\x7e]{1,64}")
ADDRESS = re.compile(r"[\x21-\x7e]{0,64}")
FINGERPRINT = re.compile(r"(SHA256:[A-Za-z0-9+/]{43})?")


def find(instance: Instance, actor: Actor, server_id: int, *, offset: int = 0, limit: int = 15) -> Page[Session]:
    """A page of a server's open logins, oldest first. Raises Refusal MISSING for the server."""
    attempt = Attempt(instance, actor, "sessions:read", "list sessions", target_kind="session", server_id=server_id)
    with attempt:
        found = attempt.read(
            lambda connection: (
                sessions.find(connection, actor.workspace_id, server_id, offset=offset, limit=limit)
                if servers.own_id(connection, actor.workspace_id, server_id)
                else None
            )
        )
        if found is None:
            raise missing("server")
        return found


def end(instance: Instance, actor: Actor, server_id: int, session_id: int) -> Session:
    """Ask a host to end a login, and answer it; it leaves the list when the host says that it is over.

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
            work.touch(server.id)
            work.record(
                f"Ended the session of {session.username} from {session.address} on server {server.name}",
                target_id=session.id,
                level="warning",
                details={"username": session.username, "fingerprint": session.fingerprint},
            )
            ended = sessions.get(work.connection, server.workspace_id, server.id, session.id)
            assert ended is not None
            return ended

        return attempt.write(change)


def take(work: Work, server: Server, told: object) -> None:
    """Take a host's word for who is logged in: the whole list, anew each time; what is no login is left out."""
    if not isinstance(told, list):
        return
    open_now: dict[str, dict[str, Any]] = {}
    for entry in told[:MOST_OF_A_SERVER]:
        read = _login(entry) if isinstance(entry, Mapping) else None
        if read is not None:
            open_now[str(entry["id"])] = read
    sessions.replace_all(work.connection, server.id, open_now)


def to_end(instance: Instance, server_id: int) -> tuple[str, ...]:
    """The logins that a host must end, by its own names for them."""
    return instance.database.read(lambda connection: sessions.to_end(connection, server_id))


def _login(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """One reported login as columns; None for what is none."""
    host_name, address, fingerprint = entry.get("id"), entry.get("address", ""), entry.get("fingerprint") or ""
    texts = ((host_name, HOST_NAME), (address, ADDRESS), (fingerprint, FINGERPRINT))
    if not all(isinstance(text, str) and pattern.fullmatch(text) for text, pattern in texts):
        return None
    if names.username_problem(entry.get("user")) is not None:
        return None
    try:
        started_at = datetime.fromisoformat(str(entry.get("started_at")))
    except ValueError:
        return None
    if started_at.tzinfo is None:
        return None
    return {"username": entry["user"], "address": address, "fingerprint": fingerprint, "started_at": started_at}
