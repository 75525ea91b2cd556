"""Who can log in where, and why: the one decision that host documents and all answers about access are made of; must
change nothing.
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

# So many revocations that a host has not acknowledged are in one document; the others follow once it has acknowledged
# these. A host takes 200,000 in all.
MAX_UNACKNOWLEDGED = 50_000


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason for one key to stand on one system user.

    credential, or grant and user_key: the rows that let the key in. entered_at: when the newest of these was entered;
    key_entered_at: when the key itself was. frozen: it opens no new session. rendered: a cache for hosts/documents.py,
    of what it makes of this very object.
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
    rendered: list[Any] = field(init=False, compare=False, repr=False, default_factory=list)

    @property
    def break_glass(self) -> bool:
        """Whether its use is an alarm."""
        opened_by = self.credential or self.grant
        return bool(opened_by and opened_by.break_glass)

    @property
    def fingerprint(self) -> str:
        """Of the key, SHA256:…; "" where its row has none."""
        key = self.credential or self.user_key
        assert key is not None
        return key.fingerprint or ""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A row that is not as Keyrack wrote it. kind: of row, in words."""

    kind: str
    id: int | str

    @property
    def words(self) -> str:
        """A sentence for people, without its full stop: the row, and that hosts go without it."""
        return f"The {self.kind} {self.id} was changed in the database, not by Keyrack. It is left out"


@dataclass(frozen=True, slots=True)
class UserKeys:
    """A user, and the fingerprints of the keys that this user registered."""

    user_id: int
    fingerprints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """Who can log in on a server.

    reasons: every way in; revoked: keys that the host refuses whatever lets them in, as type and base64; damaged: rows
    that are left out; held_back: what a database that was set back would change and is not done; frozen: ways in that
    open no new session until somebody confirms their keys.
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
    of_user: UserKeys | None = None,
    *,
    ways_alone: bool = False,
) -> Decision:
    """Who can log in on a server at a time.

    1. Nothing is said where the server's own row is not as Keyrack wrote it. 2. Nor where rows that belong to the
    server were deleted or put back. 3. Other rows whose seals do not hold are left out, and named in `damaged`. 4. Nor
    is anything said where what is held back was changed. 5. What is held back is left out. 6. Frozen reasons are listed
    apart.

    of_user: only with the keys of this user; ways_alone: `revoked` has only keys that some reason lets in. Raises
    Refusal UNAVAILABLE for 1, 2 and 4.
    """
    if not server.sound:  # 1
        raise changed(server)
    if not servers.complete(connection, server.id):  # 2
        raise Refusal(
            Kind.UNAVAILABLE,
            "seal-broken",
            f"Rows of {server.name} were deleted or put back in the database, not by Keyrack. Nothing is signed "
            "for it, and its host keeps to what it was told last.",
        )
    # 3
    entered, damaged = reasons(connection, server, now, of_user)
    known = {reason.fingerprint for reason in entered} if ways_alone else None
    revoked, damaged_revocations = _revoked(instance, connection, server, of_user, known)
    held: tuple[held_back.HeldBack, ...] = ()
    if server.compared_at is not None:
        held = tuple(held_back.of_server(connection, server.id))
        if not all(row.sound for row in held):  # 4
            raise Refusal(
                Kind.UNAVAILABLE,
                "seal-broken",
                f"What is held back on {server.name} was changed in the database, not by Keyrack. Nothing is "
                "signed for it.",
            )
        entered = tuple(_without_held_back(entered, held))  # 5
    frozen = tuple(reason for reason in entered if reason.frozen)  # 6
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
    connection: Connection, server: Server, now: datetime, of_user: UserKeys | None = None
) -> tuple[tuple[Reason, ...], tuple[Damaged, ...]]:
    """What lets keys in on a server, only those of one user where one is given; beside it the rows whose seals do not
    hold.
    """
    sound: list[Reason] = []
    damaged: list[Damaged] = []
    for row in (*_entered(connection, server, now, of_user), *_granted(connection, server, now, of_user)):
        if type(row) is Reason:
            sound.append(row)
        elif isinstance(row, Damaged):
            damaged.append(row)
    return tuple(sound), tuple(damaged)


def _entered(
    connection: Connection, server: Server, now: datetime, of_user: UserKeys | None
) -> Iterator[Reason | Damaged]:
    """The reasons that come from the server's own credentials."""
    fingerprints = of_user.fingerprints if of_user else None
    frozen_server = server.frozen_at is not None
    for checked, holds, acknowledged in credentials.checked_credentials(connection, server.id, now, fingerprints):
        credential = checked.credential
        if not holds:
            yield Damaged("credential", credential.id)
            continue
        # A document is made anew whenever one key changes. On a large host that is cheap only while all other
        # reasons stay the same objects, which keep what was made of them.
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
    """What a credential lets in, leaving freezes aside; None where its key cannot obey its restrictions."""
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


