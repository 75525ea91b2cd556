"""`keyrack hosts unmanaged`, `accept`, `ignore`, `remove`: keys on hosts that are not Keyrack's; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.operator_context import ID, known_id, operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.tables import AT_ONCE, as_json, every, table
from keyrack.core.hosts import unmanaged_keys
from keyrack.model import UnmanagedKey

HINT = "`keyrack hosts unmanaged {} --all` shows which unmanaged keys there are."


@click.command(name="unmanaged")
@click.argument("reference", metavar="SERVER")
@click.option("--all", "everything", is_flag=True, help="Also what was accepted, ignored, or is gone.")
@as_json
@shared
def list_unmanaged(reference: str, everything: bool, json_wanted: bool, **given: Any) -> None:
    """List the keys on a host that Keyrack did not put there."""
    states = unmanaged_keys.STATES if everything else unmanaged_keys.OPEN
    with operator_context(given) as at:
        server = at.server(reference)
        known = every(
            lambda offset: unmanaged_keys.find(
                at.instance, at.actor, server.id, states=states, offset=offset, limit=AT_ONCE
            )
        )
        rows = [_row(one) for one in known]
        table(("ID", "STATE", "ACCOUNT", "OWNER", "WHAT", "OPTIONS", "WHERE", "IN FORCE"), rows, json_wanted)


@click.command()
@click.argument("reference", metavar="SERVER")
@click.argument("key_id", metavar="ID", type=ID)
@click.option("--label", help="What to call it; otherwise its comment or fingerprint.")
@click.option("--username", metavar="ACCOUNT", help="For which account, where the key counts for every one.")
@shared
def accept(reference: str, key_id: int, label: str | None, username: str | None, **given: Any) -> None:
    """Make an unmanaged key a credential.

    Its restrictions and its end are kept.
    """
    with operator_context(given) as at, known_id(HINT.format(reference)):
        made = unmanaged_keys.accept(
            at.instance, at.actor, at.server(reference).id, key_id, label=label, username=username
        )
        say(f"Accepted {made.fingerprint} as SSH key {made.label} (id {made.id}) for {made.username}.")


@click.command()
@click.argument("reference", metavar="SERVER")
@click.argument("key_id", metavar="ID", type=ID)
@shared
def ignore(reference: str, key_id: int, **given: Any) -> None:
    """Leave an unmanaged key where it is, and list it no more."""
    with operator_context(given) as at, known_id(HINT.format(reference)):
        one = unmanaged_keys.ignore(at.instance, at.actor, at.server(reference).id, key_id)
        say(f"Ignored {one.fingerprint or one.kind} in {one.path}.")


@click.command()
@click.argument("reference", metavar="SERVER")
@click.argument("key_id", metavar="ID", type=ID)
@shared
def remove(reference: str, key_id: int, **given: Any) -> None:
    """Have the host remove an unmanaged key from its file."""
    with operator_context(given) as at, known_id(HINT.format(reference)):
        one = unmanaged_keys.remove(at.instance, at.actor, at.server(reference).id, key_id)
        say(f"Asked to remove {one.fingerprint} from {one.path}; it is listed until the host did it.")


def _row(one: UnmanagedKey) -> tuple[object, ...]:
    what = f"{one.fingerprint} {one.comment}".strip() if one.fingerprint else one.kind
    where = f"{one.path}:{one.line}" if one.line else one.path
    force = "yes" if one.in_force else "no"
    options_shown = one.options or one.problem or "-"
    return one.id, one.state, one.username, one.owner or "-", what, options_shown, where, force
