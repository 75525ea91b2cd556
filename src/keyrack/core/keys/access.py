"""Who can log in where, and why: the one decision that host documents, answers to people and programs are made of;
must change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from keyrack.core.altered_rows import named
from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal
from keyrack.model import Credential, Grant, Server, UserKey
from keyrack.ssh import options
from keyrack.ssh.fingerprint import of_public_key
from keyrack.store.hosts import held_back, servers
from keyrack.store.keys import access, credentials, revocations, terms

# Told at once to a host that has not acknowledged them; what is more is told once it has. A host takes 200,000 in all.
MOST_UNACKNOWLEDGED = 50_000


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason for one key to stand on one system user.

    entered_at: when somebody last decided something that makes it; key_entered_at: when the key itself was entered.
    credential, or grant and user_key: what makes it. made: what a document makes of this very reason, kept with it.
    """

    username: str
    public_key: str
    options: tuple[str, ...]
    expires_at: datetime | None
    name: str
    entered_at: datetime
    key_entered_at: datetime
    credential: Credential | None = None
    grant: Grant | None = None
    user_key: UserKey | None = None
    frozen: bool = False
    made: list[Any] = field(init=False, compare=False, repr=False, default_factory=list)

    @property
    def break_glass(self) -> bool:
        """Whether its use is an alarm."""
        of = self.credential or self.grant
        return bool(of and of.break_glass)

    @property
    def fingerprint(self) -> str:
        """The key's."""
        of = self.credential or self.user_key
        assert of is not None
        return of.fingerprint or ""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A row that is not as Keyrack wrote it. kind: what it is, in words."""

    kind: str
    id: int | str

    @property
    def words(self) -> str:
        """What it means for hosts."""
        return f"The {self.kind} {self.id} was changed in the database, not by Keyrack. It is left out"


@dataclass(frozen=True, slots=True)
class Whose:
    """One user, and the fingerprints of the keys that the user registered."""

    user_id: int
    fingerprints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """Who can log in on a server. reasons: every way in; revoked: what the host refuses whatever else lets it in, by
    type and base64; damaged: rows left out; held_back: what a database that went back would do, and does not; frozen:
    ways in that open no new session until somebody confirms their keys.
    """

    reasons: tuple[Reason, ...]
    revoked: tuple[str, ...]
    damaged: tuple[Damaged, ...]
    held_back: tuple[held_back.HeldBack, ...] = ()
    frozen: tuple[Reason, ...] = ()


def decide(
    instance: Instance,
    connection: Connection,
    server: Server,
    now: datetime,
    whose: Whose | None = None,
    *,
    ways_alone: bool = False,
) -> Decision:
    """Who can log in on a server now, from rows whose seals hold; whose: with the keys of one user alone; ways_alone:
    what is refused is told of keys alone that something lets in.

    Raises Refusal UNAVAILABLE where the server's own rows are not as Keyrack wrote them.
    """
    if not server.sound:
        raise changed(server)
    if not servers.complete(connection, server.id):
        raise Refusal(
            Kind.UNAVAILABLE,
            "seal-broken",
            f"Rows of {server.name} were deleted or put back in the database, not by Keyrack. Nothing is signed "
            "for it, and its host keeps to what it was told last.",
        )
    entered, damaged = reasons(connection, server, now, whose)
    known = {reason.fingerprint for reason in entered} if ways_alone else None
    revoked, damaged_revocations = _revoked(instance, connection, server, whose, known)
    held: tuple[held_back.HeldBack, ...] = ()
    if server.compared_at is not None:
        held = tuple(held_back.of_server(connection, server.id))
        if not all(row.sound for row in held):
            raise Refusal(
                Kind.UNAVAILABLE,
                "seal-broken",
                f"What is held back on {server.name} was changed in the database, not by Keyrack. Nothing is "
                "signed for it.",
            )
        entered = tuple(_without_held_back(entered, held))
    frozen = tuple(reason for reason in entered if reason.frozen)
    if frozen:
        entered = tuple(reason for reason in entered if not reason.frozen)
    return Decision(entered, revoked, (*damaged, *damaged_revocations), held, frozen)


def changed(server: Server) -> Refusal:
    """The refusal where a server's row is not as Keyrack wrote it."""
    return Refusal(
        Kind.UNAVAILABLE,
        "seal-broken",
        f"The row of {server.name} was changed in the database, not by Keyrack. Nothing is signed for it, "
        "and its host keeps to what it was told last.",
    )


def reasons(
    connection: Connection, server: Server, now: datetime, whose: Whose | None = None
) -> tuple[tuple[Reason, ...], tuple[Damaged, ...]]:
    """All that lets a key in on a server, or the keys of one user, from rows whose seals hold, and the others."""
    sound: list[Reason] = []
    damaged: list[Damaged] = []
    for row in (*_entered(connection, server, now, whose), *_granted(connection, server, now, whose)):
        if type(row) is Reason:
            sound.append(row)
        elif isinstance(row, Damaged):
            damaged.append(row)
    return tuple(sound), tuple(damaged)


