"""Keyrack's own API: the keys of the workspace's users; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.keys import last_uses, standing_user_keys, user_keys
from keyrack.web.api import Call
from keyrack.web.native import shapes_keys, shapes_people
from keyrack.web.native.calls import endpoint
from keyrack.web.native.shapes import Window


def list_user_keys(call: Call, asked: shapes_keys.UserKeysAsked) -> shapes_keys.UserKeyPage:
    """List the keys of the workspace's users, newest first, each with its last uses"""
    return _page(call, asked.user, asked)


def list_keys_of_person(call: Call, asked: Window) -> shapes_keys.UserKeyPage:
    """List the keys of a user, newest first, each with its last uses"""
    return _page(call, call.path["person"], asked)


def put_own_key(call: Call, wanted: shapes_people.WantedKey) -> shapes_people.OwnKey:
    """Make sure that you have a key; registers it if you have not"""
    return _put(call, None, wanted)


def put_key_of_person(call: Call, wanted: shapes_people.WantedKey) -> shapes_people.OwnKey:
    """Make sure that a user has a key; registers it if they have not"""
    return _put(call, call.path["person"], wanted)


def delete_key_of_person(call: Call) -> None:
    """Delete a key of a user, on all servers and repositories that it opened as theirs"""
    standing_user_keys.delete(call.instance, call.actor, call.path["person"], call.ids["key"])


def _page(call: Call, user: str | None, asked: Window) -> shapes_keys.UserKeyPage:
    page, names, used = last_uses.user_keys(call.instance, call.actor, user=user, **asked.window())
    return shapes_keys.UserKeyPage.of(
        page, lambda key: shapes_keys.user_key(key, names, used.get(key.fingerprint or "", ()))
    )


def _put(call: Call, person: str | None, wanted: shapes_people.WantedKey) -> shapes_people.OwnKey:
    made = standing_user_keys.put(
        call.instance,
        call.actor,
        person=person,
        title=wanted.title,
        public_key=wanted.public_key,
        expires_at=wanted.expires_at,
    )
    return shapes_people.own_key(made)


OWN, OF_PERSON = "/people/me/keys", "/people/{person}/keys"
ENDPOINTS = (
    endpoint(
        "GET",
        "/user-keys",
        list_user_keys,
        "people:read",
        asks=shapes_keys.UserKeysAsked,
        answers=shapes_keys.UserKeyPage,
    ),
    endpoint(
        "PUT",
        OWN,
        put_own_key,
        user_keys.ADD,
        takes=shapes_people.WantedKey,
        answers=shapes_people.OwnKey,
        shown_at="/people/me/keys/{id}",
    ),
    endpoint("GET", OF_PERSON, list_keys_of_person, "people:read", asks=Window, answers=shapes_keys.UserKeyPage),
    endpoint(
        "PUT",
        OF_PERSON,
        put_key_of_person,
        "people:write",
        takes=shapes_people.WantedKey,
        answers=shapes_people.OwnKey,
    ),
    endpoint(
        "DELETE",
        OF_PERSON + "/{key}",
        delete_key_of_person,
        "people:write",
        first=lambda call: standing_user_keys.may_delete(
            call.instance, call.actor, call.path["person"], call.ids["key"]
        ),
    ),
)
