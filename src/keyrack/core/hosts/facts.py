"""What a host reports of itself beyond the revision it obeys: settings, accounts, enforcing; must trust none of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from keyrack.core.hosts import report_events
from keyrack.core.next_steps import with_commands
from keyrack.core.work import Work
from keyrack.model import AUTO, ENFORCE, OBSERVE, Server
from keyrack.protocol import audit_tree
from keyrack.protocol.report import read_word
from keyrack.ssh import names
from keyrack.ssh.fingerprint import is_fingerprint
from keyrack.store.hosts import system_users
from keyrack.store.hosts.reported_facts import is_port

KEYWORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
MAX = 200
LONGEST = 300
LONGEST_NAME = 64
LONGEST_TEXT = 64  # of a short text, such as a version
MAX_PROBLEMS, LONGEST_PROBLEM = 20, 500
PRINTABLE = re.compile(r"[\x20-\x7e]*")
MAX_REASONS = 500  # why single keys are refused, of one host
MACHINE_TEXTS = ("kernel", "processor")
MACHINE_NUMBERS = ("cores", "memory_total", "memory_free", "disk_total", "disk_free", "load", "uptime")
SESSIONS = "sessions_unknown"  # why the host may not know all open sessions
WRITERS = "writers"  # agents of the host that may write keys into files again and again
MAX_WRITERS = 20
UNDONE_SETTLED = "undone_taken"  # why a host had undone enforcing when somebody accepted that
PLAN = "plan"  # what enforcing would change in sshd's files and settings, as a host says
MAX_SECTIONS, MAX_LINES = 8, 60
SSH_PORT = "ssh_port"  # where the host's sshd listens for people
LOGINS = "logins"  # for each account whether sshd takes Keyrack's keys there, and why not
NOBODY = "nobody"  # the host's word where enforcing would shut nobody out
REWRITTEN_CODE, UNDONE_CODE = "audit-log-rewritten", "enforcing-undone"
_COMPARE_FIRST = with_commands(
    "If nobody restored a backup, somebody rewrote it: compare it with a checkpoint that was kept elsewhere before "
    "anybody begins anew there",
    "audit verify",
)
TRYING, UNDONE, UNMANAGED, UNPROVEN, UNINSTALLED = "trying", "undone", "unmanaged", "unproven", "uninstalled"
# The event when a host reports that this is its state now.
_CHANGED = {
    TRYING: "Host {name} begins to enforce, on trial: Keyrack's keys alone open it",
    ENFORCE: "Host {name} enforces: Keyrack's keys alone open it",
    UNPROVEN: "Host {name} cannot show that it enforces: its sshd does not show that it obeys",
    OBSERVE: "Host {name} no longer enforces: its own settings are in force again",
    UNINSTALLED: "The agent was taken off host {name}: nothing of Keyrack decides who gets in there",
}


def ingest(work: Work, server: Server, body: object, problems: Iterable[str] | None) -> dict[str, Any]:
    """The columns of a server that its agent's facts change; also records events and alarms about them.

    body: the facts, which replace those of before field by field; problems: what the same report says is not as asked,
    None where it does not say. 1. Where enforcing was undone on the host or did not begin, the server's mode becomes
    observe: the host does not try again by itself. 2. A server in mode AUTO gets mode enforce once its host says that
    this shuts nobody out.
    """
    facts = dict(server.facts)
    values: dict[str, Any] = {}
    if isinstance(body, Mapping):
        for name, read in (("sshd", _settings), ("accounts", _accounts), (LOGINS, _logins)):
            if isinstance(body.get(name), Mapping):
                facts[name] = read(body[name])
        if isinstance(body.get(PLAN), Mapping):
            facts.pop(PLAN, None)
            facts |= _plan(body[PLAN])
        if isinstance(body.get(WRITERS), list):
            facts[WRITERS] = [str(name)[:LONGEST_NAME] for name in body[WRITERS][:MAX_WRITERS]]
        if is_port(body.get(SSH_PORT)):
            facts[SSH_PORT] = body[SSH_PORT]
        before = str(facts.get("enforcement") or "")
        for name in ("enforcement", "scan", "shut_out"):
            facts.pop(name, None)
            _copy_text(facts, body, name)
        # Why it was undone is kept until enforcing is asked for again (core/hosts/modes.py).
        _copy_text(facts, body, "undone")
        _record_enforcement(work, server, before, str(facts.get("enforcement") or ""))
        if facts.get("scan") and facts["scan"] != server.facts.get("scan"):
            report_events.record(work, server, f"Host {server.name} does not see all keys: {facts['scan']}")
        if isinstance(body.get("accounts"), Mapping):
            _keep_deployment_keys(work, server, body["accounts"])
        values |= _follow_enforcement(work, server, facts, begun=body.get("begun") is not False)
    words = None if problems is None else list(problems)
    if words is not None and words != facts.get("problems", []):
        facts["problems"] = words
        if words:
            report_events.record(work, server, f"Host {server.name} says: {'; '.join(words)}")
        for one in filter(audit_tree.says_rewritten, words):
            report_events.raise_alarm(work, server, REWRITTEN_CODE, f"{rewritten_words(server, one)}. {_COMPARE_FIRST}")
    return {**values, "facts": facts} if facts != dict(server.facts) or values else {}


def rewritten_words(server: Server, problem: str) -> str:
    """The alarm that a host found the audit log rewritten; problem: in the host's words."""
    return f"host {server.name} does not find the audit log as it was: {problem}"


