"""What agents call: enrol, wait for the document, report; must hold thousands of waiting hosts cheaply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from keyrack.core.hosts import contacts, copies, database_rollback, documents, enrolment, reports
from keyrack.core.hosts.contacts import Contact, ContactAnswer
from keyrack.core.hosts.database_rollback import HostRevision
from keyrack.core.hosts.last_seen import LastSeen
from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal
from keyrack.logs import logger
from keyrack.model import Server
from keyrack.protocol import document_words
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.hosts.deleted_servers import DeletedServer
from keyrack.web import access_log, bodies, machines
from keyrack.web.agent_archive import build_zipapp
from keyrack.web.api import LONGEST_OPEN_BODY, ORDINARY_STATUS, Sharing, address_of, fault, unanswered
from keyrack.web.batches import Batches
from keyrack.web.callers import Caller
from keyrack.web.fair_queueing import LONG_BODY
from keyrack.web.held_contacts import WAS_HELD, ContactParts, HeldContacts
from keyrack.web.machines import Machines
from keyrack.web.rate_limit import RateLimit
from keyrack.web.request_limits import client_network, count
from keyrack.web.threads import Threads
from keyrack.web.waiting import ContactWaiters, within

log = logger("keyrack.web")

Handler = Callable[[Request], Awaitable[Response]]

INSTALL_SCRIPT = Path(__file__).with_name("install.sh")
PREFIX = "/agent"
DOCUMENT = PREFIX + "/v1/document"
QUESTION = b"GET %b?" % DOCUMENT.encode()
"""How an agent's request for its document begins."""
LONGEST_WAIT = 50.0
# The most hosts whose documents are made in one batch, and the size in bytes from which a document is made alone, so
# that no other host waits for it.
MAX_BATCH = 100
LARGE_DOCUMENT = 200_000
# The most reports and lists of keys of a host in a minute. A host reports each revision that it obeys, and scans its
# keys every half minute, so a healthy one stays far below.
MAX_REPORTS = 1200
MAX_LISTS = 30
# The most bytes of a host's long reports in a minute: a full list of keys is some 700 kB, sent whenever it changes;
# open sessions are reported every five seconds at most.
MAX_BYTES = 4_000_000
# The longest report, also where the setting max_body_bytes is lower. Agents send less at once.
LARGEST_REPORT = 2_000_000

STATUS = {**ORDINARY_STATUS, Kind.MISSING: 410, Kind.INVALID: 400, Kind.TAKEN: 409}


def application(
    instance: Instance, waiting: ContactWaiters, last_seen: LastSeen, limit: RateLimit, sharing: Sharing
) -> tuple[ASGIApp, HeldContacts]:
    """The application under /agent, and what holds the questions of hosts that wait."""
    calls = _AgentCalls(instance, waiting, last_seen, limit, sharing)
    archive: list[bytes] = []

    async def zipapp(request: Request) -> Response:
        count(limit, request, client_network(request))
        if not archive:
            archive.append(await run_in_threadpool(build_zipapp))
        return Response(archive[0], media_type="application/octet-stream")

    async def script(request: Request) -> Response:
        count(limit, request, client_network(request))
        return Response(INSTALL_SCRIPT.read_bytes(), media_type="text/x-shellscript")

    get, post = ("GET", "HEAD"), ("POST",)
    paths: Mapping[str, tuple[tuple[str, ...], Handler]] = {
        "/v1/enroll": (post, calls.enrol),
        "/v1/document": (get, calls.document),
        "/v1/report": (post, calls.report),
        "/v1/last-document": (post, calls.last_document),
        "/keyrack-agent.pyz": (get, zipapp),
        "/install.sh": (get, script),
    }

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        # Without Starlette's application and routes, which would cost memory and time for every host that waits.
        methods, handler = paths.get(scope["path"].removeprefix(scope["root_path"]), ((), None))
        if handler is None:
            response: Response = JSONResponse({"error": "There is no such path."}, 404)
        elif scope["method"] not in methods:
            words = "This path takes another method."
            response = JSONResponse({"error": words}, 405, headers={"Allow": ", ".join(methods)})
        else:
            response = await _answered(handler, Request(scope, receive))
        await response(scope, receive, send)

    return answer, calls.held_contacts


