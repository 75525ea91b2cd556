"""An agent and a service of different ages: what one side does not know harms nothing, or refuses all of it."""

from __future__ import annotations

import json

from keyrack.protocol.host_document import AuthorizedKey
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import document, public_key
from tests.agent.small_service import SmallService


def test_fields_of_a_newer_service_are_left_alone(host: EnrolledHost, service: SmallService) -> None:
    key = public_key()
    fields = json.loads(document(1, {"deploy": [AuthorizedKey(key)]}))
    fields["weather"] = {"rain": True}
    fields["accounts"] = {"deploy": {"present": True, "shoe_size": 43}}
    service.publish(1, service.signer.signed(json.dumps(fields)))
    assert host.agent("run", "--once").returncode in (0, 1)
    assert key in (host.keys / "deploy").read_text("ascii")
    assert service.wait_for_report("applied", 1)


def test_a_format_of_a_newer_service_is_refused_and_the_last_state_stays(
    host: EnrolledHost, service: SmallService
) -> None:
    key = public_key()
    service.publish(1, service.signer.signed(document(1, {"deploy": [AuthorizedKey(key)]})))
    host.agent("run", "--once")
    before = host.files()
    for revision, change in ((2, {"format": 2}), (3, {"mode": "perhaps"})):
        fields = {**json.loads(document(revision, {})), **change}
        service.publish(revision, service.signer.signed(json.dumps(fields)))
        assert host.agent("run", "--once").returncode == 1
        assert host.files() == before
    assert "reads format 1" in service.wait_for_report("refused")["problems"][0]


def test_a_restriction_that_an_older_agent_does_not_know_refuses_the_document(
    host: EnrolledHost, service: SmallService
) -> None:
    fields = json.loads(document(1, {"deploy": [AuthorizedKey(public_key())]}))
    fields["users"]["deploy"][0]["only_on_tuesdays"] = True
    service.publish(1, service.signer.signed(json.dumps(fields)))
    assert host.agent("run", "--once").returncode == 1
    assert "may need an update" in service.wait_for_report("refused")["problems"][0]
    assert "deploy" not in host.files()


def test_notes_of_a_newer_agent_are_read_by_an_older_one(host: EnrolledHost, service: SmallService) -> None:
    for name in ("enrolment.json", "status.json", "local.json"):
        path = host.state / name
        fields = json.loads(path.read_text("ascii")) if path.exists() else {}
        path.write_text(json.dumps({**fields, "something_newer": [1, 2]}), "ascii")
        path.chmod(0o600)
    service.publish(1, service.signer.signed(document(1, {"deploy": [AuthorizedKey(public_key())]})))
    assert host.agent("run", "--once").returncode == 0
    assert "revision 1 is in force" in host.agent("status").stdout
