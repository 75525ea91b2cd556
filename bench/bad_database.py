"""What callers notice while the network between the service and PostgreSQL fails in every way, by chance from a seed.

    .venv/bin/python bench/bad_database.py [ROUNDS] [SEED]

A real service and a real PostgreSQL with a proxy between them that resets, cuts, half closes, delays and spoils
connections in each of ROUNDS (20 unless said), old and new ones, while six callers add keys and read. The bounds of the
product are seconds here in place of a minute. Prints a table as docs/figures.md has it; a call without an answer, one
that is neither made nor refused as "unavailable", a change that is lost or there twice, or a place that is not
given back ends this with an error.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack.store.engine import migrate
from tests.bad_database_network import behind_a_proxy, held, rounds, short_bounds
from tests.postgres import Cluster, database_name

AT_ONCE = 10
MOST_MORE = 40  # a connection and its epoll for each place of the pools that was not used before


def main() -> int:
    """Set up, and fail again and again."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # the table alone
    count, seed = [*(int(word) for word in sys.argv[1:]), 20, 1][:2] if len(sys.argv) != 2 else (int(sys.argv[1]), 1)
    wrong = False
    with tempfile.TemporaryDirectory() as folder:
        (at := Path(folder) / "postgresql").mkdir()
        Path(folder).chmod(0o755)
        cluster = Cluster(at)
        cluster.start()
        try:
            template = cluster.create_database()
            migrate.upgrade(template)
            with short_bounds(), behind_a_proxy(cluster, database_name(template), Path(folder), seed) as made:
                proxy, service, url = made
                rounds(proxy, service, url, range(seed * 1000, seed * 1000 + 1))
                before, began = held(proxy), time.monotonic()
                print("| rounds | calls | refused as unavailable | the longest call | more descriptors, threads |")
                print("|---|---|---|---|---|")
                for first in range(seed * 1000 + 1, seed * 1000 + 1 + count, AT_ONCE):
                    some = range(first, min(first + AT_ONCE, seed * 1000 + 1 + count))
                    calls = rounds(proxy, service, url, some)
                    more = [now - then for now, then in zip(held(proxy), before, strict=True)]
                    wrong |= max(more) >= MOST_MORE
                    refused, longest = calls.statuses.count(503), calls.longest
                    words = (len(some), len(calls.statuses), refused, f"{longest:.1f} s", f"{more[0]}, {more[1]}")
                    print(f"| {' | '.join(map(str, words))} |", flush=True)
                print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
        finally:
            cluster.stop()
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
