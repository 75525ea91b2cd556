"""Reads and writes keys on many servers at once, by a few statements for ten thousand servers (BATCH_SIZE); must decide
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Select, select, union

from keyrack.store.chunks import chunks
from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.keys.grants import begun
from keyrack.store.keys.terms import in_force
from keyrack.store.sealing import sealed, sealed_sets
from keyrack.store.sealing.sums import BATCH_SIZE
from keyrack.store.tables import (
    credentials,
    grants,
    group_members,
    revocations,
    revoked_keys,
    server_tags,
    servers,
    system_users,
    user_keys,
    users,
)


@dataclass(frozen=True, slots=True)
class ChosenServer:
    """A server as answers name it; revision: its newest before the change."""

    id: int
    name: str
    revision: int


@dataclass(frozen=True, slots=True)
class HeldCredential:
    """A credential. row: all its columns; username: its system user; holds: whether the row is as Keyrack wrote it."""

    row: Row
    username: str
    holds: bool


def all_servers(connection: Connection, workspace_id: int) -> tuple[ChosenServer, ...]:
    """All servers of a workspace, oldest first."""
    _, rows = _servers.raw(connection, workspace_id, None, None)
    return tuple([ChosenServer(*values) for values in rows])  # raw values: none of these columns needs conversion


def servers_named(connection: Connection, workspace_id: int, names: Iterable[str]) -> tuple[ChosenServer, ...]:
    """The servers of a workspace that have one of these names, oldest first."""
    return tuple(ChosenServer(**row) for row in _servers.rows(connection, workspace_id, tuple(names), None))


def servers_numbered(connection: Connection, workspace_id: int, ids: Iterable[int]) -> tuple[ChosenServer, ...]:
    """The servers of a workspace that have one of these ids, oldest first."""
    return tuple(ChosenServer(**row) for row in _servers.rows(connection, workspace_id, None, tuple(ids)))


def servers_tagged(connection: Connection, workspace_id: int, tag: str) -> tuple[ChosenServer, ...]:
    """The servers of a workspace that have a tag, oldest first; rows of tags that others wrote do not count."""
    chosen = []
    for row in _tagged.rows(connection, workspace_id, tag):
        if sealed.sound(connection, server_tags, row):
            chosen.append(ChosenServer(row.id, row.name, row.revision))
    return tuple(chosen)


@prepared
def _servers(workspace_id: int, names: Sequence[str] | None, ids: Sequence[int] | None) -> Select[Any]:
    statement = select(servers.c.id, servers.c.name, servers.c.revision).where(servers.c.workspace_id == workspace_id)
    if names is not None:
        statement = statement.where(among(servers.c.name, names))
    if ids is not None:
        statement = statement.where(among(servers.c.id, ids))
    return statement.order_by(servers.c.id)


@prepared
def _tagged(workspace_id: int, tag: str) -> Select[Any]:
    return (
        select(servers.c.id, servers.c.name, servers.c.revision, server_tags)
        .join(server_tags, server_tags.c.server_id == servers.c.id)
        .where(server_tags.c.tag == tag, servers.c.workspace_id == workspace_id)
        .order_by(servers.c.id)
    )


def accounts_named(connection: Connection, server_ids: Iterable[int], username: str) -> dict[int, int]:
    """By server id the id of its system user of this name; servers without one are left out."""
    user_ids: dict[int, int] = {}
    for some in chunks(server_ids, BATCH_SIZE):
        user_ids.update(_accounts.raw(connection, some, username)[1])
    return user_ids


@prepared
def _accounts(server_ids: Sequence[int], username: str) -> Select[Any]:
    named = (among(system_users.c.server_id, server_ids), system_users.c.username == username)
    return select(system_users.c.server_id, system_users.c.id).where(*named)


def credentials_labelled(connection: Connection, server_ids: Iterable[int], label: str) -> list[HeldCredential]:
    """The credentials with a label on these servers, ended or not."""
    held: list[HeldCredential] = []
    for some in chunks(server_ids, BATCH_SIZE):
        held += _held(connection, _labelled.rows(connection, some, label))
    return held


def credentials_with_key(connection: Connection, server_ids: Iterable[int], fingerprint: str) -> list[HeldCredential]:
    """The credentials with a key on these servers, ended or not, in the order of server ids."""
    wanted = set(server_ids)
    rows = [row for row in _with_key.rows(connection, fingerprint) if row.server_id in wanted]
    return _held(connection, rows)


def _held(connection: Connection, rows: Iterable[Row]) -> list[HeldCredential]:
    return [HeldCredential(row, row.pop("username"), sealed.sound(connection, credentials, row)) for row in rows]


_named = select(credentials, system_users.c.username).join(
    system_users, system_users.c.id == credentials.c.system_user_id
)


@prepared
def _labelled(server_ids: Sequence[int], label: str) -> Select[Any]:
    query = _named.where(among(credentials.c.server_id, server_ids), credentials.c.label == label)
    return query.order_by(credentials.c.server_id)


@prepared
def _with_key(fingerprint: str) -> Select[Any]:
    return _named.where(credentials.c.fingerprint == fingerprint).order_by(credentials.c.server_id, credentials.c.id)


def add_credentials(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Insert credentials (the columns of the table); answers their rows."""
    return sealed_sets.insert_many(connection, credentials, rows)


