"""The audit log: what calls take and answer; must call no use case."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from keyrack.core.audit import events
from keyrack.model import Event as EventRecord
from keyrack.web.examples import FINGERPRINT
from keyrack.web.native.shapes import Answer, Id, IdAsked, Listed, PlusKept, Search, Time, about, time


class EventsAsked(Search):
    """Which part of the audit log."""

    server: Annotated[str, about("What concerned this server, also by a tag or a group.", "web-1")] = ""
    since: Annotated[str, PlusKept, Field(alias="from"), about("From this time or day on.", "2026-11-22")] = ""
    until: Annotated[str, PlusKept, Field(alias="to"), about("Until this time or day.", "2026-11-22T16:00:00Z")] = ""
    person: Annotated[str, about("What this user did, by name.", "alice")] = ""
    key: Annotated[str, PlusKept, about("What names this key, by its fingerprint.", FINGERPRINT)] = ""
    kind: Annotated[
        str,
        about(
            f"What is about {', '.join(events.KINDS)}; or {events.REFUSED} for what was refused, {events.ALARM} for "
            "alarms.",
            "keys",
        ),
    ] = ""
    before: Annotated[IdAsked, about("What is older than the event with this id.", 99)] = None

    def span(self) -> dict[str, Any]:
        """The part asked for, as the core takes it. Raises Refusal INVALID."""
        bounds: dict[str, Any] = {}
        if self.since:
            bounds["since"] = events.moment(self.since, field="from")
        if self.until:
            bounds["until"] = events.moment(self.until, field="to", end=True)
        if self.before is not None:
            bounds["before"] = self.before
        return bounds


class Event(Answer):
    """A line of the audit log."""

    id: Annotated[Id, about("Its id.")]
    at: Annotated[Time, about("When.")]
    actor: Annotated[str, about("Who.", "alice")]
    token: Annotated[str, about("With which token.", "ci")]
    address: Annotated[str, about("From where.", "198.51.100.3")]
    channel: Annotated[str, about("Through which API.", "native")]
    action: Annotated[str, about("What was done or tried.", "credentials:write")]
    outcome: Annotated[str, about("done or refused.", "done")]
    reason: Annotated[str, about("Why it was refused.", "")]
    server_id: Annotated[Id | None, about("On which server.")]
    summary: Annotated[str, about("What happened, in words.", "Added SSH key laptop for deploy on web-1")]
    level: Annotated[str, about("How much it matters.", "info")]
    receipts: Annotated[bool, about("Whether hosts are to obey it: GET /events/{id}/receipts shows which do.", True)]


class EventPage(Listed[Event]):
    """A page of the audit log."""


def event(shown: EventRecord) -> Event:
    """A line of the audit log."""
    return Event(
        id=shown.id,
        at=time(shown.at),
        actor=shown.actor_name,
        token=shown.token_name,
        address=shown.address,
        channel=shown.channel,
        action=shown.action,
        outcome=shown.outcome,
        reason=shown.reason,
        server_id=shown.server_id,
        summary=shown.summary,
        level=shown.level,
        receipts=shown.has_receipts,
    )
