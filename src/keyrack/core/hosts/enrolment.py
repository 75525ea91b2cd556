"""Enrols hosts by one-time tokens and authenticates their agents; must never take one host for another."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from keyrack.core.hosts import copies, deleted_servers
from keyrack.core.hosts import facts as host_facts
from keyrack.core.instance import Instance
from keyrack.core.keys import access
from keyrack.core.people import throttle
from keyrack.core.people.actors import system_actor
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal
from keyrack.model import MODES, Server
from keyrack.protocol.report import read_word
from keyrack.ssh.printable import all_printable
from keyrack.store.hosts import deleted_servers as gone_servers
from keyrack.store.hosts import enrolments, servers
from keyrack.store.hosts.deleted_servers import DeletedServer
from keyrack.store.sealing import receipts
from keyrack.store.tables.hosts import REPORTED_LINEAGE, ROLLED_BACK_AT

NO_ENROLMENT = "enrolment-refused"


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a host gets for its one-time token; secret is shown this once."""

    server: Server
    secret: str
    signing_key: str


def enrol(instance: Instance, token: object, facts: Mapping[str, Any], *, address: str) -> Enrolled:
    """Enrol a host as the server that a one-time token is for. facts: what its agent says; address: where it came from.

    Raises Refusal FORBIDDEN, or THROTTLED after too many wrong tokens.
    """
    if not isinstance(token, str) or not token:
        raise _no_enrolment()
    return instance.throttle.prove(
        throttle.ENROLMENT,
        address,
        instance.key.hash_token(token),
        lambda: _enrol(instance, token, all_printable(facts), address),
        is_guess=lambda error: isinstance(error, Refusal) and error.code == NO_ENROLMENT,
    )


def _enrol(instance: Instance, token: str, facts: Mapping[str, Any], address: str) -> Enrolled:
    secret_hash = instance.key.hash_token(token)
    # Checked by a read first, so that guesses do not hold up writers.
    if not instance.database.read(lambda connection: enrolments.is_valid(connection, secret_hash, instance.now())):
        raise _no_enrolment()
    secret = secrets.token_urlsafe(32)
    actor = system_actor(channel="agent")
    attempt = Attempt(instance, actor, "servers:write", "enrol a host", target_kind="server")
    with attempt:

        def change(work: Work) -> Server:
            server_id = enrolments.use(work.connection, secret_hash, work.now)
            before = None if server_id is None else servers.by_id(work.connection, server_id)
            if server_id is None or before is None or not before.sound:
                raise _no_enrolment()
            servers.change(
                work.connection,
                server_id,
                {
                    "agent_secret_hash": instance.key.hash_token(secret),
                    **receipts.NOTHING_APPLIED,
                    REPORTED_LINEAGE: "",
                    ROLLED_BACK_AT: None,
                    "enrolled_at": work.now,
                    "seen_at": work.now,
                    "agent_version": host_facts.short_text(facts, "agent_version"),
                    "os": host_facts.short_text(facts, "os"),
                    "os_version": host_facts.short_text(facts, "os_version"),
                    # Another agent, perhaps on another machine, enforced before.
                    **copies.without_run({name: fact for name, fact in before.facts.items() if name != "enforcement"}),
                    **_mode_reported(facts),
                },
            )
            work.bump_revision(server_id)
            secret_before = facts.get("leaves")
            if isinstance(secret_before, str) and secret_before:
                copies.note_enrolled_elsewhere(work, instance.key.hash_token(secret_before))
            server = servers.by_id(work.connection, server_id)
            assert server is not None
            work.record(
                f"Host {server.name} enrolled from {address}",
                target_id=server.id,
                server_id=server.id,
                workspace_id=server.workspace_id,
                level="warning",
            )
            return server

        server = attempt.write(change)
    return Enrolled(server=server, secret=secret, signing_key=instance.key.public_line)


def authenticate_together(
    instance: Instance, proofs: Sequence[tuple[str, str]]
) -> list[Server | DeletedServer | Exception]:
    """Which server each agent belongs to, by pairs of its secret and the address that it came from.

    For a wrong secret the Refusal UNAUTHENTICATED or THROTTLED (core/people/throttle.py) stands in its place.
    """
    hashes = [instance.key.hash_token(secret) for secret, _ in proofs]

    def question(connection: Connection) -> dict[bytes, Server | DeletedServer]:
        by_hash: dict[bytes, Server | DeletedServer] = {**servers.by_agent_secrets(connection, set(hashes))}
        for secret_hash in set(hashes).difference(by_hash):
            if (deleted := gone_servers.by_agent_secret(connection, secret_hash)) is not None:
                by_hash[secret_hash] = deleted
        return by_hash

    proved = instance.database.read(question)
    results: list[Server | DeletedServer | Exception] = []
    for secret_hash, (_, address) in zip(hashes, proofs, strict=True):
        try:
            results.append(_proved(instance, secret_hash, proved.get(secret_hash), address))
        except Exception as error:  # only the agent that it is about gets the error
            results.append(error)
    return results


def _proved(
    instance: Instance, secret_hash: bytes, server: Server | DeletedServer | None, address: str
) -> Server | DeletedServer:
    """The server that a secret belongs to, None for a wrong one; counts wrong ones. Raises Refusal as named above."""

    def attempt() -> Server | DeletedServer:
        if server is None:
            raise Refusal(
                Kind.UNAUTHENTICATED,
                "agent-unknown",
                "This agent is not enrolled here, or its server was deleted. Enrol it again.",
            )
        if isinstance(server, Server) and not server.sound:
            # Somebody may have written this secret into the row.
            raise access.changed(server)
        if isinstance(server, DeletedServer) and not server.holds:
            raise deleted_servers.changed(server)
        return server

    return instance.throttle.prove(throttle.AGENT, address, secret_hash, attempt)


def _mode_reported(facts: Mapping[str, Any]) -> dict[str, str]:
    """The mode that the administrator chose when enrolling the host, as a column; empty where none was."""
    mode = read_word(facts.get("mode"))
    return {"mode": mode} if mode in MODES else {}


def _no_enrolment() -> Refusal:
    return Refusal(
        Kind.FORBIDDEN,
        NO_ENROLMENT,
        "This enrolment token is wrong, used up or older than a day. Ask for a new installation script.",
    )
