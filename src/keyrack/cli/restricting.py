"""The options that restrict what a key may do, in OpenSSH's words or as JSON; must know no command and hold no rule."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import click

_SWITCHES = ("pty", "agent-forwarding", "port-forwarding", "X11-forwarding", "user-rc")
_PERMISSIONS = ("permit_pty", "agent_forwarding", "port_forwarding", "x11_forwarding", "user_rc")
_LISTS = ("sources", "permitopen", "permitlisten")
_FLAGS = ("restrict", "verify_required", "no_touch_required")


def restricting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options for restrictions; the command gets them as `restrictions`, as the API takes them, None for none."""

    @functools.wraps(function)
    def command(*args: Any, **given: Any) -> Any:
        return function(*args, **given, restrictions=_taken(given))

    made: Callable[..., Any] = command
    for option in reversed(_options()):
        made = option(made)
    return made


def _options() -> list[Callable[[Any], Any]]:
    return [
        click.option(
            "--from-address",
            "sources",
            multiple=True,
            metavar="ADDR",
            help="Only from this address, network or host pattern (from=); may be repeated.",
        ),
        click.option(
            "--command", "command", metavar="COMMAND", help="Run this whatever the client asks for (command=)."
        ),
        click.option("--restrict", "restrict", is_flag=True, help="Allow nothing but what is given here (restrict)."),
        *(
            click.option(f"--{word}/--no-{word}", name, default=None, help=f"Allow or forbid {word}.")
            for word, name in zip(_SWITCHES, _PERMISSIONS, strict=True)
        ),
        click.option(
            "--permit-open",
            "permitopen",
            multiple=True,
            metavar="HOST:PORT",
            help="Forward only to here (permitopen=); may be repeated.",
        ),
        click.option(
            "--permit-listen",
            "permitlisten",
            multiple=True,
            metavar="[HOST:]PORT",
            help="Listen only here (permitlisten=); may be repeated.",
        ),
        click.option(
            "--verify-required", is_flag=True, help="The security key must ask for its PIN (verify-required)."
        ),
        click.option(
            "--no-touch-required", is_flag=True, help="The security key need not be touched (no-touch-required)."
        ),
        click.option(
            "--restrictions",
            "as_json",
            metavar="JSON",
            help='The same as JSON, such as {"sources": ["192.0.2.0/24"]}; {} for none.',
        ),
    ]


def _taken(given: dict[str, Any]) -> dict[str, Any] | None:
    """What the options say, taken out of what the command was given; exits with words for both ways at once."""
    text = given.pop("as_json")
    said: dict[str, Any] = {}
    for name in (*_LISTS, *_PERMISSIONS, *_FLAGS, "command"):
        value = given.pop(name)
        if name in _LISTS:
            value = list(value) or None
        if value is not None and (value or name not in _FLAGS):
            said[name] = value
    if text is None:
        return said or None
    if said:
        raise click.UsageError("Give the restrictions as options or as --restrictions, not both.")
    try:
        read = json.loads(text)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise click.UsageError(
            "--restrictions takes a JSON object; docs/api/keyrack.md says which fields there are, "
            "and --help which options stand for them."
        )
    return read
