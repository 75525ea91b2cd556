"""`keyrack export`: after any operations, by whichever way, a new instance that applies it lets in the very same."""

from __future__ import annotations

import os
import random
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from keyrack import app
from keyrack.cli.connection.opened import workspaces
from keyrack.core.git import deploy_keys, repositories
from keyrack.core.hosts import host_keys
from keyrack.core.instance import Instance
from keyrack.core.keys import key_policy, revocation, user_keys, who_can
from keyrack.core.people import actors
from keyrack.core.workspace import apply as workspace_apply
from keyrack.core.workspace import export as workspace_export
from keyrack.errors import Refusal
from keyrack.ssh.public_key import parse
from keyrack.store.hosts import servers
from tests.cli.test_over_http import good, home, log_in, run
from tests.core.keys_for_tests import fresh_line, records
from tests.services import TEAM, Service, settings_for

__all__ = ["home"]

OPERATIONS = 200 if os.environ.get("KEYRACK_LONG") else 25
PEOPLE = ("alice", "bob", "mallory", "bot")
GROUPS = ("ops", "dev")
TAGS = ("web", "db", "eu")
ACCOUNTS = ("deploy", "root")
YEAR = datetime.now(UTC).year
API = "/api/keyrack/v1"

Ways = set[tuple[Any, ...]]


def matrix(instance: Instance) -> Ways:
    """Who can log in where in acme, with which key, how and until when."""
    actor = actors.system_actor(1)

    def question(connection: Any) -> Ways:
        found: Ways = set()
        for server in servers.find(connection, 1, search="", offset=0, limit=1000).items:
            into = who_can.into(instance, connection, [server])[0]
            for way in who_can.ways_of(connection, actor, into, who_can.names_of(connection, actor, into)):
                of = way.reason.credential or way.reason.grant
                assert of is not None
                found.add(
                    (
                        *(server.id, server.name, server.address, way.reason.username, way.reason.fingerprint),
                        *(way.kind, way.user, way.group, way.reason.options, way.reason.expires_at),
                        way.reason.credential and way.reason.name,
                        way.reason.grant and way.reason.grant.reason,
                        way.reason.break_glass,
                    )
                )
        return found

    return instance.database.read(question)


