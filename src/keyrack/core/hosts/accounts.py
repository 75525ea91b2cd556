"""The accounts in a host document, and how far hosts are with them; must not touch an account itself."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.model import Server, SystemUser
from keyrack.protocol.host_document import DesiredAccount
from keyrack.store.hosts import system_users

UNMANAGED = "unmanaged"
"""Nothing was asked of the host for this account."""
PENDING = "pending"
"""The host has not yet said that it did what was asked."""
PRESENT = "present"
"""The account exists on the host as asked."""
REFUSED = "refused"
"""The host answered, and the account is not as asked, most often because the host's own configuration does not let
Keyrack create or change accounts."""


def wanted(
    instance: Instance, connection: Connection, server_id: int
) -> tuple[dict[str, DesiredAccount], tuple[SystemUser, ...]]:
    """The accounts of one host document by name; and those left out, whose password was changed in the database."""
    damaged = []
    asked_for = {name: DesiredAccount(present=False) for name in system_users.accounts_removed(connection, server_id)}
    for user, encrypted in system_users.accounts_asked(connection, server_id):
        try:
            hashed = None if encrypted is None else _decrypted(instance, server_id, user, encrypted)
        except InvalidTag:
            damaged.append(user)
            continue
        asked = user.deployment_key_asked_at is not None
        asked_for[user.username] = DesiredAccount(present=True, password_hash=hashed, deployment_key=asked)
    return asked_for, tuple(damaged)


def encrypt_password(instance: Instance, server_id: int, username: str, hashed: str) -> bytes:
    """A password's hash as it is stored: encrypted, and only for this account of this server."""
    return instance.key.encrypt(hashed, _context(server_id, username))


def state(server: Server, user: SystemUser) -> str:
    """How far a host is with an account: UNMANAGED, PENDING, PRESENT or REFUSED."""
    if user.revision is None:
        return UNMANAGED
    if server.applied_revision < user.revision:
        return PENDING
    reported = _reported(server, user.username)
    if reported.get("exists") is not True or reported.get("refused"):
        return REFUSED
    # The account makes its key pair itself, however long that takes.
    key_is_missing = user.deployment_key_asked_at is not None and user.deployment_key is None
    return PENDING if key_is_missing else PRESENT


def reason(server: Server, user: SystemUser) -> str:
    """Why an account is REFUSED, in the words of its host; "" in any other state, or where the host did not say."""
    return str(_reported(server, user.username).get("refused") or "") if state(server, user) == REFUSED else ""


def _reported(server: Server, username: str) -> Mapping[str, object]:
    accounts = server.facts.get("accounts")
    reported = accounts.get(username) if isinstance(accounts, Mapping) else None
    return reported if isinstance(reported, Mapping) else {}


def _decrypted(instance: Instance, server_id: int, user: SystemUser, encrypted: bytes) -> str:
    return instance.key.decrypt(encrypted, _context(server_id, user.username))


def _context(server_id: int, username: str) -> str:
    return f"account password {server_id} {username}"
