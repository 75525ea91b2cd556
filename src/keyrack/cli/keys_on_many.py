"""`keyrack keys add`, `revoke`, `replace`: one key on many servers; must hold no rule, the core has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from keyrack.cli.operator_context import operator_context, shared
from keyrack.cli.spans import asked_end
from keyrack.cli.tables import as_json, table
from keyrack.core.keys import everywhere
from keyrack.core.keys.everywhere import Placed

F = TypeVar("F", bound=Callable[..., Any])


def _chosen(function: F) -> F:
    """The options that say which servers."""
    for option in (
        click.option("--all", "everything", is_flag=True, help="On all servers of the workspace."),
        click.option("--server", "servers", multiple=True, metavar="SERVER", help="On this one; may be repeated."),
        click.option("--tag", metavar="TAG", help="On all servers with a tag."),
    ):
        function = option(function)
    return function


def _choice(tag: str | None, servers: tuple[str, ...], everything: bool) -> object:
    if (tag is not None) + bool(servers) + everything != 1:
        raise click.UsageError("Say which servers: --tag TAG, --server SERVER (as often as you like), or --all.")
    if everything:
        return everywhere.ALL
    return {"tag": tag} if tag is not None else list(servers)


def _show(placed: Iterable[Placed], json_wanted: bool) -> None:
    rows = [
        (one.server, one.server_id, "-" if one.id is None else one.id, one.state, "yes" if one.still_open else "no")
        for one in placed
    ]
    table(("SERVER", "SERVER ID", "ID", "STATE", "STILL OPEN"), rows, json_wanted)


@click.command(name="add")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--label", required=True, metavar="TEXT", help="What the key is called on the servers.")
@click.option("--as", "username", required=True, metavar="ACCOUNT", help="As which system user it logs in.")
@click.option("--until", metavar="TIME", help="The end, such as 12h or 2026-12-24T18:00:00Z; otherwise there is none.")
@click.option("--restrictions", metavar="JSON", help='What it may do, such as {"sources": ["192.0.2.0/24"]}.')
@_chosen
@as_json
@shared
def add(
    file: Path,
    label: str,
    username: str,
    until: str | None,
    restrictions: str | None,
    tag: str | None,
    servers: tuple[str, ...],
    everything: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Put the public key in FILE on many servers, on all of them or on none.

    For example: keyrack keys add id_ed25519.pub --label bot --as deploy --tag web
    """
    chosen = _choice(tag, servers, everything)
    try:
        limits = None if restrictions is None else json.loads(restrictions)
    except ValueError:
        raise click.UsageError("--restrictions takes JSON; docs/api/keyrack.md says which fields there are.") from None
    with operator_context(given) as at:
        end = None if until is None else asked_end("--until", until)
        line = _line(file)
        made = everywhere.add(
            at.instance,
            at.actor,
            chosen,
            label=label,
            username=username,
            public_key=line,
            expires_at=end,
            restrictions=limits,
        )
        _show(made, json_wanted)


@click.command(name="revoke")
@click.option("--fingerprint", metavar="FINGERPRINT", help="The key, as ssh-keygen -l prints it; or --label.")
@click.option("--label", metavar="TEXT", help="What the key is called on the servers.")
@_chosen
@as_json
@shared
def revoke(
    fingerprint: str | None,
    label: str | None,
    tag: str | None,
    servers: tuple[str, ...],
    everything: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Take a key from many servers, from all of them or from none.

    For example: keyrack keys revoke --label bot --tag web. What a grant lets in as well is shown;
    `keyrack hosts revoke` takes a key away from everywhere.
    """
    chosen = _choice(tag, servers, everything)
    with operator_context(given) as at:
        gone = everywhere.revoke(at.instance, at.actor, chosen, fingerprint=fingerprint, label=label)
        _show(gone, json_wanted)


@click.command(name="replace")
@click.argument("fingerprint", metavar="FINGERPRINT")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_chosen
@as_json
@shared
def replace(
    fingerprint: str,
    file: Path,
    tag: str | None,
    servers: tuple[str, ...],
    everything: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Put the public key in FILE in the place of another one, on many servers; labels, ends and restrictions stay.

    For example: keyrack keys replace SHA256:… new.pub --all
    """
    chosen = _choice(tag, servers, everything)
    with operator_context(given) as at:
        _show(
            everywhere.replace(at.instance, at.actor, chosen, fingerprint=fingerprint, public_key=_line(file)),
            json_wanted,
        )


def _line(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError:
        raise click.ClickException(f"{file} is not a text file; it takes one line as ssh-keygen writes it.") from None
