"""`keyrack keys add`, `revoke`, `replace`: one key on many servers; must hold no rule, the core has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from keyrack.cli.changes import break_glass_option, changed, end_of, lasting
from keyrack.cli.connection.calls import connected, connection_options
from keyrack.cli.files import LARGEST_KEY, text_of
from keyrack.cli.output.tables import NOTHING, as_json, table
from keyrack.cli.restricting import restricting
from keyrack.ssh.private_key import looks_private

F = TypeVar("F", bound=Callable[..., Any])


KEY_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
"""A file of a public key; - is standard input."""

_dry_run = click.option(
    "--dry-run", is_flag=True, help="Show who would gain and who would lose a login; change nothing."
)


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
        return "all"
    return {"tag": tag} if tag is not None else list(servers)


def _show(placed: dict[str, Any], json_wanted: bool) -> None:
    rows = [
        (
            one["server"],
            one["server_id"],
            NOTHING if one["id"] is None else one["id"],
            one["state"],
            "yes" if one["still_open"] else "no",
        )
        for one in placed["items"]
    ]
    table(("SERVER", "SERVER ID", "ID", "STATE", "STILL OPEN"), rows, json_wanted)


@click.command(name="add")
@click.argument("file", metavar="FILE", type=KEY_FILE)
@click.option("--label", required=True, metavar="TEXT", help="What the key is called on the servers.")
@click.option("--as", "username", required=True, metavar="ACCOUNT", help="As which system user it logs in.")
@lasting
@restricting
@break_glass_option
@_chosen
@_dry_run
@as_json
@connection_options
def add(
    file: Path,
    label: str,
    username: str,
    until: str | None,
    span: str | None,
    restrictions: dict[str, Any] | None,
    break_glass: bool,
    tag: str | None,
    servers: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Put the public key in FILE on many servers: on all of them, or on none.

    For example: keyrack keys add id_ed25519.pub --label bot --as deploy --tag web
    """
    chosen = _choice(tag, servers, everything)
    with connected(given) as calls:
        body = {
            "servers": chosen,
            "label": label,
            "username": username,
            "public_key": line_of(file),
            "expires_at": end_of(calls, until, span),
            "restrictions": restrictions,
            "break_glass": break_glass,
        }
        _show(changed(calls, "POST", "/credentials", body, dry_run=dry_run, json_wanted=json_wanted), json_wanted)


@click.command(name="revoke")
@click.option("--fingerprint", metavar="FINGERPRINT", help="The key, as ssh-keygen -l prints it; or --label.")
@click.option("--label", metavar="TEXT", help="What the key is called on the servers.")
@_chosen
@_dry_run
@as_json
@connection_options
def revoke(
    fingerprint: str | None,
    label: str | None,
    tag: str | None,
    servers: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Take a key from many servers: from all of them, or from none.

    For example: keyrack keys revoke --label bot --tag web. STILL OPEN says where a grant still lets it in;
    `keyrack hosts revoke` takes a key away everywhere.
    """
    chosen = _choice(tag, servers, everything)
    with connected(given) as calls:
        body = {"servers": chosen, "fingerprint": fingerprint, "label": label}
        gone = changed(calls, "POST", "/credentials/revoke", body, dry_run=dry_run, json_wanted=json_wanted)
        _show(gone, json_wanted)


@click.command(name="replace")
@click.argument("fingerprint", metavar="FINGERPRINT")
@click.argument("file", metavar="FILE", type=KEY_FILE)
@_chosen
@_dry_run
@as_json
@connection_options
def replace(
    fingerprint: str,
    file: Path,
    tag: str | None,
    servers: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Replace a key by the public key in FILE, on many servers; labels, ends and restrictions stay.

    For example: keyrack keys replace SHA256:… new.pub --all
    """
    chosen = _choice(tag, servers, everything)
    with connected(given) as calls:
        body = {"servers": chosen, "fingerprint": fingerprint, "public_key": line_of(file)}
        done = changed(calls, "POST", "/credentials/replace", body, dry_run=dry_run, json_wanted=json_wanted)
        _show(done, json_wanted)


def line_of(file: Path) -> str:
    """The text of a public key file. Exits with words for a private key, which is not sent, and for what is no text."""
    piped = str(file) == "-"
    text = text_of(None if piped else file, most=LARGEST_KEY, otherwise="It takes one line as ssh-keygen writes it.")
    if piped and looks_private(text):
        raise click.ClickException("That is a private key, and was not sent; ssh-keygen -y -f prints its public half.")
    if looks_private(text):
        public = file.with_name(f"{file.name}.pub")
        beside = f"give {public}" if public.is_file() else f"ssh-keygen -y -f {file} prints its public half"
        raise click.ClickException(f"{file} is a private key, and was not sent; {beside}.")
    return text
