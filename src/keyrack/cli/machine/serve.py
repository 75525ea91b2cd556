"""`keyrack serve`: the service in the foreground; must hold no rule."""

from __future__ import annotations

import errno
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from keyrack import app, logs, serving
from keyrack.cli import options
from keyrack.cli.connection.explained import explained
from keyrack.cli.machine.alone import serving_alone
from keyrack.cli.machine.stopping import stop_at_hangup
from keyrack.settings import FIELDS, Settings
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.engine.connect import DatabaseAltered, DatabaseRefused, DatabaseUnusable
from keyrack.store.engine.outage import Outage
from keyrack.web import listening, request_ids
from keyrack.web.protocol import BoundedProtocol
from keyrack.web.server import Service

log = logs.logger("keyrack")

SWITCH_SECONDS = 0.00025
WAIT_SECONDS = 2.0
"""How long a worker waits before it tries again to reach the database."""
LOAD_SECONDS = 120.0
"""How long a worker may take until it answers whoever started it."""


@click.command(name="serve")
@options.listen
@options.data
@options.database
@options.public_url
@options.workers
def command(**given: Any) -> None:
    """Run the service until it is stopped.

    With SQLite one process serves; with PostgreSQL any number, here and on other machines.
    Every option can also be set as KEYRACK_… in the environment.
    """
    settings = options.settings(**given)
    if settings.workers > 1 and settings.database_url.startswith("sqlite"):
        raise click.UsageError("--workers needs PostgreSQL (--database): SQLite serves with one process.")
    serve(settings)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM, SIGHUP or Ctrl-C; problems at the start are words, not tracebacks."""
    set_up_logging(settings.log_format)
    host, port = settings.host_and_port
    check_free((host, port, "--listen"))
    if settings.workers > 1:
        for name, its in FIELDS.items():
            value = getattr(settings, name)
            if value != its.default and isinstance(value, str | int | float | Path):
                os.environ[f"KEYRACK_{name.upper()}"] = str(value)
        serve_with_workers(settings)
        return
    with ExitStack() as held:
        with explained():
            held.enter_context(serving_alone(settings))
        application = open_application(settings)
        click.echo(f"Keyrack serves at {settings.url} (data in {settings.data.resolve()}).", err=True)
        service = listening.ListeningServer(uvicorn.Config(application, **uvicorn_arguments(settings)), application)
        stop_at_hangup()
        # Ctrl-C has stopped it in order by then, and uvicorn raises it once more.
        with suppress(KeyboardInterrupt):
            service.run()
    if not service.started:
        sys.exit(STARTUP_FAILURE)


def serve_with_workers(settings: Settings) -> None:
    """Serve with several processes. What would stop each of them stops this one first, and once."""
    with explained():
        app.open_instance(settings).database.close()
    config = uvicorn.Config(
        "keyrack.cli.machine.serve:from_environment",
        factory=True,
        workers=settings.workers,
        **uvicorn_arguments(settings),
    )
    hangup = signal.getsignal(signal.SIGHUP)
    workers = _Workers(config, [config.bind_socket()])
    signal.signal(signal.SIGHUP, hangup)  # uvicorn would start all workers anew
    stop_at_hangup()
    click.echo(
        f"Keyrack serves at {settings.url} with {settings.workers} processes (data in {settings.data.resolve()}).",
        err=True,
    )
    workers.run()
    if not workers.asked_to_stop:
        raise click.ClickException("A process that serves could not start; all were stopped.")


class _Worker(Process):
    """One of several processes that serve. Until it answers for the first time it is one that still loads."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._loads_until = time.monotonic() + LOAD_SECONDS
        self._asked = self._loaded = False

    def is_alive(self, timeout: float = 5) -> bool:
        """Whether it runs, and answers within so many seconds or may still be loading, which is not waited for."""
        if self._loaded or time.monotonic() > self._loads_until or not self.process.is_alive():
            return super().is_alive(timeout)
        if not self._asked:  # once: an answer to an earlier question would later be taken for a new one
            self.parent_conn.send(b"ping")
            self._asked = True
        if self.parent_conn.poll():
            self.parent_conn.recv()
            self._loaded = True
        return True


class _Workers(Multiprocess):
    """uvicorn's supervisor, which ends when a worker exits with STARTUP_FAILURE and starts others anew for ever.

    uvicorn's own takes a worker for hung that does not answer five seconds after its start. On a slow or busy machine
    it would kill each one before it has loaded, and none would ever serve.
    """

    asked_to_stop = False

    def init_processes(self) -> None:
        self.processes = [self._begun() for _ in range(self.processes_num)]

    def keep_subprocess_alive(self) -> None:
        for number, worker in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if worker.is_alive(self.config.timeout_worker_healthcheck):
                continue
            ended = worker.exitcode
            worker.kill()
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:
                self.should_exit.set()
                return
            why = "it did not answer" if ended is None else f"it ended with {ended}"
            log.warning("a process that serves is replaced", pid=worker.pid, why=why)
            self.processes[number] = self._begun()

    def _begun(self) -> Process:
        worker = _Worker(self.config, self.sockets)
        worker.start()
        return worker

    def handle_int(self) -> None:
        self.asked_to_stop = True
        super().handle_int()

    def handle_term(self) -> None:
        self.asked_to_stop = True
        super().handle_term()


