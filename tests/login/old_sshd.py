"""Stand-ins for an older sshd, and sshds in time zones of their own; holds no assertion.

A stand-in is this machine's own sshd under another version's number, with names taken out of it that the older one
does not know: what it refuses is as it was then, what it does is as it is now. No real sshd below 8.4 can be had here.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.login.private_sshd import sshd_path


def stand_in(path: Path, version: str, without: Sequence[str] = ()) -> Path:
    """An sshd at `path` that says it is OpenSSH `version` (as long as the real number, such as 8.9).

    without: names of options and settings that it must not know.
    """
    data = sshd_path().read_bytes()
    own = re.search(rb"OpenSSH_([0-9]+\.[0-9]+)p[0-9]", data)
    assert own is not None
    number = version.encode("ascii").rjust(len(own.group(1)), b"0")
    # What compares versions of others (compat.c) has patterns with * and commas behind the number.
    data = re.sub(rb"OpenSSH_" + re.escape(own.group(1)) + rb"(?=[p\0 ])", b"OpenSSH_" + number, data)
    for name in without:
        # The linker keeps one text where another ends with it: names that are also told of stand behind a blank.
        ends = (before + name.encode("ascii") + b"\0" for before in (b"\0", b" "))
        whole = next((end for end in ends if end in data), None)
        if whole is None:
            pytest.skip(f"From OpenSSH 9.8 on another program (sshd-session) than sshd knows {name}.")
        data = data.replace(whole, whole.replace(name[-3:-2].encode("ascii"), b"?"))
    path.write_bytes(data)
    path.chmod(0o755)
    return path


def in_zone(path: Path, sshd: Path, tz: str) -> Path:
    """A program at `path` that runs this sshd with a TZ that nothing above it has."""
    path.write_text(f'#!/bin/sh\nTZ="{tz}" exec "{sshd}" "$@"\n', "ascii")
    path.chmod(0o755)
    return path


def zone_file(folder: Path, text: str) -> Path:
    """A compiled zone, of rules as zic(8) reads them for the zone Own."""
    source = folder / "own.zone"
    source.write_text(text, "ascii")
    subprocess.run(["/usr/sbin/zic", "-d", str(folder), str(source)], check=True, timeout=60)
    return folder / "Own"
