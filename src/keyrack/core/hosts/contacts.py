"""How hosts stand that ask for their documents, and the documents, for many at a time; must wait for nobody.

Whether a host may go on waiting is known in memory (Known), kept true by announcements and by one look for all of them
now and then. What a host is handed is read in the moment in which it is handed over, its secret too.
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
from keyrack.core.hosts import documents, went_back
from keyrack.core.hosts.went_back import HostRevision
from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal
from keyrack.store.chunks import chunks
from keyrack.store.hosts import servers
from keyrack.store.hosts.servers import RevisionState

LOOK_AGAIN = 30.0
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
    """How a host stands. standing: of its server, None where it is to be asked about one by one (went_back.contact);
    body: the document with its signature, in JSON, where there is a newer one; size: its bytes before they were packed.
    """

    standing: RevisionState | None
    body: bytes = b""
    packed: bool = False
    size: int = 0


def answer(instance: Instance, contacts: Sequence[Contact]) -> list[ContactAnswer | Exception]:
    """An answer for each host, or why there is none; all are read in one snapshot."""

    def question(
        connection: Connection,
    ) -> tuple[dict[int, tuple[bytes | None, RevisionState]], dict[int, documents.Built]]:
        standings = servers.revision_states(connection, {contact.server_id for contact in contacts})
        behind = {contact.server_id for contact in contacts if _is_behind(standings, contact)}
        return standings, documents.build(instance, connection, sorted(behind))

    standings, built = instance.database.read(question)
    signed: dict[int, documents.SignedDocument | Exception | None] = {}
    for server_id, document in built.items():
        try:
            signed[server_id] = documents.sign(instance, server_id, document)
        except Exception as error:  # raised for the one whose document it is; the others get theirs
            signed[server_id] = error
    checkpoints = chain.for_hosts(
        instance, {contact.audit for contact in contacts if contact.audit >= 0 and contact.server_id in signed}
    )
    return [_answer(contact, standings, signed, checkpoints) for contact in contacts]


def _is_plain(standing: RevisionState, revision: int, lineage: str, run: str) -> bool:
    """Whether a host obeys what this database knows, and nothing is to be noted about that."""
    is_settled = standing.went_back_at is None or standing.compared_at is not None
    is_alone = standing.copied_at is None and run in ("", standing.agent_run)
    return is_settled and is_alone and went_back.is_known(standing, revision, lineage)


def _is_behind(standings: dict[int, tuple[bytes | None, RevisionState]], contact: Contact) -> bool:
    secret_hash, standing = standings.get(contact.server_id, (None, None))
    return (
        standing is not None
        and secret_hash == contact.secret_hash
        and _is_plain(standing, contact.revision, contact.lineage, contact.run)
        and standing.revision != contact.revision
    )


def _answer(
    contact: Contact,
    standings: dict[int, tuple[bytes | None, RevisionState]],
    signed: dict[int, documents.SignedDocument | Exception | None],
    checkpoints: Mapping[int, dict[str, Any]],
) -> ContactAnswer | Exception:
    secret_hash, standing = standings.get(contact.server_id, (None, None))
    if standing is None or secret_hash != contact.secret_hash:
        return ContactAnswer(None)
    if not _is_plain(standing, contact.revision, contact.lineage, contact.run):
        return ContactAnswer(None)
    if standing.revision == contact.revision:
        return ContactAnswer(standing)
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
        return ContactAnswer(standing, gzip.compress(body, 1, mtime=0), packed=True, size=len(body))
    return ContactAnswer(standing, body, size=len(body))


class Known:
    """Hosts of which one process knows that they obey what they must; of the event loop, but for `look`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._servers: dict[bytes, int] = {}
        self._standings: dict[int, tuple[bytes, RevisionState]] = {}
        self._runs: dict[bytes, tuple[int, str | None]] = {}
        self._secrets: dict[int, bytes] = {}
        self._looked_at = float("-inf")

    def note(self, contact: Contact, standing: RevisionState) -> None:
        """A host obeys what it must, as was just read."""
        if len(self._standings) >= MOST_KNOWN:
            self.forget_all()
        if not self._standings:
            self._looked_at = self._clock()
        self.note_run(contact, standing)
        self._servers[contact.secret_hash] = contact.server_id
        self._standings[contact.server_id] = contact.secret_hash, standing

    def server_of(self, secret_hash: bytes, revision: int, lineage: str, run: str = "") -> int | None:
        """The server of a host that obeys what it must, and of which nothing else was heard since; None: not known."""
        server_id = self._servers.get(secret_hash)
        known = None if server_id is None else self._standings.get(server_id)
        if server_id is None or known is None or known[0] != secret_hash:
            return None
        if self._clock() - self._looked_at > 2 * LOOK_AGAIN:
            return None
        is_current = known[1].revision == revision and _is_plain(known[1], revision, lineage, run)
        return server_id if is_current else None

    def note_run(self, contact: Contact, standing: RevisionState) -> None:
        """A host's secret is its server's, as was just read, and its run the one that is known."""
        if len(self._runs) >= MOST_KNOWN:
            self.forget_all()
        self._runs[contact.secret_hash] = contact.server_id, standing.agent_run
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
        known = self._standings.pop(server_id, None)
        if known is not None:
            self._servers.pop(known[0], None)

    def forget_all(self) -> None:
        """Nothing is known any more."""
        self._standings.clear()
        self._servers.clear()
        self._runs.clear()
        self._secrets.clear()

    def all(self) -> dict[int, tuple[bytes, RevisionState]]:
        """What is known of each server now, to be looked at again."""
        return dict(self._standings)

    def note_look(self) -> None:
        """All that is known was looked at."""
        self._looked_at = self._clock()


def changed(instance: Instance, known: dict[int, tuple[bytes, RevisionState]]) -> Collection[int]:
    """The servers among these that are not as they are known; a thousand a question."""
    different: list[int] = []
    for some in chunks(sorted(known), _AT_ONCE):
        standings = instance.database.read(lambda connection, some=some: servers.revision_states(connection, some))  # type: ignore[misc]
        for server_id in some:
            secret_hash, standing = standings.get(server_id, (None, None))
            before = known[server_id]
            if standing is None or secret_hash != before[0] or _obeyed(standing) != _obeyed(before[1]):
                different.append(server_id)
    return different


def _obeyed(standing: RevisionState) -> tuple[object, ...]:
    """What of a standing tells a host anything; its own receipts do not."""
    known = (standing.revision, standing.lineage, standing.went_back_at, standing.compared_at)
    return *known, standing.agent_run, standing.copied_at


__all__ = ["Contact", "ContactAnswer", "HostRevision", "Known", "answer", "changed"]
