"""Requests that no program of good will sends, to every API and the console: what was answered, and what broke.

    .venv/bin/python bench/hostile.py

Each case of tests/data/http_bad.jsonl that is one request, on the path where keys are added and listed. Prints a table
as docs/figures.md has it; a 5xx, a traceback, an echoed token or no answer in time ends this with an error.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.hostile_http import cases, send
from tests.services import TEAM, running, settings_for
from tests.web.test_hostile_http import TARGETS, signed_in

THREADS = 32


def main() -> int:
    """Ask, and print."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # the table alone
    broken = 0
    print("| API | requests | refused | taken | closed without a word | broke |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with running(settings_for(data, f"sqlite:///{folder}/keyrack.db", rate_limit=100_000)) as service:
            service.apply(TEAM)
            for target in (signed_in(service, one) for one in TARGETS):
                with ThreadPoolExecutor(THREADS) as pool:
                    found = list(pool.map(lambda case, at=target: (case, send(service.url, at, case)), cases()))
                bad = [case["name"] for case, answer in found if answer.problems(case, target.token)]
                kinds = Counter(
                    "closed" if answer.status is None else "taken" if answer.status < 400 else "refused"
                    for _, answer in found
                )
                print(
                    f"| {target.name} | {len(found)} | {kinds['refused']} | {kinds['taken']} | {kinds['closed']} "
                    f"| {', '.join(bad) or 'none'} |"
                )
                broken += len(bad)
    return 1 if broken else 0


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
