"""A revoked key opens nothing from a host's first contact on, its sessions end, and each host's receipt is kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sqlalchemy import func, select

from keyrack.core.keys import receipts, revocation
from keyrack.ssh.public_key import fingerprint_of
from keyrack.store.hosts import servers
from keyrack.store.tables import sessions
from tests.login.fleet import Fleet, Host, fleet
from tests.login.private_sshd import Key, strict_folder
from tests.services import Service
from tests.waiting import wait_until

HOSTS = 6  # one stays on


def has_obeyed(hosts: Fleet, host: Host) -> bool:
    """Whether a host has said that it obeys what it must."""
    server = hosts.instance.database.read(lambda connection: servers.by_id(connection, host.server.id))
    assert server is not None
    return server.applied_revision == server.revision


def sessions_of(hosts: Fleet, host: Host) -> int:
    """How many live sessions the service knows of a host."""
    count = select(func.count()).select_from(sessions).where(sessions.c.server_id == host.server.id)
    return hosts.instance.database.read(lambda connection: connection.execute(count).scalar_one())


def test_hosts_that_were_off_refuse_a_revoked_key_at_the_first_login(team: Service, tmp_path: Path) -> None:
    key, other = Key.make(tmp_path / "key"), Key.make(tmp_path / "other")
    fingerprint = fingerprint_of(key.public)
    with strict_folder() as folder, fleet(team, folder, HOSTS) as hosts:
        hosts.add(key, "key")
        hosts.add(other, "other")
        off, on = hosts.hosts[:-1], hosts.hosts[-1]
        for host in hosts.hosts:
            host.client.wait_until_open(key)
        for host in off:
            host.stop()
        client = on.client.stay(key)

        wait_until(lambda: sessions_of(hosts, on), "the login that stays in the list")
        revocation.revoke_everywhere(hosts.instance, hosts.actor, fingerprint)
        wait_until(lambda: has_obeyed(hosts, on), "the receipt of the host that is on")
        assert not on.client.lets_in(key)
        client.wait(60)
        words = receipts.of_key(hosts.instance, hosts.actor, fingerprint).words
        assert words == "done on 1 of 6 servers; not yet on host-0, host-1, host-2, host-3, host-4"
        for host in off:
            host.start()
            wait_until(partial(has_obeyed, hosts, host), "the receipt of a host that was off")
            # Its very first login since then, and the only one: no second try, no waiting.
            assert not host.client.lets_in(key)
            assert host.client.lets_in(other)
        assert receipts.of_key(hosts.instance, hosts.actor, fingerprint).words == "done on 6 of 6 servers"
