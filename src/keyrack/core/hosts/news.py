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

MOST_AN_HOUR = 300
MOST_ALIKE = 10  # an hour: what comes and goes must not fill the log
LONGEST = 1000
CHANNEL = "agent"
REFUSED, FOUND = "refused", "keys_found"
REFUSED_CODE, FAILED_CODE = "document-refused", "document-failed"
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

    state: as the report says it, "refused" or "failed". Either is an alarm, as revocations do not come into force
    there: what is refused is refused whole; what failed is tried again by the host itself, and may be done in part.
    revision: what is in force there.
    """
    is_whole = state == REFUSED_WHOLE
    words = _refuses(server, revision, reasons) if is_whole else _fails(server, revision, reasons)
    before = facts.get(REFUSED) or {}
    if before.get("words") == words:
        work.no_event("the same words again are counted with the server")
        return {**facts, REFUSED: {**before, "count": before["count"] + 1}}
    raise_alarm(work, server, REFUSED_CODE if is_whole else FAILED_CODE, words)
    return {**facts, REFUSED: {"words": words, "count": 1, "whole": is_whole}}


def raise_alarm(work: Work, server: Server, code: str, words: str) -> None:
    """Raise an alarm about what a host reported, unless the same was raised within the last hour. code: the event's
    reason; words: with what to do.
    """
    if alarms.was_recorded(work.connection, server, code, words, work.now):
        work.no_event("the same alarm was raised within the hour")
        return
    alarms.record(work.connection, server, code, words, work.now)
    work.no_event("the alarm is the event")


def standing_refusal(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """That a server does not obey its document now, and what to do; empty where it does."""
    now = facts.get(REFUSED) or {}
    return (str(now["words"]),) if now else ()


def _fails(server: Server, revision: int, reasons: str) -> str:
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


def _refuses(server: Server, revision: int, reasons: str) -> str:
    what = f"host {server.name} refuses its document, so nothing new comes into force there, revocations included"
    then = f"revision {revision} stays in force" if revision else "nothing of Keyrack is in force"
    do = with_commands(
        "Paste its installation line there, which brings the agent of now; with --replace at its end where the service "
        "has another instance key than before",
        f"hosts enrol {server.id}",
    )
    room = LONGEST - len(what) - len(then) - len(do) - 20
    return f"{what}; {then}: {reasons[:room]}. {do}"


def applied(work: Work, server: Server, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a server that obeys again, which is told: it had been an alarm."""
    before = facts.get(REFUSED)
    if before is None:
        return dict(facts)
    times = f" {before['count']} times" if before["count"] > 1 else ""
    tell(work, server, f"Host {server.name} obeys again; it had said{times}: {before['words']}")
    return {name: value for name, value in facts.items() if name != REFUSED}


def digest(body: object) -> str:
    """What a list of unmanaged keys is known by, so that the same one is taken in once."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode("ascii")).hexdigest()