def change_credentials(
    connection: Connection, held: Iterable[HeldCredential], revisions: Mapping[int, int], values: Mapping[str, Any]
) -> None:
    """Set columns of credentials that were read in this transaction; revisions: by server the one that says so."""
    listed = list(held)
    sealed_sets.change_many(
        connection,
        credentials,
        (one.row for one in listed),
        lambda old: {**values, "revision": revisions[old["server_id"]]},
        sound=all(one.holds for one in listed),
    )


def remove_credentials(connection: Connection, ids: Iterable[int]) -> None:
    """Delete credentials by their ids."""
    for some in chunks(ids, BATCH_SIZE):
        sealed_sets.remove_among(connection, credentials, id=some)


def remove_held(connection: Connection, held: Iterable[HeldCredential]) -> None:
    """Delete credentials that were read in this transaction."""
    for some in chunks(held, BATCH_SIZE):
        sound = {one.row.id: one.row for one in some if one.holds}
        sealed_sets.remove_among(connection, credentials, sound, id=[one.row.id for one in some])


def unrevoke(connection: Connection, server_ids: Iterable[int], fingerprints: Iterable[str]) -> None:
    """Let hosts take keys again, except those that are revoked everywhere in a workspace of one of these servers."""
    ids = sorted(set(server_ids))
    prints = sorted(set(fingerprints))
    if not ids or not prints:
        return
    noted = set(_revoked_everywhere.values(connection, ids, prints))
    free = [one for one in prints if one not in noted]
    for some in chunks(ids, BATCH_SIZE) if free else ():
        sealed_sets.remove_among(connection, revocations, server_id=some, fingerprint=free)


@prepared
def _revoked_everywhere(server_ids: Sequence[int], fingerprints: Sequence[str]) -> Select[Any]:
    theirs = select(servers.c.workspace_id).where(among(servers.c.id, server_ids))
    mine = (revoked_keys.c.workspace_id.in_(theirs), among(revoked_keys.c.fingerprint, fingerprints))
    return select(revoked_keys.c.fingerprint).where(*mine)


def still_opened(
    connection: Connection, server_ids: Iterable[int], workspace_id: int, fingerprints: Iterable[str], at: datetime
) -> frozenset[tuple[int, str]]:
    """As openings.still_opens for many: the pairs of server id and fingerprint where something lets the key in."""
    ids, prints = set(server_ids), list(fingerprints)
    pairs = {(row.server_id, row.fingerprint) for row in _entered.rows(connection, prints, at)}
    by_tag: dict[str, set[str]] = {}
    for row in _granted.rows(connection, workspace_id, prints, at):
        if row.all_servers:
            pairs |= {(server_id, row.fingerprint) for server_id in ids}
        elif row.server_id is not None:
            pairs.add((row.server_id, row.fingerprint))
        else:
            by_tag.setdefault(row.tag, set()).add(row.fingerprint)
    if by_tag:
        for row in _with_tags.rows(connection, workspace_id, sorted(by_tag)):
            pairs |= {(row.server_id, one) for one in by_tag[row.tag]}
    return frozenset(pair for pair in pairs if pair[0] in ids)


@prepared
def _entered(fingerprints: Sequence[str], at: datetime) -> Select[Any]:
    named = (among(credentials.c.fingerprint, fingerprints), in_force(credentials.c.expires_at, at))
    return select(credentials.c.server_id, credentials.c.fingerprint).where(*named)


@prepared
def _granted(workspace_id: int, fingerprints: Sequence[str], at: datetime) -> CompoundSelect[Any]:
    """Grants that a holder of one of the keys has by name or by group, each with the key."""
    columns = (grants.c.server_id, grants.c.tag, grants.c.all_servers, user_keys.c.fingerprint)
    holders = select(*columns).join_from(user_keys, users, users.c.id == user_keys.c.user_id)
    which = (
        among(user_keys.c.fingerprint, fingerprints),
        in_force(user_keys.c.expires_at, at),
        users.c.disabled_at.is_(None),
        grants.c.workspace_id + 0 == workspace_id,  # "+ 0": not by this column's index, which would read all grants
        begun(at),
        in_force(grants.c.expires_at, at),
    )
    by_name = holders.join(grants, grants.c.user_id == users.c.id).where(*which)
    by_group = holders.join(group_members, group_members.c.user_id == users.c.id).join(
        grants, grants.c.group_id == group_members.c.group_id
    )
    return union(by_name, by_group.where(*which))


@prepared
def _with_tags(workspace_id: int, tags: Sequence[str]) -> Select[Any]:
    tagged = select(server_tags.c.server_id, server_tags.c.tag)
    mine = tagged.join(servers, servers.c.id == server_tags.c.server_id).where(servers.c.workspace_id == workspace_id)
    return mine.where(among(server_tags.c.tag, tags))
