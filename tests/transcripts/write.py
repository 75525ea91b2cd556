"""Writes the transcripts into the pages under docs/api, below their mark; `python -m tests.transcripts.write`."""

from __future__ import annotations

from pathlib import Path

from tests.transcripts.transcript import DIALECTS, page

DOCS = Path(__file__).parents[2] / "docs" / "api"
MARK = "<!-- transcripts: python -m tests.transcripts.write -->\n"


def main() -> None:
    """Write every page again."""
    for dialect in DIALECTS:
        path = DOCS / f"{dialect}.md"
        before, mark, _ = path.read_text("utf-8").partition(MARK)
        if not mark:
            raise SystemExit(f"{path} has no line {MARK.strip()}")
        path.write_text(before + mark + page(dialect), "utf-8")


if __name__ == "__main__":
    main()
