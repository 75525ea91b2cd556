"""Holds a data folder for one process at a time; must not hold it for a process that is gone, however it ended."""

from __future__ import annotations

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path

import click

from keyrack.settings import Settings

SERVING = "serving.lock"
_NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextlib.contextmanager
def alone(lock: Path, otherwise: str) -> Iterator[None]:
    """Hold a lock file while the block runs; otherwise: the words for whoever finds it held by another process.

    A file system without locks keeps nobody out. Raises ClickException, and OSError where it cannot be written.
    """
    lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with lock.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException(otherwise) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
        yield


@contextlib.contextmanager
def serving_alone(settings: Settings) -> Iterator[None]:
    """Hold the data folder of a service, where its database is SQLite, which serves with one process.

    Raises ClickException where another one serves it, before the database is opened or brought up to date.
    """
    if not settings.database_url.startswith("sqlite"):
        yield
        return
    data = settings.data.resolve()
    words = f"Another service serves {data}, and SQLite serves with one process; stop it first, or name another --data."
    with alone(data / SERVING, words):
        yield


@contextlib.contextmanager
def serving_git_alone(directory: Path) -> Iterator[None]:
    """Hold the folder of a Git host's parts: a second one there would write its own settings for sshd over the first's,
    and end the first's sshd. Raises ClickException where another one runs.
    """
    words = f"Another Git host runs from {directory}; stop it first, or name a data folder of its own with --data."
    with alone(directory / SERVING, words):
        yield
