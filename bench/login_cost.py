"""What Keyrack adds to a login: its key files and agent against a plain one-line authorized_keys, interleaved.

Run: python bench/login_cost.py [PAIRS]; needs sshd. Prints the ratio of the times of whole ssh logins with its 95 %
confidence interval (from the logarithms of the pairs' ratios, each pair one after the other in random order), and
the memory and the processor time of the agent that watches the host meanwhile and at rest.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack.cli.demo_host import PrivateSshd, free_port
from keyrack.ssh.host_document import UserKey
from tests.agent.small_service import SmallService, small_service
from tests.agent.watched_host import enrolled
from tests.login.private_sshd import USERNAME, Door, Key, sshd_path, strict_folder

REST_SECONDS = 60


class Plain(PrivateSshd):
    """sshd as it is without Keyrack: one authorized_keys file, no RevokedKeys, nothing exposed."""

    def _settings(self) -> str:
        ours = ("RevokedKeys", "ExposeAuthInfo", "LogLevel")
        lines = [line for line in super()._settings().split("\n") if not line.startswith(ours)]
        return "\n".join(line.replace("/%u", "/authorized_keys") for line in lines)


def seconds_of(door: Door, key: Key) -> float:
    """How long one login takes."""
    began = time.perf_counter()
    assert door.lets_in(key), "the key does not open the account"
    return time.perf_counter() - began


def processor_seconds(pid: int) -> float:
    """What a process has used of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int, name: str) -> float:
    """A process's memory by a line of its status, in MB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text("ascii").split("\n") if line.startswith(name))
    return int(line.split()[1]) / 1024


def compare(plain: Door, ours: Door, key: Key, pairs: int) -> None:
    """Log in to both in turn and print the ratio."""
    logarithms: list[float] = []
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    for number in range(pairs + 10):
        both = [("plain", plain), ("ours", ours)]
        random.shuffle(both)
        found = {name: seconds_of(door, key) for name, door in both}
        if number < 10:
            continue  # caches warm up
        for name, value in found.items():
            times[name].append(value)
        logarithms.append(math.log(found["ours"] / found["plain"]))
    mean = statistics.fmean(logarithms)
    half = 1.96 * statistics.stdev(logarithms) / math.sqrt(pairs)
    for name, values in times.items():
        median, average = statistics.median(values) * 1000, statistics.fmean(values) * 1000
        print(f"{name:<6} login: median {median:7.2f} ms, mean {average:7.2f} ms")
    low, high = math.exp(mean - half), math.exp(mean + half)
    print(f"ratio over {pairs} pairs: {math.exp(mean):.4f}, 95 % confidence interval {low:.4f} to {high:.4f}")


def measure(pairs: int) -> None:
    """Start both, compare, and look at the agent."""
    with ExitStack() as stack:
        folder = stack.enter_context(strict_folder())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        key = Key.make(scratch / "key")
        service: SmallService = stack.enter_context(small_service())
        host = stack.enter_context(enrolled(folder / "ours", service))
        host.publish({USERNAME: [UserKey(key.public)]})
        plain = Plain(folder / "plain", free_port(), sshd_path())
        plain.keys.mkdir(parents=True)
        (plain.keys / "authorized_keys").write_text(f"{key.public}\n", "ascii")
        plain.prepare()
        plain.start()
        stack.callback(plain.stop)
        compare(Door(plain.port, plain.known_hosts), host.door, key, pairs)
        pid = host.agent_pid
        print(f"agent: {memory(pid, 'VmRSS'):.1f} MB resident, {memory(pid, 'RssAnon'):.1f} MB of its own")
        time.sleep(10)
        before = processor_seconds(pid)
        time.sleep(REST_SECONDS)
        used = processor_seconds(pid) - before
        print(f"agent at rest: {used / REST_SECONDS * 100:.3f} % of one processor over {REST_SECONDS} s")


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
