"""What a person reads who asks by the command line: what was not found, what was misspelt, what was done."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import update

from keyrack.cli.main import main
from keyrack.store import tables
from tests.cli.test_over_http import good, home, key_of, log_in, run
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

__all__ = ["home"]


@pytest.mark.usefixtures("home")
def test_the_audit_log_is_asked_for_the_last_hours_and_says_where_nothing_is_found() -> None:
    assert "olga" in good("audit", "list", "--since", "12h")
    assert "No event matches." in run("audit", "list", "--person", "nobody-of-ours").output
    assert "what was done to alice: --search alice." in run("audit", "list", "--person", "alice").output
    for option in ("--person", "--host", "--key", "--kind", "--search"):
        refused = run("audit", "list", option, "")
        assert (refused.exit_code, f"{option} is empty" in refused.output) == (2, True), refused.output
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


def test_approving_a_request_prints_who_gets_in_where_and_for_how_long(team: Service, home: Path) -> None:
    log_in(team, "alice")
    key_of("laptop", home)
    good("request", "web-1/deploy", "--for", "1h", "--why", "a look")
    log_in(team, "olga")
    assert "Approved request 1: alice may log in as deploy on web-1 for 1h." in good("requests", "approve", "1")
    assert "grant 1: a look" in good("who-can", "web-1", "deploy")
    (home / "glass.pub").write_text(fresh_line())
    good("servers", "add-key", "web-1", "glass.pub", "--label", "door", "--as", "deploy", "--break-glass")
    assert "SSH key door (1), break-glass" in good("who-can", "web-1", "deploy")
    log_in(team, "alice")
    assert "Wrote 1 host." in run("ssh-config", "--write").output


@pytest.mark.usefixtures("home")
def test_a_command_that_works_on_the_data_alone_says_so_after_a_login() -> None:
    refused = run("export")
    assert (refused.exit_code, "not where `keyrack login` logged in" in refused.output) == (1, True)


@pytest.mark.parametrize("group", ["grants", "servers", "keys", "people", "groups", "sessions", "requests"])
def test_no_line_of_help_is_cut(group: str) -> None:
    assert "..." not in CliRunner().invoke(main, [group, "--help"]).output.split("Commands:")[1]


def test_one_thing_is_counted_in_the_singular(team: Service, home: Path) -> None:
    log_in(team, "alice")
    key_of("laptop", home)
    log_in(team, "olga")
    assert "There is no key to freeze." in run("freeze", "keys", "--user", "olga", "--dry-run").output
    assert "1 key would open no new session, on " in run("freeze", "keys", "--user", "alice", "--dry-run").output
    assert json.loads(good("keys", "list", "--json"))[0]["state"] is None
    good("freeze", "keys", "--user", "alice")
    assert json.loads(good("keys", "list", "--json"))[0]["state"] == "frozen"
    good("people", "set", "alice", "--disabled")
    summaries = good("audit", "list")
    assert "Froze 1 SSH key of alice: no new session until confirmed" in summaries
    assert "Disabled alice: 1 SSH key leaves " in summaries


def test_removing_a_damaged_row_prints_json_where_asked(team: Service, home: Path) -> None:
    log_in(team, "alice")
    key_of("laptop", home)
    log_in(team, "olga")
    altered = update(tables.user_keys).values(title="altered")
    team.instance.database.write(lambda connection: connection.execute(altered))
    (row,) = json.loads(good("hosts", "damaged", "--json"))
    assert json.loads(good("hosts", "damaged", "--remove", row["row"], "--json"))["row"] == row["row"]


def test_a_person_who_can_log_in_nowhere_and_the_list_of_keys_show_what_is_lacking(team: Service, home: Path) -> None:
    log_in(team, "alice")
    key_of("laptop", home)
    log_in(team, "olga")
    assert "it takes an SSH key and a grant" in run("access", "alice").output
    assert json.loads(good("keys", "list", "--json"))[0]["expires_at"] is None
    good("keys", "renew", "1", "--for", "90d")
    assert json.loads(good("keys", "list", "--json"))[0]["expires_at"] is not None
    good("grants", "give", "--user", "alice", "--server", "web-1", "--as", "deploy")
    (home / "bot.pub").write_text(fresh_line())
    good("servers", "add-key", "web-1", "bot.pub", "--label", "bot", "--as", "deploy")
    good("freeze", "keys", "--server", "web-1")
    assert "Keys of alice are frozen on web-1: they open no new session" in run("access", "alice").output
    (bot,) = json.loads(good("hosts", "keys", "web-1", "--json"))
    assert bot["state"] == "on its way, but frozen"
    good("people", "set", "alice", "--disabled")
    assert "alice is disabled: nothing of theirs opens anything." in run("access", "alice").output


@pytest.mark.usefixtures("home")
def test_a_refusal_that_says_this_names_the_argument() -> None:
    assert (
        "Error: reason: This is empty or blank." in run("request", "web-1/deploy", "--for", "1h", "--why", " ").output
    )
    assert "Error: name: This is longer than 255 characters." in run("people", "set", "x" * 256).output
    assert "Error: path: This is longer than 255 characters." in run("repos", "create", "x/" + "y" * 300).output
    Path("private").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n")
    assert "Error: private is a private key, and was not sent; " in run("keys", "mine", "add", "private").output


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "words",
    [
        "servers show", "hosts show", "servers keys", "people keys", "people delete", "groups delete", "leaver",
        "sessions list", "people set", "groups set", "access", "ssh-config --user",
    ],
)  # fmt: skip
def test_an_empty_name_is_refused_and_never_another_call(words: str) -> None:
    """A script's variable that is unset: `servers show ""` showed the list, and `access ""` oneself."""
    refused = run(*words.split(), "")
    assert (refused.exit_code, refused.stdout) == (2, ""), refused.output
    assert "mpty" in refused.output


