"""A change wakes every host that waits, at whichever process it waits."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from keyrack.core.hosts import enrolment, servers, system_users
from keyrack.core.keys import grants, user_keys
from keyrack.core.people import tokens
from keyrack.store.people import users
from tests.core.keys_for_tests import fresh_line
from tests.services import TEAM, Service, running, settings_for
from tests.waiting import wait_until

HOSTS = 6


def asked(service: Service, secret: str, revision: int, wait: int) -> Any:
    """One question of a host."""
    headers = {"Authorization": f"Bearer {secret}", "Accept-Encoding": "gzip"}
    return service.client.get(f"/agent/v1/document?revision={revision}&wait={wait}", headers=headers, timeout=40)


@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_change_reaches_every_host_at_both_processes(kind: str, postgresql_url: str, tmp_path: Path) -> None:
    with running(settings_for(tmp_path / "data", postgresql_url)) as first:
        first.apply(TEAM)
        owner = tokens.authenticate(first.instance, "token-of-olga", address="192.0.2.1", channel="test")
        alice = tokens.authenticate(first.instance, "token-of-alice", address="192.0.2.1", channel="test")
        secrets = []
        for number in range(HOSTS):
            server = servers.create(first.instance, owner, name=f"host-{number}", address="192.0.2.1", tags=("fleet",))
            system_users.create(first.instance, owner, server.id, username="deploy")
            _, token = servers.invitation(first.instance, owner, server.id)
            secrets.append(enrolment.enrol(first.instance, token, {}, address="192.0.2.1").secret)
        user_keys.add(first.instance, alice, title="laptop", public_key=fresh_line())
        user = first.instance.database.read(lambda connection: users.user(connection, alice.user_id or 0))
        assert user is not None
        with running(settings_for(tmp_path / "data", postgresql_url)) as second, ThreadPoolExecutor(HOSTS) as hosts:
            both = [first, second]
            revisions = []
            for number, secret in enumerate(secrets):
                document = asked(both[number % 2], secret, 0, 0).json()["document"]
                revisions.append(int(document.partition('"revision":')[2].partition(",")[0]))
                # Once more, so that it is known here, and once from what is known.
                assert [asked(both[number % 2], secret, revisions[-1], 0).status_code for _ in range(2)] == [204, 204]
            waiting = [
                hosts.submit(asked, both[number % 2], secret, revisions[number], 30)
                for number, secret in enumerate(secrets)
            ]
            grants.give(first.instance, owner, user_id=user.id, tag="fleet", system_user="deploy")
            answers = [one.result(40) for one in waiting]
            assert [answer.status_code for answer in answers] == [200] * HOSTS
            assert all("deploy" in answer.json()["document"] for answer in answers)


def test_a_host_that_waits_with_a_replaced_secret_is_sent_nothing(unused_data: Path) -> None:
    with running(settings_for(unused_data, "")) as service, ThreadPoolExecutor(1) as hosts:
        service.apply(TEAM)
        owner = tokens.authenticate(service.instance, "token-of-olga", address="192.0.2.1", channel="test")
        server = servers.create(service.instance, owner, name="host", address="192.0.2.1", tags=())
        enrolled = []
        for _ in range(2):
            _, token = servers.invitation(service.instance, owner, server.id)
            enrolled.append(partial(enrolment.enrol, service.instance, token, {}, address="192.0.2.1"))
        old = enrolled[0]().secret
        revision = json.loads(asked(service, old, 0, 0).json()["document"])["revision"]
        assert asked(service, old, revision, 0).status_code == 204
        waiting = hosts.submit(asked, service, old, revision, 30)
        gauge = service.instance.figures.waiting
        wait_until(lambda: gauge._value.get() == 1, "the host waits")
        new = enrolled[1]().secret
        assert waiting.result(40).status_code == 401
        report = {"revision": revision, "state": "applied"}
        headers = {"Authorization": f"Bearer {old}"}
        assert service.client.post("/agent/v1/report", json=report, headers=headers).status_code == 401
        assert asked(service, new, 0, 0).status_code == 200
