"""Builds and signs host documents from rows whose seals hold; must send none, and decide nothing about who is let in,
as core/keys/access.py does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from sqlalchemy import Connection

from keyrack.core.altered_rows import row_name
from keyrack.core.audit import alarms
from keyrack.core.hosts import accounts, deleted_servers
from keyrack.core.hosts.unmanaged_keys import REMOVING
from keyrack.core.instance import Instance
from keyrack.core.keys import access
from keyrack.core.keys.access import Damaged, Reason
from keyrack.errors import Refusal
from keyrack.logs import logger
from keyrack.model import AUTO, OBSERVE, Server
from keyrack.protocol import host_document
from keyrack.protocol.host_document import AuthorizedKey, DesiredAccount, HostDocument, KeyRemoval, OfflinePolicy
from keyrack.store.hosts import held_back, host_reports, lineage, servers, system_users, unmanaged_keys
from keyrack.store.per_server import batch

log = logger("keyrack")

MAX_ALARMS = 20
_WIDENING = frozenset(("pty", "agent-forwarding", "port-forwarding", "X11-forwarding", "user-rc", "no-touch-required"))


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """What a host gets: the exact text, and the signature over it."""

    revision: int
    text: str
    signature: str


class BuiltDocument(NamedTuple):
    """A document, None where there is no such server; damaged: rows left out of it; texts: its key lines by account."""

    document: HostDocument | None
    damaged: tuple[Damaged, ...] = ()
    texts: Mapping[str, Sequence[str]] | None = None


Built = BuiltDocument | Refusal
"""A document, or why there is none."""


class _Entry(NamedTuple):
    """What a document makes of a reason, kept with the reason."""

    key: AuthorizedKey
    text: str


def signed(instance: Instance, server_id: int) -> SignedDocument | None:
    """The document of a server as it is now; the last one of a deleted server; None where neither is known.

    1. Everything is read in one snapshot, so that revision and keys belong together. 2. Rows whose seals do not hold
    are left out, each with an alarm: whoever changes the database must neither get that signed nor keep revocations
    from a host.
    """
    built = instance.database.read(lambda connection: build(instance, connection, (server_id,)))[server_id]  # 1
    return sign(instance, server_id, built)


def build(instance: Instance, connection: Connection, server_ids: Collection[int]) -> dict[int, Built]:
    """The documents of servers as they are now, still unsigned, by few questions for all of them."""
    now = instance.now()
    documents: dict[int, Built] = {}
    current = servers.by_ids(connection, server_ids)
    with batch(connection, server_ids):
        for server_id in server_ids:
            try:
                server = current.get(server_id)
                if server is None:
                    documents[server_id] = BuiltDocument(deleted_servers.document(instance, connection, server_id))
                else:
                    documents[server_id] = _build(instance, connection, server, now)
            except Refusal as refusal:
                documents[server_id] = refusal
    return documents


def sign(instance: Instance, server_id: int, built: Built) -> SignedDocument | None:
    """Sign a built document, outside of any transaction. Raises the Refusal where it is one."""
    if isinstance(built, Refusal):
        log.error("not signed", server=server_id, reason=built.message)
        raise built
    document = built.document
    if document is None:
        return None
    for row in list(dict.fromkeys(built.damaged))[:MAX_ALARMS]:  # 2 of signed()
        name = row_name(row.kind, row.id)
        details = {"row": name, "found": "changed"} if name else {}
        words = f"{row.words}, until it is removed or entered again."
        alarms.raise_once(instance, server_id, "seal-broken", words, details)
    text = host_document.encode(document, built.texts)
    return SignedDocument(revision=document.revision, text=text, signature=instance.key.sign(text))


def _build(instance: Instance, connection: Connection, server: Server, now: datetime) -> BuiltDocument:
    """A server's document, and the rows that are left out of it."""
    decision = access.decide(instance, connection, server, now)
    wanted, damaged_accounts = accounts.wanted(instance, connection, server.id)
    damaged = (*(Damaged("password of system user", user.id) for user in damaged_accounts), *decision.damaged)
    if decision.held_back:
        wanted = _accounts_without(connection, server, wanted, decision.held_back)
    users, texts = _by_account(decision.reasons)
    frozen, _ = _by_account(decision.frozen)
    break_glass: dict[str, dict[str, None]] = {}
    for reason in decision.reasons:
        if reason.break_glass:
            break_glass.setdefault(reason.username, {})[reason.public_key] = None
    document = HostDocument(
        host=server.host,
        revision=server.revision,
        issued_at=now,
        users=users,
        revoked=decision.revoked,
        accounts=wanted,
        sshd=dict(server.sshd),
        # In mode AUTO a host observes until the service sets it to enforce.
        mode=OBSERVE if server.mode == AUTO else server.mode,
        offline_policy=OfflinePolicy(server.offline_after_seconds, server.offline_then),
        remove_keys=tuple(
            KeyRemoval(path, fingerprint)
            for path, fingerprint in unmanaged_keys.to_remove(connection, server.id, REMOVING)
        ),
        end_sessions=host_reports.ending_sessions(connection, server.id),
        break_glass={name: tuple(keys) for name, keys in break_glass.items()},
        frozen=frozen,
        lineage=server.lineage[: lineage.MARK_CHARACTERS],
    )
    return BuiltDocument(document, damaged, texts)


