"""Joins an instance to HTTP and its background work; must decide nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable

import prometheus_client

from keyrack.core import ownership, periodic
from keyrack.core.audit import chain, retention
from keyrack.core.clock_check import ClockCheck
from keyrack.core.hosts.last_seen import LastSeen
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, endings, grants, key_sync, requests
from keyrack.core.missing_rows import MissingRows
from keyrack.core.people.actors import system_actor
from keyrack.core.schema_check import SchemaCheck
from keyrack.logs import logger
from keyrack.store import overview
from keyrack.store.database import Database
from keyrack.store.engine.orphans import OrphanedSessions
from keyrack.web import deliveries, server
from keyrack.web.outgoing import Outgoing
from keyrack.web.server import Service

log = logger("keyrack")

TIDY_EVERY_SECONDS = 5.0
SYNC_EVERY_SECONDS = 10.0
CHAIN_EVERY_SECONDS = 1.0


def web_application(instance: Instance) -> Service:
    """The service over HTTP, with its background work."""
    last_seen = LastSeen()

    def start() -> Callable[[], None]:
        close_metrics = _serve_metrics(instance)
        stop_tidying = _tidy(instance, last_seen)
        stop_syncing = _sync(instance)
        stop_chaining = _chain(instance)
        stop_delivering = deliveries.start(instance)

        def stop() -> None:
            close_metrics()
            stop_tidying()
            stop_syncing()
            stop_chaining()
            stop_delivering()

        return stop

    return server.service(instance, start, last_seen)


def _serve_metrics(instance: Instance) -> Callable[[], None]:
    """Serve the figures on an address of their own, if the settings name one; answers how to stop that."""
    if not instance.settings.metrics_listen:
        return lambda: None
    host, _, port = instance.settings.metrics_listen.rpartition(":")
    try:
        serving, thread = prometheus_client.start_http_server(
            int(port), host.strip("[]"), registry=instance.figures.registry
        )
    except OSError as error:
        # Of several processes one has the address; its figures are its own.
        log.warning("metrics are not served by this process", address=instance.settings.metrics_listen, why=str(error))
        return lambda: None

    def stop() -> None:
        serving.shutdown()
        serving.server_close()
        thread.join(timeout=10)

    return stop


def _sync(instance: Instance) -> Callable[[], None]:
    """Keep users' keys in step with their accounts elsewhere; answers how to stop it."""
    if not instance.settings.key_source_minutes:
        return lambda: None
    ask = Outgoing(instance.settings)
    return periodic.every(
        SYNC_EVERY_SECONDS,
        lambda _: key_sync.sync_due(instance, ask),
        name="key-sync",
        failing="keeping keys in step failed",
    )


def _chain(instance: Instance) -> Callable[[], None]:
    """Chain events and sign checkpoints; answers how to stop it."""
    path = instance.settings.audit_checkpoint_file
    kept = instance.settings.data / ownership.CHECKPOINT
    handed = tuple(chain.file_keeper(one) for one in (kept, path) if one is not None)

    def extend(stopping: threading.Event) -> None:
        while chain.extend(instance, handed) and not stopping.is_set():
            pass

    return periodic.every(
        CHAIN_EVERY_SECONDS,
        extend,
        first=lambda: chain.recall(instance, kept),
        name="audit-chain",
        failing="chaining the audit log failed",
    )


def warn_if_lossy(database: Database) -> None:
    """Say that the database's server does not keep what it says it has kept (decision 336)."""
    if found := database.lossy_settings():
        log.warning(
            "a crash of the database's machine may take what was acknowledged, and the whole database",
            settings=", ".join(f"{name} = off" for name in found),
            mend="set them on in postgresql.conf, and reload it",
        )


def _tidy(instance: Instance, last_seen: LastSeen) -> Callable[[], None]:
    """Remove what has ended and note who was heard of; answers how to stop it."""
    tidying, missing, tables, clock = retention.TidyTimer(), MissingRows(), SchemaCheck(), ClockCheck()
    orphans = OrphanedSessions()

    def tidy(_: threading.Event) -> None:
        instance.database.read(orphans.end)  # before all that may wait for what one of them has locked
        clock.go_on(instance)
        tables.go_on(instance)
        credentials.end_expired(instance, system_actor())
        endings.end_user_keys(instance, system_actor())
        endings.close_requests(instance, system_actor())
        endings.announce(instance, system_actor())
        grants.begin(instance, system_actor())
        requests.lapse(instance, system_actor())
        last_seen.write(instance)
        instance.refusals.write(instance.database)
        instance.tallies.write(instance.database, instance.now())
        tidying.tidy(instance, system_actor())
        missing.go_on(instance)
        instance.figures.behind.set(instance.database.read(overview.count_behind))

    end = periodic.every(
        TIDY_EVERY_SECONDS,
        tidy,
        first=lambda: warn_if_lossy(instance.database),
        name="tidy",
        failing="tidying failed",
    )

    def stop() -> None:
        end()
        instance.refusals.write(instance.database, everything=True)
        instance.tallies.write(instance.database, instance.now())

    return stop
