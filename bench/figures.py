"""Runs the benchmarks of what is promised and writes docs/figures.md: what was, what is now, what is aimed at.

    .venv/bin/python bench/figures.py [ROWS …] [--short]

ROWS: names of groups below (api-sqlite, hosts-1000 …); the figures of the others stay as the page has them.
--short: all but those that take many minutes. A figure that could not be had says so; the page says when, where and of
which commit.
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

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "figures.md"
MOST_SECONDS = 1200


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
    """Figures that one run of one benchmark prints; long: it takes many minutes."""

    name: str
    command: tuple[str, ...]
    figures: tuple[Figure, ...]
    long: bool = False


def ratio(name: str, before: str, aim: str) -> tuple[Figure, Figure]:
    """A ratio to the bare server: of requests a second, and of the processor time that one takes."""
    line = rf"{re.escape(name)} +ours .* "
    clock, processor = line + r"ratio ([\d.]+)", line + r"of processor time ([\d.]+)"
    off = r" (± [\d.]+ %)"
    return (
        Figure(f"{name}, ratio", before, f"≥ {aim}", clock, of=min, spread=clock.replace("(", "(?:") + off),
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
ON_POSTGRESQL = (*ratio("add a credential", "0.028", "0.30"), *ratio("get a credential", "0.116", "0.45"))


def of_hosts(name: str, before: str, aim: str, unit: str = "s") -> Figure:
    """A line of bench/hosts.py; of several the worst."""
    return Figure(name, before, f"≤ {aim}", rf"{name}\S* .*?([\d.]+|inf) +\S* +limit", unit)


GROUPS = (
    Group("api-sqlite", ("api.py", "sqlite", "2"), API),
    Group("api-postgresql", ("api.py", "postgresql", "2"), ON_POSTGRESQL),
    Group(
        "hosts-1000",
        ("hosts.py", "wake", "1000"),
        (
            of_hosts("1000 hosts woken: p50", "3.4", "1"),
            of_hosts("1000 hosts woken: p99", "5.5", "1"),
            of_hosts("first contact of 1000", "—", "2"),
            of_hosts("an add meanwhile, p99", "—", "0.2"),
        ),
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
        long=True,
    ),
    Group(
        "hosts-at-rest",
        ("hosts.py", "rest", "10000"),
        (
            of_hosts("10000 hosts at rest: of a core", "111", "5", "%"),
            of_hosts("memory a host", "30", "30", "kB"),
            of_hosts("memory of the service before any host came", "93", "80", "MB"),
        ),
        long=True,
    ),
    Group("large-host", ("hosts.py", "large-host", "10000"), (of_hosts("one more on 10000 keys", "0.65", "0.2"),)),
    Group(
        "larger-host",
        ("hosts.py", "large-host", "50000"),
        (of_hosts("one more on 50000 keys", "3.4", "1"),),
        long=True,
    ),
    Group(
        "many-servers",
        ("many_servers.py", "1000"),
        (
            Figure("revoke a key on 1,000 servers", "2.3", "≤ 0.3", r"revoke everywhere +([\d.]+) s", "s"),
            Figure("its processor time", "—", "—", r"revoke everywhere +[\d.]+ s +([\d.]+) s", "s"),
        ),
    ),
    Group(
        "more-servers",
        ("many_servers.py", "10000"),
        (
            Figure("one key on 10,000 servers", "10,000 calls", "≤ 1", r"^add +([\d.]+) s", "s"),
            Figure("its processor time", "—", "—", r"^add +[\d.]+ s +([\d.]+) s", "s"),
        ),
    ),
    Group(
        "apply",
        ("apply.py", "10000", "10000"),
        (
            Figure("apply of 10,000 users and system users", "116", "≤ 15", r"^first: .*?, ([\d.]+) s,", "s"),
            Figure("its processor time", "—", "—", r"^first: .*?, ([\d.]+) s of the process", "s"),
            Figure("the same again", "7.4", "≤ 2", r"^again: .*?, ([\d.]+) s,", "s"),
        ),
        long=True,
    ),
    Group(
        "growth",
        ("growth.py", "1000000", "25000"),
        (
            Figure("one delete at 1,000,000 user keys", "145", "≤ 5", r"^delete .*: +([\d.]+) ms", "ms"),
            Figure("one revocation there", "141", "≤ 5", r"^revoke .*: +([\d.]+) ms", "ms"),
        ),
        long=True,
    ),
    Group(
        "hosts-list",
        (),
        (
            Figure("`keyrack hosts list`, logged in", "—", "≤ 0.3", r"over HTTP ([\d.]+)", "s", min),
            Figure("`keyrack hosts list` on the data", "0.93", "≤ 0.3", r"on the data ([\d.]+)", "s", min),
            Figure("processor time of the former", "—", "≤ 0.3", r"over HTTP .* of which ([\d.]+)", "s", min),
            Figure("processor time of the latter", "—", "≤ 0.3", r"on the data .* of which ([\d.]+)", "s", min),
        ),
    ),
    Group(
        "sign-in",
        ("sign_in_load.py",),
        (Figure("other calls' p99 while 100 sign in at once", "—", "≤ 50", r"p99 meanwhile +([\d.]+) ms", "ms"),),
    ),
)


def hosts_list() -> str:
    """How long the command takes that somebody types, over HTTP and on the data: the shortest of five each."""
    import tempfile

    from api import SECRET, ours

    program = [str(Path(sys.executable).parent / "keyrack"), "hosts", "list"]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody who types it has everything compiled anew each time

    def shortest(folder: str, *options: str, **asked: str) -> str:
        taken = []
        for _ in range(5):
            began, before = time.perf_counter(), os.times()
            command, environment = [*program, *options], os.environ | asked
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, env=environment)
            after = os.times()
            spent = sum(after[part] - before[part] for part in (2, 3))
            taken.append((time.perf_counter() - began, spent))
        return f"{min(clock for clock, _ in taken):.2f} s, of which {min(spent for _, spent in taken):.2f} s computing"

    with tempfile.TemporaryDirectory() as folder:
        with ours("", Path(folder)) as served:
            where = {"KEYRACK_URL": f"http://127.0.0.1:{served.port}", "KEYRACK_TOKEN": SECRET}
            over_http = shortest(folder, **where)
        on_data = shortest(folder, "--data", str(Path(folder) / "data"))
        return f"over HTTP {over_http}\non the data {on_data}"


def run(group: Group) -> dict[str, str]:
    """What one benchmark printed, by figure; a figure that is not in it says so."""
    print(f"== {group.name}", flush=True)
    if group.command:
        command = [sys.executable, str(HERE / group.command[0]), *group.command[1:]]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS)
        except subprocess.TimeoutExpired:
            return dict.fromkeys((figure.what for figure in group.figures), f"not within {MOST_SECONDS} s")
        text = done.stdout
        print(text if not done.returncode else text + done.stderr[-2000:], flush=True)
    else:
        text = hosts_list()
    found = {}
    for figure in group.figures:
        values = [float(value) for value in re.findall(figure.pattern, text, re.MULTILINE)]
        found[figure.what] = f"{figure.of(values):g} {figure.unit}".strip() if values else "not measured"
        if figure.spread and (off := re.findall(figure.spread, text, re.MULTILINE)):
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
    table = "\n".join(re.sub(r" +\|", " |", line) for line in lines) + "\n"
    # What stands below is written by proof.py.
    below = PAGE.read_text("utf-8").partition("\n## ") if PAGE.exists() else ("", "", "")
    PAGE.write_text(table + below[1] + below[2], "utf-8")


def one(group: Group) -> bool:
    """Run a group and write its rows to the page; whether each of its figures was had."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    load = os.getloadavg()[0]
    found = {f"{what} ({group.name})": value for what, value in run(group).items()}
    write(found, f"{time.strftime('%Y-%m-%d')}, {commit.strip()}, load {load:.1f}")
    return not [value for value in found.values() if value.startswith("not ")]


def main() -> None:
    """Run what was asked for, and write the page after each."""
    names = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    for group in GROUPS:
        if (not names or group.name in names) and not (group.long and "--short" in sys.argv):
            one(group)


if __name__ == "__main__":
    main()