# In place of an answer: the agent is a new run of its server's, or a copy of the machine.
_NEW_RUN = Response(status_code=409)
_NOTHING_NEW = Response(status_code=204)


@dataclass(frozen=True, slots=True)
class _Report:
    """A report as it came. server: the sender, None where it is known only from its last request for a document: then
    proof is its secret and address, server_id its server, and run its agent's run, all to be checked.
    """

    content: bytes
    proof: tuple[str, str] = ("", "")
    server_id: int = 0
    run: str = ""
    server: Server | DeletedServer | None = None


class _AgentCalls:
    """The calls of agents; whatever takes more than a moment runs on a thread, when it is that host's turn."""

    def __init__(
        self, instance: Instance, waiting: ContactWaiters, last_seen: LastSeen, limit: RateLimit, sharing: Sharing
    ) -> None:
        self._instance = instance
        self._waiting = waiting
        self._last_seen = last_seen
        self._limit = limit
        self._callers, self._scheduler = sharing.callers, sharing.scheduler
        self._limits = _Limits()
        # One thread each: of threads that compute, the interpreter runs one at a time, and every further one delays the
        # event loop. Reports mostly wait for their commit.
        threads, reporting = Threads(1, "keyrack-agents"), Threads(1, "keyrack-reports")
        self._contacts = Batches(partial(contacts.answer, instance), MAX_BATCH, sharing.slices, threads)
        self._proofs: Batches[tuple[str, str], Server | DeletedServer] = Batches(
            partial(enrolment.authenticate_together, instance), MAX_BATCH, sharing.slices, threads
        )
        # Hosts that wait for a document are served before reports are noted.
        self._reports: Batches[_Report, bool] = Batches(
            self._take_reports, MAX_BATCH // 2, sharing.slices, reporting, after=lambda: self._contacts.waiting
        )
        self._sizes: dict[int, int] = {}
        self._machines = Machines(instance, waiting, sharing.scheduler)
        self.held_contacts = HeldContacts(
            ContactParts(
                instance,
                waiting,
                self._machines,
                last_seen,
                limit,
                self._ask_together,
                LONGEST_WAIT,
                sharing.slices,
            )
        )

    async def enrol(self, request: Request) -> Response:
        """Enrol a host as the server that its one-time token was made for."""
        address = address_of(request)
        count(self._limit, request, ("address", address))
        bodies.check_encoding(request)
        content = await bodies.read(request, LONGEST_OPEN_BODY)

        def call() -> enrolment.Enrolled:
            body = _object(content)
            return enrolment.enrol(self._instance, body.get("token"), body, address=address)

        enrolled = await self._scheduler.run(self._callers.of(request), call)
        return JSONResponse(
            {
                "host": enrolled.server.host,
                "server_id": enrolled.server.id,
                "server_name": enrolled.server.name,
                "secret": enrolled.secret,
                "signing_key": enrolled.signing_key,
                "principal": document_words.PRINCIPAL,
            }
        )

    async def document(self, request: Request) -> Response:
        """The document, once it differs from the one that the host has; 204 if it does not in time."""
        asked = bodies.query(request)
        known = bodies.number(asked.get("revision", "0")) or 0
        lineage = asked.get("lineage", "")
        deadline = asyncio.get_running_loop().time() + min(_seconds(asked.get("wait", "0")), LONGEST_WAIT)
        secret_hash = self._instance.key.hash_token(_secret(request))
        identity = machines.identity_of(request)
        run = "" if identity is None else identity.run
        server_id = self._waiting.known.server_of(secret_hash, known, lineage, run)
        was_held: tuple[int, float] | None = request.scope["state"].get(WAS_HELD)
        if was_held is not None:
            server_id, deadline = was_held
        is_current = server_id is not None and was_held is None
        if server_id is None:
            # The server that had this secret at its last request; both are checked together with reading its document.
            server_id = self._waiting.known.server_of_secret(secret_hash, run)
        if server_id is None:
            server, caller = await self._host(request)
            server_id = server.id
            if isinstance(server, Server):
                await self._machines.note_run(request, server, identity, caller)
        if was_held is None:
            count(self._limit, request, ("host", server_id))
            if (answer := self._machines.refuse_repeated(server_id, identity)) is not None:
                return answer
        accepts_gzip = "gzip" in request.headers.get("accept-encoding", "")
        audit = bodies.number(asked.get("audit", ""))
        contact = Contact(server_id, secret_hash, known, lineage, accepts_gzip, run, -1 if audit is None else audit)
        with self._instance.figures.waiting.track_inprogress(), self._machines.waiting(server_id, request):
            # A stopping service reads nothing more: with thousands of hosts that would delay its end.
            while not self._waiting.closing:
                waiter = self._waiting.listen(server_id)
                try:
                    if not is_current:
                        await self._machines.hold(server_id, run, _caller_of(server_id))
                        answer = await self._ask(request, contact, waiter)
                        if answer is _NEW_RUN:
                            await self._machines.note_new_run(request, server_id, identity, _caller_of(server_id))
                            continue
                        if answer is not None:
                            return answer
                    self._last_seen.saw(server_id)
                    left = deadline - asyncio.get_running_loop().time()
                    if left <= 0 or not await within(waiter, left):
                        break
                    is_current = False
                finally:
                    self._waiting.leave(server_id, waiter)
        return _NOTHING_NEW

    async def _ask(self, request: Request, contact: Contact, waiter: asyncio.Future[None]) -> Response | None:
        """What a host must get now, None if it has it all."""
        server_id, caller = contact.server_id, _caller_of(contact.server_id)
        answer = await self._ask_together(contact)
        if answer is None:
            work = partial(contacts.answer, self._instance, [contact])
            (answer_or_error,) = await self._scheduler.run(caller, work, long=True)
            if isinstance(answer_or_error, Exception):
                raise answer_or_error
            answer = answer_or_error
            if 0 < answer.size < LARGE_DOCUMENT:
                self._sizes.pop(server_id, None)
        if answer.state is None:
            return await self._ask_alone(request, contact, caller)
        if not answer.body:
            if not waiter.done():
                self._waiting.known.note(contact, answer.state)
            return None
        if not waiter.done():
            self._waiting.known.note_run(contact, answer.state)
        self._last_seen.saw(server_id)
        headers = {"Content-Encoding": "gzip"} if answer.gzipped else None
        return Response(answer.body, media_type="application/json", headers=headers)

    async def _ask_together(self, contact: Contact) -> ContactAnswer | None:
        """The state of a host and its document, read together with others'; None where the document is so large that it
        is made alone.
        """
        if contact.server_id in self._sizes:
            return None
        answer = await self._contacts.ask(_caller_of(contact.server_id).name, contact)
        if answer.size >= LARGE_DOCUMENT:
            self._sizes[contact.server_id] = answer.size
        return answer

    async def _ask_alone(self, request: Request, contact: Contact, caller: Caller) -> Response | None:
        """The same for one host alone, where its secret, its run or its revision must be checked first."""
        instance, server_id = self._instance, contact.server_id
        self._waiting.known.forget(server_id)
        await self._host(request)
        if not await self._scheduler.run(caller, partial(copies.is_last_run, instance, server_id, contact.run)):
            return _NEW_RUN
        judge = partial(database_rollback.judge_revision, instance, server_id, contact.revision, contact.lineage)
        standing = await self._scheduler.run(caller, judge)
        if standing is HostRevision.CURRENT:
            return None
        self._last_seen.saw(server_id)
        if standing is HostRevision.DIVERGED:
            await self._scheduler.run(
                caller, partial(database_rollback.note_diverged, instance, server_id, contact.revision)
            )
            words = "This host obeys what the service does not know: its database went back. Tell your last document."
            return JSONResponse({"error": words, "tell": "document"}, 409)
        signed = await self._scheduler.run(caller, partial(documents.signed, instance, server_id))
        if signed is None:
            raise Refusal(Kind.MISSING, "server-deleted", "This server was deleted.")
        return JSONResponse({"document": signed.text, "signature": signed.signature})

    async def report(self, request: Request) -> Response:
        """What a host says of itself."""
        sender = machines.identity_of(request)
        secret, run = _secret(request), "" if sender is None else sender.run
        server: Server | DeletedServer | None = None
        server_id = self._waiting.known.server_of_secret(self._instance.key.hash_token(secret), run)
        if server_id is None or bodies.may_be(request, LONG_BODY):
            server, _ = await self._host(request)
            server_id = server.id
        caller = _caller_of(server_id)
        if (repeated := self._machines.refuse_repeated(server_id, sender)) is not None:
            return repeated
        if isinstance(server, Server):
            await self._machines.note_run(request, server, sender, caller)
        content = await self._report_body(request, server_id, caller)
        if server is None:
            report = _Report(content, (secret, address_of(request)), server_id, run)
            if await self._reports.ask(caller.name, report):
                return JSONResponse({"ok": True})
            # The secret is not this server's any more, or its agent began a new run.
            self._waiting.known.forget(server_id)
            server, caller = await self._host(request)
            if isinstance(server, Server):
                await self._machines.note_run(request, server, sender, caller)
        if len(content) < LONG_BODY:
            await self._reports.ask(caller.name, _Report(content, server=server))
        else:
            await self._scheduler.run(caller, partial(self._take_report, server, content), long=True)
        return JSONResponse({"ok": True})

    def _take_report(self, server: Server | DeletedServer, content: bytes) -> None:
        body = _object(content)
        self._limits.check(server.id, body)
        reports.ingest(self._instance, server, body)

    def _take_reports(self, batch: Sequence[_Report]) -> list[bool | Exception]:
        """Take reports together; True for each that is kept, False for one whose sender must be authenticated first."""
        results: list[bool | Exception] = [True] * len(batch)
        read: list[tuple[Server | DeletedServer, Mapping[str, Any]]] = []
        places = []
        proved = self._senders(batch)
        for place, report in enumerate(batch):
            server = report.server or proved.get(report.proof)
            if server is None:
                results[place] = False
                continue
            try:
                body = _object(report.content)
                self._limits.check(server.id, body)
            except Exception as error:  # raised for its sender; the other reports are taken
                results[place] = error
                continue
            read.append((server, body))
            places.append(place)
        for place, error_or_none in zip(places, reports.ingest_together(self._instance, read), strict=True):
            if error_or_none is not None:
                results[place] = error_or_none
        return results

    def _senders(self, reports: Sequence[_Report]) -> dict[tuple[str, str], Server]:
        """The senders of reports, by proof, where they are the same servers and runs as at their last request."""
        unproved = [report for report in reports if report.server is None]
        if not unproved:
            return {}
        servers = enrolment.authenticate_together(self._instance, [report.proof for report in unproved])
        return {
            report.proof: server
            for report, server in zip(unproved, servers, strict=True)
            if isinstance(server, Server)
            and server.id == report.server_id
            and server.copied_at is None
            and report.run in ("", server.agent_run)
        }

    async def last_document(self, request: Request) -> Response:
        """Receive a piece of the document that a host obeys, which the service no longer has."""
        server, caller = await self._host(request)
        if isinstance(server, Server):
            await self._machines.note_run(request, server, machines.identity_of(request), caller)
        count(self._limit, request, ("host", server.id))
        bodies.check_encoding(request)
        async with self._scheduler.reading(caller, long=bodies.may_be(request, LONG_BODY)):
            content = await bodies.read(request, self._instance.settings.max_body_bytes)

        def call() -> None:
            database_rollback.receive_piece(self._instance, server, _object(content))

        await self._scheduler.run(caller, call, long=len(content) >= LONG_BODY)
        return JSONResponse({"ok": True})

    async def _host(self, request: Request) -> tuple[Server | DeletedServer, Caller]:
        """The server whose agent calls, and its caller for fair queueing. Raises Refusal UNAUTHENTICATED."""
        proof = (_secret(request), address_of(request))
        try:
            server = await self._proofs.ask(self._callers.of(request).name, proof)
        except Refusal as refusal:
            if refusal.kind is Kind.UNAUTHENTICATED:
                self._callers.rejected(request)
            raise
        caller = _caller_of(server.id)
        self._callers.accepted(request, caller.name)
        return server, caller

    async def _report_body(self, request: Request, server_id: int, caller: Caller) -> bytes:
        """A report's body. Raises Refusal THROTTLED, before it is read where Content-Length says how long it is."""
        bodies.check_encoding(request)
        longest = max(self._instance.settings.max_body_bytes, LARGEST_REPORT)
        bodies.check_length(request, longest)
        announced = bodies.announced(request)
        self._limits.count(server_id, announced or 0)
        async with self._scheduler.reading(caller, long=bodies.may_be(request, LONG_BODY)):
            content = await bodies.read(request, longest)
        if announced is None:
            self._limits.weigh(server_id, len(content))
        return content


