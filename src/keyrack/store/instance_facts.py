"""What a database knows of the instance it belongs to: which key; must hold no secret."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from keyrack.store.tables import access_keys, credentials, instance_facts, user_keys, workspaces

_KEY = "key fingerprint"
_SAMPLE = 50


def key_fingerprint(connection: Connection) -> str | None:
    """The fingerprint of the instance key that this database belongs to; None where none was noted yet."""
    return connection.execute(select(instance_facts.c.value).where(instance_facts.c.name == _KEY)).scalar()


def claim_for_key(connection: Connection, fingerprint: str) -> str:
    """Note the key that this database belongs to, unless one is noted already; the one that counts."""
    try:
        with connection.begin_nested():
            connection.execute(insert(instance_facts).values(name=_KEY, value=fingerprint))
    except IntegrityError:
        pass  # somebody was first
    counts = key_fingerprint(connection)
    assert counts is not None
    return counts


def is_in_use(connection: Connection) -> bool:
    """Whether there is anything in this database that somebody made."""
    return connection.execute(select(workspaces.c.id).limit(1)).first() is not None


def some_access_keys(connection: Connection) -> tuple[tuple[str, bytes], ...]:
    """A few access keys: the id and the sealed secret of each."""
    rows = connection.execute(select(access_keys.c.id, access_keys.c.sealed_secret).limit(_SAMPLE))
    return tuple((row.id, row.sealed_secret) for row in rows)


def some_user_keys(connection: Connection) -> tuple[tuple[int, str | None, bytes], ...]:
    """A few keys of users: user id, public key and the seal of each."""
    rows = connection.execute(select(user_keys.c.user_id, user_keys.c.public_key, user_keys.c.seal).limit(_SAMPLE))
    return tuple((row.user_id, row.public_key, row.seal) for row in rows)


def a_server_with_credentials(connection: Connection) -> int | None:
    """A server that has keys of its own."""
    return connection.execute(select(credentials.c.server_id).limit(1)).scalar()
