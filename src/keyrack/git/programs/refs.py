"""Git's pre-receive hook where no C compiler is: refuses too many or too long references; decides nothing else."""

from __future__ import annotations

import os
import sys

LONGEST_REF = 255


def main() -> int:
    """1 when the push names more references than it may, or makes one with too long a name, else 0."""
    most = int(os.environ.get("KEYRACK_MOST_REFS", "0"))
    for count, line in enumerate(sys.stdin.buffer, 1):
        _, new, ref = line.rstrip(b"\n").split(b" ", 2)
        if count > most:
            sys.stderr.write(f"Keyrack: one push may name {most} branches and tags; push them in parts.\n")
            return 1
        if len(ref) > LONGEST_REF and new.strip(b"0"):
            sys.stderr.write(f"Keyrack: names of branches and tags have at most {LONGEST_REF} characters.\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
