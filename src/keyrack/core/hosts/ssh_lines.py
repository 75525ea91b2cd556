"""The ssh command that logs in on a server, for people to paste; must decide nothing about who may."""

from __future__ import annotations

import shlex

from keyrack.core.hosts.facts import SSH_PORT
from keyrack.model import Server
from keyrack.store.hosts.reported_facts import is_port

USUAL_PORT = 22


def port(server: Server) -> int | None:
    """The port of the host's sshd; None where neither its agent nor anybody else has said it."""
    reported = server.facts.get(SSH_PORT)
    return reported if is_port(reported) else None


def line(server: Server, username: str) -> str:
    """`ssh deploy@192.0.2.10`, with -p where the port is not 22."""
    reported = port(server)
    option = [] if reported in (None, USUAL_PORT) else ["-p", str(reported)]
    return shlex.join(["ssh", *option, f"{username}@{server.address or server.name}"])


def place(server: Server) -> str:
    """`192.0.2.10`, or `192.0.2.10 port 2222`, for people."""
    reported = port(server)
    return server.address if reported in (None, USUAL_PORT) else f"{server.address} port {reported}"
