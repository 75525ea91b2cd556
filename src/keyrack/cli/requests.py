"""`keyrack requests …`: access that people ask for, as the operator sees and decides it; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.operator_context import ID, known_id, operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.spans import moment
from keyrack.cli.tables import AT_ONCE, as_json, every, table
from keyrack.core.keys import requests
from keyrack.core.lifetimes import written

_HINT = "`keyrack requests list` shows which there are."


@click.group(name="requests")
def command() -> None:
    """Access for a while, which people ask for and others approve, such as: keyrack requests approve 7."""


@command.command(name="list")
@as_json
@shared
def list_requests(json_wanted: bool, **given: Any) -> None:
    """List requests, newest first."""
    with operator_context(given) as at:
        rows = []
        for one in every(lambda offset: requests.page(at.instance, at.actor, offset=offset, limit=AT_ONCE)[0]):
            users, servers = requests.names(at.instance, at.actor, one)
            where = f"tag {one.tag}" if one.tag else servers.get(one.server_id or 0, "?")
            lasting = moment(one.until) if one.span is None else written(one.span)
            who = users.get(one.user_id, "?")
            rows.append((one.id, who, one.system_user, where, lasting, one.state, one.approvers, one.reason))
        table(("ID", "WHO", "AS", "WHERE", "FOR", "STATE", "APPROVERS", "WHY"), rows, json_wanted)


@command.command()
@click.argument("request_id", metavar="ID", type=ID)
@shared
def approve(request_id: int, **given: Any) -> None:
    """Approve a request; the last approval that it takes opens it."""
    with operator_context(given) as at, known_id(_HINT):
        one = requests.approve(at.instance, at.actor, request_id)
        more = "" if one.state == "approved" else "; it takes another person"
        say(f"Approved request {one.id}: {one.state}{more}.")


@command.command()
@click.argument("request_id", metavar="ID", type=ID)
@shared
def deny(request_id: int, **given: Any) -> None:
    """Deny a request."""
    with operator_context(given) as at, known_id(_HINT):
        say(f"Denied request {requests.deny(at.instance, at.actor, request_id).id}.")