def _accounts_without(
    connection: Connection, server: Server, wanted: Mapping[str, DesiredAccount], held: Iterable[held_back.HeldBack]
) -> dict[str, DesiredAccount]:
    """The wanted accounts without those held back, for which a lost database asked otherwise and nobody has since."""
    accounts_left = dict(wanted)
    for row in held:
        if row.kind == held_back.ACCOUNT and row.username in accounts_left:
            user = system_users.by_name(connection, server.id, row.username)
            if user is None or (user.revision or 0) <= row.revision:
                del accounts_left[row.username]
    return accounts_left


def _by_account(reasons: Iterable[Reason]) -> tuple[dict[str, list[AuthorizedKey]], dict[str, list[str]]]:
    """The keys of some reasons by account, in the order of their lines, and the text of each."""
    keys: dict[str, list[AuthorizedKey]] = {}
    texts: dict[str, list[str]] = {}
    for username, of_account in groupby(widest(reasons), attrgetter("username")):
        entries = [_entry(reason) for reason in of_account]
        keys[username] = [entry.key for entry in entries]
        texts[username] = [entry.text for entry in entries]
    return keys, texts


def _entry(reason: Reason) -> _Entry:
    rendered: list[_Entry] = reason.rendered
    if not rendered:
        key = AuthorizedKey(reason.public_key, reason.expires_at, reason.options, reason.name)
        rendered.append(_Entry(key, host_document.key_text(key)))
    return rendered[0]


def widest(reasons: Iterable[Reason]) -> list[Reason]:
    """The reasons that become lines of key files, in the order of the lines: by account and key, from wide to narrow.

    sshd takes the first line of a key that has not ended and whose `from` fits, and none after it. So 1. of lines with
    the same options only the one that ends last stays; 2. a line with options is dropped where one without options
    lasts as long; 3. the others stand from wide to narrow, so that each counts until its own end and no narrow line
    hides a wider one.
    """
    best: dict[tuple[str, str, tuple[str, ...]], Reason] = {}
    for reason in reasons:
        place = (reason.username, reason.public_key, reason.options)
        known = best.get(place)
        if known is None or _later(reason.expires_at, known.expires_at):
            best[place] = reason  # 1
    lines = []
    for (username, public_key, limits), reason in best.items():
        free = best.get((username, public_key, ())) if limits else None
        if free is None or "no-touch-required" in limits or _later(reason.expires_at, free.expires_at):
            lines.append(reason)  # 2
    # 3. Two sorts, the second by one text, take a quarter of the time of one by a tuple. No account name has a NUL.
    lines.sort(key=lambda reason: _narrowness(reason.options) if reason.options else _WIDEST)
    lines.sort(key=lambda reason: f"{reason.username}\0{reason.public_key}")
    return lines


_WIDEST: tuple[bool, int, bool, tuple[str, ...]] = (False, 0, False, ())


def _narrowness(limits: tuple[str, ...]) -> tuple[bool, int, bool, tuple[str, ...]]:
    """How little a line allows once sshd has taken it. `from` last: where it does not fit, the next line counts."""
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
