"""Git's update hook where no C compiler is: refuses a push to the one protected branch, and a tag of its name; decides
nothing else.

The same as branch.c, which explains it.
"""

from __future__ import annotations

import os
import sys


def main(ref: str, new: str) -> int:
    """1 when the ref is the protected one, or makes what is fetched in place of it, else 0."""
    guarded = os.environ.get("KEYRACK_PROTECTED", "")
    if ref == guarded:
        sys.stderr.write("Keyrack: this branch is protected; push to another one, or ask an admin of the repository.\n")
        return 1
    name = guarded.removeprefix("refs/heads/")
    if name != guarded and ref in (f"refs/tags/{name}", f"refs/{name}") and new.strip("0"):
        sys.stderr.write(
            "Keyrack: this would be fetched in place of the protected branch, as it has its name; choose another "
            "name.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[3]))
