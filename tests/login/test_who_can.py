"""Who can log in where, as it is answered, against real logins: every user at every account of every host."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path

from sqlalchemy import update

from keyrack.agent.keys import key_files
from keyrack.agent.keys.key_files import KeyFiles
from keyrack.core.hosts import documents, servers, system_users
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, grants, user_keys, who_can
from keyrack.core.people import actors, groups, named_people
from keyrack.model import Actor
from keyrack.protocol import host_document
from keyrack.store import tables
from tests.login.observed_host import accounts
from tests.login.private_sshd import Key, SshClient, private_sshd, strict_folder
from tests.services import Service

PEOPLE = ("amy", "ben", "cid", "dot", "eve", "fay")
HOSTS = ("h-1", "h-2", "h-3", "h-4")
ACCOUNTS = ("krtdeploy", "krtadmin", "krtbackup")
DEPLOY, ADMIN, BACKUP = ACCOUNTS
ELSEWHERE = "127.0.0.2"
ADDRESSES = ("127.0.0.1", ELSEWHERE)
HERE = {"sources": [ELSEWHERE]}
Cell = tuple[str, str, str, str]


class Case:
    """A workspace with people, hosts and something of every way in."""

    def __init__(self, instance: Instance, folder: Path) -> None:
        self.instance, self.actor = instance, actors.system_actor(1)
        self.keys = {name: Key.make(folder / name) for name in PEOPLE}
        for name in PEOPLE:
            made = named_people.put(instance, self.actor, name, make=True, policies=["codeartsrepo::*"])
            own = Actor(1, made.id, name, made.role, made.policies)
            user_keys.add(instance, own, title=name, public_key=self.keys[name].public)
        tags = {"h-1": ["web"], "h-2": ["web", "db"], "h-3": ["db"], "h-4": []}
        self.servers = {}
        for name in HOSTS:
            server = servers.create(instance, self.actor, name=name, address="127.0.0.1", tags=tags[name])
            for account in ACCOUNTS:
                system_users.create(instance, self.actor, server.id, username=account)
            self.servers[name] = server.id

    def give(self, system_user: str, *, instance: Instance | None = None, **terms: object) -> int:
        """A grant, by names."""
        made = grants.give_named(instance or self.instance, self.actor, system_user=system_user, **terms)  # type: ignore[arg-type]
        return made.id

    def credential(self, host: str, account: str, name: str, **more: object) -> None:
        """A person's key on a host, under a label."""
        credentials.add(
            self.instance,
            self.actor,
            self.servers[host],
            label=f"{name} as {account}",
            username=account,
            public_key=self.keys[name].public,
            **more,  # type: ignore[arg-type]
        )

    def fill(self) -> None:
        """Let them in: by name, group, tag, everywhere; with ends, starts, restrictions; some of it in vain."""
        now = self.instance.now()
        past = replace(self.instance, now=lambda: now - timedelta(days=2))
        day = timedelta(days=1)
        groups.put(self.instance, self.actor, "ops", ["ben", "dot"])
        groups.put(self.instance, self.actor, "nobody", [])
        self.give(DEPLOY, user="amy", server="h-1", expires_at=now + day, reason="release 12")
        self.give(DEPLOY, group="ops", tag="web")
        self.give(ADMIN, group="ops", tag="db", restrictions=HERE)
        self.give(ADMIN, user="cid", all_servers=True)
        self.give(BACKUP, user="cid", all_servers=True, restrictions=HERE)
        self.give(BACKUP, user="eve", server="h-3", expires_at=now - day, instance=past)
        self.give(DEPLOY, user="eve", server="h-3", starts_at=now + day)
        self.give(DEPLOY, user="eve", server="h-4", starts_at=now - day, instance=past)
        self.give(DEPLOY, group="nobody", tag="db")
        self.credential("h-4", BACKUP, "fay")
        self.credential("h-2", DEPLOY, "fay", restrictions=HERE)
        self.credential("h-1", BACKUP, "dot", restrictions={"sources": [f"!{ELSEWHERE}", "127.0.0.*"]})
        self.give(BACKUP, user="fay", server="h-4", restrictions=HERE)
        self.give(ADMIN, user="fay", tag="web", restrictions={"verify_required": True})
        gone = self.give(BACKUP, user="ben", server="h-1")
        grants.take_back(self.instance, self.actor, gone)
        named_people.put(self.instance, self.actor, "dot", make=False, disabled=True)
        # Somebody who may write to the database lets himself in.
        forged = self.give(BACKUP, user="amy", server="h-2")
        altered = update(tables.grants).where(tables.grants.c.id == forged).values(system_user=ADMIN)
        self.instance.database.write(lambda connection: connection.execute(altered))

    def answered(self) -> set[Cell]:
        """Who can log in where from where, as it is answered."""
        cells: set[Cell] = set()
        for host in HOSTS:
            for way in who_can.find(self.instance, self.actor, server=host, limit=1000).items:
                opened_by = way.reason.credential or way.reason.grant
                assert opened_by is not None
                assert way.user is not None
                sources = opened_by.restrictions.get("sources", ["*"])
                fitting = [ELSEWHERE] if sources == [ELSEWHERE] else ["127.0.0.1"] if len(sources) > 1 else ADDRESSES
                cells |= {(way.user, host, way.reason.username, address) for address in fitting}
        return cells


def serve(stack: ExitStack, case: Case, host: str, folder: Path) -> SshClient:
    """A sshd with what the agent makes of a host's document."""
    sshd, client = stack.enter_context(private_sshd(folder))
    signed = documents.signed(case.instance, case.servers[host])
    assert signed is not None
    files = KeyFiles.open(str(sshd.keys), str(sshd.revoked_keys))
    assert not files.put(key_files.render(host_document.decode(signed.text))).problems
    files.close()
    return client


def test_every_cell_of_the_access_map_agrees_with_a_real_login(team: Service, tmp_path: Path) -> None:
    with accounts(ACCOUNTS), strict_folder() as folder, ExitStack() as stack:
        case = Case(team.instance, tmp_path)
        case.fill()
        clients = {host: serve(stack, case, host, folder / host) for host in HOSTS}

        def opens(cell: Cell) -> bool:
            name, host, account, address = cell
            ended = clients[host].login(case.keys[name], account, extra=("-b", address))
            assert ended.returncode == 0 or "Permission denied (publickey" in ended.stderr, ended.stderr
            return ended.returncode == 0

        cells = list(product(PEOPLE, HOSTS, ACCOUNTS, ADDRESSES))
        with ThreadPoolExecutor(6) as pool:
            opened = {cell for cell, is_open in zip(cells, pool.map(opens, cells), strict=True) if is_open}
        answered = case.answered()
        assert opened == answered, sorted(opened ^ answered)
        assert 20 < len(opened) < len(cells) / 2
        for name in PEOPLE:
            ways = who_can.find(case.instance, case.actor, user=name, limit=1000).items
            assert {(way.server.name, way.reason.username) for way in ways if way.server.name in HOSTS} == {
                (host, account) for person, host, account, _ in answered if person == name
            }
