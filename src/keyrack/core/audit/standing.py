"""Which alarms stand, and which were settled: by the state of what they are about or, where nothing shows that, by
somebody; must never change an event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from keyrack.core import schema_check
from keyrack.core.hosts import break_glass, report_events, troubles
from keyrack.core.instance import Instance
from keyrack.core.keys import damaged_rows
from keyrack.core.keys.key_sync import ALARMS as SOURCE_STATES
from keyrack.core.next_steps import commands, with_commands
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, missing
from keyrack.model import Actor
from keyrack.store import overview as rows
from keyrack.store.engine.prepared import Row
from keyrack.store.sealing.seals import AlteredHow

KEPT = timedelta(days=7)
"""For so long an alarm waits for somebody to settle it, where nothing shows that it is over."""
LATELY = timedelta(days=1)
"""For so long a settled alarm is shown as settled."""
ALARM = "alarm"
"""The target kind of an event by which somebody settled an alarm."""
SEAL, TABLES = "seal-broken", schema_check.REASON
SOURCE = "key-source-"
FOUND_IN_ITS_PLACE = (AlteredHow.CHANGED, AlteredHow.OLDER)
"""The kinds of alteration after which the row is still there, and can be checked again."""
WAYS_OUT: Mapping[str, str] = {
    "host-key-changed": "Confirm the host key, if its own screen shows the same one.",
    report_events.REFUSED_CODE: "Paste the installation line there again.",
    report_events.FAILED_CODE: "Mend there what is in the way; the host tries again by itself.",
    "audit-log-rewritten": "Find out whether somebody restored a backup. If so, delete checkpoint.json there.",
    "enforcing-undone": "Mend there what the host says, then enforce again.",
    "machine-copied": "Enrol one of the two machines anew, or say that the copy is gone.",
    "database-went-back": "Decide what stays refused there.",
    SEAL: "Find out who writes to the database. Then remove the row, enter it again, or seal it as it stands.",
    TABLES: "Drop what was put on the tables, or name it in known_triggers; it is looked at twice a minute.",
    "audit-broken": with_commands(
        "Find out who writes to the database; a check of the audit log names the first wrong record", "audit verify"
    ),
    break_glass.CODE: "End the login if nobody of yours is in, and ask whoever it was.",
}
"""What settles an alarm, by its code."""
OTHERWISE = "Find out what it was, then say here that it is settled."
MORE_ALARMS = (
    f"More than {rows.MAX_ALARMS:,} alarms were raised within a week: only the newest were looked at; the audit log "
    "has all of them."
)
MORE_HOSTS = (
    f"More than {rows.MAX_BEHIND:,} servers may have something wrong: only the first ones by name were looked at; the "
    "list of servers has all of them."
)
SOURCE_WAY_OUT = "Name the account that is theirs now, or stop taking keys from it."


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm, and whether it stands.

    code: the reason of its events; words: without "Alarm"; since: None where it was raised before KEPT; last_at: when
    it was raised last; event_id: its newest event, None where that was deleted; times: how often it was raised;
    server_id, user, row, session: what it is about, as far as it is about one; settled_at, settled_by: None and ""
    where it ended by itself.
    """

    code: str
    words: str
    since: datetime | None
    event_id: int | None = None
    times: int = 1
    server_id: int | None = None
    user: str = ""
    row: str = ""
    session: int | None = None
    last_at: datetime | None = None
    settled: bool = False
    settled_at: datetime | None = None
    settled_by: str = ""

    @property
    def way_out(self) -> str:
        """What settles it, in words."""
        return SOURCE_WAY_OUT if self.code.startswith(SOURCE) else WAYS_OUT.get(self.code, OTHERWISE)

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands in its words that settle it."""
        return commands(self.words)

    @property
    def is_for_people(self) -> bool:
        """Whether only somebody's word settles it."""
        return not (self.code in troubles.CODES or self.code == TABLES or self.code.startswith(SOURCE))


@dataclass(frozen=True, slots=True)
class Alarms:
    """The alarms of a workspace.

    standing: newest first; settled: those raised or settled within LATELY; saying: hosts that report a problem, by id
    and name, each with its first problem in words; more_alarms, more_hosts: whether there are more than were looked at.
    """

    standing: tuple[Alarm, ...]
    settled: tuple[Alarm, ...]
    saying: tuple[tuple[int, str, str], ...]
    more_alarms: bool = False
    more_hosts: bool = False

    @property
    def bounds(self) -> tuple[str, ...]:
        """Sentences about what was not looked at."""
        return tuple(words for words, cut in ((MORE_ALARMS, self.more_alarms), (MORE_HOSTS, self.more_hosts)) if cut)


