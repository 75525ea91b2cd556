"""Reports that are too long, or not taken, or overtaken by the next: no receipt is lost, and no key is called gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from keyrack.agent.service.client import ServiceAnswer
from keyrack.agent.service.outbox import LARGEST_FILE, PIECE, Outbox
from keyrack.agent.state import Accepted
from keyrack.core.hosts import unmanaged_keys
from keyrack.core.people import actors
from keyrack.protocol.host_document import AuthorizedKey
from keyrack.store.hosts import servers
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import document, public_key
from tests.agent.small_service import SmallService
from tests.core.keys_for_tests import fresh_line
from tests.core.test_unmanaged_keys import entry
from tests.services import Service
from tests.web.runcloud_team import Agent

MANY = 400


def long_entry(**more: Any) -> dict[str, Any]:
    """As long as one of a key of 4096 bits."""
    return entry(fresh_line("robot"), **{"padding": "p" * 700, **more})


def deliver(service: Service, agent: Agent, outbox: Outbox) -> int:
    """Tell everything; answers in how many reports."""
    number = 0
    while outbox.first is not None:
        answer = service.call("POST", "/agent/v1/report", token=agent.secret, json=outbox.first)
        if answer.status_code == 200:
            outbox.accepted()
        else:
            outbox.refused()
        number += 1
        assert number < 100
    return number


def known(service: Service, *states: str) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    while True:
        page = unmanaged_keys.find(
            service.instance, actors.system_actor(1), 1, states=states, offset=len(found), limit=500
        )
        found |= {(one.path, one.fingerprint) for one in page.items}
        if not page.items:
            return found


def test_a_list_of_any_length_arrives_with_its_receipt(team: Service) -> None:
    agent = Agent(team, 1)
    revision = agent.document()["revision"]
    keys = [
        long_entry(username=f"user{number % 5}", path=f"/home/user{number % 5}/keys", line=number)
        for number in range(MANY)
    ]
    outbox = Outbox()
    report: dict[str, Any] = {"revision": revision, "state": "applied", "problems": [], "keys_cut": []}
    outbox.put({**report, "keys_found": keys})
    assert deliver(team, agent, outbox) > 3
    server = team.instance.database.read(lambda connection: servers.by_id(connection, 1))
    assert server is not None
    assert server.applied_revision == revision
    places = {(key["path"], key["fingerprint"]) for key in keys}
    assert known(team, *unmanaged_keys.OPEN) == places
    # One key of one file, and all of another file, are not there any more; what other pieces have stays.
    left = [key for key in keys[1:] if key["path"] != "/home/user3/keys"]
    outbox.put({**report, "keys_found": left})
    deliver(team, agent, outbox)
    assert known(team, *unmanaged_keys.OPEN) == {(key["path"], key["fingerprint"]) for key in left}


def test_a_file_that_is_too_long_for_one_report_makes_nothing_gone(team: Service) -> None:
    agent = Agent(team, 1)
    revision = agent.document()["revision"]
    line = fresh_line("robot")
    keys = [long_entry(line=number, comment="c" * 200) for number in range(50)]
    keys += [entry(line, line=number, path=f"/etc/keys/{number}") for number in range(20)]
    outbox = Outbox()
    long = LARGEST_FILE // 50
    outbox.put(
        {
            "revision": revision,
            "state": "applied",
            "problems": [],
            "keys_cut": [],
            "keys_found": [{**key, "padding": "p" * long} if key["line"] < 50 else key for key in keys],
        }
    )
    assert deliver(team, agent, outbox) > 2
    assert known(team, *unmanaged_keys.OPEN) == {(key["path"], key["fingerprint"]) for key in keys}


def test_a_host_with_very_many_key_files_reports_which_keys_are_gone(team: Service) -> None:
    """A key file for each of many people: each report names the files of the others."""
    agent = Agent(team, 1)
    line = fresh_line("robot")
    keys = [
        entry(line, username=f"user{number}", path=f"/home/user{number}/.ssh/authorized_keys", padding="p" * 1500)
        for number in range(MANY)
    ]
    outbox = Outbox()
    for found in (keys, keys[1:]):
        outbox.put({"keys_found": found, "keys_cut": []})
        assert deliver(team, agent, outbox) > 1
    assert known(team, *unmanaged_keys.OPEN) == {(key["path"], key["fingerprint"]) for key in keys[1:]}


def accepted(service: SmallService, revision: int) -> Accepted:
    return service.signer.signed(document(revision, {"deploy": [AuthorizedKey(public_key())]}))


def drive(host: EnrolledHost, service: SmallService, refuses: Callable[[dict[str, Any]], int | None]) -> None:
    """Let the host obey revision 3 and report it to a service that refuses some reports."""
    service.publish(3, accepted(service, 3))
    service.refuses = refuses
    follower = host.follower()
    for _ in range(3):
        follower.step(0)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_receipt_arrives_where_the_rest_of_its_report_is_refused(
    status: int, host: EnrolledHost, service: SmallService
) -> None:
    fields = {"revision", "state", "problems", "agent_version"}

    def refuses(report: dict[str, Any]) -> int | None:
        return status if set(report) - fields or "problems" in report else None

    outbox = Outbox()
    outbox.put({"revision": 3, "state": "applied", "problems": ["x"], "agent_version": "1", "facts": {"a": "b"}})
    taken = []
    while outbox.first is not None:
        if refuses(outbox.first):
            assert outbox.refused()
        else:
            taken.append(outbox.first)
            assert not outbox.accepted()  # not all of it was
    # Nothing is said of problems, rather than that there are none.
    assert taken == [{"revision": 3, "state": "applied", "agent_version": "1"}]


def test_a_refused_receipt_is_sent_again_and_delays_no_document(
    host: EnrolledHost, service: SmallService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyrack.agent.service.follow.REFUSED_RETRY", 0.0)
    refusals = [400, 413, 400, 400]
    drive(host, service, lambda report: refusals.pop() if refusals else None)
    assert service.wait_for_report("applied", 3)
    assert not refusals


def test_a_report_that_must_wait_gives_its_receipt_first(host: EnrolledHost, service: SmallService) -> None:
    drive(host, service, lambda report: 429 if "facts" in report or "keys_found" in report else None)
    assert set(service.wait_for_report("applied", 3)) <= {"revision", "lineage", "state", "problems", "agent_version"}


def test_the_rest_of_a_report_is_kept_whole_until_its_receipt_is_sent() -> None:
    outbox = Outbox()
    outbox.put({"revision": 3, "state": "applied", "problems": [], "keys_found": []})
    assert outbox.receipt_first()
    assert outbox.first == {"revision": 3, "state": "applied", "problems": []}
    assert not outbox.receipt_first(), "it is alone now"
    assert not outbox.accepted()
    assert outbox.first == {"keys_found": []}
    assert not outbox.receipt_first()
    assert outbox.accepted(), "nothing was left out"


def page(status: int) -> bytes:
    """What a proxy says in words of its own."""
    return f"HTTP/1.1 {status} x\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>".encode()


@pytest.mark.parametrize("no", [page(413), page(403), b"", 403, 500], ids=str)
def test_a_report_that_does_not_get_through_keeps_no_document_and_no_receipt(
    no: int | bytes, host: EnrolledHost, service: SmallService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyrack.agent.service.follow.TRY_AGAIN_SECONDS", 0.0)
    bare = {"revision", "lineage", "state", "agent_version"}
    service.refuses = lambda report: no if set(report) - bare else None
    service.publish(3, accepted(service, 3))
    follower = host.follower()
    for _ in range(8):
        follower.step(0)
    assert service.wait_for_report("applied", 3)
    assert any("the service did not take the report" in words for words in follower.wrong), follower.wrong
    service.publish(4, accepted(service, 4))
    for _ in range(8):
        follower.step(0)
    assert service.wait_for_report("applied", 4)
    service.refuses = lambda report: None
    service.publish(5, accepted(service, 5))
    for _ in range(4):
        follower.step(0)
    assert "problems" in service.wait_for_report("applied", 5)
    assert not follower.wrong


def test_documents_are_obeyed_though_no_report_gets_through(
    host: EnrolledHost, service: SmallService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyrack.agent.service.follow.TRY_AGAIN_SECONDS", 0.0)
    service.refuses = lambda report: page(403)
    follower = host.follower()
    for revision in (3, 4):
        key = public_key()
        service.publish(revision, service.signer.signed(document(revision, {"deploy": [AuthorizedKey(key)]})))
        for _ in range(4):
            follower.step(0)
        assert key in (host.keys / "deploy").read_text("ascii")
    # It says so once, and goes on to try.
    assert len([words for words in host.said if "did not take" in words]) == 1
    assert len([words for words in host.said if "no answer" in words]) <= 1


def test_a_waiting_receipt_is_sent_before_a_later_failure(host: EnrolledHost, service: SmallService) -> None:
    service.publish(3, accepted(service, 3))
    follower = host.follower()
    follower.step(0)
    # A document comes before the receipt of the last one went out, and is refused.
    service.refuses = lambda report: 503
    follower.step(0)
    foreign = SmallService().signer.signed(document(4, {}))
    service.refuses = lambda report: None
    follower._obey(ServiceAnswer(200, {"document": foreign.document, "signature": foreign.signature}))
    follower.step(0)  # asks whether the service is there again
    follower.step(0)
    assert service.wait_for_report("refused", 3)
    assert service.wait_for_report("applied", 3)
    assert [report["state"] for report in service.reports] == ["applied", "refused"]


def test_a_short_report_is_sent_as_one() -> None:
    outbox = Outbox()
    outbox.put({"revision": 3, "state": "applied", "problems": [], "keys_found": [], "facts": {"a": "b" * 1000}})
    assert outbox.first is not None
    assert len(str(outbox.first)) < PIECE
    assert outbox.accepted()
    assert outbox.first is None
