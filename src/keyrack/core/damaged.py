"""Rows that are not as Keyrack wrote them: list and remove; must never mend one, as nobody knows what was asked."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from keyrack.core import delivery
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt, Work
from keyrack.errors import invalid, missing
from keyrack.model import Actor
from keyrack.ssh.key_problem import KeyProblem
from keyrack.ssh.public_key import read_canonical
from keyrack.store import keys, servers

CREDENTIAL, GRANT, USER_KEY = "credential", "grant", "user-key"
KINDS = (CREDENTIAL, GRANT, USER_KEY)


@dataclass(frozen=True, slots=True)
class DamagedRow:
    """One row. what: what it says now, which nobody at Keyrack entered; server_ids: where it would open something;
    public_key: the key in it, "" where it holds none that can be read.
    """

    kind: str
    id: int
    what: str
    server_ids: frozenset[int]
    public_key: str = ""

    @property
    def name(self) -> str:
        """How it is named to be removed."""
        return f"{self.kind}:{self.id}"


def find(instance: Instance, actor: Actor, server_id: int | None = None) -> list[DamagedRow]:
    """The damaged rows of the workspace, or those that concern one server. Raises Refusal MISSING."""
    attempt = Attempt(
        instance, actor, "credentials:read", "list damaged rows", target_kind="server", server_id=server_id
    )
    with attempt:
        known = attempt.read(
            lambda connection: server_id is None or servers.own_id(connection, actor.workspace_id, server_id)
        )
        if not known:
            raise missing("server")
        rows = attempt.read(lambda connection: _all(instance, connection, actor.workspace_id))
        return [row for row in rows if server_id is None or server_id in row.server_ids]


def remove(instance: Instance, actor: Actor, name: str) -> DamagedRow:
    """Delete a damaged row, named KIND:ID, and have the key in it refused where nothing else lets it in.

    Raises Refusal INVALID, or MISSING where there is no such row or it is as Keyrack wrote it.
    """
    attempt = Attempt(instance, actor, "credentials:write", "remove a damaged row", target_kind="server")
    with attempt:
        kind, _, number = name.partition(":")
        if kind not in KINDS or not number.isascii() or not number.isdecimal():
            raise invalid("name", f"A damaged row is named KIND:ID; KIND is one of {', '.join(KINDS)}.")

        def change(work: Work) -> DamagedRow:
            rows = _all(work.instance, work.connection, work.actor.workspace_id)
            found = next((row for row in rows if row.name == f"{kind}:{number.lstrip('0')}"), None)
            if found is None:
                raise missing("damaged row")
            drop(work, found)
            return found

        return attempt.write(change)


def drop(work: Work, row: DamagedRow) -> None:
    """Delete a damaged row within a unit of work, with its event."""
    if row.kind == CREDENTIAL:
        keys.remove_credential(work.connection, row.id)
    elif row.kind == GRANT:
        keys.remove_grant(work.connection, row.id)
    else:
        keys.remove_user_key(work.connection, row.id)
    gone = [(read_canonical(row.public_key).sha256, row.public_key)] if row.public_key else []
    delivery.left(work, row.server_ids, gone)
    work.record(f"Removed the damaged row {row.name}: {row.what}", level="warning")


def damaged_credential(work: Work, server_id: int, label: str) -> DamagedRow | None:
    """The row that holds a label on a server, where it is damaged."""
    for credential, seal in keys.credentials_with_seals(work.connection, server_id, label=label):
        if not delivery.credential_holds(work.instance, credential, seal):
            what = f"key {credential.fingerprint} for {credential.username}"
            return DamagedRow(CREDENTIAL, credential.id, what, frozenset((server_id,)), _key(credential.public_key))
    return None


def damaged_user_key(work: Work, key_id: int) -> DamagedRow | None:
    """A user key's row, where it is damaged."""
    for key, seal in keys.user_keys_with_seals(work.connection, work.actor.workspace_id, key_id=key_id):
        if not delivery.user_key_holds(work.instance, key, seal):
            opened = keys.servers_of_user(work.connection, key.user_id)
            return DamagedRow(USER_KEY, key.id, f"key {key.fingerprint}", opened, _key(key.public_key))
    return None


def _all(instance: Instance, connection: Connection, workspace_id: int) -> list[DamagedRow]:
    rows = []
    for server_id in servers.ids_of(connection, workspace_id):
        for credential, seal in keys.credentials_with_seals(connection, server_id):
            if not delivery.credential_holds(instance, credential, seal):
                what = f"key {credential.fingerprint} for {credential.username}, label {credential.label}"
                at = frozenset((server_id,))
                rows.append(DamagedRow(CREDENTIAL, credential.id, what, at, _key(credential.public_key)))
    for grant, seal in keys.grants_with_seals(connection, workspace_id):
        if not delivery.grant_holds(instance, grant, seal):
            who = f"user {grant.user_id}" if grant.user_id is not None else f"group {grant.group_id}"
            what = f"{who} logs in as {grant.system_user}"
            rows.append(DamagedRow(GRANT, grant.id, what, keys.servers_of_grant(connection, grant)))
    for key, seal in keys.user_keys_with_seals(connection, workspace_id):
        if not delivery.user_key_holds(instance, key, seal):
            opened = keys.servers_of_user(connection, key.user_id)
            what = f"key {key.fingerprint} of user {key.user_id}"
            rows.append(DamagedRow(USER_KEY, key.id, what, opened, _key(key.public_key)))
    return rows


def _key(line: str | None) -> str:
    """The key in a damaged row, if it is one: what is no key must never reach a host's list of refused ones."""
    try:
        return read_canonical(line).canonical if line else ""
    except KeyProblem:
        return ""
