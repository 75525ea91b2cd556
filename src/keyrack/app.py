"""Builds an instance of its parts; must decide nothing, nor load HTTP, which an operator's commands would wait for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from keyrack.core import altered_rows, ownership, sealing
from keyrack.core.instance import Instance
from keyrack.core.instance_key import InstanceKey
from keyrack.core.people.throttle import Throttle
from keyrack.policy import KeyRules
from keyrack.settings import Settings
from keyrack.store.database import Database
from keyrack.store.engine import migrate

if TYPE_CHECKING:
    from keyrack.ssh.known_private import BlockList

SEALED_SINCE = "0030"
COUNTED_SINCE = "0130"
HIDDEN_SINCE = "0181"
EVENTS_SINCE = "0235"
DELETED_SINCE = "0340"
RECEIPTS_SINCE = "0375"


def open_instance(
    settings: Settings, *, new_database: bool = False, restoring: bool = False, at: str | None = None
) -> Instance:
    """Open the data folder and the database, brought up to date, as one instance.

    new_database: begin an empty one also for an instance key that served before. restoring: an operator puts this very
    copy in place, also one from before rows were sealed. at: what ownership.check_database has just answered to who
    calls. Raises ValueError for a damaged instance key, ForeignKey for one that is not the database's, LostDatabase,
    SchemaTooNew, and DatabaseUnavailable when the database is away.
    """
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = settings.data / "instance.key"
    there = None if new_database else at or ownership.check_database(settings.database_url, path)
    rules = KeyRules(
        types=frozenset(settings.key_types),
        rsa_minimum_bits=settings.rsa_minimum_bits,
        blocked=_blocked(settings),
    )
    database = Database.open(settings.database_url)

    def with_key(key: InstanceKey) -> Instance:
        throttle = Throttle(settings.password_guesses, settings.token_guesses, processes=settings.workers)
        return Instance(database=database, settings=settings, key=key, key_rules=rules, throttle=throttle)

    try:
        if there is None:
            there = migrate.current(settings.database_url)
        if there is not None:
            ownership.check_key(database, path)
        if there is None:
            (settings.data / ownership.CHECKPOINT).unlink(missing_ok=True)  # of a database that is lost
        then = None if there is None else _sealing_older(there, path, restoring=restoring)
        migrate.upgrade(settings.database_url, then=then)
        instance = ownership.open_as_owner(database, path, with_key)
        altered_rows.watch(instance)
        sealing.note(database, instance.key, settings.data)
        sealing.note_counted(database, settings.data)
        sealing.note_event_seals(settings.data)
        sealing.note_receipts(settings.data)
        return instance
    except BaseException:
        database.close()
        raise


def _blocked(settings: Settings) -> BlockList | None:
    """The keys that nobody may register, where the settings name a file of them."""
    if settings.block_list is None:
        return None
    # With the parser of keys, which a command that takes none does not wait for.
    from keyrack.ssh import known_private

    return known_private.load(str(settings.block_list))


def _sealing_older(at: str, path: Path, *, restoring: bool) -> Callable[[Connection], None] | None:
    """What is to be sealed in a database from before it was, in the transaction that brings it up to date; None where
    nothing is. at: the revision that it is at; path: of the instance key.
    """
    if migrate.knows(at, RECEIPTS_SINCE):
        return None
    is_sealed, is_counted, is_hidden, has_event_seals, has_deleted = (
        migrate.knows(at, one) for one in (SEALED_SINCE, COUNTED_SINCE, HIDDEN_SINCE, EVENTS_SINCE, DELETED_SINCE)
    )

    def then(connection: Connection) -> None:
        key = ownership.key_in_use(connection, path)
        if key is None:
            return
        if not is_sealed:
            sealing.first_time(connection, key, path.parent, restoring=restoring)
        elif not has_deleted:
            sealing.seal_deleted_servers(connection, key, counted=is_counted)
        # Before all is counted, which counts these as well.
        sealing.seal_receipts(connection, key, path.parent, counted=is_counted, restoring=restoring)
        if not is_counted:
            sealing.count_first_time(connection, key, path.parent, restoring=restoring)
        if not is_hidden:
            sealing.hide_first_time(connection, key)
        if not has_event_seals:
            sealing.note_events(connection, key, path.parent, restoring=restoring)

    return then
