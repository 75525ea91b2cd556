"""One key on many servers by one call: add, revoke, replace; all or nothing; a repeated call must change nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from keyrack.core import quotas, validation
from keyrack.core.hosts.servers import tag as server_tag
from keyrack.core.instance import Instance
from keyrack.core.keys import damaged_rows, event_terms, propagation, revocation
from keyrack.core.lookups import NUMBER
from keyrack.core.next_steps import with_commands
from keyrack.core.work import Attempt, Recorded, Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import Actor, has_ended
from keyrack.protocol.words import count
from keyrack.ssh.names import spellings
from keyrack.ssh.public_key import PublicKey
from keyrack.store.keys import expired_keys, keys_of_many
from keyrack.store.keys.keys_of_many import ChosenServer, HeldCredential
from keyrack.store.room import LIMITS

ALL = "all"
MAX_NAMED = 20_000
SHOWN = 20
ADDED, PRESENT, REVOKED, ABSENT, REPLACED = "added", "present", "revoked", "absent", "replaced"


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of a key on one server.

    id: the credential's, None where there is and was none; state: ADDED or PRESENT, REVOKED or ABSENT, REPLACED;
    still_open: something else on this server lets in the key that was taken away.
    """

    server: str
    server_id: int
    id: int | None
    state: str
    still_open: bool = False


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The credential that each server is to have; for_a_span: its end was given as a span."""

    label: str
    username: str
    key: PublicKey
    temporary: bool
    end: datetime | None
    limits: Mapping[str, Any]
    for_a_span: bool = False
    break_glass: bool = False

    def is_met_by(self, held: HeldCredential) -> bool:
        """Whether a credential is the wanted one. Where no end or a span is wanted, it may have any end."""
        row = held.row
        keeps = self.for_a_span or (self.temporary and self.end is None)
        return (
            (row.fingerprint, held.username, row.temporary) == (self.key.fingerprint, self.username, self.temporary)
            and dict(row.restrictions) == dict(self.limits)
            and bool(row.break_glass) == self.break_glass
            and (row.expires_at == self.end or (keeps and row.expires_at is not None))
        )


def add(
    instance: Instance,
    actor: Actor,
    chosen: object,
    *,
    label: object,
    username: object,
    public_key: object,
    temporary: bool = False,
    expires_at: object = None,
    duration: object = None,
    restrictions: Mapping[str, Any] | None = None,
    break_glass: bool = False,
) -> tuple[Placed, ...]:
    """Put a public key on a system user of many servers as one change; answers what became of it on each.

    chosen: {"tag": NAME}, a list of servers by name or id, or "all"; the rest: as credentials.add takes it. A server
    that has the same key under that label already keeps it. Raises Refusal INVALID, TAKEN, LIMIT or MISSING, naming the
    servers that stand in the way; nothing is done anywhere then.
    """
    aim = "add an SSH key on many hosts"
    with Attempt(instance, actor, "credentials:write", aim, target_kind="credential") as attempt:
        key = validation.public_key(instance, actor.workspace_id, public_key)
        wanted = _Wanted(
            label=validation.text(label, field="label"),
            username=validation.account(username),
            key=key,
            temporary=temporary,
            end=validation.end(instance.now(), expires_at, duration=duration),
            limits=validation.restrictions(restrictions, key.type),
            for_a_span=validation.is_span(expires_at if duration is None else duration),
            break_glass=break_glass,
        )
        choice = _Choice.read(chosen)

        def change(work: Work) -> tuple[Placed, ...]:
            revocation.refuse(work, wanted.key)
            servers = choice.servers(work)
            accounts = keys_of_many.accounts_named(work.connection, (one.id for one in servers), wanted.username)
            _refuse(
                [one for one in servers if one.id not in accounts],
                Kind.INVALID,
                "system-user-missing",
                f"there is no system user {wanted.username}",
                "Create it there first, or choose other servers.",
                field="username",
            )
            present = _present(work, servers, wanted)
            new = [one for one in servers if one.id not in present]
            for one in new:
                # Each key raised the revision once: a server of a lower revision cannot have as many.
                if one.revision >= LIMITS["SSH key"][1]:
                    quotas.refuse_more(work, "SSH key", one.id)
            made = _put(work, new, accounts, wanted)
            return tuple(
                Placed(one.name, one.id, made.get(one.id) or present[one.id], ADDED if one.id in made else PRESENT)
                for one in servers
            )

        return attempt.write(change)


def _present(work: Work, servers: Sequence[ChosenServer], wanted: _Wanted) -> dict[int, int]:
    """The wanted credentials that are there already, server to credential. Labels of keys that ended are freed."""
    by_id = {one.id: one for one in servers}
    present: dict[int, int] = {}
    ended: list[HeldCredential] = []
    other: list[ChosenServer] = []
    changed: list[ChosenServer] = []
    for held in keys_of_many.credentials_labelled(work.connection, by_id, wanted.label):
        server = by_id[held.row.server_id]
        if not held.holds:
            unsound = damaged_rows.damaged_credential(work, server.id, wanted.label)
            if unsound is not None:
                damaged_rows.drop(work, unsound)
        elif has_ended(held.row.expires_at, work.now):
            ended.append(held)
        elif wanted.is_met_by(held):
            present[server.id] = held.row.id
        else:
            same = (held.row.fingerprint, held.username) == (wanted.key.fingerprint, wanted.username)
            (changed if same else other).append(server)
    why = f"there is another key with the label {wanted.label!r}"
    _refuse(other, Kind.TAKEN, "label-taken", why, "Choose another label, or revoke that key first.", field="label")
    why = f"this very key is there as {wanted.label!r} with another end or other restrictions"
    _refuse(changed, Kind.TAKEN, "terms-differ", why, "Revoke it there first.", field="label")
    keys_of_many.remove_held(work.connection, ended)
    for fingerprint in {held.row.fingerprint for held in ended if not held.row.temporary}:
        expired_keys.add(work.connection, work.actor.workspace_id, fingerprint, work.now)
    work.record_each(
        _recorded(held, by_id[held.row.server_id].name, f"SSH key {held.row.label} reached its end") for held in ended
    )
    return present


def _put(work: Work, servers: Sequence[ChosenServer], accounts: Mapping[int, int], wanted: _Wanted) -> dict[int, int]:
    """Insert the credentials and record that; answers server to credential."""
    if not servers:
        work.no_event("it is there already")
        return {}
    end = wanted.end
    if wanted.temporary and end is None:
        end = work.now + timedelta(hours=work.instance.settings.temporary_hours)
    shared = {
        "label": wanted.label,
        "public_key": wanted.key.canonical,
        "comment": wanted.key.comment,
        "fingerprint": wanted.key.fingerprint,
        "key_type": wanted.key.type,
        "temporary": wanted.temporary,
        "expires_at": end,
        "restrictions": dict(wanted.limits),
        "break_glass": wanted.break_glass or None,
        "created_by": work.actor.user_id,
        "created_at": work.now,
    }
    with work.raising(one.id for one in servers) as revisions:
        propagation.unrevoke(work, revisions, (wanted.key.fingerprint,))
        rows = [
            {**shared, "server_id": one.id, "system_user_id": accounts[one.id], "revision": revisions[one.id]}
            for one in servers
        ]
        made = {row.server_id: row.id for row in keys_of_many.add_credentials(work.connection, rows)}
    given = event_terms.sentence_end(expires_at=end, restrictions=wanted.limits, break_glass=wanted.break_glass)
    words = f"Added SSH key {wanted.label} ({wanted.key.fingerprint}) for {wanted.username}"
    details = {"label": wanted.label, "username": wanted.username, "fingerprint": wanted.key.fingerprint}
    details.update(event_terms.details(wanted.limits))
    work.record_each(Recorded(f"{words} on {one.name}{given}", "", made[one.id], one.id, details) for one in servers)
    work.record(f"{words} on {_count(servers)}{given}", details=details)
    return made


def revoke(
    instance: Instance, actor: Actor, chosen: object, *, fingerprint: object = None, label: object = None
) -> tuple[Placed, ...]:
    """Take a key from many servers as one change: every credential with this fingerprint, or with this label.

    chosen: as add takes it. Answers what became of it on each server, also on those that did not have it. Hosts refuse
    the key unless something else lets it in. Raises Refusal INVALID or MISSING.
    """
    aim = "revoke an SSH key on many hosts"
    with Attempt(instance, actor, "credentials:write", aim, target_kind="credential") as attempt:
        if (fingerprint is None) == (label is None):
            raise invalid("fingerprint", "Name the key either by its fingerprint or by its label.")
        key = None if fingerprint is None else validation.fingerprint(fingerprint)
        name = None if label is None else validation.text(label, field="label")
        choice = _Choice.read(chosen)

        def change(work: Work) -> tuple[Placed, ...]:
            servers = choice.servers(work)
            ids = [one.id for one in servers]
            if key is not None:
                held = keys_of_many.credentials_with_key(work.connection, ids, key)
            else:
                held = keys_of_many.credentials_labelled(work.connection, ids, name or "")
            left = _take(work, servers, held, f"key {key}" if key else f"label {name}")
            by_server: dict[int, list[HeldCredential]] = {}
            for one in held:
                by_server.setdefault(one.row.server_id, []).append(one)
            return tuple(
                Placed(
                    server.name,
                    server.id,
                    one.row.id if one else None,
                    REVOKED if one else ABSENT,
                    one is not None and (server.id, one.row.fingerprint) in left,
                )
                for server in servers
                for one in by_server.get(server.id, (None,))
            )

        return attempt.write(change)


def _take(
    work: Work, servers: Sequence[ChosenServer], held: Sequence[HeldCredential], named_by: str
) -> frozenset[tuple[int, str]]:
    """Remove credentials and record that; answers server and fingerprint where something else still lets the key in.

    named_by: how the caller named the keys, in words.
    """
    if not held:
        work.no_event("it stands on none of them")
        return frozenset()
    keys_of_many.remove_held(work.connection, held)
    gone: dict[int, dict[str, str]] = {}  # by server, then by fingerprint the public key
    for one in held:
        gone.setdefault(one.row.server_id, {})[one.row.fingerprint] = one.row.public_key
    with work.raising(gone) as revisions:
        left = propagation.refuse_each(work, revisions, gone)
    names = {one.id: one.name for one in servers}
    work.record_each(
        _recorded(one, names[one.row.server_id], f"Deleted SSH key {one.row.label} ({one.row.fingerprint})")
        for one in held
    )
    still = f"; something else lets it in on {len(left)} of them" if left else ""
    work.record(
        f"Revoked {count(len(held), 'SSH key')}, by {named_by}, on {count(len(gone), 'host')}{still}",
        details={"fingerprints": sorted({one.row.fingerprint for one in held})[:SHOWN]},
        level="warning",
    )
    return left


def replace(
    instance: Instance, actor: Actor, chosen: object, *, fingerprint: object, public_key: object
) -> tuple[Placed, ...]:
    """Put another public key in the place of one on many servers as one change; labels, ends and restrictions stay.

    chosen: as add takes it; fingerprint: of the key to replace; public_key: one OpenSSH line. Answers the servers that
    had it. Raises Refusal INVALID, naming the servers that stand in the way, or MISSING where none has it.
    """
    aim = "replace an SSH key on many hosts"
    with Attempt(instance, actor, "credentials:write", aim, target_kind="credential") as attempt:
        old = validation.fingerprint(fingerprint)
        key = validation.public_key(instance, actor.workspace_id, public_key)
        if key.fingerprint == old:
            raise invalid("public_key", "This is the key that is to be replaced; give another one.")
        choice = _Choice.read(chosen)

        def change(work: Work) -> tuple[Placed, ...]:
            revocation.refuse(work, key)
            servers = {one.id: one for one in choice.servers(work)}
            placed = keys_of_many.credentials_with_key(work.connection, servers, old)
            held = [one for one in placed if not has_ended(one.row.expires_at, work.now)]
            if not held:
                raise missing("SSH key")
            _refuse_unfit(servers, held, key)
            left = _exchange(work, held, old, key)
            words = f"Replaced SSH key {old} by {key.fingerprint}"
            work.record_each(_recorded(one, servers[one.row.server_id].name, words) for one in held)
            still = f"; something else lets the old one in on {len(left)} of them" if left else ""
            opened = {one.row.server_id for one in held}
            work.record(
                f"{words} on {count(len(opened), 'host')}{still}",
                details={"fingerprint": key.fingerprint, "replaced": old},
                level="warning",
            )
            return tuple(
                Placed(
                    servers[one.row.server_id].name,
                    one.row.server_id,
                    one.row.id,
                    REPLACED,
                    bool(left & {(one.row.server_id, old)}),
                )
                for one in held
            )

        return attempt.write(change)


def _exchange(work: Work, held: Sequence[HeldCredential], old: str, key: PublicKey) -> frozenset[tuple[int, str]]:
    """Write the new key into credentials; answers server and fingerprint where something else lets the old one in."""
    old_public_key = held[0].row.public_key
    with work.raising({one.row.server_id for one in held}) as revisions:
        propagation.unrevoke(work, revisions, (key.fingerprint,))
        keys_of_many.change_credentials(
            work.connection,
            held,
            revisions,
            {
                "public_key": key.canonical,
                "comment": key.comment,
                "fingerprint": key.fingerprint,
                "key_type": key.type,
                # Freezes, findings and held-back lines go by the age of the row, which is that of the key in it.
                "created_at": work.now,
                "created_by": work.actor.user_id,
                "acknowledged_at": None,
            },
        )
        return propagation.refuse(work, revisions, ((old, old_public_key),))


def _refuse_unfit(servers: Mapping[int, ChosenServer], held: Iterable[HeldCredential], key: PublicKey) -> None:
    """Refuse where a row is damaged, or where the new key cannot obey the restrictions of the old one."""
    obeys: dict[str, bool] = {}  # by restrictions as JSON, as thousands of rows share a few
    damaged: list[ChosenServer] = []
    unfit: list[ChosenServer] = []
    for one in held:
        server = servers[one.row.server_id]
        if not one.holds:
            damaged.append(server)
            continue
        limits = dict(one.row.restrictions)
        written = json.dumps(limits, sort_keys=True)
        if written not in obeys:
            obeys[written] = _can_obey(limits, key.type)
        if not obeys[written]:
            unfit.append(server)
    why = "it is held in a row that is not as Keyrack wrote it"
    advice = with_commands("Look at the damaged rows", "hosts damaged")
    _refuse(damaged, Kind.INVALID, "damaged", why, advice, field="fingerprint")
    why = f"it is restricted in a way that a key of type {key.type} cannot obey"
    _refuse(unfit, Kind.INVALID, "restrictions-unfit", why, "Give another key.", field="public_key")


def _can_obey(limits: Mapping[str, Any], key_type: str) -> bool:
    """Whether a key of this type can obey restrictions; verify-required, for example, is only for security keys."""
    try:
        validation.restrictions(limits, key_type)
    except Refusal:
        return False
    return True


def _recorded(held: HeldCredential, server: str, words: str) -> Recorded:
    """The event of one credential."""
    row = held.row
    details = {"label": row.label, "username": held.username, "fingerprint": row.fingerprint}
    return Recorded(f"{words} of {held.username} on {server}", "", row.id, row.server_id, details)


def _refuse(servers: Sequence[ChosenServer], kind: Kind, code: str, why: str, advice: str, *, field: str) -> None:
    """Refuse where any servers stand in the way, and name them."""
    if servers:
        words = f"Nothing was done, as {why} on {_count(servers)}: {_names(servers)}. {advice}"
        raise Refusal(kind, code, words, field=field)


def _count(servers: Sequence[ChosenServer]) -> str:
    return count(len(servers), "host")


def _names(servers: Sequence[ChosenServer]) -> str:
    names = ", ".join(one.name for one in servers[:SHOWN])
    return names + (f" and {len(servers) - SHOWN} more" if len(servers) > SHOWN else "")


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which servers are meant: those with a tag, those named, or all where neither is set."""

    tag: str | None = None
    named: tuple[str | int, ...] | None = None

    @classmethod
    def read(cls, value: object) -> _Choice:
        """Parse what a caller chose. Raises Refusal INVALID."""
        if value == ALL:
            return cls()
        if isinstance(value, Mapping) and set(value) == {"tag"}:
            return cls(tag=server_tag(value["tag"]))
        if isinstance(value, list | tuple) and 0 < len(value) <= MAX_NAMED and all(map(_is_name, value)):
            return cls(named=tuple(value))
        if isinstance(value, list | tuple) and not value:
            raise invalid("servers", 'The list names no server; name at least one, or say {"tag": NAME} or "all".')
        words = f'Say which servers: {{"tag": NAME}}, a list of 1 to {MAX_NAMED} names or ids, or "all".'
        raise invalid("servers", words)

    def servers(self, work: Work) -> tuple[ChosenServer, ...]:
        """The servers, each once, oldest first. Raises Refusal INVALID where a name fits no server or several."""
        connection, workspace = work.connection, work.actor.workspace_id
        if self.named is not None:
            return _named(connection, workspace, self.named)
        if self.tag is not None:
            chosen = keys_of_many.servers_tagged(connection, workspace, self.tag)
        else:
            chosen = keys_of_many.all_servers(connection, workspace)
        if not chosen:
            raise invalid("servers", "No server has this tag." if self.tag else "There is no server.", "server-missing")
        return chosen


