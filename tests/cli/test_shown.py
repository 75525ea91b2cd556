"""What hosts and callers wrote reaches a terminal and a log as text: nothing acts, and no line is forged."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

from keyrack.core.hosts import servers
from keyrack.core.people import actors
from tests.cli.test_hosts import good, run
from tests.core.keys_for_tests import fresh_line
from tests.core.test_unmanaged_keys import entry
from tests.services import Service
from tests.web.runcloud_team import Agent

FORGED = "\r\n99  2026-01-01T00:00:00Z  keyrack  Deleted SSH key \x1b[2J\x1b[8m\u202ebackwards\x9b1m"
SHOWN = "\\r\\n99  2026-01-01T00:00:00Z  keyrack  Deleted SSH key \\x1b[2J\\x1b[8m\\u202ebackwards\\x9b1m"


def is_plain(text: str) -> bool:
    """Whether a text holds nothing that a terminal obeys, but ends of lines."""
    return all(line.isprintable() for line in text.split("\n"))


def test_text_from_a_host_does_not_act_on_a_terminal(team: Service) -> None:
    agent = Agent(team, 1)
    key = entry(fresh_line("robot"))
    facts = {"enforcement": "undone", "undone": FORGED, "scan": FORGED, "sshd": {"UseDNS": FORGED}}
    agent.obey(
        facts=facts,
        problems=[FORGED, "half \ud800 of one", "ein Ärger in /home/jörg"],
        keys_found=[{**key, "comment": FORGED, "problem": FORGED * 10}],
        agent_version=FORGED,
    )
    said = good(team, "show", "web-1")
    report: dict[str, Any] = {"revision": 1, "state": "refused", "problems": [FORGED, "\ud83d"]}
    answer = team.call("POST", "/agent/v1/report", token=agent.secret, content=json.dumps(report))
    assert answer.status_code == 200
    shown = {words: good(team, *words.split()) for words in ("list", "show web-1", "unmanaged web-1", "events")}
    for text in (said, *shown.values()):
        assert is_plain(text), text
    assert SHOWN in said
    assert re.search(r"half \S+ of one", said)
    # What is text in another script is kept: that a problem is named in German does not hide it.
    assert "ein Ärger in /home/jörg" in said
    # The key is not left out because of its comment.
    assert len(shown["unmanaged web-1"].splitlines()) == 2
    assert SHOWN in shown["unmanaged web-1"]
    assert f"revision 1 stays in force: {SHOWN}" in shown["events"]
    assert not [line for line in shown["events"].split("\n") if line.startswith("99")]
    for path in ("/api/keyrack/v1/events", "/api/v3/servers/1/logs", "/api/keyrack/v1/servers/1/unmanaged-keys"):
        answer = team.call("GET", path, token="token-of-olga")
        assert answer.status_code == 200
        assert "\\u001b" not in answer.text
        assert "\x1b" not in answer.text


def test_text_that_an_operator_types_does_not_act_on_a_terminal(team: Service) -> None:
    ended = run(team, "show", FORGED)
    assert ended.exit_code == 1
    assert is_plain(ended.output), ended.output


def test_control_characters_that_are_in_the_database_are_quoted_in_output(team: Service) -> None:
    """Rows that older versions took in, or that another hand wrote."""
    team.instance.database.write(
        lambda connection: connection.exec_driver_sql("UPDATE servers SET name = 'web\x1b[2J\n2', os = 'De\x07bian'")
    )
    for words in ("list", "show 1"):
        assert is_plain(good(team, *words.split()))
    actor = actors.system_actor(1)
    assert servers.get(team.instance, actor, 1).name != ""


def test_log_lines_are_lines() -> None:
    text = f"""
import logging
from keyrack.cli.machine.serve import set_up_logging
set_up_logging()
logging.getLogger("others").warning("path %s", {FORGED!r})
try:
    raise ValueError({FORGED!r})
except ValueError:
    logging.getLogger("others").exception("it failed")
"""
    written = subprocess.run((sys.executable, "-c", text), stderr=subprocess.PIPE, check=True).stderr.decode()
    assert is_plain(written), written
    first, second = written.rstrip("\n").split("\n")
    assert SHOWN in first.replace("\\\\", "\\")
    assert "it failed" in second