def _entered(connection: Connection, server: Server, now: datetime, whose: Whose | None) -> Iterator[Reason | Damaged]:
    """What the server's own credentials let in."""
    fingerprints = whose.fingerprints if whose else None
    frozen_server = server.frozen_at is not None
    for checked, holds, acknowledged in credentials.checked_credentials(connection, server.id, now, fingerprints):
        credential = checked.credential
        if not holds:
            yield Damaged("credential", credential.id)
            continue
        # A large host's document is made anew for each of its keys that changes: all other reasons are the same ones.
        reason: Reason | None = checked.made if acknowledged else None
        if reason is None:
            reason = _reason_of(credential if acknowledged else replace(credential, acknowledged=False))
            if reason is None:
                continue
            if acknowledged:
                checked.made = reason
        if (frozen_server or credential.frozen_at is not None) and is_frozen(
            server, credential, break_glass=bool(credential.break_glass)
        ):
            reason = replace(reason, frozen=True)
        yield reason


def _reason_of(credential: Credential) -> Reason | None:
    """What a credential lets in while nothing is frozen; None where its key cannot obey its restrictions."""
    limits = options_of(credential.restrictions, credential.key_type)
    if limits is None:
        return None
    return Reason(
        username=credential.username,
        public_key=credential.public_key,
        options=limits,
        expires_at=credential.expires_at,
        name=credential.label,
        entered_at=credential.created_at,
        key_entered_at=credential.created_at,
        credential=credential,
    )


def _granted(connection: Connection, server: Server, now: datetime, whose: Whose | None) -> Iterator[Reason | Damaged]:
    """What grants let in."""
    for granted in access.granted_keys(
        connection, server.id, server.workspace_id, now, whose.user_id if whose else None
    ):
        grant, key = granted.grant, granted.user_key
        if granted.altered is not None:
            table, number = granted.altered
            yield Damaged(named(table), number)
            continue
        assert key.public_key is not None
        assert key.key_type is not None
        limits = options_of(grant.restrictions, key.key_type)
        if limits is None:
            continue  # a security key's restriction, and this key is none: never without it
        yield Reason(
            username=grant.system_user,
            public_key=key.public_key,
            options=limits,
            expires_at=_first(grant.expires_at, key.expires_at),
            name=key.title or "",
            entered_at=max(grant.created_at, key.created_at),
            key_entered_at=key.created_at,
            grant=grant,
            user_key=key,
            frozen=is_frozen(server, key, break_glass=bool(grant.break_glass)),
        )


def is_frozen(server: Server, key: Credential | UserKey, *, break_glass: bool) -> bool:
    """Whether a key was frozen, by itself or on its server, and neither entered nor confirmed since.

    break_glass: of what lets it in, which no freeze is for.
    """
    if break_glass or (server.frozen_at is None and key.frozen_at is None):
        return False
    marks = (at for at in (server.frozen_at, key.frozen_at) if at is not None)
    return any(terms.is_frozen(at, key.confirmed_at, key.created_at) for at in marks)


def _first(end: datetime | None, other: datetime | None) -> datetime | None:
    """The earlier of two ends, where there is one."""
    if end is None or other is None:
        return other if end is None else end
    return min(end, other)


def _without_held_back(found: Iterable[Reason], held: Iterable[held_back.HeldBack]) -> Iterator[Reason]:
    """The reasons without what the host refused before the database went back and nobody entered again since."""
    refused = {row.public_key: row.since for row in held if row.kind == held_back.REVOKED}
    by_line = {(row.username, row.public_key, row.options): row for row in held if row.kind == held_back.LINE}
    for reason in found:
        since = refused.get(reason.public_key)
        if since is not None and reason.key_entered_at <= since:
            continue
        row = by_line.get((reason.username, reason.public_key, reason.options))
        if row is None or reason.entered_at > row.since:
            yield reason
        elif row.until is not None:
            ends = row.until if reason.expires_at is None else min(row.until, reason.expires_at)
            yield replace(reason, expires_at=ends)


def _revoked(
    instance: Instance,
    connection: Connection,
    server: Server,
    whose: Whose | None,
    known: Set[str] | None,
) -> tuple[tuple[str, ...], tuple[Damaged, ...]]:
    """The keys to be refused, and the rows left out: what is no key would keep the host from obeying all the rest.

    known: of keys with these fingerprints alone.
    """
    sound: list[str] = []
    damaged: list[Damaged] = []
    if known is not None and not known:
        return (), ()
    if whose is None:
        most = instance.settings.max_revoked_keys
        revoked = revocations.refused_keys(connection, server.id, unacknowledged=MOST_UNACKNOWLEDGED, acknowledged=most)
    else:
        revoked = revocations.refused_keys_among(connection, server.id, whose.fingerprints)
    for fingerprint, public_key in revoked:
        if known is not None and fingerprint not in known:
            continue
        if of_public_key(public_key) == fingerprint:
            sound.append(public_key)
        else:
            damaged.append(Damaged("revocation of", fingerprint))
    return tuple(sound), tuple(damaged)


def options_of(restrictions: Any, key_type: str) -> tuple[str, ...] | None:
    """The options of a line; None: a key of this type cannot obey them, so the line must not be there at all."""
    if not restrictions:
        return ()
    try:
        return tuple(options.render(options.Restrictions.from_json(restrictions), key_type))
    except ValueError:
        return None
