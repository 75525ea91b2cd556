"""Text that is no UTF-8, which others can write into SQLite: it costs the row that it stands in, and nothing else."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from keyrack.core.hosts import documents
from keyrack.core.keys import damaged_rows
from keyrack.core.people.actors import system_actor
from tests.core.all_damaged_rows import damaged
from tests.core.keys_for_tests import fresh_line
from tests.services import running, settings_for
from tests.web.test_runcloud import add

KEYS = "/api/v3/servers/1/ssh/credentials"


@pytest.mark.parametrize("column", ["label", "public_key", "restrictions"])
def test_text_that_is_not_utf_8_hides_its_row_alone(team_folder: Path, tmp_path: Path, column: str) -> None:
    shutil.copytree(team_folder, tmp_path / "data")
    with running(settings_for(tmp_path / "data", "")) as service:
        kept, not_text = fresh_line("kept"), fresh_line("spoilt")
        assert add(service, label="kept", publicKey=kept).status_code == 200
        doomed = add(service, label="spoilt", publicKey=not_text).json()["id"]
        with sqlite3.connect(tmp_path / "data" / "keyrack.db") as others:
            others.execute(f"UPDATE credentials SET {column} = CAST(x'6bff' AS TEXT) WHERE id = ?", (doomed,))
        others.close()

        answers = [service.call("GET", KEYS, token="token-of-olga") for _ in range(3)]
        assert {answer.status_code for answer in answers} == {200}
        assert all("kept" in {one["label"] for one in answer.json()["data"]} for answer in answers)
        assert add(service, label="more", publicKey=fresh_line()).status_code == 200
        signed = documents.signed(service.instance, 1)
        assert signed is not None
        assert kept.split()[1] in signed.text
        assert not_text.split()[1] not in signed.text

        operator = system_actor(1)
        (row,) = damaged(service.instance, operator)
        assert row.key == (doomed,)
        damaged_rows.remove(service.instance, operator, row.name)
        assert damaged(service.instance, operator) == []


@pytest.mark.parametrize(
    "column", ["actor_name", "address", "action", "reason", "summary", "level", "server_id", "details"]
)
def test_bytes_in_an_event_cost_it_alone(team_folder: Path, tmp_path: Path, column: str) -> None:
    """Else whoever writes to the database alone keeps everybody from reading the log."""
    shutil.copytree(team_folder, tmp_path / "data")
    with running(settings_for(tmp_path / "data", "")) as service:
        assert add(service, label="kept", publicKey=fresh_line()).status_code == 200
        with sqlite3.connect(tmp_path / "data" / "keyrack.db") as others:
            others.execute(f"UPDATE events SET {column} = x'00ff' WHERE id = (SELECT max(id) FROM events)")
        others.close()
        assert add(service, label="more", publicKey=fresh_line()).status_code == 200
        answer = service.call("GET", "/api/keyrack/v1/events", token="token-of-olga")
        assert answer.status_code == 200
        # Beside the alarm that the one which was changed raises, some time within a second.
        assert any("more" in event["summary"] for event in answer.json()["items"][:2])


def test_text_of_others_in_one_webhook_stops_no_other(team_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(team_folder, tmp_path / "data")
    with running(settings_for(tmp_path / "data", "")) as service:
        for place in ("a", "b"):
            body = {"url": f"https://{place}.example.org/hook"}
            made = service.call("POST", "/api/keyrack/v1/webhooks", token="token-of-olga", json=body)
            assert made.status_code < 300, made.text
        with sqlite3.connect(tmp_path / "data" / "keyrack.db") as others:
            others.execute("UPDATE webhooks SET level = 'x', actions = '7' WHERE id = 1")
        others.close()
        answer = service.call("GET", "/api/keyrack/v1/webhooks", token="token-of-olga")
        assert [one["level"] for one in answer.json()["items"]] == ["info", "warning"]
