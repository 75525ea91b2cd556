"""What agents ask and tell: enrol, the document, reports; must never take an agent's word for another host."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection

from keyrack import policy
from keyrack.core.hosts import copies, deleted_servers, host_keys, news, reports, unmanaged_keys, went_back
from keyrack.core.hosts import facts as host_facts
from keyrack.core.instance import Instance
from keyrack.core.keys import access
from keyrack.core.keys.access import MOST_UNACKNOWLEDGED
from keyrack.core.people import offboarding, throttle
from keyrack.core.people.actors import system_actor
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal
from keyrack.model import Server
from keyrack.protocol.report import APPLIED, STATES, read_word
from keyrack.ssh.printable import all_printable
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.hosts import deleted_servers as gone_servers
from keyrack.store.hosts import host_reports, servers
from keyrack.store.hosts.deleted_servers import DeletedServer
from keyrack.store.keys import credentials, revocations
from keyrack.store.sealing import receipts

LONGEST_FACT = 64
PRINTABLE = re.compile(r"[\x20-\x7e]*")
LINEAGE = re.compile(r"[0-9a-f]{8}")
NO_ENROLMENT = "enrolment-refused"


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a host gets for its one-time token; secret is shown this once."""

    server: Server
    secret: str
    signing_key: str


def enrol(instance: Instance, token: object, facts: Mapping[str, Any], *, address: str) -> Enrolled:
    """Make a host the one that a one-time token was made for. Raises Refusal FORBIDDEN."""
    if not isinstance(token, str) or not token:
        raise _no_enrolment()
    return instance.throttle.prove(
        throttle.ENROLMENT,
        address,
        instance.key.hash_token(token),
        lambda: _enrol(instance, token, all_printable(facts), address),
        is_guess=lambda error: isinstance(error, Refusal) and error.code == NO_ENROLMENT,
    )


def _enrol(instance: Instance, token: str, facts: Mapping[str, Any], address: str) -> Enrolled:
    secret_hash = instance.key.hash_token(token)
    # A guess must not take a turn of those who write.
    if not instance.database.read(lambda connection: servers.has_enrolment(connection, secret_hash, instance.now())):
        raise _no_enrolment()
    secret = secrets.token_urlsafe(32)
    actor = system_actor(channel="agent")
    attempt = Attempt(instance, actor, "servers:write", "enrol a host", target_kind="server")
    with attempt:

        def change(work: Work) -> Server:
            server_id = servers.use_enrolment(work.connection, secret_hash, work.now)
            before = None if server_id is None else servers.by_id(work.connection, server_id)
            if server_id is None or before is None or not before.sound:
                raise _no_enrolment()
            servers.change(
                work.connection,
                server_id,
                {
                    "agent_secret_hash": instance.key.hash_token(secret),
                    **receipts.NOTHING_APPLIED,
                    "told_lineage": "",
                    "went_back_at": None,
                    "enrolled_at": work.now,
                    "seen_at": work.now,
                    "agent_version": _fact(facts, "agent_version"),
                    "os": _fact(facts, "os"),
                    "os_version": _fact(facts, "os_version"),
                    # What another agent did is not what this one does, nor is its machine this one.
                    **copies.free({name: fact for name, fact in before.facts.items() if name != "enforcement"}),
                    **_mode_reported(facts),
                },
            )
            work.bump_revision(server_id)
            left = facts.get("leaves")
            if isinstance(left, str) and left:
                copies.leave(work, instance.key.hash_token(left))
            server = servers.by_id(work.connection, server_id)
            assert server is not None
            work.record(
                f"Host {server.name} enrolled from {address}",
                target_id=server.id,
                server_id=server.id,
                workspace_id=server.workspace_id,
                level="warning",
            )
            return server

        server = attempt.write(change)
    return Enrolled(server=server, secret=secret, signing_key=instance.key.public_line)


def authenticate_together(
    instance: Instance, proofs: Sequence[tuple[str, str]]
) -> list[Server | DeletedServer | Exception]:
    """Whose agent each of these secrets is, beside the address that it came from: a server, also a deleted one.

    For one that is nobody's the Refusal UNAUTHENTICATED or THROTTLED (core/people/throttle.py) stands in its place.
    """
    hashes = [instance.key.hash_token(secret) for secret, _ in proofs]

    def question(connection: Connection) -> dict[bytes, Server | DeletedServer]:
        by_hash: dict[bytes, Server | DeletedServer] = {**servers.by_agent_secrets(connection, set(hashes))}
        for one in set(hashes).difference(by_hash):
            if (gone := gone_servers.by_agent_secret(connection, one)) is not None:
                by_hash[one] = gone
        return by_hash

    proved = instance.database.read(question)
    results: list[Server | DeletedServer | Exception] = []
    for secret_hash, (_, address) in zip(hashes, proofs, strict=True):
        try:
            results.append(_proved(instance, secret_hash, proved.get(secret_hash), address))
        except Exception as error:  # raised for the one who asked; the others get their answers
            results.append(error)
    return results


