"""What the agent says of a service it cannot use, of a clock that is wrong, and of a folder it cannot write in."""

from __future__ import annotations

import ipaddress
import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keyrack.protocol.host_document import AuthorizedKey
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import document, public_key
from tests.agent.small_service import SmallService, small_service
from tests.waiting import wait_until


class Authority:
    """A private authority as `openssl req -x509` makes one: its certificate says nothing of key usage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of one's own")])
        long_ago = datetime.now(UTC) - timedelta(days=30)
        certificate = (
            self._builder(self._name, self._key.public_key(), long_ago)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / "authority.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def context(self, begins: datetime) -> ssl.SSLContext:
        """What a server at 127.0.0.1 speaks TLS with, by a certificate that begins then."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keys.example.org")])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            self._builder(name, key.public_key(), begins)
            .add_extension(address, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / "server.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(begins).not_valid_after(begins + timedelta(days=60))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def enrol(folder: Path, service: SmallService, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"KEYRACK_AGENT_URL": service.url, "KEYRACK_AGENT_TOKEN": "t0ken"}
    return EnrolledHost(folder).agent("enroll", *arguments, environment=environment)


def test_a_private_authority_without_key_usage_is_taken(folder: Path, authority: Authority) -> None:
    with small_service(authority.context(datetime.now(UTC) - timedelta(days=1))) as service:
        refused = enrol(folder, service)
        assert refused.returncode != 0
        assert "a private authority is named with --ca-file" in refused.stderr
        taken = enrol(folder, service, f"--ca-file={authority.file}")
        assert taken.returncode == 0, taken.stderr
        host = EnrolledHost(folder)
        service.publish(1, service.signer.signed(document(1, {"root": [AuthorizedKey(public_key())]})))
        # The authority is remembered: it is given once.
        assert host.agent("run", "--once").returncode == 0
        assert service.wait_for_report("applied", 1)


def test_a_clock_that_is_behind_is_named(folder: Path, authority: Authority) -> None:
    with small_service(authority.context(datetime.now(UTC) + timedelta(hours=1))) as service:
        service.clock_ahead = 7200.0
        ended = enrol(folder, service, f"--ca-file={authority.file}")
    assert ended.returncode != 0
    assert "certificate is not yet valid, by this host's clock, which says 20" in ended.stderr
    assert "seconds behind the service's: set it right" in ended.stderr
    seconds = int(ended.stderr.partition(" seconds behind")[0].rpartition(" ")[2])
    assert abs(seconds - 7200) <= 60


def test_a_certificate_not_yet_valid_is_not_blamed_on_a_right_clock(folder: Path, authority: Authority) -> None:
    with small_service(authority.context(datetime.now(UTC) + timedelta(hours=1))) as service:
        ended = enrol(folder, service, f"--ca-file={authority.file}")
    assert "certificate is not yet valid" in ended.stderr
    assert "behind" not in ended.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file or directory"), ("", "no certificate or crl found"), ("x", "no certificate or crl found")],
)
def test_a_malformed_file_of_authorities_is_named(
    folder: Path, authority: Authority, content: str | None, words: str
) -> None:
    path = folder / "authorities.pem"
    if content is not None:
        path.write_text(content, "ascii")
    with small_service(authority.context(datetime.now(UTC) - timedelta(days=1))) as service:
        refused = enrol(folder, service, f"--ca-file={path}")
    assert refused.returncode != 0
    assert f"no certificate authority can be read in {path}" in refused.stderr
    assert words in refused.stderr


def test_a_service_without_tls_is_named_as_such(folder: Path, service: SmallService) -> None:
    service.url = service.url.replace("http://", "https://")
    refused = enrol(folder, service)
    assert refused.returncode != 0
    assert "does it speak https there?" in refused.stderr
    assert "_ssl.c" not in refused.stderr


