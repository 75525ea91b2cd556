"""The alarms about hosts that stand now, by the servers' records; must change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from keyrack.core.hosts import copies, database_rollback, host_keys, report_events, status
from keyrack.core.hosts.facts import (
    REWRITTEN_CODE,
    UNDONE_CODE,
    UNPROVEN,
    is_undone,
    rewritten_words,
    undone_words,
)
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.model import Actor, Server
from keyrack.protocol import audit_tree
from keyrack.store import overview as rows
from keyrack.store.hosts import host_keys as host_key_rows
from keyrack.store.hosts import servers
from keyrack.store.hosts.host_keys import HostKey

CODES = frozenset(
    (
        host_keys.CHANGED,
        report_events.REFUSED_CODE,
        report_events.FAILED_CODE,
        REWRITTEN_CODE,
        UNDONE_CODE,
        copies.CODE,
        database_rollback.CODE,
    )
)
"""Alarms that stand as long as a server's record says so, however long ago they were raised."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """An alarm about a host that stands.

    code: one of CODES; words: what is wrong, without "Alarm"; problem: the same on the page of the host, as among
    status.HostStatus.problems; since: None where the record does not say.
    """

    code: str
    server: Server
    words: str
    problem: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Troubles:
    """What is wrong with a workspace's hosts.

    alarms: all that stand; saying: of the other hosts those that report a problem, each with its first one in words;
    is_cut: whether hosts may be in trouble beyond those that were looked at (rows.MAX_BEHIND).
    """

    alarms: tuple[Trouble, ...]
    saying: tuple[tuple[Server, str], ...]
    is_cut: bool = False


def find(instance: Instance, connection: Connection, workspace_id: int) -> Troubles:
    """The troubles of a workspace, by the hosts' names."""
    found = rows.troubled(connection, workspace_id)
    ids = found[: rows.MAX_BEHIND]
    known = servers.by_ids(connection, ids)
    shown = host_key_rows.of_servers(connection, ids)
    alarms: list[Trouble] = []
    saying: list[tuple[Server, str]] = []
    for server in (known[one] for one in ids if one in known):
        standing = of(server, shown.get(server.id, ()))
        alarms += standing
        words = () if standing else status.of(instance, server).problems
        if not words and server.facts.get("enforcement") == UNPROVEN:
            words = ("its sshd does not show that it enforces",)
        if words:
            saying.append((server, words[0]))
    return Troubles(tuple(alarms), tuple(saying), is_cut=len(found) > len(ids))


def of(server: Server, shown: Sequence[HostKey]) -> list[Trouble]:
    """The alarms of one server; shown: its host keys."""
    standing: list[Trouble] = []
    unconfirmed = unconfirmed_among(shown)
    if unconfirmed:
        words = host_keys.unconfirmed_words(server, [key.fingerprint for key in unconfirmed])
        standing.append(Trouble(host_keys.CHANGED, server, words, words, min(key.first_at for key in unconfirmed)))
    if server.copied_at is not None:
        standing.append(Trouble(copies.CODE, server, copies.words(server), copies.words(server), server.copied_at))
    if server.rolled_back_at is not None:
        words = status.rolled_back(server)
        standing.append(
            Trouble(database_rollback.CODE, server, f"{server.name}: {words}", words, server.rolled_back_at)
        )
    for words in report_events.standing_refusal(server.facts):
        is_whole = bool(server.facts[report_events.REFUSED].get("whole", True))
        standing.append(
            Trouble(report_events.REFUSED_CODE if is_whole else report_events.FAILED_CODE, server, words, words)
        )
    for problem in filter(audit_tree.says_rewritten, map(str, server.facts.get("problems") or ())):
        standing.append(Trouble(REWRITTEN_CODE, server, rewritten_words(server, problem), problem))
    if is_undone(server):
        words = undone_words(server, str(server.facts.get("undone") or ""))
        standing.append(Trouble(UNDONE_CODE, server, words, words))
    return standing


def unconfirmed_among(shown: Sequence[HostKey]) -> list[HostKey]:
    """The host keys that a host shows and nobody has confirmed."""
    return [key for key in shown if key.shown and not key.confirmed]


def unconfirmed_host_keys(instance: Instance, actor: Actor, several: Sequence[Server]) -> frozenset[int]:
    """The ids of those servers that show a host key which nobody has confirmed. Raises Refusal FORBIDDEN."""
    with Attempt(instance, actor, "servers:read", "see host keys", target_kind="server") as attempt:
        ids = [server.id for server in several if server.workspace_id == actor.workspace_id]
        keys = attempt.read(lambda connection: host_key_rows.of_servers(connection, ids))
        return frozenset(server_id for server_id, shown in keys.items() if unconfirmed_among(shown))