async def _answered(handler: Handler, request: Request) -> Response:
    """What a handler answers, or the words of what it raises."""
    try:
        return await handler(request)
    except Refusal as refusal:
        return _refuse(refusal)
    except DatabaseUnavailable as error:
        return _refuse(unanswered(error))
    except Exception:  # a fault of ours is an answer too, and is logged whole
        log.exception("request failed", method=request.method, path=access_log.shown(request.url.path))
        return _refuse(fault())


def _refuse(refusal: Refusal) -> Response:
    return bodies.retried(JSONResponse({"error": refusal.message}, STATUS.get(refusal.kind, 400)), refusal)


def _object(content: bytes) -> Mapping[str, Any]:
    # Files on a host may hold bytes that are no text; a report that quotes them is taken all the same.
    return bodies.json_object(content, mended=True)


class _Limits:
    """How often and how much each host may report; each process counts for itself. May be used by any thread."""

    def __init__(self) -> None:
        self._reports, self._lists = RateLimit(MAX_REPORTS), RateLimit(MAX_LISTS)
        self._bytes = RateLimit(MAX_BYTES)

    def count(self, server_id: int, size: int) -> None:
        """Count a report of so many bytes. Raises Refusal THROTTLED when it is one too many, or too long for now."""
        self._take(self._reports, server_id, 1, f"reports more than {self._reports.limit} times a minute")
        self.weigh(server_id, size)

    def weigh(self, server_id: int, size: int) -> None:
        """Count the bytes of a long report. Short ones do not count, so that receipts are always taken."""
        if size >= LONG_BODY:
            self._take(self._bytes, server_id, size, f"reports more than {self._bytes.limit} bytes a minute")

    def check(self, server_id: int, body: Mapping[str, Any]) -> None:
        """Count the list of keys that a report may have. Raises Refusal THROTTLED."""
        if "keys_found" in body:
            self._take(self._lists, server_id, 1, f"lists its keys more than {self._lists.limit} times a minute")

    def _take(self, limit: RateLimit, server_id: int, cost: int, what: str) -> None:
        quota = limit.take(server_id, cost)
        if quota.wait:
            words = f"This host {what}. Report again in {quota.wait} seconds."
            raise Refusal(Kind.THROTTLED, "too-many-reports", words, retry_after=quota.wait)


def _caller_of(server_id: int) -> Caller:
    return Caller(("host", server_id), known=True, at_home=True)


def _secret(request: Request) -> str:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret if scheme.lower() == "bearer" else ""


def _seconds(text: str) -> float:
    value = bodies.number(text)
    return float(value or 0)
