"""Reads in one question what must be known before a credential is added; must decide nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, select

from keyrack.model import Actor
from keyrack.store.engine.prepared import PendingRows, Row, prepared
from keyrack.store.keys import ended_keys
from keyrack.store.keys.key_prefetch import KeyPrefetch
from keyrack.store.people.standing import Standing, pop_standing, proofs, standing_columns
from keyrack.store.sealing import held_servers, sealed_sets, sums
from keyrack.store.tables import credentials, revocations, servers, system_users, users


@dataclass(frozen=True, slots=True)
class CredentialPlace:
    """A server to which a credential is to be added, and what stands in the way.

    asking: the standing of the actor, if that is a user; server: its row as of sealed_sets.locked_servers; account_id:
    of the system user, None if the server has none of that name; labelled: whether a credential there has the label
    already; refused: whether this host refuses the key; ended: whether the key was revoked or expired in the workspace
    (store/keys/ended_keys.py); ids: the id reserved for the credential.
    """

    asking: Standing
    server: Row
    account_id: int | None
    labelled: bool
    refused: bool
    ended: bool
    ids: sealed_sets.Ids


class CredentialPlacePrefetch(KeyPrefetch):
    """The CredentialPlace of a credential, read when wanted or, for several commands together, ahead (a Prefetch).

    An answer that was read ahead is corrected for credentials that were added since: they change the server's row.
    """

    def __init__(
        self,
        workspace_id: int,
        server_id: int,
        *,
        username: str,
        label: str,
        fingerprint: str,
        now: Callable[[], datetime],
        actor: Actor,
    ) -> None:
        """actor: who adds it; now: tells the time when the question is asked."""
        self._asked = (workspace_id, server_id, username, label, fingerprint)
        self._server_id, self._names = server_id, {label, fingerprint}
        self._now, self._actor = now, actor
        self._pending: PendingRows | None = None
        self._within: object = None
        self._server: Mapping[str, Any] = {}
        self.entered: Mapping[str, Any] | None = None
        """The server's row as the command left it, if it added the credential and changed nothing else."""

    def start(self, connection: Connection) -> None:
        """Send the question in this transaction, without waiting."""
        self.discard()
        self._pending = _place.enqueue(connection, *self._question(connection))
        self._within = connection.get_transaction()

    def discard(self) -> None:
        """Drop the answer, which may be outdated."""
        self._pending, self._within, self._server = None, None, {}

    def accounts_for(self, other: object) -> bool:
        """Whether the answer is still right, or can be corrected, after the command of another prefetch."""
        if isinstance(other, CredentialPlacePrefetch) and other._server_id == self._server_id:
            if other.entered is None:
                return False
            self._server = other.entered
            return self._names.isdisjoint(other._names)
        changed = other.changed_servers if isinstance(other, KeyPrefetch) else None
        return changed is not None and self._server_id not in changed

    @property
    def changed_servers(self) -> tuple[int] | None:
        """As KeyPrefetch: the credential's server."""
        return None if self.entered is None else (self._server_id,)

    def get(self, connection: Connection) -> CredentialPlace | None:
        """The place, None if this workspace has no such server. Nobody else changes the server until the transaction
        ends.
        """
        pending, within, server = self._pending, self._within, self._server
        self.discard()
        self.entered = None
        if pending is not None and within is connection.get_transaction():
            row = next(iter(pending.wait(connection)), None)
        else:
            # Commands before it in this transaction may have left the server's row to be written later.
            server = held_servers.held(connection, self._server_id) or {}
            row = _place.row(connection, *self._question(connection))
        if row is None:
            return None
        account, labelled = row.pop("account_id"), row.pop("labelled")
        refused, ended = row.pop("refused"), row.pop("ended")
        if labelled or refused or ended:
            held_servers.write(connection)  # the caller asks more then, which must see these rows
        standing, ids = pop_standing(row), (row.pop("id_to_give"),)
        if server:
            row.update([(name, server[name]) for name in row if name in server])
        return CredentialPlace(standing, row, account, labelled, refused, ended, ids)

    def _question(self, connection: Connection) -> tuple[Any, ...]:
        numbered = sealed_sets.numbers_rows(connection)
        return (*self._asked, self._now(), self._actor.user_id or 0, numbered, *proofs(self._actor))


def server_left(connection: Connection, server_id: int) -> Mapping[str, Any] | None:
    """The server's row as the running command leaves it; None if it did not write it, or not all of it."""
    if held_servers.may_hold(connection):
        return held_servers.held(connection, server_id)
    return sums.last_written(connection, server_id)


@prepared
def _place(
    workspace_id: int,
    server_id: int,
    username: str,
    label: str,
    fingerprint: str,
    at: datetime,
    user_id: int,
    numbered: bool,
    token_id: int | None,
    access_key: str | None,
    web_session_id: int | None,
) -> Select[Any]:
    named = and_(system_users.c.server_id == servers.c.id, system_users.c.username == username)
    labelled = exists().where(credentials.c.server_id == servers.c.id, credentials.c.label == label)
    refused = exists().where(revocations.c.server_id == servers.c.id, revocations.c.fingerprint == fingerprint)
    return (
        select(
            *sealed_sets.locked_columns(),
            system_users.c.id.label("account_id"),
            labelled.label("labelled"),
            refused.label("refused"),
            ended_keys.has_ended(workspace_id, fingerprint, at).label("ended"),
            sealed_sets.id_to_give(credentials, numbered=numbered).label("id_to_give"),
            *standing_columns(user_id, at, token_id, access_key, web_session_id),
        )
        .select_from(servers.outerjoin(system_users, named).outerjoin(users, users.c.id == user_id))
        .where(servers.c.id == server_id, servers.c.workspace_id == workspace_id)
        .with_for_update(of=servers)
    )
