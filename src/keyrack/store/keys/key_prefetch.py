"""What the commands of one transaction that enter keys, whose first questions were sent ahead, must know of each other;
asks nothing by itself.
"""

from __future__ import annotations

from collections.abc import Collection


class KeyPrefetch:
    """A command's prefetch (store/engine/group_commit.py) that says what the command has changed."""

    @property
    def changed_servers(self) -> Collection[int] | None:
        """The servers whose rows it changed, where it entered its key, and did nothing else of which others that enter
        keys must know; None where it did not, or did more.
        """
        raise NotImplementedError
