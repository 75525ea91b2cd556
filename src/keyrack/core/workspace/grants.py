"""Compares a workspace file's grants with the workspace; must change nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from keyrack.core.hosts import servers
from keyrack.core.keys import grants
from keyrack.core.workspace.changes import Comparison, Execution, refuse_unknown
from keyrack.core.workspace.faults import wrong
from keyrack.core.workspace.wanted import WantedGrant
from keyrack.model import Grant, has_ended


def compare_grants(comparison: Comparison) -> None:
    """Plan what brings the grants to what the file says."""
    name = _Names(comparison)
    by_key: dict[_Key, list[Grant]] = {}
    for grant in comparison.state.grants:
        if not has_ended(grant.expires_at, comparison.at):
            by_key.setdefault(name.of(grant), []).append(grant)
    damaged: dict[_Key, list[Grant]] = {}
    for grant in comparison.state.damaged_grants:
        damaged.setdefault(name.of(grant), []).append(grant)
    wanted_by_key: dict[_Key, list[WantedGrant]] = {}
    ended: set[_Key] = set()
    for wanted in comparison.wanted.grants:
        with comparison.faults.noted():
            name.refuse_unknown(wanted)
        if has_ended(wanted.expires_at, comparison.at):
            ended.add(_key(wanted))  # where such a grant is in force, it is removed below
            continue
        wanted_by_key.setdefault(_key(wanted), []).append(wanted)
    for key, several in wanted_by_key.items():
        _compare_one_login(comparison, several, by_key.get(key, []))
        for grant in damaged.pop(key, ()):
            comparison.do(f"remove the damaged row of {several[0].words}", _taking_back(grant))
    for key, same in by_key.items():
        if key not in wanted_by_key and (key in ended or key[0] in name.subjects or key[1] in name.places):
            for grant in same:
                comparison.remove(f"take back the login of {key[0]} as {key[2]} on {key[1]}", _taking_back(grant))


_Key = tuple[str, str, str]


def _key(wanted: WantedGrant) -> _Key:
    who = f"user {wanted.user}" if wanted.user is not None else f"group {wanted.group}"
    where = f"server {wanted.server}" if wanted.server is not None else f"tag {wanted.tag}"
    return who, "all servers" if wanted.all else where, wanted.system_user


class _Names:
    """The users, groups, servers and tags of grants by the file's names, and which of them the file declares."""

    def __init__(self, comparison: Comparison) -> None:
        wanted, state = comparison.wanted, comparison.state
        self._users = {user.id: name for name, user in state.users.items()}
        self._groups = {number: name for name, number in state.groups.items()}
        self._servers = {server.id: server.name for server in state.servers.values()}
        self._servers |= {server.id: name for name, server in comparison.matched.items()}
        self.subjects = {f"user {user.name}" for user in wanted.users}
        self.subjects |= {f"group {group.name}" for group in wanted.groups}
        self.places = {f"server {server.name}" for server in wanted.servers}
        self.places |= {f"tag {tag}" for server in wanted.servers for tag in server.tags}
        self._known_users = set(state.users) | {user.name for user in wanted.users}
        self._known_groups = set(state.groups) | {group.name for group in wanted.groups}
        # The accounts of each server and of each tag once the plan is carried out.
        self._at: dict[str, set[str]] = {}
        self._twice: set[str] = set()
        self._tags_to_come = set(wanted.tags)
        moved = {server.id for server in comparison.matched.values()}
        for server in state.servers.values():
            if server.id not in moved:
                self._note(server.name, server.tags, server.accounts)
        for one in wanted.servers:
            known = comparison.matched.get(one.name)
            accounts = known.accounts if known else set(servers.FIRST_SYSTEM_USERS)
            tags = set() if known is None or comparison.prune else known.tags
            self._note(one.name, tags | set(one.tags), accounts | set(one.accounts))

    def _note(self, name: str, tags: Iterable[str], accounts: set[str]) -> None:
        if f"server {name}" in self._at:
            self._twice.add(name)
        for place in (f"server {name}", *(f"tag {tag}" for tag in tags)):
            self._at.setdefault(place, set()).update(accounts)

    def of(self, grant: Grant) -> _Key:
        """Who, where, and as which account."""
        if grant.user_id is not None:
            who = f"user {self._users.get(grant.user_id, '?')}"
        else:
            who = f"group {self._groups.get(grant.group_id or 0, '?')}"
        where = f"tag {grant.tag}" if grant.tag else f"server {self._servers.get(grant.server_id or 0, '?')}"
        if grant.all_servers:
            where = "all servers"
        return who, where, grant.system_user

    def refuse_unknown(self, wanted: WantedGrant) -> None:
        """Refuse a grant whose user, group, server, tag or account nobody has."""
        if wanted.user is not None:
            refuse_unknown(wanted.place, "user", () if wanted.user in self._known_users else (wanted.user,))
        if wanted.group is not None:
            refuse_unknown(wanted.place, "group", () if wanted.group in self._known_groups else (wanted.group,))
        if wanted.all or wanted.tag in self._tags_to_come:
            return  # it is also for future servers, whose accounts nobody knows
        place = f"server {wanted.server}" if wanted.server is not None else f"tag {wanted.tag}"
        if place not in self._at:
            refuse_unknown(wanted.place, place.partition(" ")[0], (place.partition(" ")[2],))
        if wanted.server in self._twice:
            raise wrong(wanted.place, f"several servers are called {wanted.server!r}; declare the one that is meant")
        if wanted.system_user not in self._at[place]:
            raise wrong(
                wanted.place,
                f"no server that it is for has the account {wanted.system_user!r}; name it in system_users",
            )


