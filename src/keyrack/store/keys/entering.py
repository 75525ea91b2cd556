"""What commands that enter keys, and are committed together, tell those that looked ahead; must ask nothing."""

from __future__ import annotations

from collections.abc import Collection


class EnteringKey:
    """A command's foresight (store/engine/group_commit.py) that says what the command has changed."""

    @property
    def changed_servers(self) -> Collection[int] | None:
        """The servers whose rows it changed, where it entered its key, and did nothing else of which others that enter
        keys must know; None where it did not, or did more.
        """
        raise NotImplementedError
