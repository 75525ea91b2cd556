"""Notices hosts that obey newer documents than a restored database knows, and holds back what those refused; must let
in nothing that a host's last document did not, until somebody decides.

A backup that was restored and a failover that lost the last commits look the same to a host: it obeys a revision that
this database never issued, or issued with another content. The host's last document says what it obeyed. This very
instance has signed that, so the host cannot make it up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import Connection

from keyrack.core.audit import alarms
from keyrack.core.hosts import accounts
from keyrack.core.hosts import deleted_servers as last_documents
from keyrack.core.hosts.agent_attempt import agent_attempt
from keyrack.core.instance import Instance
from keyrack.core.keys import access
from keyrack.core.next_steps import with_commands
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal
from keyrack.model import AUTO, OBSERVE, Server, has_ended
from keyrack.protocol import host_document
from keyrack.protocol.host_document import DocumentError, HostDocument
from keyrack.ssh.public_key import read_canonical
from keyrack.store.hosts import deleted_servers, held_back, servers
from keyrack.store.hosts import lineage as marks
from keyrack.store.hosts.deleted_servers import DeletedServer
from keyrack.store.hosts.held_back import ACCOUNT, LINE, LOST, REVOKED
from keyrack.store.hosts.servers import RevisionState
from keyrack.store.keys import revocations
from keyrack.store.tables.hosts import REPORTED_LINEAGE, ROLLED_BACK_AT

MAX_PIECES = 512
LONGEST_PIECE = 200_000
CODE = "database-went-back"
# One alarm stands until somebody decides, about however many keys; its event names at most so many.
NAMED = 20


class HostRevision(Enum):
    """What a host that asks for its document must be answered."""

    CURRENT = "it is up to date: let it wait"
    NEWER = "there is a newer document"
    DIVERGED = "it obeys a document that this database does not know: ask for that document"
    GONE = "its server was deleted"


def judge_revision(instance: Instance, server_id: int, revision: int, lineage: str) -> HostRevision:
    """What to answer a host that says it obeys this revision with this mark, "" where it knows no mark."""

    def question(connection: Connection) -> tuple[RevisionState | DeletedServer | None, bool]:
        state = servers.revision_state(connection, server_id)
        if state is None:
            return deleted_servers.get(connection, server_id), False
        return state, has_issued(connection, server_id, state, revision, lineage)

    state, issued = instance.database.read(question)
    if state is None:
        return HostRevision.GONE
    if isinstance(state, DeletedServer):
        return _deleted(instance, state, revision, lineage)
    if not issued:
        return HostRevision.DIVERGED
    if state.rolled_back_at is not None and state.compared_at is None:
        if revision and not lineage:
            return HostRevision.DIVERGED
        _settle(instance, server_id)
    return HostRevision.CURRENT if state.revision == revision else HostRevision.NEWER


def has_issued_to(connection: Connection, server: Server, revision: int, lineage: str) -> bool:
    """As has_issued, by a server's record."""
    state = RevisionState(**{name: getattr(server, name) for name in RevisionState.__slots__})
    return has_issued(connection, server.id, state, revision, lineage)


def has_issued(connection: Connection, server_id: int, state: RevisionState, revision: int, lineage: str) -> bool:
    """Whether this database issued that revision with that mark, however long ago.

    A host that is only far behind must not look like one that knows more, or the keys that it lacks would be held back.
    """
    if is_known(state, revision, lineage):
        return True
    return revision <= state.revision and marks.is_kept_mark_of(connection, server_id, revision, lineage)


def is_known(state: RevisionState, revision: int, lineage: str) -> bool:
    """As has_issued, as far as a server's row tells: it has the marks of the last revisions, and of the one that the
    host last said it obeys. False: perhaps it was issued longer ago.
    """
    if revision > state.revision:
        return False
    if not revision or not lineage:
        return True
    if revision == state.applied_revision and lineage == state.applied_lineage:
        return True
    if lineage == state.reported_lineage:
        return True  # the lost database issued it, and it has been compared since
    return marks.is_mark_of(state.lineage, state.revision, revision, lineage)


def _deleted(instance: Instance, deleted: DeletedServer, revision: int, lineage: str) -> HostRevision:
    """What to answer the host of a deleted server, whose last document has no mark."""
    if revision == deleted.revision and not lineage:
        return HostRevision.CURRENT
    if revision >= deleted.revision:
        # A restored database numbered the last document below what the host obeys; the host would refuse it.
        last_documents.raise_above(instance, deleted, revision)
    return HostRevision.NEWER


