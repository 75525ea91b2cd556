"""Times `keyrack apply` of a file with many users and system users: the first time, and again.

Run: python bench/apply.py [USERS [SYSTEM_USERS [DATABASE]]]; DATABASE: an empty one's address, SQLite where it is left
out. The system users are a thousand a server. Bounds for 10,000 of each: 15 s the first time, 2 s again.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack import app
from keyrack.core.workspace import apply as workspace_apply
from tests.services import settings_for

A_SERVER = 1000


def text(users: int, accounts: int) -> str:
    """The file."""
    lines = ["[workspace]", 'name = "bench"']
    for number in range(users):
        lines += ["[[users]]", f'name = "user-{number}"', f'role = "{"member" if number else "owner"}"']
    for first in range(0, accounts, A_SERVER):
        names = ", ".join(f'"u{number}"' for number in range(first, min(first + A_SERVER, accounts)))
        lines += ["[[servers]]", f'name = "web-{first}"', f'address = "host-{first}"', f"system_users = [{names}]"]
    return "\n".join(lines)


def measure(users: int, accounts: int, database: str) -> None:
    """Apply it twice, and say how long each took."""
    with tempfile.TemporaryDirectory() as folder:
        instance = app.open_instance(settings_for(Path(folder), database))
        wanted = text(users, accounts)
        for name, bound in (("first", 15), ("again", 2)):
            clock, process = time.perf_counter(), time.process_time()
            changes = workspace_apply.apply(instance, wanted, {})
            clock, process = time.perf_counter() - clock, time.process_time() - process
            print(f"{name}: {len(changes)} changes, {clock:.2f} s, {process:.2f} s of the process, bound {bound} s")
        instance.database.close()


if __name__ == "__main__":
    help_asked(__doc__)
    numbers = [int(argument) for argument in sys.argv[1:3]]
    wanted_users = numbers[0] if numbers else 10_000
    measure(wanted_users, numbers[1] if len(numbers) > 1 else wanted_users, sys.argv[3] if len(sys.argv) > 3 else "")
