"""Questions about servers and their tags; must decide nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, or_, select

from keyrack.model import Page, Place, Server, Window
from keyrack.ssh.names import spellings
from keyrack.store.database import announce
from keyrack.store.engine.nonblocking import expect
from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.hosts import lineage, reported_facts, server_states
from keyrack.store.per_server import per_server
from keyrack.store.rows import Records, first, inserted, move_on, paged
from keyrack.store.sealing import held_servers, receipts, sealed, sealed_sets, seals, sums
from keyrack.store.search import contains
from keyrack.store.tables import server_tags, servers
from keyrack.store.tables.hosts import REPORTED_LINEAGE, ROLLED_BACK_AT

MAX_KEPT = 10_000
# Fields of a record whose columns have other names.
_STORED_AS = {"reported_lineage": REPORTED_LINEAGE, "rolled_back_at": ROLLED_BACK_AT}


@dataclass(frozen=True, slots=True)
class RevisionState:
    """What tells whether a host obeys a revision that this database issued; fields as the columns of servers."""

    revision: int
    lineage: str
    applied_revision: int
    applied_lineage: str
    reported_lineage: str
    rolled_back_at: datetime | None
    compared_at: datetime | None
    agent_run: str | None = None
    copied_at: datetime | None = None


def add(
    connection: Connection,
    workspace_id: int,
    *,
    host: str,
    name: str,
    address: str,
    provider: str | None,
    mode: str,
    at: datetime,
    server_id: int | None = None,
) -> int:
    """Insert a server at revision 1, whose host was not heard of yet; answers its id. server_id: the id to give it."""
    if server_id is not None:
        move_on(connection, servers, server_id)
    return inserted(
        connection,
        servers,
        {
            **({} if server_id is None else {"id": server_id}),
            "workspace_id": workspace_id,
            "host": host,
            "name": name,
            "address": address,
            "provider": provider,
            "mode": mode,
            "revision": 1,
            "lineage": lineage.draw(),
            "applied_revision": 0,
            "sshd": {},
            "rows_sum": bytes(32),
            "facts": {},
            "created_at": at,
            "updated_at": at,
        },
    )


@prepared
def _by_id(server_id: int, workspace_id: int | None = None) -> Select[Any]:
    statement = select(servers).where(servers.c.id == server_id)
    return statement if workspace_id is None else statement.where(servers.c.workspace_id == workspace_id)


@prepared
def _by_name(workspace_id: int, name: str) -> Select[Any]:
    return select(servers).where(servers.c.workspace_id == workspace_id, servers.c.name == name).order_by(servers.c.id)


@prepared
def _by_agent_secret(secret_hash: bytes) -> Select[Any]:
    return select(servers).where(servers.c.agent_secret_hash == secret_hash)


@prepared
def _id_by_agent_secret(secret_hash: bytes) -> Select[Any]:
    return select(servers.c.id).where(servers.c.agent_secret_hash == secret_hash)


@prepared
def _by_ids(ids: Iterable[int], locked: bool) -> Select[Any]:
    statement = select(servers).where(among(servers.c.id, ids)).order_by(servers.c.id)
    return statement.with_for_update() if locked else statement


@prepared
def _own_id(workspace_id: int, server_id: int) -> Select[Any]:
    return select(servers.c.id).where(servers.c.id == server_id, servers.c.workspace_id == workspace_id)


def get(connection: Connection, workspace_id: int, server_id: int) -> Server | None:
    """A server of this workspace, or None."""
    return _one(connection, _by_id.row(connection, server_id, workspace_id))


def by_id(connection: Connection, server_id: int) -> Server | None:
    """A server of any workspace, or None: for hosts, which prove by a secret which server they are."""
    rows = _of_host.rows(connection, server_id)
    return _one(connection, Row((column.name, rows[0][column.name]) for column in servers.c) if rows else None)


def by_ids(connection: Connection, server_ids: Iterable[int], *, locked: bool = False) -> dict[int, Server]:
    """Servers of any workspace by id, in two questions; those that are gone are left out. locked: nobody else changes
    them until the transaction ends.
    """
    rows = _servers.all(connection, _by_ids, tuple(server_ids), locked)
    tags = _tags(connection, [server.id for server in rows])
    return {server.id: _with_tags(server, tags) for server in rows}


@per_server
def _of_host(server_ids: Iterable[int]) -> Select[Any]:
    return select(servers, servers.c.id.label("server_id")).where(among(servers.c.id, server_ids))


def by_name(connection: Connection, workspace_id: int, name: str) -> Server | None:
    """The first server of this workspace with this name, however it is spelled; or None."""
    return _one(connection, first(_by_name.row(connection, workspace_id, one) for one in spellings(name)))


def all_by_name(connection: Connection, workspace_id: int, name: str) -> tuple[Server, ...]:
    """All servers of this workspace with this name, oldest first; names need not be unique."""
    rows = next(filter(None, (_by_name.rows(connection, workspace_id, one) for one in spellings(name))), [])
    tags = _tags(connection, [row.id for row in rows])
    return tuple(_with_tags(_server(connection, row), tags) for row in rows)


def by_agent_secret(connection: Connection, secret_hash: bytes) -> Server | None:
    """The server whose agent proves itself with this secret, or None."""
    return _one(connection, _by_agent_secret.row(connection, secret_hash))


def by_agent_secrets(connection: Connection, secret_hashes: Iterable[bytes]) -> dict[bytes, Server]:
    """The servers whose agents prove themselves with these secrets, by the secret's hash; unknown ones are left out."""
    ids = {secret_hash: _id_by_agent_secret.value(connection, secret_hash) for secret_hash in secret_hashes}
    by_number = by_ids(connection, [server_id for server_id in ids.values() if server_id is not None])
    return {secret_hash: by_number[server_id] for secret_hash, server_id in ids.items() if server_id in by_number}


