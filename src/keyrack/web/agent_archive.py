"""Packs the agent into the one file that hosts download and run; it reads the agent's source and imports none."""

from __future__ import annotations

import importlib.resources
import io
import zipfile
from importlib.resources.abc import Traversable

SHEBANG = b"#!/usr/bin/env python3\n"
# All that the agent may import: see the import rules.
PACKAGES = ("agent", "protocol", "ssh")

# Written so that an old Python can read it too and say what it lacks.
MAIN = """\
import sys

if sys.version_info < (3, 9):
    sys.exit("keyrack-agent: this needs Python 3.9 or newer, and this is %d.%d" % sys.version_info[:2])

from keyrack.agent.cli import main

sys.exit(main())
"""

# The earliest time that a zip file can hold: the same sources are the same bytes, whoever packs them.
_TIME = (1980, 1, 1, 0, 0, 0)


def build_zipapp() -> bytes:
    """The agent as a Python zip application; the same bytes for the same sources. May raise OSError."""
    keyrack = importlib.resources.files("keyrack")
    files = {"__main__.py": MAIN.encode("ascii"), "keyrack/__init__.py": (keyrack / "__init__.py").read_bytes()}
    for package in PACKAGES:
        files.update(_sources(keyrack / package, f"keyrack/{package}"))
    archive = io.BytesIO()
    archive.write(SHEBANG)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as pack:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            pack.writestr(entry, files[name])
    return archive.getvalue()


def _sources(folder: Traversable, name: str) -> dict[str, bytes]:
    """The Python files of a folder and of those in it, by the name that each has in the archive."""
    sources: dict[str, bytes] = {}
    for entry in folder.iterdir():
        inside = f"{name}/{entry.name}"
        if entry.is_dir():
            sources |= _sources(entry, inside)
        elif entry.name.endswith(".py"):
            sources[inside] = entry.read_bytes()
    return sources
