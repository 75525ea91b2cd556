"""A host whose agent has no room for a new document obeys no revocation: people hear of it, and that it is over."""

from __future__ import annotations

import subprocess

from keyrack.core.audit import events
from keyrack.core.hosts import servers, status
from keyrack.core.keys import credentials
from keyrack.model import EventFilter
from tests.login.observed_host import owner
from tests.login.test_proven_enforcing import SERVER, Scene, small_disk
from tests.login.test_proven_enforcing import bound as bound
from tests.login.test_proven_enforcing import scene as scene
from tests.waiting import wait_until


def test_a_full_folder_of_the_agent_is_an_alarm_until_it_is_over(scene: Scene) -> None:
    scene.start()
    host, instance = scene.host, scene.service.instance

    def said(kind: str) -> list[str]:
        return [one.summary for one in events.find(instance, owner(), EventFilter(kind=kind), limit=200).items]

    def problems() -> str:
        return "; ".join(status.of(instance, servers.get(instance, owner(), SERVER)).problems)

    wait_until(lambda: scene.server.applied_revision == scene.server.revision, "a host that obeys")
    host.stop_agent()
    with small_disk(host.state):
        for reserve in host.state.glob(".keyrack-reserve*"):
            reserve.unlink()
        subprocess.run(["dd", "if=/dev/zero", f"of={host.state}/filler"], check=False, capture_output=True)
        host.start_agent()
        for one in credentials.find(instance, owner(), SERVER).items:
            credentials.delete(instance, owner(), SERVER, one.id)
        wait_until(lambda: any("cannot apply its document" in one for one in said(events.ALARM)), "an alarm")
        (alarm,) = (one for one in said(events.ALARM) if "cannot apply its document" in one)
        assert "revocations included" in alarm
        assert "o space left" in alarm
        assert "`keyrack-agent doctor`" in alarm
        assert alarm.removeprefix("Alarm: ") in problems()
        (host.state / "filler").unlink()
        wait_until(lambda: scene.server.applied_revision == scene.server.revision, "a host that obeys again")
        assert "cannot apply" not in problems()
        summaries = [
            one.summary for one in events.find(instance, owner(), EventFilter(server_id=SERVER), limit=200).items
        ]
        assert any("web-1 obeys again" in one for one in summaries)
        host.stop_agent()
