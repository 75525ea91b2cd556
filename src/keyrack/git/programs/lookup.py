"""Answers sshd's AuthorizedKeysCommand where no C compiler is: asks the authorizer for a line; decides nothing.

lookup.py SOCKET FINGERPRINT; started as `python3 -I -S`. The same as lookup.c; service.h says what the frames are.
"""

from __future__ import annotations

import socket
import struct
import sys

ANSWER_SECONDS = 10
LARGEST = 65_536


def main(path: str, fingerprint: str) -> int:
    """Print the key line; 0 also when the key is unknown, 1 when the service does not answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as service:
            service.settimeout(ANSWER_SECONDS)
            service.connect(path)
            payload = b"line\0" + fingerprint.encode("ascii") + b"\0"
            service.sendall(struct.pack(">I", len(payload)) + payload)
            with service.makefile("rb") as answers:
                (length,) = struct.unpack(">I", answers.read(4))
                answer = answers.read(length) if 0 < length <= LARGEST else b""
    except (OSError, ValueError, struct.error):
        return 1
    # A connection that breaks in the middle of an answer gives no line.
    if len(answer) != length or not answer.endswith(b"\0"):
        return 1
    kind, *fields = answer[:-1].split(b"\0")
    if kind == b"none":
        return 0
    # Whatever the service answered, sshd gets one line only.
    if kind != b"line" or not fields or b"\n" in fields[0] or b"\r" in fields[0]:
        return 1
    sys.stdout.buffer.write(fields[0] + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