def undone_words(server: Server, reason: str) -> str:
    """The alarm that a host undid enforcing; reason: in the host's words, or ""."""
    words = f"enforcing was undone on {server.name}, so keys in files of its own count there, revoked ones too"
    return f"{words}: {reason or 'no reason given'}"


def problems(body: Mapping[str, Any]) -> list[str] | None:
    """What a report says is not as asked, in words; None where it does not say."""
    said = body.get("problems")
    if not isinstance(said, list):
        return None
    return [problem[:LONGEST_PROBLEM] for problem in said if isinstance(problem, str)][:MAX_PROBLEMS]


def short_text(body: Mapping[str, Any], name: str) -> str | None:
    """A short printable ASCII text in a report, such as its agent's version; None where there is none."""
    value = body.get(name)
    return value[:LONGEST_TEXT] if isinstance(value, str) and PRINTABLE.fullmatch(value) else None


@dataclass(frozen=True, slots=True)
class EnforcingPlan:
    """What enforcing would change beyond keys, as the host said at a revision: lines by heading."""

    revision: int
    sections: Mapping[str, Sequence[str]]


def is_undone(server: Server) -> bool:
    """Whether a host undid enforcing, or could not begin, and nobody has accepted since that it observes."""
    settled_reason = server.facts.get(UNDONE_SETTLED)
    is_unsettled = settled_reason is None or server.facts.get("undone", settled_reason) != settled_reason
    return server.facts.get("enforcement") == UNDONE and is_unsettled


def plan_of(server: Server) -> EnforcingPlan | None:
    """What an observing host says that enforcing would change there; None where its agent does not say."""
    reported = server.facts.get(PLAN)
    return None if reported is None else EnforcingPlan(reported["revision"], reported["sections"])


