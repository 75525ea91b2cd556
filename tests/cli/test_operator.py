"""Commands that operators type: grants, tokens, the log, a plan of a file; and that the log says who typed them."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from keyrack.cli.main import main
from tests.core.keys_for_tests import fresh_line
from tests.services import TEAM

WHO = pwd.getpwuid(os.geteuid()).pw_name


def run(data: Path, *words: str, status: int = 0) -> str:
    """One command, in this process, its status checked; answers what it printed."""
    workspace = [] if words[0] == "apply" else ["--workspace", "acme"]
    done = CliRunner().invoke(main, [*words, "--data", str(data), *workspace])
    assert done.exit_code == status, (done.output, done.exception)
    return done.stdout + done.stderr


@pytest.mark.parametrize("words", [("hosts", "receipts"), ("backup",)])
def test_an_argument_that_is_not_utf_8_is_refused_in_words(data: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "keyrack.cli.main", *words, b"\xff\xfe", "--data", str(data)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "not UTF-8" in done.stderr
    assert "Traceback" not in done.stderr


def test_grants_from_the_command_line(data: Path) -> None:
    year = datetime.now(UTC).year + 1
    wanted = ("--user", "alice", "--server", "web-1", "--as", "deploy", "--until", f"{year}-01-31")
    given = run(data, "grants", "give", *wanted)
    assert "Let alice in as deploy on web-1 (grant 1)." in given
    (listed,) = json.loads(run(data, "grants", "list", "--json"))
    # An event that concerns a host without naming it is listed for it too, by each way to ask.
    run(data, "grants", "give", "--user", "bob", "--all", "--as", "deploy")
    for words in (("events", "web-1"), ("audit", "list", "--host", "web-1")):
        assert "Let bob log in as deploy on all hosts" in run(data, *words), words
    run(data, "grants", "take-back", "2")
    assert (listed["who"], listed["where"], listed["end"]) == ("alice", "web-1", f"{year}-02-01T00:00:00Z")
    assert "There is no such user" in run(
        data, "grants", "give", "--user", "nobody", "--server", "web-1", "--as", "deploy", status=1
    )
    for where in (("--server", "web-1"), ("--tag", "web")):
        slip = ("grants", "give", "--user", "alice", *where, "--as", "nope")
        assert "has the account 'nope'" in run(data, *slip, status=1)
    assert "Took back from alice" in run(data, "grants", "take-back", "1")
    assert json.loads(run(data, "grants", "list", "--json")) == []
    assert "keyrack grants list" in run(data, "grants", "take-back", "1", status=1)


def test_removing_a_key_that_still_opens_something_says_what(data: Path, tmp_path: Path) -> None:
    """By each command that takes a key or a person away."""
    public = tmp_path / "id.pub"
    public.write_text(fresh_line() + "\n", "ascii")
    own = json.loads(run(data, "people", "add-key", "alice", str(public), "--json"))["id"]
    run(data, "groups", "set", "ops", "alice")
    run(data, "grants", "give", "--group", "ops", "--server", "web-1", "--as", "deploy")
    where = ("--label", "laptop", "--as", "deploy")
    added = json.loads(run(data, "servers", "add-key", "web-1", str(public), *where, "--json"))["id"]
    still = f"still let in by: credential {added} (server web-1)"
    assert run(data, "groups", "remove", "ops", "alice") == f"alice is not in group ops any more; {still}.\n"
    run(data, "groups", "add", "ops", "alice")
    words = f"Deleted SSH key {added} from web-1; still let in by: grant 1 (server web-1).\n"
    assert run(data, "servers", "delete-key", "web-1", str(added)) == words
    added = json.loads(run(data, "servers", "add-key", "web-1", str(public), *where, "--json"))["id"]
    still = f"still let in by: credential {added} (server web-1)"
    assert run(data, "people", "delete-key", "alice", str(own)) == f"Deleted key {own} of alice; {still}.\n"
    words = f"Deleted SSH key {added} from web-1.\n"
    assert run(data, "servers", "delete-key", "web-1", str(added)) == words
    run(data, "groups", "delete", "ops")
    (newest,) = json.loads(run(data, "events", "--limit", "1", "--json"))
    assert newest["summary"] == "Deleted group ops, and took back what it was granted: deploy on server 1 (grant 1)"


def test_tokens_from_the_command_line(data: Path) -> None:
    listed = {one["user"]: one for one in json.loads(run(data, "tokens", "list", "--json"))}
    assert listed["bob"]["scopes"] == "*"
    assert "Revoked token laptop of bob" in run(data, "tokens", "revoke", str(listed["bob"]["id"]))
    assert "bob" not in run(data, "tokens", "list")


def test_the_log_says_who_ran_a_command(data: Path) -> None:
    run(data, "hosts", "observe", "web-1")
    (newest,) = json.loads(run(data, "events", "--limit", "1", "--json"))
    assert newest["actor"].split(" ")[0] == WHO
    assert (newest["channel"], newest["token"].split(" on ")[0]) == ("cli", "command line")
    everything = json.loads(run(data, "events", "--limit", "0", "--json"))
    assert len(everything) > 10
    assert json.loads(run(data, "hosts", "events", "web-1", "--to", "2020-01-01", "--json")) == []
    assert len(json.loads(run(data, "events", "--limit", "0", "--from", "12h", "--json"))) == len(everything)
    assert "--from is no time; one is written like" in run(data, "events", "--from", "yesterday", status=2)


def test_a_file_is_planned_first(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "acme.toml"
    file.write_text(TEAM + '[[groups]]\nname = "ops"\nmembers = ["alice", "bob"]\n')
    assert "none was" in run(data, "apply", str(file), "--dry-run")
    run(data, "apply", str(file), "--check", status=1)
    assert "create group ops: add alice, bob" in run(data, "apply", str(file))
    assert run(data, "apply", str(file), "--check") == "Nothing to change.\n"
    file.write_text(TEAM + '[[groups]]\nname = "ops"\nmembers = ["alice"]\n')
    applied = run(data, "apply", str(file))
    assert "left as it is, without --prune: take bob out of group ops" in applied
    assert "take bob out of group ops\n1 change." in run(data, "apply", str(file), "--prune")
    newest = json.loads(run(data, "events", "--limit", "2", "--json"))
    assert newest[0]["summary"] == "Applied a workspace file: 1 change"
    assert newest[1]["summary"] == "Changed group ops: took out bob"
    assert newest[1]["actor"].split(" ")[0] == WHO