def test_a_wrong_clock_is_reported_though_the_certificate_is_valid(host: EnrolledHost, service: SmallService) -> None:
    publish(service, 1)
    service.clock_ahead = 7230.0
    follower = host.follower()
    for _ in range(3):
        follower.step(0)
    (words,) = next(report["problems"] for report in service.reports if report.get("problems"))
    assert words.startswith("this host's clock is about 2 hours behind the service's")
    assert follower.wrong == (words,)
    assert f"BAD  {words}" in host.agent("status").stdout
    before = len(service.reports)
    service.clock_ahead = 7400.0  # no change
    follower.step(0)
    follower.step(0)
    assert len(service.reports) == before
    service.clock_ahead = 0.0
    follower.step(0)
    follower.step(0)
    assert service.reports[-1]["problems"] == []
    assert not follower.wrong


@pytest.mark.parametrize("years", [2100, 7900, -2000])
def test_an_absurd_date_of_an_answer_stops_no_agent(host: EnrolledHost, service: SmallService, years: int) -> None:
    """A proxy in between may write it. It is remembered, so an agent that it stopped would not start again."""
    ends = AuthorizedKey(public_key(), datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC))
    service.publish(1, service.signer.signed(document(1, {"root": [ends]})))
    host.follower().step(0)
    as_asked = host.files()
    service.clock_ahead = years * 365.25 * 86400
    follower = host.follower()
    for _ in range(3):
        follower.step(0)
    follower = host.follower()
    assert (host.files() == as_asked) == (years < 0)
    service.clock_ahead = 0.0
    for _ in range(3):
        follower.step(0)
    assert host.files() == as_asked


@contextmanager
def running(host: EnrolledHost) -> Iterator[None]:
    agent = subprocess.Popen(host.command("run"), stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        agent.kill()
        agent.wait()


def publish(service: SmallService, revision: int) -> None:
    service.publish(revision, service.signer.signed(document(revision, {"root": [AuthorizedKey(public_key())]})))


def test_a_service_without_its_database_is_not_taken_for_a_wrong_address(
    host: EnrolledHost, service: SmallService
) -> None:
    publish(service, 1)
    with running(host):
        service.wait_for_report("applied", 1)
        wait_until(lambda: host.agent("status").returncode == 0, "a status without a fault")
        service.refusal, service.refusal_words = 503, "the database does not answer"
        with service.changed:
            service.changed.notify_all()

        def said() -> bool:
            return "Keyrack answers, but cannot serve (status 503): the database does not answer" in (
                host.agent("status").stdout
            )

        wait_until(said, "the reason in the status")
        assert "not Keyrack" not in host.agent("status").stdout
        asked = len(service.waits)
        service.refusal = None
        wait_until(lambda: len(service.waits) > asked + 1, "a question")
        # A service that may keep the question keeps the host from knowing that all is well again.
        assert service.waits[asked] == 0
        wait_until(lambda: host.agent("status").returncode == 0, "a status without a fault, soon after the service")


@contextmanager
def small_disk(path: Path, *, hidden: bool = True) -> Iterator[None]:
    """A disk of its own for a folder, with what is in it (hidden: such files too), filled to the last byte."""
    files = [file for file in path.iterdir() if file.is_file() and (hidden or not file.name.startswith("."))]
    before = {file.name: (file.read_bytes(), file.stat().st_mode) for file in files}
    options = f"size=256k,mode={path.stat().st_mode & 0o7777:o}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk takes root")
    try:
        for name, (data, mode) in before.items():
            (path / name).write_bytes(data)
            (path / name).chmod(mode)
        subprocess.run(["dd", "if=/dev/zero", f"of={path}/filler"], check=False, capture_output=True)
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.parametrize(("flag", "why"), [("i", "immutable"), ("a", "append-only")])
def test_an_immutable_key_file_is_reported_with_the_remedy(
    host: EnrolledHost, service: SmallService, flag: str, why: str
) -> None:
    service.publish(1, service.signer.signed(document(1, {"root": [AuthorizedKey(public_key())]})))
    assert host.agent("run", "--once").returncode == 0
    path = host.keys / "root"
    if subprocess.run(["chattr", f"+{flag}", path], check=False, capture_output=True).returncode != 0:
        pytest.skip("this file system has no such files")
    try:
        service.publish(2, service.signer.signed(document(2, {"root": [AuthorizedKey(public_key())]})))
        follower = host.follower()
        for _ in range(3):
            follower.step(0)
        (words,) = service.wait_for_report("failed")["problems"]
        assert words.endswith(f"{path} is {why} (chattr -{flag} {path})")
    finally:
        subprocess.run(["chattr", f"-{flag}", path], check=True)


