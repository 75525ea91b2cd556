"""`keyrack grants …`: who may log in where, seen, given and taken back; must hold no rule."""

from __future__ import annotations

import json
from typing import Any

import click

from keyrack.cli import still_let_in
from keyrack.cli.changes import break_glass_option, changed, changing, end_of, lasting, moment, renewed
from keyrack.cli.connection.calls import ID, Calls, connected, connection_options, if_missing, path_to
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import NOTHING, as_json, dash, table
from keyrack.cli.restricting import restricting


@click.group(name="grants")
def command() -> None:
    """Who may log in where: a user or a group, as a system user, on a server, on servers with a tag, or on all."""


@command.command(name="list")
@as_json
@connection_options
def list_grants(json_wanted: bool, **given: Any) -> None:
    """List grants, oldest first."""
    with connected(given) as calls:
        rows = [
            (
                one["id"],
                _who(one),
                one["system_user"],
                _where(one),
                dash(one["starts_at"]),
                dash(one["expires_at"]),
                json.dumps(one["restrictions"]) if one["restrictions"] else NOTHING,
                dash(one["reason"]),
            )
            for one in calls.every("/grants")
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
@lasting
@restricting
@break_glass_option
@click.option("--reason", "--why", "reason", metavar="TEXT", help="Why, for those who ask later.")
@changing
@connection_options
def give(
    user: str | None,
    group: str | None,
    server: str | None,
    tag: str | None,
    all_servers: bool,
    system_user: str,
    start: str | None,
    until: str | None,
    span: str | None,
    restrictions: dict[str, Any] | None,
    break_glass: bool,
    reason: str | None,
    dry_run: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Let a user or a group log in: keyrack grants give --user alice --tag web --as deploy --reason "release 12" """
    if (user is None) == (group is None):
        raise click.UsageError("Name one: --user or --group.")
    if sum((server is not None, tag is not None, all_servers)) != 1:
        raise click.UsageError("Name one: --server, --tag or --all.")
    with connected(given) as calls:
        body = {
            "user": user,
            "group": group,
            "server": server,
            "tag": tag,
            "all": all_servers,
            "system_user": system_user,
            "starts_at": None if start is None else moment("--from", start),
            "expires_at": end_of(calls, until, span),
            "restrictions": restrictions,
            "break_glass": break_glass,
            "reason": reason,
        }
        made = changed(calls, "POST", "/grants", body, dry_run=dry_run, json_wanted=json_wanted, words=_given)
        if made["note"]:
            say(made["note"], err=True)


@command.command()
@click.argument("grant_id", metavar="ID", type=ID)
@lasting
@changing
@connection_options
def renew(grant_id: int, until: str | None, span: str | None, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Give a grant a new end, under the same id: keyrack grants renew 7 --for 8h"""
    with connected(given) as calls, if_missing("`keyrack grants list` shows which there are."):
        path, what = path_to("grants", grant_id), f"Grant {grant_id}"
        renewed(calls, path, until, span, what, dry_run=dry_run, json_wanted=json_wanted)


@command.command()
@click.argument("grant_id", metavar="ID", type=ID)
@restricting
@lasting
@click.option("--no-end", is_flag=True, help="Remove its end.")
@click.option("--reason", "--why", "reason", metavar="TEXT", help='Why, for those who ask later; "" for none.')
@changing
@connection_options
def change(
    grant_id: int,
    restrictions: dict[str, Any] | None,
    until: str | None,
    span: str | None,
    no_end: bool,
    reason: str | None,
    dry_run: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Change what a grant allows and until when, under the same id; open sessions go on.

    Such as: keyrack grants change 7 --from-address 192.0.2.0/24 --no-pty. The restrictions given replace all it had.
    """
    if no_end and (until is not None or span is not None):
        raise click.UsageError("Give an end or --no-end, not both.")
    if restrictions is None and reason is None and until is None and span is None and not no_end:
        raise click.UsageError("Say what to change: restrictions, --until, --for, --no-end or --reason.")
    body: dict[str, Any] = {} if restrictions is None else {"restrictions": restrictions}
    if reason is not None:
        body["reason"] = reason or None
    with connected(given) as calls, if_missing("`keyrack grants list` shows which there are."):
        end = end_of(calls, until, span)
        if no_end or end is not None:
            body["expires_at"] = end
        changed(
            calls,
            "PATCH",
            path_to("grants", grant_id),
            body,
            dry_run=dry_run,
            json_wanted=json_wanted,
            words=lambda made: f"Changed grant {grant_id}.",
        )


@command.command(name="take-back")
@click.argument("grant_id", metavar="ID", type=ID)
@changing
@connection_options
def take_back(grant_id: int, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """End a grant; keys that nothing else lets in are taken from the hosts."""
    with connected(given) as calls, if_missing("`keyrack grants list` shows which there are."):
        path = path_to("grants", grant_id)
        gone = calls.ask("GET", path)

        def words(_: object) -> str:
            account, still = gone["system_user"], _still(calls, gone)
            return f"Took back from {_who(gone)} the login as {account} on {_where(gone)}{still}."

        changed(calls, "DELETE", path, dry_run=dry_run, json_wanted=json_wanted, words=words)


def _given(made: dict[str, Any]) -> str:
    return f"Let {_who(made)} in as {made['system_user']} on {_where(made)} (grant {made['id']})."


def _still(calls: Calls, gone: dict[str, Any]) -> str:
    """What else lets the user in there, as the end of a sentence; "" for a group, which is not looked up."""
    if gone["user"] is None:
        return ""
    asked = {"user": gone["user"], "server": gone["server_id"], "system_user": gone["system_user"]}
    return still_let_in.words(still_let_in.ways(calls, **asked))


def _who(grant: dict[str, Any]) -> str:
    return f"group {grant['group']}" if grant["group"] is not None else grant["user"] or "?"


def _where(grant: dict[str, Any]) -> str:
    if grant["all"]:
        return "all servers"
    return f"tag {grant['tag']}" if grant["tag"] else grant["server"] or "?"
