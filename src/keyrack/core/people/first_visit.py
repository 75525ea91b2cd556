"""What somebody who comes for the first time still lacks for an ssh login; must change nothing."""

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

MOST_LINES = 5


@dataclass(frozen=True, slots=True)
class FirstLogin:
    """A login that the person has. line: the command to type; applied: whether the host says that it obeys already;
    enforced: whether the host's mode lets anybody in by it, which it does not while the host only observes.
    """

    server: str
    line: str
    applied: bool
    enforced: bool


@dataclass(frozen=True, slots=True)
class FirstVisit:
    """What somebody has by now. own_password: whether the person chose it; keys: how many; places: where they log in
    with these, at most MOST_LINES.
    """

    own_password: bool
    keys: int
    places: tuple[FirstLogin, ...]


def get(instance: Instance, actor: Actor) -> FirstVisit:
    """How far the actor is."""
    with Attempt(instance, actor, "iam:self", "see the first steps", target_kind="user") as attempt:
        user_id = actor.user_id or 0
        count = attempt.read(lambda connection: user_keys.count_user_keys(connection, user_id))
        own = chose_password(instance, user_id)
    found = who_can.find(instance, actor, user=actor.name, limit=50) if count else None
    lines: dict[str, FirstLogin] = {}
    for way in found.items if found else ():
        text = ssh_lines.line(way.server, way.reason.username)
        applied = not way.server.is_behind
        login = FirstLogin(way.server.name, text, applied=applied, enforced=status.opens(way.server))
        lines.setdefault(text, login)
    return FirstVisit(own, count, tuple(lines.values())[:MOST_LINES])


def chose_password(instance: Instance, user_id: int) -> bool:
    """Whether a user chose the password, rather than who made the account."""
    kinds = (authenticators.OWN_PASSWORD,)
    return instance.database.read(lambda connection: authenticators.any_of_user(connection, user_id, kinds))


def is_first(instance: Instance, user_id: int) -> bool:
    """Whether somebody who signed in has neither a password of their own choice nor a key."""

    def question(connection: Connection) -> bool:
        chosen = authenticators.any_of_user(connection, user_id, (authenticators.OWN_PASSWORD,))
        return not chosen and not user_keys.count_user_keys(connection, user_id)

    return instance.database.read(question)
