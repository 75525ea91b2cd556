"""The command line over the API: logging in, the same answers as on the data, dry runs, and how commands end."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from keyrack.cli.connection import over_http
from keyrack.cli.main import main
from keyrack.core.audit.events import ALARM, KINDS, REFUSED
from keyrack.web.native import api, catalogue
from tests.cli.test_backup import unprivileged
from tests.core.keys_for_tests import fresh_line
from tests.endless_answer import endless_answer
from tests.ports import free_port
from tests.services import Service
from tests.web.test_native import call


@pytest.fixture
def home(team: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, without data and with a configuration of its own; olga is logged in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("KEYRACK_DATA", "KEYRACK_DATABASE", "KEYRACK_URL", "KEYRACK_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    log_in(team, "olga")
    return tmp_path


def log_in(team: Service, name: str) -> None:
    """Log in with a person's token, read from standard input."""
    said = good("login", team.url, "--token-file", "-", sent=f"token-of-{name}\n")
    assert f"as {name}" in said
    assert "token-of" not in said


def run(*words: str, sent: str | None = None) -> Result:
    """One command."""
    ended = CliRunner().invoke(main, words, input=sent)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended


def good(*words: str, sent: str | None = None) -> str:
    """What a command prints that ends well."""
    ended = run(*words, sent=sent)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def listed(*words: str) -> Any:
    """What a command lists."""
    return json.loads(good(*words, "--json"))


def on_data(team: Service, *words: str) -> str:
    """The same command on the service's data."""
    settings = team.instance.settings
    where = ("--data", str(settings.data), "--database", settings.database_url, "--workspace", "acme")
    return good(*words, *where)


def key_of(name: str, folder: Path) -> Path:
    """A key pair; its public half is registered by the person who is logged in."""
    file = folder / f"{name}.key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(file)], check=True)
    good("keys", "mine", "add", f"{file}.pub", "--title", name)
    return file


def test_a_login_is_kept_for_its_owner_alone(team: Service, home: Path) -> None:
    file = home / "config" / "keyrack" / "login.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert listed("people", "me")["name"] == "olga"
    file.chmod(0o640)
    assert "read by others" in run("people", "me").output
    file.chmod(0o600)
    refused = run("login", team.url, "--token-file", "-", sent="wrong\n")
    assert (refused.exit_code, "does not know" in refused.output) == (1, True)
    assert listed("people", "me")["name"] == "olga", "the login of before stays"
    assert run("login", "http://192.0.2.1", "--token-file", "-", sent="x").exit_code == 2, "a token in clear"
    assert run("login", "nonsense", "--token-file", "-", sent="x").exit_code == 2
    assert "--workspace goes with --data" in run("people", "list", "--workspace", "acme").output
    good("logout")
    assert not file.exists()
    assert "not logged in" in run("people", "list").output


