"""A workspace as one that has been used for months: people, hosts, keys, alarms, long names; checks nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Connection, update

from keyrack.core.audit import alarms, webhooks
from keyrack.core.audit.tallies import Tallies
from keyrack.core.git import deploy_keys, repositories
from keyrack.core.hosts import documents, enrolment, modes, reports, servers, system_users
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, freezes, grants, requests, revocation, user_keys
from keyrack.core.people import access_keys, actors, api_tokens, groups, offboarding, users
from keyrack.errors import Refusal
from keyrack.model import OBSERVE, Actor, Role, Server, User
from keyrack.protocol.report import ReportedKey
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.hosts import held_back
from keyrack.store.hosts import servers as server_rows
from keyrack.store.hosts.reported_facts import LAST_RUN
from keyrack.store.tables.hosts import ROLLED_BACK_AT
from tests.core.keys_for_tests import fresh_line

NAMES = Path(__file__).parents[1] / "data" / "names.jsonl"
FIRST = (
    "alice",
    "bob",
    "carol",
    "david",
    "erin",
    "frank",
    "grace",
    "heidi",
    "ivan",
    "judy",
    "karl",
    "lena",
    "mona",
    "nils",
    "omar",
    "petra",
    "quentin",
    "rosa",
    "sven",
    "tanja",
    "ursula",
    "viktor",
    "wanda",
    "xavier",
    "yara",
    "zoe",
    "anton",
    "britta",
    "clemens",
    "doris",
    "emil",
    "frieda",
    "gustav",
    "hanna",
)
PLACES = ("fra", "ams", "sin")
KINDS = ("web", "db", "cache", "build", "mail", "edge")
SYSTEMS = (("debian", "12"), ("ubuntu", "24.04"), ("debian", "13"), ("almalinux", "9"))

# What an agent says that enforcing would change on a Debian, beyond keys.
_WANTED = (
    "AuthorizedKeysFile /var/lib/keyrack/keys/%u",
    "RevokedKeys /var/lib/keyrack/revoked_keys",
    "ExposeAuthInfo yes",
    "AuthorizedKeysCommand /usr/bin/true",
    "AuthorizedKeysCommandUser nobody",
    "AuthorizedPrincipalsCommand none",
    "AuthorizedPrincipalsFile none",
    "TrustedUserCAKeys none",
)
PLAN = {
    "Files": [
        "--- /etc/ssh/sshd_config.d/00-keyrack.conf",
        "+++ /etc/ssh/sshd_config.d/00-keyrack.conf",
        "@@ -1 +1,20 @@",
        "+# Written by Keyrack; changes here are lost. Ask Keyrack for a change, or: keyrack-agent uninstall",
        "+# true(1) names no key: sshd asks no other program, and its log says nothing of it, as it would of none.",
        *(f"+{line}" for line in _WANTED),
        "+Match all",
        *(f"+    {line}" for line in _WANTED),
    ],
    "What sshd would do otherwise": [
        "AuthorizedKeysFile: .ssh/authorized_keys .ssh/authorized_keys2 -> /var/lib/keyrack/keys/%u",
        "RevokedKeys: none -> /var/lib/keyrack/revoked_keys",
        "ExposeAuthInfo: no -> yes",
        "PasswordAuthentication stays on: whoever knows a password still logs in without a key",
    ],
    "Who could not log in with a key of Keyrack all the same": ["nobody: each key opens its account"],
}


class Workspace:
    """What is being made: its instance, its owner, and what there is so far."""

    def __init__(self, instance: Instance, owner: Actor) -> None:
        self.instance = instance
        self.owner = owner
        self.random = Random(20261126)
        self.people: list[User] = []
        self.hosts: list[tuple[Server, str]] = []
        self.lines: dict[int, list[str]] = {}


def make(instance: Instance, *, people: int = 40, hosts: int = 60) -> Workspace:
    """Fill the workspace acme: its owner is olga."""
    system = actors.system_actor()
    place = users.create_workspace(instance, system, "acme")
    keyrack = actors.system_actor(place.id)
    olga = users.create_user(instance, keyrack, name="olga", role=Role.OWNER, password="olga's password")
    owner = actors.of_user(olga, address="203.0.113.20", channel="console")
    made = Workspace(instance, owner)
    made.people.append(olga)
    _people(made, people)
    _hosts(made, hosts)
    _grants(made)
    _keys_of_hosts(made)
    _repositories(made)
    _tokens(made)
    _requests(made)
    _reports(made)
    _ended(made)
    _obey(made)
    _alarms(made)
    _tallies(made)
    return made


def corpus() -> list[str]:
    """Names in every script of the corpus, that a name may be."""
    records = [json.loads(line) for line in NAMES.read_text("utf-8").splitlines() if line.strip()]
    return [str(one["value"]) for one in records if one["field"] != "username" and one["must_be"] == "accepted"]


def _try(step: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """What a step makes; None where the core does not take it, as some names of the corpus."""
    try:
        return step(*args, **more)
    except Refusal:
        return None


def _people(made: Workspace, count: int) -> None:
    names = [*FIRST, "maximiliane-alexandra.von-und-zu-hohenlohe-waldenburg-schillingsfuerst", *corpus()]
    step = max(1, (len(names) - 20) // max(1, count - 20))
    chosen = dict.fromkeys([*names[:20], *names[20::step]])
    for number, name in enumerate(list(chosen)[:count]):
        role = {1: Role.ADMIN, 2: Role.AUDITOR}.get(number, Role.MEMBER)
        user = _try(users.create_user, made.instance, made.owner, name=name, role=role, policies=("codeartsrepo::*",))
        if user is not None:
            made.people.append(user)
    now, titles = made.instance.now(), ("laptop", "workstation", "yubikey")
    wanted = [(user, title) for number, user in enumerate(made.people) for title in titles[: 1 + number % 3]]
    # The oldest first, as the log of a workspace grows.
    for days in sorted(range(len(wanted)), key=lambda place: _age(place), reverse=True):
        user, title = wanted[days]
        then = replace(made.instance, now=_standing(now - timedelta(days=_age(days))))
        line = fresh_line(f"{user.name.split()[0][:20]}@{title}")
        key = _try(user_keys.add, then, made.owner, title=title, public_key=line, user_id=user.id)
        if key is not None:
            made.lines.setdefault(user.id, []).append(line)
    for name, members in (("ops", made.people[:6]), ("developers", made.people[4:22]), ("on-call", made.people[2:5])):
        groups.ensure(made.instance, made.owner, name=name, user_ids=[user.id for user in members])


def _standing(at: datetime) -> Callable[[], datetime]:
    """A clock that stands."""
    return lambda: at


def _age(place: int) -> int:
    """How many days ago a key was registered: half of them within a month."""
    return place * 7 % 30 if place % 2 else place * 37 % 800


def _hosts(made: Workspace, count: int) -> None:
    long_name = "db-primary-replica-with-a-very-long-name-for-billing-and-reporting.eu-central-1.internal.example.org"
    for number in range(count):
        kind, where = KINDS[number % len(KINDS)], PLACES[number % len(PLACES)]
        name = long_name if number == 7 else f"{kind}-{where}-{number + 1}"
        server = servers.create(
            made.instance, made.owner, name=name, address=f"10.{number % 3}.{number // 200}.{number + 10}",
            tags=(kind, where) if number % 5 else (kind, where, "production", "customer-data"), mode=OBSERVE,
        )  # fmt: skip
        for account in ("deploy",) if number % 3 else ("deploy", "postgres"):
            system_users.create(made.instance, made.owner, server.id, username=account)
        made.hosts.append((server, ""))


def _grants(made: Workspace) -> None:
    now = made.instance.now()
    group_ids = [groups.id_of(made.instance, made.owner, name) for name in ("ops", "developers", "on-call")]
    grants.give(made.instance, made.owner, group_id=group_ids[0], tag="production", system_user="root")
    grants.give(made.instance, made.owner, group_id=group_ids[1], tag="web", system_user="deploy")
    grants.give(
        made.instance, made.owner, group_id=group_ids[2], tag="db", system_user="postgres",
        expires_at=now + timedelta(hours=11),
    )  # fmt: skip
    for number, user in enumerate(made.people[8:20]):
        ends = None if number % 2 else now + timedelta(hours=6 * (number + 1))
        server = made.hosts[number % len(made.hosts)][0]
        _try(
            grants.give,
            made.instance,
            made.owner,
            user_id=user.id,
            server_id=server.id,
            system_user="deploy",
            expires_at=ends,
        )


def _keys_of_hosts(made: Workspace) -> None:
    for number, (server, _) in enumerate(made.hosts[::4]):
        ends = made.instance.now() + timedelta(hours=3 + number * 30) if number % 2 else None
        _try(
            credentials.add,
            made.instance,
            made.owner,
            server.id,
            label=f"deployment pipeline {number + 1}",
            username="deploy",
            public_key=fresh_line("ci"),
            expires_at=ends,
        )


def _repositories(made: Workspace) -> None:
    for path in ("platform/api", "platform/web", "infrastructure/terraform", "docs/handbook-of-the-whole-company"):
        members = {user.id: "developer" for user in made.people[1:9]}
        _try(repositories.ensure, made.instance, made.owner, path=path, members=members)
    first = repositories.find(made.instance, made.owner, search="platform/api").items[0]
    for title, can_push in (("mirror", False), ("release builds of the build server in Frankfurt", True)):
        deploy_keys.add(
            made.instance, made.owner, first.id, title=title, public_key=fresh_line(title), can_push=can_push
        )


def _tokens(made: Workspace) -> None:
    """Programs' tokens, one that ends soon, and access keys."""
    at = made.instance.now()
    for name, scopes, days in (
        ("deployments from the build server", ["credentials:*", "servers:read"], 90),
        ("inventory", ["servers:read"], None),
        ("audit export to the archive", ["events:read"], 2),
        ("everything, for the move to the new data centre in Frankfurt", ["*"], 30),
    ):
        end = None if days is None else at + timedelta(days=days)
        api_tokens.make(made.instance, made.owner, name=name, scopes=scopes, expires_at=end)
    for words in ("mirror of the repositories", ""):
        access_keys.create(made.instance, made.owner, description=words)