def note_diverged(instance: Instance, server_id: int, revision: int) -> None:
    """Note that a host obeys a document that this database does not know, and raise one alarm until it is compared."""

    def change(work: Work) -> None:
        work.no_event("the alarm is the event")
        server = servers.by_id(work.connection, server_id)
        if server is None or (server.rolled_back_at is not None and server.compared_at is None):
            return
        servers.change(work.connection, server_id, {ROLLED_BACK_AT: work.now, "compared_at": None})
        said = with_commands(
            f"The database went back: host {server.name} obeys revision {revision}, and this database, "
            f"which is at {server.revision}, did not give that out. A backup was restored, or a failover lost the last "
            "changes. What the host refuses stays refused until somebody decides",
            f"hosts resync {server.id}",
        )
        alarms.record(work.connection, server, CODE, said, work.now)

    _attempt(instance, server_id).write(change)


def receive_piece(instance: Instance, server: Server | DeletedServer, body: Mapping[str, Any]) -> None:
    """Take a piece of the last document of a host that was asked for it; after the last piece the document is compared.

    body: number (from 0) and of: which piece it is of how many; text; signature: of the whole. Raises Refusal INVALID.
    """
    number, of, text, signature = (body.get(name) for name in ("number", "of", "text", "signature"))
    if (
        type(number) is not int
        or type(of) is not int
        or not 0 <= number < of <= MAX_PIECES
        or not isinstance(text, str)
        or not isinstance(signature, str)
        or len(text) > LONGEST_PIECE
        or not (text.isascii() and signature.isascii())
    ):
        raise Refusal(Kind.INVALID, "piece-malformed", "A piece takes number, of, text and signature.")
    if isinstance(server, DeletedServer) or server.rolled_back_at is None or server.compared_at is not None:
        raise Refusal(Kind.INVALID, "not-asked", "Nobody asked for this document.")

    def keep(work: Work) -> None:
        work.no_event("a piece alone says nothing yet")
        held_back.add_piece(work.connection, server.id, number, text)

    _attempt(instance, server.id).write(keep)
    if number < of - 1:
        return
    pieces = instance.database.read(lambda connection: held_back.pieces(connection, server.id))
    document = _verified(instance, server, "".join(pieces), signature) if len(pieces) == of else None
    if document is None:
        raise Refusal(Kind.INVALID, "document-not-ours", "This is not a document that Keyrack signed for this host.")
    _compare(instance, server, document)


def _verified(instance: Instance, server: Server, text: str, signature: str) -> HostDocument | None:
    """The document, None unless this instance signed it for this very host."""
    if not instance.key.signed(text, signature):
        return None
    try:
        document = host_document.decode(text)
    except DocumentError:
        return None
    return document if document.host == server.host else None


def _compare(instance: Instance, server: Server, document: HostDocument) -> None:
    """Hold back what the database would let in and the document did not, and raise the revision above the host's."""

    def change(work: Work) -> None:
        current = servers.by_id(work.connection, server.id)
        held_back.forget_pieces(work.connection, server.id)
        if current is None or current.rolled_back_at is None or current.compared_at is not None:
            work.no_event("it was compared already, or the server is gone")
            return
        state = servers.revision_state(work.connection, server.id)
        assert state is not None
        if document.lineage and has_issued(work.connection, server.id, state, document.revision, document.lineage):
            servers.change(work.connection, server.id, {ROLLED_BACK_AT: None})
            work.no_event("the database knows what its host obeys: nothing was lost for it")
            return
        revision = servers.raise_revision_above(work.connection, server.id, document.revision, work.now)
        work.bumped[server.id] = revision
        rows = [
            {"since": current.rolled_back_at, "revision": revision, "decided_at": None, **row}
            for row in _differences(work, current, document)
        ]
        held_back.replace_all(work.connection, server.id, rows)
        for row in rows:
            if row["kind"] == REVOKED:
                revocations.add(work.connection, server.id, row["fingerprint"], row["public_key"], work.now, revision)
        _take_over(work, current, document, undecided=bool(rows))
        _record(work, current, document, rows)

    _attempt(instance, server.id, server.workspace_id).write(change)


