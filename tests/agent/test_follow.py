"""What the agent obeys and what it refuses: a refused document changes no byte, and the reason is reported."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from keyrack.agent.service import follow
from keyrack.agent.state import Accepted
from keyrack.protocol import host_document
from keyrack.protocol.host_document import AuthorizedKey, DesiredAccount, HostDocument
from keyrack.ssh import authorized_keys, revoked_keys
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import HOST, ISSUED, Signer, document, public_key
from tests.agent.small_service import SmallService
from tests.waiting import wait_until

END = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)


def publish(service: SmallService, revision: int, *arguments: object) -> str:
    """Publish a well-signed document; answers its text."""
    text = document(revision, *arguments)  # type: ignore[arg-type]
    service.publish(revision, service.signer.signed(text))
    return text


def test_a_document_becomes_files_that_sshd_reads(host: EnrolledHost, service: SmallService) -> None:
    first, second, gone = public_key(), public_key(), public_key()
    users = {
        "deploy": [AuthorizedKey(first, END, ("restrict", "pty", 'from="10.0.0.0/8"'), "ci"), AuthorizedKey(second)],
        "root": [],
    }
    publish(service, 3, users, [gone])
    host.follower().step(0)

    deploy = host.keys / "deploy"
    assert deploy.read_bytes() == authorized_keys.render(
        [f'restrict,pty,from="10.0.0.0/8",expiry-time="20310203040505Z" {first}', second]
    )
    assert host.revoked_keys.read_bytes() == revoked_keys.render([gone])
    assert sorted(host.files()) == ["deploy", "revoked", "root"]
    for path in (deploy, host.revoked_keys):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(host.keys.stat().st_mode) == 0o755
    assert stat.S_IMODE(host.state.stat().st_mode) == 0o700


def test_the_agent_reports_which_revision_is_in_force(host: EnrolledHost, service: SmallService) -> None:
    publish(service, 3, {"deploy": [AuthorizedKey(public_key())]})
    follower = host.follower()
    follower.step(0)
    follower.step(0)
    assert service.wait_for_report("applied", 3)["problems"] == []
    assert follower.wrong == ()


def test_users_who_are_no_longer_named_lose_their_files(host: EnrolledHost, service: SmallService) -> None:
    key = public_key()
    publish(service, 1, {"deploy": [AuthorizedKey(key)], "alice": [AuthorizedKey(key)]})
    follower = host.follower()
    follower.step(0)
    publish(service, 2, {"alice": [AuthorizedKey(key)]})
    follower.step(0)
    assert sorted(host.files()) == ["alice", "revoked"]


def test_a_correct_file_is_left_alone(host: EnrolledHost, service: SmallService) -> None:
    key = public_key()
    publish(service, 1, {"deploy": [AuthorizedKey(key)], "alice": [AuthorizedKey(key)]})
    follower = host.follower()
    follower.step(0)
    before = (host.keys / "deploy").stat()
    publish(service, 2, {"deploy": [AuthorizedKey(key)], "alice": []})
    follower.step(0)
    after = (host.keys / "deploy").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def changed(text: str, **fields: object) -> str:
    """A document's text with some fields replaced, in its normal form."""
    return json.dumps({**json.loads(text), **fields}, sort_keys=True, separators=(",", ":"))


def with_key(**fields: object) -> Callable[[str], str]:
    """A change to the one key of a document."""

    def change(text: str) -> str:
        users = json.loads(text)["users"]
        users["deploy"][0].update(fields)
        return changed(text, users=users)

    return change


