"""Prints how much processor time the server uses for each page of the console, with 100,000 keys and 1,000 hosts.

    .venv/bin/python bench/console.py [KEYS [HOSTS]]

One process serves and asks, over plain HTTP on loopback, signed in as the owner; the client's own part is a fraction of
a millisecond. A line a page: the middle and the slowest but one of ROUNDS requests, in milliseconds, and its kilobytes.
"""

from __future__ import annotations

import http.client
import secrets
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack.cli.machine.serve import be_quick_to_switch
from keyrack.core import cursors
from keyrack.core.instance import Instance
from keyrack.core.keys import grants, user_keys
from keyrack.core.people import actors, groups, users
from keyrack.model import Actor, Role
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.sealing import sealed, sealed_tables
from tests.console.conftest import COOKIE, session_of
from tests.core.keys_for_tests import fresh_line
from tests.services import Service, running, settings_for

ROUNDS = 20
KEYS_EACH = 5
TEAM = 12
TEAMS = 20
BATCH_SIZE = 10_000
PAGES = (
    "/",
    "/keys",
    "/keys?add=1",
    "/hosts",
    "/hosts?after={middle host}",
    "/hosts?q=host-77",
    "/hosts?state=silent",
    "/hosts?state=behind",
    "/hosts/{host}",
    "/hosts/{host}/enforce",
    "/hosts/{host}/remove",
    "/hosts/{host}/keys",
    "/hosts/{host}/change",
    "/people",
    "/people?after={middle person}",
    "/people?q=person-1999",
    "/people/person-7",
    "/offboard/person-7",
    "/groups/team-1",
    "/access",
    "/access?view=list",
    "/access?tag=tag-3",
    "/access?group=team-3",
    "/access?server={host}",
    "/access/grant",
    "/grants",
    "/grants/1/renew",
    "/grants/1/remove",
    "/freezes",
    "/requests",
    "/repositories",
    "/activity",
    "/activity?person=olga",
    "/settings",
    "/settings?type=ssh-ed25519&bits=3072",
    "/settings?type=ssh-rsa&bits=3072",
    "/settings/sign-in",
    "/settings/webhooks",
    "/search?q=person-19",
    "/keys/{key}",
    "/revoke/{key}",
)


def fill(instance: Instance, keys: int, hosts: int) -> tuple[int, str]:
    """People in teams, each team let in to the hosts of its tag; the id of a host, and a fingerprint."""
    by = actors.system_actor(users.create_workspace(instance, actors.system_actor(), "acme").id)
    olga = users.create_user(instance, by, name="olga", role=Role.OWNER)
    owner = Actor(by.workspace_id, olga.id, "olga", Role.OWNER)
    now = instance.now()
    line = fresh_line()
    user_keys.add(instance, owner, title="laptop", public_key=line)

    def add(table: Any, rows: list[dict[str, Any]]) -> list[Any]:
        made: list[Any] = []
        for first in range(0, len(rows), BATCH_SIZE):
            piece = rows[first : first + BATCH_SIZE]
            made += instance.database.write(partial(sealed.insert_rows, table=table, rows=piece))
        return made

    person = {"workspace_id": by.workspace_id, "role": "member", "policies": [], "created_at": now}
    named = [
        {**person, "uid": secrets.token_hex(16), "name": f"person-{number}"} for number in range(keys // KEYS_EACH)
    ]
    people = add(tables.users, named)
    one_key = {"workspace_id": by.workspace_id, "created_at": now - timedelta(days=100), "title": "laptop"}
    registered = []
    for number, user in enumerate(people):
        for place in range(KEYS_EACH):
            key = parse(fresh_line() if number < TEAM * TEAMS else line)
            mark = key.fingerprint if number < TEAM * TEAMS else f"SHA256:{number}-{place}"
            held = {"public_key": key.canonical, "comment": "", "key_type": key.type, "fingerprint": mark}
            registered.append({**one_key, **held, "user_id": user["id"]})
    add(tables.user_keys, registered)
    machine = {"workspace_id": by.workspace_id, "mode": "enforce", "revision": 1, "applied_revision": 1, "facts": {}}
    machine |= {"sshd": {}, "rows_sum": bytes(32), "created_at": now, "updated_at": now, "enrolled_at": now}
    machine |= {"seen_at": now, "address": "192.0.2.1"}
    made = add(
        tables.servers,
        [
            {**machine, "host": secrets.token_hex(8), "name": f"host-{number}", "lineage": secrets.token_hex(4)}
            | {"agent_secret_hash": secrets.token_bytes(32)}
            for number in range(hosts)
        ],
    )
    # What hosts acknowledged has a code of its own.
    instance.database.write(lambda connection: sealed_tables.seal_receipts(connection, counted=True))
    account = {"username": "deploy", "deletable": True, "managed": False, "created_at": now}
    add(tables.system_users, [{**account, "server_id": server["id"]} for server in made])
    tags = [{"server_id": server["id"], "tag": f"tag-{number % TEAMS}"} for number, server in enumerate(made)]
    add(tables.server_tags, tags)
    for number in range(TEAMS):
        members = [user["id"] for user in people[number * TEAM : number * TEAM + TEAM]]
        groups.ensure(instance, owner, name=f"team-{number}", user_ids=members)
        group = groups.id_of(instance, owner, f"team-{number}")
        grants.give(instance, owner, group_id=group, tag=f"tag-{number}", system_user="deploy")
    return made[7]["id"], parse(line).fingerprint


def ask(service: Service, path: str, cookie: str, rounds: int) -> tuple[list[float], int]:
    """The milliseconds of processor time of each request, and how long the answer is."""
    host = service.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host)
    spent = []
    for _ in range(rounds + 1):
        began = time.process_time()
        connection.request("GET", path, headers={"Cookie": cookie, "Accept": "text/html"})
        answer = connection.getresponse()
        body = answer.read()
        spent.append((time.process_time() - began) * 1000)
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status}\n{body[:2000].decode(errors='replace')}")
    return sorted(spent[1:]), len(body)


def main() -> None:
    """Fill, ask, print."""
    keys, hosts = (int(sys.argv[place]) if len(sys.argv) > place else most for place, most in ((1, 100_000), (2, 1000)))
    with tempfile.TemporaryDirectory() as folder, running(settings_for(Path(folder) / "data", "")) as service:
        host, key = fill(service.instance, keys, hosts)
        cookie = f"{COOKIE}={session_of(service, 'olga')}"
        be_quick_to_switch()  # as the service does once it is loaded
        print(f"{keys:,} keys, {hosts:,} hosts; milliseconds of processor time: middle, slowest but one; kB")
        for path in PAGES:
            address = path.replace("{host}", str(host)).replace("{key}", key)
            address = address.replace("{middle host}", cursors.write((hosts // 2,)))
            address = address.replace("{middle person}", cursors.write((keys // KEYS_EACH // 2,)))
            spent, size = ask(service, address, cookie, ROUNDS)
            print(f"{path:38} {statistics.median(spent):8.1f} {spent[-2]:8.1f} {size / 1000:8.1f}", flush=True)


if __name__ == "__main__":
    help_asked(__doc__)
    main()
