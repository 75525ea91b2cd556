"""Writes into README.md and docs/running.md what the code itself says: the help, the settings; invents nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import settings_page

ROOT = Path(__file__).parent.parent


def refresh() -> None:
    """Bring both pages up to date."""
    running = ROOT / "docs" / "running.md"
    head, _, rest = running.read_text("utf-8").partition("## Settings\n")
    intro = rest[: rest.index("### ")]
    running.write_text(f"{head}## Settings\n{intro}{settings_page.part()}", "utf-8")
    command = [sys.executable, "-c", "from keyrack.cli.main import main; main(prog_name='keyrack')", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    readme = ROOT / "README.md"
    text = re.sub(r"```\nUsage: keyrack .*?```", lambda _: f"```\n{shown}```", readme.read_text("utf-8"), flags=re.S)
    readme.write_text(text, "utf-8")


if __name__ == "__main__":
    refresh()
