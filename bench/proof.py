"""Runs what tries to break Keyrack, and writes what came of it under "Proof" in docs/figures.md.

    .venv/bin/python bench/proof.py [PART …] [--short]        (make figures runs all, with those of figures.py)

PART: names of parts below; the others stay as the page has them. --short: each in a few seconds. --try: so, and without
writing the page. A part that finds a fault says so on the page, and this ends with an error; one that could not be run
at all, or not in time, leaves what the page had.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import running
from usage import help_asked

HERE = Path(__file__).parent
ROOT = HERE.parent
PAGE = ROOT / "docs" / "figures.md"
HEAD = "## Proof"
MAX_MINUTES = 8.0

PYTHON = sys.executable
RUN = "One run"
"""The section that whole.py writes."""


@dataclass(frozen=True, slots=True)
class Part:
    """One harness. long, short: its command in either form; most_minutes: when it is ended."""

    name: str
    title: str
    long: tuple[str, ...]
    short: tuple[str, ...]
    most_minutes: float = MAX_MINUTES


def of_bench(
    name: str, title: str, file: str, long: str = "", short: str = "", most_minutes: float = MAX_MINUTES
) -> Part:
    """A harness of this folder, with its arguments."""
    command = (PYTHON, f"bench/{file}")
    return Part(name, title, (*command, *long.split()), (*command, *short.split()), most_minutes)


PARTS = (
    of_bench("hostile", "Requests that no program of good will sends", "hostile.py"),
    of_bench("generated", "Every call that is described, with generated input", "generated.py", "2", "1 40 sqlite", 12),
    of_bench("changed-keys", "Keys changed by chance, beside ssh-keygen", "mutations.py", "1000000", "5000"),
    of_bench("fuzzing", "Everything that reads what strangers write, fuzzed", "fuzz.py", "12", "5"),
    of_bench("network", "The network between service and host", "bad_network.py", "9", "9"),
    of_bench("database-network", "The network between service and PostgreSQL", "bad_database.py", "4", "1"),
    of_bench("clock", "A clock that is an hour or a day off", "clock.py", "3", "3"),
    of_bench("disk", "A disk that is full", "full_disk.py", "6", "4"),
    of_bench("export", "Exporting and verifying the audit log", "audit_export.py", "1000000", "20000"),
    of_bench(
        "export-postgresql",
        "Exporting and verifying the audit log, PostgreSQL",
        "audit_export.py",
        "100000 postgresql",
        "20000 postgresql",
    ),
    of_bench("beside", "Beside authorized_keys written by hand", "beside.py", "5", "3"),
    of_bench("side-by-side", "Side by side with what people would pick instead", "side_by_side.py", "3", "2"),
    of_bench("day", "A day of a fleet in some minutes", "day.py", "10000 20 50", "20 0.5 10", 27),
    of_bench("kills-sqlite", "SIGKILL of a random process, SQLite", "kills.py", "sqlite 200", "sqlite 10", 10),
    of_bench(
        "kills-postgresql",
        "SIGKILL of a random process and of the database, PostgreSQL",
        "kills.py",
        "postgresql 150",
        "postgresql 10",
        10,
    ),
)


def run(part: Part, short: bool) -> tuple[str, bool]:
    """What a part printed, as the page shows it, "" where it could not be run; and whether it found nothing wrong."""
    command = part.short if short else part.long
    print(f"== {part.name}: {' '.join(command[1:])}", flush=True)
    ended = running.run(command, part.most_minutes * 60)
    table = "\n".join(line for line in ended.said.splitlines() if line.startswith("|"))
    if ended.status is None:
        print(f"   NOT RUN: not within {part.most_minutes:g} minutes", flush=True)
        return "", False
    if ended.status == running.CANNOT or table.count("\n") < 2:
        print(f"   NOT RUN: {ended.why}", flush=True)
        return "", False
    if ended.status:
        print(f"   A FAULT: {ended.why}", flush=True)
        return f"{table}\n\n**A fault was found.**", False
    return table, True


def kept(text: str) -> dict[str, str]:
    """The sections that the page has, by title."""
    sections = text.partition(f"\n{HEAD}\n")[2].split("\n### ")[1:]
    return {title: body.strip() for title, _, body in (one.partition("\n") for one in sections)}


def write(fresh: dict[str, str], of_run: str = "") -> None:
    """The page, with these sections in place of what it had. of_run: what it says of a run of everything."""
    text = PAGE.read_text("utf-8")
    sections = {**kept(text), **({RUN: of_run} if of_run else {}), **fresh}
    lines = [
        text.partition(f"\n{HEAD}\n")[0].rstrip(),
        "",
        HEAD,
        "",
        "`make figures` runs these, after those above, and writes them here.",
        "",
    ]
    for title in (RUN, *(part.title for part in PARTS)):
        lines += [f"### {title}", "", sections.get(title, "Not run yet."), ""]
    PAGE.write_text("\n".join(lines).rstrip() + "\n", "utf-8")


def one(part: Part, *, short: bool, writing: bool = True) -> bool:
    """Run a part and write it to the page; whether it found nothing wrong."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout
    load = os.getloadavg()[0]
    words, is_sound = run(part, short)
    command = " ".join(word.replace(PYTHON, "python") for word in (part.short if short else part.long))
    when = f"{time.strftime('%Y-%m-%d')}, {commit.strip()}, load {load:.1f}: `{command}`"
    if words and writing:
        write({part.title: f"{when}\n\n{words}"})
    return is_sound


def main() -> int:
    """Run what was asked for, and write the page after each."""
    names = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    trying = "--try" in sys.argv
    wanted = [part for part in PARTS if not names or part.name in names]
    found = [one(part, short=trying or "--short" in sys.argv, writing=not trying) for part in wanted]
    return 0 if all(found) else 1


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
