"""Something to try each change of the console on whose first press shows what it does; checks nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import Connection, update

from keyrack.core.audit import alarms, events, webhooks
from keyrack.core.git import deploy_keys, named_repositories
from keyrack.core.hosts import reports, servers, sessions, system_users
from keyrack.core.keys import credentials, freezes, grants, key_sources, revocation, user_keys
from keyrack.core.people import access_keys, actors, api_tokens, groups, second_factors, users
from keyrack.model import EventFilter, User
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.hosts import servers as server_rows
from keyrack.store.keys import key_sources as source_rows
from keyrack.store.tables.hosts import ROLLED_BACK_AT
from keyrack.web.console.api import PAGES
from keyrack.web.console.visits import FIRST_PRESS, ConsolePage
from tests.console.test_pages import KEYRACK
from tests.console.test_second_factors import code_of
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

AT_FIRST = [page for page in PAGES if page.method != "GET" and (page.asks is not None or page.preview == FIRST_PRESS)]
"""Those whose first press shows what the second one does."""


@dataclass(frozen=True)
class Example:
    """Something that is there for the names in a change's path, and what its form sends."""

    path: Mapping[str, object] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)

    def address(self, page: ConsolePage) -> str:
        """Where the change is sent."""
        return re.sub(r"\{(\w+)(:\w+)?\}", lambda match: str(self.path[match[1]]), page.path)


def first_presses(console: Service) -> Mapping[str, Example]:
    """One for each change whose first press shows what it does, by its path; console: a service with olga and alice."""
    instance = console.instance
    people = {user.name: user for user in users.find(instance, KEYRACK)}
    me = actors.of_user(people["olga"], address="127.0.0.1", channel="console")
    host = servers.create(instance, KEYRACK, name="shop-1", address="192.0.2.77", tags=["shop"])
    system_users.create(instance, KEYRACK, host.id, username="www")
    for line in (fresh_line(), fresh_line()):
        reports.ingest(instance, host, {"host_keys": {"port": 22, "keys": [line]}})
        host = servers.get(instance, KEYRACK, host.id)
    put = credentials.add(instance, KEYRACK, host.id, label="ci", username="www", public_key=fresh_line())
    login = {
        "id": "1-1",
        "user": "www",
        "address": "203.0.113.7",
        "fingerprint": "",
        "started_at": "2026-01-02T03:04:05Z",
    }
    reports.ingest(instance, host, {"sessions": [login]})
    inside = sessions.find(instance, KEYRACK, host.id, limit=1).items[0]
    mine = user_keys.add(instance, me, title="laptop", public_key=fresh_line())
    grant = grants.give(instance, KEYRACK, user_id=people["alice"].id, server_id=host.id, system_user="www")
    away = revocation.revoke_everywhere(instance, KEYRACK, parse(fresh_line()).fingerprint, unknown=True)
    groups.put(instance, KEYRACK, "crew", None)
    repository = named_repositories.put(instance, KEYRACK, "crew/site", None)
    deploy = deploy_keys.add(instance, KEYRACK, repository.id, title="ci", public_key=fresh_line())
    hook = webhooks.create(instance, me, url="https://example.org/", level="alarm", actions=("*",)).webhook
    token = api_tokens.make(instance, me, name="one", scopes=["servers:read"]).bearer.token
    access_key = next(iter(access_keys.find(instance, me)), None) or access_keys.create(instance, me, description="")
    begun = second_factors.begin_totp(instance, me)
    second_factors.finish_totp(instance, me, begun.carried, code_of(begun.secret, console))
    proof = next(one for one in second_factors.own(instance, me) if one.kind == second_factors.TOTP_KIND)
    freezes.freeze(instance, KEYRACK, user="alice", server=None, reason="")
    own, on_host = {"fingerprint": mine.fingerprint}, {"server": host.id, "id": put.id}
    end = {"ends": "7d", "seen": ""}
    return {
        "/renew-key/{fingerprint:path}": Example(own, end),
        "/confirm-key/{fingerprint:path}": Example(own),
        "/remove-key/{fingerprint:path}": Example(own),
        "/lift/{fingerprint:path}": Example({"fingerprint": away.fingerprint}),
        "/hosts/{server}/accounts": Example({"server": host.id}, {"username": "backup"}),
        "/hosts/{server}/host-keys": Example({"server": host.id}, {"fingerprint": parse(line).fingerprint}),
        "/hosts/{server}/sessions/{id}/end": Example({"server": host.id, "id": inside.id}),
        "/hosts/{server}/keys/{id}/renew": Example(on_host, end),
        "/hosts/{server}/keys/{id}/restrict": Example(on_host, {"seen": "{}", "sources": "10.0.0.0/8"}),
        "/hosts/{server}/keys/{id}/remove": Example(on_host),
        "/hosts/{server}/change": Example(
            {"server": host.id},
            {"seen": "shop-1 192.0.2.77 shop", "name": "shop-2", "address": "192.0.2.77", "tags": "web"},
        ),
        "/rights/{name:path}": Example({"name": "alice"}, {"seen": _rights(people["alice"]), "role": "admin"}),
        "/reset-proofs/{name:path}": Example({"name": "alice"}),
        "/delete-group/{name:path}": Example({"name": "crew"}),
        "/members/{name:path}": Example({"name": "crew"}, {"member": "alice"}),
        "/access/grant": Example(
            form={"who": "user", "name": "alice", "where": "server", "place": "shop-1", "system_user": "root"}
        ),
        "/grants/{grant}/renew": Example({"grant": grant.id}, end),
        "/grants/{grant}/restrict": Example({"grant": grant.id}, {"seen": "[{}, null]", "reason": "a while"}),
        "/freezes": Example(form={"whose": "user", "name": "alice", "reason": "lost"}),
        "/repositories/{id}/keys/{number}/remove": Example({"id": repository.id, "number": deploy.id}),
        "/settings/offline": Example(form={"tag": "shop", "after": "300", "then": "drop-all"}),
        "/settings/access-keys/{key}/remove": Example({"key": access_key.id}),
        "/settings/tokens/{id}/revoke": Example({"id": token.id}),
        "/settings/webhooks/{id}/remove": Example({"id": hook.id}),
        "/settings/sign-in/codes": Example(),
        "/settings/sign-in/remove": Example(form={"id": str(proof.id)}),
        **_of_alarms(console),
    }


