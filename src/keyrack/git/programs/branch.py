"""Git's update hook where no C compiler is: refuses a push to the one protected branch; decides nothing else."""

from __future__ import annotations

import os
import sys


def main(ref: str) -> int:
    """1 when the ref is the protected one, else 0."""
    if ref == os.environ.get("KEYRACK_PROTECTED"):
        sys.stderr.write("Keyrack: this branch is protected; push to another one, or ask an admin of the repository.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
