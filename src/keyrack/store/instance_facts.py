"""What a database notes about the instance that it belongs to, such as its key's fingerprint; must hold no secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select
from sqlalchemy.exc import IntegrityError

from keyrack.store.tables import access_keys, credentials, instance_facts, system_users, workspaces

_KEY = "key fingerprint"
_SEALED = "rows are sealed"
_SAMPLE = 50


def key_fingerprint(connection: Connection) -> str | None:
    """The fingerprint of the instance key that this database belongs to; None if none was noted yet."""
    return noted(connection, _KEY)


def claim_for_key(connection: Connection, fingerprint: str) -> str:
    """Note the instance key that this database belongs to, unless one is noted; answers the noted fingerprint."""
    try:
        with connection.begin_nested():
            connection.execute(insert(instance_facts).values(name=_KEY, value=fingerprint))
    except IntegrityError:
        pass  # another process was first
    counts = key_fingerprint(connection)
    assert counts is not None
    return counts


def noted(connection: Connection, name: str) -> str | None:
    """What was noted under a name, or None."""
    return connection.execute(select(instance_facts.c.value).where(instance_facts.c.name == name)).scalar()


def note(connection: Connection, name: str, value: str) -> None:
    """Note a value under a name, in place of any before."""
    connection.execute(delete(instance_facts).where(instance_facts.c.name == name))
    connection.execute(insert(instance_facts).values(name=name, value=value))


def is_in_use(connection: Connection) -> bool:
    """Whether the database has a workspace."""
    return connection.execute(select(workspaces.c.id).limit(1)).first() is not None


def some_access_keys(connection: Connection) -> tuple[tuple[str, bytes], ...]:
    """A few access keys: id and encrypted secret of each."""
    rows = connection.execute(select(access_keys.c.id, access_keys.c.encrypted_secret).limit(_SAMPLE))
    return tuple((row.id, row.encrypted_secret) for row in rows)


def some_rows(connection: Connection, table: Table) -> tuple[Mapping[str, Any], ...]:
    """A few rows of a table; those of credentials with the name of the system user."""
    statement = select(table).limit(_SAMPLE)
    if table is credentials:
        statement = statement.add_columns(system_users.c.username).join(
            system_users, system_users.c.id == credentials.c.system_user_id
        )
    return tuple(dict(row) for row in connection.execute(statement).mappings())


def marked_as_sealed(connection: Connection) -> str | None:
    """The proof, made with the instance key, that the rows of this database were sealed; None if they were not."""
    return noted(connection, _SEALED)


def mark_as_sealed(connection: Connection, proof: str) -> None:
    """Note that the rows of this database are sealed; proof: as marked_as_sealed answers it."""
    connection.execute(delete(instance_facts).where(instance_facts.c.name == _SEALED))
    try:
        with connection.begin_nested():
            connection.execute(insert(instance_facts).values(name=_SEALED, value=proof))
    except IntegrityError:
        pass  # another process was first, with the same key
