"""Uninstalling the agent does not wait for the service, which gets a report where it answers."""

from __future__ import annotations

import threading

import pytest

from keyrack.agent import uninstall
from keyrack.agent.state import StateFolder
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.small_service import SmallService


def test_uninstalling_is_reported_to_the_service(host: EnrolledHost, service: SmallService) -> None:
    ended = host.agent("uninstall")
    assert ended.returncode == 0, ended.stderr
    assert [report["facts"] for report in service.reports] == [{"enforcement": "uninstalled"}]
    assert not host.state.exists()


@pytest.mark.parametrize("status", [401, 500])
def test_uninstalling_removes_everything_though_the_service_refuses(
    host: EnrolledHost, service: SmallService, status: int
) -> None:
    service.refusal = status
    ended = host.agent("uninstall")
    assert ended.returncode == 0, ended.stderr
    assert "could not be told" in ended.stderr
    assert not host.state.exists()


def test_uninstalling_removes_everything_though_the_service_does_not_answer(
    host: EnrolledHost, service: SmallService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uninstall, "TELL_SECONDS", 0.2)
    over = threading.Event()

    def wait(report: object) -> int:
        over.wait(30)
        return 503

    service.refuses = wait
    memory = StateFolder.open(str(host.state))
    enrolment = memory.enrolment()
    assert enrolment is not None
    try:
        assert uninstall.uninstall(memory, enrolment, host.said.append) == []
        assert not over.is_set()
    finally:
        over.set()
    assert "could not be told" in host.said[-1]
    assert not host.state.exists()
