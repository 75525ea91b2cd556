"""Who runs a command here, in words for the audit log; must believe nothing that the caller merely writes."""

from __future__ import annotations

import os
import pwd
import socket

from keyrack.core.people import actors
from keyrack.model import Actor

LONGEST = 100


def operator(channel: str = "cli") -> Actor:
    """The actor that the calling account is: `root (alice via sudo)`, `deploy`, `uid 1234`.

    Whoever may open the data may do everything, so this names and does not limit. root could write any name into
    SUDO_UID; the kernel's login uid, which only survives a login, is believed first.
    """
    return actors.operator(_name(), socket.gethostname()[:LONGEST], channel=channel)


def _name() -> str:
    account = _account(os.geteuid())
    through = _login_uid()
    before = _account(through) if through is not None else ""
    by_sudo = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and by_sudo.isascii() and by_sudo.isdigit() and len(by_sudo) < 10:
        sudo = _account(int(by_sudo))
        if before in ("", sudo, account):
            return account if sudo == account else f"{account} ({sudo} via sudo)"
    return account if before in ("", account) else f"{account} ({before} logged in)"


def _account(number: int) -> str:
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:LONGEST]


def _login_uid() -> int | None:
    """The uid with which the session was opened, as the kernel keeps it; None where nobody logged in."""
    try:
        with open("/proc/self/loginuid", encoding="ascii") as file:
            number = int(file.read())
    except (OSError, ValueError):
        return None
    return number if number != 2**32 - 1 else None
