"""Makes the file that sshd's RevokedKeys points to: keys that nothing on that host lets in; it decides nothing.

sshd reads the file at every attempt and needs no reload. An empty file revokes nothing, but a missing or
unreadable one, or one with a damaged line, refuses everyone: so every line is checked here once more.
"""

from __future__ import annotations

from typing import Iterable

from keyrack.ssh.public_key import read_canonical

HEADER = "# Written by Keyrack; changes here are lost.\n"


def render(public_keys: Iterable[str]) -> bytes:
    """The whole file, for canonical public keys, in any order; the same set gives the same bytes.

    Raises KeyProblem for one that is not in that form.
    """
    checked = sorted({read_canonical(public_key).canonical for public_key in public_keys})
    return (HEADER + "".join(f"{public_key}\n" for public_key in checked)).encode("ascii")
