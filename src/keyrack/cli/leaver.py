"""`keyrack leaver …`: removes a person everywhere, shows who obeys, and undoes it; must hold no rule."""

from __future__ import annotations

import time
from typing import Any

import click

from keyrack.cli.changes import dash
from keyrack.cli.connection.calls import ID, Calls, either, known, reached, to
from keyrack.cli.output.ends import partly
from keyrack.cli.output.receipts import state
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import as_json, as_json_object, show_json, table
from keyrack.core import lifetimes
from keyrack.core.lifetimes import LifetimeError
from keyrack.core.words import count

LOOK_SECONDS = 0.3
HINT = "`keyrack leaver list` shows which there are."


class _ByName(click.Group):
    """A group whose first word is a person's name where it is no subcommand's."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Put the subcommand that is meant before a name or an option of it."""
        if args and args[0] not in self.commands and args[0] not in context.help_option_names:
            args = ["remove", *args]
        return super().parse_args(context, args)


@click.group(name="leaver", cls=_ByName)
def command() -> None:
    """Remove a person everywhere in one call, and see which hosts obey.

    `keyrack leaver alice --wait` is the same as `keyrack leaver remove alice --wait`.
    """


@command.command()
@click.argument("name", metavar="NAME")
@click.option("--dry-run", is_flag=True, help="Show what would go, and change nothing.")
@click.option("--wait", is_flag=True, help="Wait until every host and Git endpoint obeys.")
@click.option("--timeout", default="60s", metavar="TIME", help="How long to wait at most, such as 30s or 5min. [60s]")
@click.option("--reason", "--why", "reason", metavar="TEXT", help="Why, for those who ask later.")
@click.option("--json", "json_wanted", is_flag=True, help="For programs: a JSON object.")
@either
def remove(
    name: str, dry_run: bool, wait: bool, timeout: str, reason: str | None, json_wanted: bool, **given: Any
) -> None:
    """Remove a person everywhere.

    The user is disabled; keys, grants, memberships, tokens and access keys end, and so do sessions and Git transfers.
    For a while it can be undone: keyrack leaver undo ID.

    With --wait it ends with status 3 when not all hosts said in time that they obey.
    """
    seconds = _seconds(timeout)
    with reached(given) as calls, known("`keyrack people list` shows whom there is."):
        made = calls.ask("POST", to("people", name, "offboard"), {"preview": dry_run, "reason": reason})
        if dry_run:
            _show_going(made, json_wanted)
            return
        if not json_wanted:
            say(f"Removed {made['user']}: {made['gone_words']}.")
            say(f"Until {made['undo_until']} it can be undone: keyrack leaver undo {made['id']}", err=True)
        offboarding = _follow(calls, made, seconds if wait else 0, quiet=json_wanted or not wait)
        _show_progress(offboarding, json_wanted)
        if wait and not offboarding["done"]:
            raise partly()


@command.command()
@click.argument("offboarding_id", metavar="ID", type=ID)
@as_json_object
@either
def undo(offboarding_id: int, json_wanted: bool, **given: Any) -> None:
    """Bring back the access of a person who was removed, not sessions or tokens."""
    with reached(given) as calls, known(HINT):
        done = calls.ask("POST", to("offboardings", offboarding_id, "undo"))
        if json_wanted:
            show_json(done)
            return
        back = [
            f"{done[name]} {one if done[name] == 1 else one + 's'}"
            for name, one in (
                ("keys", "SSH key"),
                ("credentials", "credential"),
                ("grants", "grant"),
                ("memberships", "membership"),
            )
            if done[name]
        ]
        say(f"{done['user']} is back with {', '.join(back) or 'nothing but the account'}.")
        say("Tokens, access keys and sessions of before stay ended.")
        for words in done["left"]:
            say(f"not brought back: {words}", err=True)


