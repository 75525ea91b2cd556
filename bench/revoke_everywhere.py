"""Times one action that revokes a key on many hosts: until each host's sshd refuses it, and the last one does.

Run: python bench/revoke_everywhere.py [HOSTS [ROUNDS]]; needs sshd. Every host is a real sshd with a real agent
process, all on this machine with the service. A host refuses a key from the moment that its RevokedKeys file
names it, because sshd reads that file at each attempt; this is what is timed, for every host. That it is so is then
shown by real logins begun at that moment, which must all be refused; hosts' receipts are timed as well.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack.core.keys import receipts, revocation
from keyrack.ssh.public_key import fingerprint_of
from tests.login.fleet import Fleet, Host, fleet
from tests.login.private_sshd import Key, strict_folder
from tests.services import TEAM, running, settings_for

LOGINS_A_ROUND = 5


def holds(path: Path, line: str) -> bool:
    """Whether a file has this line now."""
    try:
        return line in path.read_text("ascii")
    except FileNotFoundError:
        return False


def wait_for(hosts: list[Host], path_of: str, line: str) -> list[float]:
    """When each host's file had the line, by the clock of perf_counter."""
    left, found = list(hosts), []
    while left:
        for host in list(left):
            if holds(getattr(host.demo.server, path_of), line):
                found.append(time.perf_counter())
                left.remove(host)
        time.sleep(0.0005)
    return found


def show(name: str, seconds: list[float]) -> None:
    """Print one line of the result."""
    ordered = sorted(seconds)
    shown = "  ".join(
        f"p{percent} {ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000:7.1f}"
        for percent in (50, 95, 99)
    )
    print(f"{name:<58} {shown}  max {ordered[-1] * 1000:7.1f} ms")


def rounds_of(hosts: Fleet, scratch: Path, rounds: int) -> None:
    """Give a key to every host and revoke it, over and over."""
    each: list[float] = []
    last: list[float] = []
    action: list[float] = []
    acknowledged: list[float] = []
    refused = tried = 0
    for number in range(rounds):
        key = Key.make(scratch / f"key-{number}")
        hosts.add(key, f"round-{number}")
        for host in hosts.hosts:
            while not holds(host.demo.server.keys / host.demo.username, key.public):
                time.sleep(0.01)
        chosen = hosts.hosts if number == rounds - 1 else random.sample(hosts.hosts, LOGINS_A_ROUND)
        assert all(host.client.lets_in(key) for host in chosen[:LOGINS_A_ROUND]), "the key does not open a host"
        time.sleep(2)  # agents have told what they had to tell
        began = time.perf_counter()
        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(wait_for, hosts.hosts, "revoked_keys", key.public)
            revocation.revoke_everywhere(hosts.instance, hosts.actor, fingerprint_of(key.public))
            action.append(time.perf_counter() - began)
            times = [at - began for at in watching.result()]
        each += times
        last.append(max(times))
        for host in chosen:
            tried += 1
            refused += not host.client.lets_in(key)
        while not receipts.of_key(hosts.instance, hosts.actor, fingerprint_of(key.public)).done:
            time.sleep(0.005)
        found = receipts.of_key(hosts.instance, hosts.actor, fingerprint_of(key.public)).of
        first = min(one.acknowledged_at for one in found if one.acknowledged_at)
        acknowledged += [(one.acknowledged_at - first).total_seconds() for one in found if one.acknowledged_at]
    print(f"{len(hosts.hosts)} hosts, {rounds} rounds, one key revoked everywhere by one action")
    show("the action itself, durable", action)
    show("revoke -> a host refuses the key (each host)", each)
    show("revoke -> every host refuses the key (the last one)", last)
    show("first host's receipt -> each host's receipt", acknowledged)
    print(f"logins begun once the file was in place: {refused} of {tried} refused at the first try")


def measure(count: int, rounds: int) -> None:
    """Start the service and the hosts."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service = stack.enter_context(running(settings_for(scratch / "data", "")))
        service.apply(TEAM)
        folder = stack.enter_context(strict_folder())
        hosts = stack.enter_context(fleet(service, folder, count))
        rounds_of(hosts, scratch, rounds)


if __name__ == "__main__":
    help_asked(__doc__)
    given = [int(argument) for argument in sys.argv[1:]]
    measure(given[0] if given else 50, given[1] if len(given) > 1 else 20)