def _of_alarms(console: Service) -> Mapping[str, Example]:
    """Those by which alarms are settled."""
    instance = console.instance
    host = servers.create(instance, KEYRACK, name="shop-2", address="192.0.2.79")
    put = credentials.add(instance, KEYRACK, host.id, label="ci", username="root", public_key=fresh_line())
    table = tables.credentials
    past_keyrack = update(table).where(table.c.id == put.id).values(label="other")
    at = instance.now()

    def change(connection: Connection) -> None:
        connection.execute(past_keyrack)
        server_rows.change(connection, host.id, {"copied_at": at, ROLLED_BACK_AT: at})

    instance.database.write(change)
    alarms.raise_once(instance, host.id, "tried", "Somebody tried something")
    (alarm,) = events.find(instance, KEYRACK, EventFilter(server_id=host.id, kind=events.ALARM), limit=1).items
    source = key_sources.put(instance, KEYRACK, "alice", "github", account="alice")
    # Nobody looks there meanwhile.
    later = {"next_at": at + timedelta(days=1)}
    instance.database.write(lambda connection: source_rows.change(connection, source.id, later))
    return {
        "/alarms/{id}/settle": Example({"id": alarm.id}),
        "/damaged/remove": Example(form={"row": f"credential:{put.id}"}),
        "/hosts/{server}/resync": Example({"server": host.id}, {"accept_database": "yes"}),
        "/hosts/{server}/copy-gone": Example({"server": host.id}),
        "/stop-source/{name:path}": Example({"name": "alice"}, {"kind": "github"}),
    }


def _rights(user: User) -> str:
    return f"{user.role.value} {' '.join(user.policies)}"
