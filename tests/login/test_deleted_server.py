"""A host whose server was deleted lets none of its keys in any more, on or off at that time, with a real sshd."""

from __future__ import annotations

from pathlib import Path

from keyrack.core.hosts import deleted_servers, servers
from tests.login.fleet import Fleet, fleet
from tests.login.private_sshd import Key, strict_folder
from tests.login.test_revocation import sessions_of
from tests.services import Service
from tests.waiting import wait_until


def obeyed(hosts: Fleet) -> dict[str, bool]:
    """By name: whether the host of each deleted server has said that it obeys."""
    found = deleted_servers.find(hosts.instance, hosts.actor).items
    return {one.name: one.acknowledged_at is not None for one in found}


def test_the_keys_of_a_deleted_server_open_nothing_any_more(team: Service, tmp_path: Path) -> None:
    key = Key.make(tmp_path / "key")
    with strict_folder() as folder, fleet(team, folder, 2) as hosts:
        hosts.add(key, "key")
        on, off = hosts.hosts
        for host in hosts.hosts:
            host.client.wait_until_open(key)
        off.stop()
        client = on.client.stay(key)
        wait_until(lambda: sessions_of(hosts, on) == 1, "the login that stays in the list")
        for host in hosts.hosts:
            servers.delete(hosts.instance, hosts.actor, host.server.id)
        wait_until(lambda: obeyed(hosts)["host-0"], "the word of the host that is on")
        assert not on.client.lets_in(key)
        client.wait(60)
        assert not obeyed(hosts)["host-1"]
        off.start()
        wait_until(lambda: obeyed(hosts)["host-1"], "the word of the host that was off")
        assert not off.client.lets_in(key)
