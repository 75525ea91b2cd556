"""A user's public keys: add, list and delete, the actor's own or another user's; every API must call these."""

from __future__ import annotations

from datetime import datetime, timedelta

from keyrack.core import cursors, lookups, validation
from keyrack.core.instance import Instance
from keyrack.core.keys import damaged_rows, openings, propagation, revocation
from keyrack.core.lookups import own_user
from keyrack.core.next_steps import with_commands
from keyrack.core.people.rights import refuse_disabled, refuse_exceeding
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor, Page, User, UserKey
from keyrack.ssh.public_key import PublicKey
from keyrack.store.keys import expired_keys, grants, key_owners, new_user_keys, published_keys, revoked_keys, user_keys
from keyrack.store.keys.expired_keys import EndedKey
from keyrack.store.keys.new_user_keys import UserKeyPlace, UserKeyPlacePrefetch
from keyrack.store.keys.openings import Opening, of_workspace
from keyrack.store.people import users

ADD = "codeartsrepo::createUserSSHkey"
READ = "codeartsrepo::getUserSetting"
DELETE = "codeartsrepo::updateUserSetting"
ENDED_LATELY = timedelta(days=30)
MAX_ENDED = 20


def add(
    instance: Instance,
    actor: Actor,
    *,
    title: object,
    public_key: object,
    longest_title: int = validation.LONGEST_TITLE,
    keyless: bool = False,
    user_id: int | None = None,
    expires_at: object = None,
    duration: object = None,
) -> UserKey:
    """Register a public key for the actor, or for another user; returns once that is durable.

    title: at most longest_title characters, or None; public_key: one OpenSSH line, or, with keyless, None for an entry
    without a key, which opens nothing. expires_at or duration: an end, as validation.end takes it; the key is deleted
    everywhere then. user_id: whose key it becomes, None for the actor's; for another user it takes people:write, and no
    less rights than that user has.

    Raises Refusal INVALID for fields, TAKEN where the key belongs to somebody or something already, LIMIT, and MISSING
    for the user.
    """
    action, aim = _action(actor, user_id, ADD), "add an SSH key"
    attempt = Attempt(instance, actor, action, f"{aim}{_whose_words(actor, user_id)}", target_kind="user key")
    with attempt:
        name = None if title is None else validation.text(title, field="title", maximum=longest_title)
        key = None
        if public_key is not None or not keyless:
            key = validation.public_key(instance, actor.workspace_id, public_key)
        elif instance.settings.require_key:
            raise invalid("public_key", "A public key is required.")
        owner = _owner_id(actor, user_id)
        asked = None
        if key is not None and owner == actor.user_id:
            most = instance.settings.max_user_keys
            asked = UserKeyPlacePrefetch(actor, owner, key.fingerprint, most=most, now=instance.now)

        def change(work: Work) -> UserKey:
            whom = _other(work, owner, has_keys=True)
            end = validation.end(work.now, expires_at, duration=duration)
            made = enter(work, owner, name, key, whom, end=end, asked=asked)
            until = "" if end is None else f" until {end:%Y-%m-%d %H:%M:%S} UTC"
            work.record(
                f"{actor.name} added SSH key {name or 'without a title'} ({key.fingerprint if key else 'no key'})"
                f"{_of(whom)}{until}",
                target_id=made.id,
                details={"title": name, "fingerprint": key.fingerprint if key else None},
            )
            return made

        # The prefetch reads the actor's rights together with what is in the key's way; enter() checks them.
        return attempt.write(change, checks_actor=asked is not None, prefetch=asked, defers_tree=asked is not None)


def enter(
    work: Work,
    owner: int,
    title: str | None,
    key: PublicKey | None,
    whom: User | None = None,
    *,
    end: datetime | None = None,
    asked: UserKeyPlacePrefetch | None = None,
) -> UserKey:
    """Insert a user's key within a unit of work; the caller records it.

    1. The actor must still have the right, where `asked` read it. 2. The owner has room for one more. 3. The owner is
    not disabled. 4. The key is not revoked, and has not ended. 5. It belongs to nobody else.

    whom: the owner where that is not the actor; asked: a prefetch for the actor's own key. Raises Refusal LIMIT,
    INVALID or TAKEN, and as Work.check_actor_again does.
    """
    most = work.instance.settings.max_user_keys
    place = None
    if key is not None:
        if asked is None:
            place = new_user_keys.place(work.connection, work.actor, owner, key.fingerprint, work.now, most=most)
        else:
            place = asked.get(work.connection)
            if not work.instance.joined:
                work.check_actor_again(place.owner)  # 1
    # 2
    if place.full if place else user_keys.count_user_keys(work.connection, owner) >= most:
        who = "You have" if whom is None else f"{whom.name} has"
        words = f"{who} {most} keys, which is the most; delete one first."
        raise Refusal(Kind.LIMIT, "too-many-keys", words)
    if key is not None and place is not None:
        if place.owner.disabled_at is not None:
            # 3: they were disabled while this call was on its way; the receipts of that would not name this key.
            refuse_disabled(users.user(work.connection, owner))
        if place.ended:  # 4
            revocation.refuse(work, key)
        if place.owned:  # 5
            _refuse_known(work, owner, key)
    made, reached = _insert(work, owner, title, key, end, place)
    if asked is not None and place is not None and not (place.ended or place.owned):
        asked.entered = reached  # the only rows that this command changed
    return made


