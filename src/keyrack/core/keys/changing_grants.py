"""Changes the terms of a grant under the id that it has: restrictions, end, reason; must move it nowhere else."""

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
    """Give a grant other terms; what is KEEP stays. Sessions that are open go on, and hosts are told.

    restrictions: all of them, as ssh.options.Restrictions reads them, None for none; expires_at, or duration from now
    on: as validation.end takes them, None for no end; reason: None for none. Where it is all so already nothing is
    done. Whom it lets in, where and from when stays: that is another grant. Raises Refusal INVALID or MISSING.
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
    """Give a grant another end, also one that has ended and is still there. expires_at or duration: as
    validation.other_end takes them. Raises Refusal INVALID or MISSING.
    """
    with Attempt(instance, actor, "grants:write", "renew a grant", target_kind="grant", target_id=grant_id) as attempt:
        values = {"expires_at": validation.other_end(instance.now(), expires_at, duration)}
        return attempt.write(lambda work: _set(work, grant_id, values))


def _set(work: Work, grant_id: int, values: Mapping[str, Any]) -> Grant:
    """Give a grant terms (columns of the table), and say what became of those that are other than before."""
    grant = own_grant(work, grant_id)
    if not values:
        raise invalid("body", "Name what is to change: restrictions, expires_at, duration or reason.")
    end = values.get("expires_at", grant.expires_at)
    if grant.starts_at is not None and end is not None and end <= grant.starts_at:
        raise invalid("expires_at", "It would end before it starts.")
    other = {name: value for name, value in values.items() if value != _of(grant, name)}
    if not other:
        work.no_event("as it is already")
        return grant
    grants.change_grant(work.connection, grant.id, other, at=work.now)
    if grant.has_begun(work.now) and other.keys() != {"reason"}:
        let_in(work, grant)
    words = ", ".join(_words(name, value, _of(grant, name)) for name, value in other.items())
    work.record(
        f"Changed grant {grant.id} of the login as {grant.system_user}: {words}",
        target_id=grant.id,
        server_id=grant.server_id,
        details=event_terms.details(other["restrictions"], grant.restrictions) if "restrictions" in other else {},
    )
    changed = grants.get_grant(work.connection, work.actor.workspace_id, grant.id)
    assert changed is not None
    return changed


def _of(grant: Grant, name: str) -> object:
    return dict(grant.restrictions) if name == "restrictions" else getattr(grant, name)


def _words(name: str, value: Any, before: Any) -> str:
    """What became of a term, and what it was."""
    if name == "restrictions":
        return f"restricted to {event_terms.limits(value)} (it was to {event_terms.limits(before)})"
    if name == "reason":
        return f"reason {value!r} (it was {before!r})"
    return f"end {event_terms.end(value)} (it was {event_terms.end(before)})"
