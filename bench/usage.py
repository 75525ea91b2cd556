"""Answers --help for a benchmark; must measure nothing."""

from __future__ import annotations

import sys


def help_asked(usage: str | None) -> None:
    """Print what a benchmark is and takes, its first lines, and end, where --help was asked for."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(usage)
        sys.exit(0)
