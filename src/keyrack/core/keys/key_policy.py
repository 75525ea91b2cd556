"""A workspace's policy of keys: show it, set it, and list the keys that another one would refuse; must judge no key."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from keyrack import policy
from keyrack.core import cursors
from keyrack.core.instance import Instance
from keyrack.core.keys import key_rules
from keyrack.core.validation import KEEP
from keyrack.core.work import Attempt, Work
from keyrack.errors import invalid
from keyrack.model import Actor
from keyrack.policy import KeyRules
from keyrack.setting_values import KEY_TYPES
from keyrack.ssh.key_problem import KeyProblem
from keyrack.ssh.public_key import read_canonical
from keyrack.store.keys import key_policy
from keyrack.store.keys.key_policy import KeyPolicyRow

MAX = 500
LONGEST_RSA_BITS = 16384
# Characters of an RSA key's line beside its modulus: type, and in base64 lengths and an exponent of up to 8 bytes.
_AROUND = len("ssh-rsa ") + 48


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """Which keys a workspace accepts.

    types, rsa_minimum_bits: what holds; own_types, own_bits: what the workspace has set itself, empty or None where it
    goes by the service's settings, which are started_types and started_bits; set_at, set_by: None and "" where it has
    set nothing; damaged: its row was changed in the database, not by Keyrack, and no key is accepted until it is set
    anew.
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
    """A registered key that would be refused.

    user: who registered it, or place: where it was entered, such as deploy on web-1, "" for the other; why: the
    refusal.
    """

    user: str
    place: str
    title: str
    fingerprint: str
    why: str


@dataclass(frozen=True, slots=True)
class Hits:
    """Registered keys that a policy would refuse: users' own by user, then those on servers; next: the cursor of the
    next page, None at the end.
    """

    items: tuple[Hit, ...]
    next: str | None


def get(instance: Instance, actor: Actor) -> KeyPolicy:
    """Which keys the actor's workspace accepts; everybody with an account may see it."""
    with Attempt(instance, actor, "iam:self", "see the policy of keys", target_kind="key policy") as attempt:
        held = attempt.read(lambda connection: key_policy.of_workspace(connection, actor.workspace_id))
        return _shown(instance, held)


def put(instance: Instance, actor: Actor, *, types: object = KEEP, rsa_minimum_bits: object = KEEP) -> KeyPolicy:
    """Set which keys the workspace accepts from now on; registered keys stay. Answers the policy as it is then.

    types: names of key types, None for those of the service, KEEP to leave them as they are; rsa_minimum_bits:
    likewise. A workspace can be stricter than the service, never less strict. Other processes obey within
    kept_policies.FRESH_SECONDS. Raises Refusal INVALID.
    """
    with Attempt(instance, actor, "keys:rule", "set the policy of keys", target_kind="key policy") as attempt:
        named = None if types is KEEP else _types(instance.key_rules, types)
        keeps_bits = rsa_minimum_bits is KEEP
        bits = None if keeps_bits or rsa_minimum_bits is None else _bits(instance.key_rules, rsa_minimum_bits)

        def change(work: Work) -> KeyPolicy:
            stored = key_policy.of_workspace(work.connection, actor.workspace_id)
            if stored is not None and not stored.holds and (named is None or keeps_bits):
                words = "What was set before was changed in the database, not by Keyrack; say both types and bits."
                raise invalid("key_types" if named is None else "rsa_minimum_bits", words)
            old = stored or KeyPolicyRow((), None, None, "")
            new = KeyPolicyRow(
                key_types=old.key_types if named is None else named,
                rsa_minimum_bits=old.rsa_minimum_bits if keeps_bits else bits,
                set_at=work.now,
                set_by=actor.name,
            )
            if old.holds and (old.key_types, old.rsa_minimum_bits) == (new.key_types, new.rsa_minimum_bits):
                work.no_event("as it is already")
                return _shown(instance, stored)
            key_policy.put(work.connection, actor.workspace_id, new)
            before, after = (_shown(instance, one) for one in (stored, new))
            former = "one that was changed in the database, not by Keyrack" if before.damaged else _words(before)
            work.record(
                f"Set the policy of keys: {_words(after)}; before: {former}",
                level="warning",
                details={"before": _details(stored), "after": _details(new)},
            )
            return after

        made = attempt.write(change)
        instance.key_policies.forget(actor.workspace_id)
        return made


