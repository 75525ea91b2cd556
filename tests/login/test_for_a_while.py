"""Access for a while, glass that is broken and keys that are frozen, on a real host: what opens, what closes by itself,
what goes on, and what is logged.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from keyrack.core.audit import events
from keyrack.core.hosts import sessions
from keyrack.core.keys import credentials, freezes, requests
from keyrack.model import Event, EventFilter
from tests.login.fleet import Fleet, fleet
from tests.login.private_sshd import USERNAME, Key, strict_folder
from tests.services import Service
from tests.waiting import wait_until
from tests.web.test_native import call


@contextmanager
def logged_in(hosts: Fleet, key: Key) -> Iterator[subprocess.Popen[bytes]]:
    """A login that stays, until the block ends or the host ends it."""
    client = hosts.hosts[0].client
    client.wait_until_open(key)
    command = client.command(key, command="sleep 300")
    held = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield held
    finally:
        held.kill()
        held.wait(30)


def logged(hosts: Fleet, words: str) -> list[Event]:
    """The events with these words, newest first."""
    return list(events.find(hosts.instance, hosts.actor, EventFilter(search=words), limit=10).items)


def open_sessions(hosts: Fleet, label: str) -> list[int]:
    """The numbers of the sessions that a key opened."""
    found = sessions.find(hosts.instance, hosts.actor, hosts.hosts[0].server.id, limit=50).items
    return [one.id for one in found if one.label == label]


def test_access_for_a_while_broken_glass_and_frozen_keys(team: Service, tmp_path: Path) -> None:
    mine, vault, usual = (Key.make(tmp_path / name) for name in ("mine", "vault", "usual"))
    with strict_folder() as folder, fleet(team, folder, 1) as hosts:
        (host,) = hosts.hosts
        own = {"title": "mine", "public_key": mine.public}
        call(team, "POST", "/people/me/keys", own, token="token-of-alice", status=201)
        wanted = {"server": "host-0", "system_user": USERNAME, "duration": "12s", "reason": "a look"}
        asked = call(team, "POST", "/requests", wanted, token="token-of-alice", status=201)
        assert not host.client.lets_in(mine)
        requests.approve(hosts.instance, hosts.actor, asked["id"])
        with logged_in(hosts, mine) as held:
            assert held.wait(60) != 0  # the host ends it
        assert not host.client.lets_in(mine)
        wait_until(lambda: logged(hosts, "opened by a request, reached its end"), "the end of the grant")

        for key, label in ((vault, "vault"), (usual, "usual")):
            credentials.add(
                hosts.instance,
                hosts.actor,
                host.server.id,
                label=label,
                username=USERNAME,
                public_key=key.public,
                break_glass=key is vault,
            )
        with logged_in(hosts, vault) as broken:
            wait_until(lambda: logged(hosts, "glass broken"), "the alarm")
            wait_until(lambda: open_sessions(hosts, "vault"), "the session")
            alarm = logged(hosts, "glass broken")[-1]
            assert (alarm.level, alarm.details["username"], alarm.details["server"]) == ("alarm", USERNAME, "host-0")
            sessions.end(hosts.instance, hosts.actor, host.server.id, open_sessions(hosts, "vault")[-1])
            assert broken.wait(60) != 0

        with logged_in(hosts, usual) as going_on:
            wait_until(lambda: open_sessions(hosts, "usual"), "the session")
            made = freezes.freeze(hosts.instance, hosts.actor, server="host-0").freeze
            assert made is not None
            obeyed = partial(freezes.get, hosts.instance, hosts.actor, made.id)
            wait_until(lambda: obeyed().done, "the receipt of the freeze")
            assert not host.client.lets_in(usual)
            assert host.client.lets_in(vault)
            assert going_on.poll() is None
            assert open_sessions(hosts, "usual")
            (held_key,) = [
                one
                for one in credentials.find(hosts.instance, hosts.actor, host.server.id, limit=50).items
                if one.label == "usual"
            ]
            freezes.confirm_credential(hosts.instance, hosts.actor, held_key.id)
            host.client.wait_until_open(usual)
            assert going_on.poll() is None
