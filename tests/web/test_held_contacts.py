"""A host that waits is held by its connection alone, with no task, and gets what it would have got otherwise."""

from __future__ import annotations

import gc
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keyrack.core.hosts import enrolment, servers, system_users
from keyrack.core.keys import credentials
from keyrack.core.people import tokens
from keyrack.model import Actor, Server
from keyrack.web import agent_api
from keyrack.web.held_contacts import ROUNDING_SECONDS, HeldContact
from tests.core.keys_for_tests import fresh_line
from tests.services import TEAM, Service, running, settings_for
from tests.waiting import wait_until

ALONE = 500


class Host:
    """A host's connection that stays open, as agents keep theirs."""

    def __init__(self, service: Service, secret: str) -> None:
        host, port = service.instance.settings.host_and_port
        self._socket = socket.create_connection((host, port), timeout=30)
        self._secret = secret
        self._held = b""

    def ask(self, question: str, **more: str) -> None:
        """Ask for the document, and wait for nothing."""
        headers = {"Host": "test", "Authorization": f"Bearer {self._secret}", **more}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._socket.sendall(f"GET /agent/v1/document?{question} HTTP/1.1\r\n{lines}\r\n".encode())

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer: its status, headers and body; 0 where the connection ended."""
        while b"\r\n\r\n" not in self._held:
            if not self._more():
                return 0, {}, b""
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers.get("content-length", 0))
        while len(self._held) < length and self._more():
            pass
        body, self._held = self._held[:length], self._held[length:]
        return int(first.split()[1]), headers, body

    def _more(self) -> bool:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self._held += data
        return bool(data)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def is_held(server: Server) -> bool:
    """Whether a server's host is held by its connection, and no task does anything for it."""
    held = [one for one in gc.get_objects() if isinstance(one, HeldContact) and one.server_id == server.id]
    return bool(held) and not any(one._asking for one in held)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for this file."""
    with running(settings_for(tmp_path_factory.mktemp("rest") / "data", "")) as service:
        service.apply(TEAM)
        yield service


@contextmanager
def held_host(
    service: Service, name: str, wait: int, *, large: bool = False
) -> Iterator[tuple[Host, Server, Actor, int]]:
    """A host that got its document, obeys it and is held; and the revision that it obeys.

    large: whose document is made by itself; it is held from its second question on.
    """
    owner = tokens.authenticate(service.instance, "token-of-olga", address="192.0.2.1", channel="test")
    server = servers.create(service.instance, owner, name=name, address="192.0.2.1", tags=())
    system_users.create(service.instance, owner, server.id, username="deploy")
    _, token = servers.invitation(service.instance, owner, server.id)
    host = Host(service, enrolment.enrol(service.instance, token, {}, address="192.0.2.1").secret)
    try:
        host.ask("revision=0&wait=0")
        status, _, body = host.answer()
        assert status == 200
        revision = json.loads(json.loads(body)["document"])["revision"]
        host.ask(f"revision={revision}&wait={wait}")
        if wait > 1 and not large:
            wait_until(lambda: is_held(server), "the host is held")
        yield host, server, owner, revision
    finally:
        host.close()


def add_key(service: Service, owner: Actor, server: Server, label: str) -> str:
    """Change what the host must obey; the key."""
    line = fresh_line()
    credentials.add(service.instance, owner, server.id, label=label, username="deploy", public_key=line)
    return " ".join(line.split()[:2])


def test_a_waiting_host_is_sent_a_change_and_waits_again(service: Service) -> None:
    with held_host(service, "rests", 30) as (host, server, owner, _):
        for label in ("one", "two"):
            key = add_key(service, owner, server, label)
            status, headers, body = host.answer()
            assert (status, headers["content-type"]) == (200, "application/json")
            assert {"x-request-id", "date"} <= set(headers)
            decoded = json.loads(body)
            document = json.loads(decoded["document"])
            assert key in [entry["key"] for entry in document["users"]["deploy"]]
            host.ask(f"revision={document['revision']}&lineage={document['lineage']}&wait=30")
            wait_until(lambda: is_held(server), "it is held again")


def test_a_waiting_host_is_answered_204_when_its_time_is_over(service: Service) -> None:
    with held_host(service, "hears", 1) as (host, _, _, revision):
        status, headers, body = host.answer()
        assert (status, body) == (204, b"")
        assert {"x-request-id", "date"} <= set(headers)
        assert "content-length" not in headers
        before = service.instance.figures.requests.labels("/agent", "2xx")._value.get()
        host.ask(f"revision={revision}&wait=1")
        assert host.answer()[0] == 204
        assert service.instance.figures.requests.labels("/agent", "2xx")._value.get() == before + 1


def test_waits_that_end_at_about_the_same_time_end_together(service: Service) -> None:
    with held_host(service, "one", 30) as (_, one, _, _), held_host(service, "two", 30) as (_, other, _, _):
        held = [who for who in gc.get_objects() if isinstance(who, HeldContact)]
        ends = [who._timer.when() for who in held if who.server_id in (one.id, other.id)]
        steps = [end / ROUNDING_SECONDS for end in ends]
    assert len(steps) == 2
    assert all(abs(step - round(step)) < 0.05 for step in steps), "each end is one that others have, too"


def test_a_waiting_host_keeps_nothing_of_its_request_in_memory(service: Service) -> None:
    with held_host(service, "keeps-nothing", 30) as (_, server, _, _):
        held = [one for one in gc.get_objects() if isinstance(one, HeldContact) and one.server_id == server.id]
        connections = [one._connection for one in held if one._connection is not None]
        assert len(connections) == 1
        for kept in ("scope", "cycle"):
            assert getattr(connections[0], kept) is None


def test_a_host_that_hangs_up_waits_no_more(service: Service) -> None:
    with held_host(service, "hangs-up", 30) as (_, server, _, _):
        pass
    wait_until(lambda: not is_held(server), "nobody waits")


def test_hosts_that_hang_up_before_their_turn_keep_nobody_waiting(service: Service) -> None:
    strangers = [Host(service, f"nobody's {number}") for number in range(100)]
    for stranger in strangers:
        stranger.ask("revision=0&wait=30")
        stranger.close()
    stranger = Host(service, "nobody's")
    stranger.ask("revision=0&wait=30")
    assert stranger.answer()[0] == 401
    stranger.close()
    with held_host(service, "comes-after", 0):
        pass


def test_a_large_document_is_sent_to_a_waiting_host_too(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_api, "LARGE_DOCUMENT", ALONE)
    with held_host(service, "large", 30, large=True) as (host, server, owner, _):
        for label in ("one", "two", "three"):
            key = add_key(service, owner, server, label)
            status, _, body = host.answer()
            document = json.loads(json.loads(body)["document"])
            assert status == 200
            assert key in [entry["key"] for entry in document["users"]["deploy"]]
            host.ask(f"revision={document['revision']}&wait=30")


def test_two_waiting_machines_with_the_same_number_are_told_apart(service: Service) -> None:
    machine: dict[str, Any] = {
        "Keyrack-Machine": "run=0123456789abcdef; boot=; machine=; keys=; starts=1; lane=follow; number={}; name=a"
    }
    with held_host(service, "alike", 1) as (host, _, _, revision):
        assert host.answer()[0] == 204
        for number, wanted in ((1, 204), (2, 204), (2, 409)):
            host.ask(f"revision={revision}&wait=1", **{name: text.format(number) for name, text in machine.items()})
            assert host.answer()[0] == wanted


def test_a_host_that_asks_again_without_waiting_for_the_answer_is_cut_off(service: Service) -> None:
    with held_host(service, "impatient", 30) as (host, _, _, revision):
        host.ask(f"revision={revision}&wait=30")
        assert host.answer()[0] == 0


def test_waiting_hosts_are_disconnected_when_the_service_stops(tmp_path: Path) -> None:
    with running(settings_for(tmp_path / "data", "")) as stopping:
        stopping.apply(TEAM)
        with held_host(stopping, "stops", 30) as (host, _, _, _):
            stopping.let_go()
            began = time.monotonic()
            assert host.answer()[0] == 204
            assert time.monotonic() - began < 20, "it waited on"
