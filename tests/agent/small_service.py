"""A service of a few lines that hands an agent whatever a test wants, right or wrong; must check nothing."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from keyrack.agent.state import Accepted
from tests.agent.signed_documents import HOST, Signer
from tests.waiting import wait_until


class SmallService:
    """What the handlers share: the document to give, the answers, and what agents reported."""

    def __init__(self) -> None:
        self.signer = Signer()
        self.reports: list[dict[str, Any]] = []
        self.url = ""
        self.refusal: int | None = None
        self.refusal_words = "no such host"
        self.page = b""  # in the place of refusal_words, as a proxy has one
        self.connections = 0
        self.waits: list[float] = []  # seconds that each question allowed it to take
        self.enrolments: list[dict[str, Any]] = []
        self.clock_ahead = 0.0  # seconds, of its Date header
        self.refuses: Callable[[dict[str, Any]], int | bytes | None] = lambda report: None  # bytes: as they are
        self.revision = 0
        self.changed = threading.Condition()
        self._current: Accepted | None = None

    def publish(self, revision: int, current: Accepted) -> None:
        """Give this document from now on to whoever knows another revision."""
        with self.changed:
            self.revision, self._current = revision, current
            self.changed.notify_all()

    def wait_for_report(self, state: str, revision: int | None = None) -> dict[str, Any]:
        """The first report with this state, once it is there."""
        found: list[dict[str, Any]] = []

        def has_report() -> bool:
            found[:] = [
                report
                for report in list(self.reports)
                if report.get("state") == state and revision in (None, report["revision"])
            ]
            return bool(found)

        wait_until(has_report, f"a report {state} {revision}")
        return found[0]

    def document(self, known: int, seconds: float) -> Accepted | None:
        """The document, as soon as it has another revision than the known one."""
        with self.changed:
            self.changed.wait_for(lambda: self.revision != known and self._current is not None, seconds)
            return None if self.revision == known else self._current


@contextmanager
def small_service(tls: ssl.SSLContext | None = None) -> Iterator[SmallService]:
    """Run one on a free port. tls: speak HTTPS with this."""
    service = SmallService()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            """Count connections."""
            super().setup()
            service.connections += 1

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

        def date_time_string(self, timestamp: float | None = None) -> str:
            """By the clock that the test gave it."""
            return super().date_time_string((timestamp or time.time()) + service.clock_ahead)

        def do_HEAD(self) -> None:
            """Nothing but the headers."""
            self._answer(404, None)

        def do_POST(self) -> None:
            """Enrol anybody; keep reports."""
            report = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if service.refusal is not None:
                self._answer(service.refusal, {"error": service.refusal_words})
                return
            if self.path == "/agent/v1/enroll":
                service.enrolments.append(report)
                self._answer(
                    200,
                    {
                        "host": HOST,
                        "server_id": 1,
                        "server_name": "web-1",
                        "secret": "secret-of-the-host",
                        "signing_key": service.signer.public,
                        "principal": "keyrack",
                    },
                )
                return
            refusal = service.refuses(report)
            if isinstance(refusal, bytes):
                self.wfile.write(refusal)
                self.close_connection = True
                return
            if refusal is not None:
                self._answer(refusal, {"error": "not like this"})
                return
            service.reports.append(report)
            self._answer(200, {"ok": True})

        def do_GET(self) -> None:
            """Wait for a document and give it."""
            asked = parse_qs(urlsplit(self.path).query)
            service.waits.append(float(asked["wait"][0]))
            seconds = 0 if service.refusal else min(float(asked["wait"][0]), 2)
            current = service.document(int(asked["revision"][0]), seconds)
            if service.refusal is not None:
                self._answer(service.refusal, {"error": service.refusal_words})
                return
            if current is None:
                self._answer(204, None)
            else:
                self._answer(200, {"document": current.document, "signature": current.signature})

        def _answer(self, status: int, fields: dict[str, Any] | None) -> None:
            body = b"" if fields is None else json.dumps(fields).encode()
            body = service.page if service.page and status == service.refusal else body
            head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\nDate: {self.date_time_string()}\r\n\r\n"
            self.wfile.write(head.encode() + body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    service.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
