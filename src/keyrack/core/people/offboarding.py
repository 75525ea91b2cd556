"""Removes a person everywhere in one transaction, and shows which hosts obey; must leave nothing that opens for them.

The user is disabled. SSH keys, grants, memberships of groups and repositories, credentials with one of the keys, tokens
and access keys end. Hosts and Git endpoints end sessions and transfers. What undo can bring back is kept in the
offboarding's own sealed row (offboarding_undo.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table

from keyrack.core import cursors, quotas, validation
from keyrack.core.instance import Instance
from keyrack.core.keys.receipts import Receipt, Receipts
from keyrack.core.lookups import user_named
from keyrack.core.people import owners
from keyrack.core.people.rights import refuse_exceeding
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, missing
from keyrack.model import Actor, Page, User, Window
from keyrack.protocol.words import count
from keyrack.store import tables
from keyrack.store.git import git_endpoints
from keyrack.store.git.git_endpoints import GitReceipt
from keyrack.store.keys import grants
from keyrack.store.people import offboardings, tokens, users, web_sessions
from keyrack.store.people.offboardings import HeldAccess, HostReceipt, Offboarding, ReachedServer
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import columns

OFFBOARD = "people:offboard"
ENDPOINT_SEEN_EVERY = timedelta(seconds=20)
"""How often a Git endpoint reports that it is running (core/git/endpoints.py)."""
TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        tables.user_keys,
        tables.credentials,
        tables.grants,
        tables.group_members,
        tables.repository_members,
    )
}
"""Tables whose rows are kept, so that undo can bring them back."""


@dataclass(frozen=True, slots=True)
class Progress:
    """An offboarding, and which hosts and Git endpoints obey it by now."""

    offboarding: Offboarding
    hosts: tuple[Receipt, ...]
    git: tuple[GitReceipt, ...]

    @property
    def done(self) -> bool:
        """Whether every host and Git endpoint has said that it obeys."""
        return Receipts(self.hosts).done and all(one.acknowledged_at is not None for one in self.git)

    @property
    def words(self) -> str:
        """In words: done on 2 of 3 servers; not yet on web-1."""
        words = Receipts(self.hosts).words
        git = [one.name for one in self.git if one.acknowledged_at is None]
        return words + (f"; Git not yet at {', '.join(git)}" if git else "")


@dataclass(frozen=True, slots=True)
class OffboardingPlan:
    """What an offboarding takes away.

    gone: the same by kind, in names; places: the servers concerned; unacknowledged: deleted servers whose hosts have
    not said that they refuse the keys; deploy_keys, credentials: how many keys of others the person entered, which
    stay.
    """

    user: User
    held: HeldAccess
    gone: Mapping[str, Any]
    places: tuple[ReachedServer, ...]
    unacknowledged: tuple[tuple[int, str, int], ...]
    deploy_keys: int
    credentials: int

    @property
    def lines(self) -> dict[str, str]:
        """The public keys, as type and base64, by fingerprint."""
        return {key.fingerprint: key.public_key for key in self.held.keys if key.fingerprint and key.public_key}

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is left to take away."""
        return self.user.disabled_at is not None and not any(self.gone.values())


def preview(instance: Instance, actor: Actor, name: str, *, reason: object = None) -> OffboardingPlan:
    """What an offboarding would take away now; changes nothing. Raises Refusal as offboard does."""
    with Attempt(instance, actor, OFFBOARD, "see what goes with a person", target_kind="user") as attempt:
        validation.reason(reason, maximum=validation.LONGEST_TITLE)

        def question(connection: Connection) -> OffboardingPlan:
            user = user_named(connection, actor, name)
            _refuse_last_owner(connection, actor, user, instance.now())
            return _plan(connection, user, instance.now())

        return attempt.read(question)


