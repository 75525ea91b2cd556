"""Gives a key on an account other restrictions under its id; must add no key and end no session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyrack.core import lookups, validation
from keyrack.core.instance import Instance
from keyrack.core.keys import event_terms
from keyrack.core.lookups import own_credential
from keyrack.core.work import Attempt, Work
from keyrack.model import Actor, Credential
from keyrack.store.keys import credentials, endings


def with_named_places(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """A person's restrictions, with forwarding allowed where they name the places to forward to.

    Under `restrict`, sshd allows only what is named: permitopen and permitlisten alone would narrow a forwarding that
    is not allowed. Restrictions that programs send are not changed.
    """
    if wanted.get("restrict") and (wanted.get("permitopen") or wanted.get("permitlisten")):
        return {"port_forwarding": True, **wanted}
    return dict(wanted)


def may_restrict(instance: Instance, actor: Actor, credential_id: int) -> None:
    """Raises Refusal MISSING or FORBIDDEN where the actor may not restrict this key, as credential() does."""
    with _attempt(instance, actor, credential_id) as attempt:
        attempt.read(lambda connection: lookups.credential(connection, actor, credential_id, instance.now()))


def credential(
    instance: Instance, actor: Actor, credential_id: int, restrictions: Mapping[str, Any] | None
) -> Credential:
    """Replace the restrictions of a key on an account, from its next login on.

    restrictions: all of them, as ssh.options.Restrictions reads them; None for none. Open sessions go on. Raises
    Refusal INVALID, or MISSING for a key that is not there or has ended.
    """
    with _attempt(instance, actor, credential_id) as attempt:

        def change(work: Work) -> Credential:
            held, server = own_credential(work, credential_id)
            limits = validation.restrictions(restrictions, held.key_type)
            if limits == dict(held.restrictions):
                work.no_event("as it is already")
                return held
            credentials.restrict_credential(work.connection, held.id, limits, work.bump_revision(server.id))
            work.record(
                f"Restricted SSH key {held.label} ({held.fingerprint}) of {held.username} on {server.name} "
                f"to {event_terms.limits(limits)} (it was restricted to {event_terms.limits(held.restrictions)})",
                target_id=held.id,
                server_id=server.id,
                details={
                    "label": held.label,
                    "fingerprint": held.fingerprint,
                    **event_terms.details(limits, held.restrictions),
                },
            )
            changed = endings.credential(work.connection, held.id, work.now)
            assert changed is not None
            return changed

        return attempt.write(change)


def _attempt(instance: Instance, actor: Actor, credential_id: int) -> Attempt:
    aim = "restrict an SSH key"
    return Attempt(instance, actor, "credentials:write", aim, target_kind="credential", target_id=credential_id)
