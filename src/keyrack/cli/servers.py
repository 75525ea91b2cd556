"""`keyrack servers …`: servers, seen and changed; must hold no rule. `keyrack hosts` has the operators' commands."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli import still_let_in
from keyrack.cli.changes import break_glass_option, changed, changing, end_of, lasting, renewed, tell
from keyrack.cli.connection.calls import ID, connected, connection_options, if_missing, path_to
from keyrack.cli.keys_on_many import KEY_FILE, line_of
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import NOTHING, as_json, as_json_object, dash, show_json, table
from keyrack.cli.restricting import restricting
from keyrack.model import MODES

HINT = "`keyrack servers list` shows which there are."


@click.group(name="servers")
def command() -> None:
    """Servers, what each is to do and what it reports, and the keys on it. SERVER is a name or an id."""


@command.command(name="list")
@click.option("--search", metavar="TEXT", help="Only those whose name or address contains TEXT.")
@as_json
@connection_options
def list_servers(search: str | None, json_wanted: bool, **given: Any) -> None:
    """List servers, each with its mode and state; APPLIED is the revision it obeys / the one it must obey."""
    with connected(given) as calls:
        rows = [
            (
                one["id"],
                one["name"],
                one["address"],
                dash(", ".join(one["tags"])),
                one["mode"],
                one["state"],
                f"{one['applied']}/{one['wanted']}",
                dash(one["seen_at"]),
            )
            for one in calls.every("/servers", {"search": search})
        ]
        table(("ID", "NAME", "ADDRESS", "TAGS", "MODE", "STATE", "APPLIED", "SEEN AT"), rows, json_wanted)


@command.command()
@click.argument("server", metavar="SERVER")
@as_json_object
@connection_options
def show(server: str, json_wanted: bool, **given: Any) -> None:
    """Show what one server is to do and what its host reports."""
    with connected(given) as calls, if_missing(HINT):
        one = calls.ask("GET", path_to("servers", server))
        if json_wanted:
            show_json(one)
            return
        for name, value in one.items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            if shown not in (None, ""):
                say(f"{name.replace('_', ' '):<22} {shown}")


@command.command()
@click.argument("server", metavar="SERVER")
@click.option("--name", metavar="NAME", help="A new name; its host goes on as it is.")
@click.option("--address", metavar="ADDRESS", help="A new address.")
@click.option("--provider", metavar="TEXT", help="Who provides the machine.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Its tags, these and no others; may be repeated.")
@click.option("--mode", type=click.Choice(MODES), help="What its host is to do.")
@changing
@connection_options
def change(
    server: str,
    name: str | None,
    address: str | None,
    provider: str | None,
    tags: tuple[str, ...],
    mode: str | None,
    dry_run: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Change name, address, provider, tags or mode of a server: keyrack servers change web-1 --tag web --tag eu"""
    body: dict[str, Any] = {"name": name, "address": address, "provider": provider, "mode": mode}
    body = {field: value for field, value in body.items() if value is not None}
    if tags:
        body["tags"] = list(tags)
    if not body:
        raise click.UsageError("Say what to change: --name, --address, --provider, --tag or --mode.")
    with connected(given) as calls, if_missing(HINT):
        changed(
            calls,
            "PATCH",
            path_to("servers", server),
            body,
            dry_run=dry_run,
            json_wanted=json_wanted,
            words=lambda one: f"Server {one['id']}: {one['name']}, {one['address']}, {one['mode']}.",
        )


@command.command(name="set")
@click.argument("server", metavar="SERVER")
@click.option("--address", metavar="ADDRESS", help="Its address; a new server needs one.")
@click.option("--provider", metavar="TEXT", help="Who provides the machine.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Its tags, these and no others; may be repeated.")
@click.option("--mode", type=click.Choice(MODES), help="What its host is to do.")
@click.option("--account", "accounts", multiple=True, metavar="ACCOUNT", help="A system user on it; may be repeated.")
@as_json_object
@connection_options
def set_server(
    server: str,
    address: str | None,
    provider: str | None,
    tags: tuple[str, ...],
    mode: str | None,
    accounts: tuple[str, ...],
    json_wanted: bool,
    **given: Any,
) -> None:
    """Create or change a server: keyrack servers set web-2 --address 192.0.2.11 --account deploy"""
    body: dict[str, Any] = {"address": address, "provider": provider, "mode": mode, "tags": list(tags) or None}
    body = {field: value for field, value in body.items() if value is not None}
    with connected(given) as calls, if_missing(HINT):
        one = calls.ask("PUT", path_to("servers", server), {**body, "system_users": list(accounts)})
        if json_wanted:
            show_json(one)
            return
        say(f"Server {one['id']}: {one['name']}, {one['address']}, {one['mode']}.")


