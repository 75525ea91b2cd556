"""Takes in what agents report: the revision a host applied, its facts, keys, sessions and logins; must believe no host
about another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from keyrack import policy
from keyrack.core.hosts import (
    copies,
    database_rollback,
    deleted_servers,
    host_keys,
    login_reports,
    report_events,
    unmanaged_keys,
)
from keyrack.core.hosts import facts as host_facts
from keyrack.core.hosts.agent_attempt import REPORTING, agent_attempt
from keyrack.core.instance import Instance
from keyrack.core.keys.access import MAX_UNACKNOWLEDGED
from keyrack.core.people import offboarding
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal
from keyrack.model import Server
from keyrack.protocol.report import APPLIED, STATES
from keyrack.ssh.printable import all_printable
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.hosts import host_reports, servers
from keyrack.store.hosts.deleted_servers import DeletedServer
from keyrack.store.keys import credentials, revocations
from keyrack.store.sealing import receipts

LINEAGE = re.compile(r"[0-9a-f]{8}")


def ingest(instance: Instance, server: Server | DeletedServer, body: Mapping[str, Any]) -> None:
    """Take an agent's report: the revision it applied or why it did not, open sessions, uses of keys.

    A report without revision and state is only about the rest. Raises Refusal INVALID.
    """
    # The only way in for text of hosts: all that is stored of it can be shown to anybody.
    body = all_printable(body)
    if isinstance(server, DeletedServer):
        deleted_servers.report(instance, server, body)
        return
    attempt = _attempt(instance, server)
    with attempt:
        checked = _checked(instance, server, body)
        # A list of keys counts as stored with its last piece: after an earlier failure it is reported and stored again.
        for keys_piece in checked.keys[:-1]:
            attempt.write(partial(unmanaged_keys.store, server=server, piece=keys_piece))
        delay = attempt.write(partial(_store_one, server_id=server.id, checked=checked))
        for logins_piece in checked.logins[1:]:
            attempt.write(partial(login_reports.store, server=server, piece=logins_piece))
        _count(instance, server, checked, delay)


def ingest_together(
    instance: Instance, reports: Sequence[tuple[Server | DeletedServer, Mapping[str, Any]]]
) -> list[Exception | None]:
    """As ingest, for many agents, in one transaction for each workspace where possible; answers the error of each, or
    None.

    One bad report costs the others nothing: each is then stored by itself.
    """
    results: list[Exception | None] = [None] * len(reports)
    by_workspace: dict[int, list[tuple[int, Server, _CheckedReport]]] = {}
    alone: list[int] = []
    included: set[int] = set()
    for place, (server, body) in enumerate(reports):
        checked = None
        if isinstance(server, Server):
            try:
                checked = _checked(instance, server, all_printable(body))
            except Exception:  # ingest() below meets it again, and leaves its event
                checked = None
        if checked is None or checked.keys or len(checked.logins) > 1 or server.id in included:
            alone.append(place)
        else:
            assert isinstance(server, Server)
            included.add(server.id)  # a second report of the same host is stored after the first
            by_workspace.setdefault(server.workspace_id, []).append((place, server, checked))
    for of_workspace in by_workspace.values():
        if len(of_workspace) == 1 or not _stored_together(instance, of_workspace):
            alone += [place for place, _, _ in of_workspace]
    for place in alone:
        try:
            ingest(instance, *reports[place])
        except Exception as error:  # the others are stored all the same
            results[place] = error
    return results


def _stored_together(instance: Instance, several: Sequence[tuple[int, Server, _CheckedReport]]) -> bool:
    """Store short reports of one workspace's hosts in one transaction; False: nothing was stored."""

    def store(work: Work) -> list[float | None]:
        work.no_event("each report accounts for itself")
        ids = [server.id for _, server, _ in several]
        servers_now = servers.by_ids(work.connection, ids, locked=True)
        awaited = host_reports.awaited(work.connection, ids)
        delays: list[float | None] = []
        changes = {}
        for _, server, checked in several:
            own_work = Work(_attempt(instance, server), work.connection)
            now = _require_server(servers_now.get(server.id))
            changes[server.id], delay = _store(own_work, now, checked, awaited.get(server.id, frozenset()))
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
        delays = attempt.write(store)
    except DatabaseUnavailable:
        raise
    except Exception:  # each is stored by itself then, which shows whose report is wrong
        return False
    for (_, server, checked), delay in zip(several, delays, strict=True):
        _count(instance, server, checked, delay)
    return True