def _proved(
    instance: Instance, secret_hash: bytes, server: Server | DeletedServer | None, address: str
) -> Server | DeletedServer:
    """The server that a secret was found to be of, None: of none; unless too many wrong ones came from there."""

    def attempt() -> Server | DeletedServer:
        if server is None:
            raise Refusal(
                Kind.UNAUTHENTICATED,
                "agent-unknown",
                "This agent is not enrolled here, or its server was deleted. Enrol it again.",
            )
        if isinstance(server, Server) and not server.sound:
            # Whose secret this is was perhaps written by somebody else.
            raise access.changed(server)
        if isinstance(server, DeletedServer) and not server.holds:
            raise deleted_servers.changed(server)
        return server

    return instance.throttle.prove(throttle.AGENT, address, secret_hash, attempt)


def report(instance: Instance, server: Server | DeletedServer, body: Mapping[str, Any]) -> None:
    """Take what an agent tells: the revision it applied or why it did not, who is in, which keys were used.

    A report without revision and state tells only the rest. Raises Refusal INVALID.
    """
    # The way in for text of hosts: whatever is kept of it can be shown to anybody.
    body = all_printable(body)
    if isinstance(server, DeletedServer):
        deleted_servers.report(instance, system_actor(server.workspace_id, channel="agent"), server, body)
        return
    attempt = _attempt(instance, server)
    with attempt:
        judged = _judged(instance, server, body)
        # A list counts as taken in with its last piece: until then it is told, and taken in, again.
        for keys_piece in judged.keys[:-1]:
            attempt.write(partial(unmanaged_keys.store, server=server, piece=keys_piece))
        delay = attempt.write(partial(_take_one, server_id=server.id, judged=judged))
        for logins_piece in judged.logins[1:]:
            attempt.write(partial(reports.store, server=server, piece=logins_piece))
        _count(instance, server, judged, delay)


def report_together(
    instance: Instance, told_by: Sequence[tuple[Server | DeletedServer, Mapping[str, Any]]]
) -> list[Exception | None]:
    """The same for many agents: what can be is kept in one transaction; what is raised for each, None where nothing is.

    A report that cannot be kept costs the others nothing: then each is taken by itself.
    """
    results: list[Exception | None] = [None] * len(told_by)
    short: dict[int, list[tuple[int, Server, _JudgedReport]]] = {}
    alone: list[int] = []
    begun: set[int] = set()
    for place, (server, body) in enumerate(told_by):
        judged = None
        if isinstance(server, Server):
            try:
                judged = _judged(instance, server, all_printable(body))
            except Exception:  # said again, and kept, by the attempt of its own
                judged = None
        if judged is None or judged.keys or len(judged.logins) > 1 or server.id in begun:
            alone.append(place)
        else:
            assert isinstance(server, Server)
            begun.add(server.id)  # what else it tells follows what it told first
            short.setdefault(server.workspace_id, []).append((place, server, judged))
    for several in short.values():
        if len(several) == 1 or not _taken_together(instance, several):
            alone += [place for place, _, _ in several]
    for place in alone:
        try:
            report(instance, *told_by[place])
        except Exception as error:  # likewise: what one host told keeps no other from being heard
            results[place] = error
    return results


def _taken_together(instance: Instance, several: Sequence[tuple[int, Server, _JudgedReport]]) -> bool:
    """Keep short reports of one workspace's hosts in one transaction; False: nothing was kept."""

    def take(work: Work) -> list[float | None]:
        work.no_event("each report accounts for itself")
        ids = [server.id for _, server, _ in several]
        servers_now = servers.by_ids(work.connection, ids, locked=True)
        awaited = host_reports.awaited(work.connection, ids)
        delays: list[float | None] = []
        changes = {}
        for _, server, judged in several:
            own_work = Work(_attempt(instance, server), work.connection)
            now = _there(servers_now.get(server.id))
            changes[server.id], delay = _take(own_work, now, judged, awaited.get(server.id, frozenset()))
            if not own_work.accounted:
                raise RuntimeError("a report left no event")
            delays.append(delay)
        servers.change_each(work.connection, changes)
        return delays

    attempt = _attempt(instance, several[0][1])
    refusal = policy.may(attempt.actor, attempt.action)
    if refusal is not None:
        return False
    try:
        delays = attempt.write(take)
    except DatabaseUnavailable:
        raise
    except Exception:  # each is told by itself then, which says what is wrong with whose
        return False
    for (_, server, judged), delay in zip(several, delays, strict=True):
        _count(instance, server, judged, delay)
    return True


