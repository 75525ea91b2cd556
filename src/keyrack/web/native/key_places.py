"""Keyrack's own API: where one key stands and what it opens; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.keys import key_places, user_keys
from keyrack.web.api import Call
from keyrack.web.native import shapes_key_places as shapes
from keyrack.web.native.calls import endpoint


def show_places_of_key(call: Call, asked: shapes.KeyPlacesAsked) -> shapes.KeyPlaces:
    """Show where a key stands and what it opens, whoever's it is"""
    page = key_places.of_key(call.instance, call.actor, asked.fingerprint, cursor=asked.cursor, limit=asked.per_page)
    return shapes.key_places(page)


ENDPOINTS = (
    endpoint(
        "GET",
        "/keys/places",
        show_places_of_key,
        user_keys.READ,
        asks=shapes.KeyPlacesAsked,
        answers=shapes.KeyPlaces,
    ),
)
