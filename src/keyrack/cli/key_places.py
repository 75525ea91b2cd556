"""`keyrack keys where`: the places of one key; must hold no rule, the core has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from keyrack.cli.connection.calls import PAGE_SIZE, connected, connection_options, if_missing
from keyrack.cli.keys_on_many import line_of
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import NOTHING, as_json_object, dash, show_json, table
from keyrack.ssh.private_key import looks_private
from keyrack.ssh.public_key import KeyProblem, parse

TITLES = (
    "KIND",
    "ID",
    "NAME",
    "USER",
    "SERVER",
    "AS",
    "REPOSITORY",
    "STATE",
    "SINCE",
    "EXPIRES AT",
    "LAST USED",
)
_NOWHERE = "No place here has this key, as far as you may see: `keyrack keys list` shows the keys of users."


@click.command(name="where")
@click.argument("key", metavar="KEY")
@as_json_object
@connection_options
def where(key: str, json_wanted: bool, **given: Any) -> None:
    """Show where a key stands and what it opens, whoever's it is.

    KEY is a fingerprint as ssh-keygen -l prints it, the file of a public key, - for standard input, or its line:
    keyrack keys where ~/.ssh/id_ed25519.pub
    """
    fingerprint = _fingerprint_of(key)
    with connected(given) as calls, if_missing(_NOWHERE):
        query: dict[str, Any] = {"fingerprint": fingerprint, "per_page": PAGE_SIZE}
        page = calls.ask("GET", "/keys/places", query=query)
        shown, items = {**page, "items": []}, page["items"]
        while page["next"] is not None:
            page = calls.ask("GET", "/keys/places", query={**query, "cursor": page["next"]})
            items += page["items"]
    if json_wanted:
        del shown["next"]
        show_json({**shown, "items": items})
        return
    table(TITLES, [_row(one) for one in items])
    if shown["revoked_at"] is not None:
        say(f"It was revoked everywhere at {shown['revoked_at']}: hosts refuse it, and nobody can register it.")
    elif shown["ended_at"] is not None:
        say(f"It reached its end at {shown['ended_at']}.")


def _fingerprint_of(key: str) -> str:
    """The fingerprint that is meant. Exits with words for what is no public key; a private one is not sent."""
    if key.startswith("SHA256:"):
        return key
    if looks_private(key):
        raise click.UsageError("That is a private key, and was not sent; ssh-keygen -y -f prints its public half.")
    if key == "-" or _is_file(key):
        line = line_of(Path(key))
    elif " " in key.strip():
        line = key
    else:
        raise click.UsageError(f"{key} is no file, and no fingerprint as ssh-keygen -l prints it (SHA256:…).")
    try:
        return parse(line).fingerprint
    except KeyProblem as problem:
        raise click.ClickException(str(problem)) from None


def _is_file(key: str) -> bool:
    try:
        return Path(key).is_file()
    except OSError:  # the line of a key is longer than names of files may be
        return False


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    return (
        one["kind"],
        one["id"],
        dash(one["name"]),
        dash(one["user"]),
        dash(one["server"]),
        dash(one["system_user"]),
        dash(one["repository"]),
        _state(one),
        one["created_at"],
        dash(one["expires_at"]),
        dash(one["last_used_at"]),
    )


def _state(one: dict[str, Any]) -> object:
    words = [
        word
        for word, holds in (
            ("not managed", one["kind"] == "unmanaged key"),
            ("may push", one["can_push"]),
            ("reads only", one["can_push"] is False),
            ("delivered", one["delivered"]),
            ("not delivered yet", one["delivered"] is False),
            ("frozen", one["frozen"]),
            (one["refused"], one["refused"]),
        )
        if holds
    ]
    return ", ".join(words) or NOTHING