def of_workspace(instance: Instance, connection: Connection, workspace_id: int) -> Alarms:
    """The alarms of a workspace."""
    now = instance.now()
    raised, is_cut = _raised(connection, workspace_id, now)
    newest = {(row.reason, row.server_id): row for row in reversed(raised)}
    wrong = troubles.find(instance, connection, workspace_id)
    standing = [_of_host(one, newest.get((one.code, one.server.id))) for one in wrong.alarms]
    standing += _of_sources(connection, workspace_id, raised)
    others = _alarms_of_events(raised, _Current(instance, connection, workspace_id, wrong))
    settled = [one for one in others if one.settled and (one.settled_at or one.last_at or now) > now - LATELY]
    standing += [one for one in others if not one.settled]
    standing.sort(key=lambda one: one.since or now - KEPT, reverse=True)
    saying = tuple((server.id, server.name, words) for server, words in wrong.saying)
    return Alarms(tuple(standing), tuple(settled), saying, more_alarms=is_cut, more_hosts=wrong.is_cut)


def find(instance: Instance, actor: Actor) -> Alarms:
    """The alarms of the actor's workspace. Raises Refusal FORBIDDEN."""
    with Attempt(instance, actor, "events:read", "see alarms", target_kind="event") as attempt:
        return attempt.read(lambda connection: of_workspace(instance, connection, actor.workspace_id))


def get(instance: Instance, actor: Actor, event_id: int) -> Alarm:
    """The alarm that an event is about, as it stands. Raises Refusal MISSING for none, or one older than KEPT."""
    with Attempt(instance, actor, "events:read", "see an alarm", target_kind="event", target_id=event_id) as attempt:
        return attempt.read(lambda connection: _alarm_of_event(instance, connection, actor.workspace_id, event_id))


def may_settle(instance: Instance, actor: Actor, event_id: int) -> None:
    """Raises Refusal where the actor may not settle this alarm, as settle() does, except TAKEN."""
    with _settling(instance, actor, event_id) as attempt:
        attempt.read(lambda connection: _alarm_of_event(instance, connection, actor.workspace_id, event_id))


def settle(instance: Instance, actor: Actor, event_id: int) -> Alarm:
    """Settle an alarm for everybody; the same words raised later are an alarm again.

    Raises Refusal MISSING, or TAKEN for an alarm that ends once what it is about is settled.
    """
    with _settling(instance, actor, event_id) as attempt:

        def change(work: Work) -> Alarm:
            alarm = _alarm_of_event(work.instance, work.connection, work.actor.workspace_id, event_id)
            if not alarm.is_for_people:
                words = f"This alarm ends once what it is about is settled. {alarm.way_out}"
                raise Refusal(Kind.TAKEN, "alarm-stands", words)
            if alarm.settled:
                work.no_event("it is settled already")
                return alarm
            work.record(
                f"Settled the alarm: {alarm.words}",
                target_kind=ALARM,
                target_id=alarm.event_id,
                server_id=alarm.server_id,
                level="alarm",
            )
            return _alarm_of_event(work.instance, work.connection, work.actor.workspace_id, event_id)

        return attempt.write(change)


def _raised(connection: Connection, workspace_id: int, now: datetime) -> tuple[list[Row], bool]:
    """The alarms of the last KEPT that are looked at, and whether there are more."""
    raised = rows.alarms(connection, workspace_id, now - KEPT)
    return raised[: rows.MAX_ALARMS], len(raised) > rows.MAX_ALARMS


def _settling(instance: Instance, actor: Actor, event_id: int) -> Attempt:
    return Attempt(instance, actor, "servers:write", "settle an alarm", target_kind="event", target_id=event_id)


def _alarm_of_event(instance: Instance, connection: Connection, workspace_id: int, event_id: int) -> Alarm:
    raised, _ = _raised(connection, workspace_id, instance.now())
    named = next((row for row in raised if row.id == event_id and row.target_kind != ALARM), None)
    if named is None:
        raise missing("alarm")
    alike = [row for row in raised if row.target_kind == ALARM or _alike(row) == _alike(named)]
    return _alarms_of_events(alike, _Current(instance, connection, workspace_id), by_state=True)[0]


