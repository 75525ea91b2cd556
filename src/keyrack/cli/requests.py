"""`keyrack request` and `keyrack requests …`: access for a while, asked for and decided; must hold no rule."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import click

from keyrack.cli.changes import changed, changing, lifetime, tell
from keyrack.cli.connection.calls import ID, connected, connection_options, if_missing, path_to
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import as_json, as_json_object, dash, show_json, table

_HINT = "`keyrack requests list` shows which there are."
STATES = ("pending", "approved", "denied", "cancelled", "lapsed", "ended")
_reason = click.option("--reason", "--why", "reason", metavar="TEXT", help="Why; whoever asked reads it.")


@click.command(name="request")
@click.argument("place", metavar="SERVER/ACCOUNT")
@click.option("--for", "duration", required=True, metavar="SPAN", help="How long, such as 1h; or until when.")
@click.option("--why", "--reason", "reason", required=True, metavar="TEXT", help="Why; those who approve read it.")
@click.option("--tag", "tagged", is_flag=True, help="The word before the / is a tag, for all servers that have it.")
@as_json_object
@connection_options
def ask(place: str, duration: str, reason: str, tagged: bool, json_wanted: bool, **given: Any) -> None:
    """Ask to log in somewhere for a while: keyrack request web-1/deploy --for 1h --why "the release of today" """
    where, _, account = place.rpartition("/")
    if not where or not account:
        raise click.UsageError("Name a server and an account, such as web-1/deploy.")
    lifetime("--for", duration)
    with connected(given) as calls:
        body = {("tag" if tagged else "server"): where, "system_user": account, "duration": duration, "reason": reason}
        _tell(
            calls.ask("POST", "/requests", body),
            json_wanted,
            lambda made: (
                f"Asked to log in as {account} on {_where(made)} {_lasting(made)}: "
                f"request {made['id']}, {made['state']}."
            ),
        )


@click.group(name="requests")
def command() -> None:
    """Access for a while, which people ask for and others approve, such as: keyrack requests approve 7."""


@command.command(name="list")
@click.option("--state", type=click.Choice(STATES), help="Only requests in this state.")
@as_json
@connection_options
def list_requests(state: str | None, json_wanted: bool, **given: Any) -> None:
    """List requests, newest first; members see their own."""
    with connected(given) as calls:
        rows = [
            (
                request["id"],
                dash(request["user"]),
                request["system_user"],
                _where(request),
                request["duration"] or request["until"],
                request["state"],
                request["approvers"],
                dash(", ".join(request["approved_by"])),
                request["reason"],
            )
            for request in calls.every("/requests", {"state": state})
        ]
        table(("ID", "WHO", "AS", "WHERE", "FOR", "STATE", "APPROVERS", "APPROVED BY", "WHY"), rows, json_wanted)


@command.command()
@click.argument("request_id", metavar="ID", type=ID)
@_reason
@changing
@connection_options
def approve(request_id: int, reason: str | None, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Approve a request; the last approval that it needs opens access."""

    def words(request: dict[str, Any]) -> str:
        if request["state"] != "approved":
            return f"Approved request {request['id']}; one more person has to approve it."
        until = f"for {request['duration']}" if request["until"] is None else f"until {request['until']}"
        where = request["server"] or f"servers with tag {request['tag']}"
        login = f"{request['user']} may log in as {request['system_user']} on {where}"
        return f"Approved request {request['id']}: {login} {until}."

    with connected(given) as calls, if_missing(_HINT):
        path = path_to("requests", request_id, "approve")
        changed(calls, "POST", path, {"reason": reason}, dry_run=dry_run, json_wanted=json_wanted, words=words)


@command.command(name="refuse")
@click.argument("request_id", metavar="ID", type=ID)
@_reason
@as_json_object
@connection_options
def refuse(request_id: int, reason: str | None, json_wanted: bool, **given: Any) -> None:
    """Refuse a request."""
    with connected(given) as calls, if_missing(_HINT):
        refused = calls.ask("POST", path_to("requests", request_id, "deny"), {"reason": reason})
        _tell(refused, json_wanted, lambda one: f"Refused request {one['id']}.")


@command.command()
@click.argument("request_id", metavar="ID", type=ID)
@as_json_object
@connection_options
def cancel(request_id: int, json_wanted: bool, **given: Any) -> None:
    """Cancel a request of your own."""
    with connected(given) as calls, if_missing(_HINT):
        cancelled = calls.ask("POST", path_to("requests", request_id, "cancel"))
        _tell(cancelled, json_wanted, lambda one: f"Cancelled request {one['id']}.")


@command.group()
def rules() -> None:
    """How many people must approve requests, and the longest span to ask for, such as: keyrack requests rules list."""


@rules.command(name="list")
@as_json
@connection_options
def list_rules(json_wanted: bool, **given: Any) -> None:
    """List the rules for requests by name; where no rule applies, one approval is enough."""
    with connected(given) as calls:
        rows = [
            (
                rule["name"],
                rule["approvers"],
                dash(rule["server_id"]),
                dash(rule["tag"]),
                dash(rule["system_user"]),
                dash(rule["max_duration"]),
            )
            for rule in calls.ask("GET", "/request-rules")["items"]
        ]
        table(("NAME", "APPROVERS", "SERVER", "TAG", "AS", "AT MOST"), rows, json_wanted)


@rules.command(name="set")
@click.argument("name")
@click.option("--approvers", type=click.IntRange(1, 2), default=1, show_default=True, help="How many must approve.")
@click.option("--server", metavar="SERVER", help="Only for this server, by name or id; or --tag.")
@click.option("--tag", metavar="TAG", help="Only for servers with this tag.")
@click.option("--as", "system_user", metavar="ACCOUNT", help="Only for this system user.")
@click.option("--at-most", "max_duration", metavar="SPAN", help="The longest span that may be asked for, such as 8h.")
@as_json_object
@connection_options
def set_rule(
    name: str,
    approvers: int,
    server: str | None,
    tag: str | None,
    system_user: str | None,
    max_duration: str | None,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Add or replace a rule: keyrack requests rules set production --approvers 2 --tag production"""
    with connected(given) as calls:
        wanted = {
            "approvers": approvers,
            "server": server,
            "tag": tag,
            "system_user": system_user,
            "max_duration": max_duration,
        }
        made = calls.ask("PUT", path_to("request-rules", name), wanted)
        people = "one person" if made["approvers"] == 1 else f"{made['approvers']} people"
        tell(made, f"Under rule {name} it takes {people} to approve.", json_wanted)


@rules.command(name="delete")
@click.argument("name")
@as_json_object
@connection_options
def delete_rule(name: str, json_wanted: bool, **given: Any) -> None:
    """Delete a rule for requests."""
    with connected(given) as calls, if_missing("`keyrack requests rules list` shows which there are."):
        calls.ask("DELETE", path_to("request-rules", name))
        tell(None, f"Deleted rule {name}.", json_wanted)


# The API calls refusing "deny"; the command takes that word too, and no help shows it.
_deny = copy.copy(refuse)
_deny.hidden = True
command.add_command(_deny, "deny")


def _tell(request: dict[str, Any], json_wanted: bool, words: Callable[[dict[str, Any]], str]) -> None:
    if json_wanted:
        show_json(request)
    else:
        say(words(request))


def _where(request: dict[str, Any]) -> str:
    return f"tag {request['tag']}" if request["tag"] else request["server"] or "?"


def _lasting(request: dict[str, Any]) -> str:
    return f"for {request['duration']}" if request["duration"] else f"until {request['until']}"
