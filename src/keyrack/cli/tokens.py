"""`keyrack tokens …`: API tokens, seen, made and ended; must hold no rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from keyrack.cli.changes import end_of, lasting, lifetime, tell
from keyrack.cli.connection.calls import (
    ID,
    PAGE_SIZE,
    Calls,
    connected,
    connection_options,
    if_missing,
    is_on_data,
    path_to,
)
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import as_json, as_json_object, dash, show_json, table

HINT = "`keyrack tokens list` shows which there are."


@click.group(name="tokens")
def command() -> None:
    """API tokens: whose they are, what they may do, when they end, when they were last used."""


@command.command(name="list")
@click.option(
    "--all-workspaces", is_flag=True, help="In all workspaces; for the operator and owners of the first workspace."
)
@as_json
@connection_options
def list_tokens(all_workspaces: bool, json_wanted: bool, **given: Any) -> None:
    """List API tokens that are not revoked."""
    titles = ("ID", "NAME", "USER", "SCOPES", "CREATED", "END", "LAST USED")
    with connected(given) as calls:
        rows = [
            (
                *((one["workspace"],) if all_workspaces else ()),
                one["id"],
                one["name"],
                one["user"],
                dash(" ".join(one["scopes"])),
                one["created_at"],
                dash(one["expires_at"]),
                dash(one["last_used_at"]),
            )
            for one in (_of_instance(calls) if all_workspaces else calls.every("/tokens"))
        ]
        table(("WORKSPACE", *titles) if all_workspaces else titles, rows, json_wanted)


def _of_instance(calls: Calls) -> Iterator[dict[str, Any]]:
    cursor = ""
    while cursor is not None:
        page = calls.ask("GET", "/instance/tokens", query={"per_page": PAGE_SIZE, "cursor": cursor})
        yield from page["items"]
        cursor = page["next"]


@command.command()
@click.argument("token_id", metavar="ID", type=ID)
@as_json_object
@connection_options
def revoke(token_id: int, json_wanted: bool, **given: Any) -> None:
    """Revoke an API token; from now on it opens nothing."""
    with connected(given) as calls, if_missing(HINT):
        held = [one for one in calls.every("/tokens") if one["id"] == token_id]
        calls.ask("DELETE", path_to("tokens", token_id))
        named = f"{held[0]['name']} of {held[0]['user']}" if held else str(token_id)
        tell(None, f"Revoked token {named}.", json_wanted)


@command.command()
@click.argument("name", metavar="NAME")
@click.option("--user", metavar="USER", help="Whose it is; by default your own, where you are logged in.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    metavar="SCOPE",
    help="What it may do, such as servers:read or keys:*; * for all that the user may do; may be repeated.",
)
@lasting
@as_json_object
@connection_options
def create(
    name: str,
    user: str | None,
    scopes: tuple[str, ...],
    until: str | None,
    span: str | None,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Make an API token, and print it, only this once."""
    if user is None and is_on_data(given):
        raise click.UsageError("Say whose it is: --user USER.")
    with connected(given) as calls, if_missing("`keyrack people list` shows who there is."):
        body = {"name": name, "user": user, "scopes": list(scopes), "expires_at": end_of(calls, until, span)}
        _show_made(calls.ask("POST", "/tokens", body), json_wanted)


@command.command()
@click.argument("token_id", metavar="ID", type=ID)
@click.option("--overlap", default="0s", metavar="TIME", help="How long the old one keeps working, such as 24h. [0s]")
@as_json_object
@connection_options
def rotate(token_id: int, overlap: str, json_wanted: bool, **given: Any) -> None:
    """Give an API token a new secret, and print it, only this once."""
    if overlap != "0s":
        lifetime("--overlap", overlap)
    with connected(given) as calls, if_missing(HINT):
        _show_made(calls.ask("POST", path_to("tokens", token_id, "rotate"), {"overlap": overlap}), json_wanted)


def _end(at: str | None) -> str:
    return "without end" if at is None else f"ends {at}"


def _show_made(made: dict[str, Any], json_wanted: bool) -> None:
    if json_wanted:
        show_json(made)
        return
    say(made["token"])
    say(f"Token {made['name']} of {made['user']}, id {made['id']}, {_end(made['expires_at'])}.", err=True)
    if made["replaces"] is not None:
        say(f"The old one, id {made['replaces']}, {_end(made['replaced_ends_at'])}.", err=True)
