"""Says where one key stands and what it opens, whoever's it is; must change nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection

from keyrack import policy
from keyrack.core import cursors, validation
from keyrack.core.git import repositories
from keyrack.core.hosts import refused_logins
from keyrack.core.instance import Instance
from keyrack.core.keys import access, user_keys, who_can
from keyrack.core.keys.who_can import Way
from keyrack.core.work import Attempt
from keyrack.errors import missing
from keyrack.model import Actor, Credential, UnmanagedKey, UserKey
from keyrack.store.hosts import servers
from keyrack.store.keys import expired_keys, key_owners, key_places, revoked_keys, uses
from keyrack.store.keys.key_places import PlaceOfDeployKey
from keyrack.store.people import users

PER_PAGE = 50
PlaceKind = Literal["user key", "grant", "credential", "unmanaged key", "deploy key"]


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """One place of a key: registered by a user; on a server by a grant to that user, as a credential, or in a file
    that the host found; a deploy key of a repository.

    id: of the row of that kind, for a grant the grant's; name: the key's title or label, or the file's path; user: who
    registered the key there; system_user: "*" where a file counts for every account; delivered: whether the host
    applied it, None where no host has to; refused: why sshd refuses it there all the same, by the host's word, "" where
    it does not, None where the host has not said; frozen: it opens nothing new there; last_used_at: on this server,
    for a user's key anywhere.
    """

    kind: PlaceKind
    id: int
    name: str | None
    created_at: datetime
    user: str | None = None
    server_id: int | None = None
    server: str | None = None
    system_user: str | None = None
    repository: str | None = None
    delivered: bool | None = None
    refused: str | None = None
    frozen: bool = False
    can_push: bool | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyPlaces:
    """A page of a key's places.

    next: the cursor of the next page, None at the end; revoked_at: when the key was revoked everywhere, None where it
    is not; ended_at: when it reached its end, None where it did not.
    """

    fingerprint: str
    items: tuple[KeyPlace, ...]
    next: str | None
    revoked_at: datetime | None
    ended_at: datetime | None


def of_key(
    instance: Instance, actor: Actor, fingerprint: object, *, cursor: str = "", limit: int = PER_PAGE
) -> KeyPlaces:
    """A page of the places of a key, as far as the actor may see them: users' keys, grants, credentials, files of
    hosts and deploy keys, in this order. It may be short and still have a next one.

    cursor: of the page before. Raises Refusal FORBIDDEN, INVALID, or MISSING where the actor may see no place of the
    key, and it was neither revoked nor has ended.
    """
    with Attempt(instance, actor, user_keys.READ, "see where a key opens", target_kind="key") as attempt:
        key = validation.fingerprint(fingerprint)
        number, after = cursors.read(cursor, (int, str)) if cursor else (0, "")
        if not isinstance(number, int) or number not in range(len(_KINDS)):
            raise cursors.no_cursor()
        asked = attempt.read(lambda connection: _asked(attempt, connection, key))
        items, following = _from(asked, number, str(after), limit)
        if not items and not cursor and asked.revoked_at is None and asked.ended_at is None:
            raise missing("key")
        return KeyPlaces(key, tuple(items), following, asked.revoked_at, asked.ended_at)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A key that is asked about, and by whom.

    owner: the key as a user registered it, and that user's name, None where the actor may not see that; uses: when it
    was last used, by server, None for Git, newest first.
    """

    attempt: Attempt
    fingerprint: str
    owner: tuple[UserKey, str] | None
    uses: Mapping[int | None, datetime]
    revoked_at: datetime | None
    ended_at: datetime | None

    @property
    def actor(self) -> Actor:
        return self.attempt.actor

    def may(self, action: str) -> bool:
        return policy.may(self.actor, action) is None


def _asked(attempt: Attempt, connection: Connection, fingerprint: str) -> _Asked:
    workspace_id = attempt.actor.workspace_id
    used = uses.of_keys(connection, workspace_id, [fingerprint]).get(fingerprint, ())
    revoked = revoked_keys.get(connection, workspace_id, fingerprint)
    return _Asked(
        attempt,
        fingerprint,
        owner=_owner(attempt.actor, connection, fingerprint),
        uses={use.server_id: use.at for use in used},
        revoked_at=None if revoked is None else revoked.revoked_at,
        ended_at=expired_keys.end_of(connection, workspace_id, fingerprint, attempt.instance.now()),
    )


def _owner(actor: Actor, connection: Connection, fingerprint: str) -> tuple[UserKey, str] | None:
    owned = key_owners.owner_of(connection, fingerprint)
    key = None if owned is None else owned[1]
    if key is None or key.workspace_id != actor.workspace_id:
        return None
    if key.user_id != actor.user_id and policy.may(actor, "people:read") is not None:
        return None
    user = users.user(connection, key.user_id)
    return None if user is None else (key, user.name)


_Page = tuple[list[KeyPlace], str | None]
"""Places of one kind, and where the next page of that kind begins, None at the end."""


