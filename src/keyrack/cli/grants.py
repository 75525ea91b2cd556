"""`keyrack grants …`: who may log in where, as the operator gives and takes it back; must hold no rule."""

from __future__ import annotations

import json
from typing import Any

import click

from keyrack.cli.operator_context import ID, known_id, operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.spans import asked_end, asked_moment, moment
from keyrack.cli.tables import AT_ONCE, as_json, every, table
from keyrack.core.keys import grants, openings
from keyrack.model import Grant


@click.group(name="grants")
def command() -> None:
    """Who may log in where: a user or a group, as a system user, on a server, on servers with a tag, or on all."""


@command.command(name="list")
@as_json
@shared
def list_grants(json_wanted: bool, **given: Any) -> None:
    """List grants, oldest first."""
    with operator_context(given) as at:
        found = list(every(lambda offset: grants.page(at.instance, at.actor, offset=offset, limit=AT_ONCE)))
        names = grants.names(at.instance, at.actor, found)
        rows = [
            (
                one.id,
                _who(one, names),
                one.system_user,
                _where(one, names),
                moment(one.starts_at),
                moment(one.expires_at),
                _limits(one),
                one.reason or "-",
            )
            for one in found
        ]
        table(("ID", "WHO", "AS", "WHERE", "START", "END", "RESTRICTIONS", "REASON"), rows, json_wanted)


@command.command()
@click.option("--user", metavar="NAME", help="Who; or --group.")
@click.option("--group", metavar="NAME", help="Everybody in a group.")
@click.option("--server", metavar="SERVER", help="Where, by name or id; or --tag.")
@click.option("--tag", metavar="TAG", help="All servers with a tag, now and later.")
@click.option("--all", "all_servers", is_flag=True, help="All servers of the workspace, now and later.")
@click.option("--as", "system_user", required=True, metavar="ACCOUNT", help="As which system user.")
@click.option("--from", "start", metavar="TIME", help="When it begins; otherwise at once.")
@click.option("--until", metavar="TIME", help="The end, such as 12h or 2026-11-22T16:00:00Z; otherwise there is none.")
@click.option("--restrictions", metavar="JSON", help='What the keys may do, such as {"sources": ["192.0.2.0/24"]}.')
@click.option("--reason", metavar="TEXT", help="Why, for those who ask later.")
@shared
def give(
    user: str | None,
    group: str | None,
    server: str | None,
    tag: str | None,
    all_servers: bool,
    system_user: str,
    start: str | None,
    until: str | None,
    restrictions: str | None,
    reason: str | None,
    **given: Any,
) -> None:
    """Let a user or a group log in: keyrack grants give --user alice --tag web --as deploy --reason "release 12" """
    if (user is None) == (group is None):
        raise click.UsageError("Name one: --user or --group.")
    if sum((server is not None, tag is not None, all_servers)) != 1:
        raise click.UsageError("Name one: --server, --tag or --all.")
    try:
        limits = None if restrictions is None else json.loads(restrictions)
    except ValueError:
        raise click.UsageError("--restrictions takes JSON; docs/api/keyrack.md says which fields there are.") from None
    with operator_context(given) as at:
        made = grants.give_named(
            at.instance,
            at.actor,
            user=user,
            group=group,
            server=server,
            tag=tag,
            all_servers=all_servers,
            system_user=system_user,
            starts_at=None if start is None else asked_moment("--from", start),
            expires_at=None if until is None else asked_end("--until", until),
            restrictions=limits,
            reason=reason,
        )
        names = grants.names(at.instance, at.actor, (made,))
        say(f"Let {_who(made, names)} in as {made.system_user} on {_where(made, names)} (grant {made.id}).")


@command.command(name="take-back")
@click.argument("grant_id", metavar="ID", type=ID)
@shared
def take_back(grant_id: int, **given: Any) -> None:
    """End a grant; keys that nothing else lets in leave the hosts."""
    with operator_context(given) as at, known_id("`keyrack grants list` shows which there are."):
        taken = grants.take_back(at.instance, at.actor, grant_id)
        gone, still = taken.grant, openings.words(taken.still_opened_by, everywhere=True)
        names = grants.names(at.instance, at.actor, (gone,))
        say(f"Took back from {_who(gone, names)} the login as {gone.system_user} on {_where(gone, names)}{still}.")


def _who(grant: Grant, names: grants.Names) -> str:
    if grant.user_id is not None:
        return names.users.get(grant.user_id, "?")
    return f"group {names.groups.get(grant.group_id or 0, '?')}"


def _where(grant: Grant, names: grants.Names) -> str:
    if grant.all_servers:
        return "all servers"
    return f"tag {grant.tag}" if grant.tag else names.servers.get(grant.server_id or 0, "?")


def _limits(grant: Grant) -> str:
    return json.dumps(dict(grant.restrictions)) if grant.restrictions else "-"
