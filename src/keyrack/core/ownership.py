"""Keeps a database with the instance key that it belongs to; must never make a second key for a database.

With another key every seal in the database is wrong, hosts believe no document, and no token works, though the instance
would seem empty and ready.
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
"""A file in the data folder: the last checkpoint of the audit log that a service signed here."""


class ForeignKey(ValueError):
    """The data folder's instance key is not the one that the database belongs to."""


class LostDatabase(ValueError):
    """There is an instance key but no database with tables, though a key is made only after these."""


def check_database(url: str, path: Path) -> str | None:
    """Check, before anything is created, that the database is there if its key is.

    Answers the database's revision, None where there is no key and it was not asked. An empty database in its place
    would seem ready, and refuse every token and every host. Raises LostDatabase, DatabaseUnavailable.
    """
    # In this order, as another process may just be creating first the database, then the key.
    if not path.exists():
        return None
    revision = migrate.current(url)
    if revision is None:
        raise LostDatabase(
            f"{path} is there, and its database is not: {make_url(url)!r} is missing or empty. Put it back with "
            "`keyrack restore FILE`, or choose the right --database. To begin with an empty one all the same: "
            "`keyrack apply FILE --new-database`; every host must then be enrolled anew. See docs/recovery.md."
        )
    return revision


def check_key(database: Database, path: Path) -> None:
    """Check, before anything is changed in a database that has tables, that its key is at `path`.

    Raises ForeignKey, or ValueError for a malformed key file.
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
    """The instance whose key the database belongs to from now on; the key is created where both are new.

    with_key: builds the instance. Raises as check_key does.
    """
    check_key(database, path)
    existed = path.exists()
    key = InstanceKey.load(path)
    instance = with_key(key)
    noted = database.read(instance_facts.key_fingerprint)
    if noted is None and not database.read(lambda connection: _fits(connection, key)):
        raise _unfit(path, key)
    owning = noted or database.write(lambda connection: instance_facts.claim_for_key(connection, key.fingerprint))
    if owning != key.fingerprint and not existed:
        path.unlink()  # created above, while another machine created the one that counts
    _refuse_other(owning, key, path)
    return instance


def key_in_use(connection: Connection, path: Path) -> InstanceKey | None:
    """The key that seals the rows of a database which is being migrated, None where the database is new.

    Raises ForeignKey where the key at this path is not the database's.
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
    """Whether a database that names no key may be this key's: it sealed something in it, or nothing is sealed."""
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
