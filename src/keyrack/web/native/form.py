"""The shapes of Keyrack's own API: pages, times, and each noun as JSON; must call no use case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import wraps
from typing import Any, TypeVar

from starlette.responses import JSONResponse, Response

from keyrack.core.audit import events
from keyrack.core.hosts import status
from keyrack.core.hosts.resync import Difference
from keyrack.core.instance import Instance
from keyrack.core.keys.receipts import Receipts
from keyrack.core.keys.revocation import Revoked
from keyrack.errors import invalid
from keyrack.model import Credential, Event, Page, Server, Session, UnmanagedKey
from keyrack.store.deleted_servers import DeletedServer
from keyrack.store.revoked_keys import RevokedKey
from keyrack.web import bodies
from keyrack.web.api import Call, Handler

T = TypeVar("T")

PER_PAGE = 50
MOST_PER_PAGE = 200


def window(call: Call) -> dict[str, Any]:
    """Offset and limit of the page asked for: `page` from 1, `per_page` from 1 to 200. Raises Refusal INVALID."""
    per_page = _whole(call, "per_page", PER_PAGE, MOST_PER_PAGE)
    return {"offset": (_whole(call, "page", 1, bodies.LARGEST_ID) - 1) * per_page, "limit": per_page}


def listed(found: Page[T], show: Callable[[T], dict[str, Any]]) -> Response:
    """A page of a list."""
    page = found.offset // found.limit + 1
    items = [show(item) for item in found.items]
    return JSONResponse({"items": items, "total": found.total, "page": page, "per_page": found.limit})


def asked(handler: Handler, names: tuple[str, ...]) -> Handler:
    """The handler, which refuses what its query does not take."""

    @wraps(handler)
    def checked(call: Call) -> Response:
        for name in call.query:
            if name not in names:
                known = f"This call takes in its query: {', '.join(names)}." if names else "This call takes no query."
                raise invalid(name if name.isidentifier() else "query", known, "parameter-unknown")
        return handler(call)

    return checked


def span(call: Call) -> dict[str, Any]:
    """The part of the audit log asked for: `from`, `to`, and `before`, an event's id. Raises Refusal INVALID."""
    found: dict[str, Any] = {}
    for name, wanted in (("from", "since"), ("to", "until")):
        # + is a blank in a query where it was not written as %2B.
        text = call.query.get(name, "").replace(" ", "+")
        if text:
            found[wanted] = events.moment(text, field=name, end=name == "to")
    if call.query.get("before"):
        found["before"] = _whole(call, "before", 1, bodies.LARGEST_ID)
    return found


def only(call: Call, *names: str) -> None:
    """Refuse fields that a call does not take, so that a misspelt one is not silently left out."""
    for name in call.body:
        if name not in names:
            raise invalid("body", f"This call takes: {', '.join(names)}.", "field-unknown")


def moment(call: Call, name: str) -> datetime | None:
    """A field that holds a time in ISO 8601, or None. Raises Refusal INVALID."""
    value = call.body.get(name)
    if value is None:
        return None
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        raise invalid(name, "A time is written like 2026-11-22T16:00:00Z.") from None


def time(at: datetime | None) -> str | None:
    """A time in UTC by ISO 8601 to the second, or null."""
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def server(instance: Instance, shown: Server) -> dict[str, Any]:
    """A server and how it is held."""
    held = asdict(status.of(instance, shown))
    held |= {"applied_at": time(shown.applied_at), "seen_at": time(shown.seen_at)}
    return {
        "id": shown.id,
        "name": shown.name,
        "address": shown.address,
        "tags": list(shown.tags),
        "agent_version": shown.agent_version,
        "os": shown.os,
        "os_version": shown.os_version,
        "enrolled_at": time(shown.enrolled_at),
        **held,
    }


def deleted_server(gone: DeletedServer) -> dict[str, Any]:
    """A server that was deleted; acknowledged_at: when its host said that it obeys that, or null."""
    return {
        "id": gone.id,
        "name": gone.name,
        "address": gone.address,
        "deleted_at": time(gone.deleted_at),
        "deleted_by": gone.deleted_by,
        "acknowledged_at": time(gone.acknowledged_at),
    }


def revoked_key(noted: RevokedKey) -> dict[str, Any]:
    """A key that nobody may register, with who revoked it, when and why."""
    return {
        "fingerprint": noted.fingerprint,
        "revoked_by": noted.revoked_by,
        "reason": noted.reason,
        "revoked_at": time(noted.revoked_at),
    }


def unmanaged_key(found: UnmanagedKey) -> dict[str, Any]:
    """An unmanaged key; owner: the user of the workspace whose key it is, or null."""
    return asdict(found) | {"found_at": time(found.found_at), "seen_at": time(found.seen_at)}


def credential(made: Credential) -> dict[str, Any]:
    """A credential as far as an operator needs it."""
    return {
        "id": made.id,
        "server_id": made.server_id,
        "username": made.username,
        "label": made.label,
        "fingerprint": made.fingerprint,
        "public_key": made.line,
        "restrictions": dict(made.restrictions),
        "expires_at": time(made.expires_at),
        "revision": made.revision,
    }


def session(shown: Session) -> dict[str, Any]:
    """An open login."""
    return {
        "id": shown.id,
        "username": shown.username,
        "address": shown.address,
        "fingerprint": shown.fingerprint or None,
        "label": shown.label,
        "started_at": time(shown.started_at),
        "ending": shown.ending,
    }


def event(shown: Event) -> dict[str, Any]:
    """A line of the audit log."""
    return {
        "id": shown.id,
        "at": time(shown.at),
        "actor": shown.actor_name,
        "token": shown.token_name,
        "address": shown.address,
        "channel": shown.channel,
        "action": shown.action,
        "outcome": shown.outcome,
        "reason": shown.reason,
        "server_id": shown.server_id,
        "summary": shown.summary,
        "level": shown.level,
    }


def revoked(done: Revoked) -> dict[str, Any]:
    """What a key was taken away from, and the revision of each server that says so."""
    return asdict(done)


def difference(found: Difference) -> dict[str, Any]:
    """What is held back on a server since the database went back."""
    held = [
        {
            "kind": row.kind,
            "username": row.username or None,
            "fingerprint": row.fingerprint or None,
            "options": list(row.options),
            "name": row.name or None,
            "decided_at": time(row.decided_at),
        }
        for row in found.held
    ]
    return {"waiting_for_host": found.asked, "undecided": found.undecided, "held_back": held}


def receipts(found: Receipts) -> dict[str, Any]:
    """How far a change has come."""
    servers = [asdict(one) | {"at": time(one.at), "done": one.done} for one in found.of]
    return {"done": found.done, "words": found.words, "servers": servers}


def _whole(call: Call, name: str, default: int, most: int) -> int:
    text = call.query.get(name, "")
    value = default if text == "" else bodies.number(text)
    if value is None or not 1 <= value <= most:
        raise invalid(name, f"It is a whole number from 1 to {most}.")
    return value
