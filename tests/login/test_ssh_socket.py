"""sshd that systemd starts when somebody connects, on another port than its settings say: booted Debians.

The usual way on Ubuntu from 22.10 on, and a choice on Debian. With KEYRACK_LONG=1 alone, as each case boots one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack.core.hosts import modes
from keyrack.ssh.public_key import fingerprint_of
from tests.login.debian_host import started_by_socket
from tests.login.test_debian_releases import KEYRACK, SERVER, Scene, found_by_hand, scene_on, shorten_the_trial
from tests.services import Service
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(os.environ.get("KEYRACK_LONG") != "1", reason="boots a Debian each: KEYRACK_LONG=1")


@pytest.fixture(params=[("bookworm", "no"), ("bookworm", "yes"), ("trixie", "no"), ("trixie", "yes")])
def scene(request: pytest.FixtureRequest, team: Service, tmp_path: Path) -> Iterator[Scene]:
    release, accept = request.param
    settings = "PerSourcePenalties no\n" if release == "trixie" else ""
    with scene_on(release, team, tmp_path, settings) as made:
        started_by_socket(made.host, accept)
        yield made


def test_an_sshd_started_by_its_socket_is_reported_before_the_first_connection_and_enforces(scene: Scene) -> None:
    host = scene.host
    scene.prepare()
    assert "sshd: " not in host.run("ps -eo args")
    scene.paste()
    wait_until(scene.obeyed, "a first report")
    wait_until(lambda: found_by_hand(scene), "the key that was there, before anybody connected")
    assert not scene.server().facts.get("problems")
    key, _ = scene.add("laptop")
    shorten_the_trial(scene)
    assert fingerprint_of(scene.by_hand.public) in scene.agent("plan")
    modes.set_mode(scene.service.instance, KEYRACK, SERVER, "enforce")
    wait_until(lambda: "this host enforces" in scene.agent("status"), "the end of the trial")
    assert scene.server().facts["enforcement"] in ("enforce", "enforcing", "trying")
    assert host.client.lets_in(key, "deploy")
    assert not host.client.lets_in(scene.by_hand, "deploy")
    modes.set_mode(scene.service.instance, KEYRACK, SERVER, "observe")
    host.client.wait_until_open(scene.by_hand, "deploy")
    assert "active" in host.run("systemctl is-active ssh.socket")
    scene.agent("uninstall")
    assert host.client.lets_in(scene.by_hand, "deploy")
    assert not host.client.lets_in(key, "deploy")