def _requests(made: Workspace) -> None:
    reasons = (
        "Deploy the fix for slow checkouts",
        "Restore a table for support",
        "Rotate certificates",
        "Read the logs",
    )
    for user, reason in zip(made.people[9:13], reasons, strict=True):
        who = actors.of_user(user, address="203.0.113.40", channel="console")
        server = made.hosts[user.id % len(made.hosts)][0]
        _try(
            requests.ask,
            made.instance,
            who,
            server=server.name,
            system_user="deploy",
            duration="2h",
            reason=reason,
        )


def _reports(made: Workspace) -> None:
    """Most hosts obey, some are silent, behind, observe, or have keys that nobody manages."""
    for number, (server, _) in enumerate(list(made.hosts)):
        if number % 11 == 10:
            continue  # waits for its host
        token = servers.invite(made.instance, made.owner, server.id)
        system = SYSTEMS[number % len(SYSTEMS)]
        facts = {"host": f"host-{number}", "os": system[0], "os_version": system[1], "agent_version": "0.2.0"}
        enrolled = _try(enrolment.enrol, made.instance, token, facts, address=f"198.51.100.{number % 250}")
        if enrolled is None:
            continue
        if number % 3 == 0:
            _try(modes.set_mode, made.instance, made.owner, server.id, "enforce")
        now = servers.get(made.instance, made.owner, server.id)
        behind = number % 13 == 5
        report: dict[str, Any] = {
            "revision": now.revision - (2 if behind else 0),
            "state": "applied",
            "facts": {
                "enforcement": "enforce" if number % 3 == 0 else "observe",
                "sshd": {"Port": "22"},
                "plan": {} if number % 3 == 0 else {"revision": now.revision, "sections": PLAN},
            },
            "sessions": _sessions(made, number),
            "last_used": _last_used(made, number),
            "keys_found": [],
        }
        if number % 6 == 1:
            report["keys_found"] = [_unmanaged(made, number, place) for place in range(1 + number % 3)]
        # What it tells of months is not counted as the logins of today, which _tallies makes.
        untold = replace(made.instance, tallies=Tallies())
        _try(reports.ingest, untold, now, report)
        made.hosts[number] = (servers.get(made.instance, made.owner, server.id), enrolled.secret)


