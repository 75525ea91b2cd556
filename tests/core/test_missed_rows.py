"""What others deleted in the database is named, and goes by the very name it has; on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from keyrack.core.git import repositories
from keyrack.core.keys import damaged_rows, revocation, user_keys
from keyrack.core.people import access_keys, actors, groups, users
from keyrack.model import Role
from keyrack.store import tables
from tests.core.all_damaged_rows import damaged
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line

SHARED = (
    tables.access_keys,
    tables.group_members,
    tables.repository_members,
    tables.revoked_keys,
)


@pytest.fixture
def names(team: Team) -> list[str]:
    """Of rows that several share a place with, and that are gone."""
    instance, owner = team.instance, team.owner
    people = [users.create_user(instance, owner, name=name, role=Role.MEMBER) for name in ("nora", "nils")]
    for _ in range(2):
        access_keys.create(instance, owner)
        key = user_keys.add(instance, owner, title="lost", public_key=fresh_line())
        revocation.revoke_everywhere(instance, owner, key.fingerprint)
    groups.ensure(instance, owner, name="crew", user_ids=[one.id for one in people])
    repositories.ensure(instance, owner, path="acme/site", members={one.id: "developer" for one in people})
    assert damaged(instance, owner) == []
    for table in SHARED:
        instance.database.write(lambda connection, table=table: connection.execute(delete(table)))  # type: ignore[misc]
    found = [row.name for row in damaged(instance, owner)]
    assert {name.partition(":")[0] for name in found} == {
        *("access-key", "group-member", "repository-member", "revoked-key")
    }
    return found


def test_each_damaged_row_is_removed_by_its_name(team: Team, names: list[str]) -> None:
    for name in names:
        damaged_rows.remove(team.instance, team.owner, name)
        assert name not in [row.name for row in damaged(team.instance, team.owner)]
    assert damaged(team.instance, team.owner) == []


def test_each_damaged_row_is_sealed_again_by_its_name(team: Team, names: list[str]) -> None:
    for name in names:
        damaged_rows.reseal(team.instance, actors.system_actor(team.owner.workspace_id), [name])
        assert name not in [row.name for row in damaged(team.instance, team.owner)]
    assert damaged(team.instance, team.owner) == []