@pytest.mark.parametrize(
    ("flag", "what", "why"),
    [
        ("i", "", "; is it immutable"),
        ("i", "accepted.json", "; is it immutable"),
        ("a", "", ": it is append-only"),
        ("a", "accepted.json", ": it is append-only"),
    ],
)
def test_an_immutable_file_of_the_agent_is_named_by_status_and_report(
    host: EnrolledHost, service: SmallService, flag: str, what: str, why: str
) -> None:
    publish(service, 1)
    assert host.agent("run", "--once").returncode == 0
    path = host.state / what
    if subprocess.run(["chattr", f"+{flag}", path], check=False, capture_output=True).returncode != 0:
        pytest.skip("this file system has no immutable files")
    try:
        publish(service, 2)
        follower = host.follower()
        for _ in range(3):
            follower.step(0)
        (words,) = service.wait_for_report("failed")["problems"]
        assert words.startswith(f"a new document waits: {path} cannot be written{why}")
        for command in ("status", "doctor"):
            ended = host.agent(command, "--json")
            assert ended.returncode == 1
            found = json.loads(ended.stdout)
            assert not found["fine"]
            assert any(f"{path} cannot be written" in one["words"] for one in found["findings"] if not one["fine"])
    finally:
        left = {name for name in os.listdir(host.state) if name.startswith(".keyrack-")}
        subprocess.run(["chattr", f"-{flag}", path], check=True)
    assert left == {".keyrack-reserve"}, "each try left a file"


def test_a_folder_of_keys_that_is_append_only_is_not_filled(host: EnrolledHost, service: SmallService) -> None:
    publish(service, 1)
    assert host.agent("run", "--once").returncode == 0
    if subprocess.run(["chattr", "+a", host.keys], check=False, capture_output=True).returncode != 0:
        pytest.skip("this file system has no append-only folders")
    try:
        service.publish(2, service.signer.signed(document(2, {"root": [AuthorizedKey(public_key())]})))
        follower = host.follower()
        for _ in range(3):
            follower.step(0)
        (words,) = service.wait_for_report("failed")["problems"]
        assert words.endswith(f"{host.keys} is append-only (chattr -a {host.keys})")
        assert os.listdir(host.keys) == ["root"]
    finally:
        subprocess.run(["chattr", "-a", host.keys], check=True)
    assert host.agent("run", "--once").returncode == 0
    service.wait_for_report("applied", 2)


def test_a_full_folder_of_the_agent_is_shown_by_status_doctor_and_report(
    host: EnrolledHost, service: SmallService
) -> None:
    publish(service, 1)
    assert host.agent("run", "--once").returncode == 0
    with small_disk(host.state, hidden=False), running(host):
        publish(service, 2)
        report = service.wait_for_report("failed")
        assert any("No space left" in words or "no space left" in words for words in report["problems"])
        for command in ("status", "doctor"):
            ended = host.agent(command)
            assert ended.returncode != 0
            assert f"BAD  no space left on the file system at {host.state}" in ended.stdout
            assert "None" not in ended.stdout
        (host.state / "filler").unlink()
        service.wait_for_report("applied", 2)


def test_a_document_that_removes_keys_is_applied_on_a_full_disk(host: EnrolledHost, service: SmallService) -> None:
    publish(service, 1)
    assert host.agent("run", "--once").returncode == 0
    with small_disk(host.state):
        # One after the other: each has its room again.
        for revision, users in ((2, {"root": []}), (3, {"root": [AuthorizedKey(public_key())]}), (4, {"root": []})):
            service.publish(revision, service.signer.signed(document(revision, users)))
            assert host.agent("run", "--once").returncode == 0, service.reports[-1]
            assert (b"ssh-" in host.files()["root"]) is bool(users["root"])
            assert service.reports[-1]["revision"] == revision
        assert "no space left on the file system" in host.agent("status").stdout
        # It is remembered: an agent that starts anew, with nobody to ask, goes by the last one.
        service.refusal = 503
        host.follower()
        assert b"ssh-" not in host.files()["root"]
