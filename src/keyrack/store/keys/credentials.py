"""Questions about credentials: keys on a system user of a server; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, Update, select, update

from keyrack.model import Credential
from keyrack.store.engine.prepared import CompiledStatement, Row, among, prepared
from keyrack.store.keys.terms import in_force
from keyrack.store.per_server import per_server
from keyrack.store.rows import Records
from keyrack.store.sealing import sealed, sealed_sets, seals
from keyrack.store.tables import (
    credentials,
    servers,
    system_users,
)
from keyrack.store.unchanged import kept

_ACKNOWLEDGED = "acknowledged"
MAX_CHECKED = 60_000
"""Credentials whose records are kept in memory with their seals checked; some 2 kB each."""


def _with_account(columns: Sequence[Any]) -> Select[Any]:
    return (
        select(*columns)
        .join(system_users, system_users.c.id == credentials.c.system_user_id)
        .join(servers, servers.c.id == credentials.c.server_id)
    )


_columns: tuple[Any, ...] = (
    *credentials.c,
    system_users.c.username,
    (servers.c.applied_revision >= credentials.c.revision).label(_ACKNOWLEDGED),
)
_credential = _with_account(_columns)
# Without acknowledged_at: a row would change, and be checked anew, when its host acknowledges it.
_to_check = _with_account([column for column in _columns if column.name != "acknowledged_at"])


def credential_question() -> Select[Any]:
    """A question for all credentials, each with its system user's name and whether its host acknowledged it."""
    return _credential


def credential_columns() -> tuple[Any, ...]:
    """The columns that credential_question() reads, the id first, for a question with other joins."""
    return _columns


def add_credential(
    connection: Connection, username: str, values: Mapping[str, Any], number: sealed_sets.Ids
) -> Credential:
    """Insert a credential (the columns of the table); answers it. username: of its system user; number: the id reserved
    for it.
    """
    (row,) = sealed_sets.insert_many(connection, credentials, [values], number)
    return Credential(**seals.unsealed(row), username=username, acknowledged=False)


def _one_in_force(server_id: int, credential_id: int, at: datetime) -> Select[Any]:
    return _credential.where(
        credentials.c.id == credential_id,
        credentials.c.server_id == server_id,
        in_force(credentials.c.expires_at, at),
    )


_credential_by_id = prepared(_one_in_force)


@prepared
def _own_credential(workspace_id: int, server_id: int, credential_id: int, at: datetime) -> Select[Any]:
    return _one_in_force(server_id, credential_id, at).where(servers.c.workspace_id == workspace_id)


def get_credential(connection: Connection, server_id: int, credential_id: int, at: datetime) -> Credential | None:
    """A credential of this server that has not ended, or None."""
    return credential_records.one(connection, _credential_by_id, server_id, credential_id, at)


def own_credential(
    connection: Connection, workspace_id: int, server_id: int, credential_id: int, at: datetime
) -> Credential | None:
    """The same, or None if the server is not of this workspace."""
    return kept(
        connection,
        ("credential", workspace_id, server_id, credential_id),
        lambda: credential_records.one(connection, _own_credential, workspace_id, server_id, credential_id, at),
        at=at,
        until=lambda credential: at if credential is None else credential.expires_at,
    )


@prepared
def _credential_by_label(server_id: int, label: str) -> Select[Any]:
    return _credential.where(credentials.c.server_id == server_id, credentials.c.label == label)


def credential_by_label(connection: Connection, server_id: int, label: str) -> Credential | None:
    """The credential with this label on this server, ended or not, or None."""
    row = _credential_by_label.row(connection, server_id, label)
    return None if row is None else credential_of(row)


@prepared
def _credentials_of_system_user(system_user_id: int) -> Select[Any]:
    return _credential.where(credentials.c.system_user_id == system_user_id)


def credentials_of_system_user(connection: Connection, system_user_id: int) -> tuple[Credential, ...]:
    """All credentials of one system user, ended or not."""
    return tuple(credential_of(row) for row in _credentials_of_system_user.rows(connection, system_user_id))


def acknowledge(connection: Connection, server_id: int, revision: int, at: datetime) -> None:
    """Note that a host acknowledged the credentials up to a revision; the time of those noted before stays."""
    _acknowledge.run(connection, server_id, revision, at)


@prepared
def _acknowledge(server_id: int, revision: int, at: datetime) -> Update:
    # No seal is over this column (VOLATILE).
    its = credentials.c
    which = (its.server_id == server_id, its.revision <= revision, its.acknowledged_at.is_(None))
    return update(credentials).where(*which).values(acknowledged_at=at)


@prepared
def _ended_credentials(at: datetime, limit: int) -> Select[Any]:
    ended = credentials.c.expires_at
    return _credential.where(ended <= at).order_by(ended, credentials.c.id).limit(limit)


def ended_credentials(connection: Connection, at: datetime, limit: int) -> tuple[Credential, ...]:
    """Credentials whose end has come, the earliest end first, at most `limit`."""
    return tuple(credential_of(row) for row in _ended_credentials.rows(connection, at, limit))


