"""Keeps a database and the instance key it belongs to together; must never make a second key for a database.

With another key every seal in the database is wrong, no host believes a document, and no token is known: whoever
starts so would see an instance that is empty and ready.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from keyrack.core import sealing
from keyrack.core.instance import Instance
from keyrack.core.instance_key import InstanceKey
from keyrack.store import instance_facts
from keyrack.store.database import Database
from keyrack.store.engine import migrate
from keyrack.store.tables import credentials, user_keys

CHECKPOINT = "audit.checkpoint"
"""In the data folder, beside the instance key: the last checkpoint of the audit log that a service signed here."""


class ForeignKey(ValueError):
    """The data folder's instance key is not the one that the database belongs to."""


class LostDatabase(ValueError):
    """There is an instance key, which is made after the tables of its database, and a database without any."""


def check_database(url: str, path: Path) -> str | None:
    """Before anything is made: whose key is there, its database must be. The revision that it is at; None where no key
    is there, and it was not asked. Raises LostDatabase, DatabaseUnavailable.

    An empty one in its place would look like an instance that is ready, and refuse every token and every host.
    """
    # In this order: another process may be beginning with both just now.
    if not path.exists():
        return None
    found = migrate.current(url)
    if found is None:
        raise LostDatabase(
            f"{path} is there, and its database is not: {make_url(url)!r} is missing or empty. Put it back with "
            "`keyrack restore FILE`, or choose the right --database. To begin with an empty one all the same: "
            "`keyrack apply FILE --new-database`; every host must then be enrolled anew. See docs/recovery.md."
        )
    return found


def check_key(database: Database, path: Path) -> None:
    """Before anything is changed in a database that has tables: its key must be there. Raises ForeignKey, ValueError.

    path: where the instance key is kept.
    """
    known = database.read(instance_facts.key_fingerprint)
    if known is None and not database.read(instance_facts.is_in_use):
        return
    if not path.exists():
        raise ForeignKey(
            f"{path} is missing, and this database belongs to an instance key"
            f"{f' ({known})' if known else ''} already. Put that file there: it lies in the data folder of the "
            "machine that served so far, or where you keep it apart from backups. With a new key no host would "
            "believe this service."
        )
    _refuse_other(known, InstanceKey.load(path), path)


def open_as_owner(database: Database, path: Path, with_key: Callable[[InstanceKey], Instance]) -> Instance:
    """The instance whose key the database belongs to from now on; the key is made where both are new.

    with_key: builds it. Raises as check_key does.
    """
    check_key(database, path)
    found = path.exists()
    key = InstanceKey.load(path)
    instance = with_key(key)
    noted = database.read(instance_facts.key_fingerprint)
    if noted is None and not database.read(lambda connection: _fits(connection, key)):
        raise _unfit(path, key)
    counts = noted or database.write(lambda connection: instance_facts.claim_for_key(connection, key.fingerprint))
    if counts != key.fingerprint and not found:
        path.unlink()  # made a moment ago, while somebody elsewhere made the one that counts
    _refuse_other(counts, key, path)
    return instance


def key_in_use(connection: Connection, path: Path) -> InstanceKey | None:
    """The key with which the rows of a database that is brought up to date are sealed; None where it is not in use yet.

    Raises ForeignKey where the one at this path is not the database's.
    """
    if not instance_facts.is_in_use(connection):
        return None
    key = InstanceKey.load(path)
    noted = instance_facts.key_fingerprint(connection)
    _refuse_other(noted, key, path)
    if noted is None and not _fits(connection, key):
        raise _unfit(path, key)
    return key


def _unfit(path: Path, key: InstanceKey) -> ForeignKey:
    return ForeignKey(
        f"{path} ({key.fingerprint}) is not the instance key that sealed the rows of this database. "
        "Put the right file there: no host would believe this service."
    )


def _refuse_other(known: str | None, key: InstanceKey, path: Path) -> None:
    if known not in (None, key.fingerprint):
        raise ForeignKey(
            f"{path} is another instance's key ({key.fingerprint}); this database belongs to {known}. "
            "Put the right file there, or choose the right --data or --database. Nothing was changed."
        )


def _fits(connection: Connection, key: InstanceKey) -> bool:
    """Whether a database that notes no key yet can be this one's: something it sealed holds, or nothing is sealed."""
    proofs = [
        sealing.holds(key, table, row)
        for table in (user_keys, credentials)
        for row in instance_facts.some_rows(connection, table)
    ]
    for access_key_id, sealed in instance_facts.some_access_keys(connection):
        try:
            proofs.append(bool(key.decrypt(sealed, access_key_id)))
        except InvalidTag:
            proofs.append(False)
    return not proofs or any(proofs)
