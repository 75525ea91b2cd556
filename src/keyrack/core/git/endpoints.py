"""Reports that a process which serves Git runs no more transfers of offboarded people; must stop no transfer itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.core.people.offboarding import ENDPOINT_SEEN_EVERY
from keyrack.store.git import git_endpoints

FORGOTTEN_AFTER = timedelta(days=7)


class GitEndpoint:
    """One process that serves Git. Its methods may block on the database."""

    def __init__(self, instance: Instance, name: str) -> None:
        """name: as receipts show it, such as git.example.org:2223."""
        self._instance = instance
        self._name = name
        self._id: int | None = None
        self._reported_at: datetime | None = None

    def to_end(self) -> Mapping[int, int]:
        """Whose transfers must end here: offboarding id to user id. Also reports that the endpoint is running."""
        database, now = self._instance.database, self._instance.now()
        if self._id is None:
            self._id = database.write(lambda connection: git_endpoints.begin(connection, self._name, now))
            self._reported_at = now
        elif self._reported_at is None or now - self._reported_at >= ENDPOINT_SEEN_EVERY:
            database.write(self._report)
            self._reported_at = now
        endpoint_id = self._id
        return database.read(lambda connection: git_endpoints.unacknowledged(connection, endpoint_id))

    def ended(self, stopped: Mapping[int, int]) -> None:
        """Note that no transfer of these people runs here any more; stopped: offboarding id to how many there were."""
        endpoint_id, now = self._id, self._instance.now()
        if endpoint_id is None or not stopped:
            return

        def note(connection: Connection) -> None:
            for offboarding_id, count in stopped.items():
                git_endpoints.acknowledge(connection, offboarding_id, endpoint_id, now, count)

        self._instance.database.write(note)

    def close(self) -> None:
        """Note that the process ends, and with it all transfers here."""
        endpoint_id, now = self._id, self._instance.now()
        if endpoint_id is not None:
            self._instance.database.write(lambda connection: git_endpoints.end(connection, endpoint_id, now))

    def _report(self, connection: Connection) -> None:
        endpoint_id, now = self._id, self._instance.now()
        assert endpoint_id is not None
        git_endpoints.note_seen(connection, endpoint_id, now, before=now - FORGOTTEN_AFTER)
