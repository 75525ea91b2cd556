"""`keyrack hosts` as an operator uses it: what it prints, what it changes, and how it says no."""

from __future__ import annotations

import json
import threading
import time

import pytest
from click import Context
from click.testing import CliRunner, Result
from sqlalchemy import insert

from keyrack.cli.hosts.hosts import COMMANDS, FORMER
from keyrack.cli.hosts.hosts import command as group
from keyrack.cli.main import main
from keyrack.core.hosts import enrolment, servers, unmanaged_keys
from keyrack.core.keys import credentials
from keyrack.core.people import actors
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from tests.core.keys_for_tests import fresh_line
from tests.core.test_unmanaged_keys import entry
from tests.services import Service
from tests.waiting import wait_until
from tests.web.test_native import enrol, put, tell


def run(team: Service, *words: str) -> Result:
    """Run `keyrack hosts …` beside the service, in the team's workspace."""
    data = str(team.instance.settings.data)
    return CliRunner().invoke(main, ["hosts", *words, "--data", data, "--workspace", "acme"])


def good(team: Service, *words: str) -> str:
    """What it prints when all is well."""
    ended = run(team, *words)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


@pytest.mark.parametrize("name", [None, *COMMANDS, *FORMER])
def test_help_answers(name: str | None) -> None:
    shown = CliRunner().invoke(main, ["hosts", *([name] if name else []), "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output


def test_the_overview_of_commands_has_the_summary_of_each_command() -> None:
    context = Context(group)
    for name, (_, text) in COMMANDS.items():
        command = group.get_command(context, name)
        assert command is not None
        assert (command.name, command.get_short_help_str(limit=len(text) + 1)) == (name, text)


def test_list_and_show(team: Service) -> None:
    assert "not enrolled" in good(team, "list")
    token = servers.invite(team.instance, actors.system_actor(1), 1)
    enrolment.enrol(team.instance, token, {"hostname": "h", "mode": "enforce"}, address="192.0.2.1")
    tell(team, entry(fresh_line("robot")), facts={"enforcement": "enforce"}, problems=["the disk is full"])
    titles, row = good(team, "list").splitlines()
    assert titles.split() == ["ID", "NAME", "MODE", "STATE", "APPLIED", "SEEN", "UNMANAGED"]
    assert row.split()[:4] == ["1", "web-1", "enforce", "enforcing"]
    assert row.endswith("1")
    assert json.loads(good(team, "list", "--json"))[0]["state"] == "enforcing"
    shown = good(team, "show", "web-1")
    assert "the disk is full" in shown
    assert "when silent  keys stay" in shown
    tell(team, facts={"enforcement": "undone", "undone": "sshd greets nobody any more"})
    assert "sshd greets nobody any more" in good(team, "show", "1")
    assert "enforcing undone" in good(team, "list")


def test_unmanaged_keys(team: Service) -> None:
    lines = [fresh_line(name) for name in ("one", "two", "three")]
    tell(team, *(entry(line, line=number + 1) for number, line in enumerate(lines)))
    actor = actors.system_actor(1)
    ids = {one.comment: str(one.id) for one in unmanaged_keys.find(team.instance, actor, 1).items}
    assert parse(lines[0]).fingerprint in good(team, "unmanaged", "web-1")
    assert "for deploy" in good(team, "accept", "web-1", ids["one"], "--label", "robot")
    assert credentials.find(team.instance, actor, 1).items[0].label == "robot"
    good(team, "ignore", "web-1", ids["two"])
    good(team, "remove", "web-1", ids["three"])
    assert [row.split()[1] for row in good(team, "unmanaged", "web-1").splitlines()[1:]] == ["removing"]
    assert len(good(team, "unmanaged", "web-1", "--all").splitlines()) == 4


def test_mode_and_offline_policy(team: Service) -> None:
    assert "web-1 is to observe" in good(team, "observe", "web-1")
    assert "web-1 is to enforce" in good(team, "enforce", "1")
    said = good(team, "offline-policy", "--tag", "web", "--after", "1h", "--then", "drop-temporary")
    assert said == "web-1: after 3600 seconds temporary keys are dropped\n"
    assert good(team, "offline-policy", "web-1", "--after", "0", "--then", "keep") == "web-1: keys stay\n"


def test_revoke_waits_until_all_hosts_obey(team: Service) -> None:
    line = fresh_line()
    enrol(team)
    put(team, line)

    def revision() -> int:
        return servers.get(team.instance, actors.system_actor(1), 1).revision

    before = revision()

    def host() -> None:
        wait_until(lambda: revision() > before, "the revocation")
        time.sleep(0.8)  # it is looked at before the host obeys
        tell(team)

    agent = threading.Thread(target=host)
    agent.start()
    ended = run(team, "revoke", parse(line).fingerprint, "--wait", "20")
    agent.join()
    assert ended.exit_code == 0, ended.output
    assert "done on 0 of 1 server; not yet on web-1" in ended.stderr
    assert ended.stdout.endswith("done on 1 of 1 server\n")
    assert ended.output.count("done on 1 of 1 server") == 1
    assert "done on 1 of 1 server" in good(team, "receipts", parse(line).fingerprint)
    event = next(row for row in good(team, "events").splitlines() if "everywhere:" in row).split()[0]
    assert "web-1" in good(team, "receipts", event)
    assert "or earlier" not in good(team, "receipts", event)
    put(team, fresh_line())
    tell(team)
    assert "Z or earlier" in good(team, "receipts", event)


def test_revoke_says_so_when_a_host_stays_silent(team: Service) -> None:
    lines = [fresh_line(), fresh_line()]
    enrol(team)
    put(team, lines[0])
    ended = run(team, "revoke", parse(lines[0]).fingerprint, "--wait", "1")
    assert ended.exit_code == 3
    assert "not yet on web-1" in ended.stdout
    again = run(team, "revoke", parse(lines[0]).fingerprint)
    assert again.exit_code == 0, again.output
    assert "nothing here has it any more; it is refused on 1 server" in again.output
    assert "not yet on web-1" in again.output
    put(team, lines[1])
    revoked = run(team, "revoke", parse(lines[1]).fingerprint, "--json", "--wait", "0")
    assert revoked.exit_code == 3
    found = json.loads(revoked.stdout)
    assert (found["fingerprint"], found["credentials"], found["done"]) == (parse(lines[1]).fingerprint, 1, False)
    assert [one["server"] for one in found["servers"]] == ["web-1"]
    lifted = good(team, "revoke", parse(lines[1]).fingerprint, "--lift", "--json")
    assert json.loads(lifted) == {"fingerprint": parse(lines[1]).fingerprint, "lifted": True}


def test_sessions(team: Service) -> None:
    session = {
        "server_id": 1,
        "host_session": "s1",
        "username": "deploy",
        "address": "198.51.100.9",
        "fingerprint": "",
        "started_at": team.instance.now(),
        "ending": False,
    }
    team.instance.database.write(lambda connection: connection.execute(insert(tables.sessions).values(session)))
    row = good(team, "sessions", "web-1").splitlines()[1].split()
    assert row[1:3] == ["deploy", "198.51.100.9"]
    good(team, "end-session", "web-1", row[0])
    assert good(team, "sessions", "web-1").splitlines()[1].endswith("ending")


def test_the_enrolment_line_to_paste_is_printed(team: Service) -> None:
    line = good(team, "enrol", "web-1", "--public-url", "https://keys.example.org")
    assert line.startswith("curl -fsSL https://keys.example.org/agent/install.sh | KEYRACK_AGENT_TOKEN=")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "nowhere"), "keyrack hosts list"),
        (("show", "2"), "keyrack hosts list"),  # another workspace's
        (("accept", "web-1", "999"), "keyrack hosts unmanaged web-1"),
        (("end-session", "web-1", "999"), "keyrack hosts sessions web-1"),
        (("receipts", "999999"), "keyrack audit list"),
        (("revoke", "nonsense"), "ssh-keygen -l"),
        (("offline-policy", "web-1", "--after", "soon", "--then", "keep"), "12h"),
        (("offline-policy", "web-1", "--after", "1h", "--then", "explode"), "drop-temporary"),
        (("offline-policy", "--after", "1h", "--then", "keep"), "--tag"),
        (("ignore", "web-1", "99999999999999999999"), "range"),
    ],
)
def test_an_impossible_command_is_refused_in_words(team: Service, words: tuple[str, ...], said: str) -> None:
    ended = run(team, *words)
    assert ended.exit_code in (1, 2)
    assert said in ended.output
    assert "Traceback" not in ended.output


def test_a_revoked_key_is_listed_and_lifted(team: Service) -> None:
    line = fresh_line()
    fingerprint = parse(line).fingerprint
    put(team, line)
    good(team, "revoke", fingerprint, "--reason", "laptop stolen")
    (row,) = good(team, "revoked").splitlines()[1:]
    assert row.startswith(fingerprint)
    assert row.endswith("laptop stolen")
    assert "may be registered again" in good(team, "revoke", "--lift", fingerprint)
    assert good(team, "revoked").splitlines()[1:] == []
    assert "hosts revoked" in run(team, "revoke", "--lift", fingerprint).stderr


def test_former_names_of_commands_are_taken_and_not_shown(team: Service) -> None:
    assert good(team, "found", "web-1") == good(team, "unmanaged", "web-1")
    assert "web-1 is to observe" in good(team, "adopt", "web-1")
    assert good(team, "stale", "web-1", "--after", "1h", "--then", "keep").startswith("web-1:")
    shown = CliRunner().invoke(main, ["hosts", "--help"]).output
    listed = {line.split()[0] for line in shown.split("\n") if line.startswith("  ")}
    assert not listed & {"adopt", "found", "stale"}
    assert {"observe", "unmanaged", "offline-policy"} <= listed
