"""`keyrack ssh-config`: ssh's configuration and known hosts for where one may log in; must let nothing else into them.

What a service answers is written into a file that can start programs, so every value is checked first.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from keyrack.cli.connection import logins
from keyrack.cli.connection.calls import connected, connection_options
from keyrack.cli.output.ends import partly
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import as_json, show_json
from keyrack.protocol.words import count
from keyrack.ssh import public_key
from keyrack.ssh.key_problem import KeyProblem

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
ALIAS = "keyrack-"
_MARK = "# Written by `keyrack ssh-config`; it is written anew, so change nothing here."


@click.command(name="ssh-config")
@click.option("--user", metavar="NAME", help="For another user; otherwise for yourself.")
@click.option("--write", is_flag=True, help="Write both files beside the login, instead of printing the configuration.")
@click.option("--known-hosts", "alias", metavar="ALIAS", help="Print only the known hosts of ALIAS; - for all.")
@click.option("--live", is_flag=True, help="Have ssh ask for host keys at each login (KnownHostsCommand, OpenSSH 8.5).")
@as_json
@connection_options
def command(user: str | None, write: bool, alias: str | None, live: bool, json_wanted: bool, **given: Any) -> None:
    """Write an ssh configuration for the servers you may log in to, with their host keys.

    No host key is trusted on first use.

    `keyrack ssh-config --write`, and `Include ~/.config/keyrack/ssh_config` at the top of ~/.ssh/config; write it
    again whenever something changed. Then: ssh web-1, or ssh deploy.web-1 where there are several accounts.
    """
    if user == "":
        raise click.UsageError("--user is empty; leave it out for yourself.")
    with connected(given) as calls:
        servers = calls.ask("GET", "/ssh-config", query={"user": user})["items"]
    hosts = [host for host in map(checked, servers) if host is not None]
    if json_wanted:
        show_json(hosts)
    elif alias is not None:
        for line in known_hosts(host for host in hosts if alias in ("-", ALIAS + str(host["server_id"]))):
            click.echo(line)
    else:
        folder = logins.path().parent
        lines = "\n".join((_MARK, *config(hosts, folder / "known_hosts", live=live))) + "\n"
        if write:
            _write(folder / "known_hosts", "\n".join((_MARK, *known_hosts(hosts))) + "\n")
            _write(folder / "ssh_config", lines)
            say(
                f"Wrote {count(len(hosts), 'host')}. At the top of ~/.ssh/config: Include {folder / 'ssh_config'}",
                err=True,
            )
        else:
            click.echo(lines, nl=False)
    for host in hosts:
        if host["changed"]:
            say(
                f"{host['server']} shows a host key that nobody confirmed: keyrack servers host-keys {host['server']}",
                err=True,
            )
        elif not host["host_keys"]:
            say(f"{host['server']} has reported no host key yet; ssh will refuse it.", err=True)
    if len(hosts) < len(servers):
        say(
            f"{count(len(servers) - len(hosts), 'host')} left out: the address or the accounts do not fit ssh's files.",
            err=True,
        )
        raise partly()


def config(hosts: Iterable[dict[str, Any]], known: Path, *, live: bool = False) -> Iterator[str]:
    """ssh_config(5) for some hosts: one entry each, and one for each account where there are several."""
    for one in hosts:
        name, accounts = one["name"], one["system_users"]
        entries = [(name, accounts[0])] + [(f"{account}.{name}", account) for account in accounts if len(accounts) > 1]
        for host, account in entries:
            yield f"Host {host}"
            yield f"  HostName {one['address']}"
            yield f"  Port {one['port']}"
            yield f"  User {account}"
            # By the server's id, whatever it is called and wherever it is; no other file of known hosts says more.
            yield f"  HostKeyAlias {ALIAS}{one['server_id']}"
            if live:
                yield "  UserKnownHostsFile none"
                yield "  KnownHostsCommand /usr/bin/env keyrack ssh-config --known-hosts %H"
            else:
                yield f'  UserKnownHostsFile "{known}"'
            yield "  GlobalKnownHostsFile none"
            yield "  StrictHostKeyChecking yes"
            yield "  CheckHostIP no"
            yield "  UpdateHostKeys no"
            yield ""


def known_hosts(hosts: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The lines of known_hosts (sshd(8)) for some hosts."""
    for host in hosts:
        for key in host["host_keys"]:
            yield f"{ALIAS}{host['server_id']} {key}"


def checked(entry: dict[str, Any]) -> dict[str, Any] | None:
    """A host with every value checked, so that none can mean more in ssh's files; None if that cannot be."""
    number, port, address = entry["server_id"], entry["port"], str(entry["address"])
    accounts = [name for name in entry["system_users"] if isinstance(name, str) and _ACCOUNT.fullmatch(name)]
    if type(number) is not int or type(port) is not int or not 1 <= port <= 65_535 or not accounts:
        return None
    if not _NAME.fullmatch(address) and not _is_address(address):
        return None
    name = str(entry["server"])
    keys = []
    for line in entry["host_keys"]:
        try:
            keys.append(public_key.parse(line).canonical)
        except (KeyProblem, TypeError, AttributeError):
            continue
    return {
        **{"server": name, "server_id": number, "address": address, "port": port, "system_users": accounts},
        # A name that ssh would read as a pattern, or as several names, is replaced by the alias.
        "name": name if _NAME.fullmatch(name) else f"{ALIAS}{number}",
        "host_keys": keys,
        "changed": bool(entry["changed"]),
    }


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _write(file: Path, text: str) -> None:
    """Write a file, old or new at any time; exits with words where that cannot be."""
    new = file.with_name(f"{file.name}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new.write_text(text, "ascii")
        os.replace(new, file)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}.") from None
