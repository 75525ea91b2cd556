"""The last document of a host whose server was deleted, until the host says that it obeys; must let nobody in.

Every list drops a deleted server at once. Its host may be off, and still has key files. So the host's identity and
every key that it was ever given are kept, sealed, and its agent gets one more signed document: no keys, all of those
revoked, and sshd's own settings back. An agent that is not known here at all gets no such document: a restored old
database must not empty the hosts that were enrolled since.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from keyrack.core import cursors
from keyrack.core.hosts import facts, report_events
from keyrack.core.hosts.agent_attempt import REPORTING, agent_attempt
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal
from keyrack.model import OBSERVE, Actor, Page, Server
from keyrack.protocol.host_document import HostDocument, KeyRemoval
from keyrack.protocol.report import APPLIED, STATES
from keyrack.store.hosts import deleted_servers, unmanaged_keys
from keyrack.store.hosts.deleted_servers import DeletedServer
from keyrack.store.keys import access, revoked_keys

MAX_TAKEN_AWAY = 1000
MAX_REFUSED = 100_000  # beyond these nothing opens either, as the key files are empty


def keep(work: Work, server: Server, revision: int) -> bool:
    """Keep what the last document of a server's host needs; the caller deletes the server. False: it has no host."""
    secret_hash = deleted_servers.secret_of(work.connection, server.id)
    if secret_hash is None:
        return False
    remove_keys = _revoked_by_hand(work, server)
    values: dict[str, Any] = {
        "server_id": server.id,
        "workspace_id": server.workspace_id,
        "host": server.host,
        "name": server.name,
        "address": server.address,
        "agent_secret_hash": secret_hash,
        "revision": revision,
        "remove_keys": remove_keys,
        "deleted_at": work.now,
        "deleted_by": work.actor.name,
    }
    granted = access.granted_keys(work.connection, server.id, server.workspace_id, work.now)
    pairs = {(one.user_key.fingerprint or "", one.user_key.public_key or "") for one in granted}
    deleted_servers.add(work.connection, values)
    deleted_servers.keep_keys(work.connection, server.id, sorted(pairs))
    return True


def changed(deleted: DeletedServer) -> Refusal:
    """The refusal where what is kept of a deleted server is not as Keyrack wrote it."""
    return Refusal(
        Kind.UNAVAILABLE,
        "seal-broken",
        f"What is noted of the deleted host {deleted.name} was changed in the database, not by Keyrack. "
        "Its host is not told anything.",
    )


def document(instance: Instance, connection: Connection, server_id: int) -> HostDocument | None:
    """The last document of a deleted server's host, None where nothing is kept of it. Raises Refusal UNAVAILABLE where
    that is not as Keyrack wrote it.
    """
    deleted = deleted_servers.get(connection, server_id)
    if deleted is None:
        return None
    lines = deleted_servers.keys_of(connection, deleted.id)
    if not deleted.holds or lines is None:
        raise changed(deleted)
    return HostDocument(
        host=deleted.host,
        revision=deleted.revision,
        issued_at=instance.now(),
        users={},
        revoked=lines[:MAX_REFUSED],
        mode=OBSERVE,
        remove_keys=tuple(KeyRemoval(path, fingerprint) for path, fingerprint in deleted.remove_keys),
        deleted=True,
    )


def raise_above(instance: Instance, deleted: DeletedServer, revision: int) -> None:
    """Number a last document above the revision that its host obeys."""
    attempt = agent_attempt(instance, deleted.workspace_id, deleted.id, "number a last document")

    def change(work: Work) -> None:
        work.no_event("the deletion is the event")
        current = deleted_servers.get(work.connection, deleted.id)
        if current is not None and current.revision <= revision:
            deleted_servers.renumber(work.connection, current.id, revision + 1)

    with attempt:
        attempt.write(change)


def report(instance: Instance, deleted: DeletedServer, body: Mapping[str, Any]) -> None:
    """Take the report of a deleted server's agent: that it obeys its last document, or why not."""
    applied, state = body.get("revision"), body.get("state")
    if state not in STATES or not isinstance(applied, int) or isinstance(applied, bool):
        return
    problems = facts.problems(body) or []
    # A document of a lost database has a mark, which a last document has not, and may have the same number.
    is_last = applied == deleted.revision and not body.get("lineage")
    attempt = agent_attempt(instance, deleted.workspace_id, deleted.id, REPORTING)
    with attempt:

        def change(work: Work) -> None:
            work.no_event("most of its report is of no use any more")
            words = "; ".join(problems)
            if state != APPLIED:
                # The host may report so again and again, so the number of events is limited.
                refused = f"The deleted host {deleted.name} did not take its last document: {words or state}"
                report_events.record(work, deleted, refused)
            elif is_last and deleted_servers.acknowledge(work.connection, deleted.id, work.now):
                obeys = f"The deleted host {deleted.name} obeys: no key of Keyrack opens it any more"
                work.record(f"{obeys} ({words})"[: report_events.LONGEST] if words else obeys, level="warning")

        attempt.write(change)


def find(
    instance: Instance, actor: Actor, *, offset: int = 0, limit: int = 15, cursor: str | None = None
) -> Page[DeletedServer]:
    """A page of the workspace's deleted servers that had a host, the last one first.

    cursor: of the page before, "" for the first one; takes the place of offset.
    """
    with Attempt(instance, actor, "servers:read", "list deleted hosts", target_kind="server") as attempt:
        after = cursors.place(cursor, int)
        return attempt.read(
            lambda connection: deleted_servers.find(
                connection, actor.workspace_id, offset=offset, limit=limit, after=after
            )
        )


def _revoked_by_hand(work: Work, server: Server) -> list[list[str]]:
    """Revoked keys that the host must take out of its own files, which count again: pairs of path and fingerprint."""
    removals: list[list[str]] = []
    for one in unmanaged_keys.on_server(work.connection, server.id):
        if one.kind != "key" or one.state == "gone" or len(removals) >= MAX_TAKEN_AWAY:
            continue
        if revoked_keys.get(work.connection, server.workspace_id, one.fingerprint) is not None:
            removals.append([one.path, one.fingerprint])
    return sorted(removals)