def _is_name(value: object) -> bool:
    return (isinstance(value, str) and 0 < len(value) <= 255) or (type(value) is int and 0 < value < 2**31)


def _named(connection: Connection, workspace_id: int, wanted: tuple[str | int, ...]) -> tuple[ChosenServer, ...]:
    numbers = {int(one) for one in wanted if NUMBER.fullmatch(str(one))}
    by_id = {one.id: one for one in keys_of_many.servers_numbered(connection, workspace_id, sorted(numbers))}
    names = sorted({spelled for one in wanted if isinstance(one, str) for spelled in spellings(one)})
    by_name: dict[str, list[ChosenServer]] = {}
    for one in keys_of_many.servers_named(connection, workspace_id, names):
        by_name.setdefault(one.name, []).append(one)
    chosen: dict[int, ChosenServer] = {}
    unknown: list[str] = []
    for name in wanted:
        number = int(name) if NUMBER.fullmatch(str(name)) else 0
        named = next((by_name[spelled] for spelled in spellings(str(name)) if spelled in by_name), [])
        alike = [by_id[number]] if number in by_id else named
        if len(alike) > 1:
            raise invalid("servers", f"Several servers are called {name!r}; use the id.", "server-ambiguous")
        if not alike:
            unknown.append(str(name))
        chosen |= {one.id: one for one in alike}
    if unknown:
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        words = f"Nothing was done, as there is no such server: {', '.join(unknown[:SHOWN])}{more}."
        raise invalid("servers", words, "server-missing")
    return tuple(chosen[number] for number in sorted(chosen))
