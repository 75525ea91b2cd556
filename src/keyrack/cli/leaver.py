"""`keyrack leaver …`: removes a person everywhere, shows who obeys, and undoes it; must hold no rule."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from keyrack.cli.operator_context import ID, OperatorContext, known_id, operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.spans import moment, seconds_of
from keyrack.cli.tables import AT_ONCE, as_json, every, table
from keyrack.core.people import offboarding, offboarding_undo
from keyrack.core.people.offboarding import Going, Progress

LOOK_SECONDS = 0.3
PARTLY = 3


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
@click.option("--reason", metavar="TEXT", help="Why, for those who ask later.")
@click.option("--json", "json_wanted", is_flag=True, help="For programs: a JSON object.")
@shared
def remove(
    name: str, dry_run: bool, wait: bool, timeout: str, reason: str | None, json_wanted: bool, **given: Any
) -> None:
    """Remove a person everywhere.

    The user is disabled; keys, grants, memberships, tokens and access keys end, and so do sessions and Git transfers.
    For a while it can be undone: keyrack leaver undo ID.

    With --wait it ends with status 3 when not all hosts said in time that they obey.
    """
    seconds = seconds_of(timeout)
    with operator_context(given) as at, known_id(f"Nobody here is called {name!r}."):
        if dry_run:
            _show_going(offboarding.preview(at.instance, at.actor, name), json_wanted)
            return
        made = offboarding.offboard(at.instance, at.actor, name, reason=reason)
        if not json_wanted:
            say(f"Removed {made.user_name}: {offboarding.counted(made.gone)}.")
            say(f"Until {moment(made.undo_until)} it can be undone: keyrack leaver undo {made.id}", err=True)
        found = _follow(at, made.id, seconds if wait else 0, quiet=json_wanted or not wait)
        _show_progress(found, json_wanted)
        if wait and not found.done:
            raise SystemExit(PARTLY)


@command.command()
@click.argument("offboarding_id", metavar="ID", type=ID)
@shared
def undo(offboarding_id: int, **given: Any) -> None:
    """Bring back the access of a person who was removed, not sessions or tokens."""
    with operator_context(given) as at, known_id("`keyrack leaver list` shows which there are."):
        done = offboarding_undo.undo(at.instance, at.actor, offboarding_id)
        members = done.back["group_members"] + done.back["repository_members"]
        say(
            f"{done.offboarding.user_name} is back with {done.back['user_keys']} SSH keys, "
            f"{done.back['credentials']} credentials, {done.back['grants']} grants and {members} memberships."
        )
        say("Tokens, access keys and sessions of before stay ended.")
        for words in done.left:
            say(f"not brought back: {words}", err=True)


@command.command(name="show")
@click.argument("offboarding_id", metavar="ID", type=ID)
@click.option("--json", "json_wanted", is_flag=True, help="For programs: a JSON object.")
@shared
def show(offboarding_id: int, json_wanted: bool, **given: Any) -> None:
    """Show which hosts and Git endpoints obey that a person is gone."""
    with operator_context(given) as at, known_id("`keyrack leaver list` shows which there are."):
        _show_progress(offboarding.get(at.instance, at.actor, offboarding_id), json_wanted)


@command.command(name="list")
@as_json
@shared
def list_leavers(json_wanted: bool, **given: Any) -> None:
    """List people who were removed everywhere, newest first."""
    with operator_context(given) as at:
        rows = [
            (
                one.offboarding.id,
                one.offboarding.user_name,
                moment(one.offboarding.at),
                one.offboarding.asked_by,
                moment(one.offboarding.undone_at),
                moment(one.offboarding.undo_until),
                one.words,
            )
            for one in every(lambda offset: offboarding.find(at.instance, at.actor, offset=offset, limit=AT_ONCE))
        ]
        table(("ID", "USER", "AT", "BY", "UNDONE", "UNDO UNTIL", "STATE"), rows, json_wanted)


def _follow(at: OperatorContext, number: int, seconds: int, *, quiet: bool) -> Progress:
    """How far it is, each change shown while there is time."""
    deadline = time.monotonic() + seconds
    said = ""
    while True:
        found = offboarding.get(at.instance, at.actor, number)
        if found.words != said and not quiet:
            said = found.words
            say(said, err=True)
        if found.done or time.monotonic() >= deadline:
            return found
        time.sleep(LOOK_SECONDS)


def _show_progress(found: Progress, json_wanted: bool) -> None:
    rows = [
        ("server", one.server_name, str(one.wanted), str(one.applied), one.done, moment(one.at)) for one in found.hosts
    ]
    rows += [("git", one.name, "-", f"{one.stopped} stopped", one.at is not None, moment(one.at)) for one in found.git]
    if json_wanted:
        names = ("kind", "name", "wanted", "applied", "done", "at")
        told = {
            "id": found.offboarding.id,
            "user": found.offboarding.user_name,
            "done": found.done,
            "undo_until": moment(found.offboarding.undo_until),
            "gone": dict(found.offboarding.gone),
            "receipts": [dict(zip(names, row, strict=True)) for row in rows],
        }
        click.echo(json.dumps(told, indent=1))
        return
    table(
        ("KIND", "NAME", "WANTED", "APPLIED", "DONE AT"), [(*row[:4], row[5] if row[4] else "not yet") for row in rows]
    )
    say(found.words)


def _show_going(going: Going, json_wanted: bool) -> None:
    if json_wanted:
        stays = {"deploy_keys": going.deploy_keys, "credentials": going.credentials}
        told = {"user": going.user.name, "preview": True, "gone": dict(going.gone), "stays": stays}
        click.echo(json.dumps(told, indent=1))
        return
    rows = []
    for kind, found in going.gone.items():
        for one in found if isinstance(found, list) else [found] if found else []:
            rows.append((kind.replace("_", " "), _words(one)))
    table(("WHAT", "WHICH"), rows)
    say(f"{going.user.name} would lose {offboarding.counted(going.gone)}; nothing was changed.")
    if going.deploy_keys or going.credentials:
        say(
            f"{going.user.name} also added {going.deploy_keys} deploy keys and {going.credentials} credentials with "
            "other keys, which stay: look at them yourself.",
            err=True,
        )


def _words(one: object) -> str:
    if not isinstance(one, dict):
        return str(one)
    return ", ".join(f"{name} {value}" for name, value in one.items() if value is not None)
