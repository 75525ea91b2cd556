"""`keyrack hosts unmanaged`, `accept`, `ignore`, `remove`: keys on hosts that are not Keyrack's; must hold no rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from keyrack.cli.changes import changed, changing, tell
from keyrack.cli.connection.calls import ID, connected, connection_options, if_missing, path_to
from keyrack.cli.output.tables import as_json, as_json_object, dash, table

HINT = "`keyrack hosts unmanaged {} --all` shows which unmanaged keys there are."
SERVERS = "`keyrack hosts list` shows which there are."
EVERY_STATE = "new,accepted,ignored,removing,gone"


@click.command(name="unmanaged")
@click.argument("reference", metavar="SERVER")
@click.option("--all", "everything", is_flag=True, help="Also keys that were accepted or ignored, or are gone.")
@as_json
@connection_options
def list_unmanaged(reference: str, everything: bool, json_wanted: bool, **given: Any) -> None:
    """List the keys on a host that Keyrack did not put there."""
    with connected(given) as calls, if_missing(SERVERS):
        listed = calls.every(_keys(reference), {"state": EVERY_STATE} if everything else None)
        rows = [_row(one) for one in listed]
        table(("ID", "STATE", "ACCOUNT", "OWNER", "WHAT", "OPTIONS", "WHERE", "IN FORCE"), rows, json_wanted)


@click.command()
@click.argument("reference", metavar="SERVER")
@click.argument("key_id", metavar="ID", type=ID)
@click.option("--label", help="A label; otherwise its comment or fingerprint.")
@click.option("--username", metavar="ACCOUNT", help="The account it is for, if the key opens every account.")
@changing
@connection_options
def accept(
    reference: str,
    key_id: int,
    label: str | None,
    username: str | None,
    dry_run: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Take over an unmanaged key as a credential.

    Its restrictions and its end are kept.
    """
    with connected(given) as calls, if_missing(HINT.format(reference)):
        changed(
            calls,
            "POST",
            _keys(reference, key_id, "accept"),
            {"label": label, "username": username},
            dry_run=dry_run,
            json_wanted=json_wanted,
            words=lambda made: (
                f"Accepted {made['fingerprint']} as SSH key {made['label']} (id {made['id']}) for {made['username']}."
            ),
        )


@click.command()
@click.argument("reference", metavar="SERVER")
@click.argument("key_id", metavar="ID", type=ID)
@as_json_object
@connection_options
def ignore(reference: str, key_id: int, json_wanted: bool, **given: Any) -> None:
    """Leave an unmanaged key where it is, and stop listing it."""
    with connected(given) as calls, if_missing(HINT.format(reference)):
        one = calls.ask("POST", _keys(reference, key_id, "ignore"))
        tell(one, f"Ignored {one['fingerprint'] or one['kind']} in {one['path']}.", json_wanted)


@click.command()
@click.argument("reference", metavar="SERVER")
@click.argument("key_id", metavar="ID", type=ID)
@as_json_object
@connection_options
def remove(reference: str, key_id: int, json_wanted: bool, **given: Any) -> None:
    """Tell the host to remove an unmanaged key from its file."""
    with connected(given) as calls, if_missing(HINT.format(reference)):
        one = calls.ask("POST", _keys(reference, key_id, "remove"))
        words = f"Asked to remove {one['fingerprint']} from {one['path']}; it is listed until the host has done so."
        tell(one, words, json_wanted)


def _keys(reference: str, *rest: object) -> str:
    return path_to("servers", reference, "unmanaged-keys", *rest)


def _row(one: Mapping[str, Any]) -> tuple[object, ...]:
    what = f"{one['fingerprint']} {one['comment']}".strip() if one["fingerprint"] else one["kind"]
    where = f"{one['path']}:{one['line']}" if one["line"] else one["path"]
    force = "yes" if one["in_force"] else "no"
    options_shown = dash(one["options"] or one["problem"])
    return one["id"], one["state"], one["username"], dash(one["owner"]), what, options_shown, where, force
