"""Why a host's sshd would refuse a key or an account, by the host's own report; must not judge itself."""

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
    """What the host of a server said of the accounts that it was told of."""

    server: Server
    accounts: Mapping[str, Any]

    def why(self, username: str, fingerprint: str) -> str | None:
        """Why sshd refuses this key for this account, such as "sshd refuses root: PermitRootLogin no".

        Empty where it does not; None where the host has not said.
        """
        account = self.accounts.get(username)
        if account is None:
            return None
        reason = account.get("why") or (account.get("keys") or {}).get(fingerprint, "")
        return f"sshd refuses {username}: {reason}" if reason else ""

    def closed_accounts(self) -> Iterator[str]:
        """The accounts that no key opens, each with its reason."""
        for username, account in sorted(self.accounts.items()):
            if account.get("why"):
                yield f"sshd refuses {username}: {account['why']}"


def of(server: Server) -> RefusedLogins:
    """What the host of a server said."""
    return RefusedLogins(server, server.facts.get(LOGINS) or {})


def on_server(instance: Instance, actor: Actor, server_id: int, action: str = "credentials:read") -> RefusedLogins:
    """The same for who deals with its keys; action: what they may do with them. Raises Refusal MISSING."""
    # What looks up whatever a caller names; a list of hosts loads this module, and names nothing.
    from keyrack.core import lookups

    attempt = Attempt(
        instance, actor, action, "see whether keys open a host", target_kind="server", server_id=server_id
    )
    with attempt:
        return of(attempt.read(lambda connection: lookups.server(connection, actor, server_id)))
