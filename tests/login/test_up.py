"""`keyrack up` as a newcomer uses it: paste the printed curl line, paste the printed ssh line, be in."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keyrack import app
from tests import plain_http
from tests.login.private_sshd import sshd_path
from tests.ports import free_port
from tests.services import settings_for
from tests.waiting import wait_until


class Demo:
    """A running `keyrack up`: what it printed and what its demo.json says."""

    def __init__(self, data: Path, printed: Path) -> None:
        self.facts = json.loads((data / "demo.json").read_text("utf-8"))
        self.printed = printed.read_text("utf-8")

    def line(self, program: str) -> list[str]:
        """The printed line that starts with a program, as its arguments."""
        found = re.search(rf"^{program} .*$", self.printed, re.MULTILINE)
        assert found, self.printed
        return shlex.split(found[0])

    def delete(self, credential_id: int) -> dict[str, Any]:
        """The printed line that takes a key away, with this id."""
        line = self.line("curl -sS -X DELETE")
        assert sum(word.endswith("/ID") for word in line) == 1
        line = [word.removesuffix("ID") + str(credential_id) if word.endswith("/ID") else word for word in line]
        answer: dict[str, Any] = json.loads(subprocess.run(line, capture_output=True, check=True, timeout=60).stdout)
        assert answer["id"] == credential_id
        return answer

    def log_in(self) -> subprocess.CompletedProcess[str]:
        """The printed ssh line, with a command and without questions."""
        program, *rest = self.line("ssh")
        given = [program, "-F", "/dev/null", "-o", "BatchMode=yes", *rest, "echo in"]
        return subprocess.run(given, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)


@contextmanager
def up(folder: Path, web: int, ssh: int, git: int = 0, *, through: tuple[str, ...] = ()) -> Iterator[Demo]:
    """`keyrack up` until it is ready; stopped as by Ctrl-C at the end. through: a command that runs it."""
    data, printed = folder / "data", folder / "printed"
    command = [*through, sys.executable, "-m", "keyrack.cli.main", "up", "--data", str(data)]
    command += ["--listen", f"127.0.0.1:{web}", "--sshd-port", str(ssh), "--git-port", str(git or free_port())]
    with printed.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_until(
                lambda: "Stop with Ctrl-C" in printed.read_text("utf-8") or process.poll() is not None, "the demo"
            )
            assert process.poll() is None, printed.read_text("utf-8")
            yield Demo(data, printed)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0, printed.read_text("utf-8")
    assert "Traceback" not in printed.read_text("utf-8")


def test_two_pasted_lines_lead_to_a_login(tmp_path: Path) -> None:
    sshd_path()
    web, ssh = free_port(), free_port()
    with up(tmp_path, web, ssh) as demo:
        assert (tmp_path / "data" / "demo.json").stat().st_mode & 0o077 == 0
        facts = demo.facts
        assert demo.log_in().returncode != 0
        added = json.loads(subprocess.run(demo.line("curl"), capture_output=True, check=True, timeout=60).stdout)
        assert added["user"] == facts["username"]
        wait_until(lambda: demo.log_in().stdout == "in\n", "a login")
        headers = {"Authorization": f"Bearer {facts['token']}"}
        # The line to take it away has the word ID where the answer's id belongs.
        assert "still_opened_by" not in demo.delete(added["id"])
        wait_until(lambda: "Permission denied" in demo.log_in().stderr, "a refusal")
        _check_admin(facts)
        asked = f"{facts['url']}/api/v3/servers/{facts['server_id']}/hardwareinfo"
        wait_until(
            lambda: plain_http.get(asked, headers=headers).json()["kernelVersion"] == os.uname().release, "facts"
        )
        repositories = f"{facts['url']}/v4/user/repositories"
        (shown,) = plain_http.get(repositories, headers={"X-Auth-Token": facts["token"]}).json()
        assert shown["ssh_url_to_repo"] == facts["git_url"]
        _clone_and_push(demo, tmp_path)
        wait_until(lambda: demo.log_in().stdout == "in\n", "a login by the admin's grant")
        # The same key is put on the account once more and taken away: it stays open, and that is said.
        added = json.loads(subprocess.run(demo.line("curl"), capture_output=True, check=True, timeout=60).stdout)
        (still,) = demo.delete(added["id"])["still_opened_by"]
        assert (still["kind"], still["name"]) == ("grant", facts["admin_user"])
        logs = plain_http.get(f"{facts['url']}/api/v3/servers/{facts['server_id']}/logs", headers=headers).json()[
            "data"
        ]
        assert any(entry["content"].endswith("; still opened by: a grant for admin") for entry in logs)
        assert demo.log_in().stdout == "in\n"
    # Started again it goes on with the same data, and the lines to paste still work; so does what a program kept.
    with up(tmp_path, web, ssh) as demo:
        assert [demo.facts[name] for name in ("token", "admin_password")] == [
            facts[name] for name in ("token", "admin_password")
        ]
        assert plain_http.get(asked, headers=headers).status_code == 200
        _check_admin(facts)
        subprocess.run(demo.line("curl"), capture_output=True, check=True, timeout=60)
        wait_until(lambda: demo.log_in().stdout == "in\n", "a login")
    # At other ports too, where the demo host's agent must ask another address.
    with up(tmp_path, free_port(), free_port()) as demo:
        assert demo.facts["token"] == facts["token"]
        wait_until(lambda: demo.log_in().stdout == "in\n", "a login")


def test_up_goes_on_at_the_same_ports_after_a_kill_and_two_do_not_share_a_folder(tmp_path: Path) -> None:
    """What a killed run leaves are two sshd at the ports that are asked for again."""
    sshd_path()
    data = tmp_path / "data"
    ports = [free_port() for _ in range(3)]
    command = [sys.executable, "-m", "keyrack.cli.main", "up", "--data", str(data)]
    at = ("--listen", f"127.0.0.1:{ports[0]}", "--sshd-port", str(ports[1]), "--git-port", str(ports[2]))
    with subprocess.Popen([*command, *at], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        wait_until((data / "demo.json").exists, "the demo")
        killed.kill()
    socket.create_connection(("127.0.0.1", ports[1])).close()
    socket.create_connection(("127.0.0.1", ports[2])).close()
    with up(tmp_path, *ports) as demo:
        subprocess.run(demo.line("curl"), capture_output=True, check=True, timeout=60)
        wait_until(lambda: demo.log_in().stdout == "in\n", "a login")
        other = [*command, "--listen", f"127.0.0.1:{free_port()}", "--sshd-port", str(free_port())]
        ended = subprocess.run(other, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, "Another `keyrack up` runs on" in ended.stderr) == (1, True), ended.stderr
        assert demo.log_in().stdout == "in\n"


@pytest.mark.parametrize("option", ["--listen", "--sshd-port", "--git-port"])
def test_a_taken_port_is_named_with_its_option(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {name: free_port() for name in ("--listen", "--sshd-port", "--git-port")}
        ports[option] = taken.getsockname()[1]
        again = [sys.executable, "-m", "keyrack.cli.main", "up", "--data", str(tmp_path / "other")]
        for name, port in ports.items():
            again += [name, f"127.0.0.1:{port}" if name == "--listen" else str(port)]
        _is_refused(again, ports[option], option)
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="it hides programs by mounts")
def test_up_starts_the_service_where_openssh_is_missing(tmp_path: Path) -> None:
    """Who may install nothing sees what is missing, and may go on."""
    hide = f'for one in {sshd_path()} "$(command -v ssh-keygen)"; do mount --bind /dev/null "$one" || exit 9; done'
    hide += '; exec "$@"'
    through = ("unshare", "-m", "--propagation", "private", "sh", "-c", hide, "sh")
    with up(tmp_path, free_port(), free_port(), through=through) as demo:
        assert "sshd was not found" in demo.printed
        assert demo.facts["ssh_host"] is None
        added = json.loads(subprocess.run(demo.line("curl"), capture_output=True, check=True, timeout=60).stdout)
        assert added["label"] == "my-laptop"


def test_one_port_given_for_two_services_is_named(tmp_path: Path) -> None:
    port = str(free_port())
    again = [sys.executable, "-m", "keyrack.cli.main", "up", "--data", str(tmp_path / "other")]
    again += ["--listen", f"127.0.0.1:{free_port()}", "--sshd-port", port, "--git-port", port]
    _is_refused(again, int(port), "--git-port")


@pytest.mark.parametrize(("command", "option"), [("serve", "--listen"), ("git-host", "--git-listen")])
def test_a_taken_port_of_a_service_is_named_with_its_option(command: str, option: str, tmp_path: Path) -> None:
    sshd_path()
    app.open_instance(settings_for(tmp_path / "data", "")).database.close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        started = [sys.executable, "-m", "keyrack.cli.main", command, "--data", str(tmp_path / "data")]
        _is_refused([*started, option, f"127.0.0.1:{port}"], port, option)


def _is_refused(command: list[str], port: int, option: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert re.search(rf"\b{port}\b", ended.stderr), ended.stderr
    assert re.findall(r"--[a-z-]+", ended.stderr) == [option]
    assert "Traceback" not in ended.stderr


def test_the_readme_has_the_steps_in_the_order_in_which_they_were_tried() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    steps = readme.split("## First login in five minutes")[1].split("What a program needs")[0]
    named = re.findall(r"`(scripts/run|curl -X DELETE|curl|ssh|git clone)`", steps)
    assert named == ["scripts/run", "curl", "ssh", "curl -X DELETE", "ssh", "curl", "git clone", "ssh"]


def _clone_and_push(demo: Demo, folder: Path) -> None:
    """The second curl line and the git line: the demo repository takes a push."""
    own, clone = re.findall(r"^(curl .*/v4/user/keys .*|GIT_SSH_COMMAND=.*)$", demo.printed, re.MULTILINE)
    subprocess.run(["sh", "-c", own], check=True, capture_output=True, timeout=60)
    subprocess.run(["sh", "-c", clone], check=True, capture_output=True, timeout=60, cwd=folder)
    ssh = shlex.split(clone)[0].removeprefix("GIT_SSH_COMMAND=")
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    for step in ([*who, "commit", "-q", "--allow-empty", "-m", "first"], ["push", "-q", "origin", "HEAD:main"]):
        subprocess.run(
            ["git", *step],
            check=True,
            capture_output=True,
            timeout=60,
            cwd=folder / "hello",
            env={**os.environ, "GIT_SSH_COMMAND": ssh},
        )


def _check_admin(facts: dict[str, str]) -> None:
    """The admin's password gets an IAM token in the demo workspace."""
    user = {"name": facts["admin_user"], "password": facts["admin_password"], "domain": {"name": facts["workspace"]}}
    identity = {"methods": ["password"], "password": {"user": user}}
    answer = plain_http.post(f"{facts['url']}/v3/auth/tokens", json={"auth": {"identity": identity}})
    assert answer.status_code == 201