# What is wrong with a document that the service itself signed, and a word of the reason.
SIGNED_BUT_WRONG: dict[str, tuple[Callable[[str], str], str]] = {
    "for another host": (lambda text: changed(text, host="h_of_somebody_else"), "another host"),
    "older": (lambda text: changed(text, revision=4), "not newer"),
    "of the same revision": (lambda text: changed(text, revision=5), "not newer"),
    "of an unknown format": (lambda text: changed(text, format=2), "format 2"),
    "without its users": (lambda text: text.replace('"users"', '"people"'), "users: is missing"),
    "not JSON": (lambda text: text[:-1], "JSON"),
    "naming a field twice": (lambda text: text[:-1] + ',"users":{}}', "twice"),
    "with a user outside the folder": (
        lambda text: changed(text, users={"../../root": json.loads(text)["users"]["deploy"]}),
        "no account",
    ),
    "with a cut key": (with_key(key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMq"), "not a public key"),
    "with a comment": (with_key(key=f"{public_key()} me@home"), "not a public key"),
    "with a second line": (with_key(key=f"{public_key()}\n{public_key()}"), "not a public key"),
    "with an option of its own": (with_key(options=['environment="LD_PRELOAD=/tmp/x"']), "options"),
    "with two options in one": (with_key(options=["restrict,pty"]), "options"),
    "with its end as an option": (with_key(options=['expiry-time="20990101Z"']), "options"),
    "with a local time": (with_key(expires_at="2031-02-03T04:05:06"), "time"),
    "with an unknown restriction": (with_key(not_before="2031-02-03T04:05:06Z"), "update"),
    "with a bad revoked key": (lambda text: changed(text, revoked=["ssh-dss AAAA"]), "revoked[0]"),
}


@pytest.mark.parametrize("wrong", SIGNED_BUT_WRONG)
def test_a_wrong_document_is_refused_whole(host: EnrolledHost, service: SmallService, wrong: str) -> None:
    change, reason = SIGNED_BUT_WRONG[wrong]
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]}, [public_key()])
    follower = host.follower()
    follower.step(0)
    before = host.files()

    bad = change(document(6, {"deploy": [AuthorizedKey(public_key())], "mallory": [AuthorizedKey(public_key())]}))
    service.publish(6, service.signer.signed(bad))
    follower.step(0)
    follower.step(0)
    assert host.files() == before
    report = service.wait_for_report("refused")
    assert report["revision"] == 5
    assert reason in report["problems"][0]
    assert any(reason in words for words in follower.wrong)

    publish(service, 7, {"deploy": []})
    follower.step(0)
    follower.step(0)
    assert service.wait_for_report("applied", 7)
    assert follower.wrong == ()


def altered(service: SmallService, text: str) -> Accepted:
    """One byte of the text changed after it was signed."""
    return Accepted(text.replace('"deploy"', '"deplox"'), service.signer.sign(text))


WRONGLY_SIGNED: dict[str, Callable[[SmallService, str], Accepted]] = {
    "a changed byte": altered,
    "another signer": lambda service, text: Signer().signed(text),
    "another purpose": lambda service, text: service.signer.signed(text, "file"),
    "the signature of another text": lambda service, text: Accepted(text, service.signer.sign(text + " ")),
    "no signature": lambda service, text: Accepted(text, ""),
    "not a signature": lambda service, text: Accepted(text, "-----BEGIN SSH SIGNATURE-----\nAAAA\n" * 3),
}


@pytest.mark.parametrize("wrong", WRONGLY_SIGNED)
def test_a_wrongly_signed_document_is_refused(host: EnrolledHost, service: SmallService, wrong: str) -> None:
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]})
    follower = host.follower()
    follower.step(0)
    before = host.files()
    text = document(6, {"deploy": [AuthorizedKey(public_key())]})
    service.publish(6, WRONGLY_SIGNED[wrong](service, text))
    follower.step(0)
    follower.step(0)
    assert host.files() == before
    assert "signature" in service.wait_for_report("refused")["problems"][0]


def test_a_refused_document_is_reported_once(host: EnrolledHost, service: SmallService) -> None:
    publish(service, 5, {})
    follower = host.follower()
    follower.step(0)
    service.publish(6, Signer().signed(document(6, {})))
    for _ in range(6):
        follower.step(0)
    assert [report["state"] for report in service.reports].count("refused") == 1


def test_a_refused_document_stays_reported_beside_other_reports(
    host: EnrolledHost, service: SmallService, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]})
    follower = host.follower()
    for _ in range(3):
        follower.step(0)
    monkeypatch.setattr(follow, "CHECK_FILES_SECONDS", 0)
    service.publish(6, Signer().signed(document(6, {})))
    follower.step(0)
    with (host.keys / "deploy").open("a") as file:
        file.write(f"{public_key()} rogue\n")
    service.reports.clear()

    def is_put_back() -> bool:
        follower.step(0)
        return any("put back" in words for report in service.reports for words in report.get("problems", ()))

    wait_until(is_put_back, "a report of the file")
    reports = [report for report in service.reports if "state" in report]
    assert {report["state"] for report in reports} == {"refused"}
    assert any("signature" in words for words in reports[-1]["problems"])