def _from(asked: _Asked, kind: int, after: str, limit: int) -> _Page:
    """So many places from a kind on, and the cursor of what follows."""
    items: list[KeyPlace] = []
    for number in range(kind, len(_KINDS)):
        if len(items) == limit:
            more = next((rest for rest in range(number, len(_KINDS)) if any(_KINDS[rest](asked, "", 1))), None)
            return items, None if more is None else cursors.write((more, ""))
        found, following = _KINDS[number](asked, after, limit - len(items))
        items += found
        if following is not None:
            return items, cursors.write((number, following))
        after = ""
    return items, None


def _of_user(asked: _Asked, after: str, limit: int) -> _Page:
    if asked.owner is None:
        return [], None
    key, name = asked.owner
    place = KeyPlace(
        kind="user key",
        id=key.id,
        name=key.title,
        created_at=key.created_at,
        user=name,
        frozen=key.frozen,
        expires_at=key.expires_at,
        last_used_at=next(iter(asked.uses.values()), None),
    )
    return [place], None


def _granted(asked: _Asked, after: str, limit: int) -> _Page:
    if asked.owner is None or not (asked.owner[0].user_id == asked.actor.user_id or asked.may("access:read")):
        return [], None
    key, owner = asked.owner
    ways = who_can.find(
        asked.attempt.instance, asked.actor, user=owner, fingerprint=asked.fingerprint, cursor=after, limit=limit
    )
    # Of oneself the ways in tell credentials, too, to who sees no list of them.
    told = [way for way in ways.items if way.reason.grant is not None or not asked.may("credentials:read")]
    return [_of_way(way, key) for way in told], ways.next


def _of_way(way: Way, key: UserKey) -> KeyPlace:
    opened_by = way.reason.credential or way.reason.grant
    assert opened_by is not None
    granted = way.reason.grant is not None
    return KeyPlace(
        kind="grant" if granted else "credential",
        id=opened_by.id,
        name=key.title if granted else way.reason.name,
        created_at=way.reason.entered_at,
        user=way.user if granted else None,
        server_id=way.server.id,
        server=way.server.name,
        system_user=way.reason.username,
        delivered=not way.server.is_behind,
        refused=way.refused,
        expires_at=way.reason.expires_at,
        last_used_at=way.last_used_at,
    )


def _registered(asked: _Asked, after: str, limit: int) -> _Page:
    if not asked.may("credentials:read"):
        return [], None

    def question(connection: Connection) -> _Page:
        page = key_places.credentials_after(
            connection,
            asked.actor.workspace_id,
            asked.fingerprint,
            asked.attempt.instance.now(),
            after=_number(after),
            limit=limit + 1,
        )
        on = servers.by_ids(connection, {one.server_id for one in page})
        places = [
            KeyPlace(
                kind="credential",
                id=one.id,
                name=one.label,
                created_at=one.created_at,
                server_id=one.server_id,
                server=on[one.server_id].name,
                system_user=one.username,
                delivered=one.acknowledged,
                refused=refused_logins.of(on[one.server_id]).why(one.username, one.fingerprint),
                frozen=access.is_frozen(on[one.server_id], one, break_glass=bool(one.break_glass)),
                expires_at=one.expires_at,
                last_used_at=asked.uses.get(one.server_id),
            )
            for one in page[:limit]
            if one.server_id in on
        ]
        return places, _following(page, limit)

    return asked.attempt.read(question)


def _found(asked: _Asked, after: str, limit: int) -> _Page:
    if not asked.may("credentials:read"):
        return [], None

    def question(connection: Connection) -> _Page:
        page = key_places.unmanaged_keys_after(
            connection, asked.actor.workspace_id, asked.fingerprint, after=_number(after), limit=limit + 1
        )
        on = servers.by_ids(connection, {one.server_id for one in page})
        places = [
            KeyPlace(
                kind="unmanaged key",
                id=one.id,
                name=one.path,
                created_at=one.found_at,
                server_id=one.server_id,
                server=on[one.server_id].name,
                system_user=one.username,
                last_used_at=asked.uses.get(one.server_id),
            )
            for one in page[:limit]
            if one.server_id in on
        ]
        return places, _following(page, limit)

    return asked.attempt.read(question)


def _in_repositories(asked: _Asked, after: str, limit: int) -> _Page:
    if not asked.may(repositories.READ):
        return [], None

    def question(connection: Connection) -> _Page:
        page = key_places.deploy_keys_after(
            connection, asked.actor.workspace_id, asked.fingerprint, after=_number(after), limit=limit + 1
        )
        places = [
            KeyPlace(
                kind="deploy key",
                id=one.id,
                name=one.title,
                created_at=one.created_at,
                repository=one.repository,
                can_push=one.can_push,
                last_used_at=one.last_used_at,
            )
            for one in page[:limit]
            if repositories.in_project(connection, asked.actor, one.project_id)
        ]
        return places, _following(page, limit)

    return asked.attempt.read(question)


_KINDS: tuple[Callable[[_Asked, str, int], _Page], ...] = (_of_user, _granted, _registered, _found, _in_repositories)


def _following(page: Sequence[Credential | UnmanagedKey | PlaceOfDeployKey], limit: int) -> str | None:
    """After which id the next page begins, None where there is none; page: with one more than is shown."""
    return cursors.write((page[limit - 1].id,)) if len(page) > limit else None


def _number(after: str) -> int:
    """The id that _following wrote, 0 at the beginning. Raises Refusal INVALID for another text."""
    return int(str(cursors.read(after, (int,))[0])) if after else 0