def own_id(connection: Connection, workspace_id: int, server_id: int | None) -> int | None:
    """The same id if it is that of a server of this workspace, else None."""
    return None if server_id is None else _own_id.value(connection, workspace_id, server_id)


@paged
def _find(
    workspace_id: int,
    sought: str | None,
    tag: str | None,
    silent_since: datetime | None,
    behind: bool,
    new: bool,
    unconfirmed: bool,
    troubled: bool,
) -> Select[Any]:
    statement = select(servers).where(servers.c.workspace_id == workspace_id).order_by(servers.c.id)
    if silent_since is not None:
        unheard = or_(servers.c.seen_at.is_(None), servers.c.seen_at < silent_since)
        statement = statement.where(servers.c.enrolled_at.is_not(None), unheard)
    wanted = zip((behind, new, unconfirmed, troubled), server_states.CONDITIONS.values(), strict=True)
    statement = statement.where(*(condition for is_asked, condition in wanted if is_asked))
    if tag is not None:
        statement = statement.where(servers.c.id.in_(select(server_tags.c.server_id).where(server_tags.c.tag == tag)))
    if sought is None:
        return statement
    return statement.where(or_(contains(servers.c.name, sought), contains(servers.c.address, sought)))


def find(
    connection: Connection,
    workspace_id: int,
    *,
    search: str = "",
    tag: str | None = None,
    silent_since: datetime | None = None,
    state: str = "",
    offset: int,
    limit: int,
    after: Place | None = None,
) -> Page[Server]:
    """A page of servers, oldest first; search: part of the name or address, in any case; tag: a tag that they have.

    silent_since: only enrolled ones whose hosts were not heard of since then; state: one of server_states.CONDITIONS,
    "" for any.
    """
    behind, new, unconfirmed, troubled = (state == one for one in server_states.CONDITIONS)
    of = (workspace_id, search or None, tag, silent_since, behind, new, unconfirmed, troubled)
    page = _find.page(connection, lambda row: _server(connection, row), Window(limit, offset, after), *of)
    tags = _tags(connection, [server.id for server in page.items])
    return page.showing(_with_tags(server, tags) for server in page.items)


