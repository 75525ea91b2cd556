"""What must be known before a credential is entered, asked at once; must decide nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, select

from keyrack.model import Actor
from keyrack.store.engine.prepared import Row, prepared
from keyrack.store.keys import barred_keys
from keyrack.store.people.standing import Standing, asking, proofs, taken
from keyrack.store.sealing import sealed_sets
from keyrack.store.tables import credentials, revocations, servers, system_users, users


@dataclass(frozen=True, slots=True)
class CredentialPlace:
    """A server on which a credential is to stand, and what is in its way.

    asking: what is known of who asks, if a user does, as the rows say now; server: what is sealed of it, as
    sealed_sets.locked_servers has it; account_id: of the system user, None where the server has none of that name;
    labelled: whether a credential there has the label; refused: whether this host refuses the key; noted: whether the
    key may be barred from the workspace (store/keys/barred_keys.py); ids: the credential's own.
    """

    asking: Standing
    server: Row
    account_id: int | None
    labelled: bool
    refused: bool
    noted: bool
    ids: sealed_sets.Ids


def place(
    connection: Connection,
    workspace_id: int,
    server_id: int,
    *,
    username: str,
    label: str,
    fingerprint: str,
    at: datetime,
    actor: Actor,
) -> CredentialPlace | None:
    """Where a credential would stand, None where there is no such server in this workspace; nobody else changes the
    server until the end. actor: who asks.
    """
    numbered = sealed_sets.numbers_rows(connection)
    row = _place.row(
        connection,
        workspace_id,
        server_id,
        username,
        label,
        fingerprint,
        at,
        actor.user_id or 0,
        numbered,
        *proofs(actor),
    )
    if row is None:
        return None
    account, labelled, refused, noted = (row.pop(name) for name in ("account_id", "labelled", "refused", "noted"))
    return CredentialPlace(taken(row), row, account, labelled, refused, noted, (row.pop("id_to_give"),))


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
            barred_keys.is_noted(workspace_id, fingerprint, at).label("noted"),
            sealed_sets.id_to_give(credentials, numbered=numbered).label("id_to_give"),
            *asking(user_id, at, token_id, access_key, web_session_id),
        )
        .select_from(servers.outerjoin(system_users, named).outerjoin(users, users.c.id == user_id))
        .where(servers.c.id == server_id, servers.c.workspace_id == workspace_id)
        .with_for_update(of=servers)
    )
