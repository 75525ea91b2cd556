"""Exporting and verifying an audit log, by how many events it has: processor time, and memory beside what was there.

    .venv/bin/python bench/audit_export.py [EVENTS] [sqlite|postgresql]

EVENTS (a million unless said, on SQLite unless said) are written, chained, exported to a file and verified in it and
in the database, first a tenth of them, then all. Prints a table as docs/figures.md has it. Memory that grows with the
log ends this with an error.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import structlog
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack import app
from keyrack.core.audit import chain
from keyrack.core.instance import Instance
from keyrack.core.people.actors import system_actor
from keyrack.core.workspace import apply as workspace_apply
from keyrack.settings import Settings
from keyrack.store.audit import events
from tests.postgres import Cluster
from tests.services import TEAM

BATCH_SIZE = 2_000
MAX_GROWTH_MB = 40.0


def fill(instance: Instance, count: int) -> None:
    """So many events more, each in its place."""
    actor = system_actor(1, channel="cli")
    fields = {"at": instance.now(), "action": "servers:write", "outcome": "done", "reason": "", "level": "info"}
    entry = {"target_kind": "server", "target_id": 1, "server_id": 1, "details": {"revisions": {"1": 17}}}
    for start in range(0, count, BATCH_SIZE):
        some = [{**entry, "summary": f"Added SSH key laptop-{start + at} for deploy"} for at in range(BATCH_SIZE)]
        instance.database.write(lambda connection, some=some: events.add_many(connection, actor, fields, some))  # type: ignore[misc]
        chain.extend(instance)
    while chain.extend(instance):
        pass


def measured(*words: str) -> tuple[float, float]:
    """Seconds of processor time and peak megabytes of a command of Keyrack, which must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = before.ru_utime + before.ru_stime
    # Not ru_maxrss, which begins at what the program that starts it has.
    peak = (
        "import sys\nfrom keyrack.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print(open('/proc/self/status').read(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", peak, *words], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    kilobytes = int(done.stderr.rsplit("VmHWM:", 1)[1].split()[0])
    return after.ru_utime + after.ru_stime - began, kilobytes / 1024


def main() -> int:
    """Measure a tenth, and all."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    count = next((int(word) for word in sys.argv[1:] if word.isdigit()), 1_000_000)
    print("| events | file MB | export s | MB | verify the file s | MB | verify the database s | MB |")
    print("|---|---|---|---|---|---|---|---|")
    peaks: list[float] = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        database = f"sqlite:///{folder}/keyrack.db"
        if "postgresql" in sys.argv:
            # Its own short folder, for the path of its socket; that folder is its account's.
            cluster = Cluster(Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))), durable=True)
            Path(cluster.folder).chmod(0o755)
            cluster.start()
            stack.callback(cluster.stop)
            database = cluster.create_database()
        settings = Settings(data=Path(folder) / "data", database=database)
        where = ["--data", f"{folder}/data", "--database", database]
        out = Path(folder) / "log.jsonl"
        for more in (count // 10, count - count // 10):
            instance = app.open_instance(settings)
            if not peaks:
                workspace_apply.apply(instance, TEAM, {})
            fill(instance, more)
            instance.database.close()
            ways = (("export", str(out)), ("verify", "--export", str(out)), ("verify",))
            found = [measured("audit", *way, *(where[:2] if "--export" in way else where)) for way in ways]
            peaks.append(max(peak for _, peak in found))
            records = sum('"place"' in line[:80] for line in out.open(encoding="utf-8"))
            cells = [f"{records:,}", f"{out.stat().st_size / 1e6:.0f}"]
            cells += [f"{value:.1f}" if at == 0 else f"{value:.0f}" for one in found for at, value in enumerate(one)]
            print("|", " | ".join(cells), "|", flush=True)
    grown = peaks[1] - peaks[0]
    if grown > MAX_GROWTH_MB:
        print(f"{grown:.0f} MB more for ten times the events", file=sys.stderr)
    return 1 if grown > MAX_GROWTH_MB else 0


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
