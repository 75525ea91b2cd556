"""`keyrack policy …`: which keys are accepted, and which keys another policy would refuse; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.changes import tell
from keyrack.cli.connection.calls import PAGE_SIZE, Calls, connected, connection_options
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import as_json_object, dash, show_json, table

AS_STARTED = "any"


@click.group(name="policy")
def command() -> None:
    """Which keys are accepted, such as: keyrack policy set --rsa-bits 3072. What is registered already stays."""


@command.command()
@as_json_object
@connection_options
def show(json_wanted: bool, **given: Any) -> None:
    """Show which keys are accepted, and who set that."""
    with connected(given) as calls:
        policy = calls.ask("GET", "/key-policy")
        if json_wanted:
            show_json(policy)
            return
        say(_words(policy))
        if policy["damaged"]:
            say("It was changed in the database, not by Keyrack: no key is accepted until it is set again.")
        elif policy["set_at"] is None:
            say("The service was started with this; nobody has set anything stricter.")
        else:
            say(f"Set by {policy['set_by']} at {policy['set_at']}.")


@command.command(name="set")
@click.option(
    "--types",
    metavar="TYPES",
    help=f"The types to accept, separated by commas; {AS_STARTED}: those that the service accepts.",
)
@click.option(
    "--rsa-bits", metavar="BITS", help=f"The shortest RSA key, in bits; {AS_STARTED}: as the service was started with."
)
@click.option("--preview", is_flag=True, help="Show which registered keys would no longer be accepted; change nothing.")
@as_json_object
@connection_options
def set_policy(types: str | None, rsa_bits: str | None, preview: bool, json_wanted: bool, **given: Any) -> None:
    """Set which keys are accepted from now on; what is left out stays: keyrack policy set --types ssh-ed25519"""
    wanted: dict[str, Any] = {}
    if types is not None:
        wanted["key_types"] = None if types == AS_STARTED else [one.strip() for one in types.split(",")]
    if rsa_bits is not None:
        wanted["rsa_minimum_bits"] = None if rsa_bits == AS_STARTED else _number(rsa_bits)
    if not wanted:
        raise click.UsageError("Say what to change: --types or --rsa-bits.")
    with connected(given) as calls:
        if preview:
            _preview(calls, wanted, json_wanted)
        else:
            made = calls.ask("PATCH", "/key-policy", wanted)
            tell(made, f"From now on: {_words(made)}", json_wanted)


def _preview(calls: Calls, wanted: dict[str, Any], json_wanted: bool) -> None:
    query = {name: AS_STARTED if value is None else value for name, value in wanted.items()}
    if isinstance(types := query.get("key_types"), list):
        query["key_types"] = ",".join(types)
    query["per_page"] = PAGE_SIZE
    items: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = calls.ask("GET", "/key-policy/hits", query={**query, "cursor": cursor})
        items += page["items"]
        cursor = page["next"]
    if json_wanted:
        show_json({"items": items})
        return
    rows = [
        (dash(hit["user"]), dash(hit["place"]), dash(hit["title"]), hit["fingerprint"], hit["words"]) for hit in items
    ]
    table(("USER", "ON", "NAME", "FINGERPRINT", "WHY"), rows)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        raise click.UsageError(f"--rsa-bits takes a number of bits, such as 3072, or {AS_STARTED}.")
    return int(text)


def _words(policy: dict[str, Any]) -> str:
    return f"{', '.join(policy['key_types'])}; RSA keys of at least {policy['rsa_minimum_bits']} bits."
