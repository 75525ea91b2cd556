"""Real sshd and ssh judge the files that the agent writes: who gets in, who does not, and until when."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keyrack.agent.keys.key_files import KeyFiles, render
from keyrack.private_sshd import PrivateSshd
from keyrack.protocol.host_document import AuthorizedKey, HostDocument
from tests.login.private_sshd import USERNAME, Key, SshClient, private_sshd, strict_folder

STRANGER = pwd.getpwnam("daemon").pw_name


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder for this module's sshd and keys."""
    with strict_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def sshd(place: Path) -> Iterator[tuple[PrivateSshd, SshClient]]:
    """One sshd for all tests here; no agent runs beside it."""
    with private_sshd(place) as running:
        yield running


@pytest.fixture(scope="module")
def key(place: Path) -> Key:
    """A key pair."""
    return Key.make(place / "key")


@pytest.fixture(scope="module")
def other_key(place: Path) -> Key:
    """Another key pair."""
    return Key.make(place / "other")


def put(
    sshd: tuple[PrivateSshd, SshClient], keys: list[AuthorizedKey], revoked: tuple[str, ...] = (), user: str = USERNAME
) -> SshClient:
    """Write the files of a document as the agent does, and end: nothing of ours runs at the login."""
    server, client = sshd
    document = HostDocument("h_1", 1, datetime.now(UTC), {user: keys}, revoked)
    files = KeyFiles.open(str(server.keys), str(server.revoked_keys))
    try:
        assert files.put(render(document)).problems == ()
    finally:
        files.close()
    return client


@pytest.mark.parametrize(
    ("key_type", "bits"),
    [("ed25519", None), ("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521), ("rsa", 2048), ("rsa", 3072), ("rsa", 4096)],
)
def test_every_type_of_key_logs_in(
    sshd: tuple[PrivateSshd, SshClient], place: Path, key_type: str, bits: int | None
) -> None:
    key = Key.make(place / f"{key_type}-{bits}", key_type, bits)
    ended = put(sshd, [AuthorizedKey(key.public)]).login(key, command="echo in")
    assert (ended.returncode, ended.stdout) == (0, "in\n"), ended.stderr


def test_only_the_keys_in_the_file_log_in(sshd: tuple[PrivateSshd, SshClient], key: Key, other_key: Key) -> None:
    client = put(sshd, [AuthorizedKey(key.public)])
    assert client.lets_in(key)
    assert not client.lets_in(other_key)
    put(sshd, [AuthorizedKey(other_key.public)])
    assert not client.lets_in(key)
    assert client.lets_in(other_key)
    put(sshd, [])
    assert not client.lets_in(other_key)


def test_a_temporary_key_ends_by_itself(sshd: tuple[PrivateSshd, SshClient], key: Key, other_key: Key) -> None:
    end = datetime.now(UTC) + timedelta(seconds=4)
    client = put(sshd, [AuthorizedKey(key.public, end), AuthorizedKey(other_key.public)])
    assert client.lets_in(key)
    client.wait_until_closed(key)
    assert datetime.now(UTC) > end.replace(microsecond=0)
    assert client.lets_in(other_key)


def test_an_end_in_the_future_and_one_in_the_past(sshd: tuple[PrivateSshd, SshClient], key: Key) -> None:
    now = datetime.now(UTC)
    assert put(sshd, [AuthorizedKey(key.public, now + timedelta(hours=12))]).lets_in(key)
    assert not put(sshd, [AuthorizedKey(key.public, now - timedelta(seconds=2))]).lets_in(key)


def test_a_revoked_key_is_refused_though_its_line_stands(
    sshd: tuple[PrivateSshd, SshClient], key: Key, other_key: Key
) -> None:
    client = put(sshd, [AuthorizedKey(key.public), AuthorizedKey(other_key.public)], (key.public,))
    assert not client.lets_in(key)
    assert client.lets_in(other_key)


def test_nobody_gets_in_without_the_file_of_revoked_keys(sshd: tuple[PrivateSshd, SshClient], key: Key) -> None:
    client = put(sshd, [AuthorizedKey(key.public)])
    sshd[0].revoked_keys.unlink()
    assert not client.lets_in(key)
    assert put(sshd, [AuthorizedKey(key.public)]).lets_in(key), "the agent makes the file again"


def test_options_bind(sshd: tuple[PrivateSshd, SshClient], key: Key) -> None:
    client = put(sshd, [AuthorizedKey(key.public, options=("restrict", 'command="echo forced"'))])
    assert client.login(key, command="echo wanted").stdout == "forced\n"
    client = put(sshd, [AuthorizedKey(key.public, options=('from="192.0.2.0/24"',))])
    assert not client.lets_in(key)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's sshd serves other accounts")
def test_a_key_opens_its_own_account_only(sshd: tuple[PrivateSshd, SshClient], key: Key) -> None:
    client = put(sshd, [AuthorizedKey(key.public)], user=STRANGER)
    assert not client.lets_in(key)
    # The account has no shell that runs commands, but sshd let the key in.
    ended = client.login(key, STRANGER)
    assert "Permission denied" not in ended.stderr
    put(sshd, [])
    assert "Permission denied" in client.login(key, STRANGER).stderr
