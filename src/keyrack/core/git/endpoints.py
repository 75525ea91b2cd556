"""What a process that serves Git says when people are offboarded: that none of their transfers runs there any more;
must stop no transfer itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.core.people.offboarding import ENDPOINT_SEEN_EVERY
from keyrack.store.git import git_endpoints

FORGOTTEN_AFTER = timedelta(days=7)


class GitEndpoint:
    """One such process: what it says, and what is asked of it. Its methods may block on the database."""

    def __init__(self, instance: Instance, name: str) -> None:
        """name: as receipts show it, such as git.example.org:2223."""
        self._instance = instance
        self._name = name
        self._id: int | None = None
        self._said_at: datetime | None = None

    def asked(self) -> Mapping[int, int]:
        """Whose transfers must end here: offboarding id to user id. Says too that the endpoint is there."""
        database, now = self._instance.database, self._instance.now()
        if self._id is None:
            self._id = database.write(lambda connection: git_endpoints.begin(connection, self._name, now))
            self._said_at = now
        elif self._said_at is None or now - self._said_at >= ENDPOINT_SEEN_EVERY:
            database.write(self._say)
            self._said_at = now
        endpoint_id = self._id
        return database.read(lambda connection: git_endpoints.unacknowledged(connection, endpoint_id))

    def ended(self, stopped: Mapping[int, int]) -> None:
        """No transfer of these people runs here any more; stopped: offboarding id to how many did."""
        endpoint_id, now = self._id, self._instance.now()
        if endpoint_id is None or not stopped:
            return

        def note(connection: Connection) -> None:
            for offboarding_id, count in stopped.items():
                git_endpoints.acknowledge(connection, offboarding_id, endpoint_id, now, count)

        self._instance.database.write(note)

    def leave(self) -> None:
        """The process ends, and with it all that ran here."""
        endpoint_id, now = self._id, self._instance.now()
        if endpoint_id is not None:
            self._instance.database.write(lambda connection: git_endpoints.end(connection, endpoint_id, now))

    def _say(self, connection: Connection) -> None:
        endpoint_id, now = self._id, self._instance.now()
        assert endpoint_id is not None
        git_endpoints.note_seen(connection, endpoint_id, now, before=now - FORGOTTEN_AFTER)