def _compare_one_login(comparison: Comparison, wanted: list[WantedGrant], known: list[Grant]) -> None:
    """Plan what brings the grants of one subject, place and account to those of the file."""
    others = list(known)
    new = []
    # Entries with a reason first, as one without matches any grant that is left.
    for one in sorted(wanted, key=lambda one: one.reason is None):
        same = [grant for grant in others if _terms_of(comparison, grant, one) == _terms(comparison, one)]
        if not same:
            new.append(one)
            continue
        reason = one.reason if one.reason is not None else min((grant.reason or "") for grant in same)
        # Equal grants open no more than one of them, so it does not matter which one is taken back.
        others = [grant for grant in others if grant not in same or (grant.reason or "") != reason]
    for one in new:
        end = "" if one.expires_at is None else f" until {one.expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        limits = f" with {', '.join(sorted(one.restrictions))}" if one.restrictions else ""
        words = "change the login of" if others else "let in"
        comparison.do(f"{words} {one.words}{end}{limits}", lambda execution, one=one: _give(execution, one))  # type: ignore[misc]
    for old in others:
        if new:
            # The new grant comes first in the plan, so that the keys never leave the host.
            comparison.do(f"end the former terms of {wanted[0].words}", _taking_back(old))
        else:
            comparison.remove(f"take back another login of {wanted[0].words}, on other terms", _taking_back(old))


_Terms = tuple[datetime | None, datetime | None, dict[str, object], str | None, bool]


def _terms(comparison: Comparison, wanted: WantedGrant) -> _Terms:
    """The terms that are compared: a start in the past is none, and an unnamed reason does not count."""
    start = None if wanted.starts_at is None or wanted.starts_at <= comparison.at else wanted.starts_at
    return start, wanted.expires_at, dict(wanted.restrictions), wanted.reason, wanted.break_glass


def _terms_of(comparison: Comparison, grant: Grant, wanted: WantedGrant) -> _Terms:
    start = None if grant.has_begun(comparison.at) else grant.starts_at
    reason = None if wanted.reason is None else grant.reason
    return start, grant.expires_at, dict(grant.restrictions), reason, bool(grant.break_glass)


def _give(execution: Execution, wanted: WantedGrant) -> None:
    grants.give(
        execution.instance,
        execution.actor,
        user_id=None if wanted.user is None else execution.users[wanted.user].id,
        group_id=None if wanted.group is None else execution.groups[wanted.group],
        server_id=None if wanted.server is None else execution.servers[wanted.server],
        tag=wanted.tag,
        all_servers=wanted.all,
        system_user=wanted.system_user,
        starts_at=wanted.starts_at,
        expires_at=wanted.expires_at,
        restrictions=wanted.restrictions,
        reason=wanted.reason,
        break_glass=wanted.break_glass,
    )


def _taking_back(grant: Grant) -> Callable[[Execution], object]:
    return lambda execution: grants.take_back(execution.instance, execution.actor, grant.id)
