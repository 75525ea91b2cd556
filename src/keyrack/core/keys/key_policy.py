"""Whom a stricter policy of keys would hit, before anybody sets it; must change nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from keyrack import policy
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.errors import invalid
from keyrack.model import Actor
from keyrack.policy import KeyRules
from keyrack.ssh.key_problem import KeyProblem
from keyrack.ssh.public_key import read_canonical
from keyrack.store.keys import key_policy

MOST = 500
LONGEST_RSA_BITS = 16384
# Of a line beside the modulus: type, lengths and an exponent of up to eight bytes, in base64.
_AROUND = len("ssh-rsa ") + 48


@dataclass(frozen=True, slots=True)
class Hit:
    """A key that would not be taken any more. user: whose it is; why: in the words of the refusal."""

    user: str
    title: str
    fingerprint: str
    why: str


@dataclass(frozen=True, slots=True)
class Hits:
    """Keys that a policy would hit, by their owners. more: there are more than these."""

    items: tuple[Hit, ...]
    more: bool


def hits(instance: Instance, actor: Actor, *, types: Collection[str], rsa_minimum_bits: object) -> Hits:
    """Which of the users' keys nobody could register under other rules; what is registered stays as it is.

    types: of keys, as `key_types` takes them; rsa_minimum_bits: as the setting of that name. Raises Refusal INVALID.
    """
    with Attempt(instance, actor, "people:read", "see whom a policy of keys would hit", target_kind="key") as attempt:
        bits = rsa_minimum_bits
        if type(bits) is not int or not 0 < bits <= LONGEST_RSA_BITS:
            raise invalid("rsa_minimum_bits", f"Name a number of bits, up to {LONGEST_RSA_BITS}.")
        rules = replace(instance.key_rules, types=frozenset(types), rsa_minimum_bits=bits, blocked=None)
        characters = _AROUND + -(-bits // 6)
        found = attempt.read(
            lambda connection: key_policy.suspects(connection, actor.workspace_id, types, characters, MOST + 1)
        )
        refused = []
        for row in found[:MOST]:
            why = _refusal(row.public_key, rules)
            if why:
                refused.append(Hit(row.user, row.title or "", row.fingerprint, why))
        return Hits(tuple(refused), len(found) > MOST)


def _refusal(line: str, rules: KeyRules) -> str:
    """Why a registered key could not be registered under these rules, "" where it could; its mathematics holds."""
    try:
        problem = policy.key_problem(read_canonical(line), rules)
    except KeyProblem as damaged:
        return str(damaged)
    return "" if problem is None else problem.message
