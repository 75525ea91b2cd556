"""Notices two machines that use one agent's secret, one a copy of the other; must never guess which is the right one.

Only one agent at a time works in an agent's folder, so one run of an agent ends before the next begins. A run that asks
again after another one took its place is therefore on another machine (or an agent of a copied folder). So is one whose
machine id and host keys both differ from before: a reboot changes neither. Until somebody decides, neither machine gets
documents or is believed, so that no key reaches the wrong one and no receipt counts for two machines. A reboot, a
restart of the agent or a snapshot that was put back is a new run after which the old one is silent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from keyrack.core.audit import alarms
from keyrack.core.hosts import report_events
from keyrack.core.hosts.agent_attempt import agent_attempt
from keyrack.core.instance import Instance
from keyrack.core.lookups import own_server
from keyrack.core.next_steps import with_commands
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Server
from keyrack.store.database import announce
from keyrack.store.hosts import servers
from keyrack.store.hosts.reported_facts import LAST_RUN

CODE = "machine-copied"
LATE = timedelta(seconds=0.5)
"""A request of the old run that was on its way when the next run began arrives within this time."""
SEEN = timedelta(seconds=60)
"""A run that asked so lately may still be at work, and has time to show it before the other one gets a document."""
MAX_RUNS = 8

_HEADER = re.compile(
    r"run=([0-9a-f]{16}); boot=([0-9a-f]{0,16}); machine=([0-9a-f]{0,16}); keys=([0-9a-f]{0,16}); "
    r"starts=([0-9]{1,9}); lane=([a-z]{1,16}); number=([0-9]{1,15}); name=([A-Za-z0-9.-]{0,64})"
)


@dataclass(frozen=True, slots=True)
class ReportedIdentity:
    """What an agent says of its run and its machine (agent/system/identity.py): hashes, and the machine's `name`."""

    run: str
    boot: str
    machine: str
    keys: str
    starts: int
    lane: str
    number: int
    name: str


class AgentRun(Enum):
    """Which run of an agent asks, as far as is known."""

    SAME = "the run that asked before"
    NEW = "another run, in its place"
    NEW_WHILE_SEEN = "another run, while the one before asked a moment ago: wait whether that one asks again"


def read(header: str) -> ReportedIdentity | None:
    """Parse the header that says which run of an agent asks; None where it is malformed or, as of older agents, ""."""
    match = _HEADER.fullmatch(header)
    if match is None:
        return None
    run, boot, machine, keys, starts, lane, number, name = match.groups()
    return ReportedIdentity(run, boot, machine, keys, int(starts), lane, int(number), name)


def check(server: Server) -> None:
    """Raises Refusal TAKEN where two machines use a server's identity."""
    if server.copied_at is not None:
        raise _refusal(server)


def is_last_run(instance: Instance, server_id: int, run: str) -> bool:
    """Whether nothing has to be noted about a run that asks for a server. run: "" where the agent does not say."""
    state = instance.database.read(lambda connection: servers.revision_state(connection, server_id))
    return state is None or (state.copied_at is None and run in ("", state.agent_run))


def contact(
    instance: Instance, server_id: int, identity: ReportedIdentity | None, *, address: str, arrived: datetime
) -> AgentRun:
    """Note which run of an agent asks. address: where it came from; arrived: when.

    Raises Refusal TAKEN where two machines use one identity, and UNAVAILABLE where that cannot be told yet.
    """
    before = instance.database.read(lambda connection: servers.by_id(connection, server_id))
    if before is None or (identity is not None and identity.run == before.agent_run and before.copied_at is None):
        return AgentRun.SAME
    check(before)
    if identity is None:
        return AgentRun.SAME

    def change(work: Work) -> AgentRun | Refusal:
        work.no_event("the alarm is the event")
        server = servers.by_id(work.connection, server_id)
        if server is None or (server.agent_run == identity.run and server.copied_at is None):
            return AgentRun.SAME
        if server.copied_at is not None:
            return _refusal(server)
        return _note_run(work, server, identity, address, arrived)

    answer = agent_attempt(instance, before.workspace_id, server_id, "tell machines apart").write(change)
    if isinstance(answer, Refusal):
        raise answer
    return answer


def settle(instance: Instance, actor: Actor, server_id: int) -> Server:
    """Go on with a server whose machine had a copy that is gone, or is another server by now.

    The machine that asks next becomes the server's; where both still ask, that is noticed again. Raises Refusal
    MISSING.
    """
    attempt = Attempt(instance, actor, "servers:write", "go on after a copy", target_kind="server", server_id=server_id)
    with attempt:

        def change(work: Work) -> Server:
            server = own_server(work, server_id)
            if server.copied_at is None:
                work.no_event("there is no copy")
                return server
            servers.change(work.connection, server.id, without_run(server.facts))
            announce(work.connection, server.id)
            work.record(
                f"Host {server.name} goes on with one machine: its copy is said to be gone",
                target_id=server.id,
                level="warning",
            )
            return own_server(work, server.id)

        return attempt.write(change)


