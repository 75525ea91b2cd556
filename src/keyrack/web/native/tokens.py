"""Keyrack's own API: API tokens; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.people import api_tokens, tokens
from keyrack.web.api import Call
from keyrack.web.native import shapes_tokens as shapes
from keyrack.web.native.calls import endpoint
from keyrack.web.native.shapes import Window


def list_tokens(call: Call, asked: Window) -> shapes.TokenPage:
    """List API tokens, oldest first; never the tokens themselves"""
    return shapes.TokenPage.of(tokens.find(call.instance, call.actor, **asked.window()), shapes.token)


def list_tokens_of_instance(call: Call, asked: shapes.InstanceTokensAsked) -> shapes.InstanceTokenPage:
    """List the API tokens of all workspaces, for the owner of the instance"""
    page, names = tokens.find_everywhere(call.instance, call.actor, cursor=asked.cursor, limit=asked.per_page)
    return shapes.InstanceTokenPage.of(page, lambda one: shapes.token_of_instance(one, names))


def show_token(call: Call) -> shapes.Token:
    """Show an API token, never the token itself"""
    return shapes.token(tokens.get(call.instance, call.actor, call.ids["token"]))


def make_token(call: Call, new: shapes.NewToken) -> shapes.MadeToken:
    """Make an API token; its secret is shown only in this answer"""
    made = api_tokens.make(
        call.instance,
        call.actor,
        name=new.name,
        scopes=new.scopes,
        expires_at=new.expires_at,
        duration=new.duration,
        user=new.user,
    )
    return shapes.made_token(made)


def put_token(call: Call, wanted: shapes.WantedToken) -> shapes.StandingToken:
    """Make sure that a user has an API token of this name; makes one if there is none"""
    stands = api_tokens.put(
        call.instance,
        call.actor,
        name=wanted.name,
        scopes=wanted.scopes,
        expires_at=wanted.expires_at,
        user=wanted.user,
    )
    return shapes.standing_token(stands)


def rotate_token(call: Call, wanted: shapes.Rotation) -> shapes.MadeToken:
    """Replace an API token by one with a new secret; the old one stays valid for a while"""
    return shapes.made_token(api_tokens.rotate(call.instance, call.actor, call.ids["token"], overlap=wanted.overlap))


def revoke_token(call: Call) -> None:
    """Revoke an API token"""
    tokens.revoke_id(call.instance, call.actor, call.ids["token"])


ENDPOINTS = (
    endpoint("GET", "/tokens", list_tokens, "people:read", asks=Window, answers=shapes.TokenPage),
    endpoint(
        "GET",
        "/instance/tokens",
        list_tokens_of_instance,
        "people:read",
        asks=shapes.InstanceTokensAsked,
        answers=shapes.InstanceTokenPage,
    ),
    endpoint(
        "POST",
        "/tokens",
        make_token,
        "iam:self",
        takes=shapes.NewToken,
        answers=shapes.MadeToken,
        shown_at="/tokens/{id}",
        status=201,
    ),
    endpoint(
        "PUT",
        "/tokens",
        put_token,
        "iam:self",
        takes=shapes.WantedToken,
        answers=shapes.StandingToken,
        shown_at="/tokens/{id}",
    ),
    endpoint(
        "POST",
        "/tokens/{token}/rotate",
        rotate_token,
        "iam:self",
        takes=shapes.Rotation,
        answers=shapes.MadeToken,
        shown_at="/tokens/{id}",
        status=201,
        first=lambda call: api_tokens.may_rotate(call.instance, call.actor, call.ids["token"]),
    ),
    endpoint("GET", "/tokens/{token}", show_token, "people:read", answers=shapes.Token),
    endpoint("DELETE", "/tokens/{token}", revoke_token, "people:write"),
)
