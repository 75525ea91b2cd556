"""`python -m keyrack.agent`: the same as the packed agent; holds nothing of its own."""

from __future__ import annotations

import sys

from keyrack.agent.cli import main

if __name__ == "__main__":
    sys.exit(main())
