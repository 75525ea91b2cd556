"""Reads in one question what must be known before a user's key is added; must decide nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, case, exists, func, select

from keyrack.model import Actor
from keyrack.store.engine.group_commit import MAX_COMMANDS
from keyrack.store.engine.prepared import PendingRows, Row, prepared
from keyrack.store.keys import ended_keys, grants
from keyrack.store.keys.key_prefetch import KeyPrefetch
from keyrack.store.people.standing import Standing, pop_standing, proofs, standing_columns
from keyrack.store.rows import ONE_ROW
from keyrack.store.sealing import held_servers, sealed_sets
from keyrack.store.tables import key_owners, user_keys, users


@dataclass(frozen=True, slots=True)
class UserKeyPlace:
    """What stands in the way of a user's new key.

    full: whether the user has as many keys as one may; ended: whether the key was revoked or expired in the workspace
    (store/keys/ended_keys.py); owned: whether it is registered already, by a user or as a deploy key; ids: the id
    reserved for it; owner: the standing of the user, with the actor's proof if they are the actor; reached: the servers
    that the user's grants reach, None if that was not read ahead; if it was, full, ended and owned are False.
    """

    full: bool
    ended: bool
    owned: bool
    ids: sealed_sets.Ids
    owner: Standing
    reached: frozenset[int] | None = None


class UserKeyPlacePrefetch(KeyPrefetch):
    """The UserKeyPlace of a user's own key, read when wanted or, for several commands together, ahead (a Prefetch).

    Ahead it is asked with a lower limit of keys, so that commands before it in the group cannot exceed the real one. An
    answer read ahead counts only if nothing stands in the way; otherwise the question is asked again.
    """

    def __init__(self, actor: Actor, user_id: int, fingerprint: str, *, most: int, now: Callable[[], datetime]) -> None:
        """Arguments as of place(); now: tells the time when the question is asked."""
        self._actor, self._user_id, self._fingerprint = actor, user_id, fingerprint
        self._most, self._now = most, now
        self._pending: tuple[PendingRows, PendingRows] | None = None
        self._within: object = None
        self.entered: frozenset[int] | None = None
        """The servers that the command gave the key to, if it added the key and changed nothing else."""

    @property
    def changed_servers(self) -> frozenset[int] | None:
        """As KeyPrefetch: those that the key was given to."""
        return self.entered

    def start(self, connection: Connection) -> None:
        """Send the questions in this transaction, without waiting."""
        self.discard()
        few = self._most - MAX_COMMANDS
        if few > 0:  # else each command asks for itself
            place_rows = _place.enqueue(connection, *self._question(connection, few))
            self._pending = place_rows, grants.enqueue_servers_of_user(connection, self._user_id)
            self._within = connection.get_transaction()

    def discard(self) -> None:
        """Drop the answers, which may be outdated."""
        self._pending = self._within = None

    def accounts_for(self, other: object) -> bool:
        """Whether the answers are still right after the command of another prefetch."""
        if not isinstance(other, KeyPrefetch) or other.changed_servers is None:
            return False
        return not isinstance(other, UserKeyPlacePrefetch) or other._fingerprint != self._fingerprint

    def get(self, connection: Connection) -> UserKeyPlace:
        """What stands in the key's way. Nobody else in the workspace changes that until the transaction ends."""
        pending, within = self._pending, self._within
        self.discard()
        self.entered = None
        if pending is not None and within is connection.get_transaction():
            row, reached = pending[0].wait(connection)[0], pending[1].wait(connection)
            if not (row["full"] or row["ended"] or row["owned"]):
                if reached:
                    held_servers.write(connection)  # the caller reads the rows of these servers then
                return _found(row, frozenset(one["server_id"] for one in reached))
        held_servers.write(connection)  # the caller asks more then, which must see these rows
        return _found(_row(connection, *self._question(connection, self._most)))

    def _question(self, connection: Connection, most: int) -> tuple[Any, ...]:
        return _asked(connection, self._actor, self._user_id, self._fingerprint, self._now(), most)


def place(
    connection: Connection, actor: Actor, user_id: int, fingerprint: str, at: datetime, *, most: int
) -> UserKeyPlace:
    """What stands in the way of a new key of a user of the actor's workspace; most: how many keys one may have."""
    return _found(_row(connection, *_asked(connection, actor, user_id, fingerprint, at, most)))


def _asked(
    connection: Connection, actor: Actor, user_id: int, fingerprint: str, at: datetime, most: int
) -> tuple[Any, ...]:
    numbered = sealed_sets.numbers_rows(connection)
    return (actor.workspace_id, user_id, fingerprint, at, most, most - 1, numbered, *proofs(actor))


def _row(connection: Connection, *asked: Any) -> Row:
    row = _place.row(connection, *asked)
    assert row is not None  # the question begins with ONE_ROW
    return row


def _found(row: Row, reached: frozenset[int] | None = None) -> UserKeyPlace:
    return UserKeyPlace(row["full"], row["ended"], row["owned"], (row["id_to_give"],), pop_standing(row), reached)


@prepared
def _place(
    workspace_id: int,
    user_id: int,
    fingerprint: str,
    at: datetime,
    most: int,
    before: int,
    numbered: bool,
    token_id: int | None,
    access_key: str | None,
    web_session_id: int | None,
) -> Select[Any]:
    mine = select(user_keys.c.id).where(user_keys.c.user_id == user_id)
    # Keys are counted only once ids have reached the limit, as before nobody can have so many, and only up to it.
    as_many = select(func.max(user_keys.c.id)).scalar_subquery() >= most
    full = case((as_many, mine.limit(1).offset(before).exists()), else_=False)
    owned = exists().where(key_owners.c.fingerprint == fingerprint)
    given = sealed_sets.id_to_give(user_keys, numbered=numbered)
    ended = ended_keys.has_ended(workspace_id, fingerprint, at)
    return select(
        full.label("full"),
        ended.label("ended"),
        owned.label("owned"),
        given.label("id_to_give"),
        *standing_columns(user_id, at, token_id, access_key, web_session_id),
    ).select_from(ONE_ROW.outerjoin(users, users.c.id == user_id))