@command.command(name="show")
@click.argument("offboarding_id", metavar="ID", type=ID)
@click.option("--json", "json_wanted", is_flag=True, help="For programs: a JSON object.")
@either
def show(offboarding_id: int, json_wanted: bool, **given: Any) -> None:
    """Show which hosts and Git endpoints obey that a person is gone."""
    with reached(given) as calls, known(HINT):
        _show_progress(calls.ask("GET", to("offboardings", offboarding_id)), json_wanted)


@command.command(name="list")
@as_json
@either
def list_leavers(json_wanted: bool, **given: Any) -> None:
    """List people who were removed everywhere, newest first."""
    with reached(given) as calls:
        rows = [
            (
                offboarding["id"],
                offboarding["user"],
                dash(offboarding["at"]),
                offboarding["asked_by"],
                dash(offboarding["undone_at"]),
                dash(offboarding["undo_until"]),
                offboarding["words"],
            )
            for offboarding in calls.every("/offboardings")
        ]
        table(("ID", "USER", "AT", "BY", "UNDONE", "UNDO UNTIL", "STATE"), rows, json_wanted)


def _seconds(timeout: str) -> float:
    if timeout in ("0", "0s"):
        return 0
    try:
        return lifetimes.span(timeout).total_seconds()
    except LifetimeError as error:
        raise click.UsageError(f"--timeout {error}.") from None


def _follow(calls: Calls, made: dict[str, Any], seconds: float, *, quiet: bool) -> dict[str, Any]:
    """How far it is, each change shown while there is time."""
    deadline = time.monotonic() + seconds
    offboarding, said = made, ""
    while True:
        if offboarding["words"] != said and not quiet:
            said = offboarding["words"]
            say(said, err=True)
        if offboarding["done"] or time.monotonic() >= deadline:
            return offboarding
        time.sleep(LOOK_SECONDS)
        offboarding = calls.ask("GET", to("offboardings", made["id"]))


def _show_progress(offboarding: dict[str, Any], json_wanted: bool) -> None:
    git = [
        receipt | {"wanted": "-", "applied": f"{receipt['stopped']} stopped", "host": True}
        for receipt in offboarding["git"]
    ]
    obeyed = [("server", receipt["server_name"], receipt) for receipt in offboarding["servers"]]
    obeyed += [("git", receipt["endpoint"], receipt) for receipt in git]
    if json_wanted:
        names = ("wanted", "applied", "done", "acknowledged_at", "host")
        receipts = [
            {"kind": kind, "name": name} | {field: receipt[field] for field in names} for kind, name, receipt in obeyed
        ]
        show_json(
            {name: offboarding[name] for name in ("id", "user", "done", "undo_until", "gone")} | {"receipts": receipts}
        )
        return
    rows = [(kind, name, receipt["wanted"], receipt["applied"], state(receipt)) for kind, name, receipt in obeyed]
    table(("KIND", "NAME", "WANTED", "APPLIED", "ACKNOWLEDGED"), rows)
    say(offboarding["words"])


def _show_going(going: dict[str, Any], json_wanted: bool) -> None:
    stays = going["stays"]
    if json_wanted:
        show_json({"user": going["user"], "preview": True, "gone": going["gone"], "stays": stays})
        return
    rows = []
    for kind, lost in going["gone"].items():
        for thing in lost if isinstance(lost, list) else [lost] if lost else []:
            rows.append((kind.replace("_", " "), _words(thing)))
    table(("WHAT", "WHICH"), rows)
    say(f"{going['user']} would lose {going['gone_words']}; nothing was changed.")
    if stays["deploy_keys"] or stays["credentials"]:
        say(
            f"{going['user']} also added {count(stays['deploy_keys'], 'deploy key')} and "
            f"{count(stays['credentials'], 'credential')} with other keys, which stay: look at them yourself.",
            err=True,
        )


def _words(thing: object) -> str:
    if not isinstance(thing, dict):
        return str(thing)
    return ", ".join(f"{name} {value}" for name, value in thing.items() if value is not None)
