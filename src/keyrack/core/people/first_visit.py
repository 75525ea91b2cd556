"""What a user who comes for the first time still lacks for an ssh login; must change nothing."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from keyrack.core.hosts import ssh_lines, status
from keyrack.core.instance import Instance
from keyrack.core.keys import who_can
from keyrack.core.work import Attempt
from keyrack.model import Actor
from keyrack.store.keys import user_keys
from keyrack.store.people import authenticators

MAX_LINES = 5


@dataclass(frozen=True, slots=True)
class FirstLogin:
    """A login that the user has.

    line: the ssh command; applied: the host says that it obeys its newest document; enforced: the host reads Keyrack's
    keys, which it does not while it only observes.
    """

    server: str
    line: str
    applied: bool
    enforced: bool


@dataclass(frozen=True, slots=True)
class FirstVisit:
    """What a user has by now.

    own_password: they chose the password themselves; keys: how many; places: logins that these open, at most
    MAX_LINES.
    """

    own_password: bool
    keys: int
    places: tuple[FirstLogin, ...]


def get(instance: Instance, actor: Actor) -> FirstVisit:
    """What the actor has by now."""
    with Attempt(instance, actor, "iam:self", "see the first steps", target_kind="user") as attempt:
        user_id = actor.user_id or 0
        key_count = attempt.read(lambda connection: user_keys.count_user_keys(connection, user_id))
        chose_own = chose_password(instance, user_id)
    ways = who_can.find(instance, actor, user=actor.name, limit=50) if key_count else None
    lines: dict[str, FirstLogin] = {}
    for way in ways.items if ways else ():
        text = ssh_lines.line(way.server, way.reason.username)
        applied = not way.server.is_behind
        login = FirstLogin(way.server.name, text, applied=applied, enforced=status.opens(way.server))
        lines.setdefault(text, login)
    return FirstVisit(chose_own, key_count, tuple(lines.values())[:MAX_LINES])


def chose_password(instance: Instance, user_id: int) -> bool:
    """Whether a user chose the password themselves, and not whoever created the account."""
    kinds = (authenticators.OWN_PASSWORD,)
    return instance.database.read(lambda connection: authenticators.any_of_user(connection, user_id, kinds))


def is_first(instance: Instance, user_id: int) -> bool:
    """Whether a user who signed in has neither chosen a password nor registered a key."""

    def question(connection: Connection) -> bool:
        chosen = authenticators.any_of_user(connection, user_id, (authenticators.OWN_PASSWORD,))
        return not chosen and not user_keys.count_user_keys(connection, user_id)

    return instance.database.read(question)