def note_enrolled_elsewhere(work: Work, secret_hash: bytes) -> None:
    """Note that a machine which used this secret is another server's now: where it was a copy, one machine is left."""
    server = servers.by_agent_secret(work.connection, secret_hash)
    if server is None or not server.sound or server.copied_at is None:
        return
    servers.change(work.connection, server.id, without_run(server.facts))
    announce(work.connection, server.id)
    work.record(
        f"Host {server.name} goes on with one machine: its copy enrolled as another host",
        target_id=server.id,
        server_id=server.id,
        workspace_id=server.workspace_id,
        level="warning",
    )


def without_run(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a server that forget which run of which machine is its host's."""
    return {
        "agent_run": None,
        "copied_at": None,
        "facts": {name: fact for name, fact in facts.items() if name != LAST_RUN},
    }


def words(server: Server) -> str:
    """A sentence that two machines use a server's identity, which they are, and what to do."""
    last = server.facts.get(LAST_RUN) or {}
    other = last.get("copy") or {}
    who = " and ".join(_machine(one) for one in (last, other) if one)
    return with_commands(
        f"two machines use the identity of {server.name} ({who}): one is a copy of the other. Neither gets "
        f"documents, and no receipt counts. On the one that is {server.name}, paste its installation line; if the "
        "other is gone, say so",
        f"hosts enrol {server.id}",
        f"hosts copy-gone {server.id}",
    )


def _note_run(
    work: Work, server: Server, identity: ReportedIdentity, address: str, arrived: datetime
) -> AgentRun | Refusal:
    last = server.facts.get(LAST_RUN) or {}
    runs = last.get("before") or []
    run_note = {**asdict(identity), "address": address, "at": arrived.timestamp()}
    if identity.run in runs and abs(arrived.timestamp() - last.get("at", 0)) < LATE.total_seconds():
        return Refusal(Kind.UNAVAILABLE, "run-unsure", "Another run of this agent began just now.", retry_after=1)
    if identity.run in runs or _is_another_machine(last, identity):
        return _note_copy(work, server, last, run_note)
    if last and identity.starts <= last.get("starts", 0) and identity.boot != last.get("boot"):
        report_events.record(
            work,
            server,
            f"Host {server.name} began from an earlier state: a snapshot was put back, or a copy of it "
            "was started; should both be at work, that will be noticed",
        )
    elif last and (words_of := _changed(last, identity)):
        report_events.record(work, server, f"Host {server.name} has {words_of} than before")
    if server.agent_run:
        run_note["before"] = [*runs, server.agent_run][-MAX_RUNS:]
    values = {"agent_run": identity.run, "facts": {**server.facts, LAST_RUN: run_note}}
    servers.change(work.connection, server.id, values)
    announce(work.connection, server.id)
    suspicious = identity.boot != last.get("boot") or identity.starts <= last.get("starts", 0)
    lately = server.seen_at is not None and work.now - server.seen_at < SEEN
    return AgentRun.NEW_WHILE_SEEN if last and suspicious and lately else AgentRun.NEW


def _note_copy(work: Work, server: Server, last: Mapping[str, Any], run_note: Mapping[str, Any]) -> Refusal:
    facts = {**server.facts, LAST_RUN: {**last, "copy": dict(run_note)}}
    servers.change(work.connection, server.id, {"copied_at": work.now, "facts": facts})
    announce(work.connection, server.id)
    copied = servers.by_id(work.connection, server.id)
    assert copied is not None
    alarms.record(work.connection, copied, CODE, words(copied), work.now)
    return _refusal(copied)


def _is_another_machine(last: Mapping[str, Any], identity: ReportedIdentity) -> bool:
    """Whether machine id and host keys are both known, and both differ from before."""
    return all(
        last.get(name) and mark and last[name] != mark
        for name, mark in (("machine", identity.machine), ("keys", identity.keys))
    )


def _changed(last: Mapping[str, Any], identity: ReportedIdentity) -> str:
    if last.get("machine") and identity.machine and last["machine"] != identity.machine:
        return "another machine id"
    return "other host keys" if last.get("keys") and identity.keys and last["keys"] != identity.keys else ""


def _machine(machine: Mapping[str, Any]) -> str:
    return f"{machine.get('name') or 'without a name'} at {machine.get('address') or 'an unknown address'}"


def _refusal(server: Server) -> Refusal:
    return Refusal(Kind.TAKEN, CODE, f"Two machines use this host's identity: {words(server)}.")
