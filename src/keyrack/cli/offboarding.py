"""`keyrack leaver …`: offboards a person, shows which hosts obey, and undoes it; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.changes import follow
from keyrack.cli.connection.calls import ID, connected, connection_options, if_missing, path_to
from keyrack.cli.output.ends import partly
from keyrack.cli.output.receipts import state
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import NOTHING, as_json, as_json_object, dash, show_json, table
from keyrack.core import lifetimes
from keyrack.core.lifetimes import LifetimeError
from keyrack.protocol.words import count

HINT = "`keyrack leaver list` shows which there are."


class _ByName(click.Group):
    """A group that takes a first word which names no subcommand as a person's name, for `remove`."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Put `remove` before a name, or before an option of `remove`."""
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
@as_json_object
@connection_options
def remove(
    name: str, dry_run: bool, wait: bool, timeout: str, reason: str | None, json_wanted: bool, **given: Any
) -> None:
    """Remove a person everywhere.

    The user is disabled; keys, grants, memberships, tokens and access keys end, and so do sessions and Git transfers.
    For a while it can be undone: keyrack leaver undo ID.

    With --wait it ends with status 3 if not all hosts obeyed in time.
    """
    seconds = _seconds(timeout)
    with connected(given) as calls, if_missing("`keyrack people list` shows who there is."):
        made = calls.ask("POST", path_to("people", name, "offboard"), {"preview": dry_run, "reason": reason})
        if dry_run:
            _show_preview(made, json_wanted)
            return
        if not json_wanted:
            say(f"Removed {made['user']}: {made['gone_words']}.")
            say(f"Until {made['undo_until']} it can be undone: keyrack leaver undo {made['id']}", err=True)
        offboarding = follow(
            lambda: calls.ask("GET", path_to("offboardings", made["id"])),
            seconds if wait else 0,
            quiet=json_wanted or not wait,
            first=made,
        )
        _show_progress(offboarding, json_wanted)
        if wait and not offboarding["done"]:
            raise partly()


@command.command()
@click.argument("offboarding_id", metavar="ID", type=ID)
@as_json_object
@connection_options
def undo(offboarding_id: int, json_wanted: bool, **given: Any) -> None:
    """Give a removed person their access back; sessions and tokens stay ended."""
    with connected(given) as calls, if_missing(HINT):
        done = calls.ask("POST", path_to("offboardings", offboarding_id, "undo"))
        if json_wanted:
            show_json(done)
            return
        back = [
            count(done[name], noun)
            for name, noun in (
                ("keys", "SSH key"),
                ("credentials", "credential"),
                ("grants", "grant"),
                ("memberships", "membership"),
            )
            if done[name]
        ]
        say(f"{done['user']} is back with {', '.join(back) or 'nothing but the account'}.")
        say("Earlier tokens, access keys and sessions stay ended.")
        for words in done["left"]:
            say(f"not brought back: {words}", err=True)


@command.command(name="show")
@click.argument("offboarding_id", metavar="ID", type=ID)
@as_json_object
@connection_options
def show(offboarding_id: int, json_wanted: bool, **given: Any) -> None:
    """Show which hosts and Git endpoints obey a removal."""
    with connected(given) as calls, if_missing(HINT):
        _show_progress(calls.ask("GET", path_to("offboardings", offboarding_id)), json_wanted)


@command.command(name="list")
@as_json
@connection_options
def list_offboardings(json_wanted: bool, **given: Any) -> None:
    """List people who were removed everywhere, newest first."""
    with connected(given) as calls:
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


def _show_progress(offboarding: dict[str, Any], json_wanted: bool) -> None:
    git = [
        receipt | {"wanted": NOTHING, "applied": f"{receipt['stopped']} stopped", "host": True}
        for receipt in offboarding["git"]
    ]
    obeyed = [("server", receipt["server_name"], receipt) for receipt in offboarding["servers"]]
    obeyed += [("git", receipt["endpoint"], receipt) for receipt in git]
    if json_wanted:
        names = ("wanted", "applied", "done", "acknowledged_at", "host")
        receipts = [
            {"kind": kind, "name": name}
            | {field: None if receipt[field] is NOTHING else receipt[field] for field in names}
            for kind, name, receipt in obeyed
        ]
        show_json(
            {name: offboarding[name] for name in ("id", "user", "done", "undo_until", "gone")} | {"receipts": receipts}
        )
        return
    rows = [(kind, name, receipt["wanted"], receipt["applied"], state(receipt)) for kind, name, receipt in obeyed]
    table(("KIND", "NAME", "WANTED", "APPLIED", "ACKNOWLEDGED"), rows)
    say(offboarding["words"])


def _show_preview(preview: dict[str, Any], json_wanted: bool) -> None:
    stays = preview["stays"]
    if json_wanted:
        show_json({"user": preview["user"], "preview": True, "gone": preview["gone"], "stays": stays})
        return
    rows = []
    for kind, lost in preview["gone"].items():
        for thing in lost if isinstance(lost, list) else [lost] if lost else []:
            rows.append((kind.replace("_", " "), _words(thing)))
    table(("WHAT", "WHICH"), rows)
    say(f"{preview['user']} would lose {preview['gone_words']}; nothing was changed.")
    if stays["deploy_keys"] or stays["credentials"]:
        say(
            f"{preview['user']} also added {count(stays['deploy_keys'], 'deploy key')} and "
            f"{count(stays['credentials'], 'credential')} with other keys, which stay: check them yourself.",
            err=True,
        )


def _words(thing: object) -> str:
    if not isinstance(thing, dict):
        return str(thing)
    return ", ".join(f"{name} {value}" for name, value in thing.items() if value is not None)
