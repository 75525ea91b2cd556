"""The host document: all that one host must obey, built from rows whose seals hold and signed; must send nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Connection

from keyrack.core.audit import alarms
from keyrack.core.hosts import accounts, deleted_servers
from keyrack.core.hosts.facts import AUTO, OBSERVE
from keyrack.core.hosts.unmanaged_keys import REMOVING
from keyrack.core.instance import Instance
from keyrack.core.sealing import named
from keyrack.errors import Kind, Refusal
from keyrack.model import Server
from keyrack.protocol import host_document
from keyrack.protocol.host_document import AuthorizedKey, DesiredAccount, HostDocument, KeyRemoval, OfflinePolicy
from keyrack.ssh import options
from keyrack.ssh.fingerprint import of_line
from keyrack.store import held_back, host_reports, keys, revocations, servers, unmanaged_keys
from keyrack.store.per_server import batch

log = structlog.get_logger("keyrack")

MOST_ALARMS = 20
# Told at once to a host that has not confirmed them; what is more is told once it has. A host takes 200,000 in all.
MOST_UNCONFIRMED = 50_000
_WIDENING = frozenset(("pty", "agent-forwarding", "port-forwarding", "X11-forwarding", "user-rc", "no-touch-required"))


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """What a host is handed: the exact text and the signature over it."""

    revision: int
    text: str
    signature: str


@dataclass(frozen=True, slots=True)
class DocumentLine:
    """One reason for one key to stand on one system user.

    entered_at: when somebody last decided something that makes it; key_entered_at: when the key itself was entered.
    """

    username: str
    public_key: str
    options: tuple[str, ...]
    expires_at: datetime | None
    name: str
    entered_at: datetime
    key_entered_at: datetime


@dataclass(frozen=True, slots=True)
class Damaged:
    """A row that is not as Keyrack wrote it. kind: what it is, in words."""

    kind: str
    id: int | str

    @property
    def words(self) -> str:
        """What it means for hosts."""
        return f"The {self.kind} {self.id} was changed in the database, not by Keyrack. It is left out"


Built = tuple[HostDocument | None, tuple[Damaged, ...]] | Refusal
"""A document, or why there is none, and the rows that are left out of it."""


def signed(instance: Instance, server_id: int) -> SignedDocument | None:
    """The document of a server as it is now; a deleted one's last, and None when nothing is known of it.

    Everything is read in one snapshot, so that the revision and the keys belong together. A row whose seal is
    broken is left out, and an alarm is raised: whoever changed the database must not get it signed, and must not
    keep revocations from a host either.
    """
    built = instance.database.read(lambda connection: build(instance, connection, (server_id,)))[server_id]
    return sign(instance, server_id, built)


def build(instance: Instance, connection: Connection, server_ids: Collection[int]) -> dict[int, Built]:
    """The documents of servers as they are now, by few questions for all of them, still to be signed."""
    now = instance.now()
    documents: dict[int, Built] = {}
    with batch(connection, server_ids):
        for server_id in server_ids:
            try:
                documents[server_id] = _build(instance, connection, server_id, now)
            except Refusal as refusal:
                documents[server_id] = refusal
    return documents


def sign(instance: Instance, server_id: int, built: Built) -> SignedDocument | None:
    """A document that was built, signed; outside of any transaction. Raises the Refusal where it is one."""
    if isinstance(built, Refusal):
        log.error("not signed", server=server_id, reason=built.message)
        raise built
    document, damaged = built
    if document is None:
        return None
    for row in list(dict.fromkeys(damaged))[:MOST_ALARMS]:
        alarms.raise_once(instance, server_id, "seal-broken", f"{row.words}, until it is removed or entered again.")
    text = host_document.encode(document)
    return SignedDocument(revision=document.revision, text=text, signature=instance.key.sign(text))


def changed(server: Server) -> Refusal:
    """The refusal where a server's row is not as Keyrack wrote it."""
    return Refusal(
        Kind.UNAVAILABLE,
        "seal-broken",
        f"The row of server {server.name} was changed in the database, not by Keyrack. Nothing is signed for it, "
        "and its host keeps to what it was told last.",
    )


