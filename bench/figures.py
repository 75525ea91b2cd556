"""Runs the benchmarks of what is promised and writes docs/figures.md: what was, what is now, what is aimed at.

    .venv/bin/python bench/figures.py [ROWS …] [--short|--try]

ROWS: names of groups below (api-sqlite, hosts-1000 …); the figures of the others stay as the page has them.
--short: all but those that take many minutes. --try: a small form of each, which says whether all its figures are found
and writes nothing. A figure that could not be had stays as the page has it, and this says so; the page says when, where
and of which commit, and how each is had.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import running
from usage import help_asked

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "figures.md"
MAX_MINUTES = 6.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: what is measured, what it was at first, the aim, where it stands in what the benchmark prints (its first
    group, each time it is found), and which of them counts. spread: where it says how far that may be off.
    """

    what: str
    before: str
    aim: str
    pattern: str
    unit: str = ""
    of: Callable[[list[float]], float] = max
    spread: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Figures that one run of one benchmark prints.

    small: its arguments where it is only tried; long: it takes minutes; most_minutes: when it is ended.
    """

    name: str
    command: tuple[str, ...]
    figures: tuple[Figure, ...]
    small: tuple[str, ...] = ()
    long: bool = False
    most_minutes: float = MAX_MINUTES


def ratio(name: str, before: str, aim: str) -> tuple[Figure, Figure]:
    """A ratio to the bare server: of requests a second, and of the processor time that one takes."""
    line = rf"{re.escape(name)} +ours .* "
    clock, processor = line + r"ratio ([\d.]+)", line + r"of processor time ([\d.]+)"
    off = r" (± [\d.]+ %)"
    return (
        Figure(
            f"{name}, ratio",
            before,
            aim if aim == "—" else f"≥ {aim}",
            clock,
            of=min,
            spread=clock.replace("(", "(?:") + off,
        ),
        Figure(
            f"{name}, ratio of processor time", "—", "—", processor, of=min, spread=processor.replace("(", "(?:") + off
        ),
    )


API = (
    *ratio("add a credential", "0.032", "0.30"),
    *ratio("get a credential", "0.039", "0.40"),
    *ratio("list a page", "0.039", "0.40"),
    *ratio("add a user key", "0.038", "0.30"),
    *ratio("list user keys", "0.044", "0.40"),
)
ON_POSTGRESQL = (
    *ratio("add a credential", "0.028", "0.30"),
    *ratio("get a credential", "0.116", "0.45"),
    *ratio("list a page", "—", "—"),
    *ratio("add a user key", "—", "—"),
    *ratio("list user keys", "—", "—"),
)


def of_hosts(name: str, before: str, aim: str, unit: str = "s") -> Figure:
    """A line of bench/hosts.py; of several the worst."""
    return Figure(name, before, f"≤ {aim}", rf"{name}\S* .*?([\d.]+|inf) +\S* +limit", unit)


GROUPS = (
    Group("api-sqlite", ("api.py", "sqlite", "1.5", "8"), API, ("sqlite", "0.5", "2"), most_minutes=8),
    Group(
        "api-postgresql",
        ("api.py", "postgresql", "1.5", "8"),
        ON_POSTGRESQL,
        ("postgresql", "0.5", "2"),
        most_minutes=8,
    ),
    Group(
        "hosts-1000",
        ("hosts.py", "wake", "1000"),
        (
            of_hosts("1000 hosts woken: p50", "3.4", "1"),
            of_hosts("1000 hosts woken: p99", "5.5", "1"),
            of_hosts("first contact of 1000", "—", "2"),
            of_hosts("an add meanwhile, p99", "—", "0.2"),
        ),
        ("wake", "50"),
    ),
    Group(
        "hosts-10000",
        ("hosts.py", "wake", "10000"),
        (
            of_hosts("10000 hosts woken: p99", "never finished", "10"),
            of_hosts("first contact of 10000", "125, 797 dropped", "20"),
            of_hosts("turned away or dropped", "797", "0", ""),
            of_hosts("an add meanwhile, p99", "—", "0.2"),
        ),
        ("wake", "60"),
        long=True,
    ),
    Group(
        "hosts-at-rest",
        ("hosts.py", "rest", "10000", "sqlite", "60"),
        (
            of_hosts("10000 hosts at rest: of a core", "111", "5", "%"),
            of_hosts("memory a host", "30", "30", "kB"),
            of_hosts("memory of the service before any host came", "93", "80", "MB"),
        ),
        ("rest", "50", "sqlite", "3"),
        long=True,
    ),
    Group(
        "large-host",
        ("hosts.py", "large-host", "10000"),
        (of_hosts("one more on 10000 keys", "0.65", "0.2"),),
        ("large-host", "100"),
    ),
    Group(
        "larger-host",
        ("hosts.py", "large-host", "50000"),
        (of_hosts("one more on 50000 keys", "3.4", "1"),),
        ("large-host", "200"),
        long=True,
    ),
    Group(
        "many-servers",
        ("many_servers.py", "1000"),
        (
            Figure("revoke a key on 1,000 servers", "2.3", "≤ 0.3", r"revoke everywhere +([\d.]+) s", "s"),
            Figure("its processor time", "—", "—", r"revoke everywhere +[\d.]+ s +([\d.]+) s", "s"),
        ),
        ("50",),
    ),
    Group(
        "more-servers",
        ("many_servers.py", "10000"),
        (
            Figure("one key on 10,000 servers", "10,000 calls", "≤ 1", r"^add +([\d.]+) s", "s"),
            Figure("its processor time", "—", "—", r"^add +[\d.]+ s +([\d.]+) s", "s"),
        ),
        ("60",),
    ),
    Group(
        "apply",
        ("apply.py", "10000", "10000"),
        (
            Figure("apply of 10,000 users and system users", "116", "≤ 15", r"^first: .*?, ([\d.]+) s,", "s"),
            Figure("its processor time", "—", "—", r"^first: .*?, ([\d.]+) s of the process", "s"),
            Figure("the same again", "7.4", "≤ 2", r"^again: .*?, ([\d.]+) s,", "s"),
        ),
        ("50", "50"),
        long=True,
    ),
    Group(
        "growth",
        ("growth.py", "1000000", "25000"),
        (
            Figure("one delete at 1,000,000 user keys", "145", "≤ 5", r"^delete .*: +([\d.]+) ms", "ms"),
            Figure("one revocation there", "141", "≤ 5", r"^revoke .*: +([\d.]+) ms", "ms"),
        ),
        ("200", "100"),
        long=True,
    ),
    Group(
        "hosts-list",
        ("hosts_list.py", "9"),
        (
            Figure("`keyrack hosts list`, logged in", "—", "≤ 0.3", r"over HTTP ([\d.]+)", "s", min),
            Figure("`keyrack hosts list` on the data", "0.93", "≤ 0.3", r"on the data ([\d.]+)", "s", min),
            Figure("processor time of the former", "—", "≤ 0.3", r"over HTTP .* of which ([\d.]+)", "s", min),
            Figure("processor time of the latter", "—", "≤ 0.3", r"on the data .* of which ([\d.]+)", "s", min),
        ),
        ("2",),
    ),
    Group(
        "sign-in",
        ("sign_in_load.py", "100", "5"),
        (Figure("other calls' p99 while 100 sign in at once", "—", "≤ 50", r"p99 meanwhile +([\d.]+) ms", "ms"),),
        ("10", "1"),
    ),
)


def run(group: Group, *, small: bool = False) -> dict[str, str]:
    """What one benchmark printed, by figure; of one that took too long what it printed until then."""
    arguments = group.small if small else group.command[1:]
    print(f"== {group.name}: {group.command[0]} {' '.join(arguments)}", flush=True)
    ended = running.run([sys.executable, str(HERE / group.command[0]), *arguments], group.most_minutes * 60)
    if ended.status is None:
        print(f"   not within {group.most_minutes:g} minutes", flush=True)
    found = {}
    for figure in group.figures:
        # In a small form the numbers in its words are others.
        pattern, spread = (
            re.sub(r"\b\d{4,}\b", r"\\d+", one) if small else one for one in (figure.pattern, figure.spread)
        )
        values = [float(value) for value in re.findall(pattern, ended.said, re.MULTILINE)]
        if values:
            found[figure.what] = f"{figure.of(values):g} {figure.unit}".strip()
        if values and spread and (off := re.findall(spread, ended.said, re.MULTILINE)):
            found[figure.what] += f" {off[0]}"
    return found


def kept() -> dict[str, list[str]]:
    """The rows that the page has: the first cell to the others."""
    if not PAGE.exists():
        return {}
    rows = [line.strip("|\n ").split(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows[1:] if len(row) == 5}


def machine() -> str:
    """What it was measured on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = cpu[1] if cpu else platform.machine()
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({name}), {memory:.0f} GB, {system}"