def holds(instance: Instance, actor: Actor, name: str) -> dict[str, Any]:
    """What a person has now, by kind, as OffboardingPlan.gone has it. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(instance, actor, "people:read", "see what a person holds", target_kind="user") as attempt:

        def question(connection: Connection) -> dict[str, Any]:
            return dict(_plan(connection, user_named(connection, actor, name), instance.now()).gone)

        return attempt.read(question)


def offboard(instance: Instance, actor: Actor, name: str, *, reason: object = None) -> Offboarding:
    """Remove a person everywhere, as one change; get() shows who obeys it.

    name: of a user of the actor's workspace; reason: in words, or None. A second call takes away what has come since,
    or answers the offboarding that there is. Raises Refusal MISSING, INVALID for the last owner, or for the actor where
    no other owner is there, or FORBIDDEN for a user who may do more than the actor.
    """
    with Attempt(instance, actor, OFFBOARD, "remove a person everywhere", target_kind="user") as attempt:
        why = validation.reason(reason, maximum=validation.LONGEST_TITLE)

        def change(work: Work) -> Offboarding:
            user = user_named(work.connection, actor, name)
            refuse_exceeding(work, user)
            _refuse_last_owner(work.connection, actor, user, work.now)
            plan = _plan(work.connection, user, work.now)
            before = offboardings.latest_of(work.connection, user.id)
            if plan.is_nothing and before is not None and before.undone_at is None:
                work.no_event("gone already")
                return before
            quotas.refuse_more(work, "offboarding")
            return _remove(work, plan, why)

        return attempt.write(change)


def get(instance: Instance, actor: Actor, offboarding_id: int) -> Progress:
    """An offboarding, and who obeys it by now. Raises Refusal MISSING."""
    with Attempt(instance, actor, "people:read", "see an offboarding", target_kind="offboarding") as attempt:
        progress = attempt.read(lambda connection: _get(instance, connection, actor, offboarding_id))
        if progress is None:
            raise missing("offboarding")
        return progress


def receipt(instance: Instance, actor: Actor, offboarding: Offboarding) -> Progress:
    """Who obeys an offboarding that the actor has just asked for."""
    assert offboarding.workspace_id == actor.workspace_id
    return instance.database.read(lambda connection: _progress(instance, connection, (offboarding,)))[0]


def find(
    instance: Instance, actor: Actor, *, offset: int = 0, limit: int = 50, cursor: str | None = None
) -> Page[Progress]:
    """A page of the workspace's offboardings, newest first, each with who obeys it by now.

    cursor: of the page before, "" for the first one; takes the place of offset.
    """
    with Attempt(instance, actor, "people:read", "list offboardings", target_kind="offboarding") as attempt:
        window = Window(limit, offset, cursors.place(cursor, int))

        def question(connection: Connection) -> Page[Progress]:
            page = offboardings.find(connection, actor.workspace_id, window)
            return page.showing(_progress(instance, connection, page.items))

        return attempt.read(question)


def acknowledge(work: Work, server_id: int, applied: int) -> None:
    """Note that a host applied a revision with the offboardings that wait for it."""
    for offboarding_id in offboardings.acknowledge(work.connection, server_id, applied, work.now):
        offboarding = offboardings.get(work.connection, work.actor.workspace_id, offboarding_id)
        if offboarding is not None and not offboardings.is_waited_for(work.connection, offboarding_id):
            work.record(
                f"Every host obeys that {offboarding.user_name} is gone",
                target_kind="user",
                target_id=offboarding.user_id,
                details={"offboarding": offboarding_id},
            )


def _get(instance: Instance, connection: Connection, actor: Actor, offboarding_id: int) -> Progress | None:
    offboarding = offboardings.get(connection, actor.workspace_id, offboarding_id)
    return None if offboarding is None else _progress(instance, connection, (offboarding,))[0]


def _progress(instance: Instance, connection: Connection, chosen: Sequence[Offboarding]) -> tuple[Progress, ...]:
    ids = [offboarding.id for offboarding in chosen]
    hosts, git = offboardings.hosts(connection, ids), git_endpoints.receipts(connection, ids)
    silence = _git_silence(instance)
    return tuple(
        Progress(
            offboarding,
            tuple(_of_host(host) for host in hosts.get(offboarding.id, ())),
            tuple(_of_git(instance, silence, endpoint) for endpoint in git.get(offboarding.id, ())),
        )
        for offboarding in chosen
    )


def _of_host(receipt: HostReceipt) -> Receipt:
    return Receipt(
        receipt.server_id,
        receipt.server_name,
        receipt.wanted,
        receipt.applied,
        receipt.acknowledged_at,
        receipt.two_machines,
        receipt.has_host,
    )


def _of_git(instance: Instance, silence: timedelta, receipt: GitReceipt) -> GitReceipt:
    """A Git endpoint's receipt. One that has been silent for `silence` runs no transfer any more, and so obeys."""
    if receipt.acknowledged_at is not None or receipt.seen_at is None or receipt.seen_at + silence > instance.now():
        return receipt
    return replace(receipt, acknowledged_at=receipt.seen_at + silence)