def _build(
    instance: Instance, connection: Connection, server_id: int, now: datetime
) -> tuple[HostDocument | None, tuple[Damaged, ...]]:
    """A server's document, and the rows that are left out of it."""
    server = servers.by_id(connection, server_id)
    if server is None:
        return deleted_servers.document(instance, connection, server_id), ()
    if not server.sound:
        raise changed(server)
    if not servers.complete(connection, server.id):
        raise Refusal(
            Kind.UNAVAILABLE,
            "seal-broken",
            f"Rows of server {server.name} were deleted or put back in the database, not by Keyrack. Nothing is signed "
            "for it, and its host keeps to what it was told last.",
        )
    users: dict[str, list[AuthorizedKey]] = {}
    wanted, damaged_accounts = accounts.wanted(instance, connection, server.id)
    entered, damaged_lines = lines(connection, server, now)
    revoked, damaged_revocations = _revoked(instance, connection, server)
    damaged = (
        *(Damaged("password of system user", user.id) for user in damaged_accounts),
        *damaged_lines,
        *damaged_revocations,
    )
    if server.compared_at is not None:
        held = held_back.of_server(connection, server.id)
        if not all(row.sound for row in held):
            raise Refusal(
                Kind.UNAVAILABLE,
                "seal-broken",
                f"What is held back on server {server.name} was changed in the database, not by Keyrack. Nothing is "
                "signed for it.",
            )
        entered = tuple(_without_held_back(entered, held))
        wanted = _accounts_without(connection, server, wanted, held)
    for line in widest(entered):
        key = AuthorizedKey(key=line.public_key, expires_at=line.expires_at, options=line.options, name=line.name)
        users.setdefault(line.username, []).append(key)
    document = HostDocument(
        host=server.host,
        revision=server.revision,
        issued_at=now,
        users={name: tuple(lines) for name, lines in users.items()},
        revoked=revoked,
        accounts=wanted,
        sshd=dict(server.sshd),
        # A host that is to enforce by itself observes until then.
        mode=OBSERVE if server.mode == AUTO else server.mode,
        offline_policy=OfflinePolicy(server.offline_after_seconds, server.offline_then),
        remove_keys=tuple(
            KeyRemoval(path, fingerprint)
            for path, fingerprint in unmanaged_keys.to_remove(connection, server.id, REMOVING)
        ),
        end_sessions=host_reports.ending_sessions(connection, server.id),
        lineage=server.lineage[: servers.MARK_CHARACTERS],
    )
    return document, damaged


def _revoked(instance: Instance, connection: Connection, server: Server) -> tuple[tuple[str, ...], tuple[Damaged, ...]]:
    """The keys to be refused, and the rows left out: what is no key would keep the host from obeying all the rest."""
    sound: list[str] = []
    damaged: list[Damaged] = []
    most = instance.settings.max_revoked_keys
    for fingerprint, line in revocations.lines_for(connection, server.id, unconfirmed=MOST_UNCONFIRMED, confirmed=most):
        if of_line(line) == fingerprint:
            sound.append(line)
        else:
            damaged.append(Damaged("revocation of", fingerprint))
    return tuple(sound), tuple(damaged)


def lines(
    connection: Connection, server: Server, now: datetime
) -> tuple[tuple[DocumentLine, ...], tuple[Damaged, ...]]:
    """All that lets a key in on a server, from rows whose seals hold, and the others."""
    rows = (*_entered(connection, server, now), *_granted(connection, server, now))
    return (
        tuple(row for row in rows if isinstance(row, DocumentLine)),
        tuple(row for row in rows if isinstance(row, Damaged)),
    )


def _entered(connection: Connection, server: Server, now: datetime) -> Iterator[DocumentLine | Damaged]:
    """What the server's own credentials let in."""
    for credential, holds in keys.sealed_credentials(connection, server.id, now):
        if not holds:
            yield Damaged("credential", credential.id)
            continue
        limits = options_of(credential.restrictions, credential.key_type)
        if limits is None:
            continue
        yield DocumentLine(
            username=credential.username,
            public_key=credential.public_key,
            options=limits,
            expires_at=credential.expires_at,
            name=credential.label,
            entered_at=credential.created_at,
            key_entered_at=credential.created_at,
        )


