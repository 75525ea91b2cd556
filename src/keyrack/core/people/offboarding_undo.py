"""Brings back the access of a person who was offboarded, within a time; must bring back no session or token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table

from keyrack import policy
from keyrack.core.git.repositories import ADD_MEMBERS
from keyrack.core.instance import Instance
from keyrack.core.lookups import own_user
from keyrack.core.people.offboarding import OFFBOARD, TABLES
from keyrack.core.people.rights import refuse_exceeding
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, missing
from keyrack.model import Actor, User
from keyrack.protocol.words import count
from keyrack.store.keys import grants as grant_rows
from keyrack.store.keys import key_owners as key_owner_rows
from keyrack.store.people import offboardings
from keyrack.store.people import users as user_rows
from keyrack.store.people.offboardings import Offboarding
from keyrack.store.tables import (
    credentials,
    grants,
    group_members,
    groups,
    key_owners,
    repositories,
    repository_members,
    servers,
    system_users,
    user_keys,
    users,
)
from keyrack.store.tables.columns import EPOCH, MICROSECOND, Moment

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class UndoneOffboarding:
    """How many rows came back, by table; left: what did not, in words."""

    offboarding: Offboarding
    back: Mapping[str, int]
    left: tuple[str, ...]


@dataclass(slots=True)
class _RestoredRows:
    """The rows that come back, by table, and why others do not."""

    rows: dict[str, list[Row]]
    left: list[str] = field(default_factory=list)

    def keep(self, name: str, holds: Callable[[Row], bool], why: Callable[[Row], str]) -> None:
        """Keep only the rows of a table for which `holds` is true; `why` says of each other row why it is left out."""
        self.left += [why(row) for row in self.rows[name] if not holds(row)]
        self.rows[name] = [row for row in self.rows[name] if holds(row)]


def undo(instance: Instance, actor: Actor, offboarding_id: int) -> UndoneOffboarding:
    """Bring back user, keys, grants, memberships and credentials of an offboarding, as one change.

    Raises Refusal MISSING; INVALID after the time to undo it, or where the person was offboarded again since; TAKEN
    where it was undone already; FORBIDDEN where the actor may not give what would come back.
    """
    with Attempt(instance, actor, OFFBOARD, "undo an offboarding", target_kind="user") as attempt:

        def change(work: Work) -> UndoneOffboarding:
            offboarding = offboardings.get(work.connection, actor.workspace_id, offboarding_id)
            if offboarding is None:
                raise missing("offboarding")
            user = _require_undoable(work, offboarding)
            refuse_exceeding(work, user)
            restored = _restorable(work, offboarding)
            _refuse_giving(work, restored)
            _bring_back(work, offboarding, user, restored)
            offboardings.mark_undone(work.connection, offboarding.id, at=work.now, by=work.actor.name)
            undone = offboardings.get(work.connection, actor.workspace_id, offboarding.id)
            assert undone is not None
            left = f"; not brought back: {'; '.join(restored.left)}" if restored.left else ""
            work.record(
                f"Undid that {user.name} was removed everywhere: {_counted(restored)} came back{left}. Tokens, access "
                "keys and sessions stay ended",
                target_id=user.id,
                level="warning",
                details={"offboarding": offboarding.id},
            )
            return UndoneOffboarding(
                undone, {name: len(rows) for name, rows in restored.rows.items()}, tuple(restored.left)
            )

        return attempt.write(change)


def _require_undoable(work: Work, offboarding: Offboarding) -> User:
    """The user whose access comes back. Raises Refusal where the offboarding cannot be undone.

    1. It was not undone before. 2. There is time left. 3. Its row is as Keyrack wrote it. 4. The user still exists. 5.
    The user was not offboarded again since.
    """
    if offboarding.undone_at is not None:  # 1
        words = f"This was undone already, at {offboarding.undone_at:%Y-%m-%d %H:%M} UTC by {offboarding.undone_by}."
        raise Refusal(Kind.TAKEN, "undone-already", words)
    if work.now >= offboarding.undo_until:  # 2
        words = (
            f"This could be undone until {offboarding.undo_until:%Y-%m-%d %H:%M} UTC. Enable the user and give keys, "
            "grants and memberships anew."
        )
        raise Refusal(Kind.INVALID, "too-late", words)
    if not offboarding.sound:  # 3
        words = "What was kept to undo this was changed in the database, not by Keyrack; nothing of it comes back."
        raise Refusal(Kind.UNAVAILABLE, "seal-broken", words)
    if user_rows.user(work.connection, offboarding.user_id) is None:  # 4
        raise Refusal(
            Kind.INVALID, "user-deleted", f"The user {offboarding.user_name} was deleted since; make a new one."
        )
    user = own_user(work, offboarding.user_id)
    latest = offboardings.latest_of(work.connection, user.id)  # 5
    if latest is not None and latest.id != offboarding.id and latest.undone_at is None:
        words = f"{user.name} was removed once more since; undo that first, which is {latest.id}."
        raise Refusal(Kind.INVALID, "removed-again", words)
    return user


def _restorable(work: Work, offboarding: Offboarding) -> _RestoredRows:
    """The kept rows, without those whose place is gone or taken."""
    connection = work.connection
    restored = _RestoredRows(
        {name: [_read(table, row) for row in offboarding.kept[name]] for name, table in TABLES.items()}
    )
    rows = restored.rows
    fingerprints = {row["fingerprint"] for name in ("user_keys", "credentials") for row in rows[name]} - {None}
    revoked = offboardings.revoked_everywhere(connection, offboarding.workspace_id, fingerprints)
    taken = offboardings.present(connection, key_owners, "fingerprint", fingerprints)
    for name in ("user_keys", "credentials"):
        restored.keep(
            name, lambda row: row["fingerprint"] not in revoked, lambda row: f"{row['fingerprint']} was revoked since"
        )
    restored.keep(
        "user_keys", lambda row: row["fingerprint"] not in taken, lambda row: f"{row['fingerprint']} is in use since"
    )
    for name in ("grants", "credentials"):
        at = {row["server_id"] for row in rows[name]} - {None}
        there = offboardings.present(connection, servers, "id", at) | {None}
        restored.keep(
            name,
            lambda row, there=there: row["server_id"] in there,  # type: ignore[misc]
            lambda row, name=name: f"a {name[:-1]} of a host that was deleted",  # type: ignore[misc]
        )
        restored.keep(
            name,
            lambda row: row["expires_at"] is None or row["expires_at"] > work.now,
            lambda row, name=name: f"a {name[:-1]} that has ended",  # type: ignore[misc]
        )
    accounts = {row["system_user_id"] for row in rows["credentials"]}
    there = offboardings.present(connection, system_users, "id", accounts)
    restored.keep(
        "credentials",
        lambda row: row["system_user_id"] in there,
        lambda row: f"the credential {row['label']}, whose system user was deleted",
    )
    labels = offboardings.labels(connection, (row["server_id"] for row in rows["credentials"]))
    restored.keep(
        "credentials",
        lambda row: (row["server_id"], row["label"]) not in labels,
        lambda row: f"the credential {row['label']}, as another one has that label since",
    )
    _memberships(work, offboarding, restored)
    return restored


def _memberships(work: Work, offboarding: Offboarding, restored: _RestoredRows) -> None:
    """Leave out memberships of groups and repositories that are gone, or in which the person is again."""
    connection = work.connection
    for table, place, column, word in (
        (group_members, groups, "group_id", "group"),
        (repository_members, repositories, "repository_id", "repository"),
    ):
        ids = {row[column] for row in restored.rows[table.name]}
        there = offboardings.present(connection, place, "id", ids)
        member = offboardings.memberships(connection, table, column, offboarding.user_id)
        restored.keep(
            table.name,
            lambda row, there=there, column=column: row[column] in there,  # type: ignore[misc]
            lambda row, word=word: f"the membership of a {word} that was deleted",  # type: ignore[misc]
        )
        restored.rows[table.name] = [row for row in restored.rows[table.name] if row[column] not in member]


def _refuse_giving(work: Work, restored: _RestoredRows) -> None:
    """Refuse to bring back what the actor may not give."""
    needed = {
        "grants:write": restored.rows["grants"] or restored.rows["group_members"],
        "credentials:write": restored.rows["credentials"],
        ADD_MEMBERS: restored.rows["repository_members"],
    }
    for action, rows in needed.items():
        refusal = policy.may(work.actor, action) if rows else None
        if refusal is not None:
            raise refusal


def _bring_back(work: Work, offboarding: Offboarding, user: User, restored: _RestoredRows) -> None:
    connection, rows = work.connection, restored.rows
    if offboarding.kept["enabled"]:
        user_rows.change_user(connection, user.id, {"disabled_at": None})
    offboardings.put_back(connection, user_keys, rows["user_keys"])
    for row in rows["user_keys"]:
        if row["fingerprint"] is not None:
            key_owner_rows.claim_fingerprint(connection, row["fingerprint"], kind="user", user_key_id=row["id"])
    for table in (grants, group_members, repository_members):
        offboardings.put_back(connection, table, rows[table.name])
    fingerprints = {row["fingerprint"] for name in ("user_keys", "credentials") for row in rows[name]} - {None}
    opened = set(grant_rows.servers_of_user(connection, user.id)) | {row["server_id"] for row in rows["credentials"]}
    opened |= offboardings.present(connection, servers, "id", offboarding.kept["servers"])
    offboardings.accept(connection, sorted(opened), sorted(fingerprints))
    revisions = {server_id: work.bump_revision(server_id) for server_id in sorted(opened)}
    makers = offboardings.present(connection, users, "id", {row["created_by"] for row in rows["credentials"]} - {None})
    credential_rows = [
        {
            **row,
            "created_by": row["created_by"] if row["created_by"] in makers else None,
            "revision": revisions[row["server_id"]],
            "acknowledged_at": None,
        }
        for row in rows["credentials"]
    ]
    offboardings.put_back(connection, credentials, credential_rows)


def _read(table: Table, row: Mapping[str, Any]) -> Row:
    """A row from the JSON in which it was kept."""
    # Rows kept by older versions may have columns that no longer exist.
    return {
        name: EPOCH + value * MICROSECOND if value is not None and isinstance(table.c[name].type, Moment) else value
        for name, value in row.items()
        if name in table.c
    }


def _counted(restored: _RestoredRows) -> str:
    rows = restored.rows
    members = len(rows["group_members"]) + len(rows["repository_members"])
    return (
        f"{count(len(rows['user_keys']), 'SSH key')}, {count(len(rows['credentials']), 'credential')}, "
        f"{count(len(rows['grants']), 'grant')} and {count(members, 'membership')}"
    )