def _count(instance: Instance, server: Server, judged: _JudgedReport, delay: float | None) -> None:
    """Count what a report told, once it is kept; delay: after how many seconds its host obeys."""
    now = instance.now()
    instance.tallies.logins(server.workspace_id, sum(piece.logins for piece in judged.logins), now)
    if delay is not None:
        instance.figures.acknowledged(delay)
        instance.tallies.acknowledged(server.workspace_id, delay, now)


def _attempt(instance: Instance, server: Server) -> Attempt:
    return Attempt(
        instance,
        system_actor(server.workspace_id, channel="agent"),
        "servers:write",
        "report a host's state",
        target_kind="server",
        target_id=server.id,
        server_id=server.id,
    )


@dataclass(frozen=True, slots=True)
class _JudgedReport:
    """A report, with all that can be known of it before the transaction, which everybody's writes wait for.

    seen: what its list of unmanaged keys is known by, "" where it tells none that is new; keys, logins: what is to be
    stored of that and of who is in, in pieces.
    """

    body: Mapping[str, Any]
    applied: int
    state: str
    problems: list[str] | None
    seen: str
    keys: list[unmanaged_keys.KeyBatch]
    host_keys: host_keys.ReportedHostKeys | None
    logins: list[reports.LoginBatch]


def _judged(instance: Instance, server: Server, body: Mapping[str, Any]) -> _JudgedReport:
    applied, state = body.get("revision"), body.get("state")
    if applied is None and state is None:
        applied, state = 0, APPLIED
    if not isinstance(applied, int) or isinstance(applied, bool) or state not in STATES or applied < 0:
        raise Refusal(Kind.INVALID, "report-malformed", "A report takes a revision and a state.")
    logins = reports.pieces(instance, server, reports.read(body, instance.now()))
    seen = news.digest([body["keys_found"], body.get("keys_cut")]) if "keys_found" in body else ""
    reported = None
    if seen and seen != server.facts.get(news.FOUND):
        reported = unmanaged_keys.read(body["keys_found"], body.get("keys_cut"))
    return _JudgedReport(
        body=body,
        applied=applied,
        state=state,
        problems=reports.problems(body),
        seen="" if reported is None else seen,
        keys=[] if reported is None else unmanaged_keys.plan(instance, server, reported),
        host_keys=host_keys.read(body),
        logins=logins,
    )


def _take_one(work: Work, server_id: int, judged: _JudgedReport) -> float | None:
    """Keep a report; answers after how many seconds its host obeys, where it has not said so before."""
    # The receipt is of the machine that is enrolled: none may be enrolled in its place meanwhile.
    now = _there(servers.by_ids(work.connection, (server_id,), locked=True).get(server_id))
    awaited = host_reports.awaited(work.connection, (server_id,)).get(server_id, frozenset())
    values, delay = _take(work, now, judged, awaited)
    servers.change(work.connection, server_id, values)
    return delay


def _there(server: Server | None) -> Server:
    """A server that must be there. Raises Refusal UNAUTHENTICATED."""
    if server is None:
        raise Refusal(Kind.UNAUTHENTICATED, "agent-unknown", "The server was deleted.")
    return server


