"""Keyrack's own API: proving that a key is the caller's; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.keys import claims, user_keys
from keyrack.web.api import Call
from keyrack.web.native import shapes_keys, shapes_requests
from keyrack.web.native.calls import endpoint


def ask_challenge(call: Call, asked: shapes_requests.ChallengeAsked) -> shapes_requests.Challenge:
    """Get a text to sign with a key, to prove that it is yours; it is valid once, for a few minutes"""
    return shapes_requests.challenge(claims.challenge(call.instance, call.actor, asked.public_key))


def claim_key(call: Call, sent: shapes_requests.Claim) -> shapes_keys.UserKey:
    """Make a key yours by a signature over its challenge, also if another user had it"""
    made = claims.claim(
        call.instance,
        call.actor,
        public_key=sent.public_key,
        challenge=sent.challenge,
        signature=sent.signature,
        title=sent.title,
    )
    return shapes_keys.user_key(made, {made.user_id: call.actor.name}, ())


ENDPOINTS = (
    endpoint(
        "POST",
        "/keys/challenge",
        ask_challenge,
        user_keys.ADD,
        takes=shapes_requests.ChallengeAsked,
        answers=shapes_requests.Challenge,
        status=201,
    ),
    endpoint(
        "POST",
        "/keys/claim",
        claim_key,
        user_keys.ADD,
        takes=shapes_requests.Claim,
        answers=shapes_keys.UserKey,
        status=201,
    ),
)
