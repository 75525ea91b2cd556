"""The workspaces' policies of keys, asked for at most once a second by each process; must judge no key."""

from __future__ import annotations

import threading
import time

from keyrack.store.database import Database
from keyrack.store.keys import key_policy
from keyrack.store.keys.key_policy import KeyPolicyRow

FRESH_SECONDS = 1.0
"""For so long a process goes on with the policy that it read, where another process sets another."""
MOST = 1000
"""So many workspaces' policies are kept."""


class KeptPolicies:
    """What one process read last, by workspace."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[int, tuple[float, KeyPolicyRow | None]] = {}
        self._changed: dict[int, float] = {}

    def of(self, database: Database, workspace_id: int, *, joined: bool) -> KeyPolicyRow | None:
        """The policy of a workspace, None where it set none. joined: the database is an open transaction, of
        which nobody knows yet whether it is committed.
        """
        if joined:
            return database.read(lambda connection: key_policy.of_workspace(connection, workspace_id))
        began = time.monotonic()
        with self._lock:
            kept = self._kept.get(workspace_id)
        if kept is not None and began - kept[0] < FRESH_SECONDS:
            return kept[1]
        found = database.read(lambda connection: key_policy.of_workspace(connection, workspace_id))
        with self._lock:
            # One that was set just now may be committed a little later, as its transaction has other things to do.
            if began - self._changed.get(workspace_id, began - 2 * FRESH_SECONDS) > FRESH_SECONDS:
                if len(self._kept) >= MOST:
                    self._kept.clear()
                    self._changed.clear()
                self._kept[workspace_id] = (began, found)
        return found

    def forget(self, workspace_id: int) -> None:
        """Ask anew for a workspace's policy, which this process sets."""
        with self._lock:
            self._kept.pop(workspace_id, None)
            self._changed[workspace_id] = time.monotonic()
