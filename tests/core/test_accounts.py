"""What hosts are asked about accounts: made, given passwords and deployment keys, removed; never a word in clear."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import select, update

from keyrack.core.audit import events
from keyrack.core.hosts import account_passwords, accounts, documents, reports, servers, system_users
from keyrack.errors import Kind, Refusal
from keyrack.store import tables
from tests.core.conftest import Team

PASSWORD = "correct horse Bättery: 電池"


def wanted(team: Team) -> Mapping[str, Any]:
    """The accounts in the server's document as it is now."""
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    found: Mapping[str, Any] = json.loads(signed.text)["accounts"]
    return found


def obey(team: Team, **reported: Any) -> None:
    """The host says that it obeys what there is now."""
    now = servers.get(team.instance, team.owner, team.server.id)
    reports.ingest(team.instance, now, {"revision": now.revision, "state": "applied", **reported})


def is_password(hashed: str, password: str) -> bool:
    """Whether the system's own crypt(3) takes this for the password."""
    script = "print crypt($ARGV[0], $ARGV[1]) eq $ARGV[1] ? 1 : 0"
    given = ["perl", "-e", script, password, hashed]
    return subprocess.run(given, check=True, capture_output=True, timeout=60).stdout == b"1"


def test_a_created_system_user_is_asked_for_with_its_password_as_a_hash(team: Team) -> None:
    shop = system_users.create(team.instance, team.owner, team.server.id, username="shop", password=PASSWORD)
    assert (shop.managed, shop.state) == (True, accounts.PENDING)
    asked = wanted(team)["shop"]
    assert sorted(asked) == ["password_hash", "present"]
    assert asked["password_hash"].startswith("$6$")
    assert is_password(asked["password_hash"], PASSWORD)
    assert not is_password(asked["password_hash"], PASSWORD + "x")

    changed = system_users.set_password(team.instance, team.owner, team.server.id, shop.id, password="another password")
    assert changed.revision is not None
    assert shop.revision is not None
    assert changed.revision > shop.revision
    assert is_password(wanted(team)["shop"]["password_hash"], "another password")


def test_neither_password_nor_hash_is_kept_in_clear(team: Team) -> None:
    system_users.create(team.instance, team.owner, team.server.id, username="shop", password=PASSWORD)
    hashed = wanted(team)["shop"]["password_hash"]

    def everything(connection: Any) -> str:
        return "".join(
            repr(row) for table in tables.metadata.tables.values() for row in connection.execute(select(table))
        )

    stored = team.instance.database.read(everything)
    assert "shop" in stored
    assert PASSWORD not in stored
    assert hashed not in stored
    assert all(PASSWORD not in event.summary for event in events.find(team.instance, team.owner, limit=100).items)


@pytest.mark.parametrize("change", ["another's", "damaged"])
def test_a_password_changed_in_the_database_is_not_signed(team: Team, change: str) -> None:
    shop = system_users.create(team.instance, team.owner, team.server.id, username="shop", password=PASSWORD)
    other = system_users.create(team.instance, team.owner, team.server.id, username="other", password="a password")

    def tamper(connection: Any) -> None:
        rows = tables.system_users
        sealed = connection.execute(select(rows.c.encrypted_password).where(rows.c.id == shop.id)).scalar_one()
        if change == "damaged":
            sealed = sealed[:-1] + bytes([sealed[-1] ^ 1])
        connection.execute(update(rows).where(rows.c.id == other.id).values(encrypted_password=sealed))

    team.instance.database.write(tamper)
    accounts = wanted(team)
    assert "other" not in accounts
    assert accounts["shop"]["password_hash"], "the rest is still asked for"
    alarms = [one.summary for one in events.find(team.instance, team.owner, limit=100).items if one.level == "alarm"]
    assert len(alarms) == 1
    assert f"system user {other.id}" in alarms[0]


def test_a_deployment_key_is_asked_for_once(team: Team) -> None:
    asked = system_users.ask_deployment_key(team.instance, team.owner, team.server.id, team.deploy.id)
    assert wanted(team)["deploy"] == {"present": True, "deployment_key": True}
    again = system_users.ask_deployment_key(team.instance, team.owner, team.server.id, team.deploy.id)
    assert again.revision == asked.revision


def test_a_deleted_account_is_removed_and_a_new_one_of_that_name_is_kept(team: Team) -> None:
    def create() -> int:
        return system_users.create(team.instance, team.owner, team.server.id, username="shop", password=PASSWORD).id

    system_users.delete(team.instance, team.owner, team.server.id, create())
    assert wanted(team)["shop"] == {"present": False}
    again = create()
    assert wanted(team)["shop"]["present"] is True
    system_users.delete(team.instance, team.owner, team.server.id, again)
    assert wanted(team)["shop"] == {"present": False}


def test_accounts_that_keyrack_did_not_make_are_not_asked_for(team: Team) -> None:
    assert set(wanted(team)) == {"deploy"}
    found = system_users.find(team.instance, team.owner, team.server.id).items
    assert {user.username: user.state for user in found} == {
        "runcloud": accounts.UNMANAGED,
        "root": accounts.UNMANAGED,
        "deploy": accounts.PENDING,
    }
    root = next(user for user in found if user.username == "root")
    with pytest.raises(Refusal):
        system_users.set_password(team.instance, team.owner, team.server.id, root.id, password=PASSWORD)
    with pytest.raises(Refusal):
        system_users.delete(team.instance, team.owner, team.server.id, root.id)
    assert set(wanted(team)) == {"deploy"}


def test_an_account_on_a_host_that_lets_keyrack_make_none_is_shown_as_refused(team: Team) -> None:
    obey(team)
    found = system_users.get(team.instance, team.owner, team.server.id, team.deploy.id)
    assert found.state == accounts.REFUSED


def test_a_password_is_refused_in_words_where_openssl_is_missing(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Refusal) as refused:
        account_passwords.hash_for_host(PASSWORD)
    assert refused.value.kind is Kind.UNAVAILABLE
    assert "openssl" in refused.value.message
