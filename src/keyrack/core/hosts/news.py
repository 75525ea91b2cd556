"""What a host's reports may add to the audit log: each thing once, and never without end; must drop no receipt."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from keyrack.core.audit import alarms
from keyrack.core.work import Work
from keyrack.model import Server
from keyrack.protocol.report import REFUSED as REFUSED_WHOLE
from keyrack.store.audit import events
from keyrack.store.hosts.deleted_servers import DeletedServer

MOST_AN_HOUR = 300
MOST_ALIKE = 10  # an hour: what comes and goes must not fill the log
LONGEST = 1000
CHANNEL = "agent"
REFUSED, FOUND = "refused", "keys_found"
REFUSED_CODE = "document-refused"
_OFTEN = " (again and again; the rest of this hour is left out here)"


def tell(work: Work, server: Server | DeletedServer, *summaries: str) -> None:
    """Leave events of what a host told; beyond MOST_AN_HOUR of one host there is one more, which says so. The same
    words again and again are left out as well, beyond MOST_ALIKE in an hour, which the last of them says.
    """
    if not summaries:
        return
    since = work.now - timedelta(hours=1)
    newest = events.newest(work.connection, server.id, CHANNEL, most=MOST_AN_HOUR)
    lately = Counter(summary for at, summary in newest if at >= since)
    for summary in summaries:
        summary = summary[: LONGEST - len(_OFTEN)]
        alike, count = lately[summary] + lately[summary + _OFTEN], lately.total()
        if alike >= MOST_ALIKE or count >= MOST_AN_HOUR:
            work.no_event("an event said already that there is more")
            continue
        if alike == MOST_ALIKE - 1:
            summary += _OFTEN
        if count == MOST_AN_HOUR - 1:
            words = f"told of more than {MOST_AN_HOUR} things in an hour; the rest is left out here"
            summary = f"Host {server.name} {words}"
        lately[summary] += 1
        work.record(summary[:LONGEST], target_kind="server", target_id=server.id, server_id=server.id, level="warning")


def refused(
    work: Work, server: Server, facts: Mapping[str, Any], state: str, revision: int, reasons: str
) -> dict[str, Any]:
    """The facts of a server that did not apply its document. The same words again are counted, and no event.

    state: as the report says it, "refused" or "failed". A document that is refused whole is an alarm, as nothing new
    comes into force there, revocations included; what failed is tried again by the host itself, and may be done in
    part. revision: what is in force there.
    """
    if state == REFUSED_WHOLE:
        words = _refuses(server, revision, reasons)
    else:
        words = f"Host {server.name} did not apply its document, after revision {revision}: {reasons}"[:LONGEST]
    before = facts.get(REFUSED) or {}
    if before.get("words") == words:
        work.no_event("the same words again are counted with the server")
        return {**facts, REFUSED: {**before, "count": before["count"] + 1}}
    if state != REFUSED_WHOLE:
        tell(work, server, words + _again(before))
    elif not alarms.was_recorded(work.connection, server, REFUSED_CODE, words, work.now):
        alarms.record(work.connection, server, REFUSED_CODE, words, work.now)
        work.no_event("the alarm is the event")
    else:
        work.no_event("the same alarm was raised within the hour")
    return {**facts, REFUSED: {"words": words, "count": 1, "whole": state == REFUSED_WHOLE}}


def standing_refusal(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """That a server refuses its document whole now, and what to do; empty where it does not."""
    now = facts.get(REFUSED) or {}
    return (str(now["words"]),) if now.get("whole") else ()


def _refuses(server: Server, revision: int, reasons: str) -> str:
    what = f"host {server.name} refuses its document, so nothing new comes into force there, revocations included"
    then = f"revision {revision} stays in force" if revision else "nothing of Keyrack is in force"
    do = (
        f"Paste the line of `keyrack hosts enrol {server.id}` there, which brings the agent of now; with --replace at "
        "its end where the service has another instance key than before"
    )
    room = LONGEST - len(what) - len(then) - len(do) - 20
    return f"{what}; {then}: {reasons[:room]}. {do}"


def applied(work: Work, server: Server, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a server that obeys again; how often it had said no is told where that was more than once."""
    before = facts.get(REFUSED)
    if before is None:
        return dict(facts)
    if before["count"] > 1:
        tell(work, server, f"Host {server.name} obeys again; it had said {before['count']} times: {before['words']}")
    return {name: value for name, value in facts.items() if name != REFUSED}


def digest(body: object) -> str:
    """What a list of unmanaged keys is known by, so that the same one is taken in once."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode("ascii")).hexdigest()


def _again(before: Mapping[str, Any]) -> str:
    return f" (what it said before, it said {before['count']} times)" if before.get("count", 1) > 1 else ""
