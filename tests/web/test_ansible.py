"""The Ansible collection, run by ansible-playbook as the package index has it, against a running service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.core.keys_for_tests import fresh_line
from tests.services import Service

COLLECTION = Path(__file__).parents[2] / "ansible" / "keyrack"


@pytest.fixture
def playbook(team: Service, tmp_path: Path) -> Any:
    """Runs tasks, and answers what each did: whether it changed something, and all that it said."""
    place = tmp_path / "collections" / "ansible_collections" / "keyrack"
    place.mkdir(parents=True)
    (place / "keyrack").symlink_to(COLLECTION)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "ANSIBLE_HOME": str(tmp_path / "ansible"),
        "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"),
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
        "LC_ALL": "C.UTF-8",
    }

    def run(*tasks: dict[str, Any], flags: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        said = tmp_path / "said"
        play: list[dict[str, Any]] = []
        for number, task in enumerate(tasks):
            (name, options) = next(iter(task.items()))
            common = {"url": team.url, "token": "token-of-olga"}
            play.append(
                {f"keyrack.keyrack.{name}": common | options, "register": f"done{number}", "ignore_errors": True}
            )
        done_of_each = ", ".join(f"done{number}" for number in range(len(tasks)))
        content = {"content": f"{{{{ [{done_of_each}] | to_json }}}}", "dest": str(said)}
        play.append({"ansible.builtin.copy": content, "check_mode": False, "diff": False})
        hosts = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": sys.executable},
            "tasks": play,
        }
        file = tmp_path / "play.yml"
        file.write_text(json.dumps([hosts]), "utf-8")
        command = [str(Path(sys.executable).with_name("ansible-playbook")), *flags, str(file)]
        done = subprocess.run(
            [sys.executable, *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        answers: list[dict[str, Any]] = json.loads(said.read_text("utf-8"))
        return answers

    return run


def test_keys_and_grants_are_brought_to_what_a_playbook_says(team: Service, playbook: Any) -> None:
    line = fresh_line("alice@laptop")
    key = {"keyrack_key": {"user": "alice", "title": "laptop", "key": line}}
    grant = {"keyrack_grant": {"user": "alice", "tag": "web", "system_user": "deploy"}}
    ended = {"keyrack_grant": {**grant["keyrack_grant"], "expires_at": "2030-01-01T00:00:00+01:00"}}

    def standing() -> tuple[int, list[Any]]:
        keys = team.call("GET", "/api/v4/users/alice/keys").json()
        grants = team.call("GET", "/api/keyrack/v1/grants", token="token-of-olga").json()["items"]
        return len(keys), [one["expires_at"] for one in grants]

    planned = playbook(key, grant, flags=("--check", "--diff"))
    assert [one["changed"] for one in planned] == [True, True]
    assert "laptop: ssh-ed25519" in planned[0]["diff"]["after"]
    assert planned[0]["diff"]["before"] == ""
    assert standing() == (0, []), "a look changes nothing"
    done = playbook(key, grant, key, grant, ended, grant)
    assert [one["changed"] for one in done] == [True, True, False, False, True, False]
    assert standing()[0] == 1
    assert [end[:19] for end in standing()[1]] == ["2029-12-31T23:00:00"]
    gone = [{name: {**options, "state": "absent"} for name, options in task.items()} for task in (key, grant)]
    taken = playbook(*gone, gone[0])
    assert [one["changed"] for one in taken] == [True, True, False]
    assert standing() == (0, [])


def test_what_the_service_refuses_fails_the_task_in_its_words(team: Service, playbook: Any) -> None:
    line = fresh_line()
    team.call("POST", "/api/v4/user/keys", token="token-of-bob", json={"title": "desk", "key": line})
    done = playbook(
        {"keyrack_key": {"user": "alice", "title": "laptop", "key": line}},
        {"keyrack_key": {"user": "nobody", "title": "laptop", "key": fresh_line()}},
        {"keyrack_grant": {"user": "alice", "server": "nowhere", "system_user": "deploy"}},
        {"keyrack_key": {"token": "token-of-alice", "user": "bob", "title": "laptop", "key": fresh_line()}},
    )
    assert all(one["failed"] for one in done)
    assert "in use by another user" in done[0]["msg"]
    assert "no user nobody" in done[1]["msg"]
    assert "server" in done[2]["msg"]
    assert "people:write" in done[3]["msg"]
