"""A network between service and PostgreSQL that fails in every way: each call is answered, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, text

from keyrack.store.database import Database, DatabaseUnavailable
from keyrack.store.engine import connect
from tests.bad_database_network import Found, behind_a_proxy, held, rounds, short_bounds
from tests.fault_proxy import FaultProxy

MAX_MORE = 40  # descriptors: a connection and its epoll for each place of the pools that was not used before
WORKSPACE = 1


@pytest.fixture
def proxied(cluster: Any, migrated_template: str) -> Iterator[tuple[FaultProxy, str]]:
    """A database's address that leads through a proxy."""
    own = cluster.create_database(migrated_template)
    proxy = FaultProxy(Path(cluster.folder) / ".s.PGSQL.5432", 1, found_out=60)
    try:
        yield proxy, f"postgresql://keyrack@127.0.0.1:{proxy.port}/{psycopg.conninfo.conninfo_to_dict(own)['dbname']}"
    finally:
        proxy.stop()
        cluster.drop_database(own)


def test_a_bad_database_network_loses_no_call_and_no_change(
    cluster: Any, migrated_template: str, tmp_path: Path
) -> None:
    nothing = Found(*[frozenset[str]()] * 4)
    with short_bounds(), behind_a_proxy(cluster, migrated_template, tmp_path, 7) as (proxy, calls, url):
        assert rounds(proxy, calls, url, range(1)) == nothing
        before = held(proxy)
        assert rounds(proxy, calls, url, range(1, 3)) == nothing
        after = held(proxy)
    assert calls.hung == 0
    assert after[0] - before[0] < MAX_MORE
    assert after[1] - before[1] < MAX_MORE


def test_the_workspace_lock_is_freed_when_the_network_of_its_holder_is_gone(proxied: tuple[FaultProxy, str]) -> None:
    """The server hears nothing of a cable that was pulled, and had the turn taken for hours."""
    proxy, url = proxied

    def cut(connection: Connection) -> None:
        connection.execute(text("SELECT 1"))
        proxy.misbehave("cut off")
        for one in proxy.relays:
            one.fail("cut off", 0)
        connection.execute(text("SELECT 2"))

    def three(connection: Connection) -> Any:
        return connection.execute(text("SELECT 3")).scalar_one()

    with short_bounds(), closing(Database.open(url)) as database, ThreadPoolExecutor(1) as pool:
        assert database.write(three, workspace_lock=WORKSPACE) == 3
        under_way = pool.submit(database.write, cut, workspace_lock=WORKSPACE)
        with pytest.raises(DatabaseUnavailable):
            under_way.result(20)
        proxy.behave()
        after = pool.submit(
            database.write, lambda connection: connection.execute(text("SELECT 4")).scalar_one(), workspace_lock=1
        )
        assert after.result(20) == 4


@pytest.mark.parametrize("writer", [True, False])
def test_a_session_ends_with_its_network(proxied: tuple[FaultProxy, str], writer: bool) -> None:
    """The system's own patience is two hours, for which a session would have a place of the server's."""
    engine = connect.postgresql_engine(connect.parse_url(proxied[1])[1], writer=writer)
    with closing(engine.connect()) as connection:
        shown = [
            connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("idle_in_transaction_session_timeout", "lock_timeout")
        ]
    assert shown == ["1min" if writer else "0", "30s"]
