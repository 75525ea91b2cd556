"""Questions about open logins that hosts reported; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select, update

from keyrack.model import Page, Place, Session
from keyrack.store.engine.execute import write_lost
from keyrack.store.engine.prepared import among, prepared
from keyrack.store.rows import page
from keyrack.store.tables import credentials, servers, sessions, system_users, user_keys


def find(
    connection: Connection, workspace_id: int, server_id: int, *, offset: int, limit: int, after: Place | None = None
) -> Page[Session]:
    """A page of a server's open logins, oldest first, each with the label of its key where that is known."""
    statement = select(sessions).where(sessions.c.server_id == server_id).order_by(sessions.c.id)
    piece = page(connection, statement, _session, offset=offset, limit=limit, after=after)
    return replace(piece, items=_labelled(connection, workspace_id, server_id, piece.items))


def counts(connection: Connection, server_ids: Sequence[int]) -> dict[int, int]:
    """How many logins are open on each of these servers; those without one are left out."""
    return {row.server_id: row.number for row in _counts.rows(connection, server_ids)}


@prepared
def _counts(server_ids: Sequence[int]) -> Select[Any]:
    statement = select(sessions.c.server_id, func.count().label("number")).where(
        among(sessions.c.server_id, server_ids)
    )
    return statement.group_by(sessions.c.server_id)


def get(connection: Connection, workspace_id: int, server_id: int, session_id: int) -> Session | None:
    """An open login of this server, or None."""
    statement = select(sessions).where(sessions.c.id == session_id, sessions.c.server_id == server_id)
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    return _labelled(connection, workspace_id, server_id, (_session(row),))[0]


def ask_end(connection: Connection, session_id: int) -> None:
    """Note that a login must end; its host is told with the next answer it gets."""
    ask_end_of(connection, sessions.c.id == session_id)


def ask_end_of(connection: Connection, *which: ColumnElement[bool]) -> None:
    """The same for all logins that meet conditions. Raises DatabaseAltered if the database does not make the change."""
    not_ending = select(1).select_from(sessions).where(*which, sessions.c.ending.is_not(True)).limit(1)
    # Twice, as on PostgreSQL a report may add a login meanwhile.
    for _ in range(2):
        connection.execute(update(sessions).where(*which).values(ending=True))
        if connection.execute(not_ending).first() is None:
            return
    raise write_lost()


def _labelled(
    connection: Connection, workspace_id: int, server_id: int, unlabelled: Iterable[Session]
) -> tuple[Session, ...]:
    """The logins with the label of their key's credential on this system user, else on the server, else its title as a
    user's key.
    """
    logins = tuple(unlabelled)
    fingerprints = sorted({login.fingerprint for login in logins if login.fingerprint})
    if not fingerprints:
        return logins
    labels: dict[tuple[str, str], str] = {}
    titled = select(user_keys.c.fingerprint, user_keys.c.title).where(
        user_keys.c.workspace_id == workspace_id, user_keys.c.fingerprint.in_(fingerprints)
    )
    for fingerprint, title in connection.execute(titled.order_by(user_keys.c.id.desc())):
        if title:
            labels[fingerprint, ""] = title
    labelled = (
        select(credentials.c.fingerprint, system_users.c.username, credentials.c.label)
        .join(system_users, system_users.c.id == credentials.c.system_user_id)
        .where(credentials.c.server_id == server_id, credentials.c.fingerprint.in_(fingerprints))
    )
    for fingerprint, username, label in connection.execute(labelled.order_by(credentials.c.id.desc())):
        labels[fingerprint, ""] = labels[fingerprint, username] = label
    return tuple(
        replace(
            login,
            label=labels.get((login.fingerprint, login.username), labels.get((login.fingerprint, ""))),
        )
        for login in logins
    )


def of_key(connection: Connection, workspace_id: int, fingerprint: str) -> list[Row[Any]]:
    """The logins that a key opened on a workspace's servers, the oldest first: server_name, username, address."""
    statement = (
        select(servers.c.name.label("server_name"), sessions.c.username, sessions.c.address)
        .join(servers, servers.c.id == sessions.c.server_id)
        .where(servers.c.workspace_id == workspace_id, sessions.c.fingerprint == fingerprint)
    )
    return list(connection.execute(statement.order_by(sessions.c.id)))


def _session(row: Row[Any]) -> Session:
    return Session(**row._mapping)
