"""Puts Keyrack's settings into the files that the running sshd reads; must not keep the originals (originals.py does).

Where sshd knows Include, the settings are in a file of their own, which sshd_config includes (drop_in.py). Before 8.2
they are in sshd_config itself (config_block.py).
"""

from __future__ import annotations

import errno
import os
from typing import List, Mapping

from keyrack.agent.sshd import config_block, drop_in, originals
from keyrack.agent.sshd.originals import Original
from keyrack.agent.sshd.settings import Sshd, SshdProblem
from keyrack.agent.system import labels
from keyrack.agent.system.folder import PUBLIC_FILE, why_not


class SettingsFiles:
    """The settings files of one sshd. path: of Keyrack's own file, for an sshd that knows Include."""

    def __init__(self, sshd: Sshd, path: str) -> None:
        self._sshd = sshd
        self._path = path

    @property
    def in_config(self) -> bool:
        """Whether the settings stand in sshd_config itself. May raise OSError."""
        return config_block.is_used(self._sshd, originals.read(self._sshd.config).data)

    def read(self) -> List[Original]:
        """All files that write() may change, as they are now; sshd_config is the last. May raise OSError."""
        config = originals.read(self._sshd.config)
        return [config] if self.in_config else [originals.read(self._path), config]

    def write(self, settings: Mapping[str, str]) -> List[str]:
        """Write the settings. Answers the paths of files that changed. Raises SshdProblem where sshd refuses them, or
        OSError.
        """
        config = originals.read(self._sshd.config)
        if config.data is None:
            raise SshdProblem(f"{config.path} is missing")
        changed = []
        if self.in_config:
            text = config_block.put(config.data, settings, self._sshd.running.version())
        else:
            wanted, drop = drop_in.render(settings), originals.read(self._path)
            if drop.data != wanted or drop.mode != PUBLIC_FILE:
                originals.put(drop.path, wanted, PUBLIC_FILE)
                changed.append(drop.path)
            fault = self._sshd.problem()
            if fault is not None:
                raise SshdProblem(fault)
            text = config.data
            if not drop_in.is_read_first(config.data, self._path) and not drop_in.has_include(config.data):
                text = drop_in.include_line(self._path) + config.data
        if text != config.data:
            originals.put(config.path, text, config.mode, (config.owner, config.group))
            changed.append(config.path)
        labels.restore(changed)
        return changed

    def stand(self, settings: Mapping[str, str]) -> bool:
        """Whether the settings are in the files exactly as write() would write them, or not at all."""
        config = originals.read(self._sshd.config).data or b""
        if self.in_config:
            put = config_block.put(config, settings, self._sshd.running.version())
            return config in (put, config_block.without(config))
        return originals.read(self._path).data in (None, drop_in.render(settings))

    def without(self, data: bytes) -> bytes:
        """The bytes of sshd_config without Keyrack's part."""
        return config_block.without(drop_in.without_include(data, self._path))

    def without_ours(self, original: Original) -> Original:
        """A file of read() as it would be without Keyrack's part."""
        if original.data is None:
            return original
        if original.path != os.path.realpath(self._sshd.config):
            return Original(original.path) if original.data.startswith(drop_in.HEADER.encode("ascii")) else original
        return original._replace(data=self.without(original.data))

    def unwritable(self, settings: Mapping[str, str]) -> str:
        """Why write() would fail, checked before anything is changed; empty where no reason is known."""
        config = originals.read(self._sshd.config)
        data = config.data or b""
        paths = [] if self.in_config else [os.path.realpath(self._path)]
        if self.in_config or not (drop_in.is_read_first(data, self._path) or drop_in.has_include(data)):
            if os.path.exists(config.path) and os.stat(config.path).st_nlink > 1:
                return f"{config.path} has another name (a hard link), which a change would part from it"
            paths.append(config.path)
        return next(filter(None, map(_unwritable, paths)), "")


def _unwritable(path: str) -> str:
    """Why root cannot replace a file: a read-only file system, or an immutable file or folder; empty where it can."""
    try:
        if os.path.exists(path):
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
        folder = os.path.dirname(path)
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            raise OSError(
                errno.EROFS if read_only else errno.EPERM, os.strerror(errno.EROFS if read_only else errno.EPERM)
            )
    except OSError as error:
        return f"{path} cannot be changed: {why_not(path, error)}"
    return ""