class Operations:
    """Changes drawn by lot, through the API, the command line there and on the data, and a file that is applied."""

    def __init__(self, team: Service, folder: Path, seed: int) -> None:
        self.team = team
        self.folder = folder
        self.lot = random.Random(seed)
        settings = team.instance.settings
        self.where = ("--data", str(settings.data), "--workspace", "acme")
        self.done = 0
        self.made = 0

    def api(self, method: str, path: str, body: Any = None, *, token: str = "token-of-olga") -> bool:
        """One call; whether it was taken."""
        return self.team.call(method, API + path, token=token, json=body).status_code < 300

    def command(self, *words: str) -> bool:
        """One command, over the API or on the data; whether it was taken."""
        where = self.where if self.lot.random() < 0.4 else ()
        ended = run(*words, *where)
        assert ended.exit_code in (0, 1), ended.output
        return ended.exit_code == 0

    def ids(self, path: str) -> list[int]:
        """The ids in a list."""
        return [one["id"] for one in self.team.call("GET", API + path, token="token-of-olga").json()["items"]]

    def who(self) -> tuple[str, str]:
        """A user or a group."""
        kind = self.lot.choice(("user", "group"))
        return kind, self.lot.choice(PEOPLE if kind == "user" else GROUPS)

    def where_to(self) -> tuple[str, str]:
        """A server or a tag, which no server may have yet."""
        kind = self.lot.choice(("server", "tag"))
        return kind, str(self.lot.choice(self.ids("/servers"))) if kind == "server" else self.lot.choice(TAGS)

    def give(self) -> bool:
        """A grant, with or without its terms."""
        who, where, account = self.who(), self.where_to(), self.lot.choice(ACCOUNTS)
        later = self.lot.choice(("", f"{YEAR + 3}-05-01T10:00:00Z"))
        if self.lot.random() < 0.5:
            words = [f"--{who[0]}", who[1], *(f"--{where[0]}", where[1]), "--as", account, "--reason", 'for "x"\\y']
            words += ["--until", later] if later else ["--for", "90d"]
            return self.command("grants", "give", *words)
        body: dict[str, Any] = {who[0]: who[1], where[0]: where[1], "system_user": account}
        if self.lot.random() < 0.3:
            body = {who[0]: who[1], "all": True, "system_user": account}
        if later and self.lot.random() < 0.5:
            body["starts_at"] = f"{YEAR + 2}-01-01T00:00:00Z"
        body |= {"expires_at": later or None, "restrictions": self.lot.choice((None, {"sources": ["192.0.2.0/24"]}))}
        body["break_glass"] = self.lot.random() < 0.3
        return self.api("POST", "/grants", body)

    def take_back(self) -> bool:
        """A grant goes."""
        held = self.ids("/grants")
        return bool(held) and self.command("grants", "take-back", str(self.lot.choice(held)))

    def join(self) -> bool:
        """Somebody comes into a group, or goes."""
        group, person = self.lot.choice(GROUPS), self.lot.choice(PEOPLE)
        if self.lot.random() < 0.4:
            return self.api("DELETE", f"/groups/{group}/members/{person}")
        return self.command("groups", "add", group, person)

    def own_key(self) -> bool:
        """Somebody registers a key."""
        person = self.lot.choice(("alice", "bob", "mallory"))
        body = {"title": "é \x7f", "public_key": fresh_line(), "expires_at": self.lot.choice((None, "90d"))}
        return self.api("POST", "/people/me/keys", body, token=f"token-of-{person}")

    def put_key(self) -> bool:
        """A key comes on servers, or goes."""
        self.made += 1
        label = f"bot {self.made}"
        if self.lot.random() < 0.3:
            return self.api("POST", "/credentials/revoke", {"label": f"bot {self.lot.randint(1, 5)}", "servers": "all"})
        file = self.folder / "key.pub"
        file.write_text(fresh_line() + "\n")
        words = ("keys", "add", str(file), "--label", label, "--as", self.lot.choice(ACCOUNTS))
        return self.command(*words, *self.lot.choice((("--all",), ("--tag", "web"), ("--all", "--for", "30d"))))

    def server(self) -> bool:
        """A server is renamed, moved or tagged anew."""
        self.made += 1
        number = self.lot.choice(self.ids("/servers"))
        change = self.lot.choice(
            (
                ("--name", f"host-{self.made}"),
                ("--address", f"192.0.2.{100 + self.made % 100}"),
                ("--tag", self.lot.choice(TAGS), "--tag", self.lot.choice(TAGS)),
            )
        )
        return self.command("servers", "change", str(number), *change)

    def person(self) -> bool:
        """Somebody is shut out, or in again."""
        return self.api("PUT", f"/people/{self.lot.choice(PEOPLE)}", {"disabled": self.lot.random() < 0.3})

    def freeze(self) -> bool:
        """Keys of somebody, or of all, open nothing for now; or do again."""
        held = self.team.call("GET", API + "/freezes", token="token-of-olga").json()["items"]
        going = [one["id"] for one in held if one["ended_at"] is None]
        if going and self.lot.random() < 0.5:
            return self.command("freeze", "end", str(self.lot.choice(going)))
        whose = ("--all",) if self.lot.random() < 0.2 else ("--user", self.lot.choice(("alice", "bob")))
        return self.command("freeze", "keys", *whose)

    def confirm(self) -> bool:
        """Somebody confirms a key."""
        person = self.lot.choice(("alice", "bob", "mallory"))
        held = self.team.call("GET", API + "/people/me/keys", token=f"token-of-{person}").json().get("items")
        key = self.lot.choice(held)["id"] if held else 0
        return self.api("POST", f"/keys/{key}/confirm", token=f"token-of-{person}")

    def revoke(self) -> bool:
        """A key goes for good."""
        held = self.team.call("GET", API + "/user-keys", token="token-of-olga").json()["items"]
        return bool(held) and self.api("POST", "/keys/revoke", {"fingerprint": self.lot.choice(held)["fingerprint"]})

    def offline(self) -> bool:
        """What a host does by itself."""
        policy = {"after_seconds": self.lot.choice((0, 3600)), "then": self.lot.choice(("keep", "drop-all"))}
        return self.api("PUT", f"/servers/{self.lot.choice(self.ids('/servers'))}/offline-policy", policy)

    def applied(self) -> bool:
        """A file adds a server and lets a group in there."""
        self.made += 1
        name = f"new-{self.made}"
        text = f'[workspace]\nname = "acme"\n[[servers]]\nname = "{name}"\naddress = "198.51.100.{self.made}"\n'
        text += 'system_users = ["deploy"]\ntags = ["web"]\n'
        text += f'[[grants]]\ngroup = "{self.lot.choice(GROUPS)}"\nserver = "{name}"\nsystem_user = "deploy"\n'
        return bool(workspace_apply.apply(self.team.instance, text, {}))

    def run(self, count: int) -> None:
        """So many of them, drawn by lot; most are taken."""
        each: tuple[Callable[[], bool], ...] = (
            *(self.give, self.give, self.give, self.take_back, self.join, self.join, self.own_key, self.put_key),
            *(self.server, self.person, self.applied, self.own_key, self.put_key, self.confirm),
            *(self.freeze, self.revoke, self.offline),
        )
        for _ in range(count):
            self.done += self.lot.choice(each)()
        assert self.done > count / 2, "what is refused proves nothing"


def _kept_apart(instance: Instance) -> None:
    """A deploy key, host keys that are known, and a key that nobody may register."""
    actor = actors.system_actor(1)
    repositories.ensure(instance, actor, path="acme/site", members={})
    repository = repositories.at(instance, actor, "acme/site")
    deploy_keys.add(instance, actor, repository.id, title="ci", public_key=fresh_line(), can_push=True)
    host_keys.name_first(instance, actor, 1, [(fresh_line(), 2222), (fresh_line(), 22)])
    gone = parse(fresh_line()).fingerprint
    revocation.revoke_everywhere(instance, actor, gone, reason="lost", unknown=True)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("seed", [1, 2])
