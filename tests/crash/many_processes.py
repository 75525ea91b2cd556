"""Keyrack as many processes on one database, killed at random; remembers what each acknowledged."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx2

from keyrack.ssh.public_key import parse
from tests.core.keys_for_tests import fresh_line
from tests.crash.commands import Command
from tests.plain_http import PLAIN
from tests.ports import free_port
from tests.waiting import wait_until

OLGA = {"Authorization": "Bearer token-of-olga"}
# Between two adds by one service, so that a long run is about kills and not about a hundred thousand keys.
# What a command says whose database was killed: before it began, or in the middle.
AWAY = ("The database cannot be reached", "The database does not answer")
PAUSE_SECONDS = 0.04


class Acknowledged:
    """What was answered with a success. added: label to public key; tried: what may have happened or not."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.added: dict[str, str] = {}
        self.revoked: set[str] = set()
        self.tried_to_revoke: set[str] = set()
        self.users: set[str] = set()

    def __len__(self) -> int:
        with self.lock:
            return len(self.added) + len(self.revoked) + len(self.users)

    def take_one_to_revoke(self) -> str | None:
        """A fingerprint of a key that was added and that nobody tried to revoke."""
        with self.lock:
            for label in reversed(self.added):
                fingerprint: str = parse(self.added[label]).fingerprint
                if fingerprint not in self.tried_to_revoke:
                    self.tried_to_revoke.add(fingerprint)
                    return fingerprint
        return None


class ManyProcesses:
    """Services, a Git host and commands in loops, on one database. problems: what none of them may ever say."""

    def __init__(self, folder: Path, database: str, services: int) -> None:
        self.acknowledged = Acknowledged()
        self.problems: list[str] = []
        self.killed: Counter[str] = Counter()
        self._folder = folder
        self._where = ["--data", str(folder / "data"), "--database", database]
        self._urls = [f"http://127.0.0.1:{free_port()}" for _ in range(services)]
        self._running: dict[str, Command] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start all of them and wait until each service answers."""
        for number in range(len(self._urls)):
            self._serve(number)
        self._serve_git()
        for number, url in enumerate(self._urls):
            self._loop(self._add, f"adds-{number}", url)
        for name in ("list", "revoke", "apply"):
            self._loop(self._command, name, name)

    def kill_one(self) -> str:
        """SIGKILL a random one of them, and start it again; answers which."""
        with self._lock:
            alive = {name: process for name, process in self._running.items() if process.exit_code() is None}
        name = random.choice(sorted(alive))
        _kill(alive[name], with_children=name == "git-host")
        self.killed[name.partition("-")[0]] += 1
        if name.startswith("serve"):
            self._serve(int(name.partition("-")[2]))
        elif name == "git-host":
            self._serve_git()
        return name

    def stop(self) -> None:
        """End the loops and kill what serves."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(120)
        for name, process in list(self._running.items()):
            _kill(process, with_children=name == "git-host")

    @property
    def git_host(self) -> int:
        """The process that serves Git now."""
        return self._running["git-host"].pid

    def check_ready(self) -> None:
        """Wait until every service says that it is ready."""
        for url in self._urls:
            wait_until(lambda: _ready(url), "a service")  # noqa: B023

    def _run(self, name: str, *words: str) -> Command:
        process = Command([*words, *self._where], self._folder / f"{name}.log")
        with self._lock:
            self._running[name] = process
        return process

    def _serve(self, number: int) -> None:
        url = self._urls[number]
        process = self._run(f"serve-{number}", "serve", "--listen", url.removeprefix("http://"))
        wait_until(lambda: process.exit_code() is not None or _ready(url), "the service")
        assert process.exit_code() is None, f"serve ended: {self.logs()}"

    def _serve_git(self) -> None:
        self._run("git-host", "git-host", "--git-listen", f"127.0.0.1:{free_port()}")

    def logs(self) -> str:
        """The end of what each of them said."""
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in self._folder.glob("*.log"))

    def _loop(self, work: Callable[[str], None], name: str, about: str) -> None:
        def run() -> None:
            try:
                work(about)
            except Exception as error:
                self.problems.append(f"{name}: {error!r}")

        thread = threading.Thread(target=run, name=name)
        thread.start()
        self._threads.append(thread)

    def _add(self, url: str) -> None:
        with httpx2.Client(base_url=url, timeout=60, headers=OLGA, verify=PLAIN) as client:
            number = 0
            while not self._stopping.is_set():
                number += 1
                label, line = f"{url.rpartition(':')[2]}-{number}", " ".join(fresh_line("x").split()[:2])
                body = {"label": label, "username": "deploy", "publicKey": line}
                try:
                    answer = client.post("/api/v3/servers/1/ssh/credentials", json=body)
                except httpx2.TransportError:
                    time.sleep(0.05)
                    continue
                if answer.status_code == 200:
                    with self.acknowledged.lock:
                        self.acknowledged.added[label] = line
                elif answer.status_code not in (409, 422, 503):  # another try was made although nobody said so
                    self.problems.append(f"add: {answer.status_code} {answer.text}\n{self.logs()}")
                time.sleep(PAUSE_SECONDS)

    def _command(self, name: str) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            words, note = self._next(name, number)
            if not words:
                time.sleep(0.05)
                continue
            process = self._run(name, *words)
            code = process.wait(120)
            if code == 0:
                with self.acknowledged.lock:
                    note()
            elif code != -signal.SIGKILL:
                log = (self._folder / f"{name}.log").read_text()
                if not any(words in log[-600:] for words in AWAY):
                    self.problems.append(f"{name} ended with {code}: {log[-2000:]}")

    def _next(self, name: str, number: int) -> tuple[list[str], Callable[[], object]]:
        known = self.acknowledged
        if name == "list":
            return ["hosts", "list"], lambda: None
        if name == "revoke":
            fingerprint = known.take_one_to_revoke()
            if fingerprint is None:
                return [], lambda: None
            return ["hosts", "revoke", fingerprint], lambda: known.revoked.add(fingerprint)
        user = f"user-{number}"
        file = self._folder / "more.toml"
        file.write_text(f'[workspace]\nname = "acme"\n[[users]]\nname = "{user}"\nrole = "member"\n', "utf-8")
        return ["apply", str(file)], lambda: known.users.add(user)


def children_of(pid: int) -> list[int]:
    """The processes that a process started and that still run."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in path.read_text("ascii").split()]
    return found


def _kill(process: Command, *, with_children: bool) -> None:
    """SIGKILL; with_children: those too, as a Git host's sshd leads a session of its own and would stay."""
    if process.exit_code() is None:
        process.send(signal.SIGSTOP)  # it starts no other meanwhile
        for child in children_of(process.pid) if with_children else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.send(signal.SIGKILL)
    process.wait(60)


def _ready(url: str) -> bool:
    # Not a client of the kind that the adds use: making one takes as long as a start of the service.
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        time.sleep(0.02)
        return False
    finally:
        connection.close()
