"""Somebody changes a row in the database: it opens nothing, everything else goes on, and everybody is warned."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import update

from keyrack.core.audit import events
from keyrack.core.hosts import servers
from keyrack.core.keys import credentials
from keyrack.core.people import actors
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from tests.login.private_sshd import USERNAME, Key, agent_host, strict_folder
from tests.services import Service


def test_a_changed_row_opens_nothing_and_raises_one_alarm(team: Service, tmp_path: Path) -> None:
    instance, actor = team.instance, actors.system_actor(1)
    good, evil, later = (Key.make(tmp_path / name) for name in ("good", "evil", "later"))
    if USERNAME not in ("root", "deploy"):
        team.call("POST", "/api/v3/servers/1/users", token="token-of-olga", json={"username": USERNAME})

    def put(key: Key, label: str) -> int:
        return credentials.add(instance, actor, 1, label=label, username=USERNAME, public_key=key.public).id

    with strict_folder() as folder, agent_host(folder, team.url, servers.invite(instance, actor, 1)) as (_, client):
        credential = put(good, "good")
        client.wait_until_open(good)
        entered = parse(evil.public)
        row = tables.credentials.c.id == credential
        values = {"public_key": entered.canonical, "fingerprint": entered.fingerprint}
        instance.database.write(
            lambda connection: connection.execute(update(tables.credentials).where(row).values(**values))
        )
        # The next honest change has every host of that server ask for a document.
        put(later, "later")
        client.wait_until_open(later)
        assert not client.lets_in(evil)
        assert not client.lets_in(good), "what its row says now is not known to be what was asked"
        alarms = [event for event in events.find(instance, actor, limit=100).items if event.level == "alarm"]
        assert len(alarms) == 1
        assert f"credential {credential} was changed in the database" in alarms[0].summary
        assert alarms[0].server_id == 1
        # Deleted, it is out of the way, and everything goes on.
        credentials.delete(instance, actor, 1, credential)
        put(good, "good")
        client.wait_until_open(good)
        assert client.lets_in(later)
        assert not client.lets_in(evil)
