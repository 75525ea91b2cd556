"""What commands that add keys in one transaction, with first questions sent ahead, must know of each other; must ask
nothing itself.
"""

from __future__ import annotations

from collections.abc import Collection


class KeyPrefetch:
    """A command's prefetch (store/engine/group_commit.py) that says what the command has changed."""

    @property
    def changed_servers(self) -> Collection[int] | None:
        """The servers whose rows the command changed, if it added its key and did nothing else that other additions
        depend on; otherwise None.
        """
        raise NotImplementedError
