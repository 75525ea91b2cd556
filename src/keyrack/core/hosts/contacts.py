"""Answers many agents that ask for their documents by one read of the database; must wait for nobody.

CurrentHosts keeps in memory which hosts are up to date and may go on waiting. Announcements of changes keep it true,
and so does a read of all these servers every POLL_SECONDS. A document, and the secret of the host that asks for it, are
read in the moment in which the document is handed over.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from keyrack.core.audit import chain
from keyrack.core.hosts import database_rollback, documents
from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal
from keyrack.store.chunks import chunks
from keyrack.store.hosts import servers
from keyrack.store.hosts.servers import RevisionState

POLL_SECONDS = 30.0
"""Seconds between two reads, by each process, of all servers that hosts wait for."""
MAX_KNOWN = 100_000
LEAST_TO_COMPRESS = 1400
"""Bytes from which on an answer is compressed for hosts that accept gzip: a smaller one is one packet in any case."""
_BATCH_SIZE = 1000


@dataclass(frozen=True, slots=True)
class Contact:
    """A host that asks for its document.

    revision, lineage: what it says it obeys; run: which run of its agent asks (copies.py), "" where it does not say.
    """

    server_id: int
    secret_hash: bytes
    revision: int
    lineage: str
    accepts_gzip: bool = False
    run: str = ""
    audit: int = -1
    """The size in records of the last checkpoint of the audit log that it has seen; -1: it takes no checkpoints."""


@dataclass(frozen=True, slots=True)
class ContactAnswer:
    """What a host is answered.

    state: of its server, None where this host must be judged by itself (database_rollback.judge_revision); body: the
    document with its signature, as JSON, empty where there is no newer one; size: bytes before compression.
    """

    state: RevisionState | None
    body: bytes = b""
    gzipped: bool = False
    size: int = 0


def answer(instance: Instance, contacts: Sequence[Contact]) -> list[ContactAnswer | Exception]:
    """An answer for each host, or the error in its place; all are read in one snapshot."""

    def question(
        connection: Connection,
    ) -> tuple[dict[int, tuple[bytes | None, RevisionState]], dict[int, documents.Built]]:
        states = servers.revision_states(connection, {contact.server_id for contact in contacts})
        behind = {contact.server_id for contact in contacts if _is_behind(states, contact)}
        return states, documents.build(instance, connection, sorted(behind))

    states, built = instance.database.read(question)
    signed: dict[int, documents.SignedDocument | Exception | None] = {}
    for server_id, document in built.items():
        try:
            signed[server_id] = documents.sign(instance, server_id, document)
        except Exception as error:  # only the host whose document it is gets the error
            signed[server_id] = error
    checkpoints = chain.for_hosts(
        instance, {contact.audit for contact in contacts if contact.audit >= 0 and contact.server_id in signed}
    )
    return [_answer(contact, states, signed, checkpoints) for contact in contacts]


def _is_usual(state: RevisionState, revision: int, lineage: str, run: str) -> bool:
    """Whether a host obeys a revision that this database knows, and nothing about it has to be noted."""
    is_settled = state.rolled_back_at is None or state.compared_at is not None
    is_alone = state.copied_at is None and run in ("", state.agent_run)
    return is_settled and is_alone and database_rollback.is_known(state, revision, lineage)


def _is_behind(states: dict[int, tuple[bytes | None, RevisionState]], contact: Contact) -> bool:
    secret_hash, state = states.get(contact.server_id, (None, None))
    return (
        state is not None
        and secret_hash == contact.secret_hash
        and _is_usual(state, contact.revision, contact.lineage, contact.run)
        and state.revision != contact.revision
    )


def _answer(
    contact: Contact,
    states: dict[int, tuple[bytes | None, RevisionState]],
    signed: dict[int, documents.SignedDocument | Exception | None],
    checkpoints: Mapping[int, dict[str, Any]],
) -> ContactAnswer | Exception:
    secret_hash, state = states.get(contact.server_id, (None, None))
    if state is None or secret_hash != contact.secret_hash:
        return ContactAnswer(None)
    if not _is_usual(state, contact.revision, contact.lineage, contact.run):
        return ContactAnswer(None)
    if state.revision == contact.revision:
        return ContactAnswer(state)
    document = signed[contact.server_id]
    if isinstance(document, Exception):
        return document
    if document is None:
        return Refusal(Kind.MISSING, "server-deleted", "This server was deleted.")
    fields: dict[str, Any] = {"document": document.text, "signature": document.signature}
    if contact.audit in checkpoints:
        fields["checkpoint"] = checkpoints[contact.audit]
    body = json.dumps(fields, separators=(",", ":")).encode()
    if contact.accepts_gzip and len(body) >= LEAST_TO_COMPRESS:
        return ContactAnswer(state, gzip.compress(body, 1, mtime=0), gzipped=True, size=len(body))
    return ContactAnswer(state, body, size=len(body))


class CurrentHosts:
    """The hosts that one process knows to be up to date; only for the thread of the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._servers: dict[bytes, int] = {}
        self._states: dict[int, tuple[bytes, RevisionState]] = {}
        self._runs: dict[bytes, tuple[int, str | None]] = {}
        self._secrets: dict[int, bytes] = {}
        self._polled_at = float("-inf")

    def note(self, contact: Contact, state: RevisionState) -> None:
        """Note that a host is up to date, as was just read."""
        if len(self._states) >= MAX_KNOWN:
            self.forget_all()
        if not self._states:
            self._polled_at = self._clock()
        self.note_run(contact, state)
        self._servers[contact.secret_hash] = contact.server_id
        self._states[contact.server_id] = contact.secret_hash, state

    def server_of(self, secret_hash: bytes, revision: int, lineage: str, run: str = "") -> int | None:
        """The server of a host that is up to date and of which no change was announced since; None: unknown."""
        server_id = self._servers.get(secret_hash)
        known = None if server_id is None else self._states.get(server_id)
        if server_id is None or known is None or known[0] != secret_hash:
            return None
        if self._clock() - self._polled_at > 2 * POLL_SECONDS:
            return None
        is_current = known[1].revision == revision and _is_usual(known[1], revision, lineage, run)
        return server_id if is_current else None

    def note_run(self, contact: Contact, state: RevisionState) -> None:
        """Note whose secret this is and which run of its agent is the last known one, as was just read."""
        if len(self._runs) >= MAX_KNOWN:
            self.forget_all()
        self._runs[contact.secret_hash] = contact.server_id, state.agent_run
        self._secrets[contact.server_id] = contact.secret_hash

    def server_of_secret(self, secret_hash: bytes, run: str = "") -> int | None:
        """The server whose secret this was when it was read last, and of which no change was announced since; None:
        unknown.

        This is no proof: whoever acts on it must check it in the database.
        """
        server_id, last_run = self._runs.get(secret_hash, (None, None))
        return server_id if run in ("", last_run) else None

    def forget(self, server_id: int) -> None:
        """Forget a server, as something about it changed."""
        secret_hash = self._secrets.pop(server_id, None)
        if secret_hash is not None:
            self._runs.pop(secret_hash, None)
        known = self._states.pop(server_id, None)
        if known is not None:
            self._servers.pop(known[0], None)

    def forget_all(self) -> None:
        """Forget everything."""
        self._states.clear()
        self._servers.clear()
        self._runs.clear()
        self._secrets.clear()

    def all(self) -> dict[int, tuple[bytes, RevisionState]]:
        """A copy of what is known of each server, to be compared with the database."""
        return dict(self._states)

    def note_poll(self) -> None:
        """Note that all known servers were just compared with the database."""
        self._polled_at = self._clock()


def changed(instance: Instance, known: dict[int, tuple[bytes, RevisionState]]) -> Collection[int]:
    """Which of these servers differ in the database from what is known; asks for _BATCH_SIZE at a time."""
    different: list[int] = []
    for batch in chunks(sorted(known), _BATCH_SIZE):
        states = instance.database.read(lambda connection, batch=batch: servers.revision_states(connection, batch))  # type: ignore[misc]
        for server_id in batch:
            secret_hash, state = states.get(server_id, (None, None))
            before = known[server_id]
            if state is None or secret_hash != before[0] or _relevant_to_host(state) != _relevant_to_host(before[1]):
                different.append(server_id)
    return different


def _relevant_to_host(state: RevisionState) -> tuple[object, ...]:
    """The parts of a state that matter to its host; the receipts do not."""
    known = (state.revision, state.lineage, state.rolled_back_at, state.compared_at)
    return *known, state.agent_run, state.copied_at
