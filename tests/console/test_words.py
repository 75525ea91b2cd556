"""No page says "Error", "Success" or "Item": each sentence says what happened, and to what."""

from __future__ import annotations

import re
from pathlib import Path

from keyrack.web.console.templates import FOLDER

BARE = re.compile(r"\b(?:Error|Success|Item)s?\b")
# What no page shows: remarks, and names of what the code calls.
UNSHOWN = re.compile(r"\{#.*?#\}|/\*.*?\*/|^\s*(?://|#).*?$|\bnew Error\b", re.DOTALL | re.MULTILINE)
VENDORED = "htmx.min.js"


def test_pages_show_no_bare_codes() -> None:
    """Whatever leads to them: also what few meet, such as a refusal in a rare form."""
    files = [
        one for ending in ("*.html", "*.js", "*.py") for one in Path(str(FOLDER)).rglob(ending) if one.name != VENDORED
    ]
    assert len(files) > 50
    found = {one.name: words for one in files if (words := BARE.findall(UNSHOWN.sub("", one.read_text("utf-8"))))}
    assert found == {}