def test_programs_log_in_by_their_environment(team: Service, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good("logout")
    monkeypatch.setenv("KEYRACK_URL", team.url)
    monkeypatch.setenv("KEYRACK_TOKEN", "token-of-alice")
    assert listed("people", "me")["name"] == "alice"
    assert f"Commands go to {team.url} all the same" in run("logout").stderr
    assert run("login", team.url, "--token-file", "-", sent="token-of-olga").stderr.startswith("Commands go to")
    monkeypatch.setenv("KEYRACK_TOKEN", "wrong")
    assert "It is KEYRACK_TOKEN's: set another." in run("people", "me").output
    monkeypatch.setenv("KEYRACK_URL", team.url.replace("http:", "https:"))
    assert "; does it speak https there?" in run("people", "me").output
    monkeypatch.setenv("KEYRACK_URL", f"{team.url}/api/keyrack/v1")
    assert ", or its address ends before /api/keyrack/v1." in run("people", "me").output
    monkeypatch.delenv("KEYRACK_TOKEN")
    half = run("people", "me")
    assert (half.exit_code, "KEYRACK_URL is set and KEYRACK_TOKEN is not" in half.output) == (2, True)


def test_a_login_that_cannot_be_kept_or_removed_is_told(
    team: Service, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "config" / "keyrack").chmod(0o500)
    kept = unprivileged("logout")
    assert (kept.returncode, "You are still logged in. " in kept.stderr) == (1, True), kept.stderr
    for name in ("XDG_CONFIG_HOME", "HOME"):
        monkeypatch.setenv(name, "/dev/null")
    assert "You are not logged in" in run("people", "me").output
    assert "No login was kept." in good("logout")
    assert "/dev/null" in run("login", team.url, "--token-file", "-", sent="token-of-olga").output
    for name in ("XDG_CONFIG_HOME", "HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert "There is no home folder that keeps a login: set HOME" in run("people", "me").output


LISTS = (
    *("servers list", "servers show web-1", "servers keys web-1", "people list", "groups list", "grants list"),
    *("tokens list", "keys list", "requests list", "leaver list", "sessions list web-1", "who-can web-1"),
    *(
        "access alice",
        "hosts list",
        "hosts list --deleted",
        "hosts show web-1",
        "hosts keys web-1",
        "hosts sessions web-1",
    ),
    *("hosts damaged", "servers accounts web-1"),
)


def test_commands_print_the_same_over_http_and_on_the_data(team: Service, home: Path) -> None:
    key_of("olga", home)
    good("keys", "add", str(home / "olga.key.pub"), "--label", "bot", "--as", "deploy", "--tag", "web", "--for", "8h")
    good("grants", "give", "--user", "alice", "--server", "web-1", "--as", "deploy", "--reason", "release 12")
    good("groups", "set", "ops", "alice", "bob")
    for words in LISTS:
        for more in ((), ("--json",)):
            over, on = good(*words.split(), *more), on_data(team, *words.split(), *more)
            if words == "tokens list":  # its last use is noted meanwhile
                over, on = over[:60], on[:60]
            assert over == on, words
    assert "There is no such grant" in run("grants", "take-back", "4711").output
    assert run("grants", "take-back", "4711").exit_code == 1
    assert run("grants", "give", "--user", "alice", "--tag", "web", "--as", "deploy", "--for", "2m").exit_code == 2
    both = ("--for", "1h", "--until", "2099-01-01")
    assert run("grants", "give", "--user", "alice", "--tag", "web", "--as", "deploy", *both).exit_code == 2


def test_an_unknown_account_is_not_shown_as_one_that_lets_nobody_in(team: Service, home: Path) -> None:
    for more in ((), ("--json",)):
        refused = run("who-can", "web-1", "deplyo", *more)
        assert (refused.exit_code, "no account 'deplyo'; it has runcloud, root, deploy." in refused.output) == (1, True)
        assert refused.output.count("`keyrack ") == 1, "one word of advice"
    assert "Nobody can log in there" in run("who-can", "web-1", "deploy").output


def test_a_dry_run_says_who_gains_and_loses_and_changes_nothing(team: Service, home: Path) -> None:
    log_in(team, "alice")
    key_of("alice", home)
    log_in(team, "olga")
    wanted = ("grants", "give", "--user", "alice", "--server", "web-1", "--as", "deploy")
    for words in (good(*wanted, "--dry-run"), on_data(team, *wanted, "--dry-run")):
        assert words == "alice would gain the login as deploy on web-1\n"
    assert listed("grants", "list") == []
    assert listed("access", "alice") == []
    before = listed("servers", "show", "web-1")["wanted"]
    good("groups", "set", "ops", "bob")
    good("grants", "give", "--group", "ops", "--tag", "web", "--as", "deploy")
    assert good("groups", "add", "ops", "alice", "--dry-run") == "alice would gain the login as deploy on web-1\n"
    good("groups", "add", "ops", "alice")
    for change in (
        ("groups", "remove", "ops", "alice"),
        ("groups", "set", "ops", "bob"),
        ("groups", "delete", "ops"),
        ("people", "set", "alice", "--disabled"),
        ("people", "delete", "alice"),
        ("grants", "take-back", "1"),
        ("grants", "take-back", "1"),
    ):
        number = str(listed("grants", "list")[0]["id"])
        preview = good(*[number if word == "1" else word for word in change], "--dry-run")
        assert preview == "alice would lose the login as deploy on web-1\n", change
    assert good("groups", "remove", "ops", "bob", "--dry-run") == "Nobody would gain or lose a login.\n"
    rehearsed = json.loads(good("groups", "delete", "ops", "--dry-run", "--json"))
    assert ([one["user"] for one in rehearsed["loses"]], rehearsed["gains"]) == (["alice"], [])
    assert [one["members"] for one in listed("groups", "list")] == ["alice, bob"]
    assert listed("servers", "show", "web-1")["wanted"] > before
    assert run("groups", "add", "ops", "nobody", "--dry-run").exit_code == 1
    log_in(team, "mallory")
    refused = run("groups", "delete", "ops", "--dry-run")
    assert (refused.exit_code, "not allowed" in refused.output) == (1, True)


def test_a_rehearsal_leaves_no_trace_but_its_refusal(team: Service, home: Path) -> None:
    def summaries() -> list[str]:
        answer = team.call("GET", "/api/keyrack/v1/events?per_page=200", token="token-of-olga")
        return [one["summary"] for one in answer.json()["items"]]

    before = summaries()
    good("groups", "set", "ops", "alice", "--dry-run")
    assert summaries() == before
    assert run("groups", "set", "ops", "nobody", "--dry-run").exit_code == 1
    assert len(summaries()) == len(before) + 1


def test_access_is_asked_for_and_approved(team: Service, home: Path) -> None:
    log_in(team, "alice")
    key_of("alice", home)
    assert run("request", "web-1", "--for", "1h", "--why", "a look").exit_code == 2
    asked = good("request", "web-1/deploy", "--for", "1h", "--why", "the release of today")
    assert asked == "Asked to log in as deploy on web-1 for 1h: request 1, pending.\n"
    assert run("requests", "approve", "1").exit_code == 1
    log_in(team, "olga")
    assert [one["why"] for one in listed("requests", "list", "--state", "pending")] == ["the release of today"]
    assert "alice would gain" in good("requests", "approve", "1", "--dry-run")
    assert (
        good("requests", "approve", "1", "--reason", "go on")
        == "Approved request 1: alice may log in as deploy on web-1 for 1h.\n"
    )
    assert [one["approved_by"] for one in listed("requests", "list")] == ["olga"]
    assert [one["system_user"] for one in listed("access", "alice")] == ["deploy"]
    assert run("requests", "refuse", "1").exit_code == 1
    log_in(team, "alice")
    assert [one["server"] for one in listed("access")] == ["web-1"]


def test_a_key_is_claimed_with_ssh_keygen(team: Service, home: Path) -> None:
    log_in(team, "alice")
    file = key_of("shared", home)
    log_in(team, "bob")
    assert run("keys", "mine", "add", f"{file}.pub").exit_code == 1
    assert "is yours" in good("keys", "claim", str(file), "--title", "mine")
    assert [one["title"] for one in listed("keys", "mine", "list")] == ["mine"]
    (home / "other.pub").write_text(fresh_line() + "\n")
    assert run("keys", "claim", str(home / "other.pub")).exit_code == 1


def test_a_service_that_is_away_has_an_exit_status_of_its_own(team: Service, home: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("KEYRACK_TOKEN", "token-of-olga")
    monkeypatch.setenv("KEYRACK_URL", f"http://127.0.0.1:{free_port()}")
    ended = run("grants", "list")
    assert (ended.exit_code, "gives no answer" in ended.output) == (4, True)
    monkeypatch.setenv("KEYRACK_URL", f"{team.url}/somewhere")
    ended = run("grants", "list")
    assert (ended.exit_code, "is it a Keyrack service?" in ended.output) == (4, True)


def test_the_log_is_read_by_person_host_and_key(team: Service, home: Path) -> None:
    log_in(team, "alice")
    file = key_of("alice", home)
    fingerprint = listed("keys", "mine", "list")[0]["fingerprint"]
    log_in(team, "olga")
    good("servers", "add-key", "web-1", f"{file}.pub", "--label", "laptop", "--as", "deploy", "--for", "1h")
    everything = listed("audit", "list")
    assert everything == json.loads(on_data(team, "audit", "list", "--json"))
    assert len(everything) > 10
    assert listed("audit", "list", "--limit", "3") == everything[:3]
    assert {one["actor"] for one in listed("audit", "list", "--person", "alice")} == {"alice"}
    assert {one["server_id"] for one in listed("audit", "list", "--host", "web-1", "--search", "laptop")} == {1}
    assert [one["actor"] for one in listed("audit", "list", "--key", fingerprint)] == ["olga", "alice"]
    assert listed("audit", "list", "--until", "2020-01-01") == []
    of_keys = listed("audit", "list", "--kind", "keys")
    assert of_keys == json.loads(on_data(team, "audit", "list", "--kind", "keys", "--json"))
    assert 0 < len(of_keys) < len(everything)
    assert run("audit", "list", "--kind", "ghosts").exit_code == 1
    assert all(kind in good("audit", "list", "--help") for kind in (*KINDS, ALARM, REFUSED))
    assert run("audit", "list", "--since", "yesterday").exit_code == 2
    shown = run("audit", "list", "--key", fingerprint)
    added = next(line for line in shown.stdout.splitlines() if "laptop" in line and line.endswith("(receipts)"))
    assert "`keyrack hosts receipts ID`" in shown.stderr
    assert "web-1" in good("hosts", "receipts", added.split()[0])
    assert "(receipts)" not in good("audit", "list", "--kind", "tokens")


def test_a_key_on_a_server_is_restricted(team: Service, home: Path) -> None:
    good("servers", "add-key", "web-1", f"{key_of('alice', home)}.pub", "--label", "laptop", "--as", "deploy")
    (key,) = listed("servers", "keys", "web-1")
    limits = ("servers", "restrict-key", str(key["id"]), "--restrictions", '{"command": "/bin/backup"}')
    assert good(*limits) == f"SSH key {key['id']} is restricted in command.\n"


def test_restrictions_are_shown_in_the_words_of_openssh(team: Service, home: Path) -> None:
    words: tuple[str, ...] = (
        "--from-address",
        "192.0.2.0/24",
        "--from-address",
        "!192.0.2.9",
        "--command",
        "/bin/backup",
        "--restrict",
    )
    words += ("--port-forwarding", "--no-pty", "--no-X11-forwarding")
    words += ("--permit-open", "db:5432", "--permit-listen", "80")
    meant = {
        "sources": ["192.0.2.0/24", "!192.0.2.9"],
        "command": "/bin/backup",
        "restrict": True,
        "port_forwarding": True,
        "permit_pty": False,
        "x11_forwarding": False,
        "permitopen": ["db:5432"],
        "permitlisten": ["80"],
    }
    key = f"{key_of('alice', home)}.pub"
    good("servers", "add-key", "web-1", key, "--label", "one", "--as", "deploy", *words)
    (on_web,) = call(team, "GET", "/servers/web-1/credentials")["items"]
    assert on_web["restrictions"] == meant
    assert "restricted in user_rc" in good("servers", "restrict-key", str(on_web["id"]), "--no-user-rc")
    good("keys", "add", key, "--label", "many", "--as", "root", "--all", *words)
    (on_many,) = [one for one in call(team, "GET", "/servers/web-1/credentials")["items"] if one["label"] == "many"]
    assert on_many["restrictions"] == meant
    good("grants", "give", "--user", "alice", "--all", "--as", "deploy", *words)
    (given,) = call(team, "GET", "/grants")["items"]
    assert given["restrictions"] == meant
    good("grants", "change", str(given["id"]), "--agent-forwarding")
    (given,) = call(team, "GET", "/grants")["items"]
    assert given["restrictions"] == {"agent_forwarding": True}
    good("grants", "change", str(given["id"]), "--reason", "they stay")
    (given,) = call(team, "GET", "/grants")["items"]
    assert given["restrictions"] == {"agent_forwarding": True}
    both = run("grants", "change", str(given["id"]), "--no-pty", "--restrictions", "{}")
    assert (both.exit_code, "not both" in both.output) == (2, True)
    wrong = run("grants", "change", str(given["id"]), "--from-address", "192.0.2.0/99")
    assert wrong.exit_code == 1, wrong.output


def test_a_server_without_a_host_is_shown_as_such(team: Service, home: Path) -> None:
    good("grants", "give", "--user", "alice", "--server", "web-1", "--as", "deploy")
    good("freeze", "keys", "--server", "web-1")
    (frozen,) = listed("freeze", "show", "1")
    assert (frozen["host"], frozen["done"], frozen["acknowledged_at"]) == (False, True, None)
    assert good("leaver", "alice", "--wait").endswith("done on 0 of 0 servers; 1 has no host\n")
    event = listed("audit", "list", "--search", "everywhere")[0]["id"]
    for words in (("freeze", "show", "1"), ("leaver", "show", "1"), ("hosts", "receipts", str(event))):
        for shown in (good(*words), on_data(team, *words)):
            assert ("no host\n" in shown, "1 has no host" in shown) == (True, True), words


def test_a_log_of_many_pages_is_whole(team: Service, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = listed("audit", "list")
    monkeypatch.setattr("keyrack.cli.audit.PAGE_SIZE", 4)
    assert listed("audit", "list") == whole
    assert listed("audit", "list", "--limit", "6") == whole[:6]


def test_repositories_are_listed_and_protected(team: Service, home: Path) -> None:
    on_data(team, "repos", "create", "acme/site")
    assert [one["path"] for one in listed("repos", "list")] == ["acme/site"]
    assert "visibility 10, default branch protected" in good(
        "repos", "change", "acme/site", "--visibility", "10", "--protect"
    )
    assert run("repos", "change", "acme/nothing", "--protect").exit_code == 1
    good("repos", "create", "acme/more")
    assert [one["path"] for one in listed("repos", "list")] == ["acme/more", "acme/site"]


@pytest.mark.parametrize(("shell", "words"), [("bash", "plain,grants"), ("zsh", "grants"), ("fish", "plain,grants")])
def test_shells_complete_words(shell: str, words: str) -> None:
    assert "_KEYRACK_COMPLETE" in good("completion", shell)
    asked = {
        "_KEYRACK_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "keyrack gr",
        "COMP_CWORD": "1" if shell != "fish" else "gr",
    }
    program = "from keyrack.cli.main import main; main(prog_name='keyrack')"
    done = subprocess.run(
        [sys.executable, "-c", program], env=asked, capture_output=True, text=True, check=True, timeout=60
    )
    assert words in done.stdout


SHELLS = {
    "bash": "COMP_WORDS=(keyrack gr); COMP_CWORD=1; _keyrack_completion keyrack; echo ${COMPREPLY[@]}",
    "zsh": "compadd() { :; }; _describe() { print -l $completions_with_descriptions; }; words=(keyrack gr); CURRENT=2; "
    "_keyrack_completion",
    "fish": 'complete -C "keyrack gr"',
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_itself_completes_words(shell: str, home: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    start = "from keyrack.cli.main import main; main(prog_name='keyrack')"
    (home / "keyrack").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{start}" "$@"\n')
    (home / "keyrack").chmod(0o755)
    (home / "script").write_text(good("completion", shell))
    words = f"{'compdef() { :; }; ' if shell == 'zsh' else ''}source ./script; {SHELLS[shell]}"
    environment = {"PATH": f"{home}:/usr/bin:/bin", "HOME": str(home)}
    done = subprocess.run(
        [program, *(["-f"] if shell == "zsh" else []), "-c", words],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "grants" in done.stdout, done.stderr
    if shell != "bash":
        assert "give and take back who may log in where" in done.stdout


def test_every_call_is_found_by_its_path() -> None:
    for one in api.ENDPOINTS:
        path = one.path.replace("{", "x").replace("}", "x")
        found = catalogue.find(one.method, path)
        assert found is not None, f"{one.method} {one.path} is not in catalogue.MODULES"
        assert found[0].path == one.path
    assert catalogue.find("GET", "/nothing") is None


def test_hosts_are_listed_without_counts_of_keys_to_a_token_that_may_not_read_keys(
    team: Service, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = json.loads(good("tokens", "create", "looker", "--scope", "servers:read", "--json"))
    monkeypatch.setenv("KEYRACK_URL", team.url)
    monkeypatch.setenv("KEYRACK_TOKEN", made["token"])
    assert '"unmanaged": null' in good("hosts", "list", "--json")
    assert good("hosts", "list").endswith("-\n")


# Each takes a twentieth of a second and more, for which whoever types a command would wait.
NOT_OVER_HTTP = {"sqlalchemy", "pydantic", "cryptography", "starlette", "asyncio", "keyrack.store", "keyrack.web"}


@pytest.mark.parametrize(
    "words", [("hosts", "list"), ("hosts", "--help"), ("servers", "list"), ("who-can", "web-1"), ("grants", "list")]
)
def test_a_command_over_http_loads_neither_database_nor_service(home: Path, words: tuple[str, ...]) -> None:
    script = "import sys; from keyrack.cli.main import main; main(standalone_mode=False); print(*sys.modules)"
    asked = [sys.executable, "-c", script, *words]
    ended = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
    loaded = set(ended.stdout.splitlines()[-1].split())
    assert "keyrack.cli.hosts.hosts" in loaded or words[0] != "hosts"
    assert not NOT_OVER_HTTP & loaded


def test_words_are_completed_without_loading_a_command(home: Path) -> None:
    script = """
import atexit, sys
from keyrack.cli.connection import over_http
from keyrack.cli.main import main
atexit.register(lambda: print(*sys.modules))
main(prog_name="keyrack")
"""
    asked = {"_KEYRACK_COMPLETE": "bash_complete", "COMP_WORDS": "keyrack hosts off", "COMP_CWORD": "2"}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | asked)
    found, loaded = ended.stdout.splitlines()
    assert found == "plain,offline-policy"
    assert not {"keyrack.cli.hosts.hosts_called", "keyrack.cli.hosts.host_list"} & set(loaded.split())


def test_an_answer_that_breaks_off_anywhere_is_an_error(home: Path, monkeypatch: Any) -> None:
    body = b'{"items":[{"id":1,"name":"ops","members":["alice"],"created_at":"2026-11-28T05:24:40Z"}],"next":null}'
    head = b"HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 05:24:40 GMT\r\nContent-Type: application/json\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with answering(whole) as at:
        monkeypatch.setenv("KEYRACK_TOKEN", "token-of-olga")
        monkeypatch.setenv("KEYRACK_URL", at.url)
        assert run("groups", "list").exit_code == 0
        for length in range(0, len(whole), 3):
            at.answer = whole[:length]
            ended = run("groups", "list")
            assert (ended.exit_code, "gives no answer" in ended.output) == (4, True), length
            assert "may have been done" in run("groups", "set", "ops").output, length


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"])
def test_a_response_that_trickles_in_is_given_up(home: Path, monkeypatch: Any, head: bytes) -> None:
    """No single wait is long: the whole would never end."""
    monkeypatch.setattr(over_http, "WHOLE_SECONDS", 0.5)
    with endless_answer(head) as port:
        monkeypatch.setenv("KEYRACK_TOKEN", "token-of-olga")
        monkeypatch.setenv("KEYRACK_URL", f"http://127.0.0.1:{port}")
        ended = run("groups", "list")
    assert (ended.exit_code, "it took too long" in ended.output) == (4, True), ended.output


def test_an_answer_without_end_is_not_kept_in_memory(home: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(over_http, "MAX_BYTES", 100_000)
    with answering(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 100_001) as at:
        monkeypatch.setenv("KEYRACK_TOKEN", "token-of-olga")
        monkeypatch.setenv("KEYRACK_URL", at.url)
        ended = run("groups", "list")
    assert (ended.exit_code, "longer than 100000 bytes" in ended.output) == (4, True), ended.output


@pytest.mark.parametrize("said", [b"<html>Sign in</html>", b"{}", b'{"items":[{}],"next":null}', b"[" * 100_000])
def test_a_response_that_the_command_does_not_know_is_reported(home: Path, said: bytes, monkeypatch: Any) -> None:
    """A page of a hotel's network, or a service that is older."""
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said) as at:
        monkeypatch.setenv("KEYRACK_TOKEN", "token-of-olga")
        monkeypatch.setenv("KEYRACK_URL", at.url)
        ended = run("groups", "list")
        assert ended.exit_code == 4
        assert "does not answer like Keyrack" in ended.output or "may be older than this command" in ended.output


def test_a_call_that_an_older_service_lacks_is_explained(home: Path, monkeypatch: Any) -> None:
    said = b'{"error":{"code":"path-unknown","message":"There is no such path; /docs lists what there is."}}'
    with answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(said) + said) as at:
        monkeypatch.setenv("KEYRACK_TOKEN", "token-of-olga")
        monkeypatch.setenv("KEYRACK_URL", at.url)
        ended = run("groups", "list")
        assert (ended.exit_code, "may be older than this command" in ended.output) == (1, True)


class Answering:
    """Somebody who answers all alike, and hangs up."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def serve(self) -> None:
        """Until the socket is closed."""
        with suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                with connection, suppress(OSError):
                    asked = b""
                    while b"\r\n\r\n" not in asked:
                        asked += connection.recv(65_536)
                    if asked.startswith((b"P", b"D")) and asked.endswith(b"\r\n\r\n"):
                        connection.settimeout(0.2)
                        connection.recv(65_536)
                    connection.sendall(self.answer)


@contextmanager
def answering(answer: bytes) -> Iterator[Answering]:
    """What is answered to all."""
    made = Answering(answer)
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.socket.shutdown(socket.SHUT_RDWR)
    made.socket.close()
    thread.join(10)