def write(found: dict[str, str], when: str) -> None:
    """The page."""
    before = kept()
    lines = [
        "# Figures",
        "",
        "What the benchmarks in `bench/` say; `make figures` runs all and writes this page. A ratio is to a bare",
        "Starlette on the same database that does one durable insert, or one select, in the same run: one process, 16",
        "connections, in rounds of both in turn: the middle of the rounds; the part behind ± says how far it may",
        "be off. The load says how many others wanted the machine's processors meanwhile: beyond a half, times by the",
        "clock say little, and those of the processor are what to compare.",
        "",
        f"Machine of the newest figures: {machine()}.",
        "",
        "| what | before | now | aim | measured |",
        "|---|---|---|---|---|",
    ]
    for group in GROUPS:
        for figure in group.figures:
            name = f"{figure.what} ({group.name})"
            old = before.get(name, ["", "not measured", "", "—"])
            now, measured = (found[name], when) if name in found else (old[1], old[3])
            was, aim = (
                f"{text} {figure.unit}" if text[-1:].isdigit() else text for text in (figure.before, figure.aim)
            )
            lines.append(f"| {name} | {was} | {now} | {aim} | {measured} |")
    lines += ["", "How each is had, after `python bench/` (of a ratio: seconds of a round, the most rounds):", ""]
    lines += [f"- {group.name}: `{' '.join(group.command)}`" for group in GROUPS]
    table = "\n".join(re.sub(r" +\|", " |", line) for line in lines) + "\n"
    # What stands below is written by proof.py.
    below = PAGE.read_text("utf-8").partition("\n## ") if PAGE.exists() else ("", "", "")
    PAGE.write_text(table + below[1] + below[2], "utf-8")


def one(group: Group, *, small: bool = False) -> bool:
    """Run a group and write what it found to the page, small: without that; whether each of its figures was had."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    load = os.getloadavg()[0]
    found = {f"{what} ({group.name})": value for what, value in run(group, small=small).items()}
    if not small:
        write(found, f"{time.strftime('%Y-%m-%d')}, {commit.strip()}, load {load:.1f}")
    missing = [figure.what for figure in group.figures if f"{figure.what} ({group.name})" not in found]
    print(*(f"   NOT MEASURED: {what}" for what in missing), sep="\n", end="\n" if missing else "", flush=True)
    return not missing


def main() -> int:
    """Run what was asked for, and write the page after each."""
    names = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    wanted = [group for group in GROUPS if not names or group.name in names]
    had = [one(group, small="--try" in sys.argv) for group in wanted if not (group.long and "--short" in sys.argv)]
    return 0 if all(had) else 1


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
