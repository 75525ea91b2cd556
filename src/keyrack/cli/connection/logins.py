"""The file in which a login is kept, for its owner alone; must never show the token."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import click


@dataclass(frozen=True, slots=True)
class SavedLogin:
    """Where somebody logged in. url: of the service, without a / at its end; name: whose token it is, if known."""

    url: str
    token: str = field(repr=False)
    name: str = ""


def path() -> Path:
    """Where logins are kept: keyrack/login.json in XDG_CONFIG_HOME or ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "keyrack" / "login.json"


def from_environment() -> SavedLogin | None:
    """What KEYRACK_URL and KEYRACK_TOKEN say, for programs; None where they say nothing."""
    url, token = os.environ.get("KEYRACK_URL", ""), os.environ.get("KEYRACK_TOKEN", "")
    return SavedLogin(url.rstrip("/"), token) if url and token else None


def current() -> SavedLogin | None:
    """The login in force, None for none. Exits with words for a file that others may read, or that is none of ours."""
    named = from_environment()
    if named is not None:
        return named
    try:
        with path().open(encoding="utf-8") as file:
            held = os.fstat(file.fileno())
            if held.st_mode & 0o077 or held.st_uid != os.geteuid():
                raise click.ClickException(
                    f"{path()} can be read by others: chmod 600 it, and log in with a new token."
                )
            saved = json.load(file)
            return SavedLogin(saved["url"], saved["token"], saved.get("name", ""))
    except FileNotFoundError:
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
    """Remove the login, and answer it as it was."""
    try:
        saved = current()
    except click.ClickException:
        saved = SavedLogin("", "")
    try:
        path().unlink()
    except FileNotFoundError:
        return None
    return saved
