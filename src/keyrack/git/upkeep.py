"""Maintains repositories after pushes, one after the other: gc, and removal of leftovers; must delay no transfer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Awaitable
from pathlib import Path

from keyrack.core.git import bounds, storage
from keyrack.logs import logger
from keyrack.settings import Settings
from keyrack.store.database import Database, DatabaseUnavailable

log = logger("keyrack.git")

SWEEP_EVERY_SECONDS = 6 * 3600.0
# The next transfers come first.
NICE = ("nice", "-n", "10")
OPTIONS = {"safe.directory": "*", "gc.autoDetach": "false", "pack.threads": "1", "pack.windowMemory": "200m"}
POLL_SECONDS = 0.1
GRACE_SECONDS = 5


class Upkeep:
    """Packs repositories after pushes, and removes what killed pushes and deleted repositories left behind."""

    def __init__(self, settings: Settings, database: Database, root: Path, git: str) -> None:
        self._settings = settings
        self._database = database
        self._root = root
        self._git = git
        self._pushed: dict[Path, None] = {}
        self._wake = asyncio.Event()

    def pushed(self, folder: Path) -> None:
        """A push to this repository has ended, however it did."""
        self._pushed[folder] = None
        self._wake.set()

    async def run(self) -> None:
        """Work until it is cancelled."""
        await asyncio.gather(self._sweep(), self._tend())

    async def _sweep(self) -> None:
        while True:
            await self._safely(self._remove_left_over())
            await self._safely(self._remove_deleted())
            await asyncio.sleep(SWEEP_EVERY_SECONDS)

    async def _tend(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pushed:
                folder = next(iter(self._pushed))
                del self._pushed[folder]
                await self._safely(self._tend_one(folder))

    async def _safely(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception:  # no upkeep is no reason to serve nobody; the next round tries again
            log.exception("the upkeep of repositories failed")

    async def _remove_left_over(self) -> None:
        age = bounds.abandoned_after_seconds(self._settings)
        removed = await asyncio.to_thread(bounds.remove_left_over_everywhere, self._root, older_than=age)
        for path in removed:
            log.info("removed what a push that was killed had left", path=str(path))

    async def _remove_deleted(self) -> None:
        with contextlib.suppress(DatabaseUnavailable):  # said by the database itself; the next time will do
            for path in await asyncio.to_thread(storage.remove_deleted, self._database, self._root):
                log.info("removed the folder of a repository that was deleted", path=str(path))

    async def _tend_one(self, folder: Path) -> None:
        age = bounds.abandoned_after_seconds(self._settings)
        for path in await asyncio.to_thread(bounds.remove_left_over, folder, older_than=age):
            log.info("removed what a push that was killed had left", path=str(path))
        await self._run("gc", "--auto", "--quiet", folder=folder)

    async def _run(self, *words: str, folder: Path) -> None:
        process = subprocess.Popen(
            [
                *NICE,
                self._git,
                *(part for name, value in OPTIONS.items() for part in ("-c", f"{name}={value}")),
                *words,
            ],
            cwd=folder,
            env={"PATH": os.environ.get("PATH", os.defpath), **storage.clean_environment()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._settings.git_max_transfer_seconds):
                while process.poll() is None:
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            log.warning("packing a repository took too long", folder=str(folder))
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End git and what it started; at a first signal it removes what it has begun to write."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(GRACE_SECONDS)
