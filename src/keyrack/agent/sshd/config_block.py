"""Keyrack's settings in sshd_config itself, for an sshd that knows no Include (before 8.2); it writes nothing.

The first value of a keyword counts, and one below a matching Match counts more than any above it (sshd_config(5)). So
the settings stand at the head of the file, for everybody, and once more below a `Match all` right before the file's
first Match: what follows is another Match, so that no setting of the host comes to stand below ours.
"""

from __future__ import annotations

import re
from typing import Mapping, Optional

from keyrack.agent.sshd import drop_in
from keyrack.agent.sshd.settings import Sshd
from keyrack.agent.sshd.settings_text import read_lines

FIRST_WITH_INCLUDE = (8, 2)
_FIRST_WITH_AUTH_INFO = (7, 6)  # ExposeAuthInfo
BEGIN = b"# Keyrack's settings begin; changes here are lost, and `keyrack-agent uninstall` takes them away\n"
END = b"# Keyrack's settings end\n"
_BLOCK = re.compile(re.escape(BEGIN) + rb"(?:(?!" + re.escape(BEGIN) + rb").)*?" + re.escape(END), re.DOTALL)


def is_used(sshd: Sshd, config: Optional[bytes]) -> bool:
    """Whether the settings go into sshd_config itself: where the running sshd knows no Include, or where they stand
    there already. config: the bytes of that file; None where there is none.
    """
    if config is not None and BEGIN in config:
        return True
    return (0, 0) < sshd.running.version() < FIRST_WITH_INCLUDE


def put(config: bytes, settings: Mapping[str, str], version: "tuple[int, int]") -> bytes:
    """The bytes of sshd_config with these settings in front. version: of the sshd that will read them."""
    config = without(config)
    if version < _FIRST_WITH_AUTH_INFO:
        settings = {keyword: value for keyword, value in settings.items() if keyword != "ExposeAuthInfo"}
    for_all, below_match = drop_in.lines(settings)
    head = BEGIN + for_all + END
    at = _first_match(config)
    if at is None:
        return head + config
    return head + config[:at] + BEGIN + below_match + END + config[at:]


def without(config: bytes) -> bytes:
    """The bytes of sshd_config without Keyrack's settings."""
    return _BLOCK.sub(b"", config)


def _first_match(config: bytes) -> Optional[int]:
    at = 0
    for line in config.split(b"\n"):
        if any(setting.keyword == "match" for setting in read_lines(line.decode("utf-8", "replace"))):
            return at
        at += len(line) + 1
    return None
