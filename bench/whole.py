"""All figures and all proofs from one run: everything that figures.py and proof.py have, one after another.

    .venv/bin/python bench/whole.py [--afresh|--try]                 (make figures)

For a machine with nothing else to do; it takes about an hour, of which the fleet's day is twenty minutes; what is timed
comes first. What is done is kept beside the
virtual environment (`.venv/figures-run.json`): stopped, it goes on with what is missing, as long as the commit is the
same; --afresh, another commit, or a run that was whole, begins anew. Each part is ended when it takes too long, and the
next one goes on. The page says of the run when, of which commit, on what machine, and how long each part took; a part
that did not end well stands there as such, and is run again the next time. --try: each part in its shortest form,
without writing anything; what fails is said at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import figures
import proof
from usage import help_asked

ROOT = Path(__file__).parent.parent
FILE = Path(sys.prefix) / "figures-run.json"


def state(afresh: bool) -> dict[str, Any]:
    """What the run to go on with has done, or a new one. done: of each part the minutes it took."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    if FILE.exists() and not afresh:
        kept: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
        if kept["commit"] == commit:
            return kept
    return {"commit": commit, "begun": time.strftime("%Y-%m-%d %H:%M"), "done": {}, "loads": []}


def words(run: dict[str, Any], missing: list[str]) -> str:
    """What the page says of the run."""
    took = ", ".join(f"{name} {minutes:.1f}" for name, minutes in run["done"].items())
    loads = run["loads"]
    return "\n".join(
        [
            f"Begun {run['begun']}, commit {run['commit'][:8]}, {figures.machine()}; load before each part "
            f"{min(loads):.1f} to {max(loads):.1f}.",
            f"Not in it, and from an earlier run: {', '.join(missing)}." if missing else "It is whole.",
            f"Minutes: {took} (together {sum(run['done'].values()):.0f}).",
        ]
    )


def parts(*, small: bool = False) -> dict[str, Callable[[], bool]]:
    """Every part by name: what runs it, writes it to the page and says whether it ended well. small: only tried."""
    found: dict[str, Callable[[], bool]] = {
        group.name: lambda group=group: figures.one(group, small=small)  # type: ignore[misc]
        for group in figures.GROUPS
    }
    return found | {
        part.name: lambda part=part: proof.one(part, short=small, writing=not small) for part in proof.PARTS
    }


def ended_well(name: str, work: Callable[[], bool]) -> bool:
    """Run a part; whatever befalls it, the others are run too."""
    try:
        return work()
    except Exception:
        print(f"   {name} broke:\n{traceback.format_exc()}", flush=True)
        return False


def tried() -> int:
    """Each part in its shortest form."""
    failed = []
    for name, work in parts(small=True).items():
        began = time.monotonic()
        if not ended_well(name, work):
            failed.append(name)
        print(f"   {name}: {time.monotonic() - began:.0f} s", flush=True)
    print(f"Failed: {', '.join(failed)}." if failed else "All parts can be run.")
    return 1 if failed else 0


def main() -> int:
    """Run what is missing."""
    if "--try" in sys.argv:
        return tried()
    run, every = state("--afresh" in sys.argv), parts()
    sound, whole = True, time.monotonic()
    for number, (name, work) in enumerate(every.items(), 1):
        if name in run["done"]:
            continue
        print(f"-- {number} of {len(every)}, after {(time.monotonic() - whole) / 60:.0f} minutes", flush=True)
        run["loads"].append(os.getloadavg()[0])
        began = time.monotonic()
        if ended_well(name, work):
            run["done"][name] = (time.monotonic() - began) / 60
        else:
            sound = False
        FILE.write_text(json.dumps(run), "utf-8")
        proof.write({}, words(run, [one for one in every if one not in run["done"]]))
    if sound:
        FILE.unlink()
    return 0 if sound else 1


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
