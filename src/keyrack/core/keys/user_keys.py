"""A user's public keys: add, list, delete, one's own or another's; must be reached by every API alike."""

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
MOST_ENDED = 20


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
    """Register a public key of the actor's own, or of another user; returns once that is durable.

    title: at most longest_title characters, or None; public_key: one OpenSSH line, or None where the
    API allows a keyless entry, which authorises nothing. expires_at or duration: an end, as validation.end takes it;
    after it the key is deleted everywhere. user_id: whose key it becomes, None for the actor's; for
    others it takes people:write, and rights that are not less than theirs. Raises Refusal: INVALID for fields, TAKEN
    when the key leads to somebody or something already, LIMIT, MISSING for a user that is not there.
    """
    action, aim = _action(actor, user_id, ADD), "add an SSH key"
    attempt = Attempt(instance, actor, action, f"{aim}{_whose(actor, user_id)}", target_kind="user key")
    with attempt:
        name = None if title is None else validation.text(title, field="title", maximum=longest_title)
        key = None
        if public_key is not None or not keyless:
            key = validation.public_key(instance, actor.workspace_id, public_key)
        elif instance.settings.require_key:
            raise invalid("public_key", "A public key is required.")
        owner = _person(actor, user_id)
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
                f"{_for(whom)}{until}",
                target_id=made.id,
                details={"title": name, "fingerprint": key.fingerprint if key else None},
            )
            return made

        # One's own right to a key is looked at with what is in the key's way.
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
    """Insert a user's key within a unit of work, which leaves the event; whom: the owner where another one acts.

    asked: what is in the way of a key of the actor's own, by which it is seen here that the actor still may. Raises
    Refusal LIMIT, INVALID or TAKEN, and as Work.check_actor_again does.
    """
    most, place = work.instance.settings.max_user_keys, None
    if key is not None:
        if asked is None:
            place = new_user_keys.place(work.connection, work.actor, owner, key.fingerprint, work.now, most=most)
        else:
            place = asked.get(work.connection)
            if not work.instance.joined:
                work.check_actor_again(place.owner)
    if place.full if place else user_keys.count_user_keys(work.connection, owner) >= most:
        who = "You have" if whom is None else f"{whom.name} has"
        words = f"{who} {most} keys, which is the most; delete one first."
        raise Refusal(Kind.LIMIT, "too-many-keys", words)
    if key is not None and place is not None:
        if place.owner.disabled_at is not None:
            # They were shut out while this was on its way: a key would stay that no receipt of that names.
            refuse_disabled(users.user(work.connection, owner))
        if place.ended:
            revocation.refuse(work, key)
        if place.owned:
            _refuse_known(work, owner, key)
    made, reached = _insert(work, owner, title, key, end, place)
    if asked is not None and place is not None and not (place.ended or place.owned):
        asked.entered = reached  # and nothing else was changed
    return made


def owner_name(instance: Instance, key: UserKey) -> str:
    """What the user of a key is called, for who gave it to them just now: no attempt of its own."""
    return instance.database.read(lambda connection: users.user_names(connection, {key.user_id})).get(key.user_id, "?")


def person(actor: Actor) -> int:
    """The user that the actor is; raises Refusal FORBIDDEN for an operator and for Keyrack itself."""
    return _person(actor)


def find(
    instance: Instance, actor: Actor, *, search: str = "", offset: int = 0, limit: int = 20, cursor: str | None = None
) -> Page[UserKey]:
    """A page of the actor's own keys, newest first; search: part of the title, any case; cursor: instead of offset, of
    the page before, "" for the first one.
    """
    attempt = Attempt(instance, actor, READ, "list one's own SSH keys", target_kind="user key")
    with attempt:
        owner = _person(actor)
        after = cursors.place(cursor, int)
        return attempt.read(
            lambda connection: user_keys.find_user_keys(
                connection, owner, search=search, offset=offset, limit=limit, after=after
            )
        )


def find_keyed(instance: Instance, actor: Actor, *, offset: int, limit: int) -> Page[UserKey]:
    """A page of the actor's own keys, newest first, for APIs that know no entry without a key."""
    attempt = Attempt(instance, actor, READ, "list one's own SSH keys", target_kind="user key")
    with attempt:
        owner = _person(actor)
        return attempt.read(
            lambda connection: published_keys.page_of_user(connection, owner, offset=offset, limit=limit)
        )


def get(instance: Instance, actor: Actor, key_id: int) -> UserKey:
    """A key of the actor's own. Raises Refusal MISSING."""
    attempt = Attempt(instance, actor, READ, "see an SSH key of one's own", target_kind="user key", target_id=key_id)
    with attempt:
        owner = _person(actor)
        return attempt.read(lambda connection: lookups.user_key(connection, owner, key_id))


def with_fingerprint(instance: Instance, actor: Actor, fingerprint: str) -> UserKey | None:
    """The actor's own key that has this fingerprint, SHA256:…; None for none."""
    with Attempt(instance, actor, READ, "see an SSH key of one's own", target_kind="user key") as attempt:
        owner = _person(actor)
        owned = attempt.read(lambda connection: key_owners.owner_of(connection, fingerprint))
        key = None if owned is None else owned[1]
        return key if key is not None and key.user_id == owner else None


