"""A group that several set to the same at once is changed once, and the log says so once; on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from sqlalchemy import select

from keyrack.core.people import groups
from keyrack.store import tables
from tests.core.conftest import Team

THREADS = 6


def test_of_several_who_set_a_group_to_the_same_only_the_first_leaves_an_event(team: Team) -> None:
    """As two sign-ins of one person by a provider do, which follow its groups."""
    assert groups.ensure(team.instance, team.owner, name="ops", user_ids=())
    together = Barrier(THREADS)

    def join(_: int) -> bool:
        together.wait(timeout=30)
        return groups.ensure(team.instance, team.owner, name="ops", user_ids=(team.member_user.id,), exactly=False)

    for number in range(5):
        groups.ensure(team.instance, team.owner, name="ops", user_ids=())
        with ThreadPoolExecutor(THREADS) as threads:
            changed = list(threads.map(join, range(THREADS)))
        assert changed.count(True) == 1, number
    summaries = team.instance.database.read(
        lambda connection: connection.execute(select(tables.events.c.summary)).scalars().all()
    )
    assert not [one for one in summaries if one == "Changed group ops: nobody in it"]