def hits(
    instance: Instance,
    actor: Actor,
    *,
    types: object = KEEP,
    rsa_minimum_bits: object = KEEP,
    cursor: str = "",
    limit: int = MAX,
) -> Hits:
    """A page of the registered keys that could not be registered under other rules. It may be short and still have a
    next one.

    types: names of key types, None for those of the service, KEEP for those that hold now; rsa_minimum_bits: likewise;
    cursor: of the page before. Raises Refusal INVALID.
    """
    with Attempt(instance, actor, "people:read", "see whom a policy of keys would hit", target_kind="key") as attempt:
        place: tuple[Any, ...] = cursors.read(cursor, (str, int, int)) if cursor else ("", 0, 0)

        def question(connection: Connection) -> tuple[KeyRules, list[Row[Any]], list[Row[Any]]]:
            now = _shown(instance, key_policy.of_workspace(connection, actor.workspace_id))
            rules = _rules_to_try(instance.key_rules, now, types, rsa_minimum_bits)
            characters = _AROUND + -(-rules.rsa_minimum_bits // 6)
            asked = (connection, actor.workspace_id, rules.types, characters)
            name, server_id, key_id = place
            on_servers = server_id > 0
            own = [] if on_servers else key_policy.suspects(*asked, after=(name, key_id), limit=limit + 1)
            last = (server_id, key_id if on_servers else 0)
            entered = key_policy.suspects_on_servers(*asked, after=last, limit=limit + 1 - len(own))
            return rules, own, entered

        rules, own, entered = attempt.read(question)
        rows = [(row.user, "", row) for row in own]
        rows += [("", f"{row.username} on {row.server}", row) for row in entered]
        places = [(row.user, 0, row.id) for row in own] + [("", row.server_id, row.id) for row in entered]
        following = cursors.write(places[limit - 1]) if len(places) > limit else None
        return Hits(tuple(_hits_among(rows[:limit], rules)), following)


def _rules_to_try(started: KeyRules, now: KeyPolicy, types: object, bits: object) -> KeyRules:
    """The rules that hits() tries out."""
    named = now.types if types is KEEP else started.types if types is None else types
    least = now.rsa_minimum_bits if bits is KEEP else started.rsa_minimum_bits if bits is None else bits
    if not isinstance(named, Collection):
        raise invalid("key_types", "Name types of keys.")
    unknown = sorted(set(named) - set(KEY_TYPES))
    if unknown or (types is not KEEP and not named):
        words = f"There is no key type {unknown[0]!r}. " if unknown else ""
        raise invalid("key_types", f"{words}Name at least one of {', '.join(KEY_TYPES)}.")
    if type(least) is not int or not 0 < least <= LONGEST_RSA_BITS:
        raise invalid("rsa_minimum_bits", f"Name a number of bits, up to {LONGEST_RSA_BITS}.")
    return replace(started, types=frozenset(named), rsa_minimum_bits=least, blocked=None)


def _hits_among(rows: Iterable[tuple[str, str, Row[Any]]], rules: KeyRules) -> Iterable[Hit]:
    for user, place, row in rows:
        why = _problem(row.public_key, rules)
        if why:
            yield Hit(user, place, row.title or "", row.fingerprint, why)


def _problem(public_key: str, rules: KeyRules) -> str:
    """Why a registered key could not be registered under these rules, "" where it could."""
    try:
        problem = policy.key_problem(read_canonical(public_key), rules)
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
