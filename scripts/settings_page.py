"""Prints the Settings part of docs/running.md from the settings themselves; must state nothing of its own."""

from __future__ import annotations

import sys

from keyrack.settings import FIELDS


def part() -> str:
    """A heading and a paragraph a setting."""
    lines = []
    for name, field in FIELDS.items():
        default = field.default
        if isinstance(default, tuple):
            shown = "all types that OpenSSH has, without DSA"
        else:
            shown = f"`{default}`" if default not in ("", None) else "none"
        lines.append(f"### `{name}`\n{field.metadata['description']} Default: {shown}.\n")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(part())