def _granted(
    connection: Connection, server: Server, now: datetime, of_user: UserKeys | None
) -> Iterator[Reason | Damaged]:
    """The reasons that come from grants."""
    for granted in access.granted_keys(
        connection, server.id, server.workspace_id, now, of_user.user_id if of_user else None
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
            continue  # a restriction for security keys, which this key is not: it must not stand there without it
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
    """Whether a key is frozen, by a mark of its own or on its server, and was neither entered nor confirmed since.

    break_glass: of what lets the key in; break-glass keys are never frozen.
    """
    if break_glass or (server.frozen_at is None and key.frozen_at is None):
        return False
    return is_marked_frozen(key, (server.frozen_at,))


def is_marked_frozen(key: Credential | UserKey, marks: Iterable[datetime | None]) -> bool:
    """Whether a key is frozen by its own mark or by one of these marks of servers."""
    at = (mark for mark in (key.frozen_at, *marks) if mark is not None)
    return any(terms.is_frozen(mark, key.confirmed_at, key.created_at) for mark in at)


def _first(end: datetime | None, other: datetime | None) -> datetime | None:
    """The earlier of two ends, None where there is none."""
    if end is None or other is None:
        return other if end is None else end
    return min(end, other)


def _without_held_back(reasons: Iterable[Reason], held: Iterable[held_back.HeldBack]) -> Iterator[Reason]:
    """The reasons, without what the host refused before the database was set back and nobody has entered again
    since.
    """
    refused = {row.public_key: row.since for row in held if row.kind == held_back.REVOKED}
    by_line = {(row.username, row.public_key, row.options): row for row in held if row.kind == held_back.LINE}
    for reason in reasons:
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
    of_user: UserKeys | None,
    known: Set[str] | None,
) -> tuple[tuple[str, ...], tuple[Damaged, ...]]:
    """The keys to be refused, and the rows left out. A row that holds no key would keep the host from obeying all
    others.

    known: only keys with these fingerprints; None for all.
    """
    sound: list[str] = []
    damaged: list[Damaged] = []
    if known is not None and not known:
        return (), ()
    if of_user is None:
        most = instance.settings.max_revoked_keys
        revoked = revocations.refused_keys(connection, server.id, unacknowledged=MAX_UNACKNOWLEDGED, acknowledged=most)
    else:
        revoked = revocations.refused_keys_among(connection, server.id, of_user.fingerprints)
    for fingerprint, public_key in revoked:
        if known is not None and fingerprint not in known:
            continue
        if of_public_key(public_key) == fingerprint:
            sound.append(public_key)
        else:
            damaged.append(Damaged("revocation of", fingerprint))
    return tuple(sound), tuple(damaged)


def options_of(restrictions: Any, key_type: str) -> tuple[str, ...] | None:
    """The options of an authorized_keys line. None: a key of this type cannot obey them, so there must be no line at
    all.
    """
    if not restrictions:
        return ()
    try:
        return tuple(options.render(options.Restrictions.from_json(restrictions), key_type))
    except ValueError:
        return None