def _count(instance: Instance, server: Server, checked: _CheckedReport, delay: float | None) -> None:
    """Count a stored report in the metrics; delay: seconds from the change until its host obeyed."""
    now = instance.now()
    instance.tallies.logins(server.workspace_id, sum(piece.logins for piece in checked.logins), now)
    if delay is not None:
        instance.figures.acknowledged(delay)
        instance.tallies.acknowledged(server.workspace_id, delay, now)


def _attempt(instance: Instance, server: Server) -> Attempt:
    return agent_attempt(instance, server.workspace_id, server.id, REPORTING)


@dataclass(frozen=True, slots=True)
class _CheckedReport:
    """A report, with all that can be found out before the transaction, as all writes wait for that.

    applied, state: its revision and state; keys_digest: of its list of unmanaged keys, "" where that is not new; keys,
    logins: what to store of these and of logins, in pieces.
    """

    body: Mapping[str, Any]
    applied: int
    state: str
    problems: list[str] | None
    keys_digest: str
    keys: list[unmanaged_keys.KeysPiece]
    host_keys: host_keys.ReportedHostKeys | None
    logins: list[login_reports.LoginsPiece]


def _checked(instance: Instance, server: Server, body: Mapping[str, Any]) -> _CheckedReport:
    applied, state = body.get("revision"), body.get("state")
    if applied is None and state is None:
        applied, state = 0, APPLIED
    if not isinstance(applied, int) or isinstance(applied, bool) or state not in STATES or applied < 0:
        raise Refusal(Kind.INVALID, "report-malformed", "A report takes a revision and a state.")
    logins = login_reports.pieces(instance, server, login_reports.read(body, instance.now()))
    digest = report_events.keys_digest([body["keys_found"], body.get("keys_cut")]) if "keys_found" in body else ""
    reported = None
    if digest and digest != server.facts.get(report_events.KEYS_DIGEST):
        reported = unmanaged_keys.read(body["keys_found"], body.get("keys_cut"))
    return _CheckedReport(
        body=body,
        applied=applied,
        state=state,
        problems=host_facts.problems(body),
        keys_digest="" if reported is None else digest,
        keys=[] if reported is None else unmanaged_keys.plan(instance, server, reported),
        host_keys=host_keys.read(body),
        logins=logins,
    )


def _store_one(work: Work, server_id: int, checked: _CheckedReport) -> float | None:
    """Store a report; answers the seconds until its host obeyed, None where that is no news."""
    # Locked, so that no other machine is enrolled in its place before the receipt is written.
    server = _require_server(servers.by_ids(work.connection, (server_id,), locked=True).get(server_id))
    awaited = host_reports.awaited(work.connection, (server_id,)).get(server_id, frozenset())
    values, delay = _store(work, server, checked, awaited)
    servers.change(work.connection, server_id, values)
    return delay


def _require_server(server: Server | None) -> Server:
    """A server that must be there. Raises Refusal UNAUTHENTICATED."""
    if server is None:
        raise Refusal(Kind.UNAUTHENTICATED, "agent-unknown", "The server was deleted.")
    return server


def _store(
    work: Work, server: Server, checked: _CheckedReport, awaited: frozenset[str]
) -> tuple[Mapping[str, Any], float | None]:
    """Store a report, except in the server's own row; answers its changed columns, and the seconds until the host
    obeyed.

    awaited: what waits for an acknowledgement of the host (store/hosts/host_reports.py). The seconds are None where it
    has acknowledged nothing new.
    """
    copies.check(server)
    values: dict[str, Any] = {"seen_at": work.now}
    if checked.state == APPLIED or checked.body.get("facts"):
        # A report of sessions says nothing of problems, so it ends none.
        problems = checked.problems if checked.state == APPLIED else None
        values |= host_facts.ingest(work, server, checked.body.get("facts"), problems)
    facts = _facts(work, server, checked, dict(values.get("facts", server.facts)))
    if facts != dict(server.facts):
        values["facts"] = facts
    receipt, delay = _receipt(work, server, checked, awaited)
    values |= receipt
    if (version := host_facts.short_text(checked.body, "agent_version")) is not None:
        values["agent_version"] = version
    if checked.host_keys is not None:
        host_keys.store(work, server, checked.host_keys)
    for logins_piece in checked.logins[:1]:
        login_reports.store(work, server, logins_piece)
    work.no_event("a receipt is kept with the server, not as an event of its own")
    return values, delay


