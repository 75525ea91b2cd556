"""A workspace's policy of keys: shown, set, and whom another one would hit; must judge no key itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from keyrack import policy
from keyrack.core.instance import Instance
from keyrack.core.keys import key_rules
from keyrack.core.validation import KEEP
from keyrack.core.work import Attempt, Work
from keyrack.errors import invalid
from keyrack.model import Actor
from keyrack.policy import KeyRules
from keyrack.ssh.key_problem import KeyProblem
from keyrack.ssh.public_key import read_text
from keyrack.store.keys import key_policy
from keyrack.store.keys.key_policy import KeyPolicyRow

MOST = 500
LONGEST_RSA_BITS = 16384
# Of a line beside the modulus: type, lengths and an exponent of up to eight bytes, in base64.
_AROUND = len("ssh-rsa ") + 48


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """Which keys a workspace accepts. types, rsa_minimum_bits: what holds; own_…: what it said itself, empty or None
    for as the service was started, which is started_…; damaged: others changed it in the database, and no key is taken.
    """

    types: tuple[str, ...]
    rsa_minimum_bits: int
    own_types: tuple[str, ...]
    own_bits: int | None
    started_types: tuple[str, ...]
    started_bits: int
    set_at: datetime | None
    set_by: str
    damaged: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """A key that would not be taken any more. user: whose it is, or place: where it was entered, such as deploy on
    web-1; why: in the words of the refusal.
    """

    user: str
    place: str
    title: str
    fingerprint: str
    why: str


@dataclass(frozen=True, slots=True)
class Hits:
    """Keys that a policy would hit: users' own by their owners, then those entered on servers. more: there are more."""

    items: tuple[Hit, ...]
    more: bool


def get(instance: Instance, actor: Actor) -> KeyPolicy:
    """What the actor's workspace accepts; everybody with an account may know."""
    with Attempt(instance, actor, "iam:self", "see the policy of keys", target_kind="key policy") as attempt:
        held = attempt.read(lambda connection: key_policy.of_workspace(connection, actor.workspace_id))
        return _shown(instance, held)


def put(instance: Instance, actor: Actor, *, types: object = KEEP, rsa_minimum_bits: object = KEEP) -> KeyPolicy:
    """Say which keys the workspace accepts from now on; what is registered stays. Answers the policy as it is then.

    types: names of types of keys, None for those that the service accepts, KEEP for those of now; rsa_minimum_bits:
    likewise. A workspace asks for more than the service was started with, never for less. Other processes obey it
    within kept_policies.FRESH_SECONDS. Raises Refusal INVALID.
    """
    with Attempt(instance, actor, "keys:rule", "set the policy of keys", target_kind="key policy") as attempt:
        named = None if types is KEEP else _types(instance.key_rules, types)
        keeps_bits = rsa_minimum_bits is KEEP
        bits = None if keeps_bits or rsa_minimum_bits is None else _bits(instance.key_rules, rsa_minimum_bits)

        def change(work: Work) -> KeyPolicy:
            was = key_policy.of_workspace(work.connection, actor.workspace_id)
            if was is not None and not was.holds and (named is None or keeps_bits):
                words = "What was set before was changed in the database, not by Keyrack; say both types and bits."
                raise invalid("key_types" if named is None else "rsa_minimum_bits", words)
            held = was or KeyPolicyRow((), None, None, "")
            now = KeyPolicyRow(
                key_types=held.key_types if named is None else named,
                rsa_minimum_bits=held.rsa_minimum_bits if keeps_bits else bits,
                set_at=work.now,
                set_by=actor.name,
            )
            if held.holds and (held.key_types, held.rsa_minimum_bits) == (now.key_types, now.rsa_minimum_bits):
                work.no_event("as it is already")
                return _shown(instance, was)
            key_policy.put(work.connection, actor.workspace_id, now)
            before, after = (_shown(instance, one) for one in (was, now))
            former = "one that was changed in the database, not by Keyrack" if before.damaged else _words(before)
            work.record(
                f"Set the policy of keys: {_words(after)}; before: {former}",
                level="warning",
                details={"before": _details(was), "after": _details(now)},
            )
            return after

        made = attempt.write(change)
        instance.key_policies.forget(actor.workspace_id)
        return made