def _git_silence(instance: Instance) -> timedelta:
    """The time after which a silent Git endpoint runs no transfer any more: it ends what it cannot confirm."""
    return timedelta(seconds=instance.settings.git_stale_seconds) + 3 * ENDPOINT_SEEN_EVERY


def _refuse_last_owner(connection: Connection, actor: Actor, user: User, at: datetime) -> None:
    owners.refuse_last(connection, actor, user, at)
    if user.id == actor.user_id and not owners.has_another(connection, user):
        words = "Nobody removes themselves unless an owner is there to undo it; ask for one first."
        raise Refusal(Kind.INVALID, "no-other-owner", words)


def _plan(connection: Connection, user: User, at: datetime) -> OffboardingPlan:
    held = offboardings.held(connection, user.workspace_id, user.id, at)
    fingerprints = [key.fingerprint for key in held.keys if key.fingerprint]
    reached = set(grants.servers_of_user(connection, user.id))
    reached |= {row.server_id for row in (*held.credentials, *held.sessions, *held.unmanaged_keys)}
    # Servers that still have to refuse keys which the person lost earlier.
    reached |= offboardings.still_to_refuse(connection, user.workspace_id, fingerprints)
    places = offboardings.places(connection, user.workspace_id, reached)
    unacknowledged = offboardings.unacknowledged(connection, user.workspace_id, fingerprints)
    deploy_keys, credentials = offboardings.made(connection, user.id)
    own = sum(1 for row in held.credentials if row.created_by == user.id)
    return OffboardingPlan(
        user=user,
        held=held,
        gone=_shown(held, places),
        places=places,
        unacknowledged=tuple((row.server_id, row.name, row.revision) for row in unacknowledged),
        deploy_keys=deploy_keys,
        credentials=credentials - own,
    )


def _shown(held: HeldAccess, places: Iterable[ReachedServer]) -> dict[str, Any]:
    """What is taken away, in names."""
    return {
        "keys": [{"title": row.title, "fingerprint": row.fingerprint} for row in held.keys],
        "credentials": [
            {
                "server": row.server_name,
                "username": row.username,
                "label": row.label,
                "fingerprint": row.fingerprint,
            }
            for row in held.credentials
        ],
        "grants": [
            {"id": row.id, "server": row.server_name, "tag": row.tag, "system_user": row.system_user}
            for row in held.grants
        ],
        "groups": [row.name for row in held.groups],
        "repositories": [{"path": row.path, "role": row.role} for row in held.repositories],
        "tokens": [{"id": row.id, "name": row.name} for row in held.tokens if row.kind == "api"],
        "iam_tokens": sum(1 for row in held.tokens if row.kind != "api"),
        "access_keys": [row.id for row in held.access_keys],
        "sessions": [
            {"server": row.server_name, "username": row.username, "address": row.address} for row in held.sessions
        ],
        "found": [
            {"server": row.server_name, "username": row.username, "path": row.path, "fingerprint": row.fingerprint}
            for row in held.unmanaged_keys
        ],
        "key_sources": [f"{row.account} at {row.url}" for row in held.key_sources],
        "requests": [
            {"id": row.id, "server": row.server_name, "tag": row.tag, "system_user": row.system_user}
            for row in held.requests
        ],
        "servers": [place.name for place in places],
    }


