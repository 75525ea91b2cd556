"""A report is on the wire what older services and agents know, and reads back the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyrack.protocol.report import Cut, Report, ReportedKey, ReportError, read_word, wire_word

ONE = ReportedKey("shop", "/home/shop/.ssh/authorized_keys", "key", 3, "ssh-ed25519", comment="robot")


def test_a_report_is_sent_with_the_fields_that_were_set_and_no_others() -> None:
    cut = Cut("", "/x", "y")
    report = Report(revision=7, lineage="", state="applied", problems=[], keys_found=[ONE], keys_cut=[cut])
    assert json.dumps(report.to_json()) == (
        '{"revision": 7, "lineage": "", "state": "applied", "problems": [], "keys_found": [{"username": "shop", '
        '"path": "/home/shop/.ssh/authorized_keys", "kind": "key", "line": 3, "type": "ssh-ed25519", '
        '"fingerprint": "", "key": "", "options": "", "comment": "robot", "problem": "", "in_force": true, '
        '"taken": false}], "keys_cut": [{"username": "", "path": "/x", "why": "y"}]}'
    )
    assert Report().to_json() == {}


def test_a_reported_key_reads_back_the_same() -> None:
    assert ReportedKey.from_json(json.loads(json.dumps(ONE.to_json()))) == ONE
    # An agent that says less: what it does not say is not so.
    assert not ReportedKey.from_json({"kind": "key", "username": "shop", "path": "/x"}).in_force


@pytest.mark.parametrize("change", [{"kind": "door"}, {"kind": []}, {"line": "1"}, {"line": True}, {"comment": None}])
def test_a_malformed_key_of_a_report_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ReportError):
        ReportedKey.from_json({**ONE.to_json(), **change})


def test_observing_is_sent_by_its_old_name_and_read_by_both() -> None:
    assert [wire_word(word) for word in ("observe", "auto", "enforce", "undone")] == [
        "adopt", "auto", "enforce", "undone"
    ]  # fmt: skip
    assert [read_word(word) for word in ("adopt", "observe", "enforce", None)] == [
        "observe", "observe", "enforce", None
    ]  # fmt: skip
