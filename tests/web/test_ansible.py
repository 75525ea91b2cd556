"""The Ansible collection, run by ansible-playbook as the package index has it, against a running service."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_over_http import answering
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
        "ANSIBLE_PIPELINING": "True",  # each task starts one program in place of seven
        "LC_ALL": "C.UTF-8",
    }

    def run(*tasks: dict[str, Any], flags: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        play: list[dict[str, Any]] = []
        for number, task in enumerate(tasks):
            (name, options) = next(iter(task.items()))
            common = {"url": team.url, "token": "token-of-olga"}
            play.append(
                {f"keyrack.keyrack.{name}": common | options, "register": f"done{number}", "ignore_errors": True}
            )
        done_of_each = ", ".join(f"done{number}" for number in range(len(tasks)))
        play.append({"name": "said", "ansible.builtin.debug": {"msg": f"{{{{ [{done_of_each}] | to_json }}}}"}})
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
        assert "Traceback" not in done.stdout + done.stderr
        _, _, said = done.stdout.partition("TASK [said]")
        result, _ = json.JSONDecoder().raw_decode(said, said.index("{"))
        answers: list[dict[str, Any]] = json.loads(result["msg"])
        return answers

    return run


def test_a_playbook_sets_keys_and_grants(team: Service, playbook: Any) -> None:
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
    assert standing() == (0, []), "reading changes nothing"
    done = playbook(key, grant, key, grant, ended, grant)
    assert [one["changed"] for one in done] == [True, True, False, False, True, False]
    assert standing()[0] == 1
    assert [end[:19] for end in standing()[1]] == ["2029-12-31T23:00:00"]
    gone = [{name: {**options, "state": "absent"} for name, options in task.items()} for task in (key, grant)]
    taken = playbook(*gone, gone[0])
    assert [one["changed"] for one in taken] == [True, True, False]
    assert standing() == (0, [])


def test_a_refusal_by_the_service_fails_the_task_with_its_words(team: Service, playbook: Any) -> None:
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


def http(status: str, content: bytes, *headers: str, length: int | None = None) -> bytes:
    """An answer as it goes over the wire; length: what it says of its content, where that is not so."""
    announced = len(content) if length is None else length
    head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {announced}", "Connection: close", *headers))
    return head.encode() + b"\r\n\r\n" + content


ANSWERS = {
    "cut": (http("200 OK", b'{"items": [', length=500), "the answer broke off"),
    "cut refusal": (http("403 Forbidden", b'{"error"', length=500), "the answer broke off"),
    "cut chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n[", "the answer broke off"),
    "cut head": (b"HTTP/1.1 200 OK\r\nContent-Le", "not as Keyrack's is|no list|no JSON|broke off|closed"),
    "hung up": (b"", "closed|broke off"),
    "a page": (http("200 OK", b"<html>Welcome</html>", "Content-Type: text/html"), "sent no JSON; look at url"),
    "no text": (http("200 OK", b"\xff\xfe\x00"), "sent no JSON"),
    "deep": (http("200 OK", b"[" * 200_000), "sent no JSON"),
    "another list": (http("200 OK", b'[{"name": "x"}]'), "not as Keyrack's is"),
    "numbers": (http("200 OK", b"[1, 2]"), "not as Keyrack's is"),
    "another object": (http("200 OK", b'{"items": "none"}'), "no list"),
    "nothing": (http("204 No Content", b""), "no list"),
    "a proxy's": (http("502 Bad Gateway", b"<html>Bad Gateway</html>"), "502"),
    "away": (
        http("503 Service Unavailable", b'{"error": {"message": "The database is away."}}'),
        "The database is away.",
    ),
    "elsewhere": (http("302 Found", b"", "Location: https://keys.example.org/login"), "https://keys.example.org/login"),
}


def test_a_malformed_answer_fails_the_task_in_words(playbook: Any) -> None:
    key = {"title": "laptop", "key": fresh_line()}
    grant = {"user": "alice", "tag": "web", "system_user": "deploy"}
    with ExitStack() as stack:
        urls = [stack.enter_context(answering(content)).url for content, _ in ANSWERS.values()]
        mute = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        silent = f"http://127.0.0.1:{mute.getsockname()[1]}"
        tasks = [
            {"keyrack_grant": {**grant, "url": url}} if number % 2 else {"keyrack_key": {**key, "url": url}}
            for number, url in enumerate(urls)
        ]
        done = playbook(*tasks, {"keyrack_key": {**key, "url": silent, "timeout": 1}})
    for name, (_, words), said in zip(ANSWERS, ANSWERS.values(), done, strict=False):
        assert said["failed"], name
        assert any(word in said["msg"] for word in words.split("|")), (name, said["msg"])
        assert "token-of-olga" not in json.dumps(said), name
    assert "timed out" in done[-1]["msg"]


def test_restrictions_and_ends_that_are_there_change_nothing(team: Service, playbook: Any) -> None:
    grant = {"user": "alice", "server": "web-1", "system_user": "deploy", "expires_at": "2030-01-01T00:00:00.5+01:00"}
    limits = {"restrict": False, "permit_pty": False, "sources": ["10.0.0.0/8"], "command": None}
    task = {"keyrack_grant": {**grant, "restrictions": limits}}
    nobody = {"keyrack_grant": {**grant, "restrictions": {"sources": []}}}
    first, second, refused = playbook(task, task, nobody)
    assert (first["changed"], second["changed"]) == (True, False)
    assert "names nothing" in refused["msg"]
