"""Counts and lists of what needs attention in a workspace; must change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Select,
    and_,
    case,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    type_coerce,
)

from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.hosts import server_states
from keyrack.store.hosts.server_states import HAS_HOST, IN_TROUBLE, STRANGE_HOST_KEY
from keyrack.store.tables import (
    IS_ALARM,
    IS_REFUSAL,
    credentials,
    events,
    key_sources,
    revocations,
    servers,
    system_users,
    unmanaged_keys,
    user_keys,
    users,
    webhook_deliveries,
    webhooks,
)

MAX = 20
"""How many of a kind are listed; a question reads one more, to tell that there are more."""
MAX_BEHIND = 1000
MAX_ALARMS = 1000
"""How many of the newest alarms are looked at; one more is read, to tell that there are more."""
NEWEST = 20_000
"""How many of the newest events are counted by day; older ones are not read."""


def alarms(connection: Connection, workspace_id: int, since: datetime) -> list[Row]:
    """Alarms since an instant, the newest first, at most MAX_ALARMS + 1: id, at, summary, actor_name, reason,
    server_id, target_kind, target_id, details.
    """
    return list(_alarms.rows(connection, workspace_id, since))


@prepared
def _alarms(workspace_id: int, since: datetime) -> Select[Any]:
    of = (events.c.id, events.c.at, events.c.summary, events.c.actor_name, events.c.reason, events.c.server_id)
    statement = select(*of, events.c.target_kind, events.c.target_id, events.c.details)
    statement = statement.where(events.c.workspace_id == workspace_id, text(IS_ALARM), events.c.at >= since)
    return statement.order_by(events.c.id.desc()).limit(MAX_ALARMS + 1)


def troubled(connection: Connection, workspace_id: int) -> list[int]:
    """The ids of servers whose hosts may have problems, by name, at most MAX_BEHIND + 1; each host's record tells
    whether it has.
    """
    return [row.id for row in _troubled.rows(connection, workspace_id)]


@prepared
def _troubled(workspace_id: int) -> Select[Any]:
    wanted = or_(IN_TROUBLE, STRANGE_HOST_KEY)
    statement = select(servers.c.id).where(servers.c.workspace_id == workspace_id, wanted)
    return statement.order_by(servers.c.name).limit(MAX_BEHIND + 1)


def failing_sources(connection: Connection, workspace_id: int, states: Sequence[str]) -> list[Row]:
    """Key sources in one of these states, of users who are not disabled, by the user's name, at most MAX_BEHIND: id,
    state, words, checked_at, user.
    """
    return list(_failing_sources.rows(connection, workspace_id, states))


@prepared
def _failing_sources(workspace_id: int, states: Sequence[str]) -> Select[Any]:
    statement = select(
        key_sources.c.id, key_sources.c.state, key_sources.c.words, key_sources.c.checked_at, users.c.name.label("user")
    )
    statement = statement.join(users, users.c.id == key_sources.c.user_id).where(
        key_sources.c.workspace_id == workspace_id, users.c.disabled_at.is_(None), among(key_sources.c.state, states)
    )
    return statement.order_by(users.c.name, key_sources.c.id).limit(MAX_BEHIND)


def failing_webhooks(connection: Connection, workspace_id: int) -> list[Row]:
    """Webhooks with failed deliveries after which none was delivered: id, url, since (when the first of them was
    queued), waiting (how many they are).
    """
    return list(_failing_webhooks.rows(connection, workspace_id))


@prepared
def _failing_webhooks(workspace_id: int) -> Select[Any]:
    sent, later = webhook_deliveries, webhook_deliveries.alias()
    taken = exists().where(
        later.c.webhook_id == sent.c.webhook_id, later.c.id > sent.c.id, later.c.state == "delivered"
    )
    in_vain = and_(sent.c.state != "delivered", sent.c.attempts > 0)
    statement = select(
        webhooks.c.id, webhooks.c.url, func.min(sent.c.created_at).label("since"), func.count().label("waiting")
    ).join(webhooks, webhooks.c.id == sent.c.webhook_id)
    statement = statement.where(webhooks.c.workspace_id == workspace_id, webhooks.c.active.is_(True), in_vain, ~taken)
    return statement.group_by(webhooks.c.id, webhooks.c.url).order_by(webhooks.c.id)


def silent(connection: Connection, workspace_id: int, since: datetime) -> list[Row]:
    """Enrolled hosts that were not heard of since an instant, the longest silent first, at most MAX_BEHIND: id, name,
    seen_at, hosts (how many there are in all).
    """
    return list(_silent.rows(connection, workspace_id, since))


@prepared
def _silent(workspace_id: int, since: datetime) -> Select[Any]:
    wanted = (
        servers.c.workspace_id == workspace_id,
        servers.c.enrolled_at.is_not(None),
        or_(servers.c.seen_at.is_(None), servers.c.seen_at < since),
    )
    of = (servers.c.id, servers.c.name, servers.c.seen_at, func.count().over().label("hosts"))
    return select(*of).where(*wanted).order_by(servers.c.seen_at).limit(MAX_BEHIND)


def behind(connection: Connection, workspace_id: int) -> list[Row]:
    """Enrolled hosts that do not obey their newest document, by name, at most MAX_BEHIND: id, name, revision,
    applied_revision, hosts (how many there are in all).
    """
    return list(_behind.rows(connection, workspace_id))


@prepared
def _behind(workspace_id: int) -> Select[Any]:
    known = (servers.c.id, servers.c.name, servers.c.revision, servers.c.applied_revision)
    of = (*known, func.count().over().label("hosts"))
    wanted = (servers.c.workspace_id == workspace_id, server_states.CONDITIONS[server_states.BEHIND])
    return select(*of).where(*wanted).order_by(servers.c.name).limit(MAX_BEHIND)


def count_behind(connection: Connection) -> int:
    """How many enrolled hosts of all workspaces do not obey their newest revision yet."""
    return int(_count_behind.value(connection))


@prepared
def _count_behind() -> Select[Any]:
    return select(func.count()).where(server_states.CONDITIONS[server_states.BEHIND])


def ending(connection: Connection, workspace_id: int, now: datetime, until: datetime) -> list[Row]:
    """Credentials that end after `now` and up to `until`, the soonest first, at most MAX + 1: id, label, fingerprint,
    expires_at, server_id, name (the server's), username.
    """
    return list(_ending.rows(connection, workspace_id, now, until))


@prepared
def _ending(workspace_id: int, now: datetime, until: datetime) -> Select[Any]:
    of = (credentials.c.id, credentials.c.label, credentials.c.fingerprint, credentials.c.expires_at, servers.c.name)
    statement = (
        select(*of, servers.c.id.label("server_id"), system_users.c.username)
        .join(system_users, system_users.c.id == credentials.c.system_user_id)
        .join(servers, servers.c.id == credentials.c.server_id)
        .where(
            servers.c.workspace_id == workspace_id,
            and_(credentials.c.expires_at > now, credentials.c.expires_at <= until),
        )
    )
    return statement.order_by(credentials.c.expires_at).limit(MAX + 1)


def ending_keys(connection: Connection, workspace_id: int, now: datetime, until: datetime) -> list[Row]:
    """The same for keys of users who are not disabled: title, fingerprint, expires_at, user."""
    return list(_ending_keys.rows(connection, workspace_id, now, until))


@prepared
def _ending_keys(workspace_id: int, now: datetime, until: datetime) -> Select[Any]:
    statement = select(user_keys.c.title, user_keys.c.fingerprint, user_keys.c.expires_at, users.c.name.label("user"))
    statement = statement.join(users, users.c.id == user_keys.c.user_id).where(
        user_keys.c.workspace_id == workspace_id,
        users.c.disabled_at.is_(None),
        and_(user_keys.c.expires_at > now, user_keys.c.expires_at <= until),
    )
    return statement.order_by(user_keys.c.expires_at).limit(MAX + 1)


def unacknowledged(connection: Connection, workspace_id: int) -> list[Row]:
    """Revoked keys that not all hosts have acknowledged, those of most hosts first, at most MAX + 1: fingerprint, hosts
    (how many have not).
    """
    return list(_unacknowledged.rows(connection, workspace_id))


@prepared
def _unacknowledged(workspace_id: int) -> Select[Any]:
    statement = (
        select(revocations.c.fingerprint, func.count().label("hosts"))
        .join(servers, servers.c.id == revocations.c.server_id)
        .where(servers.c.workspace_id == workspace_id, HAS_HOST, revocations.c.acknowledged_at.is_(None))
    )
    return statement.group_by(revocations.c.fingerprint).order_by(func.count().desc()).limit(MAX + 1)


def unmanaged(connection: Connection, workspace_id: int) -> list[Row]:
    """Hosts with unmanaged keys that wait for a decision, those with the most first, at most MAX_BEHIND: server_id,
    name, keys (how many), hosts and all_keys (how many there are in all).
    """
    return list(_unmanaged.rows(connection, workspace_id))


@prepared
def _unmanaged(workspace_id: int) -> Select[Any]:
    statement = (
        select(
            servers.c.id.label("server_id"),
            servers.c.name,
            func.count().label("keys"),
            func.count().over().label("hosts"),
            cast(func.sum(func.count()).over(), BigInteger).label("all_keys"),
        )
        .join(servers, servers.c.id == unmanaged_keys.c.server_id)
        .where(servers.c.workspace_id == workspace_id, unmanaged_keys.c.state == "new")
    )
    return statement.group_by(servers.c.id, servers.c.name).order_by(func.count().desc()).limit(MAX_BEHIND)


def keys_by_type_and_age(connection: Connection, workspace_id: int, ages: Sequence[datetime]) -> list[Row]:
    """How many users' keys there are of each type and age, by one question: key_type, age, keys.

    ages: four instants, the newest first; age: how many of these instants are later than the key's registration.
    """
    return list(_keys_by_type_and_age.rows(connection, workspace_id, *ages))


@prepared
def _keys_by_type_and_age(
    workspace_id: int, first: datetime, second: datetime, third: datetime, fourth: datetime
) -> Select[Any]:
    instants = enumerate((first, second, third, fourth))
    age = case(
        *((user_keys.c.created_at >= at, literal_column(str(number))) for number, at in instants),
        else_=literal_column("4"),
    )
    statement = select(user_keys.c.key_type, age.label("age"), func.count().label("keys")).where(
        user_keys.c.workspace_id == workspace_id, user_keys.c.key_type.is_not(None)
    )
    return statement.group_by(user_keys.c.key_type, literal_column("age"))


def offline_policies(connection: Connection, workspace_id: int) -> list[Row]:
    """How many servers have which setting for hosts that cannot reach Keyrack, the most first: after_seconds, then,
    hosts.
    """
    return list(_offline_policies.rows(connection, workspace_id))


@prepared
def _offline_policies(workspace_id: int) -> Select[Any]:
    after, then = servers.c.offline_after_seconds.label("after_seconds"), servers.c.offline_then.label("then")
    statement = select(after, then, func.count().label("hosts")).where(servers.c.workspace_id == workspace_id)
    return statement.group_by(servers.c.offline_after_seconds, servers.c.offline_then).order_by(func.count().desc())


def by_day(connection: Connection, workspace_id: int, since: datetime) -> list[Row]:
    """How many of the newest NEWEST events are from each day since an instant: day, done, refused, number.

    day: days since 1970, in UTC; done, refused: by outcome; number: of all events of the day.
    """
    return list(_by_day.rows(connection, workspace_id, since))


@prepared
def _by_day(workspace_id: int, since: datetime) -> Select[Any]:
    newest = (
        select(events.c.at, events.c.outcome, events.c.level)
        .where(events.c.workspace_id == workspace_id)
        .order_by(events.c.id.desc())
        .limit(literal_column(str(NEWEST)))
        .subquery()
    )
    day = type_coerce(newest.c.at, BigInteger) // literal_column("86400000000", BigInteger)
    done, refused = func.count(case((newest.c.outcome == "done", 1))), func.count(case((text(IS_REFUSAL), 1)))
    counted: list[Any] = [day.label("day"), done.label("done"), refused.label("refused"), func.count().label("number")]
    return select(*counted).where(newest.c.at >= since).group_by(literal_column("day"))
