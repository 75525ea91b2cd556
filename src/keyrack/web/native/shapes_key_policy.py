"""The policy of keys: what its calls take and answer; must call no use case."""

from __future__ import annotations

from typing import Annotated

from keyrack.core.keys.key_policy import Hits as HitsRecord
from keyrack.core.keys.key_policy import KeyPolicy as PolicyRecord
from keyrack.web.native.shapes import (
    Answer,
    CursorWindow,
    Fingerprint,
    Flag,
    NextCursor,
    Request,
    Time,
    about,
    time_or_null,
)

AS_STARTED = "any"
_TYPES = ["ssh-ed25519", "sk-ssh-ed25519@openssh.com"]


class KeyPolicyChange(Request):
    """What is left out stays; null: as the service was started."""

    key_types: Annotated[
        list[str] | None, about("The types of keys that are accepted, of started_key_types.", _TYPES)
    ] = None
    rsa_minimum_bits: Annotated[int | None, about("The shortest RSA key, at least the service's.", 3072)] = None


class HitsAsked(CursorWindow):
    """The policy that is tried; what is left out is as it holds now, any: as the service was started."""

    key_types: Annotated[str | None, about("Types of keys, with commas between; or any.", "ssh-ed25519")] = None
    rsa_minimum_bits: Annotated[str | None, about("The shortest RSA key, in bits; or any.", "3072")] = None


class KeyPolicy(Answer):
    """Which keys a workspace accepts."""

    key_types: Annotated[list[str], about("The types of keys that are accepted.", _TYPES)]
    rsa_minimum_bits: Annotated[int, about("The shortest RSA key.", 3072)]
    set_key_types: Annotated[list[str] | None, about("The workspace's own setting; null: the service's.", None)]
    set_rsa_minimum_bits: Annotated[int | None, about("The workspace's own setting; null: the service's.", 3072)]
    started_key_types: Annotated[list[str], about("What the service was started to accept.", [*_TYPES, "ssh-rsa"])]
    started_rsa_minimum_bits: Annotated[int, about("The shortest RSA key that it was started to accept.", 2048)]
    set_at: Annotated[Time | None, about("When it was set; null: never.")]
    set_by: Annotated[str | None, about("By whom.", "olga")]
    damaged: Annotated[Flag, about("Whether others changed it in the database; no key is taken then.", False)]


class KeyPolicyHit(Answer):
    """A key that could not be registered."""

    user: Annotated[str | None, about("Whose it is; null for one that was entered on a server.", "alice")]
    place: Annotated[str | None, about("Where it was entered; null for a user's own.", "deploy on web-1")]
    title: Annotated[str, about("Its title or label.", "laptop")]
    fingerprint: Annotated[Fingerprint, about("Its fingerprint.")]
    words: Annotated[str, about("Why, for people.", "This RSA key has 2048 bits; at least 3072 are required.")]


class KeyPolicyHits(Answer):
    """The keys that a policy would hit."""

    items: Annotated[list[KeyPolicyHit], about("Users' own keys by user, then those entered on servers.")]
    next: NextCursor


def policy(one: PolicyRecord) -> KeyPolicy:
    """A policy, with what it is made of."""
    return KeyPolicy(
        key_types=list(one.types),
        rsa_minimum_bits=one.rsa_minimum_bits,
        set_key_types=list(one.own_types) or None,
        set_rsa_minimum_bits=one.own_bits,
        started_key_types=list(one.started_types),
        started_rsa_minimum_bits=one.started_bits,
        set_at=time_or_null(one.set_at),
        set_by=one.set_by or None,
        damaged=one.damaged,
    )


def hits(record: HitsRecord) -> KeyPolicyHits:
    """What a policy would hit."""
    items = [
        KeyPolicyHit(
            user=one.user or None,
            place=one.place or None,
            title=one.title,
            fingerprint=one.fingerprint,
            words=one.why,
        )
        for one in record.items
    ]
    return KeyPolicyHits(items=items, next=record.next)
