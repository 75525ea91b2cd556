"""A cache of the workspaces' policies of keys, read at most once a second by each process; must judge no key."""

from __future__ import annotations

import threading
import time

from keyrack.store.database import Database
from keyrack.store.keys import key_policy
from keyrack.store.keys.key_policy import KeyPolicyRow

FRESH_SECONDS = 1.0
"""For so long a process uses a policy that it has read, also while another process changes it."""
MAX = 1000
"""So many workspaces' policies are in the cache; then it is emptied."""


class KeptPolicies:
    """The policies that one process read last, by workspace."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[int, tuple[float, KeyPolicyRow | None]] = {}
        self._changed: dict[int, float] = {}

    def of(self, database: Database, workspace_id: int, *, joined: bool) -> KeyPolicyRow | None:
        """The policy of a workspace, None where it has set none.

        joined: the database is an open transaction, which may still be undone, so nothing of it is cached.
        """
        if joined:
            return database.read(lambda connection: key_policy.of_workspace(connection, workspace_id))
        began = time.monotonic()
        with self._lock:
            kept = self._kept.get(workspace_id)
        if kept is not None and began - kept[0] < FRESH_SECONDS:
            return kept[1]
        policy = database.read(lambda connection: key_policy.of_workspace(connection, workspace_id))
        with self._lock:
            # forget() may come before the commit, where the change is part of a larger transaction: what is read within
            # FRESH_SECONDS of it may be the old policy, and is not cached.
            if began - self._changed.get(workspace_id, began - 2 * FRESH_SECONDS) > FRESH_SECONDS:
                if len(self._kept) >= MAX:
                    self._kept.clear()
                    self._changed.clear()
                self._kept[workspace_id] = (began, policy)
        return policy

    def forget(self, workspace_id: int) -> None:
        """Read a workspace's policy anew, as this process has changed it."""
        with self._lock:
            self._kept.pop(workspace_id, None)
            self._changed[workspace_id] = time.monotonic()
