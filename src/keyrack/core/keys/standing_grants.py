"""Sets a grant up so that repeating the call changes nothing; must leave what a grant is to grants.py."""

from __future__ import annotations

from typing import Unpack

from keyrack.core import validation
from keyrack.core.hosts.servers import tag as server_tag
from keyrack.core.instance import Instance
from keyrack.core.keys import grants
from keyrack.core.keys.grants import StandingTerms
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Grant, has_ended
from keyrack.store.keys import grants as grant_rows


def put(
    instance: Instance,
    actor: Actor,
    *,
    user: object = None,
    group: object = None,
    server: object = None,
    tag: object = None,
    all_servers: bool = False,
    system_user: object,
    **terms: Unpack[StandingTerms],
) -> Grant:
    """The grant of these terms at this place, given now unless it is there; the arguments are those of give_named.

    Raises Refusal TAKEN where there is one with another end, start or restrictions, and as give_named does.
    """
    with Attempt(instance, actor, "grants:write", "set up a grant", target_kind="grant") as attempt:
        ids = grants.named(attempt, user=user, group=group, server=server, tag=tag, all_servers=all_servers)
        place = (*ids, None if tag is None else server_tag(str(tag)))
        account = validation.account(system_user, field="system_user")
        wanted = validation.restrictions(terms.get("restrictions"))
        break_glass = terms.get("break_glass", False)

        def change(work: Work) -> Grant:
            start, end = grants.when(work.now, terms.get("starts_at"), terms.get("expires_at"), None)
            alike = grant_rows.grants_like(work.connection, actor.workspace_id, account, place)
            in_force = [one for one in alike if not has_ended(one.expires_at, work.now)]
            for one in in_force:
                begins = None if one.has_begun(work.now) else one.starts_at
                held = (begins, one.expires_at, dict(one.restrictions), bool(one.break_glass))
                if held == (start, end, dict(wanted), break_glass):
                    work.no_event("it is there already")
                    return one
            if in_force:
                words = "on other terms (start, end, restrictions, break_glass); change it, or take it back."
                raise Refusal(Kind.TAKEN, "terms-differ", f"Grant {in_force[0].id} lets the same in here {words}")
            work.no_event("giving it leaves one")
            return grants.give_named(
                within(work),
                actor,
                user=user,
                group=group,
                server=server,
                tag=tag,
                all_servers=all_servers,
                system_user=system_user,
                **terms,
            )

        return attempt.write(change)
