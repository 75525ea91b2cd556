"""Questions about ends of keys and grants: which come soon, which have come, setting others; must decide nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, Table, case, func, select, type_coerce

from keyrack.model import Credential, UserKey
from keyrack.store.engine.prepared import Row, prepared
from keyrack.store.keys.credentials import credential_of, credential_question
from keyrack.store.keys.terms import in_force
from keyrack.store.keys.user_keys import user_key_of
from keyrack.store.sealing import sealed
from keyrack.store.tables import credentials, grants, servers, system_users, user_keys, users
from keyrack.store.tables.columns import Moment

LAST_PART = 4
"""An end is announced only when one part of so many of the whole time is left: else that of a key for an hour would be
announced at once."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Something that ends soon. kind: "credential", "user key" or "grant"; words: what it is, for people."""

    kind: str
    id: int
    workspace_id: int
    server_id: int | None
    words: str
    expires_at: datetime
    fingerprint: str | None


@prepared
def _credential(credential_id: int, at: datetime) -> Select[Any]:
    return credential_question().where(credentials.c.id == credential_id, in_force(credentials.c.expires_at, at))


def credential(connection: Connection, credential_id: int, at: datetime) -> Credential | None:
    """A credential that has not ended, of whichever server, or None."""
    row = _credential.row(connection, credential_id, at)
    return None if row is None else credential_of(row)


@prepared
def _user_key(key_id: int, at: datetime) -> Select[Any]:
    return select(user_keys).where(user_keys.c.id == key_id, in_force(user_keys.c.expires_at, at))


def user_key(connection: Connection, key_id: int, at: datetime) -> UserKey | None:
    """A user's key that has not ended, of whichever user, or None."""
    row = _user_key.row(connection, key_id, at)
    return None if row is None else user_key_of(row)


def renew_credential(connection: Connection, credential_id: int, end: datetime, revision: int, *, at: datetime) -> None:
    """Give a credential another end, which will be announced anew and which its host has not acknowledged yet."""
    values = {**_renewed(end, at), "revision": revision, "acknowledged_at": None}
    sealed.change(connection, credentials, sealed.row_of(credential_id), values=values)


def renew_user_key(connection: Connection, key_id: int, end: datetime, *, at: datetime) -> None:
    """Give a user's key another end, which will be announced anew."""
    sealed.change(connection, user_keys, sealed.row_of(key_id), values=_renewed(end, at))


def _renewed(end: datetime, at: datetime) -> dict[str, datetime | None]:
    return {"expires_at": end, "noticed_at": None, "renewed_at": at}


@prepared
def _ending_credentials(at: datetime, until: datetime, limit: int) -> Select[Any]:
    statement = (
        select(
            credentials.c.id,
            servers.c.workspace_id,
            credentials.c.server_id,
            credentials.c.label,
            credentials.c.fingerprint,
            credentials.c.expires_at,
            system_users.c.username,
            servers.c.name,
        )
        .join(servers, servers.c.id == credentials.c.server_id)
        .join(system_users, system_users.c.id == credentials.c.system_user_id)
    )
    return _soon(statement, credentials, at, until, limit)


@prepared
def _ending_user_keys(at: datetime, until: datetime, limit: int) -> Select[Any]:
    statement = select(user_keys, users.c.name).join(users, users.c.id == user_keys.c.user_id)
    return _soon(statement, user_keys, at, until, limit)


@prepared
def _ending_grants(at: datetime, until: datetime, limit: int) -> Select[Any]:
    return _soon(select(grants), grants, at, until, limit)


def _soon(query: Select[Any], table: Table, at: datetime, until: datetime, limit: int) -> Select[Any]:
    due = (table.c.noticed_at.is_(None), table.c.expires_at.is_not(None))
    ends = table.c.expires_at
    whole = type_coerce(ends, BigInteger) - _begins(table)
    last_part = type_coerce(type_coerce(ends, BigInteger) - whole // LAST_PART, Moment)
    return query.where(*due, ends > at, ends <= until, last_part <= at).order_by(ends).limit(limit)


def _begins(table: Table) -> ColumnElement[int]:
    """When a row's time began: when it was made, started or renewed, whichever was latest; in microseconds."""
    made: ColumnElement[int] = type_coerce(table.c.created_at, BigInteger)
    begins = made
    for later in (table.c.get("starts_at"), table.c.renewed_at):
        if later is not None:
            other = func.coalesce(type_coerce(later, BigInteger), made)
            begins = case((other > begins, other), else_=begins)
    return begins


def ending(connection: Connection, at: datetime, until: datetime, limit: int) -> tuple[Ending, ...]:
    """What ends after `at` and up to `until`, is in the last part of its time and was not announced yet, the earliest
    end first, at most `limit` of each kind.
    """
    endings = [_credential_ending(row) for row in _ending_credentials.rows(connection, at, until, limit)]
    for row in _ending_user_keys.rows(connection, at, until, limit):
        words = f"SSH key {row.title or 'without a title'} ({row.fingerprint}) of {row.name}"
        endings.append(Ending("user key", row.id, row.workspace_id, None, words, row.expires_at, row.fingerprint))
    for row in _ending_grants.rows(connection, at, until, limit):
        words = f"Grant {row.id} of the login as {row.system_user}"
        endings.append(Ending("grant", row.id, row.workspace_id, row.server_id, words, row.expires_at, None))
    return tuple(endings)


def _credential_ending(row: Row) -> Ending:
    words = f"SSH key {row.label} ({row.fingerprint}) of {row.username} on server {row.name}"
    return Ending("credential", row.id, row.workspace_id, row.server_id, words, row.expires_at, row.fingerprint)


_TABLES = {"credential": credentials, "user key": user_keys, "grant": grants}


def note(connection: Connection, one: Ending, at: datetime) -> None:
    """Note that an end was announced."""
    sealed.change(connection, _TABLES[one.kind], sealed.row_of(one.id), values={"noticed_at": at})


@prepared
def _ended_user_keys(at: datetime, limit: int) -> Select[Any]:
    return select(user_keys).where(user_keys.c.expires_at <= at).order_by(user_keys.c.expires_at).limit(limit)


def ended_user_keys(connection: Connection, at: datetime, limit: int) -> tuple[UserKey, ...]:
    """Users' keys that have expired, the earliest end first, at most `limit`."""
    return tuple(user_key_of(row) for row in _ended_user_keys.rows(connection, at, limit))
