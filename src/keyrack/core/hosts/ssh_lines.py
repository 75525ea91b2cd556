"""The ssh command that logs in on a server, to be pasted; must decide nothing about who may."""

from __future__ import annotations

import shlex

from keyrack.core.hosts.facts import SSH_PORT
from keyrack.model import Server
from keyrack.store.hosts.reported_facts import is_port

USUAL_PORT = 22


def port(server: Server) -> int | None:
    """Where people reach the host's sshd; None where neither its agent nor anybody else has said it."""
    said = server.facts.get(SSH_PORT)
    return said if is_port(said) else None


def line(server: Server, username: str) -> str:
    """`ssh deploy@192.0.2.10`, with the port where the host has another one than 22."""
    said = port(server)
    named = [] if said in (None, USUAL_PORT) else ["-p", str(said)]
    return shlex.join(["ssh", *named, f"{username}@{server.address or server.name}"])


def place(server: Server) -> str:
    """`192.0.2.10`, or `192.0.2.10 port 2222`, for a person."""
    said = port(server)
    return server.address if said in (None, USUAL_PORT) else f"{server.address} port {said}"
