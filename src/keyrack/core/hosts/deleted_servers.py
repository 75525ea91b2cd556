"""The last document of a host whose server was deleted, until the host says that it obeys; must let nobody in.

A server is gone from every list at once. Its host may be off, and it holds key files. So who it is and every key that
it was ever given are kept, sealed, and its agent is handed one more signed document: no keys, all of those refused, and
sshd's own settings back. An agent that is not known here at all is told nothing of the kind: whoever restored an old
database must not empty every host that was enrolled since.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from keyrack.core import cursors
from keyrack.core.hosts import facts, news
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

MOST_TAKEN_AWAY = 1000
MOST_REFUSED = 100_000  # its key files are empty in any case


def keep(work: Work, server: Server, revision: int) -> bool:
    """Note what a server's host must still be told; the caller deletes the server. False: it has no host."""
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


def changed(gone: DeletedServer) -> Refusal:
    """The refusal to tell the host of a deleted server anything, as what is noted of it is not as Keyrack wrote it."""
    return Refusal(
        Kind.UNAVAILABLE,
        "seal-broken",
        f"What is noted of the deleted host {gone.name} was changed in the database, not by Keyrack. "
        "Its host is not told anything.",
    )


def document(instance: Instance, connection: Connection, server_id: int) -> HostDocument | None:
    """The last document of a deleted server's host, None when nothing is known of it. Raises Refusal UNAVAILABLE when
    it is not as Keyrack wrote it.
    """
    gone = deleted_servers.get(connection, server_id)
    if gone is None:
        return None
    lines = deleted_servers.keys_of(connection, gone.id)
    if not gone.holds or lines is None:
        raise changed(gone)
    return HostDocument(
        host=gone.host,
        revision=gone.revision,
        issued_at=instance.now(),
        users={},
        revoked=lines[:MOST_REFUSED],
        mode=OBSERVE,
        remove_keys=tuple(KeyRemoval(path, fingerprint) for path, fingerprint in gone.remove_keys),
        deleted=True,
    )


def raise_above(instance: Instance, gone: DeletedServer, revision: int) -> None:
    """Number the last document of a deleted server's host above what that host obeys."""
    attempt = agent_attempt(instance, gone.workspace_id, gone.id, "number a last document")

    def change(work: Work) -> None:
        work.no_event("the deletion is the event")
        now = deleted_servers.get(work.connection, gone.id)
        if now is not None and now.revision <= revision:
            deleted_servers.renumber(work.connection, now.id, revision + 1)

    with attempt:
        attempt.write(change)


def report(instance: Instance, gone: DeletedServer, body: Mapping[str, Any]) -> None:
    """Take what the agent of a deleted server tells: that it obeys its last document, or why not."""
    applied, state = body.get("revision"), body.get("state")
    if state not in STATES or not isinstance(applied, int) or isinstance(applied, bool):
        return
    problems = facts.problems(body) or []
    # What a lost database gave out has a mark, which the last document has not, and may have a higher number.
    is_last = applied == gone.revision and not body.get("lineage")
    attempt = agent_attempt(instance, gone.workspace_id, gone.id, REPORTING)
    with attempt:

        def change(work: Work) -> None:
            work.no_event("most of what it tells is of no use to anybody any more")
            words = "; ".join(problems)
            if state != APPLIED:
                # It can say so again and again, and whoever is root there say anything.
                news.tell(work, gone, f"The deleted host {gone.name} did not take its last document: {words or state}")
            elif is_last and deleted_servers.acknowledge(work.connection, gone.id, work.now):
                what = "no key of Keyrack opens it any more"
                work.record(
                    (f"The deleted host {gone.name} obeys: {what}" + (f" ({words})" if words else ""))[: news.LONGEST],
                    level="warning",
                )

        attempt.write(change)


def find(
    instance: Instance, actor: Actor, *, offset: int = 0, limit: int = 15, cursor: str | None = None
) -> Page[DeletedServer]:
    """A page of the workspace's deleted servers that had a host, the last one first; cursor: instead of offset, of the
    page before, "" for the first one.
    """
    with Attempt(instance, actor, "servers:read", "list deleted hosts", target_kind="server") as attempt:
        after = cursors.place(cursor, int)
        return attempt.read(
            lambda connection: deleted_servers.find(
                connection, actor.workspace_id, offset=offset, limit=limit, after=after
            )
        )


def _revoked_by_hand(work: Work, server: Server) -> list[list[str]]:
    """What the host must take out of its own files, as these count again: keys that were revoked everywhere."""
    removals: list[list[str]] = []
    for one in unmanaged_keys.on_server(work.connection, server.id):
        if one.kind != "key" or one.state == "gone" or len(removals) >= MOST_TAKEN_AWAY:
            continue
        if revoked_keys.get(work.connection, server.workspace_id, one.fingerprint) is not None:
            removals.append([one.path, one.fingerprint])
    return sorted(removals)
