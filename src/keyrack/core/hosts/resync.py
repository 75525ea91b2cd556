"""Shows what is held back on a host since the database was set back, and takes the decision on it; must not let in what
the host refused unless somebody says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from keyrack.core import cursors, lookups
from keyrack.core.instance import Instance
from keyrack.core.keys import access, propagation
from keyrack.core.lookups import own_server
from keyrack.core.work import Attempt, Work
from keyrack.errors import invalid
from keyrack.model import Actor, Server
from keyrack.store.hosts import held_back, servers
from keyrack.store.hosts.held_back import LINE, LOST, REVOKED, HeldBack
from keyrack.store.keys import credentials
from keyrack.store.tables.hosts import ROLLED_BACK_AT

JUMP = 1_000_000
PER_PAGE = 50


@dataclass(frozen=True, slots=True)
class Difference:
    """What is held back on a server.

    held: a page of what differs; rows that somebody has decided on have decided_at; next: the cursor of the next page,
    None at the end.
    """

    server: Server
    held: tuple[HeldBack, ...]
    next: str | None = None

    @property
    def asked(self) -> bool:
        """Whether the host has still to send its last document."""
        return self.server.rolled_back_at is not None and self.server.compared_at is None

    @property
    def undecided(self) -> bool:
        """Whether somebody must decide."""
        return self.server.rolled_back_at is not None


def difference(
    instance: Instance, actor: Actor, server_id: int, *, cursor: str = "", limit: int = PER_PAGE
) -> Difference:
    """What a host refused, or had, that the database does not have; cursor: next of the page before.

    Raises Refusal MISSING for the server, INVALID for the cursor.
    """
    attempt = Attempt(
        instance, actor, "servers:read", "see what a host refused", target_kind="server", server_id=server_id
    )
    with attempt:
        after: Any = cursors.read(cursor, (int,))[0] if cursor else 0
        server = attempt.read(lambda connection: lookups.server(connection, actor, server_id))
        return attempt.read(lambda connection: _page(connection, server, after, limit))


def _page(connection: Connection, server: Server, after: int, limit: int) -> Difference:
    rows = held_back.of_server(connection, server.id, after=after, limit=limit + 1)
    next_cursor = cursors.write((rows[limit - 1].id,)) if len(rows) > limit else None
    return Difference(server, rows[:limit], next_cursor)


def waiting(instance: Instance, actor: Actor) -> tuple[Server, ...]:
    """The servers for which somebody must decide, by name."""
    attempt = Attempt(instance, actor, "servers:read", "list hosts to decide on", target_kind="server")
    with attempt:
        return attempt.read(lambda connection: servers.with_hosts_ahead(connection, actor.workspace_id))


def decide(
    instance: Instance,
    actor: Actor,
    server_id: int,
    *,
    let_in: tuple[str, ...] = (),
    accept_database: bool = False,
) -> Difference:
    """Decide on all that is held back on a server, and answer the first page of what still is.

    What the host refused stays refused, except the keys with the fingerprints in let_in. accept_database: nothing stays
    held back, and the host's last document is not waited for. Raises Refusal MISSING, or INVALID for a fingerprint that
    is not held back.
    """
    attempt = Attempt(
        instance, actor, "keys:revoke", "decide what a host refuses", target_kind="server", server_id=server_id
    )
    with attempt:

        def change(work: Work) -> Difference:
            server = own_server(work, server_id)
            held = held_back.of_server(work.connection, server.id)
            # An account that is held back has the fingerprint "", which names no key.
            held_fingerprints = {row.fingerprint for row in held if row.fingerprint and row.kind != LOST}
            for fingerprint in let_in:
                if fingerprint not in held_fingerprints:
                    raise invalid("let_in", f"The key {fingerprint} is not held back on this server.")
            freed = [row for row in held if accept_database or row.fingerprint in let_in]
            propagation.unrevoke(work, (server.id,), (row.fingerprint for row in freed if row.kind == REVOKED))
            freed_ids = {row.id for row in freed}
            _delete_kept(work, server, [row for row in held if row.id not in freed_ids])
            settled_ids = freed_ids | {row.id for row in held if row.kind == LOST}
            held_back.remove(work.connection, settled_ids)
            held_back.keep(work.connection, [row.id for row in held if row.id not in settled_ids], work.now)
            values = {ROLLED_BACK_AT: None, "compared_at": server.compared_at or work.now}
            servers.change(work.connection, server.id, values)
            if accept_database and server.compared_at is None:
                held_back.forget_pieces(work.connection, server.id)
                # The host's revision is unknown. JUMP lifts the new one above any that the lost database can have had.
                revision = servers.raise_revision_above(work.connection, server.id, server.revision + JUMP, work.now)
                work.bumped[server.id] = revision
            else:
                work.bump_revision(server.id)
            work.record(_words(server, freed, accept_database), target_id=server.id, level="warning")
            return _page(work.connection, own_server(work, server.id), 0, PER_PAGE)

        return attempt.write(change)


def _delete_kept(work: Work, server: Server, kept: list[HeldBack]) -> None:
    """Delete credentials that stay held back, so that no list shows as given what the host refuses.

    Grants stay: they may open other servers, and this one to other keys.
    """
    lines = {(row.username, row.public_key, row.options): row for row in kept if row.kind == LINE and row.until is None}
    if not lines:
        return
    withdrawn = []
    for credential, _ in credentials.credentials_with_seals(work.connection, server.id):
        limits = access.options_of(credential.restrictions, credential.key_type)
        row = lines.get((credential.username, credential.public_key, limits or ()))
        if row is not None and limits is not None and credential.created_at <= row.since:
            credentials.remove_credential(work.connection, credential.id)
            withdrawn.append((credential.fingerprint, credential.public_key))
    propagation.withdrawn(work, (server.id,), withdrawn)


def _words(server: Server, freed: list[HeldBack], accept_database: bool) -> str:
    if accept_database:
        return f"Accepted what the database says for host {server.name}, against what its host refused"
    names = sorted({row.fingerprint or row.username for row in freed})
    let_in = f"but for {', '.join(names)}" if names else "without exception"
    return f"What host {server.name} refused before the database went back stays refused, {let_in}"
