"""What bounds a key (where it may come from, what it may run, for how long) counts before enforcing begins.

Each host is a real sshd with real accounts; whoever would be locked out there, the real ssh would be.
"""

from __future__ import annotations

import base64
import pwd
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keyrack.agent.sshd import login_verdict
from keyrack.agent.sshd.login_check import LoginCheck
from keyrack.agent.sshd.login_verdict import RecentLogins
from keyrack.agent.sshd.settings import Sshd
from keyrack.protocol.host_document import AuthorizedKey, HostDocument
from keyrack.ssh.options import Restrictions, render
from keyrack.ssh.public_key import fingerprint_of
from tests.login.observed_host import AdoptedHost
from tests.login.old_sshd import stand_in
from tests.login.test_proven_enforcing import Scene, add
from tests.login.test_proven_enforcing import scene as scene
from tests.login.test_who_gets_in import NAME
from tests.login.test_who_gets_in import had as had
from tests.login.test_who_gets_in import host as host
from tests.waiting import wait_until

HERE = RecentLogins(("127.0.0.1",))
SOURCES = ("127.0.0.1", "127.0.0.9", "127.83.71.3")


def bounded(host: AdoptedHost, **restrictions: object) -> AuthorizedKey:
    return AuthorizedKey(host.keys[NAME].public, None, tuple(render(Restrictions(**restrictions), "ssh-ed25519")))


def document_of(entry: AuthorizedKey) -> HostDocument:
    return HostDocument("h", 1, datetime.now(UTC), {NAME: [entry]})


@contextmanager
def serving(host: AdoptedHost, entry: AuthorizedKey) -> Iterator[None]:
    """A running sshd that reads this line for its account, and no other."""
    file = Path(pwd.getpwnam(NAME).pw_dir) / ".ssh" / "authorized_keys2"
    text = file.read_text("ascii")
    file.write_text(f"{','.join(entry.options)} {entry.public_key}\n".lstrip(), "ascii")
    host.start_sshd()
    try:
        yield
    finally:
        host.stop_sshd()
        file.write_text(text, "ascii")


@pytest.mark.parametrize(
    ("sources", "settings"),
    [
        (["10.0.0.0/8"], ""),
        (["10.*", "!127.0.0.1"], ""),
        (["127.0.0.0/8"], ""),
        (["127.0.0.?"], ""),
        (["*", "!127.0.0.0/8"], ""),
        (["10.0.0.0/8", "127.0.0.9"], ""),
        (["::1"], ""),
        (["*.example.org"], ""),
        (["localhost"], ""),
        (["localhost"], "UseDNS yes"),
        (["*"], "UseDNS yes"),
        (["127.0.0.9"], "AllowUsers krtwo@127.0.0.1"),
        (["127.0.0.9"], "AllowUsers krtwo@127.0.0.*"),
        (["127.0.0.0/8"], "DenyUsers krtwo@127.0.0.0/24"),
        (["127.0.0.1"], "Match Address 127.0.0.1\n  PubkeyAuthentication no\nMatch all"),
        (["127.0.0.9"], "Match Address 127.0.0.1\n  PubkeyAuthentication no\nMatch all"),
        (["127.0.0.1"], "Match Address *,!127.0.0.9\n  MaxSessions 0\nMatch all"),
    ],
)
def test_the_addresses_that_a_key_allows_are_compared_with_those_that_can_connect(
    host: AdoptedHost, had: Callable[[str], None], sources: list[str], settings: str
) -> None:
    """sshd listens on loopback alone: what names other places alone opens nothing."""
    had(settings)
    entry = bounded(host, sources=tuple(sources))
    check = LoginCheck(Sshd(str(host.config)))
    (verdict,) = check.judge({NAME: [entry]}, [], everywhere=True)
    with serving(host, entry):
        logins = {one: host.client.login(host.keys[NAME], NAME, extra=["-b", one]).returncode == 0 for one in SOURCES}
        (from_here,) = check.verdicts(document_of(entry), recent=HERE)
    assert any(logins.values()) == (not verdict.words), verdict.words
    # Where a rule closes the usual way to everybody, enforcing begins by no other.
    assert any(logins.values()) or not login_verdict.opens_for_long(check.verdicts(document_of(entry)), 600)
    assert logins["127.0.0.1"] == login_verdict.opens_for_long([from_here], 600, HERE)


def test_a_security_key_that_must_verify_its_user_counts_only_after_a_login(
    host: AdoptedHost, had: Callable[[str], None]
) -> None:
    """Nothing in a public key says that its owner is ever asked for a PIN; a login with it does."""
    parts = (b"sk-ssh-ed25519@openssh.com", bytes(range(32)), b"ssh:")
    blob = base64.b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).decode("ascii")
    key = f"sk-ssh-ed25519@openssh.com {blob}"
    check, recent = LoginCheck(Sshd(str(host.config))), RecentLogins((), frozenset([fingerprint_of(key)]))

    def opens(*options: str, recent: RecentLogins = HERE) -> bool:
        return login_verdict.opens_for_long(check.verdicts(document_of(AuthorizedKey(key, None, options))), 600, recent)

    assert opens()
    assert not opens("verify-required")
    assert opens("verify-required", recent=recent)
    had("PubkeyAuthOptions verify-required")
    assert not opens()
    assert opens(recent=recent)
    had("PubkeyAuthOptions touch-required")
    assert opens()