def owner_name(instance: Instance, key: UserKey) -> str:
    """The name of a key's user, for a caller who has just registered the key: no right is asked for."""
    return instance.database.read(lambda connection: users.user_names(connection, {key.user_id})).get(key.user_id, "?")


def person(actor: Actor) -> int:
    """The id of the actor's user. Raises Refusal FORBIDDEN for an operator and for Keyrack itself."""
    return _owner_id(actor)


def find(
    instance: Instance, actor: Actor, *, search: str = "", offset: int = 0, limit: int = 20, cursor: str | None = None
) -> Page[UserKey]:
    """A page of the actor's own keys, newest first.

    search: part of the title, in any case; cursor: of the page before, "" for the first one; takes the place of offset.
    """
    attempt = Attempt(instance, actor, READ, "list their own SSH keys", target_kind="user key")
    with attempt:
        owner = _owner_id(actor)
        after = cursors.place(cursor, int)
        return attempt.read(
            lambda connection: user_keys.find_user_keys(
                connection, owner, search=search, offset=offset, limit=limit, after=after
            )
        )


def find_keyed(instance: Instance, actor: Actor, *, offset: int, limit: int) -> Page[UserKey]:
    """A page of the actor's own keys, newest first, without entries that have no key."""
    attempt = Attempt(instance, actor, READ, "list their own SSH keys", target_kind="user key")
    with attempt:
        owner = _owner_id(actor)
        return attempt.read(
            lambda connection: published_keys.page_of_user(connection, owner, offset=offset, limit=limit)
        )


def get(instance: Instance, actor: Actor, key_id: int) -> UserKey:
    """A key of the actor's own. Raises Refusal MISSING."""
    attempt = Attempt(instance, actor, READ, "see an SSH key of their own", target_kind="user key", target_id=key_id)
    with attempt:
        owner = _owner_id(actor)
        return attempt.read(lambda connection: lookups.user_key(connection, owner, key_id))


def with_fingerprint(instance: Instance, actor: Actor, fingerprint: str) -> UserKey | None:
    """The actor's own key with this fingerprint, SHA256:…; None where there is none."""
    with Attempt(instance, actor, READ, "see an SSH key of their own", target_kind="user key") as attempt:
        owner = _owner_id(actor)
        owned = attempt.read(lambda connection: key_owners.owner_of(connection, fingerprint))
        key = None if owned is None else owned[1]
        return key if key is not None and key.user_id == owner else None


def end_of(instance: Instance, actor: Actor, fingerprint: str) -> datetime | None:
    """When a key reached its end in the actor's workspace; None where it did not, or is unknown."""
    with Attempt(instance, actor, READ, "see whether an SSH key has ended", target_kind="user key") as attempt:
        workspace_id, now = actor.workspace_id, instance.now()
        return attempt.read(lambda connection: expired_keys.end_of(connection, workspace_id, fingerprint, now))


def revoked_at(instance: Instance, actor: Actor, fingerprint: str) -> datetime | None:
    """When a key was revoked everywhere in the actor's workspace; None where it is not revoked."""
    with Attempt(instance, actor, READ, "see whether an SSH key is revoked", target_kind="user key") as attempt:
        workspace_id = actor.workspace_id
        revoked_key = attempt.read(lambda connection: revoked_keys.get(connection, workspace_id, fingerprint))
        return None if revoked_key is None else revoked_key.revoked_at


def ended(instance: Instance, actor: Actor) -> tuple[EndedKey, ...]:
    """The actor's keys that ended within ENDED_LATELY, the last one first, also those registered again since."""
    with Attempt(instance, actor, READ, "see which SSH keys of their own ended", target_kind="user key") as attempt:
        owner, since = _owner_id(actor), instance.now() - ENDED_LATELY
        return attempt.read(lambda connection: expired_keys.of_user(connection, owner, since, MAX_ENDED))


def delete(instance: Instance, actor: Actor, key_id: int, *, user_id: int | None = None) -> UserKey:
    """Delete a key everywhere, and answer it as it was; user_id: as add() takes it. Raises Refusal MISSING."""
    with _deleting(instance, actor, key_id, user_id) as attempt:
        owner = _owner_id(actor, user_id)

        def change(work: Work) -> UserKey:
            whom = _other(work, owner)
            key = lookups.user_key(work.connection, owner, key_id)
            user_keys.remove_user_key(work.connection, key.id)
            if key.fingerprint is not None and key.public_key is not None:
                opened = grants.servers_of_user(work.connection, owner)
                propagation.withdrawn(work, opened, [(key.fingerprint, key.public_key)])
            still = () if key.fingerprint is None else _elsewhere(work, key.fingerprint)
            work.record(
                f"{actor.name} deleted SSH key {key.title or 'without a title'} ({key.fingerprint or 'no key'})"
                f"{_of(whom)}{openings.words(still, everywhere=True)}",
                target_id=key.id,
                details={"title": key.title, "fingerprint": key.fingerprint},
            )
            return key

        return attempt.write(change)