def _obey(made: Workspace) -> None:
    """Most hosts have their newest document; a few have not."""
    for number, (server, secret) in enumerate(made.hosts):
        if secret and number % 13 not in (5, 12):
            now = servers.get(made.instance, made.owner, server.id)
            reports.ingest(made.instance, now, {"revision": now.revision, "state": "applied"})


def _last_used(made: Workspace, number: int) -> list[dict[str, str]]:
    """When some keys last logged in there."""
    used = []
    for place, person in enumerate(made.people[:24]):
        for line in made.lines.get(person.id, ())[: 1 + (number + place) % 2]:
            hours = 1 + (number * 7 + place * 31) % 700
            used.append(
                {
                    "fingerprint": parse(line).fingerprint,
                    "user": "deploy",
                    "address": f"203.0.113.{place}",
                    "at": f"{made.instance.now() - timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}",
                }
            )
    return used


def _ended(made: Workspace) -> None:
    """Somebody who left, and a key that was lost."""
    offboarding.offboard(made.instance, made.owner, made.people[6].name, reason="left the company")
    lost = parse(made.lines[made.people[5].id][0]).fingerprint
    revocation.revoke_everywhere(made.instance, made.owner, lost, reason="laptop lost on a train")
    freezes.freeze(made.instance, made.owner, user=made.people[8].name, reason="laptop left in a taxi")
    hook = webhooks.create(made.instance, made.owner, url="https://alerts.example.org/keyrack", level="alarm")
    for _ in range(3):
        webhooks.test(made.instance, made.owner, hook.webhook.id)