def machine(body: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    """What a host reports of its machine and its load; None for what it does not report, or not as a number or text."""
    machine_facts: dict[str, Any] = dict.fromkeys((*MACHINE_TEXTS, *MACHINE_NUMBERS))
    for name in MACHINE_TEXTS:
        if isinstance(body.get(name), str):
            machine_facts[name] = body[name][:LONGEST]
    for name in MACHINE_NUMBERS:
        value = body.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63:
            machine_facts[name] = value
    return {**machine_facts, "at": at.isoformat()}


def sessions_unknown(work: Work, server: Server, facts: Mapping[str, Any], words: str) -> dict[str, Any]:
    """The facts with why the host may not know all open sessions, "" where it does; a new reason leaves an event."""
    words = words[:LONGEST]
    if words and words != facts.get(SESSIONS):
        report_events.record(work, server, f"Host {server.name} does not know all sessions: {words}")
    others = {name: fact for name, fact in facts.items() if name != SESSIONS}
    return {**others, SESSIONS: words} if words else others


def _follow_enforcement(work: Work, server: Server, facts: Mapping[str, Any], *, begun: bool) -> dict[str, Any]:
    """The mode that follows from what the host does, as a column; raises the revision and records an event with it."""
    enforcement = facts.get("enforcement")
    if server.mode == ENFORCE and enforcement == UNDONE:  # 1
        mode = OBSERVE
        reason = str(facts.get("undone") or "no reason given")
        if begun:
            do = with_commands("Mend it, then enforce again", f"hosts enforce {server.id}")
            report_events.raise_alarm(work, server, UNDONE_CODE, f"{undone_words(server, reason)}. {do}")
        else:
            report_events.record(
                work, server, f"Enforcing did not begin on {server.name}, which observes again: {reason}"
            )
    elif server.mode == AUTO and (enforcement == UNMANAGED or facts.get("shut_out") == NOBODY):  # 2
        mode = ENFORCE
        if enforcement != UNMANAGED:
            report_events.record(work, server, f"Host {server.name} is to enforce now, as that shuts nobody out")
    else:
        return {}
    work.bump_revision(server.id)
    return {"mode": mode}


def _record_enforcement(work: Work, server: Server, before: str, now: str) -> None:
    """Record an event where the host began or ended to enforce."""
    was_on = before in (TRYING, ENFORCE, UNPROVEN)
    if now != before and now in _CHANGED and (now != OBSERVE or was_on):
        report_events.record(work, server, _CHANGED[now].format(name=server.name))


def _copy_text(facts: dict[str, Any], body: Mapping[str, Any], name: str) -> None:
    word = read_word(body.get(name)) if name == "enforcement" else body.get(name)
    if isinstance(word, str) and word:
        facts[name] = word[:LONGEST]


def _settings(body: Mapping[str, Any]) -> dict[str, str]:
    return {
        keyword: value[:LONGEST]
        for keyword, value in list(body.items())[:MAX]
        if KEYWORD.fullmatch(str(keyword)) and isinstance(value, str)
    }


def _refused(account: Mapping[str, Any]) -> dict[str, str]:
    """Why an account is not as asked, where the host says so, as a fact."""
    words = account.get("refused")
    return {"refused": words[:LONGEST]} if isinstance(words, str) and words else {}


def _accounts(body: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Which accounts exist; deployment keys are stored with the system users."""
    return {
        name: {"exists": account.get("exists") is True, **_refused(account)}
        for name, account in list(body.items())[:MAX]
        if isinstance(name, str) and names.account_problem(name) is None and isinstance(account, Mapping)
    }


def _logins(body: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Why keys do not open accounts, by account: `why` for all keys, or `keys` with reasons by fingerprint."""
    accounts: dict[str, dict[str, Any]] = {}
    room = MAX_REASONS
    for name, account in list(body.items())[:MAX]:
        if not isinstance(account, Mapping):
            continue
        why, keys = account.get("why"), account.get("keys")
        known = accounts.setdefault(str(name)[:LONGEST_NAME], {})
        if isinstance(why, str) and why:
            known["why"] = why[:LONGEST]
        elif isinstance(keys, Mapping):
            reasons = {key: words for key, words in keys.items() if is_fingerprint(key) and isinstance(words, str)}
            known["keys"] = {key: words[:LONGEST] for key, words in list(reasons.items())[:room]}
            room -= len(known["keys"])
    return accounts


def _plan(body: Mapping[str, Any]) -> dict[str, Any]:
    """The plan as a fact, empty where it says nothing."""
    sections, revision = body.get("sections"), body.get("revision")
    if not isinstance(sections, Mapping) or not isinstance(revision, int) or not 0 <= revision < 2**63:
        return {}
    plan = {
        _plain(str(heading)[:LONGEST_NAME]): [
            _plain(line[:LONGEST]) for line in lines[:MAX_LINES] if isinstance(line, str)
        ]
        for heading, lines in list(sections.items())[:MAX_SECTIONS]
        if isinstance(lines, list)
    }
    return {PLAN: {"revision": revision, "sections": plan}} if plan else {}


def _plain(line: str) -> str:
    """A line as our agents write it, in printable ASCII."""
    return re.sub(r"[^\x20-\x7e]", "?", line)


def _keep_deployment_keys(work: Work, server: Server, body: Mapping[str, Any]) -> None:
    for name, account in list(body.items())[:MAX]:
        key = _key(account) if isinstance(account, Mapping) else None
        user = None if key is None else system_users.by_name(work.connection, server.id, name)
        if user is not None and user.deployment_key != key:
            system_users.change(work.connection, user.id, {"deployment_key": key})
            report_events.record(work, server, f"Host {server.name} has a deployment key for {name}")


def _key(account: Mapping[str, Any]) -> str | None:
    """Invariant 1: what a host calls its key is one only if the strict parser says so."""
    line = account.get("deployment_key")
    if not isinstance(line, str):
        return None
    # Imported with the first key, as a list of hosts loads this module and reads none.
    from keyrack.ssh import public_key

    try:
        return public_key.parse(line).canonical
    except public_key.KeyProblem:
        return None
