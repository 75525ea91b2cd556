"""A workspace's policy of keys, and the keys that a stricter one would refuse; must decide nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, or_, select

from keyrack.store.engine.prepared import prepared
from keyrack.store.sealing import sealed, sealed_tables
from keyrack.store.tables import credentials, key_policies, servers, system_users, user_keys, users


@dataclass(frozen=True, slots=True)
class KeyPolicyRow:
    """Which keys a workspace accepts. key_types empty, rsa_minimum_bits None: as the service's settings say.

    holds: False if others altered or deleted the row; the other fields are empty then.
    """

    key_types: tuple[str, ...]
    rsa_minimum_bits: int | None
    set_at: datetime | None
    set_by: str
    holds: bool = True


@prepared
def _policy(workspace_id: int) -> Select[Any]:
    return select(key_policies).where(key_policies.c.workspace_id == workspace_id)


def of_workspace(connection: Connection, workspace_id: int) -> KeyPolicyRow | None:
    """The policy of a workspace, None where it never set one."""
    is_missed = sealed_tables.is_missed(connection, key_policies, workspace_id)
    row = _policy.row(connection, workspace_id)
    if row is None:
        return KeyPolicyRow((), None, None, "", holds=False) if is_missed else None
    if not sealed.sound(connection, key_policies, row):
        return KeyPolicyRow((), None, None, "", holds=False)
    return KeyPolicyRow(tuple(row.key_types), row.rsa_minimum_bits, row.set_at, row.set_by)


def put(connection: Connection, workspace_id: int, policy: KeyPolicyRow) -> None:
    """Set the policy of a workspace, in place of any before."""
    was = of_workspace(connection, workspace_id)
    values = {
        "key_types": list(policy.key_types),
        "rsa_minimum_bits": policy.rsa_minimum_bits,
        "set_at": policy.set_at,
        "set_by": policy.set_by,
    }
    if was is not None and was.holds:
        sealed.change(connection, key_policies, sealed.row_of(workspace_id), values=values)
        return
    if was is not None:
        sealed.drop(connection, key_policies, (workspace_id,))
    sealed.insert_row(connection, key_policies, {"workspace_id": workspace_id, **values})


def suspects(
    connection: Connection,
    workspace_id: int,
    types: Collection[str],
    rsa_characters: int,
    *,
    after: tuple[str, int],
    limit: int,
) -> list[Row[Any]]:
    """Users' keys of other types than these, and RSA keys whose line has at most so many characters, in the order of
    their owners' names: id, title, fingerprint, public_key, user. after: owner's name and id of the key before.
    """
    held = user_keys.c
    name, key_id = after
    # In the order of an index, so that no page sorts all keys of the workspace.
    statement = (
        select(held.id, held.title, held.fingerprint, held.public_key, users.c.name.label("user"))
        .where(held.public_key.is_not(None), held.fingerprint.is_not(None))  # with one of them, others altered the row
        .join(users, users.c.id == held.user_id)
        .where(users.c.workspace_id == workspace_id, held.key_type.is_not(None), users.c.disabled_at.is_(None))
        .where(users.c.name >= name, or_(users.c.name > name, held.id > key_id))
        .where(_suspect(held, types, rsa_characters))
        .order_by(users.c.name, held.id)
        .limit(limit)
    )
    return list(connection.execute(statement))


def suspects_on_servers(
    connection: Connection,
    workspace_id: int,
    types: Collection[str],
    rsa_characters: int,
    *,
    after: tuple[int, int],
    limit: int,
) -> list[Row[Any]]:
    """The same for credentials, in the order of servers: id, title (its label), fingerprint, public_key, server_id,
    server, username. after: server id and id of the credential before.
    """
    held = credentials.c
    server_id, credential_id = after
    named = (held.server_id, servers.c.name.label("server"), system_users.c.username)
    statement = (
        select(held.id, held.label.label("title"), held.fingerprint, held.public_key, *named)
        .join(servers, servers.c.id == held.server_id)
        .join(system_users, system_users.c.id == held.system_user_id)
        .where(servers.c.workspace_id == workspace_id, _suspect(held, types, rsa_characters))
        .where(servers.c.id >= server_id, or_(servers.c.id > server_id, held.id > credential_id))
        .order_by(servers.c.id, held.id)
        .limit(limit)
    )
    return list(connection.execute(statement))


def _suspect(held: Any, types: Collection[str], rsa_characters: int) -> Any:
    short = and_(held.key_type == "ssh-rsa", func.length(held.public_key) <= rsa_characters)
    return or_(held.key_type.not_in(types), short)
