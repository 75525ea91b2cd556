"""A host whose server was deleted gives everything back by a signed document, says so, and asks no more."""

from __future__ import annotations

import pytest

from keyrack.agent.service.follow import CHECK_FILES_SECONDS
from keyrack.protocol import host_document
from keyrack.protocol.host_document import AuthorizedKey, HostDocument
from keyrack.ssh import revoked_keys
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import HOST, ISSUED, public_key
from tests.agent.small_service import SmallService
from tests.agent.test_follow import publish


def publish_the_last(service: SmallService, revision: int, revoked: list[str]) -> None:
    """Tell the host that its server was deleted."""
    last = HostDocument(HOST, revision, ISSUED, {}, revoked, mode="observe", deleted=True)
    service.publish(revision, service.signer.signed(host_document.encode(last)))


def test_a_deleted_host_removes_all_keys_and_stops_asking(host: EnrolledHost, service: SmallService) -> None:
    key = public_key()
    publish(service, 1, {"deploy": [AuthorizedKey(key)]})
    follower = host.follower()
    follower.step(0)
    publish_the_last(service, 2, [key])
    follower.step(0)
    follower.step(0)
    assert host.files() == {"revoked": revoked_keys.render([key])}
    assert service.wait_for_report("applied", 2)["problems"] == []
    assert "deleted" in follower.wrong[-1]
    # Nothing newer is asked for, and what somebody puts into our folder is still taken out.
    publish(service, 3, {"deploy": [AuthorizedKey(key)]})
    assert follower.step(0) <= CHECK_FILES_SECONDS
    assert host.files() == {"revoked": revoked_keys.render([key])}
    status = host.agent("status")
    assert "was deleted in Keyrack" in status.stdout + status.stderr


@pytest.mark.parametrize("refusal", [401, 403, 410, 404, 500])
def test_a_missing_answer_removes_no_key(host: EnrolledHost, service: SmallService, refusal: int) -> None:
    key = public_key()
    publish(service, 1, {"deploy": [AuthorizedKey(key)]})
    follower = host.follower()
    follower.step(0)
    before = host.files()
    service.refusal = refusal
    for _ in range(3):
        follower.step(0)
    assert host.files() == before
    # A service that knows the host again is followed again.
    service.refusal = None
    publish(service, 2, {})
    follower.step(0)
    follower.step(0)
    assert list(host.files()) == ["revoked"]


def test_a_service_that_forgot_the_host_after_that_is_an_end_as_well(host: EnrolledHost, service: SmallService) -> None:
    publish_the_last(service, 2, [])
    follower = host.follower()
    follower.step(0)
    service.refusal = 401
    follower.step(0)
    assert "deleted" in follower.wrong[-1]
    assert any("asked again" in words for words in host.said)


def test_a_deleted_host_knows_after_a_restart_that_it_is_deleted(host: EnrolledHost, service: SmallService) -> None:
    publish_the_last(service, 2, [])
    follower = host.follower()
    follower.step(0)
    follower.step(0)
    again = host.follower()
    again.step(0)
    assert "deleted" in again.wrong[-1]
