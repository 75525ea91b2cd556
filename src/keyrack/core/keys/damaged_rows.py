"""Rows that are not as Keyrack wrote them: list, remove, or seal again on somebody's decision; must never repair one by
itself, as nobody knows what it said before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Integer, Table, select

from keyrack.core import altered_rows
from keyrack.core.instance import Instance
from keyrack.core.keys import damaged_places, propagation
from keyrack.core.keys.damaged_places import RowPlace
from keyrack.core.lookups import require_server
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import Actor
from keyrack.ssh.key_problem import KeyProblem
from keyrack.ssh.public_key import read_canonical
from keyrack.store import tables
from keyrack.store.keys import credentials, grants, user_keys
from keyrack.store.people import workspaces
from keyrack.store.per_server import batch
from keyrack.store.sealing import access_tree, sealed, sealed_tables, sums
from keyrack.store.sealing.seals import SEALED_TABLES

CREDENTIAL, GRANT, USER_KEY = "credential", "grant", "user-key"
KINDS: Mapping[str, Table] = {
    CREDENTIAL: tables.credentials,
    GRANT: tables.grants,
    USER_KEY: tables.user_keys,
    "access-key": tables.access_keys,
    "deleted-server": tables.deleted_servers,
    "deleted-server-key": tables.deleted_server_keys,
    "deploy-key": tables.deploy_keys,
    "enrolment": tables.enrolments,
    "group": tables.groups,
    "group-member": tables.group_members,
    "held-back": tables.held_back,
    "host-key": tables.host_keys,
    "project": tables.projects,
    "removed-account": tables.removed_accounts,
    "repository": tables.repositories,
    "repository-member": tables.repository_members,
    "revocation": tables.revocations,
    "authenticator": tables.authenticators,
    "expired-key": tables.expired_keys,
    "former-path": tables.repository_names,
    "identity": tables.identities,
    "web-session": tables.web_sessions,
    "revoked-key": tables.revoked_keys,
    "server": tables.servers,
    "system-user": tables.system_users,
    "tag": tables.server_tags,
    "token": tables.tokens,
    "user": tables.users,
    "key-source": tables.key_sources,
    "offboarding": tables.offboardings,
    "offboarding-git": tables.offboarding_git,
    "offboarding-host": tables.offboarding_hosts,
    "access-request": tables.access_requests,
    "access-request-approval": tables.access_request_approvals,
    "request-rule": tables.request_rules,
    "key-policy": tables.key_policies,
}
_KIND_OF = {table.name: kind for kind, table in KINDS.items()}
# Other rows belong to these: they are deleted as usual, with all that belongs to them, or sealed again.
OWNING = frozenset(("group", "project", "repository", "server", "system-user", "user"))
# The action that it takes to remove a row of a kind: the one that takes away as usual what the row stands for or, where
# the row forbids something, the one that allows it again. servers:write for all other kinds.
_TO_REMOVE: Mapping[str, str] = {
    **dict.fromkeys((CREDENTIAL, GRANT, USER_KEY, "expired-key"), "credentials:write"),
    **dict.fromkeys(("revocation", "revoked-key"), "keys:revoke"),
    **dict.fromkeys(("access-key", "authenticator", "identity", "token", "web-session"), "people:write"),
    **dict.fromkeys(("group-member", "key-source"), "people:write"),
    **dict.fromkeys(("offboarding", "offboarding-git", "offboarding-host"), "people:offboard"),
    "access-request": "requests:approve",
    "access-request-approval": "requests:approve",
    "request-rule": "requests:rule",
    "key-policy": "keys:rule",
    "deploy-key": "codeartsrepo:repository:setRepository",
    "repository-member": "codeartsrepo:repository:deleteMembers",
    "former-path": "codeartsrepo:repository:setRepository",
}
_HIDDEN = frozenset(
    (
        "seal",
        "secret",
        "credential",
        "secret_hash",
        "agent_secret_hash",
        "encrypted_secret",
        "encrypted_password",
        "facts",
        "lineage",
        "rows_sum",
        "kept",
    )
)
LONGEST_SHOWN = 300
ANY = "*"
COUNT = "count"
MAX_DIGITS = 9
PER_PAGE = 50
BATCH_SIZE = 250
SERVER_BATCH_SIZE = 50
MAX_CHECKED = 10_000
"""So many rows are checked for one page, which takes some tenths of a second."""
OF_A_SERVER = 20
"""A server counts as so many rows, because all rows that belong to it are added up."""


@dataclass(frozen=True, slots=True)
class DamagedRow:
    """One damaged row.

    key: its primary key; what: what it says now, in words; server_ids: the servers whose documents it changes;
    public_key: the key in it, "" where it holds none that can be read; of: only for a missing row that is one of
    several and so has no key, the number of what these belong to.
    """

    kind: str
    key: tuple[Any, ...]
    what: str
    server_ids: frozenset[int]
    public_key: str = ""
    of: int | None = None

    @property
    def name(self) -> str:
        """KIND:ID, as remove() and reseal() take it."""
        return f"{self.kind}:{','.join(str(part) for part in self.key)}"


CheckedRow = tuple[RowPlace, DamagedRow | None]
"""A place in the list, and the row there if it is damaged."""


@dataclass(frozen=True, slots=True)
class DamagedPage:
    """A page of damaged rows; next: the cursor of the next page, None at the end."""

    items: tuple[DamagedRow, ...]
    next: str | None


def find(
    instance: Instance, actor: Actor, server_id: int | None = None, *, cursor: str = "", limit: int = PER_PAGE
) -> DamagedPage:
    """A page of the workspace's damaged rows, or of those that concern one server; cursor: next of the page before.

    Hardly more than MAX_CHECKED rows are checked for a page: it may hold fewer than `limit`, or none, and still name a
    next one. Raises Refusal MISSING for the server, INVALID for the cursor.
    """
    attempt = Attempt(
        instance, actor, "credentials:read", "list damaged rows", target_kind="server", server_id=server_id
    )
    with attempt:
        if server_id is not None:
            attempt.read(lambda connection: require_server(connection, actor, server_id))
        start = damaged_places.read(cursor) if cursor else damaged_places.START

        def question(connection: Connection) -> DamagedPage:
            damaged: list[DamagedRow] = []
            last = start
            checked = 0
            for place, row in _checked_rows(connection, actor.workspace_id, start):
                checked += OF_A_SERVER if place.table == tables.servers.name else 1
                if row is not None and (server_id is None or server_id in row.server_ids):
                    damaged.append(row)
                last = place
                if (len(damaged) >= limit or checked >= MAX_CHECKED) and last.can_be_written:
                    return DamagedPage(tuple(damaged), damaged_places.write(last))
            return DamagedPage(tuple(damaged), None)

        return attempt.read(question)


def is_damaged(connection: Connection, workspace_id: int, name: str) -> bool:
    """Whether a row is there and not as Keyrack wrote it; name: as alarms have it, TABLE:KEY, such as grants:5."""
    table_name, _, rest = name.partition(":")
    table = tables.metadata.tables.get(table_name)
    if table is None or table not in SEALED_TABLES:
        return True
    columns = list(table.primary_key)
    parts = rest.split(",", len(columns) - 1)
    values = [
        int(part) if isinstance(column.type, Integer) else part for column, part in zip(columns, parts, strict=True)
    ]
    conditions = [column == value for column, value in zip(columns, values, strict=True)]
    return any(row is not None for _, row in _of_table(connection, workspace_id, table, *conditions))


def may_remove(instance: Instance, actor: Actor, name: str) -> None:
    """Raises Refusal where the actor may not remove this damaged row, as remove() does."""
    kind, key = _read_name(name)
    with _removing(instance, actor, kind) as attempt:
        attempt.read(lambda connection: _damaged(connection, attempt.actor.workspace_id, kind, key))


def _removing(instance: Instance, actor: Actor, kind: str) -> Attempt:
    action = _TO_REMOVE.get(kind, "servers:write")
    return Attempt(instance, actor, action, "remove a damaged row", target_kind="server")


def remove(instance: Instance, actor: Actor, name: str) -> DamagedRow:
    """Delete a damaged row, named KIND:ID; hosts refuse the key in it unless something else lets the key in.

    Raises Refusal INVALID, or MISSING where there is no such row or it is as Keyrack wrote it.
    """
    kind, key = _read_name(name)
    with _removing(instance, actor, kind) as attempt:
        if kind in OWNING:
            raise invalid("name", f"Delete this {kind} as usual, or seal its row again: --reseal {name}.")

        def change(work: Work) -> DamagedRow:
            damaged = _damaged(work.connection, work.actor.workspace_id, kind, key)
            drop(work, damaged)
            return damaged

        return attempt.write(change)


def reseal(instance: Instance, actor: Actor, names: Sequence[str]) -> list[DamagedRow]:
    """Seal damaged rows, named KIND:ID, again with what they say now; "all" is every one of the workspace.

    For the instance's operator alone, who has looked at them: whoever changed them gets their way. Raises Refusal
    FORBIDDEN, INVALID, or MISSING where one is as Keyrack wrote it.
    """
    with Attempt(instance, actor, "people:write", "seal damaged rows again", target_kind="server") as attempt:
        if actor.user_id is not None:
            raise Refusal(Kind.FORBIDDEN, "operator-only", "Only the operator of this instance seals rows again.")
        wanted = [] if list(names) == ["all"] else [_read_name(name) for name in names]

        def change(work: Work) -> list[DamagedRow]:
            workspace_id = work.actor.workspace_id
            if list(names) == ["all"]:
                rows = list(_all(work.connection, workspace_id))
                for row in rows:
                    if row.kind != COUNT and row.of is None:  # count_all below counts these anew
                        sealed.reseal(work.connection, KINDS[row.kind], row.key)
                sealed_tables.count_all(work.connection, since=access_tree.highest(work.connection) + 1)
            else:
                rows = [_damaged(work.connection, workspace_id, kind, key) for kind, key in wanted]
                for row in rows:
                    if row.of is None:
                        sealed.reseal(work.connection, KINDS[row.kind], row.key)
                    else:
                        sealed.accept_place(work.connection, KINDS[row.kind], row.of)
            work.bump_revisions(frozenset[int]().union(*(row.server_ids for row in rows)))
            for row in rows:
                work.record(f"Sealed the damaged row {row.name} again as it stands: {row.what}", level="alarm")
            work.no_event("there may be no damaged row")
            return rows

        return attempt.write(change)


def drop(work: Work, row: DamagedRow) -> None:
    """Delete a damaged row within a unit of work, with its event."""
    if row.of is None:
        sealed.drop(work.connection, KINDS[row.kind], row.key)
    else:
        sealed.accept_place(work.connection, KINDS[row.kind], row.of)
    withdrawn = [(read_canonical(row.public_key).fingerprint, row.public_key)] if row.public_key else []
    propagation.withdrawn(work, row.server_ids, withdrawn)
    work.record(f"Removed the damaged row {row.name}: {row.what}", level="warning")


def damaged_credential(work: Work, server_id: int, label: str) -> DamagedRow | None:
    """The row that holds a label on a server if it is damaged, else None."""
    for credential, holds in credentials.credentials_with_seals(work.connection, server_id, label=label):
        if not holds:
            what = f"key {credential.fingerprint} for {credential.username}"
            return DamagedRow(CREDENTIAL, (credential.id,), what, frozenset((server_id,)), _key(credential.public_key))
    return None


def damaged_user_key(work: Work, key_id: int) -> DamagedRow | None:
    """The row of a user key if it is damaged, else None."""
    if user_keys.user_key_holds(work.connection, work.actor.workspace_id, key_id) is not False:
        return None
    return _damaged(work.connection, work.actor.workspace_id, USER_KEY, (key_id,))


def _read_name(name: str) -> tuple[str, tuple[Any, ...]]:
    kind, _, rest = name.partition(":")
    table = KINDS.get(kind)
    problem = invalid("name", f"A damaged row is named KIND:ID; KIND is one of {', '.join(KINDS)}.")
    if table is None:
        raise problem
    if (of := _belonging(table)) and rest.startswith(of):
        return kind, (rest,)
    columns = list(table.primary_key)
    parts = rest.split(",", len(columns) - 1)
    if len(parts) != len(columns):
        raise problem
    key: list[Any] = []
    for column, part in zip(columns, parts, strict=True):
        if not isinstance(column.type, Integer) or part == ANY:
            key.append(part)
        elif not (part.isascii() and part.isdecimal()):
            raise problem
        elif len(part.lstrip("0")) > MAX_DIGITS:
            raise missing("damaged row")
        else:
            key.append(int(part.lstrip("0") or "0"))
    return kind, tuple(key)


def _damaged(connection: Connection, workspace_id: int, kind: str, key: tuple[Any, ...]) -> DamagedRow:
    table = KINDS[kind]
    of = _belonging(table)
    # A missing row that is one of several has no key of its own.
    if ANY not in key and not (of and str(key[0]).startswith(of)):
        conditions = [column == value for column, value in zip(table.primary_key, key, strict=True)]
        for _, row in _of_table(connection, workspace_id, table, *conditions):
            if row is not None:
                return row
    for _, row in _missing(connection, workspace_id, damaged_places.START):
        if row is not None and (row.kind, row.key[0]) == (kind, key[0]):
            return row
    raise missing("damaged row")


def _all(connection: Connection, workspace_id: int) -> Iterator[DamagedRow]:
    return (row for _, row in _checked_rows(connection, workspace_id, damaged_places.START) if row is not None)


def _checked_rows(connection: Connection, workspace_id: int, after: RowPlace) -> Iterator[CheckedRow]:
    """Each row of the workspace, then each that is not there any more, after a place."""
    names = [table.name for table in SEALED_TABLES]
    if not after.of_missing:
        begin = names.index(after.table) if after.table else 0
        for table in SEALED_TABLES[begin:]:
            yield from _of_table(connection, workspace_id, table, after=after.key if table.name == after.table else ())
    yield from _missing(connection, workspace_id, after)


def _missing(connection: Connection, workspace_id: int, after: RowPlace) -> Iterator[CheckedRow]:
    """Rows that are counted and not there any more. Nobody knows their workspace, so the first workspace has them."""
    if workspace_id != workspaces.first_workspace_id(connection):
        return
    begin, index = after.key if after.of_missing else ("", -1)
    if not begin:
        for name, node in access_tree.altered_nodes(connection):
            if node > index:
                of = f" of the table {name}" if name else ""
                words = f"the count{of} was changed in the database, not by Keyrack"
                yield RowPlace("", ("", node), of_missing=True), DamagedRow(COUNT, (node,), words, frozenset())
    counted = [table for table in SEALED_TABLES if table.name in access_tree.TREES]
    names = [table.name for table in counted]
    for table in counted[names.index(begin) if begin else 0 :]:
        for number, is_there in sealed_tables.counted(connection, table, index if table.name == begin else -1):
            place = RowPlace("", (table.name, number), of_missing=True)
            yield place, None if is_there else _gone(table, number)


def _gone(table: Table, number: int) -> DamagedRow:
    named = [column.name for column in table.primary_key]
    owner = _belonging(table)
    key: tuple[Any, ...] = (f"{owner}{number}",) if owner else (number, *(ANY for _ in named[1:]))
    of = None if named == [access_tree.TREES[table.name][1]] else number
    return DamagedRow(_KIND_OF[table.name], key, "deleted in the database, not by Keyrack", frozenset(), of=of)


def _belonging(table: Table) -> str:
    """What a missing row's name begins with where its tree counts by owner, as "of user "; "" where it counts by its
    key.
    """
    owner = access_tree.TREES.get(table.name, (0, ""))[1]
    return "" if not owner or owner in table.primary_key else f"of {owner.removesuffix('_id')} "


def _of_table(
    connection: Connection, workspace_id: int, table: Table, *where: Any, after: Sequence[Any] = ()
) -> Iterator[CheckedRow]:
    own = belongs(table, workspace_id)
    batch_size = SERVER_BATCH_SIZE if table is tables.servers else BATCH_SIZE
    for rows in sealed_tables.pieces(connection, table, own, *where, after=after, batch_size=batch_size):
        for row, fits in zip(rows, _fitting(connection, table, rows), strict=True):
            place = RowPlace(table.name, tuple(row[column.name] for column in table.primary_key))
            yield place, None if fits else _record(connection, table, row)


def _fitting(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """For each row whether it is as Keyrack wrote it last; for a server also whether all its rows are there."""
    if table is not tables.servers:
        return [sealed.holds(connection, table, row) and access_tree.fits(connection, table, row) for row in rows]
    with batch(connection, [row["id"] for row in rows]):
        return [sealed.holds(connection, table, row) and sums.fits(connection, row["id"]) for row in rows]


def belongs(table: Table, workspace_id: int) -> Any:
    """The condition that a row is of a workspace, by itself or by its owner.

    The database reads pieces of the table in the order of its primary key. `+ 0` keeps it from taking the index of
    owners, with which it would sort all rows of the workspace for each piece.
    """
    if "workspace_id" in table.c:
        return table.c.workspace_id == workspace_id
    if table is tables.deleted_server_keys:
        gone = tables.deleted_servers
        return (table.c.server_id + 0).in_(select(gone.c.server_id).where(gone.c.workspace_id == workspace_id))
    for column, owner in altered_rows.OWNERS:
        if column in table.c:
            owning: Table = tables.metadata.tables[owner]
            return (table.c[column] + 0).in_(select(owning.c.id).where(owning.c.workspace_id == workspace_id))
    raise LookupError(table.name)


def _record(connection: Connection, table: Table, row: Mapping[str, Any]) -> DamagedRow:
    key = tuple(row[column.name] for column in table.primary_key)
    public_key = _key(row["public_key"]) if table in (tables.credentials, tables.user_keys) else ""
    return DamagedRow(_KIND_OF[table.name], key, _what(row), _servers(connection, table, row), public_key)


def _what(row: Mapping[str, Any]) -> str:
    """What a row says, without secrets."""
    readable = {name: value for name, value in row.items() if not isinstance(value, bytes | memoryview)}
    values_shown = (
        f"{name} {value}" for name, value in readable.items() if name not in _HIDDEN and value not in (None, "")
    )
    words = ", ".join("password_hash set" if part.startswith("password_hash ") else part for part in values_shown)
    return words if len(words) <= LONGEST_SHOWN else words[:LONGEST_SHOWN] + "…"


def _servers(connection: Connection, table: Table, row: Mapping[str, Any]) -> frozenset[int]:
    """The servers whose documents a row changes."""
    if table in (tables.deleted_servers, tables.deleted_server_keys):
        return frozenset()
    if table is tables.servers:
        return frozenset((row["id"],))
    if table is tables.grants:
        return grants.servers_of_grant(connection, grants.grant_of(row))
    if table is tables.user_keys or table is tables.group_members:
        return grants.servers_of_user(connection, row["user_id"])
    if table is tables.users:
        return grants.servers_of_user(connection, row["id"])
    if table is tables.groups:
        return frozenset[int]().union(
            *(grants.servers_of_grant(connection, grant) for grant in grants.grants_of_group(connection, row["id"]))
        )
    return frozenset((row["server_id"],)) if row.get("server_id") is not None else frozenset()


def _key(public_key: Any) -> str:
    """The public key in a damaged row, "" if it is none: only keys may reach a host's list of revoked keys."""
    try:
        return read_canonical(public_key).canonical if public_key and isinstance(public_key, str) else ""
    except KeyProblem:
        return ""
