"""Answers many agents that ask for their documents by one read of the database; must wait for nobody.

Which hosts are up to date, and may go on waiting, is kept in memory (CurrentHosts), made true by announcements and by
one look at all of them now and then. What a host is handed is read in the moment in which it is handed over, its secret
too.
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
"""Seconds between two looks of a process at all servers that hosts wait for."""
MOST_KNOWN = 100_000
LEAST_TO_PACK = 1400
"""From this size on, in bytes, an answer is packed where the host takes that: below, it is one packet anyhow."""
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Contact:
    """A host that asks. revision, lineage: what it says it obeys; packs: whether it takes an answer in gzip; run: which
    run of its agent asks (copies.py), empty where it does not say.
    """

    server_id: int
    secret_hash: bytes
    revision: int
    lineage: str
    packs: bool = False
    run: str = ""
    audit: int = -1
    """The records of the audit log that it saw a checkpoint of; -1: it takes none."""


@dataclass(frozen=True, slots=True)
class ContactAnswer:
    """What a host is answered. state: of its server, None where that must be looked at for this host alone
    (database_rollback.judge_revision); body: the document with its signature, in JSON, where there is a newer one;
    size: its bytes before they were packed.
    """

    state: RevisionState | None
    body: bytes = b""
    packed: bool = False
    size: int = 0


def answer(instance: Instance, contacts: Sequence[Contact]) -> list[ContactAnswer | Exception]:
    """An answer for each host, or why there is none; all are read in one snapshot."""

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
        except Exception as error:  # raised for the one whose document it is; the others get theirs
            signed[server_id] = error
    checkpoints = chain.for_hosts(
        instance, {contact.audit for contact in contacts if contact.audit >= 0 and contact.server_id in signed}
    )
    return [_answer(contact, states, signed, checkpoints) for contact in contacts]


def _is_usual(state: RevisionState, revision: int, lineage: str, run: str) -> bool:
    """Whether a host obeys what this database knows, and nothing is to be noted about that."""
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
    if contact.packs and len(body) >= LEAST_TO_PACK:
        return ContactAnswer(state, gzip.compress(body, 1, mtime=0), packed=True, size=len(body))
    return ContactAnswer(state, body, size=len(body))


class CurrentHosts:
    """Hosts of which one process knows that they are up to date; of the event loop alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._servers: dict[bytes, int] = {}
        self._states: dict[int, tuple[bytes, RevisionState]] = {}
        self._runs: dict[bytes, tuple[int, str | None]] = {}
        self._secrets: dict[int, bytes] = {}
        self._polled_at = float("-inf")

    def note(self, contact: Contact, state: RevisionState) -> None:
        """A host obeys what it must, as was just read."""
        if len(self._states) >= MOST_KNOWN:
            self.forget_all()
        if not self._states:
            self._polled_at = self._clock()
        self.note_run(contact, state)
        self._servers[contact.secret_hash] = contact.server_id
        self._states[contact.server_id] = contact.secret_hash, state

    def server_of(self, secret_hash: bytes, revision: int, lineage: str, run: str = "") -> int | None:
        """The server of a host that obeys what it must, and of which nothing else was heard since; None: not known."""
        server_id = self._servers.get(secret_hash)
        known = None if server_id is None else self._states.get(server_id)
        if server_id is None or known is None or known[0] != secret_hash:
            return None
        if self._clock() - self._polled_at > 2 * POLL_SECONDS:
            return None
        is_current = known[1].revision == revision and _is_usual(known[1], revision, lineage, run)
        return server_id if is_current else None

    def note_run(self, contact: Contact, state: RevisionState) -> None:
        """A host's secret is its server's, as was just read, and its run the one that is known."""
        if len(self._runs) >= MOST_KNOWN:
            self.forget_all()
        self._runs[contact.secret_hash] = contact.server_id, state.agent_run
        self._secrets[contact.server_id] = contact.secret_hash

    def server_of_secret(self, secret_hash: bytes, run: str = "") -> int | None:
        """Whose secret this was a moment ago, and nothing else was heard since; None: not known.

        It is no proof: whoever acts on it looks in the database whether it is so still.
        """
        server_id, last_run = self._runs.get(secret_hash, (None, None))
        return server_id if run in ("", last_run) else None

    def forget(self, server_id: int) -> None:
        """Something about a server changed."""
        secret_hash = self._secrets.pop(server_id, None)
        if secret_hash is not None:
            self._runs.pop(secret_hash, None)
        known = self._states.pop(server_id, None)
        if known is not None:
            self._servers.pop(known[0], None)

    def forget_all(self) -> None:
        """Nothing is known any more."""
        self._states.clear()
        self._servers.clear()
        self._runs.clear()
        self._secrets.clear()

    def all(self) -> dict[int, tuple[bytes, RevisionState]]:
        """What is known of each server now, to be looked at again."""
        return dict(self._states)

    def note_poll(self) -> None:
        """All that is known was looked at."""
        self._polled_at = self._clock()


def changed(instance: Instance, known: dict[int, tuple[bytes, RevisionState]]) -> Collection[int]:
    """The servers among these that are not as they are known; a thousand a question."""
    different: list[int] = []
    for batch in chunks(sorted(known), _AT_ONCE):
        states = instance.database.read(lambda connection, batch=batch: servers.revision_states(connection, batch))  # type: ignore[misc]
        for server_id in batch:
            secret_hash, state = states.get(server_id, (None, None))
            before = known[server_id]
            if state is None or secret_hash != before[0] or _obeyed(state) != _obeyed(before[1]):
                different.append(server_id)
    return different


def _obeyed(state: RevisionState) -> tuple[object, ...]:
    """What of a state tells a host anything; its own receipts do not."""
    known = (state.revision, state.lineage, state.rolled_back_at, state.compared_at)
    return *known, state.agent_run, state.copied_at
