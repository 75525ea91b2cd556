"""Makes the file that sshd's RevokedKeys points to: keys that nothing on that host lets in; it decides nothing.

sshd reads the file at every attempt and needs no reload. An empty file revokes nothing, but a missing or
unreadable one, or one with a damaged line, refuses everyone: so every line is checked here once more.
"""

from __future__ import annotations

from typing import Iterable

from keyrack.ssh.public_key import read_text

HEADER = "# Written by Keyrack; changes here are lost.\n"


def render(lines: Iterable[str]) -> bytes:
    """The whole file, for public keys (each PublicKey.text), in any order; the same set gives the same bytes.

    Raises KeyProblem for one that is not in that form.
    """
    public_keys = sorted({read_text(line).text for line in lines})
    return (HEADER + "".join(f"{line}\n" for line in public_keys)).encode("ascii")