def test_a_restarted_agent_makes_the_files_again_without_the_service(host: EnrolledHost, service: SmallService) -> None:
    publish(service, 5, {"deploy": [AuthorizedKey(public_key(), END)]}, [public_key()])
    host.follower().step(0)
    before = host.files()
    service.refusal = 503
    (host.keys / "deploy").unlink()
    host.revoked_keys.unlink()
    host.follower()
    assert host.files() == before


@pytest.mark.parametrize("status", [401, 403, 410, 500, 503])
def test_a_missing_answer_or_a_refusal_changes_nothing(host: EnrolledHost, service: SmallService, status: int) -> None:
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]})
    follower = host.follower()
    follower.step(0)
    before = host.files()
    service.refusal = status
    pause = follower.step(0)
    assert host.files() == before
    assert "no such host" in " ".join(follower.wrong) or status >= 500
    # A host that was refused does not hammer; one without an answer comes back soon.
    assert pause >= 10 if status < 500 else pause <= 5


def test_a_service_that_answered_a_moment_ago_is_asked_again_sooner(
    host: EnrolledHost, service: SmallService, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]})
    follower = host.follower()
    follower.step(0)
    follower.step(0)
    service.refusal, service.page = 502, b"<html>502 Bad Gateway</html>"
    # Who adds a key after an upgrade waits for this pause, however long the upgrade took.
    assert max(follower.step(0) for _ in range(20)) <= 1.5
    # A service that answers without its database is not being upgraded, and thousands of hosts would keep it busy.
    service.refusal, service.page = 503, b""
    assert 2.5 <= follower.step(0) <= 5
    service.refusal, service.page = 502, b"<html>502 Bad Gateway</html>"
    monkeypatch.setattr(follow, "RESTART_SECONDS", 0)
    assert 2.5 <= follower.step(0) <= 5


def test_a_proxy_whose_service_is_away_is_asked_over_the_same_connection(
    host: EnrolledHost, service: SmallService
) -> None:
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]})
    follower = host.follower()
    follower.step(0)
    service.refusal, service.page = 502, b"<html>502 Bad Gateway</html>"
    before = service.connections
    for _ in range(5):
        follower.step(0)
    assert "a proxy, whose service is away?" in " ".join(follower.wrong)
    assert service.connections == before


def test_a_file_changed_by_hand_is_put_back_and_reported(host: EnrolledHost, service: SmallService) -> None:
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]})
    follower = host.follower()
    follower.step(0)
    follower.step(0)
    before = host.files()
    with (host.keys / "deploy").open("a") as file:
        file.write(f"{public_key()} rogue\n")
    (host.keys / "mallory").write_text(f"{public_key()}\n")
    follower = host.follower()
    assert host.files() == before
    follower.step(0)
    report = service.reports[-1]
    assert report["state"] == "applied"
    assert "deploy" in report["problems"][0]
    assert "mallory" in report["problems"][1]


def test_files_put_back_while_the_service_was_away_are_all_reported(
    host: EnrolledHost, service: SmallService, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]})
    follower = host.follower()
    for _ in range(2):
        follower.step(0)
    monkeypatch.setattr(follow, "CHECK_FILES_SECONDS", 0)
    service.reports.clear()
    service.refusal = 503

    def after_a_step(what: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: follower.step(0) >= 0 and what()

    for name in ("mallory", "eve"):
        (host.keys / name).write_text(f"{public_key()}\n")
        wait_until(after_a_step(lambda: os.listdir(host.keys) == ["deploy"]), "the file put back")
    service.refusal = None
    wait_until(after_a_step(lambda: bool(service.reports)), "a report")
    for name in ("mallory", "eve"):
        assert f"{host.keys / name} was changed on this host; it is put back" in service.reports[0]["problems"]


def test_damaged_notes_of_the_agent_change_nothing(host: EnrolledHost, service: SmallService) -> None:
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]})
    host.follower().step(0)
    before = host.files()
    (host.state / "accepted.json").write_text('{"document": "{}", "signature"')
    service.publish(4, service.signer.signed(document(4, {})))
    follower = host.follower()
    follower.step(0)
    assert host.files() == before, "an older document must not slip in where the newer one was lost"
    publish(service, 5, {"deploy": []})
    follower.step(0)
    assert host.files()["deploy"] == authorized_keys.render([])


