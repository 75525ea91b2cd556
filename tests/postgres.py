"""A private PostgreSQL for tests, from the system's own binaries; must leave nothing behind.

One serves a run, however many processes it has; tests that stop or break one have their own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg

from tests import leftovers
from tests.shared_in_run import one_at_a_time

BINARIES = Path("/usr/lib/postgresql")
START_SECONDS = 60
# Each test's database is a copy of six hundred files. In memory that costs a quarter of the processor time.
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 2 << 30  # that must be free there


class Cluster:
    """A running server that only this test session can reach: a socket in its own folder, no network."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        """folder: new and empty, or one whose server this process joins; durable: with fsync."""
        self._programs = find_programs()
        self._folder = folder
        self._data = folder / "data"
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0
        self._lock = threading.Lock()
        self._kept: psycopg.Connection | None = None  # a new one costs the server as much as a dozen small questions
        # PostgreSQL refuses to run as root.
        self._account: str | None = "postgres" if os.geteuid() == 0 else None
        if self._data.exists():
            return
        if self._account:
            entry = pwd.getpwnam(self._account)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        subprocess.run(
            [
                *(self._programs / "initdb", "-D", self._data, "-U", "keyrack", "-A", "trust"),
                *("-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            user=self._account,
            cwd=folder,
        )

    @property
    def folder(self) -> Path:
        """Where it lies; what is put there too ends with it."""
        return self._folder

    @property
    def running(self) -> bool:
        """Whether it was started here and neither stopped nor killed."""
        return self._process is not None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._programs / "postgres", "-D", self._data),
                    *self._settings(),
                ],
                stdout=log,
                stderr=log,
                user=self._account,
                cwd=self._folder,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError("PostgreSQL did not start:\n" + (self._folder / "log").read_text()) from None
                time.sleep(0.02)

    def _settings(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._folder),
            "max_connections": "600",
            "shared_buffers": "16MB",
            "fsync": "on" if self._durable else "off",
            "autovacuum": "off",
        }
        return [f"--{name}={value}" for name, value in settings.items()]

    def start_apart(self) -> None:
        """Start it so that it is no child of this process, which may end before others that use it."""
        options = ("-l", self._folder / "log", "-o", " ".join(self._settings()), "-t", str(START_SECONDS))
        self._control(*options, "start")

    def stop_apart(self) -> None:
        """Stop it, whoever started it, as one stops what nobody will read again."""
        self._control("-m", "immediate", "-t", str(START_SECONDS), "stop")

    def _control(self, *given: str | Path) -> None:
        subprocess.run(
            [self._programs / "pg_ctl", "-D", self._data, "-s", "-w", *given],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._account,
            cwd=self._folder,
        )

    def stop(self) -> None:
        """Stop it at once; connected clients lose their connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(START_SECONDS)
            self._process = None

    def crash(self) -> None:
        """Stop it as a power cut would stop its programs: nothing is finished, nothing is said to clients."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(START_SECONDS)
            self._process = None

    def kill(self) -> None:
        """SIGKILL the first of its processes, which gets to do nothing at all; the others notice and end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(START_SECONDS)
            self._process = None

    def start_again(self) -> None:
        """Start it after kill(): not before the last of the others has ended."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.start()
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def url(self, name: str) -> str:
        """The address of one of its databases."""
        return f"postgresql://keyrack@/{name}?host={quote(str(self._folder), safe='')}"

    def create_database(self, template: str = "template1") -> str:
        """A new database, made as a copy of another; its address."""
        with self._lock:
            self._number += 1
            name = f"test_{os.getpid()}_{self._number}"
            # Copying files is quicker than logging every page for databases as small as these.
            self._command(f'CREATE DATABASE {name} TEMPLATE "{template}" STRATEGY FILE_COPY')
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Forget a database, also when somebody is still connected."""
        with self._lock:
            self._command(f"DROP DATABASE IF EXISTS {database_name(url)} WITH (FORCE)")

    def _command(self, text: str) -> None:
        """On a connection that stays until the server does not answer it, as after a test that stopped it."""
        kept, self._kept = self._kept, None
        if kept is not None:
            with contextlib.suppress(psycopg.OperationalError):
                kept.execute("SELECT")
            if kept.closed:
                kept = None
        kept = kept or psycopg.connect(self.url("postgres"), autocommit=True)
        try:
            kept.execute(text)
        except BaseException:
            kept.close()
            raise
        self._kept = kept

    def leave(self) -> None:
        """End what this process has of it, except databases."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None


def database_name(url: str) -> str:
    """The name in a database's address."""
    found = re.search(r"@/(\w+)", url)
    assert found
    return found[1]


def find_programs() -> Path:
    """The folder of the newest PostgreSQL on this machine."""
    versions = [folder for folder in BINARIES.glob("*") if folder.name.isdigit() and (folder / "bin/initdb").exists()]
    if versions:
        return max(versions, key=lambda folder: int(folder.name)) / "bin"
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    raise AssertionError(
        "The tests need PostgreSQL's programs. `scripts/test` installs them, or: apt-get install postgresql"
    )


def _quick_folder() -> Path:
    """Where a server may lie that syncs nothing to a disk: memory, if this machine has enough."""
    with contextlib.suppress(OSError):
        if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES:
            return MEMORY
    return Path("/tmp")


@contextlib.contextmanager
def running_cluster(*, durable: bool = False) -> Iterator[Cluster]:
    """A started cluster in a temporary folder with a short name: a socket's path may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="keyrack-pg-", dir="/tmp"))
    leftovers.tell("folder", str(folder))
    try:
        cluster = Cluster(folder, durable=durable)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.leave()
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def shared_cluster(run: Path) -> Iterator[Cluster]:
    """The cluster of a run: the first process to come starts it, and the last to leave stops it.

    run: a folder that all processes of this run have, and no others. Who is in holds a lock, which ends with it.
    """
    with (run / "postgresql.users").open("a") as users:
        with one_at_a_time(run / "postgresql"):
            noted = run / "postgresql.folder"
            if noted.exists():
                cluster = Cluster(Path(noted.read_text("utf-8")))
            else:
                folder = Path(tempfile.mkdtemp(prefix="pg-keyrack-", dir=_quick_folder()))
                leftovers.tell("folder", str(folder))
                cluster = Cluster(folder)
                cluster.start_apart()
                noted.write_text(str(folder), "utf-8")
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield cluster
        finally:
            cluster.leave()
            with one_at_a_time(run / "postgresql"):
                fcntl.flock(users, fcntl.LOCK_UN)
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    cluster.stop_apart()
                    shutil.rmtree(noted.read_text("utf-8"), ignore_errors=True)
                    noted.unlink()
