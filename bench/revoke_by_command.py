"""Times a revocation by the command line: from the end of `keyrack hosts revoke` until a host's sshd refuses the key.

Run: python bench/revoke_by_command.py [ROUNDS]; needs sshd. A real sshd and agent, one service, one SQLite file;
the command runs in a process of its own, so the service learns of it from the file alone. Also shown: from the start of
the command, most of which is Python starting.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack.ssh.public_key import fingerprint_of
from tests.login.fleet import fleet
from tests.login.private_sshd import Key, strict_folder
from tests.services import TEAM, running, settings_for


def show(name: str, seconds: list[float]) -> None:
    """Print one line of the result."""
    ordered = sorted(seconds)
    print(f"{name:<52} p50 {ordered[len(ordered) // 2] * 1000:7.0f}  max {ordered[-1] * 1000:7.0f} ms")


def measure(rounds: int) -> None:
    """Add a key, revoke it by the command, and knock until it is refused, over and over."""
    since_start: list[float] = []
    since_end: list[float] = []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service = stack.enter_context(running(settings_for(scratch / "data", "")))
        service.apply(TEAM)
        hosts = stack.enter_context(fleet(service, stack.enter_context(strict_folder()), 1))
        (host,) = hosts.hosts
        for number in range(rounds):
            key = Key.make(scratch / f"key-{number}")
            hosts.add(key, f"round-{number}")
            host.client.wait_until_open(key)
            revoke = [sys.executable, "-m", "keyrack.cli.main", "hosts", "revoke", fingerprint_of(key.public)]
            began = time.perf_counter()
            subprocess.run([*revoke, "--data", str(scratch / "data")], check=True, capture_output=True)
            ended = time.perf_counter()
            while True:
                knocked = time.perf_counter()
                if not host.client.lets_in(key):
                    break
            since_start.append(knocked - began)
            since_end.append(knocked - ended)
    print(f"{rounds} revocations by a command in another process, SQLite")
    show("end of the command -> a login begun then is refused", since_end)
    show("start of the command -> a login begun then is refused", since_start)


if __name__ == "__main__":
    help_asked(__doc__)
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
