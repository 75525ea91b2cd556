"""A key's random art, as `ssh-keygen -lv` prints it; must judge no key.

The walk is OpenSSH's key_fingerprint_randomart (sshkey.c): each pair of the digest's bits, the lowest first, is a step.
"""

from __future__ import annotations

import binascii

WIDTH, HEIGHT = 17, 9
_MARKS = " .o+=*BOX@%&#/^SE"
_START, _END = len(_MARKS) - 2, len(_MARKS) - 1
_TITLES = {"ssh-ed25519": "ED25519", "ssh-rsa": "RSA", "sk-ssh-ed25519@openssh.com": "ED25519-SK"}


def random_art(key_type: str, bits: int, fingerprint: str) -> str:
    """The art, eleven lines.

    key_type: as in a line; bits: the key's; fingerprint: SHA256:….
    """
    digest = binascii.a2b_base64(fingerprint.partition(":")[2] + "=")
    field = [[0] * WIDTH for _ in range(HEIGHT)]
    x, y = WIDTH // 2, HEIGHT // 2
    for byte in digest:
        for _ in range(4):
            x = min(max(x + (1 if byte & 1 else -1), 0), WIDTH - 1)
            y = min(max(y + (1 if byte & 2 else -1), 0), HEIGHT - 1)
            field[y][x] = min(field[y][x] + 1, _START - 1)
            byte >>= 2
    field[HEIGHT // 2][WIDTH // 2] = _START
    field[y][x] = _END
    title = _edge(f"[{_title(key_type)} {bits}]")
    rows = ["|" + "".join(_MARKS[count] for count in row) + "|" for row in field]
    return "\n".join([title, *rows, _edge("[SHA256]")])


def _title(key_type: str) -> str:
    if key_type.startswith("ecdsa-"):
        return "ECDSA"
    return "ECDSA-SK" if key_type.startswith("sk-ecdsa-") else _TITLES.get(key_type, key_type)


def _edge(words: str) -> str:
    left = (WIDTH - len(words)) // 2
    return "+" + "-" * left + words + "-" * (WIDTH - left - len(words)) + "+"