@pytest.mark.usefixtures("home")
def test_a_name_with_a_slash_is_not_taken_for_an_older_service() -> None:
    refused = run("servers", "show", "a/b")
    assert (refused.exit_code, "'a/b' holds a /" in refused.output) == (2, True), refused.output


@pytest.mark.usefixtures("home")
def test_an_empty_value_is_null_in_json_and_a_dash_is_text(home: Path) -> None:
    key = key_of("-", home)
    (mine,) = json.loads(good("people", "keys", "me", "--json"))
    assert (mine["title"], mine["expires_at"]) == ("-", None), key
    assert all(person["disabled"] is None for person in json.loads(good("people", "list", "--json")))
    assert all(grant["reason"] != "-" for grant in json.loads(good("grants", "list", "--json")))
    assert "  -" in good("people", "list")


def test_a_private_key_stays_where_it_is(team: Service, home: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / "own")], check=True)
    before = team.call("GET", "/api/keyrack/v1/events?per_page=1", token="token-of-olga").json()["items"]
    for words in ("keys mine add own", "people add-key alice own", "keys add own --label x --as deploy --all"):
        refused = run(*words.split())
        assert (refused.exit_code, "own is a private key, and was not sent; give own.pub" in refused.output) == (
            1,
            True,
        )
    (home / "own.pub").unlink()
    assert "ssh-keygen -y -f own prints" in run("keys", "mine", "add", "own").output
    after = team.call("GET", "/api/keyrack/v1/events?per_page=1", token="token-of-olga").json()["items"]
    assert after == before, "nothing was tried at the service"


def test_a_key_that_was_revoked_everywhere_is_refused_with_what_lifts_that(home: Path) -> None:
    file = key_of("gone", home)
    (key,) = json.loads(good("people", "keys", "me", "--json"))
    good("hosts", "revoke", key["fingerprint"])
    refused = run("keys", "mine", "add", f"{file}.pub")
    assert f"`keyrack hosts revoke --lift {key['fingerprint']}`" in refused.output
    good("hosts", "revoke", "--lift", key["fingerprint"])
    good("keys", "mine", "add", f"{file}.pub")


def test_no_summary_of_a_command_is_cut_before_its_example() -> None:
    for words in (("requests", "--help"), ("people", "sources", "--help")):
        assert "such as." not in " ".join(good(*words).split())