def _take(
    work: Work, now: Server, judged: _JudgedReport, awaited: frozenset[str]
) -> tuple[Mapping[str, Any], float | None]:
    """Keep a report but for what it changes in the server's own row: the columns of that, and after how many seconds
    its host obeys, where it has not said so before. awaited: what waits for the host's word
    (store/hosts/host_reports.py).
    """
    copies.check(now)
    body, applied, state, problems = judged.body, judged.applied, judged.state, judged.problems
    values: dict[str, Any] = {"seen_at": work.now}
    delay = None
    if state == APPLIED or body.get("facts"):
        # A report of sessions says nothing of problems, so it ends none.
        values |= host_facts.ingest(work, now, body.get("facts"), problems if state == APPLIED else None)
    facts = _noted(work, now, body, dict(values.get("facts", now.facts)))
    if judged.host_keys is not None and host_facts.SSH_PORT not in (body.get("facts") or ()):
        facts[host_facts.SSH_PORT] = judged.host_keys.port  # an older agent says it with the keys alone
    if judged.seen:
        for keys_piece in judged.keys[-1:]:
            unmanaged_keys.store(work, now, keys_piece)
        unmanaged_keys.forget(work, now)
        facts[news.FOUND] = judged.seen
    if state != APPLIED:
        facts = _not_applied(work, now, facts, state, applied, problems)
    if facts != dict(now.facts):
        values["facts"] = facts
    lineage = _lineage(body, now)
    # What a lost database gave out is no receipt for what this one did with the same number.
    is_new = state == APPLIED and now.applied_revision < applied
    if is_new and lineage is not None and went_back.knows(work.connection, now, applied, lineage):
        values |= receipts.applied(work.connection, now.id, now.enrolled_at, applied, lineage, work.now)
        if now.first_applied_at is None:  # under the seal, so it is written once alone
            values["first_applied_at"] = work.now
        delay = (work.now - now.updated_at).total_seconds()
        _acknowledge(work, now.id, applied, awaited)
    if (version := _fact(body, "agent_version")) is not None:
        values["agent_version"] = version
    if judged.host_keys is not None:
        host_keys.store(work, now, judged.host_keys)
    for logins_piece in judged.logins[:1]:
        reports.store(work, now, logins_piece)
    work.no_event("a receipt is kept with the server, not as an event of its own")
    return values, delay


def _acknowledge(work: Work, server_id: int, applied: int, awaited: frozenset[str]) -> None:
    """Note with whatever waited for it that its host applied this revision."""
    if host_reports.CREDENTIALS in awaited:
        credentials.acknowledge(work.connection, server_id, applied, work.now)
    # Invariant 7: a revocation is delivered until the host has acknowledged it, and that is kept.
    if host_reports.REVOCATIONS in awaited and revocations.acknowledge(
        work.connection, server_id, applied, work.now, most=MOST_UNACKNOWLEDGED
    ):
        work.bump_revision(server_id)
    elif host_reports.OFFBOARDINGS in awaited:
        offboarding.acknowledge(work, server_id, applied)


def _not_applied(
    work: Work, server: Server, facts: dict[str, Any], state: str, revision: int, problems: list[str] | None
) -> dict[str, Any]:
    """The facts of a host that did not obey. Why nothing new comes into force there is seen with the server too."""
    facts = news.refused(work, server, facts, state, revision, "; ".join(problems or ()) or "no reason given")
    return facts if problems is None else {**facts, "problems": problems}


def _noted(work: Work, server: Server, body: Mapping[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """The facts with what a report says of the machine, and a no that is over."""
    if isinstance(body.get("machine"), Mapping):
        facts["machine"] = host_facts.machine(body["machine"], work.now)
    if isinstance(body.get("sessions_unknown"), str):
        facts = host_facts.sessions_unknown(work, server, facts, body["sessions_unknown"])
    if body.get("state") == APPLIED:
        return news.applied(work, server, facts)
    return facts


def _lineage(body: Mapping[str, Any], now: Server) -> str | None:
    """The mark of what a host says it obeys; "" from an agent that never knew of any, None for what is no receipt: what
    no document has, and none at all from a host that told one before.
    """
    mark = body.get("lineage") or ""
    if mark == "":
        return None if now.applied_lineage else ""
    return mark if isinstance(mark, str) and LINEAGE.fullmatch(mark) else None


def _mode_reported(facts: Mapping[str, Any]) -> dict[str, str]:
    """How its administrator enrolled a host: looking first, or under the document at once."""
    mode = read_word(facts.get("mode"))
    return {"mode": mode} if mode in (host_facts.OBSERVE, host_facts.ENFORCE, host_facts.AUTO) else {}


def _fact(facts: Mapping[str, Any], name: str) -> str | None:
    value = facts.get(name)
    if isinstance(value, str) and PRINTABLE.fullmatch(value):
        return value[:LONGEST_FACT]
    return None


def _no_enrolment() -> Refusal:
    return Refusal(
        Kind.FORBIDDEN,
        NO_ENROLMENT,
        "This enrolment token is wrong, used up or older than a day. Ask for a new installation script.",
    )
