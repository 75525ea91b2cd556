"""A tree of keyed hashes over the sealed rows that belong to no single server: shows that a row is the newest version
that Keyrack wrote, and that none is missing; must write no rows but its own.

A seal shows that others changed a row. It does not show that they put back an older version with its old seal. So
each row has a place in a tree, found by its id: 64 places to a node, 64 nodes to a node above, five levels. Above the
trees of all tables is one root, which counts the changes and carries a seal (tree_nodes.py). A place holds the sum,
modulo 2^256, of keyed hashes of the seals of its rows: of one row in most tables, of all rows of one owner in some. A
mask, different for each state of a place, hides the sum, so that nobody learns what a row adds to it.

Somebody who can write only to the database can put back a row, a place or a node; a link above then no longer fits,
and nothing below it counts. They can put back the whole tree with its root, as a restore does. A process that remembers
a higher count then raises an alarm, and hosts remember what they were told.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Table, delete, select

from keyrack.store.chunks import chunks
from keyrack.store.dialect import insert_of
from keyrack.store.engine.prepared import Prepared, Statement, among, placeholder, prepared
from keyrack.store.sealing import tree_nodes
from keyrack.store.sealing.seals import OF_SERVER, SEAL, AlteredHow, AlteredRow, Seals, seals_of
from keyrack.store.sealing.tree_nodes import MODULUS, NO_LINK, ROOT, Place, SumChange, TreeEdit
from keyrack.store.tables import access_tree

TREES: Mapping[str, tuple[int, str]] = {
    "users": (1, "id"),
    "groups": (2, "id"),
    "group_members": (3, "group_id"),
    "tokens": (4, "id"),
    "access_keys": (5, "user_id"),
    "user_keys": (6, "id"),
    "key_sources": (7, "id"),
    "grants": (8, "id"),
    "projects": (9, "id"),
    "repositories": (10, "id"),
    "repository_members": (11, "repository_id"),
    "deploy_keys": (12, "id"),
    "access_requests": (13, "id"),
    "access_request_approvals": (14, "request_id"),
    "request_rules": (15, "id"),
    "offboardings": (16, "id"),
    "revoked_keys": (17, "workspace_id"),
    # Counts only that a server exists: its values change with each revision, and its host remembers the revision.
    "servers": (18, "id"),
    "expired_keys": (19, "workspace_id"),
    "web_sessions": (20, "id"),
    "authenticators": (21, "id"),
    "identities": (22, "id"),
    "host_keys": (23, "id"),
    "key_policies": (24, "workspace_id"),
    "repository_names": (25, "repository_id"),
    "deleted_servers": (26, "server_id"),
    "deleted_server_keys": (27, "server_id"),
    "offboarding_hosts": (28, "offboarding_id"),
    "offboarding_git": (29, "offboarding_id"),
}
"""By table: the number of its tree, which must never change, and the column whose value is a row's index in it."""
NOT_AT_EACH_READ = frozenset(("expired_keys", "revoked_keys", "servers"))
"""Tables whose rows are not checked against the tree at each read: rows that only refuse something count even if they
do not fit, and a server is checked when its document is made. The scan of the tree (sealed_tables.scan_nodes) checks
both."""

_MAX_FITTING = 50_000
_PENDING = "keyrack tree changes"
_ROOT_READ = "keyrack tree root"
_BEGAN = "keyrack tree began"
READS = "keyrack tree reads"
_PLACES = "keyrack tree places"
BATCH_SIZE = 5_000


def begin(connection: Connection, *, reads: bool) -> None:
    """Reset what is kept for a transaction or command; reads: whether it is read-only."""
    # In one call, as SQLAlchemy looks up `info` each time.
    connection.info.update({_PENDING: {}, _ROOT_READ: None, _BEGAN: time.monotonic(), READS: reads})