def may_delete(instance: Instance, actor: Actor, key_id: int, *, user_id: int | None = None) -> None:
    """Raises Refusal MISSING or FORBIDDEN where the actor may not delete this key, as delete() does."""
    with _deleting(instance, actor, key_id, user_id) as attempt:
        owner = _owner_id(actor, user_id)
        attempt.read(lambda connection: lookups.user_key(connection, owner, key_id))


def _deleting(instance: Instance, actor: Actor, key_id: int, user_id: int | None) -> Attempt:
    return Attempt(
        instance,
        actor,
        _action(actor, user_id, DELETE),
        f"delete an SSH key{_whose_words(actor, user_id)}",
        target_kind="user key",
        target_id=key_id,
    )


def _elsewhere(work: Work, fingerprint: str) -> tuple[Opening, ...]:
    return of_workspace(
        work.connection, workspace_id=work.actor.workspace_id or 0, fingerprint=fingerprint, at=work.now
    )


def _insert(
    work: Work, owner: int, title: str | None, key: PublicKey | None, end: datetime | None, place: UserKeyPlace | None
) -> tuple[UserKey, frozenset[int]]:
    """The inserted key, and the ids of the servers that it opens."""
    public_key = key.canonical if key else None
    made = user_keys.add_user_key(
        work.connection,
        {
            "workspace_id": work.actor.workspace_id,
            "user_id": owner,
            "title": title,
            "public_key": public_key,
            "comment": key.comment if key else "",
            "fingerprint": key.fingerprint if key else None,
            "key_type": key.type if key else None,
            "created_at": work.now,
            "expires_at": end,
        },
        place.ids if place else None,
    )
    reached: frozenset[int] = frozenset()
    if key is not None:
        if place is not None and place.reached is not None:
            reached = place.reached
            key_owners.claim_free_fingerprint(work.connection, key.fingerprint, made.id)
        else:
            reached = _claim(work, owner, key, made)
        propagation.granted(work, reached, key.fingerprint)
    return made, reached


def _claim(work: Work, owner: int, key: PublicKey, made: UserKey) -> frozenset[int]:
    """Enter the user as the owner of a key, and answer the ids of the servers that the key opens."""
    claimed = key_owners.claiming_fingerprint(work.connection, key.fingerprint, kind="user", user_key_id=made.id)
    reached = grants.servers_of_user(work.connection, owner)
    if not claimed():
        # Somebody in another workspace registered it since it was read; raising undoes our row.
        _refuse_known(work, owner, key)
        raise _taken("This key is in use.")
    return reached


def _refuse_known(work: Work, owner: int, key: PublicKey) -> None:
    """Refuse a key that has an owner; others than that owner learn no name. Raises Refusal TAKEN."""
    known = key_owners.owner_of(work.connection, key.fingerprint)
    if known is None:
        return
    kind, holder = known
    if kind == "deploy":
        words = "This key is a deploy key of a repository. Make a new key pair for yourself."
    elif holder is not None and (unsound := damaged_rows.damaged_user_key(work, holder.id)) is not None:
        # Nobody entered through Keyrack what this row says, so it must not keep the key from its owner.
        damaged_rows.drop(work, unsound)
        return
    elif holder is not None and holder.user_id == owner:
        who = "You" if owner == work.actor.user_id else "The same user"
        called = "" if holder.title is None else f"title {holder.title!r}, "
        words = f"{who} registered this key already: {called}id {holder.id}."
    else:
        words = with_commands(
            "This key is in use by another user. If it is yours, claim it by a signature, or delete it there; "
            "otherwise make a new pair.",
            "keys claim",
        )
    raise _taken(words)


def _taken(words: str) -> Refusal:
    return Refusal(Kind.TAKEN, "key-taken", words, field="public_key")


def _owner_id(actor: Actor, user_id: int | None = None) -> int:
    """Whose key it is: the actor's, or that of the user who is named."""
    owner = actor.user_id if user_id is None else user_id
    if owner is None:
        raise Refusal(Kind.FORBIDDEN, "not-a-user", "Only a user has SSH keys of their own.")
    return owner


def _action(actor: Actor, user_id: int | None, own: str) -> str:
    return own if user_id in (None, actor.user_id) else "people:write"


def _whose_words(actor: Actor, user_id: int | None) -> str:
    return " of their own" if user_id in (None, actor.user_id) else " of another user"


def _other(work: Work, owner: int, *, has_keys: bool = False) -> User | None:
    """The user whose key is touched, None where that is the actor; has_keys: the user gets a key.

    Raises Refusal MISSING or FORBIDDEN.
    """
    if owner == work.actor.user_id:
        return None
    user = own_user(work, owner)
    refuse_exceeding(work, user, has_keys=has_keys)
    if has_keys:
        refuse_disabled(user)
    return user


def _of(whom: User | None) -> str:
    return "" if whom is None else f" of {whom.name}"