def _differences(work: Work, server: Server, document: HostDocument) -> list[dict[str, Any]]:
    """What the database, set back, would change on the host, as rows of held_back without their common columns."""
    assert server.rolled_back_at is not None
    of_host = {
        (username, entry.public_key, tuple(entry.options)): entry
        for username, entries in document.users.items()
        for entry in entries
        if not has_ended(entry.expires_at, work.now)
    }
    rows = []
    lines_here = set()
    refused = set(document.revoked)
    for reason in access.reasons(work.connection, server, work.now)[0]:
        lines_here.add((reason.username, reason.public_key, reason.options))
        if reason.key_entered_at > server.rolled_back_at:
            refused.discard(reason.public_key)
        if reason.entered_at <= server.rolled_back_at:
            row = _row_to_hold(reason, of_host)
            if row is not None:
                rows.append(row)
    for (username, key, options), entry in of_host.items():
        if (username, key, options) not in lines_here:
            rows.append(_row(LOST, username, key, options, entry.expires_at, entry.name))
    revoked = set(_revoked_here(work, server))
    rows += [_row(REVOKED, "", key, (), None, "") for key in sorted(refused - revoked)]
    wanted, _ = accounts.wanted(work.instance, work.connection, server.id)
    rows += [
        _row(ACCOUNT, name, "", (), None, "")
        for name, account in sorted(wanted.items())
        if document.accounts.get(name) != account
    ]
    return rows


def _row_to_hold(reason: access.Reason, of_host: Mapping[Any, host_document.AuthorizedKey]) -> dict[str, Any] | None:
    """The row that holds a reason back, None where the host's document lets it in for as long."""
    free = of_host.get((reason.username, reason.public_key, ()))
    if free is not None and "no-touch-required" not in reason.options and _lasts(free.expires_at, reason.expires_at):
        return None
    same = of_host.get((reason.username, reason.public_key, reason.options))
    if same is not None and _lasts(same.expires_at, reason.expires_at):
        return None
    until = None if same is None else same.expires_at
    return _row(LINE, reason.username, reason.public_key, reason.options, until, reason.name)


def _row(
    kind: str, username: str, key: str, options: Iterable[str], until: datetime | None, name: str
) -> dict[str, Any]:
    return {
        "kind": kind,
        "username": username,
        "public_key": key,
        "fingerprint": read_canonical(key).fingerprint if key else "",
        "options": list(options),
        "until": until,
        "name": name,
    }


def _lasts(end: datetime | None, other: datetime | None) -> bool:
    """Whether an end is not before another one; documents have no fractions of a second."""
    return end is None or (other is not None and end >= other.replace(microsecond=0))


def _revoked_here(work: Work, server: Server) -> tuple[str, ...]:
    return revocations.keys_on(work.connection, server.id)


def _take_over(work: Work, server: Server, document: HostDocument, *, undecided: bool) -> None:
    """Take mode, sshd settings and offline policy from the document: people asked for these later than for what the
    database says.

    A document says OBSERVE for a server in mode AUTO; then AUTO stays.
    """
    values: dict[str, Any] = {"compared_at": work.now, REPORTED_LINEAGE: document.lineage}
    if not undecided:
        values[ROLLED_BACK_AT] = None
    servers.change(
        work.connection,
        server.id,
        values
        | {
            "mode": AUTO if server.mode == AUTO and document.mode == OBSERVE else document.mode,
            "sshd": dict(document.sshd),
            "offline_after_seconds": document.offline_policy.after_seconds,
            "offline_then": document.offline_policy.then,
        },
    )


def _record(work: Work, server: Server, document: HostDocument, rows: list[dict[str, Any]]) -> None:
    counts = {kind: sum(row["kind"] == kind for row in rows) for kind in (LINE, REVOKED, LOST, ACCOUNT)}
    said = ", ".join(
        f"{count} {words}"
        for count, words in (
            (counts[LINE], "lines of keys are held back"),
            (counts[REVOKED], "keys stay revoked"),
            (counts[LOST], "lines that it had are lost"),
            (counts[ACCOUNT], "accounts are left as they are"),
        )
        if count
    )
    work.record(
        f"Compared host {server.name} with revision {document.revision}, which its host obeyed: "
        f"{said or 'nothing differs'}",
        target_id=server.id,
        server_id=server.id,
        workspace_id=server.workspace_id,
        level="warning",
        details={
            kind: sorted({row["fingerprint"] or row["username"] for row in rows if row["kind"] == kind})[:NAMED]
            for kind, count in counts.items()
            if count
        },
    )


def _settle(instance: Instance, server_id: int) -> None:
    """Note that nothing was lost for a host: the restored database knows what it obeys, or it obeys nothing."""

    def change(work: Work) -> None:
        work.no_event("nothing was lost for this host")
        state = servers.revision_state(work.connection, server_id)
        if state is not None and state.compared_at is None:
            servers.change(work.connection, server_id, {ROLLED_BACK_AT: None})

    _attempt(instance, server_id).write(change)


def _attempt(instance: Instance, server_id: int, workspace_id: int = 0) -> Attempt:
    # With the server's workspace where rows are compared: nobody else changes them meanwhile.
    return agent_attempt(instance, workspace_id, server_id, "tell what a host obeyed")
