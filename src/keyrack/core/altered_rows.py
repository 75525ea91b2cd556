"""Raises alarms about rows that are not as Keyrack wrote them, and names rows in words; must change no row itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from keyrack.core.instance import Instance
from keyrack.core.next_steps import with_commands
from keyrack.core.people.actors import system_actor
from keyrack.logs import logger
from keyrack.store.audit import events
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.people import workspaces
from keyrack.store.sealing.seals import AlteredHow, AlteredRow
from keyrack.store.tables import metadata

log = logger("keyrack")

AGAIN_AFTER = timedelta(hours=1)
WORDS: Mapping[str, str] = {
    "users": "user",
    "groups": "group",
    "group_members": "group member",
    "tokens": "token",
    "access_keys": "access key",
    "servers": "server",
    "server_tags": "tag of server",
    "system_users": "system user",
    "removed_accounts": "removed account",
    "enrolments": "enrolment token",
    "credentials": "credential",
    "user_keys": "user key",
    "grants": "grant",
    "revocations": "revocation",
    "revoked_keys": "key revoked everywhere",
    "expired_keys": "key whose end came",
    "held_back": "held back entry",
    "projects": "project",
    "repositories": "repository",
    "repository_members": "repository member",
    "deploy_keys": "deploy key",
    "repository_names": "former path of repository",
    "deleted_servers": "deleted server",
    "deleted_server_keys": "key of deleted server",
    "access_requests": "request for access",
    "access_request_approvals": "approval of a request",
    "request_rules": "rule of requests",
    "offboardings": "offboarding",
    "offboarding_hosts": "host of an offboarding",
    "offboarding_git": "Git endpoint of an offboarding",
    "key_policies": "policy of keys",
    "key_sources": "account elsewhere",
    "web_sessions": "session of a browser",
    "authenticators": "second factor",
    "identities": "identity at a provider",
    "host_keys": "host key",
    "access_tree": "count of what decides",
}
# Rows that only refuse something count even where their seals do not hold.
_REFUSING = frozenset(("revocations", "revoked_keys", "expired_keys", "held_back"))
OWNERS = (
    ("offboarding_id", "offboardings"),  # first, as its server may be deleted by now
    ("server_id", "servers"),
    ("user_id", "users"),
    ("group_id", "groups"),
    ("repository_id", "repositories"),
)
_HAVING_IDS = frozenset(WORDS) - {"access_tree"}
MAX_REMEMBERED = 10_000


def named(table: str) -> str:
    """What a row of a table is called, in words."""
    return WORDS[table]


def row_name(words: str, number: int | str) -> str:
    """The name of a row in alarms, such as grants:5; "" for rows that no number names. words: as in WORDS."""
    for table, called in WORDS.items():
        if called == words and table in _HAVING_IDS and len(metadata.tables[table].primary_key) == 1:
            return f"{table}:{number}"
    return ""


def watch(instance: Instance) -> None:
    """Have an instance's database seal and check rows with its key, and raise alarms for rows that do not hold."""
    raised: dict[str, datetime] = {}

    def on_altered(altered: tuple[AlteredRow, ...]) -> None:
        since = instance.now() - AGAIN_AFTER
        new = [row for row in altered if raised.get(_words(row), since) <= since]
        if new:
            if len(raised) > MAX_REMEMBERED:
                raised.clear()
            raised.update((_words(row), instance.now()) for row in new)
            _alarm(instance, new)

    instance.database.seal_with(instance.key.seal_row, on_altered)


def _alarm(instance: Instance, altered: list[AlteredRow]) -> None:
    """Raise an alarm for each row, at most one in AGAIN_AFTER, in the workspace that the row names."""
    now = instance.now()

    def add(connection: Connection) -> None:
        for row in altered:
            words = _words(row)
            summary = f"Alarm: {words}"
            workspace_id, server_id = _place(connection, row.table, row.values)
            if events.was_raised_in(connection, workspace_id, "seal-broken", summary, now - AGAIN_AFTER):
                continue
            log.error("alarm", row=row.name, reason=words)
            events.add(
                connection,
                system_actor(workspace_id, channel="agent"),
                at=now,
                action="servers:write",
                outcome="refused",
                reason="seal-broken",
                target_kind=named(row.table),
                target_id=row.key[0] if isinstance(row.key[0], int) and row.table in _HAVING_IDS else None,
                server_id=server_id,
                summary=summary,
                level="alarm",
                details={"row": row.name, "found": row.how.value},
            )

    try:
        instance.database.write(add)
    except (DatabaseUnavailable, RuntimeError):
        log.error("alarm not recorded", rows=[row.name for row in altered])


def _words(row: AlteredRow) -> str:
    called = row.values.get("name") or row.values.get("path") or row.values.get("username") or ""
    what = f"{named(row.table)} {','.join(str(part) for part in row.key)}" + (f" ({called})" if called else "")
    if row.table == "access_tree" and row.how is AlteredHow.OLDER:
        return (
            "What decides about access was put back in the database to an older state, all of it. If nobody restored "
            "a copy, somebody else did; each host goes on refusing what it refused."
        )
    if row.table == "access_tree":
        return (
            f"The count of what decides ({row.name}) was changed or put back in the database, not by Keyrack. "
            "What it counted counts for nothing, until it is sealed again."
        )
    if row.how is AlteredHow.MISSING:
        return with_commands(
            f"The {what}, or one that is counted with it, was deleted in the database, not by Keyrack, and counts for "
            "nothing any more. Make it again, or let that stand, among the damaged rows",
            "hosts damaged",
        )
    if row.how is AlteredHow.OLDER:
        return (
            f"The {what} is not the newest that Keyrack wrote: it, or one that is counted with it, was put back or "
            "deleted in the database. It counts for nothing, until it is removed or sealed again."
        )
    if row.how is AlteredHow.FALSE_RECEIPT:
        return (
            f"What a host acknowledged, as the {what} has it, was entered, changed or taken away in the database, "
            "not by Keyrack. It counts for nothing, and the host is asked again."
        )
    if row.how is AlteredHow.INCOMPLETE:
        return f"Rows of the {what} were deleted or put back in the database, not by Keyrack. Nothing is signed for it."
    meaning = "It counts all the same, as it only refuses" if row.table in _REFUSING else "It counts for nothing"
    return f"The {what} was changed in the database, not by Keyrack. {meaning}, until it is removed or sealed again."


def _place(connection: Connection, table: str, values: Mapping[str, Any]) -> tuple[int, int | None]:
    """The workspace that a row names, or else the first one; and its server, None for a row without one."""
    server_id = values["id"] if table == "servers" else values.get("server_id")
    workspace_id = values.get("workspace_id")
    for column, owner in OWNERS:
        if workspace_id is None and values.get(column) is not None:
            owner_table = metadata.tables[owner]
            question = select(owner_table.c.workspace_id).where(owner_table.c.id == values[column])
            workspace_id = connection.execute(question).scalar()
    known = [workspace.id for workspace in workspaces.workspaces_by_name(connection)]
    if workspace_id not in known:
        workspace_id = min(known, default=0)
    return workspace_id, server_id
