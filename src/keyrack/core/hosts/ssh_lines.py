"""The line by which somebody logs in somewhere, as it can be pasted; must decide nothing about who may."""

from __future__ import annotations

import shlex

from keyrack.model import Server


def line(server: Server, username: str) -> str:
    """`ssh deploy@192.0.2.10`, with the port where the host has another one than 22."""
    port = server.facts.get("ssh_port")
    named = ["-p", str(port)] if isinstance(port, int) and port != 22 else []
    return shlex.join(["ssh", *named, f"{username}@{server.address or server.name}"])
