"""Makes a copy of sshd's settings with Keyrack's added, to ask sshd about; it changes no real file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Iterator, Mapping

from keyrack.agent.sshd import config_block, drop_in, originals
from keyrack.agent.sshd.settings import Sshd


@contextlib.contextmanager
def tried(sshd: Sshd, settings: Mapping[str, str], folder: str) -> Iterator[str]:
    """The path of such a copy below a folder of the agent, for `sshd -T -f`. May raise OSError."""
    config = originals.read(sshd.config).data or b""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        trial, copy = os.path.join(place, "drop-in.conf"), os.path.join(place, "sshd_config")
        if config_block.is_used(sshd, config):
            text = config_block.put(config, settings, sshd.running.version())
        else:
            with open(trial, "wb") as file:
                file.write(drop_in.render(settings))
            text = drop_in.include_line(trial) + config
        with open(copy, "wb") as file:
            file.write(text)
        yield copy
