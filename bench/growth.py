"""Times what people wait for while little and while much exists, and prints the ratio: near 1 is the aim.

Run: python bench/growth.py [USER_KEYS [CREDENTIALS]]; by default 1,000,000 user keys and 25,000 credentials on one
server, in SQLite. Both databases are made anew in a temporary folder; a line says what each question cost in the
small one and in the large one, as the median of some runs.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from sqlalchemy import Connection

from keyrack import app
from keyrack.core.hosts import servers
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, revocation, user_keys
from keyrack.core.people import actors, users
from keyrack.model import Actor, Role
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.keys import credentials as credential_rows
from keyrack.store.sealing import sealed
from tests.core.keys_for_tests import fresh_line
from tests.services import settings_for

ROUNDS = 15
BATCH_SIZE = 20_000


def filled(folder: Path, user_key_count: int, credential_count: int) -> tuple[Instance, Actor, int]:
    """An instance with so many rows; its owner, and the server that has the credentials."""
    instance = app.open_instance(settings_for(folder, ""))
    by = actors.system_actor(users.create_workspace(instance, actors.system_actor(), "acme").id)
    user = users.create_user(instance, by, name="olga", role=Role.OWNER)
    owner = actors.of_user(user, address="203.0.113.9", channel="bench")
    server = servers.create(instance, owner, name="web-1", address="192.0.2.10")
    of_user = {
        "workspace_id": by.workspace_id,
        "user_id": users.create_user(instance, by, name="crowd", role=Role.MEMBER).id,
    }
    line = parse(fresh_line())
    now = instance.now()
    key = {"public_key": line.canonical, "comment": "", "key_type": line.type, "created_at": now}

    def add(table: Any, rows: list[dict[str, Any]]) -> None:
        instance.database.write(lambda connection: sealed.insert_rows(connection, table, rows))

    for first in range(0, user_key_count, BATCH_SIZE):
        numbers = range(first, min(first + BATCH_SIZE, user_key_count))
        add(tables.user_keys, [{**of_user, **key, "fingerprint": f"SHA256:u{n}"} for n in numbers])
    root = instance.database.read(lambda connection: servers_user(connection, server.id))
    place = {"server_id": server.id, "system_user_id": root, "temporary": False, "restrictions": {}, "revision": 1}
    for first in range(0, credential_count, BATCH_SIZE):
        numbers = range(first, min(first + BATCH_SIZE, credential_count))
        add(
            tables.credentials,
            [{**place, **key, "label": f"l{n}", "fingerprint": f"SHA256:c{n}"} for n in numbers],
        )
    return instance, owner, server.id


def servers_user(connection: Connection, server_id: int) -> int:
    """The id of root on a server."""
    held = tables.system_users.c
    statement = tables.system_users.select().where(held.server_id == server_id, held.username == "root")
    return int(connection.execute(statement).one().id)


def median(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    spent = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        action()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def measured(instance: Instance, owner: Actor, server_id: int) -> dict[str, float]:
    """What each costs, in seconds."""

    def add() -> None:
        credentials.add(instance, owner, server_id, label=fresh_line()[-30:], username="root", public_key=fresh_line())

    # Found beforehand: a page by number counts all that there are, which is no part of a delete.
    there = [one.id for one in credentials.find(instance, owner, server_id, offset=0, limit=ROUNDS).items]

    def delete() -> None:
        credentials.delete(instance, owner, server_id, there.pop())

    def revoke() -> None:
        line = fresh_line()
        user_keys.add(instance, owner, title="a", public_key=line)
        revocation.revoke_everywhere(instance, owner, parse(line).fingerprint)

    registered: list[str] = []

    def register() -> None:
        registered.append(fresh_line())
        user_keys.add(instance, owner, title="a", public_key=registered[-1])

    def revoke_one() -> None:
        revocation.revoke_everywhere(instance, owner, parse(registered.pop()).fingerprint)

    def page() -> None:
        credentials.find(instance, owner, server_id, limit=15)

    def ended() -> None:
        at = instance.now()
        instance.database.read(lambda connection: credential_rows.ended_credentials(connection, at, 1))

    actions = {
        "add": add,
        "delete": delete,
        "register and revoke": revoke,
        "register": register,
        "revoke": revoke_one,
        "first page": page,
        "look for ended": ended,
    }
    return {name: median(action) for name, action in actions.items()}


def main(user_key_count: int, credential_count: int) -> None:
    """Fill, measure, print."""
    found = []
    for counts in ((100, 50), (user_key_count, credential_count)):
        with tempfile.TemporaryDirectory() as folder:
            instance, owner, server_id = filled(Path(folder), *counts)
            found.append(measured(instance, owner, server_id))
            instance.database.close()
    small, large = found
    print(f"100 user keys and 50 credentials : {user_key_count:,} and {credential_count:,}; SQLite, median of {ROUNDS}")
    for name, seconds in small.items():
        print(f"{name:<20} {seconds * 1000:8.2f} ms : {large[name] * 1000:8.2f} ms   1:{large[name] / seconds:.1f}")


if __name__ == "__main__":
    help_asked(__doc__)
    given = [int(argument) for argument in sys.argv[1:]]
    main(*(given + [1_000_000, 25_000][len(given) :]))
