"""The one pasted line, as it is served: it fetches, checks, enrols and starts the real agent beside a private sshd."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from zipfile import ZipFile

import pytest

from keyrack.core.hosts import modes, servers, system_users
from keyrack.core.keys import credentials
from keyrack.core.people import actors
from keyrack.errors import Refusal
from keyrack.private_sshd import PrivateSshd
from tests.login.private_sshd import USERNAME, Key, SshClient, private_sshd, strict_folder
from tests.services import Service, running, settings_for
from tests.waiting import wait_until

KEYRACK = actors.system_actor(1)


class Pasted:
    """A service, an sshd, and the line pasted beside it."""

    def __init__(self, service: Service, server: PrivateSshd, client: SshClient, folder: Path) -> None:
        self.service = service
        self.server = server
        self.client = client
        self.folder = folder
        self.state = folder / "agent"
        self.program = folder / "program" / "keyrack-agent.pyz"

    def paste(self, token: str, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script as it is served."""
        script = self.service.call("GET", "/agent/install.sh")
        assert script.status_code == 200
        given = [
            *("sh", "-s", "--", "--url", self.service.url),
            *("--sshd-config", str(self.server.config), "--drop-in", str(self.server.drop_in)),
            *("--state-dir", str(self.state), "--prefix", str(self.program.parent)),
            *("--keys-dir", str(self.server.keys), "--revoked-keys", str(self.server.revoked_keys)),
            *more,
        ]
        environment = {**os.environ, "KEYRACK_AGENT_TOKEN": token, **environment}
        return subprocess.run(
            given, input=script.text, capture_output=True, text=True, check=False, timeout=120, env=environment
        )

    def agent(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The installed agent's command."""
        given = ["python3", "-I", str(self.program), *arguments, "--state-dir", str(self.state)]
        return subprocess.run(given, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def pasted(team_folder: Path, tmp_path: Path) -> Iterator[Pasted]:
    data = tmp_path / "data"
    shutil.copytree(team_folder, data)
    with ExitStack() as stack:
        folder = stack.enter_context(strict_folder())
        service = stack.enter_context(running(settings_for(data, "")))
        server, client = stack.enter_context(private_sshd(folder))
        scene = Pasted(service, server, client, folder)
        yield scene
        if scene.state.exists():
            pid = (scene.state / "lock").read_text("ascii").strip()
            with suppress(ProcessLookupError):
                os.kill(int(pid), 15)


def test_the_pasted_line_enrols_and_the_agent_runs(pasted: Pasted, tmp_path: Path) -> None:
    service = pasted.service
    ended = pasted.paste(servers.invite(service.instance, KEYRACK, 1))
    assert ended.returncode == 0, ended.stderr
    assert servers.get(service.instance, KEYRACK, 1).mode == "observe"
    wait_until(lambda: servers.get(service.instance, KEYRACK, 1).applied_revision > 0, "a first report")
    it_starts_from_what_was_compiled_here(pasted)
    status = pasted.agent("status")
    assert "this host observes: it reports who gets in and changes nothing" in status.stdout
    assert "the agent is running" in status.stdout
    key = Key.make(tmp_path / "key")
    try:
        system_users.create(service.instance, KEYRACK, 1, username=USERNAME)
    except Refusal:
        pass  # it is there already
    credentials.add(service.instance, KEYRACK, 1, label="laptop", username=USERNAME, public_key=key.public)
    modes.set_mode(service.instance, KEYRACK, 1, "enforce")
    pasted.client.wait_until_open(key)
    wait_until(  # after a trial of 60 seconds
        lambda: servers.get(service.instance, KEYRACK, 1).facts.get("enforcement") == "enforce",
        "enforcing in force",
        seconds=120,
    )
    assert "this host enforces" in pasted.agent("status").stdout
    doctor = pasted.agent("doctor")
    assert "sshd obeys the document for every account" in doctor.stdout
    pid = (pasted.state / "lock").read_text("ascii")
    ended = pasted.paste("used up")
    assert ended.returncode == 0, ended.stderr
    assert "is a host of" in ended.stderr
    # It says that it runs, and it does.
    assert "the agent runs" in ended.stderr
    assert (pasted.state / "lock").read_text("ascii") not in ("", pid)
    assert json.loads(pasted.agent("status", "--json").stdout)["findings"][1]["words"] == "the agent is running"
    settings = pasted.state / "local.json"
    kept = settings.read_bytes()
    (pasted.state / "local-last-good.json").unlink()
    settings.write_text("{", "ascii")
    ended = pasted.paste("")
    assert ended.returncode == 1, (ended.stdout, ended.stderr)
    assert "the agent was started and does not run" in ended.stderr
    assert "is damaged" in ended.stderr
    assert "the agent runs" not in ended.stderr
    settings.write_bytes(kept)
    assert pasted.paste("").returncode == 0
    # sshd's own settings name these files in this test, so the agent refuses to take them away.
    gone = pasted.agent("uninstall")
    assert gone.returncode == 1
    assert "take that out of them first" in gone.stderr
    assert pasted.client.lets_in(key)


def it_starts_from_what_was_compiled_here(pasted: Pasted) -> None:
    """By this Python; one that came by an upgrade takes the sources, and says the same."""
    (upgraded := pasted.folder / "upgraded").mkdir()
    other = upgraded / pasted.program.name
    with ZipFile(pasted.program) as pack, ZipFile(other, "w") as changed:
        for name in pack.namelist():
            data = pack.read(name)
            changed.writestr(name, b"\0\0\r\n" + data[4:] if name.endswith(".pyc") else data)
    where = "import sys; sys.path.insert(0, sys.argv[1]); import keyrack.agent.cli as its; print(its.__file__)"
    said = set()
    for program, suffix in ((pasted.program, "pyc"), (other, "py")):
        for given, words in (
            (["-c", where, str(program)], f"{program}/keyrack/agent/cli.{suffix}\n"),
            ([str(program), "--version"], None),
        ):
            ended = subprocess.run(["python3", "-I", *given], capture_output=True, text=True, check=True, timeout=120)
            assert words in (None, ended.stdout)
        said.add(ended.stdout)
    assert len(said) == 1
    assert sorted(path.name for path in pasted.program.parent.iterdir()) == [pasted.program.name]


@pytest.mark.parametrize(
    ("token", "more", "words"),
    [
        ("wrong", (), "enrolment token is wrong"),
        ("x", ("--mode", "explode"), "--mode is observe, auto or enforce"),
        ("x", ("--python",), "needs a value"),
        ("x", ("--only-accounts", "a b;c"), "cannot be the name of an account"),
    ],
)
def test_an_install_that_fails_says_why_and_leaves_no_enrolment(
    pasted: Pasted, token: str, more: tuple[str, ...], words: str
) -> None:
    ended = pasted.paste(token, *more)
    assert ended.returncode != 0
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (pasted.state / "enrolment.json").exists()
    shutil.rmtree(pasted.state, ignore_errors=True)


def test_a_proxys_password_stands_in_no_arguments(pasted: Pasted) -> None:
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def watch() -> None:
            connection, _ = listener.accept()
            with connection:
                for path in Path("/proc").glob("[0-9]*/cmdline"):
                    with suppress(OSError):
                        seen.append(path.read_bytes())

        thread = threading.Thread(target=watch)
        thread.start()
        # curl goes without it, so that the agent is whom the proxy meets.
        named = f"http://host:s3cret-of-a-proxy@127.0.0.1:{port}"
        ended = pasted.paste("t0ken", KEYRACK_AGENT_PROXY=named, no_proxy="127.0.0.1")
        thread.join()
    assert ended.returncode != 0
    assert any(b"enroll" in line for line in seen)
    assert not any(b"s3cret-of-a-proxy" in line for line in seen)
    shutil.rmtree(pasted.state, ignore_errors=True)


def test_an_old_python_is_named_before_anything_is_changed(pasted: Pasted, tmp_path: Path) -> None:
    """As those of RHEL 8 and Ubuntu 18.04 are: seen with 3.5 and 3.6."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "id", "sed", "mkdir", "command"):
        found = shutil.which(name)
        if found is not None:
            (programs / name).symlink_to(found)
    old = programs / "python3"
    old.write_text('#!/bin/sh\ncase "$*" in *"(3, 9)"*) exit 1 ;; esac\necho 3.6\n', "ascii")
    old.chmod(0o755)
    ended = pasted.paste("x", PATH=str(programs))
    assert ended.returncode != 0
    assert "needs Python 3.9 or newer, and nothing was changed" in ended.stderr
    assert f"too old: {old} is 3.6" in ended.stderr
    assert not pasted.state.exists()
    assert not pasted.program.parent.exists()
