"""Runs what tries to break Keyrack, and writes what came of it under "Proof" in docs/figures.md.

    .venv/bin/python bench/proof.py [PART …] [--short]        (make figures runs all, with those of figures.py)

PART: names of parts below; the others stay as the page has them. --short: each in a few seconds. A part that finds a
fault says so on the page, and this ends with an error.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
PAGE = ROOT / "docs" / "figures.md"
HEAD = "## Proof"
LONGEST = 3600

PYTHON = sys.executable
RUN = "One run"
"""The section that whole.py writes."""


@dataclass(frozen=True, slots=True)
class Part:
    """One harness. long, short: its command in either form."""

    name: str
    title: str
    long: tuple[str, ...]
    short: tuple[str, ...]


def of_bench(name: str, title: str, file: str, long: str = "", short: str = "") -> Part:
    """A harness of this folder, with its arguments."""
    command = (PYTHON, f"bench/{file}")
    return Part(name, title, (*command, *long.split()), (*command, *short.split()))


PARTS = (
    of_bench("hostile", "Requests that no program of good will sends", "hostile.py"),
    of_bench("changed-keys", "Keys changed by chance, beside ssh-keygen", "mutations.py", "1000000", "5000"),
    of_bench("fuzzing", "Everything that reads what strangers write, fuzzed", "fuzz.py", "20", "5"),
    of_bench("network", "The network between service and host", "bad_network.py", "15", "9"),
    of_bench("clock", "A clock that is an hour or a day off", "clock.py", "6", "3"),
    of_bench("disk", "A disk that is full", "full_disk.py", "6", "4"),
    of_bench("export", "Exporting and verifying the audit log", "audit_export.py", "1000000", "20000"),
    of_bench(
        "export-postgresql",
        "Exporting and verifying the audit log, PostgreSQL",
        "audit_export.py",
        "1000000 postgresql",
        "20000 postgresql",
    ),
    of_bench("beside", "Beside authorized_keys written by hand", "beside.py", "5", "3"),
    of_bench("side-by-side", "Side by side with what people would pick instead", "side_by_side.py", "5", "2"),
    of_bench("day", "A day of a fleet in twenty minutes", "day.py", "1000 5 50", "20 0.5 10"),
    of_bench("kills-sqlite", "SIGKILL of a random process, SQLite", "kills.py", "sqlite 1000", "sqlite 10"),
    of_bench(
        "kills-postgresql",
        "SIGKILL of a random process and of the database, PostgreSQL",
        "kills.py",
        "postgresql 1000",
        "postgresql 10",
    ),
)


def run(part: Part, short: bool) -> tuple[str, bool]:
    """What a part printed, as the page shows it, and whether it found nothing wrong."""
    command = part.short if short else part.long
    print(f"== {part.name}", flush=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return f"Not within {LONGEST} s.", False
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    print("\n".join(table) or done.stdout[-2000:], done.stderr[-2000:] if done.returncode else "", sep="\n", flush=True)
    if done.returncode:
        return "\n".join([*table, "", "**A fault was found.**"]).strip(), False
    return "\n".join(table) or "It printed nothing.", bool(table)


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


def one(part: Part, *, short: bool) -> bool:
    """Run a part and write it to the page; whether it found nothing wrong."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout
    load = os.getloadavg()[0]
    words, is_sound = run(part, short)
    command = " ".join(word.replace(PYTHON, "python") for word in (part.short if short else part.long))
    when = f"{time.strftime('%Y-%m-%d')}, {commit.strip()}, load {load:.1f}: `{command}`"
    write({part.title: f"{when}\n\n{words}"})
    return is_sound


def main() -> int:
    """Run what was asked for, and write the page after each."""
    names = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    short = "--short" in sys.argv
    found = [one(part, short=short) for part in PARTS if not names or part.name in names]
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main())
