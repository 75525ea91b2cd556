"""The host document: all that one host must obey, built from rows whose seals hold and signed; must send nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from keyrack.core import accounts, alarms, deleted_servers, delivery
from keyrack.core.found_keys import REMOVING
from keyrack.core.host_facts import ADOPT, AUTO
from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal
from keyrack.model import Server
from keyrack.ssh import host_document, options
from keyrack.ssh.host_document import HostDocument, Stale, TakeAway, UserKey
from keyrack.store import found_keys, host_reports, keys, servers

_WIDENING = frozenset(("pty", "agent-forwarding", "port-forwarding", "X11-forwarding", "user-rc", "no-touch-required"))


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """What a host is handed: the exact text and the signature over it."""

    revision: int
    text: str
    signature: str


@dataclass(frozen=True, slots=True)
class _Line:
    """One reason for one key to stand on one system user."""

    username: str
    public_key: str
    options: tuple[str, ...]
    expires_at: datetime | None
    name: str


def signed(instance: Instance, server_id: int) -> SignedDocument | None:
    """The document of a server as it is now; a deleted one's last, and None when nothing is known of it.

    Everything is read in one snapshot, so that the revision and the keys belong together. Raises Refusal
    UNAVAILABLE when a row's seal is broken: whoever changed the database must not get it signed. Then the audit
    log has an alarm.
    """
    try:
        document = instance.database.read(lambda connection: _build(instance, connection, server_id))
    except Refusal as refusal:
        alarms.broken_seal(instance, server_id, refusal)
        raise
    if document is None:
        return None
    text = host_document.encode(document)
    return SignedDocument(revision=document.revision, text=text, signature=instance.key.sign(text))


def _build(instance: Instance, connection: Connection, server_id: int) -> HostDocument | None:
    server = servers.by_id(connection, server_id)
    if server is None:
        return deleted_servers.document(instance, connection, server_id)
    now = instance.now()
    users: dict[str, list[UserKey]] = {}
    for line in _widest(_lines(instance, connection, server, now)):
        key = UserKey(key=line.public_key, expires_at=line.expires_at, options=line.options, name=line.name)
        users.setdefault(line.username, []).append(key)
    return HostDocument(
        host=server.host,
        revision=server.revision,
        issued_at=now,
        users={name: tuple(lines) for name, lines in users.items()},
        revoked=keys.revoked_on(connection, server.id),
        accounts=accounts.wanted(instance, connection, server.id),
        sshd=dict(server.sshd),
        # A host that is to enforce by itself adopts until then.
        mode=ADOPT if server.mode == AUTO else server.mode,
        stale=Stale(server.stale_after_seconds, server.stale_then),
        take_away=tuple(
            TakeAway(path, fingerprint)
            for path, fingerprint in found_keys.to_take_away(connection, server.id, REMOVING)
        ),
        end_sessions=host_reports.ending_sessions(connection, server.id),
    )


def _lines(instance: Instance, connection: Connection, server: Server, now: datetime) -> Iterable[_Line]:
    for credential, seal in keys.sealed_credentials(connection, server.id, now):
        if not delivery.credential_holds(instance, credential, seal):
            raise _broken("credential", credential.id)
        limits = _options(credential.restrictions, credential.key_type)
        if limits is None:
            continue
        yield _Line(
            username=credential.username,
            public_key=credential.public_key,
            options=limits,
            expires_at=credential.expires_at,
            name=credential.label,
        )
    for granted in keys.granted_keys(connection, server.id, server.workspace_id, now):
        grant, key = granted.grant, granted.user_key
        if not delivery.grant_holds(instance, grant, granted.grant_seal):
            raise _broken("grant", grant.id)
        if not delivery.user_key_holds(instance, key, granted.user_key_seal):
            raise _broken("user key", key.id)
        assert key.public_key is not None
        assert key.key_type is not None
        limits = _options(grant.restrictions, key.key_type)
        if limits is None:
            continue  # a security key's restriction, and this key is none: never without it
        yield _Line(
            username=grant.system_user,
            public_key=key.public_key,
            options=limits,
            expires_at=grant.expires_at,
            name=key.title or "",
        )


def _widest(lines: Iterable[_Line]) -> list[_Line]:
    """The lines of each key on a system user, without those that defeat another one's end or are of no use.

    sshd takes the first line of a key whose end has not come and whose `from` fits, and none after it. So two
    lines with the same options are one, the one that ends last; a line without options that lasts as long makes a
    line with options pointless; and the others stand in the order of what they allow, the widest first, so that
    each counts until its own end and no narrow one hides a wider one.
    """
    best: dict[tuple[str, str, tuple[str, ...]], _Line] = {}
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


def _options(restrictions: Any, key_type: str) -> tuple[str, ...] | None:
    """The options of a line; None: a key of this type cannot obey them, so the line must not be there at all."""
    if not restrictions:
        return ()
    try:
        return tuple(options.render(options.Restrictions.from_json(restrictions), key_type))
    except ValueError:
        return None


def _broken(what: str, row: int) -> Refusal:
    return Refusal(
        Kind.UNAVAILABLE,
        "seal-broken",
        f"The {what} {row} was changed in the database, not by Keyrack. No document is signed until it is "
        "deleted or entered again.",
    )
