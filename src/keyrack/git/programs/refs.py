"""Git's pre-receive and post-receive hook where no C compiler is: refuses too many or too long references; decides
nothing else.

The same as refs.c, which explains every step.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

LONGEST_REF = 255
LONGEST_REPORT = 48_000
LONGEST_NAME = 200
ANSWER_SECONDS = 5


def report(state: bytes, count: int, lines: bytes) -> None:
    """Tell the service which references are to change ("wanted"), or have ("changed"), for its log alone."""
    path, operation = os.environ.get("KEYRACK_SOCKET"), os.environb.get(b"KEYRACK_OPERATION")
    if not count or path is None or operation is None:
        return
    fields = (b"refs", operation[:LONGEST_NAME], state, b"%d" % count, lines)
    payload = b"".join(field + b"\0" for field in fields)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as service:
            service.settimeout(ANSWER_SECONDS)
            service.connect(path)
            service.sendall(struct.pack(">I", len(payload)) + payload)
            while service.recv(64):
                pass
    except OSError:
        pass


def main() -> int:
    """1 when the push names more references than it may, or makes one with too long a name, else 0."""
    most = int(os.environ.get("KEYRACK_MAX_REFS", "0"))
    done = os.path.basename(sys.argv[0]) == "post-receive"
    lines, count, words = b"", 0, ""
    for line in sys.stdin.buffer:
        count += 1
        _, new, ref = line.rstrip(b"\n").split(b" ", 2)
        if len(lines) + len(line) < LONGEST_REPORT:
            lines += line
        if done:
            continue
        if count > most:
            words = f"one push may name {most} branches and tags; push them in parts."
        elif len(ref) > LONGEST_REF and new.strip(b"0"):
            words = f"names of branches and tags have at most {LONGEST_REF} characters."
        if words:
            break
    report(b"changed" if done else b"wanted", count, lines)
    if words:
        sys.stderr.write(f"Keyrack: {words}\n")
    return 1 if words else 0


if __name__ == "__main__":
    sys.exit(main())