def _of_host(trouble: troubles.Trouble, event: Row | None) -> Alarm:
    since = trouble.since or (None if event is None else event.at)
    event_id = None if event is None else event.id
    return Alarm(trouble.code, trouble.words, since, event_id, server_id=trouble.server.id)


def _of_sources(connection: Connection, workspace_id: int, raised: Iterable[Row]) -> list[Alarm]:
    events = {row.target_id: row for row in raised if row.reason.startswith(SOURCE)}
    alarms = []
    for source in rows.failing_sources(connection, workspace_id, SOURCE_STATES):
        event = events.get(source.id)
        words = f"keys of {source.user} are no longer kept in step: {source.words}"
        since = source.checked_at if event is None else event.at
        event_id = None if event is None else event.id
        alarms.append(Alarm(f"{SOURCE}{source.state}", words, since, event_id, user=source.user))
    return alarms


def _alike(row: Row) -> tuple[object, ...]:
    """Events with the same value raise the same alarm again."""
    if named := (row.details or {}).get("row"):
        return row.reason, named
    return row.reason, row.server_id, row.target_id if row.reason.startswith(SOURCE) else row.summary


def _alarms_of_events(raised: Iterable[Row], current: _Current, *, by_state: bool = False) -> list[Alarm]:
    """The alarms that events raise, each once, newest first.

    by_state: include alarms that stand as long as a record says so; otherwise only those of them that are over.
    """
    settlements: dict[int, Row] = {}
    by_alarm: dict[tuple[object, ...], list[Row]] = {}
    for row in raised:
        if row.target_kind == ALARM:
            settlements.setdefault(row.target_id, row)
        else:
            by_alarm.setdefault(_alike(row), []).append(row)
    alarms = []
    for events in by_alarm.values():
        newest = events[0]
        settlement = next((settlements[row.id] for row in events if row.id in settlements), None)
        if settlement is not None and settlement.id < newest.id:
            settlement = None  # it was raised again
        details = newest.details or {}
        alarm = Alarm(
            code=newest.reason,
            words=newest.summary.removeprefix("Alarm: "),
            since=events[-1].at,
            event_id=newest.id,
            times=len(events),
            server_id=newest.server_id,
            user=current.user(newest),
            row=str(details.get("row") or ""),
            session=details.get("session"),
            last_at=newest.at,
            settled_at=None if settlement is None else settlement.at,
            settled_by="" if settlement is None else settlement.actor_name,
        )
        stands = settlement is None and current.stands(newest)
        if stands and not alarm.is_for_people and newest.reason != TABLES and not by_state:
            continue
        alarms.append(replace(alarm, settled=not stands))
    return alarms


class _Current:
    """Whether what an alarm is about is still as the alarm says; asks the database once for each kind."""

    def __init__(
        self,
        instance: Instance,
        connection: Connection,
        workspace_id: int,
        wrong: troubles.Troubles | None = None,
    ) -> None:
        self._instance, self._connection, self._workspace = instance, connection, workspace_id
        self._wrong = wrong
        self._sources: dict[int, Row] | None = None

    def stands(self, row: Row) -> bool:
        if row.reason in troubles.CODES:
            return any((one.code, one.server.id) == (row.reason, row.server_id) for one in self._of_hosts())
        if row.reason.startswith(SOURCE):
            source = self._of_users().get(row.target_id)
            return source is not None and f"{SOURCE}{source.state}" == row.reason
        if row.reason == TABLES:
            return bool(schema_check.on_tables(self._instance, self._connection))
        details = row.details or {}
        if row.reason == SEAL and details.get("row") and details.get("found") in FOUND_IN_ITS_PLACE:
            return damaged_rows.is_damaged(self._connection, self._workspace, details["row"])
        return True

    def user(self, row: Row) -> str:
        """The user whose keys an alarm is about, "" for alarms that are not about a key source which still fails."""
        source = self._of_users().get(row.target_id) if row.reason.startswith(SOURCE) else None
        return "" if source is None else str(source.user)

    def _of_hosts(self) -> tuple[troubles.Trouble, ...]:
        if self._wrong is None:
            self._wrong = troubles.find(self._instance, self._connection, self._workspace)
        return self._wrong.alarms

    def _of_users(self) -> dict[int, Row]:
        if self._sources is None:
            failing = rows.failing_sources(self._connection, self._workspace, SOURCE_STATES)
            self._sources = {row.id: row for row in failing}
        return self._sources
