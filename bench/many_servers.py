"""Times one call that puts a key on many servers, again, replaces it, takes it away; and a key revoked everywhere.

Run: python bench/many_servers.py [SERVERS [DATABASE]]; DATABASE: an empty one's address, SQLite where it is left out.
Each line says the seconds by the clock and of this process, the statements, and the bound for this many servers.
"""

from __future__ import annotations

import gc
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
from keyrack.core.keys import everywhere, revocation
from keyrack.core.people import actors, users
from keyrack.model import Actor
from keyrack.ssh.public_key import fingerprint_of
from keyrack.store.engine import execute
from keyrack.store.sealing import sealed_sets
from keyrack.store.tables import servers as table
from keyrack.store.tables import system_users
from tests.core.keys_for_tests import fresh_line
from tests.services import settings_for


def filled(instance: Instance, count: int) -> Actor:
    """A workspace with so many servers, each with the account deploy; who acts in it."""
    workspace = users.create_workspace(instance, actors.system_actor(), "bench")
    actor = actors.system_actor(workspace.id)
    first = servers.create(instance, actor, name="web-0", address="192.0.2.1", tags=())
    at = instance.now()

    def fill(connection: Connection) -> None:
        (row,) = sealed_sets.locked_servers(connection, (first.id,))
        shared = {name: value for name, value in row.items() if name not in ("id", "seal")}
        shared |= {"applied_revision": 0, "applied_lineage": "", "facts": {}, "rows_sum": bytes(32)}
        others = [{**shared, "host": f"{n:032x}", "name": f"web-{n}"} for n in range(1, count)]
        ids = [first.id, *(made.id for made in sealed_sets.insert_many(connection, table, others))]
        account = {"username": "deploy", "deletable": True, "managed": False, "created_at": at}
        sealed_sets.insert_many(connection, system_users, [{**account, "server_id": one} for one in ids])

    instance.database.write(fill)
    return actor


def timed(name: str, bound: float, run: Callable[[], object]) -> None:
    """One line of the table."""
    statements = 0

    def note(sql: str, values: object) -> None:
        nonlocal statements
        statements += 1

    execute.listeners.append(note)
    clock, process = time.perf_counter(), time.process_time()
    run()
    clock, process = time.perf_counter() - clock, time.process_time() - process
    execute.listeners.remove(note)
    kept = "kept" if clock <= bound else "NOT kept"
    print(f"{name:<28} {clock:7.3f} s  {process:7.3f} s of the process  {statements:4} statements  {bound:g} s {kept}")


def measure(count: int, database: str) -> None:
    """All of it on one database."""
    with tempfile.TemporaryDirectory() as folder:
        instance = app.open_instance(settings_for(Path(folder), database))
        actor = filled(instance, count)
        print(f"{instance.database.dialect}, {count} servers")
        share = count / 10_000
        line = fresh_line()
        given: dict[str, Any] = {"label": "bot", "username": "deploy", "public_key": line}
        timed("add", max(share, 0.1), lambda: everywhere.add(instance, actor, "all", **given))
        timed("add, again", max(share, 0.1), lambda: everywhere.add(instance, actor, "all", **given))
        new, old = fresh_line(), fingerprint_of(line)
        timed(
            "replace",
            max(share, 0.1),
            lambda: everywhere.replace(instance, actor, "all", fingerprint=old, public_key=new),
        )
        timed("revoke", max(share, 0.1), lambda: everywhere.revoke(instance, actor, "all", label="bot"))
        everywhere.add(instance, actor, "all", **given)
        timed("revoke everywhere", 3 * share, lambda: revocation.revoke_everywhere(instance, actor, old))
        instance.database.close()


if __name__ == "__main__":
    help_asked(__doc__)
    gc.set_threshold(100_000, 10, 10)  # as the command has it
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, sys.argv[2] if len(sys.argv) > 2 else "")
