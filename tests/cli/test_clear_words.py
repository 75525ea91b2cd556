"""What a person reads who asks by the command line: what was not found, what was misspelt, what was done."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from keyrack.cli.main import main
from tests.cli.test_over_http import good, home, key_of, log_in, run
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

__all__ = ["home"]


@pytest.mark.usefixtures("home")
def test_the_audit_log_is_asked_for_the_last_hours_and_says_where_nothing_is_found() -> None:
    assert "olga" in good("audit", "list", "--since", "12h")
    assert "No event is like that." in run("audit", "list", "--person", "nobody-of-ours").output
    assert run("audit", "list", "--since", "yesterday").exit_code == 2
    for piece in ("bob", "SHA256:short"):
        refused = run("audit", "list", "--key", piece)
        assert (refused.exit_code, "as ssh-keygen -l prints it" in refused.output) == (1, True), refused.output


@pytest.mark.usefixtures("home")
def test_a_token_for_an_action_that_there_is_not_is_refused_with_those_there_are(team: Service) -> None:
    refused = run("tokens", "create", "ci", "--scope", "server:read")
    assert refused.exit_code == 1
    assert "server:read fits no action; the nearest are servers:read, " in refused.output
    body = {"name": "ci", "scopes": ["servers:read", "keys:rewoke"]}
    answer = team.call("POST", "/api/keyrack/v1/tokens", token="token-of-olga", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "action-unknown")
    assert "without end" in run("tokens", "create", "ci", "--scope", "keys:*").output
    assert run("tokens", "create", "all", "--scope", "*", "--for", "1d").exit_code == 0
    refused = run("people", "set", "alice", "--policy", "nonsense")
    assert (refused.exit_code, "nonsense fits no action; there are servers:read, " in refused.output) == (1, True)
    answer = team.call("PUT", "/api/keyrack/v1/people/eve", token="token-of-olga", json={"policies": ["git:pull"]})
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "policies")


def test_who_approves_reads_who_gets_in_where_and_for_how_long(team: Service, home: Path) -> None:
    log_in(team, "alice")
    key_of("laptop", home)
    good("request", "web-1/deploy", "--for", "1h", "--why", "a look")
    log_in(team, "olga")
    assert "Approved request 1: alice may log in as deploy on web-1 for 1h." in good("requests", "approve", "1")
    assert "grant 1: a look" in good("who-can", "web-1", "deploy")
    (home / "glass.pub").write_text(fresh_line())
    good("servers", "add-key", "web-1", "glass.pub", "--label", "door", "--as", "deploy", "--break-glass")
    assert "SSH key door (1), to break glass with" in good("who-can", "web-1", "deploy")
    log_in(team, "alice")
    assert "Wrote 1 host." in run("ssh-config", "--write").output


@pytest.mark.usefixtures("home")
def test_a_command_for_the_data_alone_says_so_to_whoever_is_logged_in() -> None:
    refused = run("export")
    assert (refused.exit_code, "not where `keyrack login` logged in" in refused.output) == (1, True)


@pytest.mark.parametrize("group", ["grants", "servers", "keys", "people", "groups", "sessions", "requests"])
def test_no_line_of_a_help_breaks_off(group: str) -> None:
    assert "..." not in CliRunner().invoke(main, [group, "--help"]).output.split("Commands:")[1]


def test_one_is_not_told_as_several(team: Service, home: Path) -> None:
    log_in(team, "alice")
    key_of("laptop", home)
    log_in(team, "olga")
    assert "1 key would open no new session, on " in run("freeze", "keys", "--user", "alice", "--dry-run").output
    good("freeze", "keys", "--user", "alice")
    good("people", "set", "alice", "--disabled")
    summaries = good("audit", "list")
    assert "Froze 1 SSH key of alice: no new session until confirmed" in summaries
    assert "Disabled alice: 1 SSH key leaves " in summaries


@pytest.mark.usefixtures("home")
def test_what_is_refused_is_named_where_the_words_say_this() -> None:
    assert (
        "Error: reason: This is empty or blank." in run("request", "web-1/deploy", "--for", "1h", "--why", " ").output
    )
    assert "Error: name: This is longer than 255 characters." in run("people", "set", "x" * 256).output
    assert "Error: path: This is longer than 255 characters." in run("repos", "create", "x/" + "y" * 300).output
    Path("private").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n")
    assert "Error: This is a private key." in run("keys", "mine", "add", "private").output
