"""`keyrack hosts …`: the names of its commands, each with its help; must load none of them by itself."""

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
    "accept": (f"{_UNMANAGED}:accept", "Take over an unmanaged key as a credential."),
    "copy-gone": (f"{_CHANGES}:copy_gone", "Resume a host whose copy is gone."),
    "damaged": (
        f"{_RECOVERY}:damaged_rows",
        "List, remove or accept rows that are not as Keyrack wrote them and open nothing.",
    ),
    "end-session": (f"{_CALLED}:end_session", "Tell a host to end a session."),
    "enforce": (f"{_CALLED}:enforce", "Let only Keyrack's keys open a host."),
    "enrol": ("keyrack.cli.hosts.enrol:command", "Print the line that enrols a host."),
    "events": ("keyrack.cli.events:command", "List the audit log, or a server's part of it, newest first."),
    "host-keys": ("keyrack.cli.servers:host_keys", "List the host keys that a server's own agent reported."),
    "ignore": (f"{_UNMANAGED}:ignore", "Leave an unmanaged key where it is, and stop listing it."),
    "keys": (f"{_CALLED}:list_keys", "List the keys that Keyrack put on a host, each with its end and its last use."),
    "list": ("keyrack.cli.hosts.host_list:list_hosts", "List hosts, each with its mode and state."),
    "move": (
        f"{_CHANGES}:move",
        "Change a server's address, and its provider and tags if they are given.",
    ),
    "observe": (f"{_CALLED}:observe", "Let a host only observe: it reports who gets in, and changes nothing."),
    "offline-policy": (f"{_CALLED}:set_offline_policy", "Set what hosts do while the service does not answer."),
    "receipts": (f"{_REVOCATION}:show_receipts", "Show which hosts obey a change."),
    "remove": (f"{_UNMANAGED}:remove", "Tell the host to remove an unmanaged key from its file."),
    "rename": (f"{_CHANGES}:rename", "Rename a server."),
    "resync": (
        f"{_RECOVERY}:resync_hosts",
        "Decide what holds on hosts that know more than a database that went back.",
    ),
    "revoke": (f"{_REVOCATION}:revoke", "Revoke a key everywhere."),
    "revoked": (f"{_REVOCATION}:list_revoked", "List keys that were revoked everywhere."),
    "sessions": (f"{_CALLED}:list_sessions", "List who is logged in on a host."),
    "show": (f"{_CALLED}:show", "Show what one host is to do and what it reports."),
    "unmanaged": (f"{_UNMANAGED}:list_unmanaged", "List the keys on a host that Keyrack did not put there."),
}

# Names from before 0.2, which operators' scripts may still use. No help shows them.
FORMER = {"adopt": "observe", "found": "unmanaged", "stale": "offline-policy"}


@click.group(name="hosts", cls=LazyGroup, known=COMMANDS, former=FORMER)
def command() -> None:
    """Hosts, as the operator of this instance sees and controls them.

    SERVER is a name or an id. Everything here is also in the API (docs/api/keyrack.md) and goes there if you are
    logged in, except `events` (use `keyrack audit list`) and `damaged --reseal`, which work on the data alone.
    """
