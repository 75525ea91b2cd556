"""Times from an acknowledged add to a login that works, and from a delete to a refusal, beside a plain login.

Run: python bench/first_login.py [ROUNDS]; needs sshd. Prints p50 and p99 in milliseconds.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack.core.hosts import servers
from keyrack.core.people import actors
from tests.login.private_sshd import USERNAME, Key, SshClient, agent_host, strict_folder
from tests.services import TEAM, running, settings_for


def until(condition: Callable[[], bool], pause: float = 0.0) -> tuple[float, int]:
    """Seconds until the condition holds, and how often it was tried."""
    started = time.perf_counter()
    tries = 1
    while not condition():
        tries += 1
        time.sleep(pause)
    return time.perf_counter() - started, tries


def show(name: str, seconds: list[float]) -> None:
    """Print one line of the result."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(f"{name:<46} p50 {statistics.median(ordered) * 1000:7.1f} ms   p99 {p99 * 1000:7.1f} ms")


def file_holds(path: Path, line: str) -> bool:
    """Whether the host's key file holds a key now."""
    try:
        return line in path.read_text("ascii")
    except FileNotFoundError:
        return False


def measure(rounds: int) -> None:
    """Add and delete a key in turn on one enrolled host."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service = stack.enter_context(running(settings_for(scratch / "data", "")))
        service.apply(TEAM)
        if USERNAME not in ("root", "deploy"):
            path = "/api/v3/servers/1/users"
            service.call("POST", path, token="token-of-olga", json={"username": USERNAME})
        token = servers.invite(service.instance, actors.system_actor(1), 1)
        folder = stack.enter_context(strict_folder())
        host, client = stack.enter_context(agent_host(folder, service.url, token))
        rounds_of(rounds, scratch, service.call, host.server.keys / USERNAME, client)


def rounds_of(rounds: int, scratch: Path, call: Callable[..., Any], file: Path, client: SshClient) -> None:
    """The rounds themselves, and what they gave."""
    key = Key.make(scratch / "key")
    path = "/api/v3/servers/1/ssh/credentials"
    add_file: list[float] = []
    delete_file: list[float] = []
    add_login: list[float] = []
    delete_login: list[float] = []
    plain: list[float] = []
    first_tries = 0
    for number in range(2 * rounds):
        body = {"label": f"round-{number}", "username": USERNAME, "publicKey": key.public}
        added = call("POST", path, token="token-of-olga", json=body).json()
        if number % 2:
            add_file.append(until(lambda: file_holds(file, key.public), 0.0005)[0])
        else:
            seconds, tries = until(lambda: client.lets_in(key))
            add_login.append(seconds)
            first_tries += tries == 1
            plain.append(until(lambda: client.lets_in(key))[0])
        call("DELETE", f"{path}/{added['id']}", token="token-of-olga")
        if number % 2:
            delete_file.append(until(lambda: not file_holds(file, key.public), 0.0005)[0])
        else:
            delete_login.append(until(lambda: not client.lets_in(key))[0])
    show("add acknowledged -> key stands on the host", add_file)
    show("delete acknowledged -> key gone from the host", delete_file)
    show("add acknowledged -> ssh has logged in", add_login)
    show("  a plain ssh login in the same run", plain)
    show("delete acknowledged -> ssh was refused", delete_login)
    print(f"ssh started at the acknowledgement succeeded at once in {first_tries} of {rounds} rounds")
    ratio = statistics.median(add_login) / statistics.median(plain)
    print(f"add -> login against a plain login, p50: {ratio:.3f}")


if __name__ == "__main__":
    help_asked(__doc__)
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
