"""What must be known before a credential is entered, asked at once; must decide nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, select

from keyrack.store.engine.prepared import prepared
from keyrack.store.tables import credentials, revocations, servers, system_users


@dataclass(frozen=True, slots=True)
class CredentialPlace:
    """A server on which a credential is to stand, and what is in its way.

    account_id: of the system user, None where the server has none of that name; labelled: whether a credential there
    has the label; refused: whether this host refuses the key.
    """

    id: int
    name: str
    workspace_id: int
    revision: int
    account_id: int | None
    labelled: bool
    refused: bool


def place(
    connection: Connection, workspace_id: int, server_id: int, *, username: str, label: str, fingerprint: str
) -> CredentialPlace | None:
    """Where a credential would stand, None where there is no such server in this workspace."""
    row = _place.row(connection, workspace_id, server_id, username, label, fingerprint)
    return None if row is None else CredentialPlace(**row)


@prepared
def _place(workspace_id: int, server_id: int, username: str, label: str, fingerprint: str) -> Select[Any]:
    named = and_(system_users.c.server_id == servers.c.id, system_users.c.username == username)
    labelled = exists().where(credentials.c.server_id == servers.c.id, credentials.c.label == label)
    refused = exists().where(revocations.c.server_id == servers.c.id, revocations.c.fingerprint == fingerprint)
    return (
        select(
            servers.c.id,
            servers.c.name,
            servers.c.workspace_id,
            servers.c.revision,
            system_users.c.id.label("account_id"),
            labelled.label("labelled"),
            refused.label("refused"),
        )
        .select_from(servers.outerjoin(system_users, named))
        .where(servers.c.id == server_id, servers.c.workspace_id == workspace_id)
    )