@pytest.mark.parametrize("damaged", ["", '{"state": "on", "files": [1]}', "[" * 100_000])
def test_a_damaged_note_keeps_no_key_from_being_taken_away(
    host: EnrolledHost, service: SmallService, damaged: str
) -> None:
    """Of what the agent changed in sshd's settings, which accounts it made, where it saw keys, who was in."""
    publish(service, 1, {"deploy": [AuthorizedKey(public_key())]})
    assert host.agent("run", "--once").returncode == 0
    decided = json.loads((host.state / "local.json").read_text("ascii"))
    allowed = {**decided, "allow_accounts": True, "drop_in": str(host.folder / "sshd_config.d" / "00-keyrack.conf")}
    (host.state / "local.json").write_text(json.dumps(allowed), "ascii")
    # Of its own: two agents that may write one file's settings are kept from running side by side.
    known = json.loads((host.state / "enrolment.json").read_text("ascii"))
    of_its_own = {**known, "sshd_config": str(host.folder / "sshd_config")}
    (host.state / "enrolment.json").write_text(json.dumps(of_its_own), "ascii")
    for name in ("enforcement", "accounts", "seen", "sessions", "status", "checkpoint", "run"):
        (host.state / f"{name}.json").write_text(damaged if name == "enforcement" else damaged[:4], "ascii")
        (host.state / f"{name}.json").chmod(0o600)
    accounts = {"mallory": DesiredAccount(present=False)}
    text = host_document.encode(HostDocument(HOST, 2, ISSUED, {"deploy": []}, accounts=accounts))
    service.publish(2, service.signer.signed(text))
    ended = host.agent("run", "--once")
    assert "Traceback" not in ended.stderr, ended.stderr
    assert host.files()["deploy"] == authorized_keys.render([]), ended.stderr
    assert not (host.folder / "sshd_config.d").exists()
    problems = service.reports[-1]["problems"]
    assert any("sshd's settings are left alone" in words and "damaged" in words for words in problems), problems
    assert any("accounts are left alone" in words for words in problems), problems


def test_what_was_refused_of_the_audit_log_ends_with_its_note(host: EnrolledHost, service: SmallService) -> None:
    """The words advise to remove it; on a host for which no new document came they stayed for days."""
    publish(service, 1, {"deploy": [AuthorizedKey(public_key())]})
    note = host.state / "checkpoint.json"
    note.write_text("{", "ascii")
    note.chmod(0o600)
    follower = host.follower()
    for _ in range(3):
        follower.step(0)
    assert any("of the audit log is damaged" in words for words in service.reports[-1]["problems"])
    told = len(service.reports)
    follower.step(0)
    assert len(service.reports) == told
    note.unlink()
    follower.step(0)
    assert [one["problems"] for one in service.reports[told:]] == [[]]


def test_decisions_that_cannot_be_read_are_those_of_before(host: EnrolledHost, service: SmallService) -> None:
    """An agent that stopped for them would take no key away any more."""
    path = host.state / "local.json"
    path.write_text(json.dumps({**json.loads(path.read_text("ascii")), "only": ["deploy"]}), "ascii")
    keys = [AuthorizedKey(public_key())]
    publish(service, 1, {"deploy": keys, "root": keys})
    host.agent("run", "--once")
    assert "root" not in host.files()
    path.write_text('{"only": ["deploy"', "ascii")
    publish(service, 2, {"deploy": [], "root": keys})
    host.agent("run", "--once")
    assert "root" not in host.files()
    assert host.files()["deploy"] == authorized_keys.render([])
    assert f"{path} is damaged" in service.reports[-1]["problems"][0]
    doctor = host.agent("doctor")
    assert doctor.returncode == 1
    assert f"BAD  {path} is damaged" in doctor.stdout
    assert "for these accounts alone: deploy" in doctor.stdout


