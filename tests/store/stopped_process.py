"""A process that stops itself in the middle of a change, with statements sent ahead; holds no assertion.

Arguments: the database's address, the workspace whose lock it takes.
"""

from __future__ import annotations

import os
import signal
import sys

from sqlalchemy import Connection

from keyrack.store.database import Database
from keyrack.store.engine.execute import send


def main() -> None:
    """Stop; once it goes on, say how the change ended."""
    url, workspace = sys.argv[1:]

    def command(conn: Connection) -> None:
        send(conn)  # what takes the workspace's lock, which nobody has waited for yet
        os.kill(os.getpid(), signal.SIGSTOP)

    with Database.open(url) as database:
        try:
            database.write(command, workspace_lock=int(workspace))
        except Exception as error:
            print(type(error).__name__)
        else:
            print("done")


if __name__ == "__main__":
    main()