def _granted(connection: Connection, server: Server, now: datetime) -> Iterator[DocumentLine | Damaged]:
    """What grants let in."""
    for granted in keys.granted_keys(connection, server.id, server.workspace_id, now):
        grant, key = granted.grant, granted.user_key
        if granted.broken is not None:
            table, number = granted.broken
            yield Damaged(named(table), number)
            continue
        assert key.public_key is not None
        assert key.key_type is not None
        limits = options_of(grant.restrictions, key.key_type)
        if limits is None:
            continue  # a security key's restriction, and this key is none: never without it
        yield DocumentLine(
            username=grant.system_user,
            public_key=key.public_key,
            options=limits,
            expires_at=grant.expires_at,
            name=key.title or "",
            entered_at=max(grant.created_at, key.created_at),
            key_entered_at=key.created_at,
        )


def _without_held_back(found: Iterable[DocumentLine], held: Iterable[held_back.HeldBack]) -> Iterator[DocumentLine]:
    """The lines without what the host refused before the database went back and nobody entered again since."""
    refused = {row.public_key: row.since for row in held if row.kind == held_back.REVOKED}
    by_line = {(row.username, row.public_key, row.options): row for row in held if row.kind == held_back.LINE}
    for line in found:
        since = refused.get(line.public_key)
        if since is not None and line.key_entered_at <= since:
            continue
        row = by_line.get((line.username, line.public_key, line.options))
        if row is None or line.entered_at > row.since:
            yield line
        elif row.until is not None:
            ends = row.until if line.expires_at is None else min(row.until, line.expires_at)
            yield replace(line, expires_at=ends)


def _accounts_without(
    connection: Connection, server: Server, wanted: Mapping[str, DesiredAccount], held: Iterable[held_back.HeldBack]
) -> dict[str, DesiredAccount]:
    """What is asked for accounts, without those for which the host was asked something else and nobody since."""
    kept = dict(wanted)
    for row in held:
        if row.kind == held_back.ACCOUNT and row.username in kept:
            user = servers.system_user_by_name(connection, server.id, row.username)
            if user is None or (user.revision or 0) <= row.revision:
                del kept[row.username]
    return kept


def widest(lines: Iterable[DocumentLine]) -> list[DocumentLine]:
    """The lines of each key on a system user, without those that defeat another one's end or are of no use.

    sshd takes the first line of a key whose end has not come and whose `from` fits, and none after it. So two
    lines with the same options are one, the one that ends last; a line without options that lasts as long makes a
    line with options pointless; and the others stand in the order of what they allow, the widest first, so that
    each counts until its own end and no narrow one hides a wider one.
    """
    best: dict[tuple[str, str, tuple[str, ...]], DocumentLine] = {}
    for line in lines:
        place = (line.username, line.public_key, line.options)
        known = best.get(place)
        if known is None or _later(line.expires_at, known.expires_at):
            best[place] = line
    kept = []
    for (username, public_key, limits), line in best.items():
        free = best.get((username, public_key, ()))
        if free is None or not limits or "no-touch-required" in limits or _later(line.expires_at, free.expires_at):
            kept.append(line)
    return sorted(kept, key=lambda line: (line.username, line.public_key, _narrowness(line.options)))


def _narrowness(limits: tuple[str, ...]) -> tuple[bool, int, bool, tuple[str, ...]]:
    """How little a line allows once sshd has taken it; `from` last, as where it does not fit the next line counts."""
    count = 0
    for limit in limits:
        name = limit.partition("=")[0]
        if name in _WIDENING:
            count -= 1
        elif name == "restrict":
            count += 10
        elif name not in ("from", "command"):
            count += 1
    names = {limit.partition("=")[0] for limit in limits}
    return "command" in names, count, "from" not in names and bool(limits), limits


def _later(end: datetime | None, other: datetime | None) -> bool:
    return other is not None and (end is None or end > other)


def options_of(restrictions: Any, key_type: str) -> tuple[str, ...] | None:
    """The options of a line; None: a key of this type cannot obey them, so the line must not be there at all."""
    if not restrictions:
        return ()
    try:
        return tuple(options.render(options.Restrictions.from_json(restrictions), key_type))
    except ValueError:
        return None
