"""What Keyrack adds to a login: its key files and agent against a plain one-line authorized_keys, interleaved.

Run: python bench/login_cost.py [BLOCKS]; needs sshd. Two servers that are the same to the letter differ by up to 3 %
for as long as they run, so each block starts both anew, with new host keys, and takes ten logins of each in random
order. Prints the ratio of whole ssh logins with its 95 % confidence interval (of the blocks' ratios), the same for
the processor time that sshd itself took, the ratio of two plain servers as the noise of this very machine, and what
the agent takes of memory and processor, for each login and at rest.
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
from typing import NamedTuple

from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack.private_sshd import PrivateSshd
from keyrack.protocol.host_document import AuthorizedKey
from tests.agent.small_service import small_service
from tests.agent.watched_host import enrolled
from tests.login.private_sshd import USERNAME, Key, SshClient, sshd_path, strict_folder
from tests.ports import free_port

REST_SECONDS = 60
LOGINS = 10  # of each server in a block


class Plain(PrivateSshd):
    """sshd as it is without Keyrack: one authorized_keys file, no RevokedKeys, nothing exposed."""

    def _settings(self) -> str:
        ours = ("RevokedKeys", "ExposeAuthInfo", "LogLevel")
        lines = [line for line in super()._settings().split("\n") if not line.startswith(ours)]
        return "\n".join(line.replace("/%u", "/authorized_keys") for line in lines)


class Cost(NamedTuple):
    """The logarithm of a block's mean login in seconds, and of sshd's processor seconds for all of them."""

    login: float
    processor: float


def seconds_of(client: SshClient, key: Key) -> float:
    """How long one login takes, without Python's own polling for the end of a process."""
    given = client.command(key)
    silent = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    began = time.perf_counter()
    _, status = os.waitpid(os.posix_spawnp(given[0], given, os.environ, file_actions=silent), 0)
    taken = time.perf_counter() - began
    assert status == 0, "the key does not open the account"
    return taken


def processor_seconds(pid: int) -> float:
    """What a process and its ended children have used of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def memory(pid: int, name: str) -> float:
    """A process's memory by a line of its status, in MB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text("ascii").split("\n") if line.startswith(name))
    return int(line.split()[1]) / 1024


def logins(servers: dict[str, tuple[SshClient, int]], key: Key) -> dict[str, Cost]:
    """Log in to each in random order; servers: API and number of the listening process by name."""
    for client, _ in servers.values():
        seconds_of(client, key)  # caches warm up
    before = {name: processor_seconds(pid) for name, (_, pid) in servers.items()}
    times: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(LOGINS):
        for name in random.sample(list(servers), len(servers)):
            times[name].append(seconds_of(servers[name][0], key))
    # sshd takes up its ended children a moment after the client has its answer.
    time.sleep(0.3)
    return {
        name: Cost(
            math.log(statistics.fmean(times[name])),
            math.log(processor_seconds(pid) - before[name]),
        )
        for name, (_, pid) in servers.items()
    }


def plain_sshd(folder: Path, key: Key) -> Plain:
    """A plain sshd that this key opens; not started."""
    plain = Plain(folder, free_port(), sshd_path())
    plain.keys.mkdir(parents=True)
    (plain.keys / "authorized_keys").write_text(f"{key.public}\n", "ascii")
    plain.prepare()
    return plain


def block(key: Key) -> tuple[dict[str, Cost], float]:
    """One block with new servers: the costs by name, and the agent's processor seconds for each login."""
    with ExitStack() as stack:
        folder = stack.enter_context(strict_folder())
        host = stack.enter_context(enrolled(folder / "ours", stack.enter_context(small_service())))
        host.publish({USERNAME: [AuthorizedKey(key.public)]})
        servers = {"ours": (host.client, host.sshd.pid)}
        for name in ("plain", "again"):
            plain = plain_sshd(folder / name, key)
            plain.start()
            stack.callback(plain.stop)
            servers[name] = (SshClient(plain.port, plain.known_hosts), plain.pid)
        before = processor_seconds(host.agent_pid)
        costs = logins(servers, key)
        return costs, (processor_seconds(host.agent_pid) - before) / (LOGINS + 1)


def show(what: str, logarithms: list[float]) -> None:
    """Print a ratio and its interval from the logarithms of the blocks."""
    mean = statistics.fmean(logarithms)
    half = 1.96 * statistics.stdev(logarithms) / math.sqrt(len(logarithms))
    low, high = math.exp(mean - half), math.exp(mean + half)
    print(f"{what}: {math.exp(mean):.4f}, 95 % confidence interval {low:.4f} to {high:.4f}")


def compare(key: Key, blocks: int) -> None:
    """Measure so many blocks and print the ratios."""
    costs: list[dict[str, Cost]] = []
    agents: list[float] = []
    for number in range(blocks):
        cost, agent = block(key)
        costs.append(cost)
        agents.append(agent)
        if sys.stderr.isatty():
            print(f"\rblock {number + 1} of {blocks}", end="", file=sys.stderr, flush=True)
    for name in ("plain", "ours"):
        login = statistics.fmean(math.exp(cost[name].login) for cost in costs)
        processor = statistics.fmean(math.exp(cost[name].processor) / LOGINS for cost in costs)
        print(f"{name:<6} login: {login * 1000:.1f} ms, sshd's processor time {processor * 1000:.1f} ms")
    for name, title in (("ours", "ours to plain"), ("again", "plain to plain (noise)")):
        show(f"{title}, whole login", [cost[name].login - cost["plain"].login for cost in costs])
        show(f"{title}, sshd's processor time", [cost[name].processor - cost["plain"].processor for cost in costs])
    print(
        f"{blocks} blocks of {LOGINS} logins each; agent: {statistics.fmean(agents) * 1000:.2f} ms of processor a login"
    )


def at_rest(key: Key) -> None:
    """Print what an agent takes while nothing happens."""
    with ExitStack() as stack:
        folder = stack.enter_context(strict_folder())
        host = stack.enter_context(enrolled(folder / "ours", stack.enter_context(small_service())))
        host.publish({USERNAME: [AuthorizedKey(key.public)]})
        seconds_of(host.client, key)
        time.sleep(10)
        pid = host.agent_pid
        before = processor_seconds(pid)
        time.sleep(REST_SECONDS)
        used = processor_seconds(pid) - before
        print(f"agent: {memory(pid, 'VmRSS'):.1f} MB resident, {memory(pid, 'RssAnon'):.1f} MB of its own")
        print(f"agent at rest: {used / REST_SECONDS * 100:.3f} % of one processor over {REST_SECONDS} s")


if __name__ == "__main__":
    help_asked(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        client_key = Key.make(Path(scratch) / "key")
        compare(client_key, int(sys.argv[1]) if len(sys.argv) > 1 else 40)
        at_rest(client_key)
