"""Events and alarms of what hosts report, without repetition and within a rate limit; must drop no receipt."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from keyrack.core.audit import alarms
from keyrack.core.next_steps import with_commands
from keyrack.core.work import Work
from keyrack.model import Server
from keyrack.protocol.report import REFUSED as REFUSED_WHOLE
from keyrack.store.audit import events

if TYPE_CHECKING:
    from keyrack.store.hosts.deleted_servers import DeletedServer

MAX_PER_HOUR = 300
MAX_ALIKE = 10  # events with the same words in an hour, so that a state that comes and goes does not fill the log
LONGEST = 1000
CHANNEL = "agent"
REFUSED, KEYS_DIGEST = "refused", "keys_found"
REFUSED_CODE, FAILED_CODE = "document-refused", "document-failed"
_OFTEN = " (again and again; the rest of this hour is left out here)"


def record(work: Work, server: Server | DeletedServer, *summaries: str) -> None:
    """Record an event for each summary, within limits for one host and hour.

    1. The same words leave at most MAX_ALIKE events; the last one says so. 2. All together leave at most MAX_PER_HOUR;
    the last one says that the rest is left out.
    """
    if not summaries:
        return
    since = work.now - timedelta(hours=1)
    newest = events.newest(work.connection, server.id, CHANNEL, most=MAX_PER_HOUR)
    lately = Counter(summary for at, summary in newest if at >= since)
    for summary in summaries:
        summary = summary[: LONGEST - len(_OFTEN)]
        alike, count = lately[summary] + lately[summary + _OFTEN], lately.total()
        if alike >= MAX_ALIKE or count >= MAX_PER_HOUR:
            work.no_event("an event said already that there is more")
            continue
        if alike == MAX_ALIKE - 1:  # 1
            summary += _OFTEN
        if count == MAX_PER_HOUR - 1:  # 2
            words = f"told of more than {MAX_PER_HOUR} things in an hour; the rest is left out here"
            summary = f"Host {server.name} {words}"
        lately[summary] += 1
        work.record(summary[:LONGEST], target_kind="server", target_id=server.id, server_id=server.id, level="warning")


def document_refused(
    work: Work, server: Server, facts: Mapping[str, Any], state: str, revision: int, reasons: str
) -> dict[str, Any]:
    """Raise an alarm that a host did not apply its document, and answer the facts with it. Repeated words are only
    counted.

    state: as reported. "refused": the host takes nothing of the document. "failed": it may have applied a part, and
    tries again by itself. Either way revocations do not come into force there. revision: the one in force there.
    """
    is_whole = state == REFUSED_WHOLE
    words = _refused_words(server, revision, reasons) if is_whole else _failed_words(server, revision, reasons)
    before = facts.get(REFUSED) or {}
    if before.get("words") == words:
        work.no_event("the same words again are counted with the server")
        return {**facts, REFUSED: {**before, "count": before["count"] + 1}}
    raise_alarm(work, server, REFUSED_CODE if is_whole else FAILED_CODE, words)
    return {**facts, REFUSED: {"words": words, "count": 1, "whole": is_whole}}


def raise_alarm(work: Work, server: Server, code: str, words: str) -> None:
    """Raise an alarm about what a host reported, unless it was raised within the last hour.

    code: the event's reason; words: a sentence, with what to do.
    """
    if alarms.was_recorded(work.connection, server, code, words, work.now):
        work.no_event("the same alarm was raised within the hour")
        return
    alarms.record(work.connection, server, code, words, work.now)
    work.no_event("the alarm is the event")


def standing_refusal(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Why a server does not obey its document now and what to do; empty where it does."""
    now = facts.get(REFUSED) or {}
    return (str(now["words"]),) if now else ()


def _failed_words(server: Server, revision: int, reasons: str) -> str:
    what = (
        f"host {server.name} cannot apply its document, so what is newer is not in force there, or in part, revocations"
    )
    then = f"revision {revision} is in force" if revision else "nothing of Keyrack is in force"
    do = (
        "It tries again by itself: make room there, or take away what `keyrack-agent doctor` names as in the way; "
        "a key that must not get in meanwhile, shut out at the network or in sshd"
    )
    room = LONGEST - len(what) - len(then) - len(do) - 30
    return f"{what} included; {then}: {reasons[:room]}. {do}"


def _refused_words(server: Server, revision: int, reasons: str) -> str:
    what = f"host {server.name} refuses its document, so nothing new comes into force there, revocations included"
    then = f"revision {revision} stays in force" if revision else "nothing of Keyrack is in force"
    do = with_commands(
        "Paste its installation line there, which brings the agent of now; with --replace at its end where the service "
        "has another instance key than before",
        f"hosts enrol {server.id}",
    )
    room = LONGEST - len(what) - len(then) - len(do) - 20
    return f"{what}; {then}: {reasons[:room]}. {do}"


def document_applied(work: Work, server: Server, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Record that a host obeys again where it had an alarm, and answer the facts without that."""
    before = facts.get(REFUSED)
    if before is None:
        return dict(facts)
    times = f" {before['count']} times" if before["count"] > 1 else ""
    record(work, server, f"Host {server.name} obeys again; it had said{times}: {before['words']}")
    return {name: value for name, value in facts.items() if name != REFUSED}


def keys_digest(body: object) -> str:
    """A digest of a list of unmanaged keys, so that the same list is stored once."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode("ascii")).hexdigest()
