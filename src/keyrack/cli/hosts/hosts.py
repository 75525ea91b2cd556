"""`keyrack hosts …`: what an operator sees of hosts and tells them, by name; must load none of it by itself."""

from __future__ import annotations

import click

from keyrack.cli.lazy_group import LazyGroup

_CALLED, _UNMANAGED, _REVOCATION = (
    "keyrack.cli.hosts.hosts_called",
    "keyrack.cli.hosts.unmanaged_keys",
    "keyrack.cli.hosts.revocation",
)
_RECOVERY, _CHANGES = "keyrack.cli.hosts.recovery", "keyrack.cli.hosts.server_changes"

COMMANDS = {
    "accept": (f"{_UNMANAGED}:accept", "Make an unmanaged key a credential."),
    "copy-gone": (f"{_CHANGES}:copy_gone", "Go on with a host whose copy is gone."),
    "damaged": (
        f"{_RECOVERY}:damaged_rows",
        "List rows that are not as Keyrack wrote them and open nothing, remove one, or let it count as it stands.",
    ),
    "end-session": (f"{_CALLED}:end_session", "Have a host end a login."),
    "enforce": (f"{_CALLED}:enforce", "Have Keyrack's keys alone open a host."),
    "enrol": ("keyrack.cli.hosts.enrol:command", "Print the line that enrols a host."),
    "events": ("keyrack.cli.events:command", "List the audit log, or a server's part of it, newest first."),
    "host-keys": ("keyrack.cli.servers:host_keys", "List the host keys that a server's own agent told."),
    "ignore": (f"{_UNMANAGED}:ignore", "Leave an unmanaged key where it is, and list it no more."),
    "keys": (f"{_CALLED}:list_keys", "List the keys that Keyrack put on a host, each with its end and its last use."),
    "list": ("keyrack.cli.hosts.host_list:list_hosts", "List hosts, each with its mode and state."),
    "move": (
        f"{_CHANGES}:move",
        "Give a server another address, and provider and tags where they are given.",
    ),
    "observe": (f"{_CALLED}:observe", "Have a host observe: it reports who gets in, and changes nothing about it."),
    "offline-policy": (f"{_CALLED}:set_offline_policy", "Set what hosts do while the service does not answer."),
    "receipts": (f"{_REVOCATION}:show_receipts", "Show which hosts obey a change."),
    "remove": (f"{_UNMANAGED}:remove", "Have the host remove an unmanaged key from its file."),
    "rename": (f"{_CHANGES}:rename", "Give a server another name."),
    "resync": (f"{_RECOVERY}:resync_hosts", "Decide on hosts that know more than the database, as it went back."),
    "revoke": (f"{_REVOCATION}:revoke", "Revoke a key everywhere."),
    "revoked": (f"{_REVOCATION}:list_revoked", "List keys that were revoked everywhere."),
    "sessions": (f"{_CALLED}:list_sessions", "List who is logged in on a host."),
    "show": (f"{_CALLED}:show", "Show what one host is to do and what it says it does."),
    "unmanaged": (f"{_UNMANAGED}:list_unmanaged", "List the keys on a host that Keyrack did not put there."),
}

# What they were called before 0.2; operators' scripts may still say so. No help shows them.
FORMER = {"adopt": "observe", "found": "unmanaged", "stale": "offline-policy"}


@click.group(name="hosts", cls=LazyGroup, known=COMMANDS, former=FORMER)
def command() -> None:
    """Hosts as the operator of this instance sees and steers them.

    SERVER is a name or an id. Everything here is also in the API (docs/api/keyrack.md) and goes there where one is
    logged in, but for `events` (`keyrack audit` does) and `damaged --reseal`, which are done on the data alone.
    """
