"""`keyrack keys …`: the SSH keys of users, and your own; must hold no rule, the core has them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import click

from keyrack.cli import key_places, keys_found, keys_on_many, still_let_in
from keyrack.cli.changes import changed, changing, lasting, renewed
from keyrack.cli.connection.calls import ID, connected, connection_options, if_missing, path_to
from keyrack.cli.keys_on_many import KEY_FILE, line_of
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import NOTHING, as_json, as_json_object, dash, show_json, table

SIGN_SECONDS = 120


@click.group(name="keys")
def command() -> None:
    """SSH keys that users registered as their own, and commands that put one key on many servers.

    `keyrack servers keys SERVER` lists the keys on one server.
    """


command.add_command(keys_on_many.add)
command.add_command(keys_on_many.revoke)
command.add_command(keys_on_many.replace)
command.add_command(keys_found.find)
command.add_command(keys_found.confirm)
command.add_command(key_places.where)


@command.command(name="list")
@click.option("--user", metavar="NAME", help="Only the keys of this user.")
@as_json
@connection_options
def list_keys(user: str | None, json_wanted: bool, **given: Any) -> None:
    """List the SSH keys of users, newest first, each with its last use."""
    with connected(given) as calls, if_missing("Name users as they sign in."):
        rows = [
            (
                one["id"],
                one["user"] or "?",
                dash(one["title"]),
                dash(one["fingerprint"]),
                one["created_at"],
                dash(one["expires_at"]),
                one["last_uses"][0]["at"] if one["last_uses"] else NOTHING,
                dash("frozen" if one.get("frozen") else None),  # an older service does not say
            )
            for one in calls.every("/user-keys", {"user": user})
        ]
        titles = ("ID", "USER", "TITLE", "FINGERPRINT", "CREATED", "EXPIRES AT", "LAST USED", "STATE")
        table(titles, rows, json_wanted)


@command.group()
def mine() -> None:
    """Your own SSH keys, where you are logged in."""


@mine.command(name="list")
@as_json
@connection_options
def list_mine(json_wanted: bool, **given: Any) -> None:
    """List your own keys, newest first."""
    with connected(given) as calls:
        rows = [
            (one["id"], dash(one["title"]), dash(one["fingerprint"]), one["created_at"], dash(one["expires_at"]))
            for one in calls.every("/people/me/keys")
        ]
        table(("ID", "TITLE", "FINGERPRINT", "CREATED", "EXPIRES AT"), rows, json_wanted)


@mine.command(name="add")
@click.argument("file", metavar="FILE", type=KEY_FILE)
@click.option("--title", metavar="TEXT", help="A title for the key.")
@changing
@connection_options
def add_mine(file: Path, title: str | None, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Register the public key in FILE as yours: keyrack keys mine add ~/.ssh/id_ed25519.pub"""
    with connected(given) as calls:
        changed(
            calls,
            "POST",
            "/people/me/keys",
            {"title": title, "public_key": line_of(file)},
            dry_run=dry_run,
            json_wanted=json_wanted,
            words=lambda made: f"Registered {made['fingerprint']} (id {made['id']}).",
        )


@mine.command(name="delete")
@click.argument("key_id", metavar="ID", type=ID)
@changing
@connection_options
def delete_mine(key_id: int, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Delete a key of your own; it no longer opens anything by your grants."""
    with connected(given) as calls, if_missing("`keyrack keys mine list` shows which there are."):
        path = path_to("people", "me", "keys", key_id)
        words = f"Deleted key {key_id}{still_let_in.of_key(calls, calls.ask('GET', path))}."
        changed(calls, "DELETE", path, dry_run=dry_run, json_wanted=json_wanted, words=lambda _: words)


@command.command()
@click.argument("key_id", metavar="ID", type=ID)
@lasting
@changing
@connection_options
def renew(key_id: int, until: str | None, span: str | None, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Give a user's key a new end, under the same id: keyrack keys renew 7 --for 30d"""
    with connected(given) as calls, if_missing("`keyrack keys list` shows which there are."):
        path, what = path_to("keys", key_id), f"Key {key_id}"
        renewed(calls, path, until, span, what, dry_run=dry_run, json_wanted=json_wanted)


@command.command()
@click.argument("file", metavar="KEY", type=KEY_FILE)
@click.option("--title", metavar="TEXT", help="A title for the key.")
@as_json_object
@connection_options
def claim(file: Path, title: str | None, json_wanted: bool, **given: Any) -> None:
    """Claim a key as yours by signing a challenge with it, whoever had it before.

    KEY is the private key's file, or the public one where ssh-agent holds the private half. Nothing but the signature
    leaves this machine: keyrack keys claim ~/.ssh/id_ed25519
    """
    public = file if file.suffix == ".pub" else file.with_name(f"{file.name}.pub")
    if not public.exists():
        raise click.ClickException(f"There is no {public}; make it with: ssh-keygen -y -f {file} > {public}")
    with connected(given) as calls:
        line = line_of(public)
        asked = calls.ask("POST", "/keys/challenge", {"public_key": line})
        signature = _signed(file, asked["namespace"], asked["challenge"])
        body = {"public_key": line, "challenge": asked["challenge"], "signature": signature, "title": title}
        made = calls.ask("POST", "/keys/claim", body)
        if json_wanted:
            show_json(made)
        else:
            say(f"The key {made['fingerprint']} is yours (id {made['id']}).")


def _signed(file: Path, namespace: str, text: str) -> str:
    """The text signed by ssh-keygen, which asks for the passphrase itself."""
    program = shutil.which("ssh-keygen")
    if program is None:
        raise click.ClickException("There is no ssh-keygen here; it comes with OpenSSH 8.1 and newer.")
    try:
        done = subprocess.run(
            [program, "-Y", "sign", "-n", namespace, "-f", str(file)],
            input=text.encode(),
            capture_output=True,
            check=False,
            timeout=SIGN_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise click.ClickException("ssh-keygen took too long.") from None
    if done.returncode != 0:
        raise click.ClickException(f"ssh-keygen did not sign: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode("ascii", "replace")
