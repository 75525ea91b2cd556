"""Calls that are described, made by a generator from their description: what is answered is what is described, and
nobody without rights is served. Some of the calls, by chance; the long form, and bench/generated.py, make each.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.generated import MEMBER, MEMBERS_MAY, NOWHERE_NETWORK, Run
from tests.services import running, settings_for

LONG = bool(os.environ.get("KEYRACK_LONG"))
PARTS = 4
"""Tests that share the calls: side by side where there are processors for that."""
SAMPLE = 12


@pytest.mark.timeout(3600 if LONG else 300)
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("part", range(PARTS))
def test_answers_fit_the_description(unused_data: Path, part: int) -> None:
    seed = int(os.environ.get("KEYRACK_SEED", random.randrange(10**6)))
    url = f"sqlite:///{unused_data / 'keyrack.db'}"
    settings = settings_for(unused_data, url, rate_limit=10**6, webhook_networks=NOWHERE_NETWORK)
    with running(settings) as service:
        run = Run(service, examples=1, number=seed + part, quick=not LONG)
        for operation in run.operations()[part::PARTS] if LONG else run.operations(SAMPLE):
            run.ask(operation)
    wrong = [str(problem) for problem in run.problems]
    wrong += [f"a member may {name}" for name in sorted(run.done_by(MEMBER) - MEMBERS_MAY)]
    assert not wrong, f"KEYRACK_SEED={seed}:\n" + "\n".join(wrong[:20])
