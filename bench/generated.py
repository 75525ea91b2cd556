"""Every call that is described, made by a generator from its description, many times on each kind of database: what
was answered, and what is not as described.

    .venv/bin/python bench/generated.py [EXAMPLES] [CALLS] [sqlite|postgresql …]

EXAMPLES: how many requests of each kind the owner makes, as described and not; the others make a third. CALLS: so many
of the calls alone, by chance; 0: each. They are made from the number of the day, or from KEYRACK_SEED. Prints a table
as docs/figures.md has it; anything that is not as described, anybody answered who may not be, and a 5xx end this with
an error.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import structlog
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.generated import MEMBER, MEMBERS_MAY, NOWHERE_NETWORK, OWNER, Problem, Run
from tests.postgres import running_cluster
from tests.services import Service, running, settings_for

MAX_SHOWN = 30


@contextlib.contextmanager
def serving(kind: str) -> Iterator[Service]:
    """A service on a database of this kind that nobody used before."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"sqlite:///{folder}/keyrack.db"
        if kind == "postgresql":
            url = stack.enter_context(running_cluster()).create_database()
        settings = settings_for(folder / "data", url, rate_limit=10**6, webhook_networks=NOWHERE_NETWORK)
        yield stack.enter_context(running(settings))


def on(kind: str, examples: int, most: int, number: int) -> list[Problem]:
    """Ask on one kind of database, and print a row for each API. most: how many calls, 0 for each."""
    with serving(kind) as service:
        run = Run(service, examples, number)
        described: dict[str, int] = {}
        for operation in run.operations(most):
            api = operation.definition.raw["tags"][0]
            described[api] = described.get(api, 0) + 1
            run.ask(operation)
    beyond = sorted(run.done_by(MEMBER) - MEMBERS_MAY)
    run.problems += [Problem(name, MEMBER, "a member may do this", "", "") for name in beyond]
    for api, calls in sorted(described.items()):
        answered = {what: sum(run.answered[api, who, what] for who in run.callers) for what in ("done", "refused")}
        done = len({name for who, name in run.done if who == OWNER and run.api_of[name] == api})
        wrong = sum(run.api_of[problem.call] == api for problem in run.problems)
        row = (api, kind, calls, done, sum(answered.values()), answered["refused"], wrong or "none")
        print("| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in row) + " |", flush=True)
    return run.problems


def main() -> int:
    """Ask, and print."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # the table alone
    warnings.simplefilter("ignore")
    number = int(os.environ.get("KEYRACK_SEED", time.strftime("%Y%m%d")))
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    examples, most = (*numbers, *(4, 0)[len(numbers) :])
    kinds = [word for word in sys.argv[1:] if not word.isdigit()] or ["sqlite", "postgresql"]
    print("| API | database | calls asked | done at least once | requests | refused | not as described |")
    print("|---|---|---|---|---|---|---|")
    problems = [problem for kind in kinds for problem in on(kind, examples, most, number)]
    print(*problems[:MAX_SHOWN], sep="\n", file=sys.stderr)
    if problems:
        print(f"KEYRACK_SEED={number}: {len(problems)} answers are not as they should be", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
