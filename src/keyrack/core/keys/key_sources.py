"""The accounts at GitHub and GitLab from which a user's keys are taken; must fetch nothing itself, see key_sync.py."""

from __future__ import annotations

import re

from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.core.keys import user_keys
from keyrack.core.lookups import is_oneself, user_named
from keyrack.core.people.rights import refuse_disabled, refuse_exceeding
from keyrack.core.private_addresses import outgoing_url
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.errors import invalid, missing
from keyrack.model import Actor, User, UserKey
from keyrack.store.keys import key_sources
from keyrack.store.keys import user_keys as user_key_rows
from keyrack.store.keys.key_sources import KeySource

URLS = {"github": "https://github.com", "gitlab": "https://gitlab.com"}
ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
LONGEST_URL = 500
_KIND = "key source"


def find(instance: Instance, actor: Actor, name: str) -> tuple[KeySource, ...]:
    """The sources of a user, given by name. Raises Refusal MISSING or FORBIDDEN."""
    action = user_keys.READ if is_oneself(actor, name) else "people:read"
    with Attempt(instance, actor, action, "see where a user's keys come from", target_kind=_KIND) as attempt:
        user = attempt.read(lambda connection: user_named(connection, actor, name))
        return attempt.read(lambda connection: key_sources.of_user(connection, user.id))


def get(instance: Instance, actor: Actor, name: str, kind: str) -> KeySource:
    """The source of a kind of a user. Raises Refusal as find does, or MISSING."""
    source = next((one for one in find(instance, actor, name) if one.kind == kind), None)
    if source is None:
        raise missing("key source")
    return source


def may_change(instance: Instance, actor: Actor, name: str, *, own: str = user_keys.ADD) -> None:
    """Raises Refusal MISSING or FORBIDDEN where the actor may not change this user's sources.

    own: the action that this takes where the user is the actor.
    """
    with _attempt(instance, actor, name, "change where keys come from", own) as attempt:
        attempt.read(lambda connection: user_named(connection, actor, name))


def put(instance: Instance, actor: Actor, name: str, kind: str, *, account: object, url: object = None) -> KeySource:
    """Take a user's keys also from an account, from now on; replaces the account of the same kind.

    kind: "github" or "gitlab"; account: its name; url: the address of the service, None for github.com or gitlab.com.
    For another user it takes people:write, and no less rights than that user has. Raises Refusal INVALID, MISSING or
    FORBIDDEN.
    """
    with _attempt(instance, actor, name, "name an account to take keys from") as attempt:
        place = _url(instance, kind, url)
        if not isinstance(account, str) or not ACCOUNT.fullmatch(account) or account.endswith((".", ".keys")):
            raise invalid("account", "account takes the name of an account, as it stands in its address.")

        def change(work: Work) -> KeySource:
            user = user_named(work.connection, actor, name)
            refuse_exceeding(work, user, has_keys=True)
            refuse_disabled(user)
            known = {one.kind: one for one in key_sources.of_user(work.connection, user.id)}.get(kind)
            if known is not None and (known.url, known.account) == (place, account):
                work.no_event("named already")
                return known
            # `keys` still names those of the old account, so that the next sync deletes what the new account lacks.
            values = {
                "url": place,
                "account": account,
                "account_id": None,
                "etag": "",
                "state": "new",
                "words": "",
                "next_at": work.now,
            }
            if known is None:
                new = {"workspace_id": user.workspace_id, "user_id": user.id, "kind": kind, "created_at": work.now}
                source_id = key_sources.add(work.connection, {**new, **values, "keys": {}, "checked_at": None})
            else:
                source_id = known.id
                key_sources.change(work.connection, source_id, values)
            work.record(f"Keys of {user.name} come from {account} at {place} too", target_id=source_id)
            source = key_sources.by_id(work.connection, source_id)
            assert source is not None
            return source

        return attempt.write(change)


def delete(instance: Instance, actor: Actor, name: str, kind: str) -> KeySource:
    """Take a user's keys no longer from an account, and delete those that came from it. Answers the source as it was.

    Raises Refusal MISSING or FORBIDDEN.
    """
    with _attempt(instance, actor, name, "end taking keys from an account", user_keys.DELETE) as attempt:

        def change(work: Work) -> KeySource:
            user = user_named(work.connection, actor, name)
            source = next((one for one in key_sources.of_user(work.connection, user.id) if one.kind == kind), None)
            if source is None:
                raise missing("key source")
            refuse_exceeding(work, user)
            held = {key.id for key in _keys(work.connection, user)}
            for key_id in source.keys.values():
                if key_id in held:
                    user_keys.delete(within(work), actor, key_id, user_id=user.id)
            key_sources.remove(work.connection, source.id)
            work.record(f"Keys of {user.name} come from {source.account} at {source.url} no more", target_id=source.id)
            return source

        return attempt.write(change)


def _attempt(instance: Instance, actor: Actor, name: str, aim: str, own: str = user_keys.ADD) -> Attempt:
    """An attempt on the sources of a user, by name; own: the action where the user is the actor."""
    return Attempt(instance, actor, own if is_oneself(actor, name) else "people:write", aim, target_kind=_KIND)


def _keys(connection: Connection, user: User) -> tuple[UserKey, ...]:
    return user_key_rows.keys_of_user(connection, user.id)


def _url(instance: Instance, kind: str, url: object) -> str:
    """The address of a service, without a slash at its end. Raises Refusal INVALID."""
    if kind not in URLS:
        raise invalid("kind", "Keys come from github or gitlab.")
    if url is None:
        return URLS[kind]
    # Without a query: the paths of accounts are put behind it.
    place = outgoing_url(
        instance.settings,
        url,
        setting="key_source_networks",
        words="url takes the https address of a service, such as https://gitlab.example.org.",
        plain_words="Over plain http keys are taken from networks alone",
        longest=LONGEST_URL,
        query=False,
    )
    return place.rstrip("/")