@pytest.mark.parametrize(
    ("settings", "inside"),
    [
        ("AllowUsers krtwo@127.0.0.9 krone", False),
        ("AllowUsers krtwo@127.0.0.1", True),
        ("DenyUsers krtwo@127.0.0.1", False),
        ("Match Address 127.0.0.1\n  AuthenticationMethods publickey,password\nMatch all", False),
        ("Match Address 127.0.0.1\n  ForceCommand internal-sftp\nMatch all", False),
        ("Match Address *,!127.0.0.9\n  ForceCommand /bin/echo\nMatch all", False),
        ("Match Address 127.0.0.9\n  ForceCommand /bin/echo\nMatch all", True),
        ("Match Address 127.0.0.1\n  PubkeyAcceptedAlgorithms rsa-sha2-512\nMatch all", False),
        ("Match Host localhost\n  DenyUsers krtwo\nMatch all", True),
        ("Match LocalAddress 127.0.0.1\n  ChrootDirectory /nosuch\nMatch all", False),
    ],
)
def test_rules_for_where_people_come_from_count(
    host: AdoptedHost, had: Callable[[str], None], settings: str, inside: bool
) -> None:
    """Others may get in from elsewhere: nobody ever came from there."""
    had(settings)
    entry = AuthorizedKey(host.keys[NAME].public)
    with serving(host, entry):
        ended = host.client.login(host.keys[NAME], NAME, "echo works")
        assert (ended.returncode == 0 and ended.stdout == "works\n") == inside
        found = LoginCheck(Sshd(str(host.config))).verdicts(document_of(entry), recent=HERE)
    assert login_verdict.opens_for_long(found, 600, HERE) == inside
    if not inside:
        assert login_verdict.nobody_words(found, 600, HERE)


@pytest.mark.parametrize(
    ("restrictions", "words"),
    [
        (
            {"sources": ["10.0.0.0/8"]},
            "nobody can come to where sshd listens from where it may be used (from=10.0.0.0/8)",
        ),
        ({"sources": ["*.example.org"]}, "nobody can come to where sshd listens"),
        ({"command": "/usr/bin/backup"}, "it runs one command alone (command=)"),
    ],
)
def test_a_key_that_is_bounded_keeps_enforcing_away(scene: Scene, restrictions: dict[str, object], words: str) -> None:
    scene.start(restrictions=restrictions)
    assert words in scene.refused()
    assert scene.hand_key_works()


def test_a_key_that_ends_soon_keeps_enforcing_away(scene: Scene) -> None:
    scene.start(expires_at=datetime.now(UTC) + timedelta(minutes=9))
    assert "its end is near" in scene.refused()
    assert scene.hand_key_works()


@pytest.fixture
def somebody(scene: Scene) -> Iterator[Callable[[str], None]]:
    """Somebody who is in by the key of a hand, from an address of this machine."""
    begun: list[subprocess.Popen[bytes]] = []

    def come(source: str) -> None:
        given = scene.host.client.command(scene.host.keys["krtwo"], "krtwo", "echo in; exec sleep 600", ["-b", source])
        begun.append(subprocess.Popen(given, stdout=subprocess.PIPE))
        stdout = begun[-1].stdout
        assert stdout is not None
        assert stdout.readline() == b"in\n"

    yield come
    for process in begun:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("rule", ["from", "AllowUsers", "Match"])
def test_people_come_from_elsewhere_than_the_only_key_may(
    scene: Scene, somebody: Callable[[str], None], rule: str
) -> None:
    """It would open the account for who comes from an address where nobody was ever seen."""
    settings = {
        "from": "",
        "AllowUsers": "AllowUsers krone@127.0.0.9 krtwo",
        "Match": "Match User krone Address 127.0.0.9\n  ForceCommand internal-sftp\nMatch all",
    }[rule]
    restrictions: dict[str, object] | None = {"sources": ["10.0.0.0/8", "127.0.0.9"]} if rule == "from" else None
    scene.start(add(settings), restrictions=restrictions)
    source = "127.0.0.9" if rule == "Match" else "127.0.0.1"
    somebody(source)
    words = scene.refused()
    assert f"logins came from {source}" in words
    assert "log in once from where one of these may come" in words
    assert scene.hand_key_works()
    if rule == "from":
        somebody("127.0.0.9")
        scene.enforced()
        assert scene.host.client.lets_in(scene.key, "krone") is False
        assert scene.host.client.login(scene.key, "krone", extra=["-b", "127.0.0.9"]).returncode == 0


@pytest.mark.parametrize(
    ("version", "restrictions", "unknown"),
    [
        ("8.3", {"verify_required": True}, "verify-required"),
        ("7.7", {"permitlisten": ["8080"]}, "permitlisten"),
        ("7.8", {"permitlisten": ["8080"]}, ""),
    ],
)
def test_a_line_that_an_older_sshd_refuses_opens_nothing(
    host: AdoptedHost, version: str, restrictions: dict[str, object], unknown: str
) -> None:
    """It knows one of its options not yet."""
    key_type = "sk-ssh-ed25519@openssh.com" if "verify_required" in restrictions else "ssh-ed25519"
    options = tuple(render(Restrictions.from_json(restrictions), key_type))
    host.program = stand_in(host.folder / f"sshd-{version}", version, [unknown] if unknown else [])
    entry = AuthorizedKey(host.keys[NAME].public, None, options)
    try:
        with serving(host, entry):
            wait_until(lambda: Sshd(str(host.config)).running.version() != (0, 0), "its version")
            inside = host.client.login(host.keys[NAME], NAME).returncode == 0
            (verdict,) = LoginCheck(Sshd(str(host.config))).verdicts(document_of(entry))
            words = verdict.words  # by the sshd that runs
    finally:
        host.program = None
    assert inside == (not unknown)
    assert inside == (not words), words
    assert unknown in words