def hits(instance: Instance, actor: Actor, *, types: object = KEEP, rsa_minimum_bits: object = KEEP) -> Hits:
    """Which registered keys nobody could register under other rules; what is registered stays as it is.

    types: of keys, None for those that the service accepts, KEEP for those of now; rsa_minimum_bits: likewise. Raises
    Refusal INVALID.
    """
    with Attempt(instance, actor, "people:read", "see whom a policy of keys would hit", target_kind="key") as attempt:

        def question(connection: Connection) -> tuple[KeyRules, list[Row[Any]], list[Row[Any]]]:
            now = _shown(instance, key_policy.of_workspace(connection, actor.workspace_id))
            rules = _tried(instance.key_rules, now, types, rsa_minimum_bits)
            characters = _AROUND + -(-rules.rsa_minimum_bits // 6)
            asked = (connection, actor.workspace_id, rules.types, characters, MOST + 1)
            return rules, key_policy.suspects(*asked), key_policy.suspects_on_servers(*asked)

        rules, own, entered = attempt.read(question)
        refused = [
            *_refused(((row.user, "", row) for row in own), rules),
            *_refused((("", f"{row.username} on {row.server}", row) for row in entered), rules),
        ]
        return Hits(tuple(refused[:MOST]), max(len(own), len(entered), len(refused)) > MOST)


def _tried(started: KeyRules, now: KeyPolicy, types: object, bits: object) -> KeyRules:
    """The rules that are tried out, as hits has them."""
    named = now.types if types is KEEP else started.types if types is None else types
    least = now.rsa_minimum_bits if bits is KEEP else started.rsa_minimum_bits if bits is None else bits
    if not isinstance(named, Collection):
        raise invalid("key_types", "Name types of keys.")
    if type(least) is not int or not 0 < least <= LONGEST_RSA_BITS:
        raise invalid("rsa_minimum_bits", f"Name a number of bits, up to {LONGEST_RSA_BITS}.")
    return replace(started, types=frozenset(named), rsa_minimum_bits=least, blocked=None)


def _refused(rows: Iterable[tuple[str, str, Row[Any]]], rules: KeyRules) -> Iterable[Hit]:
    for user, place, row in rows:
        why = _refusal(row.public_key, rules)
        if why:
            yield Hit(user, place, row.title or "", row.fingerprint, why)


def _refusal(line: str, rules: KeyRules) -> str:
    """Why a registered key could not be registered under these rules, "" where it could; its mathematics holds."""
    try:
        problem = policy.key_problem(read_text(line), rules)
    except KeyProblem as damaged:
        return str(damaged)
    return "" if problem is None else problem.message


def _types(rules: KeyRules, types: object) -> tuple[str, ...]:
    if types is None:
        return ()
    if not isinstance(types, Collection) or not types:
        raise invalid("key_types", "Name at least one type of keys; leave it out for those that the service accepts.")
    others = sorted(set(types) - rules.types)
    if others:
        words = f"The service was started to accept {', '.join(sorted(rules.types))} alone (key_types)."
        raise invalid("key_types", words, "key-type-not-allowed")
    return tuple(sorted(set(types)))


def _bits(rules: KeyRules, bits: object) -> int:
    least = rules.rsa_minimum_bits
    if type(bits) is not int or not least <= bits <= LONGEST_RSA_BITS:
        words = f"rsa_minimum_bits takes {least}, with which the service was started, to {LONGEST_RSA_BITS}."
        raise invalid("rsa_minimum_bits", words)
    return bits


def _shown(instance: Instance, held: KeyPolicyRow | None) -> KeyPolicy:
    started = instance.key_rules
    counts = held if held is not None and held.holds else None
    rules = key_rules.stricter(started, counts)
    return KeyPolicy(
        types=tuple(sorted(rules.types)),
        rsa_minimum_bits=rules.rsa_minimum_bits,
        own_types=counts.key_types if counts else (),
        own_bits=counts.rsa_minimum_bits if counts else None,
        started_types=tuple(sorted(started.types)),
        started_bits=started.rsa_minimum_bits,
        set_at=counts.set_at if counts else None,
        set_by=counts.set_by if counts else "",
        damaged=held is not None and not held.holds,
    )


def _words(shown: KeyPolicy) -> str:
    return f"{', '.join(shown.types) or 'no type'}, RSA of at least {shown.rsa_minimum_bits} bits"


def _details(held: KeyPolicyRow | None) -> dict[str, Any] | None:
    if held is None or not held.holds:
        return None
    return {"key_types": list(held.key_types), "rsa_minimum_bits": held.rsa_minimum_bits}
