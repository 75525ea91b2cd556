"""Git over SSH as people use it, at a steady pace beside other load (bench/day.py): clones, fetches, pushes, keys that
were just registered, and keys that were just deleted, which must open nothing.

It judges nothing: what opened though it must not, or did not though it must, is counted by its words.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.ports import free_port
from tests.quick_ssh import quick_pair

REPOSITORIES = ("acme/site", "acme/shop", "acme/tools")
PEOPLE = 3
SIZE = 200_000
"""Bytes of the file that each begins with."""
PAUSE = 4.0
"""Seconds from one operation of a person to the next."""
MAX_SECONDS = 300.0
"""How long an operation may take before it is ended, and counted as failed."""
START_SECONDS = 60.0
REFUSED = "Permission denied (publickey"
KEYS = "/api/keyrack/v1/people/alice/keys"

Ask = Callable[[str, str, Any], Awaitable[Any]]
"""A call of the owner: method, path, body; its answer, {} where it was no success."""


@dataclass
class Operations:
    """What was done in a slice. seconds: of each operation that ended well; wrong: what others said, and how often."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    wrong: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class GitServed:
    """Keyrack's Git, as a process. url: where repositories are; known_hosts: what its sshd is known by."""

    pid: int
    url: str
    known_hosts: Path


@contextmanager
def git_service(data: Path, database: str) -> Iterator[GitServed]:
    """`keyrack git-host` beside a service on the same data. Raises SystemExit where it does not come up."""
    port, log = free_port(), data.parent / "git.log"
    program = "from keyrack.cli.main import main\nmain(prog_name='keyrack')"
    command = [sys.executable, "-c", program, "git-host", "--data", str(data), "--git-listen", f"127.0.0.1:{port}"]
    with log.open("wb") as out:
        environment = {**os.environ, "KEYRACK_DATABASE": database}
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        end = time.monotonic() + START_SECONDS
        while "Git is served at" not in (said := log.read_text("utf-8", "replace")):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"Git is not served: {said[-500:]}")
            time.sleep(0.1)
        url = said.partition("Git is served at ")[2].partition("/GROUP/NAME")[0]
        known_hosts = data.parent / "known_hosts"
        scanned = subprocess.run(["ssh-keyscan", "-p", str(port), "127.0.0.1"], capture_output=True, check=True)
        known_hosts.write_bytes(scanned.stdout)
        yield GitServed(process.pid, url, known_hosts)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Person:
    """Somebody with keys and clones of their own, who works at a pace. folder: a new one for both."""

    def __init__(self, served: GitServed, folder: Path, ask: Ask, operations: list[Operations]) -> None:
        folder.mkdir()
        self._served, self._folder, self._ask, self._operations = served, folder, ask, operations
        self._chance = random.Random(os.urandom(8))
        self._numbers = iter(range(10**9))

    async def work(self, stopping: asyncio.Event) -> None:
        """Clone once, then push, fetch, clone anew, and try keys that come and go, until it is enough."""
        key, _ = await self._registered()
        home = self._folder / "home"
        while not await self._operation(key, "clone", "-q", self._url(REPOSITORIES[0]), str(home)):
            await asyncio.sleep(PAUSE)
        works = (self._push, self._fetch, self._clone, self._come_and_go)
        while not stopping.is_set():
            for one in works:
                began = time.monotonic()
                await one(key, home)
                rest = PAUSE * (0.5 + self._chance.random()) - (time.monotonic() - began)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), max(0.0, rest))
                if stopping.is_set():
                    return

    async def fill(self) -> None:
        """Put something to clone into each repository."""
        key, _ = await self._registered()
        for path in REPOSITORIES:
            first = self._folder / path.replace("/", "-")
            await self._git(key, "init", "-q", "-b", "main", str(first))
            (first / "data").write_bytes(os.urandom(SIZE))
            await self._git(key, "-C", str(first), "add", "data")
            await self._git(key, "-C", str(first), "commit", "-q", "-m", "Begin")
            await self._operation(key, "-C", str(first), "push", "-q", self._url(path), "main")

    def _url(self, path: str) -> str:
        return f"{self._served.url}/{path}.git"

    async def _registered(self) -> tuple[Path, str]:
        """A new key pair that was registered, and the key's path in the API; "" where that was no success."""
        number = next(self._numbers)
        key = self._folder / f"key-{number}"
        quick_pair(key, "bench")
        title = f"{self._folder.name} {number}"
        public = key.with_name(f"{key.name}.pub").read_text("ascii").strip()
        added = await self._ask("PUT", KEYS, {"title": title, "public_key": public})
        return key, f"{KEYS}/{added['id']}" if "id" in added else ""

    async def _push(self, key: Path, home: Path) -> None:
        (home / "note").write_text(f"{self._folder.name} {next(self._numbers)}\n", "ascii")
        await self._git(key, "-C", str(home), "add", "note")
        await self._git(key, "-C", str(home), "commit", "-q", "-m", "A note")
        await self._operation(key, "-C", str(home), "push", "-q", "origin", f"HEAD:refs/heads/{self._folder.name}")

    async def _fetch(self, key: Path, home: Path) -> None:
        await self._operation(key, "-C", str(home), "fetch", "-q", "origin")

    async def _clone(self, key: Path, home: Path) -> None:
        target = self._folder / "clone"
        await self._operation(key, "clone", "-q", self._url(self._chance.choice(REPOSITORIES)), str(target))
        await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)

    async def _come_and_go(self, key: Path, home: Path) -> None:
        """A new key opens at once, and once its deletion is acknowledged it does not."""
        key, path = await self._registered()
        url = self._url(self._chance.choice(REPOSITORIES))
        if path and await self._operation(key, "ls-remote", url):
            await self._ask("DELETE", path, None)
            code, said = await self._git(key, "ls-remote", url)
            if code and REFUSED in said:
                self._operations[-1].refused += 1
            else:
                words = f"could not be asked with: {said}" if code else "OPENED"
                self._operations[-1].wrong[f"a key that was deleted {words}"] += 1
        for file in (key, key.with_name(f"{key.name}.pub")):
            file.unlink()

    async def _operation(self, key: Path, *words: str) -> bool:
        """One that must go well, and is timed; whether it did."""
        began = time.perf_counter()
        code, said = await self._git(key, *words)
        if code == 0:
            self._operations[-1].seconds.append(time.perf_counter() - began)
        else:
            what = next(word for word in words if word in ("clone", "fetch", "push", "ls-remote"))
            self._operations[-1].wrong[f"git {what}: {said}"] += 1
        return code == 0

    async def _git(self, key: Path, *words: str) -> tuple[int, str]:
        """Its status, and the end of what it said; one that takes too long is ended, and failed."""
        options = ["IdentitiesOnly=yes", "IdentityAgent=none", "BatchMode=yes", "GlobalKnownHostsFile=none"]
        options += [f"UserKnownHostsFile={self._served.known_hosts}", "StrictHostKeyChecking=yes"]
        ssh = " ".join(("ssh -F /dev/null -i", str(key), *(f"-o {one}" for one in options)))
        who = {
            f"GIT_{role}_{what}": "alice@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._folder), "GIT_SSH_COMMAND": ssh, **who}
        environment |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
        process = await asyncio.create_subprocess_exec(
            "git", *words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment,
            start_new_session=True,
        )  # fmt: skip
        try:
            _, said = await asyncio.wait_for(process.communicate(), MAX_SECONDS)
        except (TimeoutError, asyncio.CancelledError) as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            if isinstance(error, asyncio.CancelledError):
                raise
            return 1, f"not within {MAX_SECONDS:g} s"
        assert process.returncode is not None
        return process.returncode, " ".join(said.decode("utf-8", "replace").split())[-200:]


async def begin(served: GitServed, folder: Path, ask: Ask, operations: list[Operations]) -> list[Person]:
    """Make the repositories, which alice may write; answers who is to work."""
    for path in REPOSITORIES:
        await ask("PUT", "/api/keyrack/v1/repositories", {"path": path, "members": {"alice": "developer"}})
    folder.mkdir()
    await Person(served, folder / "first", ask, operations).fill()
    return [Person(served, folder / f"person-{number}", ask, operations) for number in range(PEOPLE)]
