"""The file in which a login is kept, for its owner alone; must never show the token."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import click

_NAMES = ("KEYRACK_URL", "KEYRACK_TOKEN")


@dataclass(frozen=True, slots=True)
class SavedLogin:
    """Where somebody logged in. url: of the service, without a / at its end; name: whose token it is, if known."""

    url: str
    token: str = field(repr=False)
    name: str = ""


def path() -> Path:
    """Where logins are kept: keyrack/login.json in XDG_CONFIG_HOME or ~/.config. Exits with words without a home."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        return (Path(base) if base.startswith("/") else Path.home() / ".config") / "keyrack" / "login.json"
    except RuntimeError:
        words = "There is no home folder that keeps a login: set HOME, or KEYRACK_URL and KEYRACK_TOKEN."
        raise click.ClickException(words) from None


def from_environment() -> SavedLogin | None:
    """What KEYRACK_URL and KEYRACK_TOKEN say, for programs; None where they say nothing."""
    url, token = (os.environ.get(name, "") for name in _NAMES)
    return SavedLogin(url.rstrip("/"), token) if url and token else None


def current() -> SavedLogin | None:
    """The login in force, None for none.

    Exits with words for a file that others may read, or that is none of ours, and for KEYRACK_URL alone: no
    command goes to another service than that names.
    """
    url, token = _NAMES
    if os.environ.get(url) and not os.environ.get(token):
        raise click.UsageError(f"{url} is set and {token} is not: set both, or neither.")
    return from_environment() or _kept()


def note() -> str:
    """What to tell whoever logs in or out while the environment names another login; "" where it names none."""
    named = from_environment()
    return "" if named is None else f"Commands go to {named.url} all the same, as KEYRACK_URL and KEYRACK_TOKEN say."


def _kept() -> SavedLogin | None:
    try:
        with path().open(encoding="utf-8") as file:
            held = os.fstat(file.fileno())
            if held.st_mode & 0o077 or held.st_uid != os.geteuid():
                raise click.ClickException(
                    f"{path()} can be read by others: chmod 600 it, and log in with a new token."
                )
            saved = json.load(file)
            return SavedLogin(saved["url"], saved["token"], saved.get("name", ""))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise click.ClickException(f"{path()} cannot be read as a login; remove it and log in again.") from None


def keep(login: SavedLogin) -> None:
    """Keep a login in the place of the one before; the file is old or new, and was never anybody else's to read."""
    folder = path().parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = folder / f"login.json.{os.getpid()}"
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump({"url": login.url, "token": login.token, "name": login.name}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path())


def forget() -> SavedLogin | None:
    """Remove the login that is kept, and answer it as it was. Raises OSError."""
    try:
        saved = _kept()
    except click.ClickException:
        saved = SavedLogin("", "")
    try:
        path().unlink()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return saved