def restrict_credential(
    connection: Connection, credential_id: int, restrictions: Mapping[str, Any], revision: int
) -> None:
    """Give a credential other restrictions from a revision on, which its host has not acknowledged yet."""
    values = {"restrictions": dict(restrictions), "revision": revision, "acknowledged_at": None}
    sealed.change(connection, credentials, sealed.row_of(credential_id), values=values)


def remove_credential(connection: Connection, credential_id: int) -> bool:
    """Delete a credential; False when it was gone already."""
    return sealed.remove(connection, credentials, sealed.row_of(credential_id)) == 1


@dataclass(slots=True)
class CheckedCredential:
    """A credential whose seal was checked. made: what a caller made of it, kept as long as the row is the same."""

    credential: Credential
    holds: bool
    made: Any = None


CredentialCheck = tuple[CheckedCredential, bool, bool]
"""A credential; whether its row and its system user's row are sound; whether its host acknowledged it."""


def sealed_credentials(connection: Connection, server_id: int, at: datetime) -> tuple[tuple[Credential, bool], ...]:
    """The credentials of a server that are in force, each with whether its row and its system user's row are as Keyrack
    wrote them. Their acknowledged_at is not read.
    """
    return _as_acknowledged(checked_credentials(connection, server_id, at))


def checked_credentials(
    connection: Connection, server_id: int, at: datetime, fingerprints: Sequence[str] | None = None
) -> list[CredentialCheck]:
    """The same as kept records, whose `acknowledged` is always True; fingerprints: only credentials with these keys."""
    if fingerprints is None:
        plan, rows = _credentials_in_force.raw(connection, server_id, at)
    else:
        plan, rows = _credentials_of_server.raw(connection, server_id, None, at, fingerprints)
    return _with_seals(connection, server_id, plan, rows)


@per_server
def _credentials_in_force(server_ids: Sequence[int], at: datetime) -> Select[Any]:
    query = _to_check.where(among(credentials.c.server_id, server_ids)).order_by(credentials.c.id)
    return query.where(in_force(credentials.c.expires_at, at))


def credentials_with_seals(
    connection: Connection, server_id: int, *, label: str | None = None
) -> tuple[tuple[Credential, bool], ...]:
    """As sealed_credentials, but ended ones too, or the one with a label."""
    plan, rows = _credentials_of_server.raw(connection, server_id, label, None, None)
    return _as_acknowledged(_with_seals(connection, server_id, plan, rows))


@prepared
def _credentials_of_server(
    server_id: int, label: str | None, at: datetime | None, fingerprints: Sequence[str] | None
) -> Select[Any]:
    statement = _to_check.where(credentials.c.server_id == server_id).order_by(credentials.c.id)
    if fingerprints is not None:
        statement = statement.where(among(credentials.c.fingerprint, fingerprints))
    if label is not None:
        statement = statement.where(credentials.c.label == label)
    return statement if at is None else statement.where(in_force(credentials.c.expires_at, at))


@per_server
def _system_users_of(server_ids: Sequence[int]) -> Select[Any]:
    return select(system_users).where(among(system_users.c.server_id, server_ids))


def _with_seals(
    connection: Connection, server_id: int, plan: CompiledStatement, rows: list[tuple[Any, ...]]
) -> list[CredentialCheck]:
    accounts = {
        row.id: sealed.sound(connection, system_users, row) for row in _system_users_of.rows(connection, server_id)
    }
    # The last column, acknowledged, is left out of the kept rows: each report of the host may change it in all of them.
    assert plan.names[-1] == _ACKNOWLEDGED
    reads = tuple(read for read in plan.reads if read[0] != _ACKNOWLEDGED)
    apart = replace(plan, names=plan.names[:-1], reads=reads)
    checked = _checked_credentials.of(connection, apart, [values[:-1] for values in rows])
    return [
        (one, one.holds and accounts.get(one.credential.system_user_id, False), bool(values[-1]))
        for one, values in zip(checked, rows, strict=True)
    ]


def _as_acknowledged(checked: Iterable[CredentialCheck]) -> tuple[tuple[Credential, bool], ...]:
    return tuple(
        (one.credential if acknowledged else replace(one.credential, acknowledged=False), holds)
        for one, holds, acknowledged in checked
    )


def credential_of(row: Row) -> Credential:
    """A credential from its row, as credential_question() asks for it."""
    return Credential(**seals.unsealed(row))


credential_records = Records(lambda connection, row: credential_of(row), table=credentials)
# Kept for documents: each change of a key makes its host's document anew, of all its credentials.
_checked_credentials = Records(
    lambda connection, row: CheckedCredential(
        credential_of(Row({**row, _ACKNOWLEDGED: True})),
        sealed.holds(connection, credentials, row),
    ),
    keep=lambda checked: checked.holds,
    most=MAX_CHECKED,
    table=credentials,
)