def pending(connection: Connection) -> dict[Place, SumChange]:
    """The changes of sums that the running command has noted, by place."""
    noted: dict[Place, SumChange] = connection.info.setdefault(_PENDING, {})
    return noted


def put_pending(info: Any, noted: Mapping[Place, SumChange]) -> None:
    """Restore the changes that were noted before a savepoint; info: the connection's, read while it was not broken."""
    info[_PENDING] = dict(noted)


def place_of(table: Table, row: Mapping[str, Any]) -> Place | None:
    """The place that counts a row; None for a row that its server's sum counts, or nothing."""
    tree = TREES.get(table.name)
    if tree is None or (table.name in OF_SERVER and row["server_id"] is not None):
        return None
    return None if row[tree[1]] is None else (tree[0], row[tree[1]])


def _summand(seals: Seals, table: Table, row: Mapping[str, Any]) -> int:
    """What a row adds to the sum of its place."""
    if table.name == "servers":
        text = f"server {row['id']} {row['workspace_id']} {row['host']}".encode()
    elif isinstance(row[SEAL], bytes) and row[SEAL]:
        text = b"access fact " + row[SEAL]
    else:
        return 0
    return int.from_bytes(seals.mac(text), "big")


def note(connection: Connection, table: Table, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
    """Note that a row was changed; old and new: None where there was or is no row.

    A row that others entered or put back still does not fit after a change: it was never added to the sum.
    """
    row = old if new is None else new
    if row is None or (table.name == "servers" and old is not None and new is not None):
        return
    if (place := place_of(table, row)) is None:
        return
    seals, noted = seals_of(connection), pending(connection)
    held, more = noted.get(place, (None, 0))
    if TREES[table.name][1] == "id" and (old is None or new is None):
        # The only row of its place, so the sum before does not matter.
        noted[place] = (0 if new is None else _summand(seals, table, new), 0)
        return
    if old is None or seals.holds(table, old):
        more += _summand(seals, table, new) if new is not None else 0
        more -= _summand(seals, table, old) if old is not None else 0
    noted[place] = (held, more)


def note_as_it_stands(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Set the sum of a row's place to the rows that are there now, as a person accepted them; the row itself may be
    missing.
    """
    if (place := place_of(table, row)) is not None:
        seals = seals_of(connection)
        rows = rows_at(table).rows(connection, place[1])
        pending(connection)[place] = (sum(_summand(seals, table, one) for one in rows if seals.holds(table, one)), 0)


def fits(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Whether a row whose seal holds is the newest version; row: with its key, its seal and the column of its place."""
    if (place := place_of(table, row)) is None or _fits(connection, table, row, place):
        return True
    if connection.dialect.name != "postgresql" or connection.info.get(READS, False):
        return False
    # Another transaction may have committed between two statements: read root and nodes once more, in one statement.
    contents = {node["id"]: node["content"] for node in _nodes.rows(connection, [ROOT, *tree_nodes.path_to(place)])}
    connection.info[_ROOT_READ] = _checked(connection, contents.pop(ROOT, None))
    _remember(seals_of(connection), contents)
    return _fits(connection, table, row, place)


def _fits(connection: Connection, table: Table, row: Mapping[str, Any], place: Place) -> bool:
    root = read_root(connection)
    slot = None if root is None else slot_of(connection, root, place)
    if slot is None:
        return False
    seals = seals_of(connection)
    noted = connection.info.get(_PENDING, {}).get(place)
    kept = None if noted is not None else seals.seen.fitting.get(place)
    if kept is None or kept[0] != slot:
        held, more = noted or (None, 0)
        total = ((tree_nodes.sum_in(seals, place, slot) if held is None else held) + more) % MODULUS
        shares = _fitting(connection, table, row, place, total)
        kept = (slot, shares)
        if noted is None and shares:  # a mismatch is not kept: it may be repaired in the rows, with the same slot
            if len(seals.seen.fitting) >= _MAX_FITTING:
                seals.seen.fitting.clear()
            seals.seen.fitting[place] = kept
    if (row["id"] if table.name == "servers" else row[SEAL]) not in kept[1]:
        return False
    collected: FittingPlaces | None = connection.info.get(_PLACES)
    if collected is not None:
        collected.root = root
        collected.places.append((place, slot))
    return True


def _fitting(
    connection: Connection, table: Table, row: Mapping[str, Any], place: Place, total: int
) -> frozenset[bytes | int]:
    """The seals of the rows that make up the sum of a place (of a server its id); empty where the sum does not fit."""
    seals = seals_of(connection)
    if TREES[table.name][1] == "id":
        fact = row["id"] if table.name == "servers" else row[SEAL]
        return frozenset((fact,)) if _summand(seals, table, row) == total else frozenset()
    rows = rows_at(table).rows(connection, place[1])
    holding = [other for other in rows if seals.holds(table, other)]
    for some in (rows, holding):
        if sum(_summand(seals, table, other) for other in some) % MODULUS == total:
            return frozenset(other[SEAL] for other in holding)
    return frozenset()


@cache
def rows_at(table: Table) -> Prepared[[int]]:
    """The query for all rows of a table in the place with an index."""
    column = table.c[TREES[table.name][1]]
    return Prepared(lambda index: select(table).where(column == index))


@dataclass(slots=True)
class FittingPlaces:
    """Places that fitted, each with the slot it had, and the verified root above them."""

    root: bytes | None = None
    places: list[tuple[Place, bytes]] = field(default_factory=list)


@contextmanager
def collecting_places(connection: Connection) -> Iterator[FittingPlaces]:
    """Within the block, collect the places that are found to fit."""
    info = connection.info  # kept here, as a broken connection no longer has it
    collected = info[_PLACES] = FittingPlaces()
    try:
        yield collected
    finally:
        info.pop(_PLACES, None)


def still_fit(connection: Connection, collected: FittingPlaces) -> bool:
    """Whether all these places have the same slots as when they were collected."""
    if not collected.places:
        return True
    root = read_root(connection)
    if root == collected.root:
        return root is not None
    if root is None or any(slot_of(connection, root, place) != slot for place, slot in collected.places):
        return False
    collected.root = root
    return True


def read_root(connection: Connection) -> bytes | None:
    """The root, read once in a transaction; None where there is none or its seal does not hold."""
    root: bytes | None = connection.info.get(_ROOT_READ)
    if root is None:
        rows = _nodes.rows(connection, [ROOT])
        root = connection.info[_ROOT_READ] = _checked(connection, rows[0]["content"] if rows else None)
    return root


def take_root(connection: Connection, raw: Any) -> None:
    """Take the root that a query read beside its rows (root_content), which saves a query."""
    if connection.info.get(_ROOT_READ) is None:
        connection.info[_ROOT_READ] = _checked(connection, raw)


def root_so_far(connection: Connection) -> bytes | None:
    """The root that this transaction has read; None where it has read none, or one whose seal does not hold."""
    root: bytes | None = connection.info.get(_ROOT_READ)
    return root


def take_checked_root(connection: Connection, root: bytes | None) -> None:
    """Take a root that an earlier transaction of this connection verified; only if nothing was written since."""
    if root is not None and connection.info.get(_ROOT_READ) is None:
        connection.info[_ROOT_READ] = root


root_content = select(access_tree.c.content).where(access_tree.c.id == ROOT).scalar_subquery()
"""The root's content, for a query that reads it beside its rows."""


def counter(connection: Connection) -> int:
    """The root's count of changes; 0 where there is no root whose seal holds."""
    root = read_root(connection)
    return 0 if root is None else tree_nodes.counter_of(root)


def _checked(connection: Connection, raw: Any) -> bytes | None:
    seals = seals_of(connection)
    seen = seals.seen
    if not isinstance(raw, bytes) or not (raw == seen.root or tree_nodes.root_holds(seals, raw)):
        seals.note_altered(AlteredRow(access_tree.name, (ROOT,), {}, AlteredHow.INCOMPLETE))
        return None
    seen.root = raw
    count = tree_nodes.counter_of(raw)
    began = connection.info.get(_BEGAN, 0.0)
    newest, since = seen.newest
    if connection.info.get(READS, False) and count != newest:
        # Fewer changes than were known before this transaction began: the whole tree was put back, by a restore or by
        # somebody else. People get an alarm; hosts remember what they were told (core/hosts/database_rollback.py).
        if count < newest and since < began:
            seals.note_altered(AlteredRow(access_tree.name, (ROOT,), {}, AlteredHow.OLDER))
        if count > newest or since < began:
            seen.newest = (count, time.monotonic())
    return raw


def slot_of(connection: Connection, root: bytes, place: Place) -> bytes | None:
    """The slot of a place, b"" for an empty one; None where a node above it does not fit its link."""
    seals, path = seals_of(connection), tree_nodes.path_to(place)
    nodes = seals.seen.nodes
    link = tree_nodes.link_from_root(root, place[0])
    for depth, node in enumerate(path):
        if not any(link):
            return b""
        entry = nodes.get(node)
        if entry is None or entry[0] != link:
            read = {row["id"]: row["content"] for row in _nodes.rows(connection, path[depth:])}
            entry = _remember(seals, read).get(node)
            if entry is None or entry[0] != link:
                seals.note_altered(AlteredRow(access_tree.name, (node,), {}, AlteredHow.INCOMPLETE))
                return None
        link = tree_nodes.link_towards(entry[1], node, place)
    return link if any(link) else b""


def _remember(seals: Seals, read: Mapping[int, bytes]) -> dict[int, tuple[bytes, bytes]]:
    """Keep nodes as they were read, each with its link; a kept node is valid while the node above has that link."""
    entries = {
        node: (tree_nodes.link_of(seals, node, bytes(content)), bytes(content)) for node, content in read.items()
    }
    seals.seen.keep(entries)
    return entries


@prepared
def _nodes(ids: Sequence[int]) -> Select[Any]:
    return select(access_tree).where(among(access_tree.c.id, ids))


@prepared
def _locking_root() -> Select[Any]:
    return select(access_tree.c.id).where(access_tree.c.id == ROOT).with_for_update()


@cache
def _writing(dialect: str) -> Statement:
    def make() -> Any:
        named = {column.name: placeholder(column) for column in access_tree.c}
        statement = insert_of(dialect)(access_tree).values(named)
        return statement.on_conflict_do_update(index_elements=["id"], set_={"content": statement.excluded.content})

    return Statement(make)


def settle(connection: Connection) -> None:
    """Write the changes that a command noted into the tree, before its commit.

    Where a node above a place does not fit its link nothing is written, so that the mismatch stays and is found.
    """
    noted = {place: change for place, change in pending(connection).items() if change[0] is not None or change[1]}
    connection.info[_PENDING] = {}
    if not noted:
        return
    if connection.dialect.name == "postgresql":
        _locking_root.enqueue(
            connection
        )  # by itself: the next one must see all that was committed while this one waited
    wanted = sorted({ROOT}.union(*(tree_nodes.path_to(place) for place in noted)))
    read: dict[int, bytes] = {}
    for some in chunks(wanted, BATCH_SIZE):
        read.update((row["id"], bytes(row["content"])) for row in _nodes.rows(connection, some))
    root = _checked(connection, read.pop(ROOT, None))
    if root is not None:
        edit = TreeEdit(seals_of(connection), root, read)
        for place, change in noted.items():
            edit.set(place, change)
        changed = ({"id": node, "content": content} for node, content in edit.finish().items())
        _writing(connection.dialect.name).run_many(connection, changed)
        seals_of(connection).seen.keep(edit.linked)
    connection.info[_ROOT_READ] = None


def start(connection: Connection, count: int = 0) -> None:
    """Replace the tree by an empty one, before all rows are noted anew; count: the count of changes to start from."""
    connection.info[_PENDING] = {}
    connection.execute(delete(access_tree))
    content = tree_nodes.new_root(seals_of(connection), count)
    _writing(connection.dialect.name).run(connection, {"id": ROOT, "content": content})
    connection.info[_ROOT_READ] = None


def has_root(connection: Connection) -> bool:
    """Whether there is a root whose seal holds; one that does not hold raises no alarm here."""
    rows = _nodes.rows(connection, [ROOT])
    return bool(rows) and tree_nodes.root_holds(seals_of(connection), rows[0]["content"])


def highest(connection: Connection) -> int:
    """The highest count of changes known to this process, of this tree or an earlier one."""
    return max(seals_of(connection).seen.newest[0], counter(connection))


def altered_nodes(connection: Connection) -> list[tuple[str, int]]:
    """The nodes that others changed or deleted, each as its table's name ("" for the root) and its id."""
    root = read_root(connection)
    if root is None:
        return [("", ROOT)]
    seals, trees = seals_of(connection), {tree: name for name, (tree, _) in TREES.items()}
    links: dict[int, bytes] = {}
    wanted = tree_nodes.links_below(ROOT, root, trees)
    for node, content in connection.execute(select(access_tree.c.id, access_tree.c.content)).all():
        if node != ROOT:
            links[node] = tree_nodes.link_of(seals, node, content)
            if tree_nodes.is_above_others(node):
                wanted.update(tree_nodes.links_below(node, content, trees))
    return [
        (trees.get(tree_nodes.tree_of(node), ""), node)
        for node in sorted({*links, *wanted})
        if (links.get(node) or NO_LINK) != (wanted.get(node) or NO_LINK)
    ]


def note_altered_below(connection: Connection, node: int, content: bytes) -> None:
    """Note the nodes just below this one that others changed or deleted, so that an alarm names them."""
    seals = seals_of(connection)
    links = tree_nodes.links_below(node, content, (tree for tree, _ in TREES.values()))
    read = {
        row["id"]: tree_nodes.link_of(seals, row["id"], bytes(row["content"]))
        for row in _nodes.rows(connection, list(links))
    }
    for below, link in links.items():
        if (link or NO_LINK) != read.get(below, NO_LINK):
            seals.note_altered(AlteredRow(access_tree.name, (below,), {}, AlteredHow.INCOMPLETE))


def is_whole(connection: Connection, table: Table, index: int, slot: bytes) -> bool:
    """Whether all rows that a place counts are there; slot: the place's."""
    seals = seals_of(connection)
    total = tree_nodes.sum_in(seals, (TREES[table.name][0], index), slot)
    if sum(_summand(seals, table, row) for row in _seals_at(table).rows(connection, index)) % MODULUS == total:
        return True
    holding = (row for row in rows_at(table).rows(connection, index) if seals.holds(table, row))
    return sum(_summand(seals, table, row) for row in holding) % MODULUS == total


@cache
def _seals_at(table: Table) -> Prepared[[int]]:
    column = table.c[TREES[table.name][1]]
    return Prepared(lambda index: select(table.c.seal).where(column == index))


def places_held(connection: Connection, table: Table) -> Iterable[int]:
    """The indexes of a table's places that are not empty, ascending, without those below a node that does not fit."""
    tree = TREES[table.name][0]
    root = read_root(connection)
    if root is None:
        return
    of_tree = access_tree.c.id.between(*tree_nodes.lowest_nodes(tree))
    nodes = select(access_tree.c.id, access_tree.c.content).where(of_tree).order_by(access_tree.c.id)
    for node, content in connection.execute(nodes).all():
        yield from (index for index in tree_nodes.slots_held(node, content) if slot_of(connection, root, (tree, index)))
