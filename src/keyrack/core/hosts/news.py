"""What a host's reports may add to the audit log: each thing once, and never without end; must drop no receipt."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from keyrack.core.work import Work
from keyrack.model import Server
from keyrack.store.audit import events

MOST_AN_HOUR = 300
MOST_ALIKE = 10  # an hour: what comes and goes must not fill the log
LONGEST = 1000
CHANNEL = "agent"
REFUSED, FOUND = "refused", "keys_found"
_OFTEN = " (again and again; the rest of this hour is left out here)"


def tell(work: Work, server: Server, *summaries: str) -> None:
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


def refused(work: Work, server: Server, facts: Mapping[str, Any], words: str) -> dict[str, Any]:
    """The facts of a server that did not apply its document. The same words again are counted, and no event."""
    before = facts.get(REFUSED) or {}
    if before.get("words") == words:
        work.no_event("the same words again are counted with the server")
        return {**facts, REFUSED: {"words": words, "count": before["count"] + 1}}
    tell(work, server, words + _again(before))
    return {**facts, REFUSED: {"words": words, "count": 1}}


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
