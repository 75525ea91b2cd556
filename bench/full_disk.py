"""What becomes of what was acknowledged while a disk is full: the service's data, its log, a host's agent, the folder
for what is temporary, the disk of PostgreSQL, in turn.

    .venv/bin/python bench/full_disk.py [SECONDS]

`keyrack serve` on SQLite, for the last on PostgreSQL, a real agent and a real sshd on loopback; each folder is a small
file system of its own, which is filled to the last byte for SECONDS (6 unless said) while two callers add keys and
somebody logs in again and again. Then there is room again, nothing is started anew, and all that was acknowledged is
looked for. Prints a table as docs/figures.md has it; a lost key, a login that fails, or a log that does not verify ends
this with an error. Needs root, for the file systems, sshd and PostgreSQL.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack import app
from keyrack.cli.machine.demo_host import DemoHost
from keyrack.core.hosts import servers
from keyrack.core.people import actors
from keyrack.core.workspace import apply as workspace_apply
from keyrack.settings import Settings
from tests.core.keys_for_tests import fresh_line
from tests.login.private_sshd import USERNAME, Key, SshClient, sshd_path, strict_folder
from tests.plain_http import PLAIN
from tests.ports import free_port
from tests.postgres import Cluster
from tests.services import TEAM
from tests.waiting import wait_until

MEGABYTES = {"data": 48, "log": 4, "agent": 16, "temporary": 4}
# A server keeps 80 MB of its log for later, and three more databases.
POSTGRESQL_MEGABYTES = 192
KEYRACK = Path(sys.executable).with_name("keyrack")
PAUSE_SECONDS = 0.1


@contextmanager
def small(folder: Path, megabytes: int) -> Iterator[Path]:
    """A folder that is a file system of so many megabytes."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "keyrack-bench", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """No byte more fits into the folder's file system; what is freed meanwhile is taken too."""
    ballast, ended = folder / "ballast", threading.Event()

    def fill() -> None:
        with ballast.open("ab", buffering=0) as file:
            while True:
                for size in (1 << 20, 4096, 1):
                    try:
                        while True:
                            file.write(bytes(size))
                    except OSError:
                        pass
                if ended.wait(0.05):
                    return

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        ballast.unlink()