def test_a_tampered_note_of_the_last_document_is_not_obeyed(host: EnrolledHost, service: SmallService) -> None:
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]})
    host.follower().step(0)
    before = host.files()
    kept = host.state / "accepted.json"
    kept.write_text(kept.read_text().replace("deploy", "deplox"))
    service.refusal = 503
    host.follower()
    assert host.files() == before


def test_an_older_document_that_was_brought_back_is_not_obeyed(host: EnrolledHost, service: SmallService) -> None:
    """As by a backup of that one file: a key that was revoked since would open again, without a word."""
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]})
    host.follower().step(0)
    kept = host.state / "accepted.json"
    older = kept.read_bytes()
    publish(service, 6, {"deploy": []})
    host.follower().step(0)
    before = host.files()
    kept.write_bytes(older)
    service.refusal = 503
    follower = host.follower()
    assert host.files() == before
    assert any("5 is older than 6" in words for words in follower.wrong), follower.wrong
    service.refusal = None
    wait_until(lambda: [follower.step(0)] and follower.wrong == (), "the document of the service")
    assert host.files() == before


def test_a_lost_note_of_the_last_document_lets_no_older_one_in(host: EnrolledHost, service: SmallService) -> None:
    """The words name what is in force; and the very same document is taken again."""
    publish(service, 6, {"deploy": []})
    host.follower().step(0)
    before = host.files()
    (host.state / "accepted.json").unlink()
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]})
    follower = host.follower()
    follower.step(0)
    assert host.files() == before
    assert any("5 is older than 6, in force here" in words for words in follower.wrong), follower.wrong
    publish(service, 6, {"deploy": []})
    wait_until(lambda: [follower.step(0)] and follower.wrong == (), "the document of before")
    assert host.files() == before


@pytest.mark.parametrize("field", ["revision", "confirmed_at", "service_at", "since_boot", "problems", "service"])
@pytest.mark.parametrize("damaged", ["null", '"7"', "[[1]]", "1e999"])
def test_a_damaged_field_of_the_status_is_as_not_noted(
    host: EnrolledHost, service: SmallService, field: str, damaged: str
) -> None:
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]})
    host.follower().step(0)
    path = host.state / "status.json"
    noted = json.loads(path.read_text("ascii"))
    path.write_text(json.dumps({**noted, field: "HERE"}).replace('"HERE"', damaged), "ascii")
    publish(service, 6, {"deploy": []})
    follower = host.follower()
    follower.step(0)
    assert host.files()["deploy"] == authorized_keys.render([])


def test_a_document_that_is_not_utf_8_is_refused(host: EnrolledHost, service: SmallService) -> None:
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]})
    follower = host.follower()
    follower.step(0)
    before = host.files()
    good = service.signer.signed(document(6, {}))
    for wrong in (Accepted("\ud800", good.signature), Accepted(good.document, "\udcff" + good.signature)):
        service.publish(6, wrong)
        follower.step(0)
        assert host.files() == before
        assert any("refused" in words for words in follower.wrong), follower.wrong
        (host.state / "accepted.json").write_text(json.dumps(wrong._asdict()), "ascii")
        host.follower()
        assert host.files() == before


def test_a_document_of_a_former_enrolment_is_forgotten(host: EnrolledHost, service: SmallService) -> None:
    publish(service, 5, {"deploy": [AuthorizedKey(public_key())]})
    host.follower().step(0)
    again = host.agent("enroll", environment={"KEYRACK_AGENT_URL": service.url, "KEYRACK_AGENT_TOKEN": "t0ken"})
    assert again.returncode == 1
    assert "--replace" in again.stderr
    ended = host.agent(
        "enroll", "--replace", environment={"KEYRACK_AGENT_URL": service.url, "KEYRACK_AGENT_TOKEN": "t0ken"}
    )
    assert ended.returncode == 0, ended.stderr
    assert HOST in ended.stdout
    publish(service, 1, {"alice": []})
    host.follower().step(0)
    assert sorted(host.files()) == ["alice", "revoked"]
