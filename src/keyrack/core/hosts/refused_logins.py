"""Why a host's sshd would refuse a key or an account, as the host itself reports; must not judge that itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keyrack.core.hosts.facts import LOGINS
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.model import Actor, Server


@dataclass(frozen=True, slots=True)
class RefusedLogins:
    """What a server's host reports of the accounts in its document."""

    server: Server
    accounts: Mapping[str, Any]

    def why(self, username: str, fingerprint: str) -> str | None:
        """Why sshd refuses this key for this account, such as "sshd refuses root: PermitRootLogin no".

        "" where it does not; None where the host has not reported that.
        """
        account = self.accounts.get(username)
        if account is None:
            return None
        reason = account.get("why") or (account.get("keys") or {}).get(fingerprint, "")
        return f"sshd refuses {username}: {reason}" if reason else ""

    def closed_accounts(self) -> Iterator[str]:
        """The accounts that sshd opens to no key, each as a sentence with the reason."""
        for username, account in sorted(self.accounts.items()):
            if account.get("why"):
                yield f"sshd refuses {username}: {account['why']}"


def of(server: Server) -> RefusedLogins:
    """What a server's host reports."""
    return RefusedLogins(server, server.facts.get(LOGINS) or {})


def on_server(instance: Instance, actor: Actor, server_id: int, action: str = "credentials:read") -> RefusedLogins:
    """The same for a caller who deals with its keys; action: what these need. Raises Refusal MISSING or FORBIDDEN."""
    # Imported here, as a list of hosts loads this module and needs no lookups.
    from keyrack.core import lookups

    attempt = Attempt(
        instance, actor, action, "see whether keys open a host", target_kind="server", server_id=server_id
    )
    with attempt:
        return of(attempt.read(lambda connection: lookups.server(connection, actor, server_id)))