def _remove(work: Work, plan: OffboardingPlan, why: str) -> Offboarding:
    connection, user, lines = work.connection, plan.user, plan.lines
    kept = _kept(connection, plan)
    if user.disabled_at is None:
        users.change_user(connection, user.id, {"disabled_at": work.now})
    tokens.revoke_tokens(connection, work.now, user_id=user.id)
    web_sessions.remove_of_user(connection, user.id)
    offboardings.remove_all(connection, user.workspace_id, user.id, list(lines), at=work.now, by=work.actor.name)
    revisions = {place.id: work.bump_revision(place.id) for place in plan.places}
    refusing = offboardings.refuse(connection, revisions, lines, work.now)
    number = offboardings.add(
        connection,
        {
            "workspace_id": user.workspace_id,
            "user_id": user.id,
            "user_name": user.name,
            "asked_by": work.actor.name,
            "reason": why,
            "at": work.now,
            "undo_until": work.now + timedelta(hours=work.instance.settings.leaver_undo_hours),
            "gone": dict(plan.gone),
            "kept": {**kept, "servers": sorted(refusing)},
        },
    )
    servers = [(place.id, place.name, revisions[place.id]) for place in plan.places]
    offboardings.add_hosts(connection, number, (*servers, *plan.unacknowledged))
    git_endpoints.wait_for(connection, number, work.now - _git_silence(work.instance))
    _record(work, plan, number, why)
    made = offboardings.get(connection, user.workspace_id, number)
    assert made is not None
    return made


def _kept(connection: Connection, plan: OffboardingPlan) -> dict[str, Any]:
    """The rows that undo can bring back: only those whose seals hold, as undo seals them anew."""
    held = plan.held
    rows = {
        "user_keys": held.keys,
        "credentials": held.credentials,
        "grants": held.grants,
        "group_members": held.groups,
        "repository_members": held.repositories,
    }
    return {
        "enabled": plan.user.disabled_at is None,
        **{
            name: [_plain(TABLES[name], row) for row in of_table if sealed.holds(connection, TABLES[name], row)]
            for name, of_table in rows.items()
        },
    }


def _plain(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for JSON: times in microseconds, and without its seal."""
    return {
        name: (value - columns.EPOCH) // columns.MICROSECOND if isinstance(value, datetime) else value
        for name, value in seals.unsealed(seals.part(row, table)).items()
    }


def counted(gone: Mapping[str, Any]) -> str:
    """What was taken away, in words: 2 SSH keys, 1 grant and 3 sessions."""
    counts = (
        (len(gone["keys"]), "SSH key"),
        (len(gone["credentials"]), "credential"),
        (len(gone["grants"]), "grant"),
        (len(gone["groups"]), "group membership"),
        (len(gone["repositories"]), "repository membership"),
        (len(gone["tokens"]) + gone["iam_tokens"], "token"),
        (len(gone["access_keys"]), "access key"),
        (len(gone["sessions"]), "session"),
        (len(gone.get("key_sources", ())), "key source"),
        (len(gone.get("requests", ())), "pending request"),
    )
    words = [count(number, one) for number, one in counts if number]
    if len(words) < 2:
        return words[0] if words else "nothing but the account"
    return f"{', '.join(words[:-1])} and {words[-1]}"


def taken_away(record: Offboarding) -> str:
    """What an offboarding took away, in words."""
    return counted(record.gone) if record.sound else "not known, as the record of it was altered in the database"


def _record(work: Work, plan: OffboardingPlan, number: int, why: str) -> None:
    """Record an event for each credential, so that its server's history has it, and one for all."""
    for row in plan.held.credentials:
        work.record(
            f"Deleted SSH key {row.label} of {plan.user.name} from {row.server_name}, as {plan.user.name} "
            "was removed everywhere",
            target_kind="credential",
            target_id=row.id,
            server_id=row.server_id,
            details={"fingerprint": row.fingerprint},
            naming_revisions=False,
        )
    work.record(
        f"Removed {plan.user.name} everywhere: {counted(plan.gone)}, on {count(len(plan.places), 'host')}"
        + (f" ({why})" if why else ""),
        target_id=plan.user.id,
        level="warning",
        details={"offboarding": number, "reason": why, "fingerprints": sorted(plan.lines)},
    )
