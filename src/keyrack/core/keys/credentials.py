"""Keys on system users of servers: add, list, show, delete, and remove those that ended; every API must call these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection

from keyrack import policy
from keyrack.core import cursors, quotas, validation
from keyrack.core.instance import Instance
from keyrack.core.keys import damaged_rows, event_terms, openings, propagation, revocation
from keyrack.core.lookups import own_server, require_server
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, missing
from keyrack.model import Actor, Credential, Page, Server, has_ended
from keyrack.ssh.public_key import PublicKey
from keyrack.store.hosts import servers, system_users
from keyrack.store.keys import credential_lists, credentials, expired_keys, new_credentials
from keyrack.store.keys.new_credentials import CredentialPlace, CredentialPlacePrefetch
from keyrack.store.keys.openings import Opening
from keyrack.store.keys.openings import of_account as openings_of
from keyrack.store.room import LIMITS

T = TypeVar("T")

SWEEP_BATCH_SIZE = 500


def add(
    instance: Instance,
    actor: Actor,
    server_id: int,
    *,
    label: object,
    username: object,
    public_key: object,
    temporary: bool = False,
    expires_at: object = None,
    duration: object = None,
    restrictions: Mapping[str, Any] | None = None,
    break_glass: bool = False,
) -> Credential:
    """Put a public key on a system user of a server; returns once that is durable.

    label: unique on the server, 1 to 255 characters; username: a system user of the server; public_key: one OpenSSH
    line; temporary: it ends after the setting `temporary_hours`, unless it has another end; expires_at or duration: the
    end, as validation.end takes it; restrictions: as ssh.options.Restrictions reads them, and only what a key of this
    type can obey; break_glass: each use is an alarm.

    Raises Refusal MISSING for the server, INVALID for fields, TAKEN for the label, LIMIT.
    """
    aim = "add an SSH key"
    attempt = Attempt(instance, actor, "credentials:write", aim, target_kind="credential", server_id=server_id)
    with attempt:
        name = validation.text(label, field="label")
        user = validation.account(username)
        key = validation.public_key(instance, actor.workspace_id, public_key)
        limits = validation.restrictions(restrictions, key.type)

        asked = _place(instance, actor, actor.workspace_id, server_id, user, name, key)

        def change(work: Work) -> Credential:
            place = _require_place(work, asked)
            if actor.user_id is not None and not instance.joined:
                work.check_actor_again(place.asking)
            end = validation.end(work.now, expires_at, duration=duration)
            if temporary and end is None:
                end = work.now + timedelta(hours=instance.settings.temporary_hours)
            terms = {
                "temporary": temporary,
                "expires_at": end,
                "restrictions": dict(limits),
                "break_glass": break_glass or None,
            }
            alone = not (place.ended or place.refused or place.labelled)
            added = _put(work, place, user, name, key, terms, last=alone)
            if alone:
                asked.entered = new_credentials.server_left(work.connection, server_id)
            _record_added(work, place.server.name, added)
            return added

        return attempt.write(change, checks_actor=True, prefetch=asked, defers_tree=True)


def wrong_fields(
    instance: Instance,
    actor: Actor,
    server_id: int,
    *,
    label: object = None,
    username: object = None,
    public_key: object = None,
) -> tuple[Refusal, ...]:
    """All refusals that add() would raise for these fields, for callers that report them together; None is skipped.

    What depends on the server is checked only for actors who may add keys there.
    """
    refusals: list[Refusal] = []

    def accepts(value: object, rule: Callable[[], T]) -> T | None:
        if value is None:
            return None
        try:
            return rule()
        except Refusal as refusal:
            refusals.append(refusal)
            return None

    name = accepts(label, lambda: validation.text(label, field="label"))
    user = accepts(username, lambda: validation.account(username))
    key = accepts(public_key, lambda: validation.public_key(instance, actor.workspace_id, public_key))

    def in_the_way(connection: Connection) -> list[Refusal]:
        server = servers.by_id(connection, server_id)
        if server is None or server.workspace_id != actor.workspace_id:
            return []
        held = () if name is None else credentials.credentials_with_seals(connection, server_id, label=name)
        taken = any(holds and not has_ended(one.expires_at, instance.now()) for one, holds in held)
        lacking = user is not None and system_users.by_name(connection, server_id, user) is None
        refused = None if key is None else revocation.refusal_of(instance, connection, actor, key)
        checked = (_label_taken() if taken else None, _no_system_user() if lacking else None, refused)
        return [refusal for refusal in checked if refusal is not None]

    if policy.may(actor, "credentials:write") is None:
        refusals += instance.database.read(in_the_way)
    return tuple(refusals)


def check_server(instance: Instance, actor: Actor, server_id: int) -> None:
    """Raises Refusal FORBIDDEN where the actor may not put keys on servers, and MISSING for the server."""
    aim = "add an SSH key"
    attempt = Attempt(instance, actor, "credentials:write", aim, target_kind="credential", server_id=server_id)
    with attempt:
        attempt.read(lambda connection: require_server(connection, actor, server_id))


def get(instance: Instance, actor: Actor, server_id: int, credential_id: int) -> Credential:
    """One credential of a server. Raises Refusal MISSING."""
    attempt = Attempt(
        instance, actor, "credentials:read", "see an SSH key", target_kind="credential", server_id=server_id
    )
    with attempt:
        at = instance.now()
        credential = attempt.read(
            lambda connection: credentials.own_credential(connection, actor.workspace_id, server_id, credential_id, at),
        )
        if credential is None:
            raise missing("SSH key")
        return credential


def find(
    instance: Instance,
    actor: Actor,
    server_id: int,
    *,
    search: str = "",
    offset: int = 0,
    limit: int = 15,
    cursor: str | None = None,
) -> Page[Credential]:
    """A page of a server's credentials in force, oldest first.

    cursor: of the page before, "" for the first one; takes the place of offset. Raises Refusal MISSING for the server,
    or INVALID for a malformed cursor.
    """
    attempt = Attempt(
        instance, actor, "credentials:read", "list SSH keys", target_kind="credential", server_id=server_id
    )
    with attempt:
        at, after = instance.now(), cursors.place(cursor, int)
        page = attempt.read(
            lambda connection: credential_lists.find_credentials(
                connection, actor.workspace_id, server_id, at=at, search=search, offset=offset, limit=limit, after=after
            )
        )
        if page is None:
            raise missing("server")
        return page


@dataclass(frozen=True, slots=True)
class Deleted:
    """A deleted credential as it was, and what else lets its key into the same account."""

    credential: Credential
    still_opened_by: tuple[Opening, ...]


def delete(instance: Instance, actor: Actor, server_id: int, credential_id: int) -> Deleted:
    """Take a key from a system user of a server. Raises Refusal MISSING."""
    attempt = Attempt(
        instance,
        actor,
        "credentials:write",
        "delete an SSH key",
        target_kind="credential",
        target_id=credential_id,
        server_id=server_id,
    )
    with attempt:

        def change(work: Work) -> Deleted:
            server = own_server(work, server_id)
            credential = credentials.get_credential(work.connection, server.id, credential_id, work.now)
            if credential is None or not credentials.remove_credential(work.connection, credential.id):
                raise missing("SSH key")
            propagation.withdrawn(work, (server.id,), [(credential.fingerprint, credential.public_key)])
            still = openings_of(
                work.connection,
                workspace_id=server.workspace_id,
                server_id=server.id,
                username=credential.username,
                fingerprint=credential.fingerprint,
                at=work.now,
            )
            work.record(
                f"Deleted SSH key {credential.label} ({credential.fingerprint}) "
                f"of {credential.username} on {server.name}{openings.words(still)}",
                target_id=credential.id,
                details={
                    "label": credential.label,
                    "username": credential.username,
                    "fingerprint": credential.fingerprint,
                    "still_opened_by": openings.shown(still),
                },
            )
            return Deleted(credential, still)

        return attempt.write(change)


def end_expired(instance: Instance, keyrack: Actor) -> int:
    """Remove credentials whose end has come, each with its event; answers how many.

    sshd has refused them since that second (invariant 5); this only deletes the rows.
    """
    attempt = Attempt(instance, keyrack, "credentials:write", "end expired SSH keys", target_kind="credential")
    at = instance.now()
    if not instance.database.read(lambda connection: credentials.ended_credentials(connection, at, 1)):
        return 0
    with attempt:

        def change(work: Work) -> int:
            ended = credentials.ended_credentials(work.connection, work.now, SWEEP_BATCH_SIZE)
            for credential in ended:
                if credentials.remove_credential(work.connection, credential.id):
                    _record_end(work, credential)
            if not ended:
                work.no_event("another process was quicker")
            return len(ended)

        return attempt.write(change)


def put(
    work: Work,
    server: Server,
    username: str,
    label: str,
    key: PublicKey,
    *,
    end: datetime | None,
    limits: Mapping[str, Any],
) -> Credential:
    """Insert a credential within a unit of work; the caller records it. Raises Refusal INVALID, TAKEN or LIMIT."""
    place = _require_place(
        work, _place(work.instance, work.actor, server.workspace_id, server.id, username, label, key)
    )
    terms = {"temporary": False, "expires_at": end, "restrictions": dict(limits), "break_glass": None}
    return _put(work, place, username, label, key, terms)


def _place(
    instance: Instance, actor: Actor, workspace_id: int, server_id: int, username: str, label: str, key: PublicKey
) -> CredentialPlacePrefetch:
    return CredentialPlacePrefetch(
        workspace_id,
        server_id,
        username=username,
        label=label,
        fingerprint=key.fingerprint,
        now=instance.now,
        actor=actor,
    )


def _require_place(work: Work, asked: CredentialPlacePrefetch) -> CredentialPlace:
    """The prefetched server and account for a credential. Raises Refusal MISSING for the server."""
    place = asked.get(work.connection)
    if place is None:
        raise missing("server")
    return place


def _put(
    work: Work,
    place: CredentialPlace,
    username: str,
    label: str,
    key: PublicKey,
    terms: Mapping[str, Any],
    *,
    last: bool = False,
) -> Credential:
    """Insert a credential; last: this command asks nothing else of the server afterwards."""
    if place.ended:
        revocation.refuse(work, key)
    if place.account_id is None:
        raise _no_system_user()
    server_id = place.server.id
    if place.labelled:
        _free_label(work, server_id, label)
    # Each key raised the revision once, so a server of a lower revision cannot have as many: no need to count.
    if place.server.revision >= LIMITS["SSH key"][1]:
        quotas.refuse_more(work, "SSH key", server_id)
    # Freeing the label may have raised the revision, so the row that was read before is not used.
    locked = None if place.labelled else (place.server,)
    with work.raising((server_id,), locked=locked, last=last) as revisions:
        if place.refused:
            propagation.unrevoke(work, (server_id,), (key.fingerprint,))
        return credentials.add_credential(
            work.connection,
            username,
            {
                "server_id": server_id,
                "system_user_id": place.account_id,
                "label": label,
                "public_key": key.canonical,
                "comment": key.comment,
                "fingerprint": key.fingerprint,
                "key_type": key.type,
                **terms,
                "created_by": work.actor.user_id,
                "created_at": work.now,
                "revision": revisions[server_id],
            },
            place.ids,
        )


def _record_added(work: Work, server_name: str, added: Credential) -> None:
    terms = event_terms.sentence_end(
        expires_at=added.expires_at, restrictions=added.restrictions, break_glass=bool(added.break_glass)
    )
    details = {"label": added.label, "username": added.username, "fingerprint": added.fingerprint}
    work.record(
        f"Added SSH key {added.label} ({added.fingerprint}) for {added.username} on {server_name}{terms}",
        target_id=added.id,
        details=details | event_terms.details(added.restrictions),
    )


def _record_end(work: Work, credential: Credential) -> None:
    server = servers.by_id(work.connection, credential.server_id)
    assert server is not None
    if not credential.temporary:
        expired_keys.add(work.connection, server.workspace_id, credential.fingerprint, work.now)
    work.bump_revision(server.id)
    work.record(
        f"SSH key {credential.label} ({credential.fingerprint}) of {credential.username} "
        f"on {server.name} reached its end",
        target_id=credential.id,
        server_id=server.id,
        workspace_id=server.workspace_id,
        details={"label": credential.label, "fingerprint": credential.fingerprint},
    )


def _free_label(work: Work, server_id: int, label: str) -> None:
    """Make sure that a label is free: one of a key that has ended is freed here. Raises Refusal TAKEN."""
    holder = credentials.credential_by_label(work.connection, server_id, label)
    if holder is None:
        return
    unsound = damaged_rows.damaged_credential(work, server_id, label)
    if unsound is not None:
        damaged_rows.drop(work, unsound)
        return
    if not has_ended(holder.expires_at, work.now):
        raise _label_taken()
    credentials.remove_credential(work.connection, holder.id)
    _record_end(work, holder)


def _label_taken() -> Refusal:
    return Refusal(Kind.TAKEN, "label-taken", "Another key on this server has that label.", field="label")


def _no_system_user() -> Refusal:
    words = "The server has no system user of that name. Create it first, or use another."
    return Refusal(Kind.INVALID, "system-user-missing", words, field="username")
