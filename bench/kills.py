"""SIGKILL of each process of Keyrack under load, as often as is said, in runs of fifty that are added up.

    .venv/bin/python bench/kills.py sqlite|postgresql [COUNT]

COUNT (1,000 unless said) is how many kills there are in the end: what runs before counted is kept beside the virtual
environment (`.venv/kills-….json`) as long as the commit is the same, so that one that was stopped goes on. Each run is
tests/crash/test_many_processes.py on a new database, which looks up everything that was acknowledged after each kill;
on PostgreSQL the database itself is killed after each tenth. Prints a table as docs/figures.md has it; anything lost,
found twice or without its event ends this with an error.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from usage import help_asked

ROOT = Path(__file__).parent.parent
BATCH_SIZE = 50
SAID = re.compile(r"Nothing was lost: \d+ kills \((.*?)\) in \d+ s; .*: (\d+) keys, (\d+) revocations, (\d+) users")


def head() -> str:
    """The commit that is tried."""
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()


def one_run(database: str, kills: int) -> tuple[Counter[str], str]:
    """What one run killed and found again; or why it ended."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "tests/crash/test_many_processes.py", "-k", database]
    environment = {**os.environ, "KEYRACK_ROUNDS": str(kills), "KEYRACK_LONG": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    said = SAID.search(done.stdout)
    if done.returncode or said is None:
        return Counter(), done.stdout[-4000:] + done.stderr[-1000:]
    found = Counter({name: int(count) for name, count in (one.rsplit(" ", 1) for one in said[1].split(", "))})
    found.update(dict(zip(("keys", "revocations", "users"), map(int, said.groups()[1:]), strict=True)))
    return found, ""


def main() -> int:
    """Go on where the last run of this commit ended."""
    if len(sys.argv) < 2 or sys.argv[1] not in ("sqlite", "postgresql"):
        print(__doc__, file=sys.stderr)
        return 2
    database, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    file = Path(sys.prefix) / f"kills-{database}.json"
    before = json.loads(file.read_text("utf-8")) if file.exists() else {}
    sums: Counter[str] = Counter(before["sums"] if before.get("commit") == head() else {})
    began, fault = time.monotonic(), ""
    kept = ("keys", "revocations", "users")
    while not fault and (left := count - sum(many for name, many in sums.items() if name not in kept)) > 0:
        found, fault = one_run(database, max(10, min(BATCH_SIZE, left)))
        sums.update(found)
        file.write_text(json.dumps({"commit": head(), "sums": sums}), "utf-8")
        print(f"{dict(sums)} after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    killed = {name: many for name, many in sorted(sums.items()) if name not in kept}
    each = ", ".join(f"{name} {many}" for name, many in killed.items())
    acknowledged = ", ".join(f"{sums[name]:,} {name}" for name in kept)
    print("| kills | of which | acknowledged, and there with their events | lost, twice or without an event |")
    print("|---|---|---|---|")
    print(f"| {sum(killed.values()):,} | {each} | {acknowledged} | {'**see below**' if fault else 0} |")
    print(fault, file=sys.stderr)
    if not fault:
        file.unlink(missing_ok=True)  # the next one begins anew
    return 1 if fault else 0


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
