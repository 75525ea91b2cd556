"""A process that writes to a database from several threads and says what was acknowledged, until it is done or killed.

Arguments: the database's address, a prefix for the names it writes, threads, writes a thread, a server to announce.
"""

from __future__ import annotations

import os
import sys
import threading

from sqlalchemy import Connection, insert

from keyrack.store.database import Database, announce
from keyrack.store.tables import instance_facts


def main() -> None:
    """Write and tell."""
    url, prefix, threads, writes, server_id = sys.argv[1:]
    with Database.open(url) as database:

        def work(thread: int) -> None:
            for number in range(int(writes)):
                name = f"{prefix}-{thread}-{number}"

                def command(conn: Connection, name: str = name) -> None:
                    conn.execute(insert(instance_facts).values(name=name, value="written"))
                    announce(conn, int(server_id))

                database.write(command)
                os.write(1, f"{name}\n".encode())  # one call, one whole line

        workers = [threading.Thread(target=work, args=(thread,)) for thread in range(int(threads))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


if __name__ == "__main__":
    main()