def open_application(settings: Settings) -> Service:
    """The application for these settings; exits with words when the database or the key is not usable."""
    with explained():
        application = serving.web_application(app.open_instance(settings))
    be_quick_to_switch()
    return application


def be_quick_to_switch() -> None:
    """Let threads of this process wait less for each other, now that all is loaded.

    A thread that computes lets others go on after a quarter of a millisecond instead of five. The event loop gives up
    the interpreter at each database statement, and would wait that long each time.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    keep_what_is_loaded(collect_after=100_000)


def keep_what_is_loaded(collect_after: int) -> None:
    """Never search what is loaded by now for garbage, which took a tenth of a second each time.

    collect_after: how many new objects there may be before garbage is collected. Until then objects that refer to each
    other in a circle keep their memory.
    """
    gc.set_threshold(collect_after, 10, 10)
    gc.collect()
    gc.freeze()


def from_environment() -> Service:
    """The application of one of several workers. A worker that starts while the database is away waits for it."""
    end_with_its_supervisor()
    stop_at_hangup()
    settings = Settings()
    set_up_logging(settings.log_format)
    outage = Outage()
    while True:
        try:
            with explained():
                try:
                    instance = app.open_instance(settings)
                except (DatabaseAltered, DatabaseUnusable, DatabaseRefused):
                    raise
                except DatabaseUnavailable as error:
                    outage.failed(error)
                    time.sleep(WAIT_SECONDS)
                    continue
        except click.ClickException as error:
            error.show()
            sys.exit(STARTUP_FAILURE)
        outage.answered()
        application = serving.web_application(instance)
        be_quick_to_switch()
        return application


def end_with_its_supervisor() -> None:
    """Have this worker stop in order once the process that started it is gone, also where that one was killed.

    It would go on serving for ever with nobody to stop it, and the next service would find its address taken.
    """
    supervisor = multiprocessing.parent_process()
    if supervisor is None:
        return

    def wait() -> None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()


def check_free(*wanted: tuple[str, int, str]) -> None:
    """Exit with words if an address is taken, instead of failing later; wanted: host, port, the option that sets it."""
    with ExitStack() as held:
        for host, port, option in wanted:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                # Held until all are tried, so that two of our own are not given one port.
                held.enter_context(socket.create_server((host, port), family=family))
            except OSError as error:
                why = str(error.strerror).partition(" (while attempting")[0]
                shown = f"[{host}]" if ":" in host else host
                way_out = f"Choose another one with {option}."
                if error.errno == errno.EACCES:
                    way_out = f"A port below 1024 needs the capability CAP_NET_BIND_SERVICE. {way_out}"
                raise click.ClickException(f"Cannot listen on {shown}:{port} ({why}). {way_out}") from None


def set_up_logging(log_format: str = "text") -> None:
    """Log one line per event on standard error, with the id of its request; log_format: "text" or "json"."""
    logs.load()
    import structlog

    shared: list[Any] = [
        request_ids.add_request_id,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    render = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"])
    )
    handler = logging.StreamHandler(sys.stderr)
    # Lines of libraries, uvicorn's among them, take the same form.
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[remove, render], foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("uvicorn.error").addFilter(_only_where_it_listens)
    structlog.configure(processors=[*shared, render], logger_factory=structlog.PrintLoggerFactory(sys.stderr))


def _only_where_it_listens(record: logging.LogRecord) -> bool:
    """Of what uvicorn says of itself, warnings and where it listens; with several processes the first one says so."""
    if record.levelno >= logging.WARNING:
        return True
    if not str(record.msg).startswith("Uvicorn running on"):
        return False
    record.msg = "listening on " + str(record.msg).removeprefix("Uvicorn running on ").removesuffix(
        " (Press CTRL+C to quit)"
    )
    return True


def uvicorn_arguments(settings: Settings) -> dict[str, Any]:
    """How uvicorn is started: where it listens, and how long it waits, in seconds."""
    host, port = settings.host_and_port
    return {
        "host": host,
        "port": port,
        "loop": "uvloop",
        "http": BoundedProtocol,
        "ws": "none",
        "log_config": None,
        "log_level": "info",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        # Waiting agents are answered at once; a request under way gets this long, in seconds.
        "timeout_graceful_shutdown": 5,
        "timeout_keep_alive": 8,
    }
