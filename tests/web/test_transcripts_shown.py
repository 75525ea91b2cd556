"""Each API's page shows the very transcripts that its tests play."""

from __future__ import annotations

import pytest

from tests.transcripts.transcript import DIALECTS, page
from tests.transcripts.write import DOCS, MARK


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_pages_show_the_transcripts(dialect: str) -> None:
    before, mark, shown = (DOCS / f"{dialect}.md").read_text("utf-8").partition(MARK)
    assert before
    assert mark, "the page has lost the line after which the transcripts stand"
    assert shown == page(dialect), "write the pages again: python -m tests.transcripts.write"
