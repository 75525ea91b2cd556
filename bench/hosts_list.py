"""How long `keyrack hosts list` takes, over HTTP and on the data: the shortest of some runs of each.

.venv/bin/python bench/hosts_list.py [RUNS]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from api import SECRET, ours
from usage import help_asked

RUNS = 9


def shortest(runs: int, folder: str, *options: str, **asked: str) -> str:
    """Seconds by the clock and of the processor. options: of the command; asked: of its environment."""
    command = [str(Path(sys.executable).parent / "keyrack"), "hosts", "list", *options]
    clocks, spent = [], []
    for _ in range(runs):
        began, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, env=os.environ | asked)
        after = os.times()
        clocks.append(time.perf_counter() - began)
        spent.append(after.children_user - before.children_user + after.children_system - before.children_system)
    return f"{min(clocks):.2f} s, of which {min(spent):.2f} s computing"


def main() -> None:
    """Serve, ask, and ask again without the service."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody who types it has everything compiled anew each time
    with tempfile.TemporaryDirectory() as folder:
        with ours("", Path(folder)) as served:
            where = {"KEYRACK_URL": f"http://127.0.0.1:{served.port}", "KEYRACK_TOKEN": SECRET}
            print(f"over HTTP {shortest(runs, folder, **where)}", flush=True)
        print(f"on the data {shortest(runs, folder, '--data', str(Path(folder) / 'data'))}")


if __name__ == "__main__":
    help_asked(__doc__)
    main()
