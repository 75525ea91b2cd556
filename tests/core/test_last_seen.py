"""When hosts were last seen is written in batches, and a batch that could not be written is not forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyrack import app
from keyrack.core.hosts.last_seen import LastSeen
from keyrack.core.workspace import apply as workspace_apply
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.hosts import servers
from tests.services import TEAM, settings_for


def test_hosts_are_written_after_a_write_that_failed(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", f"sqlite:///{tmp_path}/keyrack.db")
    instance = app.open_instance(settings)
    workspace_apply.apply(instance, TEAM, {})
    last_seen = LastSeen()
    last_seen.saw(1)
    (tmp_path / "keyrack.db").rename(tmp_path / "away")
    with pytest.raises(DatabaseUnavailable):
        last_seen.write(instance)
    instance.database.close()
    (tmp_path / "away").rename(tmp_path / "keyrack.db")
    instance = app.open_instance(settings)
    try:
        assert last_seen.write(instance) == 1
        server = instance.database.read(lambda connection: servers.by_id(connection, 1))
        assert server is not None
        assert server.seen_at is not None
    finally:
        instance.database.close()
