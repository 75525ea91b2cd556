"""Decides whose a key is: who signs a challenge with it gets it; must not tell who had it before (decision 131).

The signed text names the user, the key and a nonce, and is made again from the stored challenge when the signature
comes. So a signature counts for that user and key alone, once, and within LIVES.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from keyrack.core import validation
from keyrack.core.instance import Instance
from keyrack.core.keys import possession, propagation, revocation, user_keys
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor, UserKey
from keyrack.ssh.public_key import PublicKey
from keyrack.ssh.sshsig import SignatureProblem
from keyrack.store.keys import challenges, grants, key_owners
from keyrack.store.keys import user_keys as user_key_rows
from keyrack.store.people import users

NAMESPACE = "keyrack-claim"
LIVES = timedelta(minutes=10)
MAX = 20
_NONCE = re.compile(r"^nonce: ([0-9a-f]{32})$", re.MULTILINE)
_UNTIL = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class KeyChallenge:
    """The text to sign, the key's fingerprint, and until when the signature is accepted."""

    text: str
    fingerprint: str
    expires_at: datetime


def challenge(instance: Instance, actor: Actor, public_key: object) -> KeyChallenge:
    """A text for the actor to sign with a key. It does not show whether anybody has the key. Raises Refusal INVALID."""
    with Attempt(instance, actor, user_keys.ADD, "prove that a key is their own", target_kind="user key") as attempt:
        owner = user_keys.person(actor)
        key = validation.public_key(instance, actor.workspace_id, public_key)
        nonce = secrets.token_hex(16)

        def change(work: Work) -> KeyChallenge:
            ends = (work.now + LIVES).replace(microsecond=0)
            challenges.add(
                work.connection,
                user_id=owner,
                fingerprint=key.fingerprint,
                nonce=nonce,
                expires_at=ends,
                now=work.now,
                most=MAX,
            )
            work.no_event("nothing changed yet")
            return KeyChallenge(_text(work, owner, key, nonce, ends), key.fingerprint, ends)

        return attempt.write(change)


def claim(
    instance: Instance, actor: Actor, *, public_key: object, challenge: object, signature: object, title: object = None
) -> UserKey:
    """Make a key the actor's own, by a signature over its challenge; who had it before loses it.

    public_key: one OpenSSH line; challenge: the text; signature: what `ssh-keygen -Y sign -n keyrack-claim` made of it.
    Raises Refusal INVALID, FORBIDDEN for a signature that does not hold, TAKEN for a deploy key or one that is the
    actor's already, LIMIT.
    """
    with Attempt(instance, actor, user_keys.ADD, "claim a key", target_kind="user key") as attempt:
        owner = user_keys.person(actor)
        name = None if title is None else validation.text(title, field="title")
        key = validation.public_key(instance, actor.workspace_id, public_key)
        nonce = _NONCE.search(challenge) if isinstance(challenge, str) and len(challenge) < 10_000 else None
        if nonce is None:
            raise invalid("challenge", "challenge takes the text that POST /keys/challenge answered.")
        if not isinstance(signature, str):
            raise invalid("signature", "signature takes the text of the .sig file.")

        # In a transaction of its own, so that a wrong signature uses the challenge up too.
        def use_up(work: Work) -> str | None:
            work.no_event("a challenge is used once, whatever comes of it")
            ends = challenges.take(work.connection, user_id=owner, fingerprint=key.fingerprint, nonce=nonce[1])
            return None if ends is None or ends <= work.now else _text(work, owner, key, nonce[1], ends)

        text = attempt.write(use_up)
        if text is None:
            words = "This challenge has ended, was used, or is for another user or key. Ask for a new one."
            raise invalid("challenge", words, "challenge-unknown")
        _check(text, key, signature)
        return attempt.write(lambda work: _move(work, owner, name, key))


def _check(text: str, key: PublicKey, signature: str) -> None:
    try:
        holds = possession.proves(signature, key.blob, NAMESPACE, text.encode())
    except SignatureProblem as problem:
        raise invalid("signature", f"This is no signature of ssh-keygen: {problem}.", "signature-malformed") from None
    if not holds:
        words = (
            "This signature was not made with this key over this challenge. Sign the text as it was answered, with "
            f"ssh-keygen -Y sign -n {NAMESPACE}; ask for a new challenge first."
        )
        raise Refusal(Kind.FORBIDDEN, "signature-wrong", words, field="signature")


def _move(work: Work, owner: int, title: str | None, key: PublicKey) -> UserKey:
    revocation.refuse(work, key)
    owned = key_owners.owner_of(work.connection, key.fingerprint)
    holder = None if owned is None else owned[1]
    opened: frozenset[int] = frozenset()
    if holder is not None and holder.user_id != owner:
        opened = grants.servers_of_user(work.connection, holder.user_id)
        user_key_rows.remove_user_key(work.connection, holder.id)
    # enter() refuses what a signature does not change: a deploy key, a key that is the actor's already, too many keys.
    key_row = user_keys.enter(work, owner, title, key)
    fingerprint, name = key.fingerprint, work.actor.name
    details = {"fingerprint": fingerprint, "proof": "signature"}
    if holder is None or holder.user_id == owner:
        work.record(f"{name} added SSH key {fingerprint} by proof of possession", target_id=key_row.id, details=details)
        return key_row
    # Servers that it opened for its former holder refuse it, unless something there lets it in still.
    propagation.withdrawn(work, opened, [(fingerprint, key.canonical)], workspace_id=holder.workspace_id)
    work.record(f"{name} claimed SSH key {fingerprint} by signing a challenge", target_id=key_row.id, details=details)
    former = users.user_names(work.connection, (holder.user_id,)).get(holder.user_id, "?")
    work.record(
        f"SSH key {holder.title or 'without a title'} ({fingerprint}) of {former} was claimed by somebody who proved "
        "to have its private half; it is theirs no longer",
        target_id=holder.id,
        workspace_id=holder.workspace_id,
        level="warning",
        details={**details, "user": former},
    )
    return key_row


def _text(work: Work, owner: int, key: PublicKey, nonce: str, ends: datetime) -> str:
    user = users.user(work.connection, owner)
    assert user is not None
    return (
        "I prove to Keyrack that this SSH key is mine.\n"
        f"user: {user.name} ({user.uid})\n"
        f"key: {key.fingerprint}\n"
        f"nonce: {nonce}\n"
        f"until: {ends.astimezone(UTC).strftime(_UNTIL)}\n"
    )
