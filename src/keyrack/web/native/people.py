"""Keyrack's own API: users, and the caller's own keys; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.keys import user_keys
from keyrack.core.people import named_people, users
from keyrack.model import Role
from keyrack.web.api import Call
from keyrack.web.native import shapes_people as shapes
from keyrack.web.native.calls import endpoint
from keyrack.web.native.shapes import Search


def list_people(call: Call, asked: Search) -> shapes.PersonPage:
    """List users, oldest first"""
    page = named_people.find(call.instance, call.actor, search=asked.search, **asked.window())
    return shapes.PersonPage.of(page, shapes.person)


def show_me(call: Call) -> shapes.Person:
    """Show the user of the token"""
    return shapes.person(users.myself(call.instance, call.actor))


def list_own_keys(call: Call, asked: Search) -> shapes.OwnKeyPage:
    """List your own keys, newest first"""
    return shapes.OwnKeyPage.of(
        user_keys.find(call.instance, call.actor, search=asked.search, **asked.window()), shapes.own_key
    )


def show_own_key(call: Call) -> shapes.OwnKey:
    """Show a key of your own"""
    return shapes.own_key(user_keys.get(call.instance, call.actor, call.ids["key"]))


def add_own_key(call: Call, new: shapes.NewOwnKey) -> shapes.OwnKey:
    """Register a key of your own"""
    made = user_keys.add(
        call.instance,
        call.actor,
        title=new.title,
        public_key=new.public_key,
        expires_at=new.expires_at,
        duration=new.duration,
    )
    return shapes.own_key(made)


def delete_own_key(call: Call) -> None:
    """Delete a key of your own, on all servers and repositories that it opened as yours"""
    user_keys.delete(call.instance, call.actor, call.ids["key"])


def show_person(call: Call) -> shapes.Person:
    """Show a user"""
    return shapes.person(named_people.get(call.instance, call.actor, call.path["person"]))


def put_person(call: Call, change: shapes.PersonChange) -> shapes.Person:
    """Create a user, or change one, with these rights"""
    return _set(call, change, make=True)


def change_person(call: Call, change: shapes.PersonChange) -> shapes.Person:
    """Change a user's rights, or disable or enable the user"""
    return _set(call, change, make=False)


def delete_person(call: Call) -> None:
    """Delete a user: tokens end, and the keys leave every server"""
    named_people.delete(call.instance, call.actor, call.path["person"])


def _set(call: Call, change: shapes.PersonChange, *, make: bool) -> shapes.Person:
    user = named_people.put(
        call.instance,
        call.actor,
        call.path["person"],
        make=make,
        role=None if change.role is None else Role(change.role),
        kind=change.kind,
        policies=change.policies,
        disabled=change.disabled,
    )
    return shapes.person(user)


PERSON, OWN = "/people/{person}", "/people/me/keys"
ENDPOINTS = (
    endpoint("GET", "/people", list_people, "people:read", asks=Search, answers=shapes.PersonPage),
    endpoint("GET", "/people/me", show_me, "iam:self", answers=shapes.Person),
    endpoint("GET", OWN, list_own_keys, user_keys.READ, asks=Search, answers=shapes.OwnKeyPage),
    endpoint(
        "POST",
        OWN,
        add_own_key,
        user_keys.ADD,
        takes=shapes.NewOwnKey,
        answers=shapes.OwnKey,
        shown_at="/people/me/keys/{id}",
        status=201,
    ),
    endpoint("GET", OWN + "/{key}", show_own_key, user_keys.READ, answers=shapes.OwnKey),
    endpoint("DELETE", OWN + "/{key}", delete_own_key, user_keys.DELETE),
    endpoint("GET", PERSON, show_person, "people:read", answers=shapes.Person),
    endpoint("PUT", PERSON, put_person, "people:write", takes=shapes.PersonChange, answers=shapes.Person),
    endpoint("PATCH", PERSON, change_person, "people:write", takes=shapes.PersonChange, answers=shapes.Person),
    endpoint("DELETE", PERSON, delete_person, "people:write"),
)