def _alarms(made: Workspace) -> None:
    """What a host told that nobody may do unnoticed: one of a short name, and one of a long one."""
    another, long = made.hosts[3][0], made.hosts[7][0]
    for _ in range(2):
        now = servers.get(made.instance, made.owner, another.id)
        reports.ingest(made.instance, now, {"host_keys": {"port": 22, "keys": [fresh_line()]}})
    key = parse(fresh_line("root")).fingerprint
    why = f"it was not signed by the key that it trusts, {key}"
    now = servers.get(made.instance, made.owner, long.id)
    reports.ingest(made.instance, now, {"revision": 1, "state": "refused", "problems": [why]})
    at = made.instance.now()
    copied, rolled_back, damaged = (made.hosts[place % len(made.hosts)][0] for place in (9, 6, 8))
    put = credentials.add(
        made.instance, made.owner, damaged.id, label="backup", username="root", public_key=fresh_line("backup")
    )
    rows = tables.credentials
    past_keyrack = update(rows).where(rows.c.id == put.id).values(label="other")

    def change(connection: Connection) -> None:
        machine = {"name": "shop-image", "address": "198.51.100.17"}
        facts = {**copied.facts, LAST_RUN: {**machine, "copy": {**machine, "address": "198.51.100.91"}}}
        server_rows.change(connection, copied.id, {"copied_at": at, "facts": facts})
        server_rows.change(connection, rolled_back.id, {ROLLED_BACK_AT: at, "compared_at": at})
        held_back.replace_all(connection, rolled_back.id, [_held(kind, at) for kind in ("line", "revoked", "lost")])
        connection.execute(past_keyrack)

    made.instance.database.write(change)
    documents.signed(made.instance, damaged.id)
    words = f"glass broken: {made.people[2].name} logged in as root on {damaged.name} from 203.0.113.7"
    alarms.raise_once(made.instance, damaged.id, "break-glass", words)


def _held(kind: str, at: datetime) -> dict[str, Any]:
    """What a host refused, or had, before its database went back."""
    line = fresh_line("laptop")
    of = {"kind": kind, "username": "" if kind == "revoked" else "deploy", "name": "laptop", "until": None}
    key = {"public_key": parse(line).canonical, "fingerprint": parse(line).fingerprint, "options": []}
    return {**of, **key, "since": at, "revision": 9, "decided_at": None}


def _tallies(made: Workspace) -> None:
    """A month of logins, fewer at weekends, and how long hosts took."""
    now = made.instance.now()
    for day in range(30):
        at = now - timedelta(days=day)
        made.instance.tallies.logins(made.owner.workspace_id, (9 if at.weekday() > 4 else 64) + day * 7 % 23, at)
        for number in range(40):
            seconds = 0.4 + number * number * day * 0.37
            made.instance.tallies.acknowledged(made.owner.workspace_id, seconds, at)
    made.instance.tallies.write(made.instance.database, now)


def _sessions(made: Workspace, number: int) -> list[dict[str, str]]:
    if number % 4:
        return []
    person = made.people[number % len(made.people)]
    lines = made.lines.get(person.id)
    if not lines:
        return []
    started = made.instance.now() - timedelta(minutes=7 * (number + 1))
    return [
        {
            "id": f"{number}-{number * 100 + 7}",
            "user": "deploy",
            "address": f"203.0.113.{number % 250}",
            "fingerprint": parse(lines[0]).fingerprint,
            "started_at": started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    ]


def _unmanaged(made: Workspace, number: int, place: int) -> dict[str, Any]:
    line = fresh_line(f"root@old-laptop-{number}")
    key = parse(line)
    return ReportedKey(
        username=("root", "deploy", "postgres")[place % 3],
        path=("/root/.ssh/authorized_keys", "/home/deploy/.ssh/authorized_keys", "/var/lib/postgresql/.ssh/keys")[
            place % 3
        ],
        kind="key",
        line=place + 1,
        type=key.type,
        fingerprint=key.fingerprint,
        key=line.rsplit(" ", 1)[0],
        comment=f"root@old-laptop-{number}",
    ).to_json()
