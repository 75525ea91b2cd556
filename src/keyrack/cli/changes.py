"""What commands share that change who can log in: an end, --dry-run, --json; must know no command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC
from typing import Any, TypeVar

import click

from keyrack.cli.connection.calls import Calls
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import show_json
from keyrack.core import lifetimes
from keyrack.core.keys.rehearsal_bounds import MAX_SERVERS
from keyrack.core.lifetimes import LifetimeError
from keyrack.protocol.words import count

F = TypeVar("F", bound=Callable[..., Any])

POLL_SECONDS = 0.3
"""How long to wait before asking again how far a change has come."""
MAX_NAMED = 5
"""How many servers a line names; of the others it gives the number."""


def changing(function: F) -> F:
    """The options of a command that changes who can log in; `changed` takes them."""
    for option in (
        click.option("--json", "json_wanted", is_flag=True, help="For programs: one JSON object."),
        click.option("--dry-run", is_flag=True, help="Show who would gain and who would lose a login; change nothing."),
    ):
        function = option(function)
    return function


def lasting(function: F) -> F:
    """The options for an end: --until or --for; `end_of` takes them."""
    for option in (
        click.option("--for", "span", metavar="SPAN", help="How long, such as 90min, 12h or 3d; without it, no end."),
        click.option("--until", metavar="TIME", help="The end, such as 2026-12-24T18:00+01:00, or a day in UTC."),
    ):
        function = option(function)
    return function


break_glass_option = click.option("--break-glass", is_flag=True, help="For emergencies: each use raises an alarm.")


def end_of(calls: Calls, until: str | None, span: str | None) -> str | None:
    """The end that options name, as the API takes it; a span begins now, by the clock of the service.

    Exits with words for a value that is no end.
    """
    if until is not None and span is not None:
        raise click.UsageError("Give --until or --for, not both.")
    if until is not None:
        return moment("--until", until, end=True)
    if span is None:
        return None
    try:
        return (calls.now() + lifetimes.span(span)).astimezone(UTC).isoformat(timespec="seconds")
    except (LifetimeError, OverflowError) as error:
        raise click.UsageError(f"--for {error}.") from None


def moment(option: str, text: str, *, end: bool = False) -> str:
    """A time that an option names, with its zone, or a day in UTC; end: of that day. Exits with words otherwise."""
    try:
        return lifetimes.moment_or_day(text, end=end).isoformat()
    except LifetimeError as error:
        raise click.UsageError(f"{option} {error}.") from None


def lifetime(option: str, text: str) -> str:
    """A span or an end that an option names, checked and returned as written. Exits with words for anything else."""
    try:
        lifetimes.read(text)
    except LifetimeError as error:
        raise click.UsageError(f"{option} {error}.") from None
    return text


def changed(
    calls: Calls,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    dry_run: bool,
    json_wanted: bool = False,
    words: Callable[[Any], str] | None = None,
) -> Any:
    """Make a call that changes who can log in, show what it did, and return its answer; a dry run ends the command.

    words: makes the line to print of the answer; None: the command prints the answer itself.
    """
    if dry_run:
        rehearsed = calls.ask("POST", "/rehearsals", {"method": method, "path": path, "body": body})
        show_rehearsal(rehearsed, json_wanted)
        raise click.exceptions.Exit(0)
    answer = calls.ask(method, path, body)
    if words is not None:
        if json_wanted:
            show_json(answer or {})
        else:
            say(words(answer))
    return answer


def renewed(
    calls: Calls, path: str, until: str | None, span: str | None, what: str, *, dry_run: bool, json_wanted: bool
) -> None:
    """Give something a new end, under the same id, as the options of `lasting` say; what: its name in words."""
    end = end_of(calls, until, span)
    if end is None:
        raise click.UsageError("Say how long: --for or --until.")
    changed(
        calls,
        "POST",
        f"{path}/renew",
        {"expires_at": end},
        dry_run=dry_run,
        json_wanted=json_wanted,
        words=lambda made: f"{what} lasts until {made['expires_at']}.",
    )


def follow(ask: Callable[[], Any], seconds: float, *, quiet: bool, first: Any = None) -> Any:
    """Ask the service again and again until its answer says "done", or the seconds are over; return the last answer.

    Each time the answer's "words" change they are printed. ask: one question to the service; quiet: print nothing;
    first: an answer that is there already.
    """
    deadline = time.monotonic() + seconds
    answer, said = ask() if first is None else first, ""
    while True:
        if answer["done"] or time.monotonic() >= deadline:
            return answer
        if answer["words"] != said and not quiet:
            said = answer["words"]
            say(said, err=True)
        time.sleep(POLL_SECONDS)
        answer = ask()


def tell(answer: Mapping[str, Any] | None, words: str, json_wanted: bool) -> None:
    """Print what a call answered, as JSON ({} for nothing), or the words for it."""
    if json_wanted:
        show_json(answer or {})
    else:
        say(words)


def show_rehearsal(rehearsal: Mapping[str, Any], json_wanted: bool) -> None:
    """Who would gain and who would lose a login, in words or as JSON."""
    if json_wanted:
        show_json({name: rehearsal[name] for name in ("gains", "loses", "changes", "servers", "unknown")})
        return
    for verb, ways in (("gain", rehearsal["gains"]), ("lose", rehearsal["loses"])):
        for line in _lines(verb, ways):
            say(line)
    for line in _changes(rehearsal["changes"]):
        say(line)
    if not rehearsal["gains"] and not rehearsal["loses"] and not rehearsal["changes"]:
        say("Nobody would gain or lose a login.")
    if rehearsal["servers"] > MAX_SERVERS:
        concerned = count(rehearsal["servers"], "server")
        say(f"It concerns {concerned}; the first {MAX_SERVERS} of them were looked at.", err=True)
    for name in rehearsal["unknown"]:
        say(f"Nothing can be said of server {name}: its rows are not as Keyrack wrote them.", err=True)
    say("Nothing was changed.", err=True)


def _changes(ways: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """A line for each person, account and new terms: alice would keep the login as deploy on web-1: until …"""
    alike: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for way in ways:
        end = f"until {way['expires_at']}" if way["expires_at"] else "without end"
        limits = ", ".join(sorted(way["restrictions"]))
        alike.setdefault((end, f"restricted in {limits}" if limits else "not restricted"), []).append(way)
    for (end, limits), those in alike.items():
        for line in _lines("keep", those):
            yield f"{line}, {end}, {limits}"


def _lines(verb: str, ways: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """A line for each person and account: alice would gain the login as deploy on web-1, web-2."""
    where: dict[tuple[str, str], dict[str, None]] = {}
    for way in ways:
        who = way["user"] or f"the key {way['fingerprint']}"
        where.setdefault((who, way["system_user"]), {})[way["server"]] = None
    for (who, account), servers in where.items():
        names = list(servers)
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        yield f"{who} would {verb} the login as {account} on {', '.join(names[:MAX_NAMED])}{more}"
