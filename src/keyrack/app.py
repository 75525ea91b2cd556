"""The only place where parts are built and joined; must decide nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable

import prometheus_client
import structlog
from sqlalchemy import Connection

from keyrack.core import ownership, sealing
from keyrack.core.audit import retention
from keyrack.core.hosts.last_seen import LastSeen
from keyrack.core.instance import Instance
from keyrack.core.instance_key import InstanceKey
from keyrack.core.keys import credentials
from keyrack.core.people.throttle import Throttle
from keyrack.core.people.users import system_actor
from keyrack.policy import KeyRules
from keyrack.settings import Settings
from keyrack.ssh import known_private
from keyrack.store import servers
from keyrack.store.database import Database, DatabaseUnavailable
from keyrack.store.engine import migrate
from keyrack.web import server
from keyrack.web.server import Service

log = structlog.get_logger("keyrack")

SEALED_SINCE = "0030"
TIDY_EVERY_SECONDS = 5.0


def open_instance(settings: Settings, *, new_database: bool = False, restoring: bool = False) -> Instance:
    """Open the data folder and the database, brought up to date, as one instance.

    new_database: begin an empty one also for an instance key that served before. restoring: an operator puts this very
    copy in place, also one from before rows were sealed. Raises ValueError for a damaged instance key, ForeignKey for
    one that is not the database's, LostDatabase, SchemaTooNew, and DatabaseUnavailable when the database is away.
    """
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = settings.data / "instance.key"
    if not new_database:
        ownership.check_database(settings.database_url, path)
    rules = KeyRules(
        types=frozenset(settings.key_types),
        rsa_minimum_bits=settings.rsa_minimum_bits,
        max_characters=settings.max_key_characters,
        blocked=None if settings.block_list is None else known_private.load(str(settings.block_list)),
    )
    database = Database.open(settings.database_url)

    def with_key(key: InstanceKey) -> Instance:
        throttle = Throttle(settings.password_guesses, settings.token_guesses, processes=settings.workers)
        return Instance(database=database, settings=settings, key=key, key_rules=rules, throttle=throttle)

    try:
        there = migrate.current(settings.database_url)
        if there is not None:
            ownership.check_key(database, path)
        then: Callable[[Connection], None] | None = None
        if there is not None and not migrate.knows(there, SEALED_SINCE):

            def then(connection: Connection) -> None:
                ownership.seal_older(connection, path, restoring=restoring)

        migrate.upgrade(settings.database_url, then=then)
        instance = ownership.open_as_owner(database, path, with_key)
        sealing.use(instance)
        sealing.note(database, instance.key, settings.data)
        return instance
    except BaseException:
        database.close()
        raise


def web_application(instance: Instance) -> Service:
    """The service over HTTP, with its background work."""
    last_seen = LastSeen()

    def start() -> Callable[[], None]:
        close_metrics = _serve_metrics(instance)
        stop_tidying = _tidy(instance, last_seen)

        def stop() -> None:
            close_metrics()
            stop_tidying()

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


def _tidy(instance: Instance, last_seen: LastSeen) -> Callable[[], None]:
    """Remove what has ended and note who was heard of, every few seconds, on its own thread; answers how to stop it."""
    stopping = threading.Event()
    calm = retention.Calm()

    def run() -> None:
        while not stopping.wait(TIDY_EVERY_SECONDS):
            try:
                credentials.end_expired(instance, system_actor())
                last_seen.write(instance)
                instance.refusals.write(instance.database)
                calm.tidy(instance, system_actor())
                instance.figures.behind.set(instance.database.read(servers.count_behind))
            except DatabaseUnavailable:
                pass  # said by the database itself, once; the next round does what this one left
            except Exception:
                log.exception("tidying failed")

    thread = threading.Thread(target=run, name="tidy", daemon=True)
    thread.start()

    def stop() -> None:
        stopping.set()
        thread.join(timeout=10)
        instance.refusals.write(instance.database, everything=True)

    return stop