def _facts(work: Work, server: Server, checked: _CheckedReport, facts: dict[str, Any]) -> dict[str, Any]:
    """A server's facts with the rest of a report, and why its host did not obey; also stores unmanaged keys."""
    facts = _facts_with_machine(work, server, checked.body, facts)
    told = checked.body.get("facts")
    if checked.host_keys is not None and not (isinstance(told, Mapping) and host_facts.SSH_PORT in told):
        facts[host_facts.SSH_PORT] = checked.host_keys.port  # older agents report the port only with the keys
    if checked.keys_digest:
        for keys_piece in checked.keys[-1:]:
            unmanaged_keys.store(work, server, keys_piece)
        unmanaged_keys.forget(work, server)
        facts[report_events.KEYS_DIGEST] = checked.keys_digest
    if checked.state != APPLIED:
        facts = _facts_of_refusal(work, server, facts, checked.state, checked.applied, checked.problems)
    return facts


def _receipt(
    work: Work, server: Server, checked: _CheckedReport, awaited: frozenset[str]
) -> tuple[dict[str, Any], float | None]:
    """The columns of a receipt, and the seconds until the host obeyed; empty and None where this is no receipt."""
    lineage = _lineage(checked.body, server)
    is_new = checked.state == APPLIED and server.applied_revision < checked.applied
    # A document of a lost database, of the same number, is no receipt for this database's.
    if (
        not is_new
        or lineage is None
        or not database_rollback.has_issued_to(work.connection, server, checked.applied, lineage)
    ):
        return {}, None
    values = receipts.applied(work.connection, server.id, server.enrolled_at, checked.applied, lineage, work.now)
    if server.first_applied_at is None:  # sealed, so it is written only once
        values = {**values, "first_applied_at": work.now}
    _acknowledge(work, server.id, checked.applied, awaited)
    return values, (work.now - server.updated_at).total_seconds()


def _acknowledge(work: Work, server_id: int, applied: int, awaited: frozenset[str]) -> None:
    """Note a host's acknowledgement of a revision with all that waits for it."""
    if host_reports.CREDENTIALS in awaited:
        credentials.acknowledge(work.connection, server_id, applied, work.now)
    # Invariant 7: a revocation is delivered until the host has acknowledged it.
    if host_reports.REVOCATIONS in awaited and revocations.acknowledge(
        work.connection, server_id, applied, work.now, most=MAX_UNACKNOWLEDGED
    ):
        work.bump_revision(server_id)
    elif host_reports.OFFBOARDINGS in awaited:
        offboarding.acknowledge(work, server_id, applied)


def _facts_of_refusal(
    work: Work, server: Server, facts: dict[str, Any], state: str, revision: int, problems: list[str] | None
) -> dict[str, Any]:
    """The facts of a host that did not obey, with its alarm and its problems."""
    facts = report_events.document_refused(
        work, server, facts, state, revision, "; ".join(problems or ()) or "no reason given"
    )
    return facts if problems is None else {**facts, "problems": problems}


def _facts_with_machine(work: Work, server: Server, body: Mapping[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """The facts with what a report says of machine and sessions, and without a refusal that is over."""
    if isinstance(body.get("machine"), Mapping):
        facts["machine"] = host_facts.machine(body["machine"], work.now)
    if isinstance(body.get("sessions_unknown"), str):
        facts = host_facts.sessions_unknown(work, server, facts, body["sessions_unknown"])
    if body.get("state") == APPLIED:
        return report_events.document_applied(work, server, facts)
    return facts


def _lineage(body: Mapping[str, Any], server: Server) -> str | None:
    """The mark of the revision that a host says it obeys, "" from an agent that never had one.

    None where this is no receipt: the mark is malformed, or is missing though the host reported one before.
    """
    mark = body.get("lineage") or ""
    if mark == "":
        return None if server.applied_lineage else ""
    return mark if isinstance(mark, str) and LINEAGE.fullmatch(mark) else None
