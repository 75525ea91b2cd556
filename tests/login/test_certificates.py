"""Certificates of a host's own authorities: found as what they are, taken over while enforcing.

Real ones, made by ssh-keygen, with principals, ends and options, tried by the real ssh.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from keyrack.core.hosts import unmanaged_keys
from keyrack.core.keys import revocation
from keyrack.ssh.public_key import fingerprint_of
from tests.login.observed_host import AdoptedHost, accounts, owner
from tests.login.private_sshd import Key, strict_folder
from tests.login.test_proven_enforcing import SERVER, Scene, add
from tests.services import running, settings_for
from tests.waiting import wait_until


@pytest.fixture
def scene(team_folder: Path, tmp_path: Path) -> Iterator[Scene]:
    data = tmp_path / "data"
    shutil.copytree(team_folder, data)
    with ExitStack() as stack:
        stack.enter_context(accounts())
        host = AdoptedHost(stack.enter_context(strict_folder()))
        host.prepare()
        stack.callback(host.stop)
        yield Scene(host, stack.enter_context(running(settings_for(data, ""))))


def certify(host: AdoptedHost, key: Key, principals: str, *more: str) -> Key:
    """The same key with a certificate of the host's authority."""
    given = ["ssh-keygen", "-q", "-s", str(host.ca), "-I", "somebody", "-n", principals, *more]
    subprocess.run([*given, str(key.path.with_suffix(".pub"))], check=True)
    return key


def found_in_force(scene: Scene) -> dict[tuple[str, str], bool]:
    """What the service knows of authorities: account and file, and whether they count."""
    page = unmanaged_keys.find(scene.service.instance, owner(), SERVER, limit=100).items
    return {(one.username, one.path): one.in_force for one in page if one.kind == "cert-authority"}


def test_certificates_of_a_hosts_own_authority_are_found_and_taken_over(scene: Scene) -> None:
    host, client = scene.host, scene.host.client
    trusted, principals = host.etc / "trusted.pub", host.etc / "principals"
    authority = host.ca.with_name("ca.pub").read_text("ascii").rstrip()
    shutil.copy(host.ca.with_name("ca.pub"), trusted)
    principals.mkdir()
    (principals / "krtwo").write_text("operators\n", "ascii")
    rules = f"TrustedUserCAKeys {trusted}\nAuthorizedPrincipalsFile {principals}/%u"
    scene.start(add(rules))
    good, wrong, ended = (
        certify(host, Key.make(host.folder / name), principals, *more)
        for name, principals, more in (
            ("good", "operators", ()),
            ("wrong", "krtwo", ()),
            ("ended", "operators", ("-V", "20200101:20210101")),
        )
    )
    assert [client.lets_in(key, "krtwo") for key in (good, wrong, ended)] == [True, False, False]
    assert not client.lets_in(good, "krone")
    wait_until(lambda: ("*", str(trusted)) in found_in_force(scene), "the authority")
    assert found_in_force(scene)["*", str(trusted)]
    assert found_in_force(scene)["krfive", "/home/krfive/.ssh/authorized_keys"]
    plan = host.agent("plan").stdout
    assert f"every account: whoever {fingerprint_of(authority)} certifies ({trusted} line 1)" in plan
    assert f"krfive: whoever {fingerprint_of(authority)} certifies" in plan
    assert f"TrustedUserCAKeys: {trusted} -> none" in plan
    scene.enforced()
    assert not client.lets_in(good, "krtwo")
    assert client.lets_in(scene.key, "krone")
    scene.observes()
    client.wait_until_open(good, "krtwo")


def test_a_certificate_does_not_outlive_the_revocation_of_its_key(scene: Scene) -> None:
    """A key of Keyrack's that an authority of the host has certified for another account."""
    host, client = scene.host, scene.host.client
    scene.start()
    certify(host, scene.key, "krfive,krone")
    assert client.lets_in(scene.key, "krfive")
    scene.enforced()
    assert client.lets_in(scene.key, "krone")
    assert not client.lets_in(scene.key, "krfive")
    revocation.revoke_everywhere(scene.service.instance, owner(), fingerprint_of(scene.key.public))
    client.wait_until_closed(scene.key, "krone")
    assert not client.lets_in(scene.key, "krfive")
    scene.observes()
    client.wait_until_open(scene.key, "krfive")  # nothing of Keyrack decides any more: its authority must see to it
