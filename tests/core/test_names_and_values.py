"""Every name and value of the published lists is accepted or refused as they say, through the APIs' own commands."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from keyrack.core import validation
from keyrack.errors import Refusal
from tests.core.keys_for_tests import records

NAMES = [record for record in records("names.jsonl") if record["must_be"] in ("accepted", "rejected")]


def expand(value: Any) -> Any:
    """A long string is stored as a recipe."""
    if isinstance(value, dict) and "gen" in value:
        return "".join(part[1] if part[0] == "lit" else part[1] * part[2] for part in value["gen"])
    return value


@pytest.mark.parametrize("record", NAMES, ids=lambda record: record["name"])
def test_published_names_are_accepted_or_refused_as_listed(record: dict[str, Any]) -> None:
    value = expand(record["value"])
    accept = validation.username if record["field"] == "username" else partial(validation.text, field=record["field"])
    if record["must_be"] == "accepted":
        assert accept(value) == value
    else:
        with pytest.raises(Refusal, match=r"\w"):
            accept(value)