def test_a_new_instance_lets_in_the_same(team: Service, tmp_path: Path, seed: int) -> None:
    drawn = Operations(team, tmp_path, seed)
    for group in GROUPS:
        assert drawn.api("PUT", f"/groups/{group}", {"members": ["alice"]})
    assert drawn.api("PUT", "/people/bot", {"kind": "service"})
    for name in ("alice", "bob"):
        assert drawn.api("POST", "/people/me/keys", {"public_key": fresh_line()}, token=f"token-of-{name}")
    assert drawn.api("PUT", "/request-rules/root", {"approvers": 2, "tag": "db", "max_duration": "8h"})
    everywhere = {"group": "ops", "all": True, "system_user": "deploy", "reason": "on call"}
    assert drawn.api("POST", "/grants", everywhere)
    assert drawn.api("POST", "/grants", everywhere | {"starts_at": f"{YEAR + 2}-01-01T00:00:00Z"})
    _kept_apart(team.instance)
    # What was registered before a stricter policy stays, here and there.
    drawn.run(OPERATIONS)
    line = next(one["line"] for one in records("keys_valid.jsonl") if one["name"] == "rsa-2048-e35")
    # He may have been shut out, which ends his tokens.
    assert drawn.api("PUT", "/people/bob", {"disabled": False})
    assert drawn.api("PUT", "/people/bob/keys", {"title": "old", "public_key": line})
    assert drawn.api("PATCH", "/key-policy", {"rsa_minimum_bits": 3072})
    before = matrix(team.instance)
    assert before, "somebody can log in"

    file = tmp_path / "acme.toml"
    good("export", "--output", str(file), *drawn.where)
    text = file.read_text("utf-8")
    assert workspace_apply.apply(team.instance, text, {}, prune=True, dry_run=True) == [], "it says what there is"

    other = app.open_instance(settings_for(tmp_path / "new", ""))
    try:
        workspace_apply.apply(other, text, {})
        assert matrix(other) == before
        assert key_policy.get(other, actors.system_actor(1)).own_bits == 3072
        assert workspace_apply.apply(other, text, {}, prune=True) == []
    finally:
        other.database.close()
    run("export", "--output", str(tmp_path / "again.toml"), "--data", str(tmp_path / "new"))
    assert {**tomllib.loads((tmp_path / "again.toml").read_text("utf-8"))} == tomllib.loads(text)


def test_a_key_that_is_frozen_or_revoked_opens_nothing_elsewhere_either(team: Service, tmp_path: Path) -> None:
    """Also where one server alone is frozen, of which a file has no word: its keys open nothing until confirmed."""
    actor = actors.system_actor(1)
    alice, bob, gone = fresh_line(), fresh_line(), fresh_line()
    drawn = Operations(team, tmp_path, 1)
    for name, line in (("alice", alice), ("bob", bob), ("bob", gone)):
        assert drawn.api("POST", "/people/me/keys", {"public_key": line}, token=f"token-of-{name}")
    for name in ("alice", "bob"):
        assert drawn.api("POST", "/grants", {"user": name, "all": True, "system_user": "deploy"})
    assert drawn.api("POST", "/freezes", {"server": "web-1"})
    mine = team.call("GET", API + "/people/me/keys", token="token-of-bob").json()["items"]
    assert drawn.api("POST", f"/keys/{mine[-1]['id']}/confirm", token="token-of-bob")
    assert drawn.api("POST", "/keys/revoke", {"fingerprint": parse(gone).fingerprint, "reason": "lost"})
    text = workspace_export.export(team.instance, actor, workspaces(team.instance)[0])
    other = app.open_instance(settings_for(tmp_path / "new", ""))
    try:
        workspace_apply.apply(other, text, {})
        assert {way[4] for way in matrix(other)} == {parse(bob).fingerprint}
        with pytest.raises(Refusal, match="revoked everywhere"):
            user_keys.add(other, actors.system_actor(1), title="again", public_key=gone, user_id=2)
    finally:
        other.database.close()


def test_an_export_that_cannot_name_a_server_is_refused(team: Service, home: Path) -> None:
    team.apply(TEAM + '[[servers]]\nname = "web-2"\naddress = "192.0.2.11"\n')
    log_in(team, "olga")
    good("servers", "change", "web-2", "--name", "web-1")
    where = ("--data", str(team.instance.settings.data), "--workspace", "acme")
    ended = run("export", *where)
    assert (ended.exit_code, "Several servers are called web-1" in ended.output) == (1, True)
    text = '[workspace]\nname = "other"\n[[servers]]\nname = "x"\nid = 1\naddress = "192.0.2.1"\n'
    (home / "taken.toml").write_text(text)
    refused = run("apply", str(home / "taken.toml"), "--data", str(team.instance.settings.data))
    assert (refused.exit_code, "is or was another server's" in refused.output) == (1, True)