class Callers:
    """Two that add keys one after another. acknowledged: the labels that were answered with 201; others: how often each
    other answer came, with its words.
    """

    def __init__(self, url: str, server_id: int, case: str) -> None:
        self.acknowledged: list[str] = []
        self.others: Counter[str] = Counter()
        self._client = httpx2.Client(
            base_url=url, timeout=30, verify=PLAIN, headers={"Authorization": "Bearer token-of-olga"}
        )
        self._path = f"/api/v3/servers/{server_id}/ssh/credentials"
        self._case, self._ended = case, threading.Event()
        self._threads = [threading.Thread(target=self._add, args=(name,)) for name in ("a", "b")]

    def add(self, label: str, line: str = "") -> bool:
        """Add one key; whether that was acknowledged."""
        body = {"label": label, "username": USERNAME, "publicKey": line or fresh_line()}
        try:
            answer = self._client.post(self._path, json=body)
        except httpx2.HTTPError as error:
            self.others[f"no answer ({type(error).__name__})"] += 1
            return False
        if answer.status_code in (200, 201):
            self.acknowledged.append(label)
            return True
        self.others[f"{answer.status_code} {_words(answer)}"] += 1
        return False

    def listed(self) -> list[str]:
        """The labels that the service knows, each as often as it does."""
        found: list[str] = []
        page = 1
        while True:
            answer = self._client.get(self._path, params={"page": page}).json()
            found += [one["label"] for one in answer["data"]]
            if page >= answer["meta"]["pagination"]["total_pages"]:
                return found
            page += 1

    def start(self) -> None:
        """Begin to add."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End that."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _add(self, name: str) -> None:
        number = 0
        while not self._ended.wait(PAUSE_SECONDS):
            number += 1
            self.add(f"{self._case}-{name}-{number}")


def _words(answer: httpx2.Response) -> str:
    try:
        return str(answer.json().get("message", ""))[:120]
    except ValueError:
        return "without words"


class Place:
    """The service, a host, and the folders."""

    def __init__(self, folders: dict[str, Path], host_folder: Path, database: str = "") -> None:
        self.folders = folders
        self.url = f"http://127.0.0.1:{free_port()}"
        database = database or f"sqlite:///{folders['data']}/keyrack.db"
        self._where = ["--data", str(folders["data"]), "--database", database]
        instance = app.open_instance(Settings(data=folders["data"], database=database))
        workspace_apply.apply(instance, TEAM.replace('system_users = ["deploy"]', f'system_users = ["{USERNAME}"]'), {})
        token = servers.invite(instance, actors.system_actor(1), 1)
        instance.database.close()
        self._log = (folders["log"] / "keyrack.log").open("ab")
        command = [str(KEYRACK), "serve", "--listen", self.url.removeprefix("http://"), *self._where]
        # What it starts, the agent too, has this as well.
        os.environ["TMPDIR"] = str(folders["temporary"])
        self._serving = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        wait_until(self._is_ready, "the service")
        self.host = DemoHost(host_folder, free_port(), sshd_path())
        self.host.agent_state = folders["agent"] / "state"
        self.host.prepare()
        self.host.enrol(self.url, token)
        self.host.start()
        self.client = SshClient(self.host.port, self.host.known_hosts)

    def run(self, *words: str) -> str:
        """What a command says. It must succeed."""
        done = subprocess.run([str(KEYRACK), *words, *self._where], capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"keyrack {words}: {done.stdout} {done.stderr}")
        return done.stdout

    def _is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=5, verify=PLAIN).status_code == 200
        except httpx2.HTTPError:
            return False

    def is_running(self) -> bool:
        """Whether the service that was started first still runs."""
        return self._serving.poll() is None

    def stop(self) -> None:
        """End all."""
        self.host.stop()
        self._serving.terminate()
        self._serving.wait(30)
        self._log.close()
        del os.environ["TMPDIR"]


@contextmanager
def on_postgresql(outer: Path, stack: ExitStack) -> Iterator[Place]:
    """The same on a PostgreSQL whose whole disk is small."""
    with tempfile.TemporaryDirectory(prefix="keyrack-pg-", dir="/tmp") as short:  # for its socket's path
        Path(short).chmod(0o755)
        disk = stack.enter_context(small(Path(short) / "disk", POSTGRESQL_MEGABYTES))
        cluster = Cluster(disk, durable=True)
        cluster.start()
        stack.callback(cluster.stop)
        folders = {"data": outer / "data-2", "log": outer, "agent": outer / "agent-2", "temporary": outer}
        folders["data"].mkdir(mode=0o700)
        place = Place({**folders, "postgresql": disk}, outer / "host-2", cluster.create_database())
        stack.callback(place.stop)
        yield place
        stack.close()


def one_case(place: Place, name: str, callers: Callers, seconds: float) -> list[str]:
    """A row, and what was wrong."""
    with tempfile.TemporaryDirectory() as scratch:
        keys = [Key.make(Path(scratch) / f"{name}-{number}") for number in range(2)]
        if not callers.add(f"{name}-stays", keys[0].public):
            raise RuntimeError(f"no key is taken: {callers.others}")
        place.client.wait_until_open(keys[0])
        callers.start()
        logins = failed = 0
        with full(place.folders[name]):
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                logins += 1
                done = place.client.login(keys[0])
                if done.returncode != 0:
                    failed += 1
                    print(f"a login ended with {done.returncode}: {done.stderr!s:.500}", file=sys.stderr)
        began = time.monotonic()
        wait_until(lambda: callers.add(f"{name}-after", keys[1].public), "the service to take a key again")
        place.client.wait_until_open(keys[1])
        again = time.monotonic() - began
        callers.stop()
    listed = Counter(callers.listed())
    lost = [label for label in callers.acknowledged if not listed[label]]
    twice = [label for label, count in listed.items() if count > 1]
    events = " ".join(one["summary"] + " " for one in json.loads(place.run("audit", "list", "--json")))
    silent = [label for label in callers.acknowledged if f"{label} " not in events.replace('"', " ").replace(",", " ")]
    log = place.run("audit", "verify").strip()
    said = "; ".join(f"{count} × {words}" for words, count in callers.others.most_common(3)) or "nothing"
    sums = (len(callers.acknowledged), len(lost), len(twice), len(silent), logins, failed, f"{again:.1f} s", said)
    print(f"| {name} |", *(f"{one} |" for one in sums), flush=True)
    wrong = [f"{len(lost)} lost"] if lost else []
    wrong += [f"{len(twice)} twice"] if twice else []
    wrong += [f"{len(silent)} without an event"] if silent else []
    wrong += [f"{failed} logins failed"] if failed else []
    wrong += [] if "as it was" in log else [log]
    return wrong + ([] if place.is_running() else ["the service ended"])


def main() -> int:
    """Set up, and fill each."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 6.0
    if os.geteuid() != 0:
        print("It mounts file systems: run it as root.", file=sys.stderr)
        return 1
    wrong: list[str] = []
    print(
        "| full | acknowledged | lost | twice | no event | logins | failed | room again: added, opens | else answered |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with ExitStack() as stack:
        outer = stack.enter_context(strict_folder())
        folders = {name: stack.enter_context(small(outer / name, size)) for name, size in MEGABYTES.items()}
        place = Place(folders, outer / "host")
        stack.callback(place.stop)
        for name in MEGABYTES:
            wrong += [f"{name}: {one}" for one in one_case(place, name, Callers(place.url, 1, name), seconds)]
    with strict_folder() as outer, ExitStack() as stack, on_postgresql(outer, stack) as place:
        name = "postgresql"
        wrong += [f"{name}: {one}" for one in one_case(place, name, Callers(place.url, 1, name), seconds)]
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