def change(connection: Connection, server_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a server."""
    sealed.change(connection, servers, sealed.row_of(server_id), values=values)


def change_each(connection: Connection, changes: Mapping[int, Mapping[str, Any]]) -> None:
    """Set columns of many servers; changes: by id the values of each."""
    sealed.change_each(connection, servers, changes)


def remove(connection: Connection, server_id: int) -> None:
    """Delete a server with all that hangs on it."""
    sealed.remove(connection, servers, sealed.row_of(server_id))


def raise_revision(connection: Connection, server_id: int, at: datetime) -> int:
    """Raise a server's revision by one and announce it; answers the new revision."""
    (raised,) = sealed.recompute(
        connection,
        servers,
        sealed.row_of(server_id),
        new=lambda old: {**lineage.following(old), "updated_at": at},
    )
    lineage.keep(connection, [raised])
    announce(connection, server_id)
    return int(raised["revision"])


@contextmanager
def raised(
    connection: Connection,
    server_ids: Iterable[int],
    at: datetime,
    *,
    locked: Sequence[Row] | None = None,
    last: bool = False,
    note: Callable[[dict[int, int]], object] = lambda revisions: None,
) -> Iterator[dict[int, int]]:
    """Raise the revisions of servers by one each and announce them, in few statements however many servers there are.

    The block gets the new revisions by server, and must change no server's row itself. At its end the revisions are
    written, with the sums of all rows that were inserted and deleted until then. locked: the rows of these servers from
    sealed_sets.locked_servers, if they were read already and not changed since. last: the command reads no server
    afterwards, so the rows may be written together with those of later commands (sealing/held_servers.py). note: called
    with the revisions at the end.
    """
    concerned = tuple(server_ids)
    expect(connection, len(concerned))
    rows = sealed_sets.locked_servers(connection, concerned) if locked is None else locked
    revisions = {row["id"]: row["revision"] + 1 for row in rows}
    yield revisions

    written = []
    marks = lineage.draw_many(len(rows))

    def new(old: Mapping[str, Any]) -> Mapping[str, Any]:
        values = lineage.following(old, marks.pop())
        written.append({"id": old["id"], **values})
        return {**values, "updated_at": at}

    if last and held_servers.may_hold(connection):
        for row in rows:
            held_servers.hold(connection, row, new(row))
    else:
        sealed_sets.change_servers(connection, rows, new)
    lineage.keep(connection, written)
    for row in rows:
        announce(connection, row["id"])
    note(revisions)


def raise_revision_above(connection: Connection, server_id: int, least: int, at: datetime) -> int:
    """Raise a server's revision above its present one and above `least`, and announce it; answers the new revision.

    The marks of earlier revisions move to older_marks: in the row, a mark's place says how many revisions back it is.
    """

    def new(old: Mapping[str, Any]) -> Mapping[str, Any]:
        lineage.keep(connection, [old], all_of_them=True)
        return {"revision": max(least, old["revision"]) + 1, "lineage": lineage.draw(), "updated_at": at}

    (raised,) = sealed.recompute(connection, servers, sealed.row_of(server_id), new=new)
    announce(connection, server_id)
    return int(raised["revision"])


def revision_state(connection: Connection, server_id: int) -> RevisionState | None:
    """Which revision a server's host is to obey and which it obeys, or None when the server is gone."""
    return revision_states(connection, (server_id,)).get(server_id, (None, None))[1]


def revision_states(connection: Connection, server_ids: Iterable[int]) -> dict[int, tuple[bytes | None, RevisionState]]:
    """By server id the hash of its agent's secret and the same; servers that are gone are left out."""
    by_server = {}
    for row in _revision_states.rows(connection, tuple(server_ids)):
        server_id, secret_hash = row.pop("id"), row.pop("agent_secret_hash")
        by_server[server_id] = secret_hash, RevisionState(**row)
    return by_server


@prepared
def _revision_states(server_ids: Iterable[int]) -> Select[Any]:
    columns = (servers.c[_STORED_AS.get(name, name)].label(name) for name in RevisionState.__slots__)
    return select(servers.c.id, servers.c.agent_secret_hash, *columns).where(among(servers.c.id, server_ids))


def with_hosts_ahead(connection: Connection, workspace_id: int) -> tuple[Server, ...]:
    """The servers of a workspace whose hosts obeyed a document that this database does not know, by name."""
    return tuple(_server(connection, row) for row in _with_hosts_ahead.rows(connection, workspace_id))


@prepared
def _with_hosts_ahead(workspace_id: int) -> Select[Any]:
    statement = select(servers).where(servers.c.workspace_id == workspace_id, servers.c[ROLLED_BACK_AT].is_not(None))
    return statement.order_by(servers.c.name, servers.c.id)


def set_tags(connection: Connection, server_id: int, tags: Iterable[str]) -> None:
    """Make these the tags of a server."""
    sealed.remove(connection, server_tags, server_tags.c.server_id == server_id)
    sealed.insert_rows(connection, server_tags, [{"server_id": server_id, "tag": tag} for tag in sorted(set(tags))])


def complete(connection: Connection, server_id: int) -> bool:
    """Whether nobody but Keyrack deleted rows of a server or put old ones back; if somebody did, that is remembered for
    an alarm.
    """
    if sums.fits(connection, server_id):
        return True
    row = _by_id.row(connection, server_id)
    if row is not None:
        seals.incomplete(connection, servers, row)
    return False


def ids_after(connection: Connection, server_id: int, limit: int) -> list[int]:
    """Ids of servers of all workspaces that are above an id, in order, at most `limit`."""
    return _ids_after.values(connection, server_id, limit)


@prepared
def _ids_after(server_id: int, limit: int) -> Select[Any]:
    return select(servers.c.id).where(servers.c.id > server_id).order_by(servers.c.id).limit(limit)


def ids_with_tag(connection: Connection, workspace_id: int, tag: str) -> tuple[int, ...]:
    """The servers of a workspace that have a tag."""
    return tuple(_ids_with_tag.values(connection, workspace_id, tag))


@prepared
def _ids_with_tag(workspace_id: int, tag: str) -> Select[Any]:
    return (
        select(servers.c.id)
        .join(server_tags, server_tags.c.server_id == servers.c.id)
        .where(servers.c.workspace_id == workspace_id, server_tags.c.tag == tag)
        .order_by(servers.c.id)
    )


def _tags(connection: Connection, ids: list[int]) -> dict[int, list[str]]:
    tags: dict[int, list[str]] = {}
    for server_id, tag, sound in _tags_held.all(connection, _tags_of, ids) if ids else ():
        if sound:
            tags.setdefault(server_id, []).append(tag)
    return tags


@prepared
def _tags_of(ids: Iterable[int]) -> Select[Any]:
    return select(server_tags).where(among(server_tags.c.server_id, ids)).order_by(server_tags.c.tag)


def _one(connection: Connection, row: Row | None) -> Server | None:
    if row is None:
        return None
    tags = [tag.tag for tag in _tags_of_one.rows(connection, row.id) if sealed.sound(connection, server_tags, tag)]
    return replace(_server(connection, row), tags=tuple(tags))


@per_server
def _tags_of_one(server_ids: Iterable[int]) -> Select[Any]:
    return select(server_tags).where(among(server_tags.c.server_id, server_ids)).order_by(server_tags.c.tag)


def _server(connection: Connection, row: Row) -> Server:
    values = seals.unsealed(row)
    values |= {name: reported_facts.of(values[name]) for name in ("sshd", "facts")}
    values |= receipts.proved(connection, row) | {"offline_then": reported_facts.offline(values["offline_then"])}
    values |= {name: values.pop(column) for name, column in _STORED_AS.items()}
    del values["agent_secret_hash"], values["rows_sum"], values[receipts.RECEIPT]
    return Server(**values, sound=sealed.sound(connection, servers, row))


def _with_tags(server: Server, tags: Mapping[int, list[str]]) -> Server:
    own_tags = tags.get(server.id)
    return replace(server, tags=tuple(own_tags)) if own_tags else server


# Kept, as a server's row is read for its document, to know its agent and for each report, and changes less often.
_servers = Records(_server, keep=lambda server: server.sound, most=MAX_KEPT, table=servers)
_tags_held = Records(
    lambda connection, row: (row.server_id, row.tag, sealed.sound(connection, server_tags, row)),
    named=("server_id", "tag"),
    keep=lambda held: held[2],
    most=MAX_KEPT,
    table=server_tags,
)
