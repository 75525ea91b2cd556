"""`keyrack keys …`: the SSH keys of users as the operator sees them; must hold no rule, the core has them."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli import keys_on_many
from keyrack.cli.operator_context import known_id, operator_context, shared
from keyrack.cli.spans import moment
from keyrack.cli.tables import AT_ONCE, as_json, table
from keyrack.core.keys import last_uses


@click.group(name="keys")
def command() -> None:
    """SSH keys that users registered as their own, and one key on many servers by one command.

    `keyrack hosts keys SERVER` lists those of a host.
    """


command.add_command(keys_on_many.add)
command.add_command(keys_on_many.revoke)
command.add_command(keys_on_many.replace)


@command.command(name="list")
@click.option("--user", metavar="NAME", help="Of this user alone.")
@as_json
@shared
def list_keys(user: str | None, json_wanted: bool, **given: Any) -> None:
    """List the SSH keys of users, newest first, each with its last use."""
    rows: list[tuple[object, ...]] = []
    with operator_context(given) as at, known_id("Users are named as they sign in."):
        while True:
            page, names, uses = last_uses.user_keys(at.instance, at.actor, user=user, offset=len(rows), limit=AT_ONCE)
            for one in page.items:
                last = uses.get(one.fingerprint or "", ())
                seen = moment(last[0].at) if last else "-"
                who = names.get(one.user_id, "?")
                fingerprint = one.fingerprint or "-"
                rows.append((one.id, who, one.title or "-", fingerprint, moment(one.created_at), seen))
            if not page.items or len(rows) >= page.total:
                break
        table(("ID", "USER", "TITLE", "FINGERPRINT", "CREATED", "LAST USED"), rows, json_wanted)
