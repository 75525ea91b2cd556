"""What docs/hosts.md says of cloud-init and Ansible, run as it stands there on a host that nobody has enrolled."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyrack.core.hosts import servers
from keyrack.core.people import actors
from tests.login.contained_host import Machine, machine
from tests.login.private_sshd import strict_folder
from tests.ports import free_port
from tests.services import Service
from tests.waiting import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "hosts.md"
EXAMPLE = "https://keys.example.org"
KEYRACK = actors.system_actor(1)
SERVER = 1
yaml: Any = pytest.importorskip("yaml")  # comes with Ansible

pytestmark = pytest.mark.skipif(os.environ.get("KEYRACK_LONG") != "1", reason="takes a host of its own: KEYRACK_LONG=1")


@pytest.fixture
def host() -> Iterator[Machine]:
    with strict_folder() as folder, machine(folder, free_port()) as made:
        yield made


def recipe(beginning: str, url: str) -> str:
    """The block of the page that begins so, for this service."""
    blocks = PAGE.read_text("utf-8").split("```yaml\n")[1:]
    (found,) = (block.split("```")[0] for block in blocks if block.startswith(beginning))
    assert EXAMPLE in found
    return found.replace(EXAMPLE, url)


def is_enrolled(service: Service, host: Machine) -> bool:
    """Whether the host's agent runs and the service has seen it."""
    state = servers.get(service.instance, KEYRACK, SERVER)
    return state.applied_revision == state.revision > 0 and "running" in host.run("keyrack-agent status", check=False)


def test_user_data_of_cloud_init_enrols(team: Service, host: Machine) -> None:
    """As cc_runcmd does it: each command as it is listed."""
    data = yaml.safe_load(recipe("#cloud-config", team.url))
    token = servers.invite(team.instance, KEYRACK, SERVER)
    for command in data["runcmd"]:
        host.run(shlex.join(word.replace("TOKEN=TOKEN", f"TOKEN={token}") for word in command))
    wait_until(lambda: is_enrolled(team, host), "a host that is enrolled")


def test_a_service_that_is_away_makes_cloud_init_fail(team: Service, host: Machine) -> None:
    """And not end well with nothing done."""
    data = yaml.safe_load(recipe("#cloud-config", f"http://127.0.0.1:{free_port()}").replace("--retry 10", "--retry 0"))
    said = host.run(f"{shlex.join(data['runcmd'][0])} || echo it failed", check=False)
    assert said.endswith("it failed\n")


def test_the_tasks_for_ansible_enrol_once(team: Service, host: Machine, tmp_path: Path) -> None:
    tasks = yaml.safe_load(recipe("- name", team.url))
    name = servers.get(team.instance, KEYRACK, SERVER).name
    play = tmp_path / "play.yml"
    play.write_text(yaml.safe_dump([{"hosts": "all", "become": True, "gather_facts": False, "tasks": tasks}]), "utf-8")
    playbook = Path(sys.executable).with_name("ansible-playbook")
    line = (
        f"KEYRACK_TOKEN=token-of-olga LC_ALL=C.UTF-8 HOME={tmp_path} {sys.executable} {playbook} -i {name}, -c local "
        f"-e ansible_python_interpreter={sys.executable} -e ansible_become_method=su {play}"
    )
    assert "failed=0" in host.run(line)
    wait_until(lambda: is_enrolled(team, host), "a host that is enrolled")
    again = host.run(line)
    assert "changed=0" in again
    assert "failed=0" in again
