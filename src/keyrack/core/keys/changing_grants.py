"""Changes the terms of a grant under its id: restrictions, end, reason; must not change whom it lets in, or where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyrack.core import validation
from keyrack.core.instance import Instance
from keyrack.core.keys import event_terms
from keyrack.core.keys.grants import let_in
from keyrack.core.lookups import own_grant
from keyrack.core.validation import KEEP
from keyrack.core.work import Attempt, Work
from keyrack.errors import invalid
from keyrack.model import Actor, Grant
from keyrack.store.keys import grants


def change(
    instance: Instance,
    actor: Actor,
    grant_id: int,
    *,
    restrictions: object = KEEP,
    expires_at: object = KEEP,
    duration: object = None,
    reason: object = KEEP,
) -> Grant:
    """Change the terms of a grant; an argument that is KEEP leaves its term as it is. Open sessions go on.

    restrictions: all of them, as ssh.options.Restrictions reads them, None for none; expires_at, or duration from now
    on: as validation.end takes them, None for no end; reason: None for none. Nothing is done where nothing differs.
    Another user, place or start is another grant. Raises Refusal INVALID or MISSING.
    """
    with Attempt(instance, actor, "grants:write", "change a grant", target_kind="grant", target_id=grant_id) as attempt:
        values: dict[str, Any] = {}
        if restrictions is not KEEP:
            values["restrictions"] = validation.restrictions(restrictions)
        if reason is not KEEP:
            values["reason"] = validation.reason(reason) or None
        if expires_at is not KEEP or duration is not None:
            wanted = None if expires_at is KEEP else expires_at
            values["expires_at"] = validation.end(instance.now(), wanted, duration=duration)

        return attempt.write(lambda work: _set(work, grant_id, values))


def renew(
    instance: Instance, actor: Actor, grant_id: int, *, expires_at: object = None, duration: object = None
) -> Grant:
    """Give a grant another end, also one that has ended and is still there.

    expires_at or duration: as validation.other_end takes them. Raises Refusal INVALID or MISSING.
    """
    with Attempt(instance, actor, "grants:write", "renew a grant", target_kind="grant", target_id=grant_id) as attempt:
        values = {"expires_at": validation.other_end(instance.now(), expires_at, duration)}
        return attempt.write(lambda work: _set(work, grant_id, values))


def _set(work: Work, grant_id: int, values: Mapping[str, Any]) -> Grant:
    """Write terms, as columns of the table, and record how those that differ have changed."""
    grant = own_grant(work, grant_id)
    if not values:
        raise invalid("body", "Name what is to change: restrictions, expires_at, duration or reason.")
    end = values.get("expires_at", grant.expires_at)
    if grant.starts_at is not None and end is not None and end <= grant.starts_at:
        raise invalid("expires_at", "It would end before it starts.")
    changed = {name: value for name, value in values.items() if value != _term(grant, name)}
    if not changed:
        work.no_event("as it is already")
        return grant
    grants.change_grant(work.connection, grant.id, changed, at=work.now)
    if grant.has_begun(work.now) and changed.keys() != {"reason"}:
        let_in(work, grant)
    words = ", ".join(_words(name, value, _term(grant, name)) for name, value in changed.items())
    work.record(
        f"Changed grant {grant.id} of the login as {grant.system_user}: {words}",
        target_id=grant.id,
        server_id=grant.server_id,
        details=event_terms.details(changed["restrictions"], grant.restrictions) if "restrictions" in changed else {},
    )
    changed_grant = grants.get_grant(work.connection, work.actor.workspace_id, grant.id)
    assert changed_grant is not None
    return changed_grant


def _term(grant: Grant, name: str) -> object:
    return dict(grant.restrictions) if name == "restrictions" else getattr(grant, name)


def _words(name: str, value: Any, before: Any) -> str:
    """The new value of a term and the old one, for the event."""
    if name == "restrictions":
        return f"restricted to {event_terms.limits(value)} (it was to {event_terms.limits(before)})"
    if name == "reason":
        return f"reason {value!r} (it was {before!r})"
    return f"end {event_terms.end(value)} (it was {event_terms.end(before)})"