def end_of(instance: Instance, actor: Actor, fingerprint: str) -> datetime | None:
    """When the end of a key came in the actor's workspace; None where it did not, or nobody knows of such a key."""
    with Attempt(instance, actor, READ, "see whether an SSH key has ended", target_kind="user key") as attempt:
        workspace_id, now = actor.workspace_id, instance.now()
        return attempt.read(lambda connection: expired_keys.end_of(connection, workspace_id, fingerprint, now))


def revoked_at(instance: Instance, actor: Actor, fingerprint: str) -> datetime | None:
    """When a key was revoked everywhere in the actor's workspace; None where it was not, or that was lifted."""
    with Attempt(instance, actor, READ, "see whether an SSH key is revoked", target_kind="user key") as attempt:
        workspace_id = actor.workspace_id
        found = attempt.read(lambda connection: revoked_keys.get(connection, workspace_id, fingerprint))
        return None if found is None else found.revoked_at


def ended(instance: Instance, actor: Actor) -> tuple[EndedKey, ...]:
    """The actor's keys whose end came lately, the last one first; what was registered anew since is among them too."""
    with Attempt(instance, actor, READ, "see which SSH keys of one's own ended", target_kind="user key") as attempt:
        owner, since = _person(actor), instance.now() - ENDED_LATELY
        return attempt.read(lambda connection: expired_keys.of_user(connection, owner, since, MOST_ENDED))


def delete(instance: Instance, actor: Actor, key_id: int, *, user_id: int | None = None) -> UserKey:
    """Delete a key everywhere, and answer it as it was; user_id: whose, as add() has it. Raises Refusal MISSING."""
    with _deleting(instance, actor, key_id, user_id) as attempt:
        owner = _person(actor, user_id)

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
                f"{_for(whom)}{openings.words(still, everywhere=True)}",
                target_id=key.id,
                details={"title": key.title, "fingerprint": key.fingerprint},
            )
            return key

        return attempt.write(change)


def may_delete(instance: Instance, actor: Actor, key_id: int, *, user_id: int | None = None) -> None:
    """Nothing when the actor may delete this key; raises Refusal MISSING or FORBIDDEN as delete() does."""
    with _deleting(instance, actor, key_id, user_id) as attempt:
        owner = _person(actor, user_id)
        attempt.read(lambda connection: lookups.user_key(connection, owner, key_id))


def _deleting(instance: Instance, actor: Actor, key_id: int, user_id: int | None) -> Attempt:
    return Attempt(
        instance,
        actor,
        _action(actor, user_id, DELETE),
        f"delete an SSH key{_whose(actor, user_id)}",
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
    """The key as it was entered, and the servers that it was given to."""
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
    """Have the key lead to its user, and answer the servers that it reaches."""
    claimed = key_owners.claiming_fingerprint(work.connection, key.fingerprint, kind="user", user_key_id=made.id)
    reached = grants.servers_of_user(work.connection, owner)
    if not claimed():
        # Somebody in another workspace took it since we looked; raising undoes our row.
        _refuse_known(work, owner, key)
        raise _taken("This key is in use.")
    return reached


def _refuse_known(work: Work, owner: int, key: PublicKey) -> None:
    """One key leads to one identity; the refusal helps its owner and tells others no name."""
    known = key_owners.owner_of(work.connection, key.fingerprint)
    if known is None:
        return
    kind, holder = known
    if kind == "deploy":
        words = "This key is a deploy key of a repository. Make a new key pair for yourself."
    elif holder is not None and (unsound := damaged_rows.damaged_user_key(work, holder.id)) is not None:
        # Nobody at Keyrack entered what this row says, so it keeps nobody's key from them.
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


def _person(actor: Actor, user_id: int | None = None) -> int:
    """Whose key it is: the actor's, or that of the user who is named."""
    owner = actor.user_id if user_id is None else user_id
    if owner is None:
        raise Refusal(Kind.FORBIDDEN, "not-a-user", "Only a user has SSH keys of their own.")
    return owner


def _action(actor: Actor, user_id: int | None, own: str) -> str:
    return own if user_id in (None, actor.user_id) else "people:write"


def _whose(actor: Actor, user_id: int | None) -> str:
    return " of one's own" if user_id in (None, actor.user_id) else " of another user"


def _other(work: Work, owner: int, *, has_keys: bool = False) -> User | None:
    """The user whose key is touched, where that is not the actor; has_keys: one comes. Raises Refusal MISSING or
    FORBIDDEN.
    """
    if owner == work.actor.user_id:
        return None
    user = own_user(work, owner)
    refuse_exceeding(work, user, has_keys=has_keys)
    if has_keys:
        refuse_disabled(user)
    return user


def _for(whom: User | None) -> str:
    return "" if whom is None else f" of {whom.name}"
