"""Facts about the machine: kernel, processor, memory, disk, load, uptime; it changes nothing."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Optional

_LARGEST_FILE = 64 * 1024
PROC = "/proc"


def facts(proc: str = PROC) -> Dict[str, Any]:
    """The facts that can be found out, None for the others. Sizes in bytes, uptime in seconds, load of the last minute.

    The processor's name, memory and uptime come from proc(5). Free memory is what can be had without swapping. The
    disk is the one that / is on; its free space is that for other accounts than root.
    """
    state = _fields(os.path.join(proc, "meminfo"))
    disk = _known(lambda: os.statvfs("/"))
    return {
        "kernel": _known(lambda: os.uname().release),
        "processor": _fields(os.path.join(proc, "cpuinfo")).get("model name"),
        "cores": os.cpu_count(),
        "memory_total": _kibibytes(state.get("MemTotal")),
        "memory_free": _kibibytes(state.get("MemAvailable")),
        "disk_total": None if disk is None else disk.f_blocks * disk.f_frsize,
        "disk_free": None if disk is None else disk.f_bavail * disk.f_frsize,
        "load": _known(lambda: round(os.getloadavg()[0], 2)),
        "uptime": _known(lambda: int(float(_text(os.path.join(proc, "uptime")).split()[0]))),
    }


def _fields(path: str) -> Dict[str, str]:
    """The first value of each name in a file of lines `name: value`."""
    fields: Dict[str, str] = {}
    for line in (_known(lambda: _text(path)) or "").split("\n"):
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def _text(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(_LARGEST_FILE).decode("utf-8", "replace")


def _kibibytes(text: Optional[str]) -> Optional[int]:
    number: Optional[int] = _known(lambda: int((text or "").split()[0]) * 1024)
    return number


def _known(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except (OSError, ValueError, IndexError, AttributeError):
        return None
