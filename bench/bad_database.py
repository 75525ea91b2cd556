"""What callers notice while the network between the service and PostgreSQL fails in every way, by chance from a seed.

    .venv/bin/python bench/bad_database.py [ROUNDS] [SEED]

A real service and a real PostgreSQL with a proxy between them that fails in each of its ways for ROUNDS times (2
unless said), on old and new connections, while six callers add keys and read, sign in, ask and report as a host's
agent, and ask as Git's sshd does; a webhook gets all events. The bounds of the product are seconds here in place of a
minute. Prints a table as docs/figures.md has it; a change that is lost, there twice, without its event or not told,
and a call without an answer ends this with an error, as do an answer that is neither good nor "unavailable" and a
place that is not given back.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import structlog
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack.store.engine import migrate
from tests.bad_database_network import Calls, behind_a_proxy, held, rounds, short_bounds
from tests.fault_proxy import WAYS, FaultProxy
from tests.postgres import Cluster, database_name

MAX_MORE = 40  # a connection and its epoll for each place of the pools that was not used before
COLUMNS = (
    "the network to PostgreSQL",
    "calls",
    "answered 503",
    "changes acknowledged",
    "lost",
    "twice",
    "without an event",
    "not told to the webhook",
    "no answer in a minute",
    "the longest call",
    "takes changes again after",
    "more descriptors, threads",
)
NAMES = {
    "reset": "reset",
    "silent": "takes bytes, and nothing comes",
    "cut off": "cut, and neither side notices",
    "half closed": "closed in one direction",
    "ended": "ended",
    "garbage": "bytes that are not the server's",
    "late": "0.3 s late in each direction",
    "slow": "40 bytes at a time",
}


def main() -> int:
    """Set up, and fail in each way again and again."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # the table alone
    count, seed = ([int(word) for word in sys.argv[1:]] + [2, 1][len(sys.argv) - 1 :])[:2]
    wrong = False
    with tempfile.TemporaryDirectory() as folder:
        (at := Path(folder) / "postgresql").mkdir()
        Path(folder).chmod(0o755)
        cluster = Cluster(at)
        cluster.start()
        try:
            template = cluster.create_database()
            migrate.upgrade(template)
            print(f"| {' | '.join(COLUMNS)} |")
            print("|" + "---|" * len(COLUMNS))
            with short_bounds(), behind_a_proxy(cluster, database_name(template), Path(folder), seed) as made:
                proxy, calls, url = made
                rounds(proxy, calls, url, range(seed * 1000, seed * 1000 + 1))
                for number, way in enumerate(WAYS):
                    first = seed * 1000 + 1 + number * count
                    wrong |= not is_sound(proxy, calls.anew(), url, range(first, first + count), way)
        finally:
            cluster.stop()
    return int(wrong)


def is_sound(proxy: FaultProxy, calls: Calls, url: str, seeds: range, way: str) -> bool:
    """Print the row of one way to fail; whether all was as it must be."""
    before = held(proxy)
    wrong = rounds(proxy, calls, url, seeds, (way,))
    more = [now - then for now, then in zip(held(proxy), before, strict=True)]
    kinds = (wrong.lost, wrong.twice, wrong.without_event, wrong.untold)
    words = (
        NAMES[way],
        len(calls.statuses),
        calls.statuses.count(503),
        len(calls.made),
        *map(len, kinds),
        calls.hung,
        f"{calls.longest:.1f} s",
        f"{calls.whole_again:.1f} s",
        f"{more[0]}, {more[1]}",
    )
    print(f"| {' | '.join(map(str, words))} |", flush=True)
    return not (any(kinds) or calls.hung or max(more) >= MAX_MORE)


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
