"""What a command that enters a key tells those of its transaction that asked ahead: what it changed; asks nothing."""

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