@command.command()
@click.argument("server", metavar="SERVER")
@changing
@connection_options
def delete(server: str, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Delete a server with its keys; its host is told at its next contact."""
    with connected(given) as calls, if_missing(HINT):
        words = f"Deleted the server {server}."
        path = path_to("servers", server)
        changed(calls, "DELETE", path, dry_run=dry_run, json_wanted=json_wanted, words=lambda _: words)


@command.command()
@click.argument("server", metavar="SERVER")
@as_json
@connection_options
def accounts(server: str, json_wanted: bool, **given: Any) -> None:
    """List the system users of a server, the accounts that keys can open."""
    with connected(given) as calls, if_missing(HINT):
        system_users = calls.every(path_to("servers", server, "system-users"))
        rows = [(one["username"], one["state"], dash(one["reason"]), one["created_at"]) for one in system_users]
        table(("ACCOUNT", "STATE", "WHY", "CREATED AT"), rows, json_wanted)


@command.command(name="add-account")
@click.argument("server", metavar="SERVER")
@click.argument("account", metavar="ACCOUNT")
@as_json_object
@connection_options
def add_account(server: str, account: str, json_wanted: bool, **given: Any) -> None:
    """Add a system user to a server: keyrack servers add-account web-1 deploy"""
    with connected(given) as calls, if_missing(HINT):
        made = calls.ask("PUT", path_to("servers", server, "system-users", account))
        if json_wanted:
            show_json(made)
            return
        say(f"Server {server} has the account {made['username']}, {made['state']}.")


@command.command(name="delete-account")
@click.argument("server", metavar="SERVER")
@click.argument("account", metavar="ACCOUNT")
@changing
@connection_options
def delete_account(server: str, account: str, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Delete a system user of a server with its keys."""
    with connected(given) as calls, if_missing(f"`keyrack servers accounts {server}` shows which there are."):
        path = path_to("servers", server, "system-users", account)
        words = f"Deleted the account {account} of {server} with its keys."
        changed(calls, "DELETE", path, dry_run=dry_run, json_wanted=json_wanted, words=lambda _: words)


@command.command()
@click.argument("server", metavar="SERVER")
@as_json_object
@connection_options
def enrol(server: str, json_wanted: bool, **given: Any) -> None:
    """Print the line that enrols a host. Root pastes it there; its token works once, within 24 hours."""
    with connected(given) as calls, if_missing(HINT):
        made = calls.ask("POST", path_to("servers", server, "enrolments"))
        tell(made, made["line"], json_wanted)


@command.command(name="keys")
@click.argument("server", metavar="SERVER")
@as_json
@connection_options
def list_keys(server: str, json_wanted: bool, **given: Any) -> None:
    """List the keys that Keyrack put on a server, each with its end and its last use."""
    with connected(given) as calls, if_missing(HINT):
        rows = [
            (
                one["id"],
                one["label"],
                one["username"],
                one["fingerprint"],
                dash(one["expires_at"]),
                dash(", ".join(sorted(one["restrictions"]))),
                f"{one['last_used_at']} from {one['last_used_from']}" if one["last_used_at"] else NOTHING,
            )
            for one in calls.every(path_to("servers", server, "credentials"))
        ]
        table(("ID", "LABEL", "ACCOUNT", "FINGERPRINT", "END", "RESTRICTIONS", "LAST USED"), rows, json_wanted)


@command.command(name="add-key")
@click.argument("server", metavar="SERVER")
@click.argument("file", metavar="FILE", type=KEY_FILE)
@click.option("--label", required=True, metavar="TEXT", help="What the key is called there.")
@click.option("--as", "username", required=True, metavar="ACCOUNT", help="As which system user it logs in.")
@lasting
@restricting
@break_glass_option
@changing
@connection_options
def add_key(
    server: str,
    file: Any,
    label: str,
    username: str,
    until: str | None,
    span: str | None,
    restrictions: dict[str, Any] | None,
    break_glass: bool,
    dry_run: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Put the public key in FILE on a server: keyrack servers add-key web-1 id.pub --label bot --as deploy --for 8h"""
    with connected(given) as calls, if_missing(HINT):
        body = {
            "label": label,
            "username": username,
            "public_key": line_of(file),
            "expires_at": end_of(calls, until, span),
            "restrictions": restrictions,
            "break_glass": break_glass,
        }
        changed(
            calls,
            "POST",
            path_to("servers", server, "credentials"),
            body,
            dry_run=dry_run,
            json_wanted=json_wanted,
            words=lambda made: f"Put {made['fingerprint']} on {made['username']} (SSH key {made['id']}).",
        )


@command.command(name="restrict-key")
@click.argument("key_id", metavar="ID", type=ID)
@restricting
@changing
@connection_options
def restrict_key(
    key_id: int, restrictions: dict[str, Any] | None, dry_run: bool, json_wanted: bool, **given: Any
) -> None:
    """Set the restrictions of a key on a server, under the same id; open sessions go on.

    Such as: keyrack servers restrict-key 7 --command /bin/backup --no-pty. The restrictions given replace all it had.
    """
    if restrictions is None:
        raise click.UsageError("Say how to restrict it, such as --no-pty; --restrictions {} removes all restrictions.")
    with connected(given) as calls, if_missing("`keyrack servers keys SERVER` shows which there are."):
        changed(
            calls,
            "PUT",
            path_to("credentials", key_id, "restrictions"),
            {"restrictions": restrictions},
            dry_run=dry_run,
            json_wanted=json_wanted,
            words=lambda made: (
                f"SSH key {made['id']} is restricted in {', '.join(sorted(made['restrictions'])) or 'nothing'}."
            ),
        )


@command.command(name="renew-key")
@click.argument("key_id", metavar="ID", type=ID)
@lasting
@changing
@connection_options
def renew_key(key_id: int, until: str | None, span: str | None, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Give a key on a server another end, under the same id: keyrack servers renew-key 7 --for 8h"""
    with connected(given) as calls, if_missing("`keyrack servers keys SERVER` shows which there are."):
        path, what = path_to("credentials", key_id), f"SSH key {key_id}"
        renewed(calls, path, until, span, what, dry_run=dry_run, json_wanted=json_wanted)


@command.command(name="delete-key")
@click.argument("server", metavar="SERVER")
@click.argument("key_id", metavar="ID", type=ID)
@changing
@connection_options
def delete_key(server: str, key_id: int, dry_run: bool, json_wanted: bool, **given: Any) -> None:
    """Remove a key from a server."""
    with connected(given) as calls, if_missing(f"`keyrack servers keys {server}` shows which there are."):
        path = path_to("servers", server, "credentials", key_id)
        gone = calls.ask("GET", path)

        def words(_: object) -> str:
            return f"Deleted SSH key {key_id} from {server}{still_let_in.of_account(calls, gone)}."

        changed(calls, "DELETE", path, dry_run=dry_run, json_wanted=json_wanted, words=words)


@command.command(name="host-keys")
@click.argument("server", metavar="SERVER")
@click.option("--confirm", is_flag=True, help="Trust what the host shows now, and nothing that it showed before.")
@as_json
@connection_options
def host_keys(server: str, confirm: bool, json_wanted: bool, **given: Any) -> None:
    """List the host keys that a server's own agent reported.

    One that changed is an alarm until somebody confirms it; `keyrack ssh-config` leaves it out until then.
    """
    with connected(given) as calls, if_missing(HINT):
        path = path_to("servers", server, "host-keys")
        answer = calls.ask("GET", path)
        if confirm:
            seen = [one["fingerprint"] for one in answer["items"] if one["shown"] and not one["confirmed"]]
            answer = calls.ask("POST", f"{path}/confirm", {"fingerprints": seen})
        rows = [
            (
                one["public_key"].partition(" ")[0],
                one["fingerprint"],
                one["port"],
                ("trusted" if one["shown"] else "not shown any more") if one["confirmed"] else "CHANGED",
                one["first_at"],
                dash(one["confirmed_by"]),
            )
            for one in answer["items"]
        ]
        table(("TYPE", "FINGERPRINT", "PORT", "STATE", "FIRST TOLD", "CONFIRMED BY"), rows, json_wanted)
        if answer["changed"]:
            say(
                f"Compare them on the host itself; if they are right: keyrack servers host-keys {server} --confirm",
                err=True,
            )
