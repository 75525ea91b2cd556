"""Each command ends with 0 when it is done, 1 when it is refused, 2 when called wrongly; data is there as JSON."""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import keyrack
from keyrack.cli.examples import EXAMPLES
from keyrack.cli.main import main
from tests.core.keys_for_tests import fresh_line
from tests.services import TEAM

FINGERPRINT = "SHA256:" + "A" * 43
EVENTS = {"id", "at", "actor", "token", "address", "channel", "action", "outcome", "reason", "server_id", "summary"}

# Command, status.
ENDS = [
    ("apply FILE", 0),
    ("apply FILE --dry-run", 0),
    ("apply FILE --check", 0),
    ("apply MORE --dry-run", 0),
    ("apply MORE --check", 1),
    ("apply MORE --check --json", 1),
    ("apply BROKEN", 1),
    ("apply", 2),
    ("apply missing.toml", 2),
    ("backup", 2),
    ("backup DATA/instance.key --overwrite", 1),
    ("events", 0),
    ("events web-1 --from 2026-01-01 --to 2026-01-02", 0),
    ("events nowhere", 1),
    ("events --from yesterday", 2),
    ("events --to 2026-01-01T00:00:00", 2),
    ("events --limit -1", 2),
    ("grants list", 0),
    ("grants give --user alice --server web-1 --as deploy", 0),
    ("grants give --user nobody --server web-1 --as deploy", 1),
    ("grants give --user alice --server web-1 --as deploy --until 2020-01-01", 1),
    ("grants give --user alice --server web-1 --as deploy --until soon", 2),
    ("grants give --user alice --server web-1 --as deploy --restrictions {", 2),
    ("grants give --server web-1 --as deploy", 2),
    ("grants give --user alice --group ops --server web-1 --as deploy", 2),
    ("grants give --user alice --as deploy", 2),
    ("grants take-back 4711", 1),
    ("grants take-back x", 2),
    ("hosts list", 0),
    ("hosts list --deleted", 0),
    ("hosts list --workspace nowhere", 1),
    ("hosts show web-1", 0),
    ("hosts show nowhere", 1),
    ("hosts show", 2),
    ("hosts observe web-1", 0),
    ("hosts observe nowhere", 1),
    ("hosts enforce nowhere", 1),
    ("hosts offline-policy web-1 --after 1h --then keep", 0),
    ("hosts offline-policy nowhere --after 1h --then keep", 1),
    ("hosts offline-policy web-1 --after 1h --then explode", 2),
    ("hosts offline-policy web-1 --after soon --then keep", 2),
    ("hosts offline-policy --after 1h --then keep", 2),
    ("hosts keys web-1", 0),
    ("hosts keys nowhere", 1),
    ("hosts sessions web-1", 0),
    ("hosts sessions nowhere", 1),
    ("hosts end-session web-1 4711", 1),
    ("hosts end-session web-1 0", 2),
    ("hosts enrol nowhere", 1),
    ("hosts unmanaged web-1", 0),
    ("hosts unmanaged nowhere", 1),
    ("hosts accept web-1 4711", 1),
    ("hosts ignore web-1 4711", 1),
    ("hosts remove web-1 4711", 1),
    ("hosts remove web-1 x", 2),
    (f"hosts revoke {FINGERPRINT}", 1),
    (f"hosts revoke {FINGERPRINT} --lift", 1),
    (f"hosts revoke {FINGERPRINT} --lift --wait 1", 2),
    ("hosts revoked", 0),
    (f"hosts receipts {FINGERPRINT}", 1),
    ("hosts receipts 999999", 1),
    ("hosts receipts", 2),
    ("hosts resync --all", 0),
    ("hosts resync web-1", 0),
    ("hosts resync nowhere", 1),
    ("hosts resync", 2),
    ("hosts damaged", 0),
    ("hosts damaged web-1", 0),
    ("hosts damaged nowhere", 1),
    ("hosts damaged --remove users:4711", 1),
    ("hosts nothing", 2),
    ("hosts host-keys web-1", 0),
    ("hosts host-keys nowhere", 1),
    ("hosts host-keys web-1 --confirm", 1),
    ("servers list", 0),
    ("servers add-account web-1 ops", 0),
    ("servers add-account web-1 ops", 0),
    ("servers add-account web-1 .no", 1),
    ("servers accounts web-1", 0),
    ("servers accounts nowhere", 1),
    ("servers delete-account web-1 ops --dry-run", 0),
    ("servers delete-account web-1 ops", 0),
    ("servers delete-account web-1 ops", 1),
    ("servers delete nowhere", 1),
    ("servers delete nowhere --dry-run", 1),
    ("servers show nowhere", 1),
    ("servers change web-1", 2),
    ("servers add-key web-1 FILE --label x --as deploy --for 2m", 2),
    ("servers restrict-key 4711 --restrictions {}", 1),
    ("servers restrict-key 4711 --restrictions pty", 2),
    ("servers restrict-key 4711 --no-pty", 1),
    ("servers restrict-key 4711 --restrictions {} --no-pty", 2),
    ("servers restrict-key 4711", 2),
    ("servers delete-key web-1 4711", 1),
    ("sessions list", 0),
    ("sessions end web-1 4711", 1),
    ("people list", 0),
    ("people me", 1),
    ("groups list", 0),
    ("groups delete nothing --dry-run", 1),
    ("audit alarms", 0),
    ("audit settle 4711", 1),
    ("audit list --limit 3", 0),
    ("audit list --host nowhere", 1),
    ("audit list --until soon", 2),
    ("completion csh", 2),
    ("login nonsense", 2),
    ("keys list", 0),
    ("keys list --user alice", 0),
    ("keys list --user nobody", 1),
    ("keys list alice", 2),
    ("repos list", 0),
    ("repos delete acme/none --yes", 1),
    ("repos list --workspace nowhere", 1),
    ("repos create acme/new --member alice=developer", 0),
    ("repos create acme/new --member nobody=developer", 1),
    ("repos create acme/new --member alice=king", 1),
    ("repos create acme/new --member alice", 2),
    ("requests list", 0),
    ("requests approve 4711", 1),
    ("requests approve x", 2),
    ("requests deny 4711", 1),
    ("requests refuse 4711", 1),
    ("tidy", 0),
    ("tidy --apply", 0),
    ("tidy --nothing", 2),
    ("tokens list", 0),
    ("tokens list --all-workspaces", 0),
    ("freeze list", 0),
    ("freeze keys --all --dry-run", 0),
    ("freeze keys", 2),
    ("freeze keys --user nobody", 1),
    ("freeze show 4711", 1),
    ("freeze end 4711", 1),
    ("keys find", 0),
    ("keys find --weak --unused --unused-days 0", 2),
    ("keys confirm 4711", 1),
    ("grants give --user alice --server web-1 --as deploy --break-glass --dry-run", 0),
    ("grants renew 4711 --for 8h", 1),
    ("keys renew 4711 --for 8h", 1),
    ("keys renew 4711", 2),
    ("servers renew-key 4711 --for 8h", 1),
    ("servers renew-key 4711 --until 2020-01-01", 1),
    ("people keys alice", 0),
    ("people keys nobody", 1),
    ("people delete-key alice 4711", 1),
    ("people add-key alice /none.pub", 2),
    ("requests rules list", 0),
    ("policy show", 0),
    ("policy set --types ssh-ed25519 --preview", 0),
    ("policy set --types ssh-ed25519 --rsa-bits 3072", 0),
    ("policy set --rsa-bits 1024", 1),
    ("policy set --types any --rsa-bits any", 0),
    ("policy set", 2),
    ("policy set --rsa-bits much", 2),
    ("requests rules delete none", 1),
    ("requests rules set none --approvers 3", 2),
    ("grants renew 4711", 2),
    ("grants renew 4711 --for 2m", 2),
    ("grants change 4711 --no-end", 1),
    ("grants change 4711", 2),
    ("grants change 4711 --no-end --for 8h", 2),
    ("grants change 4711 --restrictions no-json", 2),
    ("request web-1/deploy --for 2m --why release", 2),
    ("request web-1/deploy --for soon --why release", 2),
    ("tokens rotate 4711 --overlap 2m", 2),
    ("webhooks list", 0),
    ("webhooks create http://127.0.0.1/", 1),
    ("webhooks create https://alerts.example.org/ --level much", 2),
    ("webhooks delete 4711", 1),
    ("webhooks test 4711", 1),
    ("webhooks deliveries 4711", 1),
    ("tokens revoke 4711", 1),
    ("tokens revoke -- -1", 2),
    ("nothing", 2),
    ("--help", 0),
    ("--version", 0),
]

# Command, the fields of its objects where some are sure to be there.
SHOWN = [
    ("events", EVENTS | {"level", "receipts"}),
    ("grants list", {"id", "who", "as", "where", "start", "end", "restrictions", "reason"}),
    ("hosts list", {"id", "name", "mode", "state", "applied", "seen", "unmanaged"}),
    ("hosts list --deleted", None),
    ("hosts keys web-1", None),
    ("hosts sessions web-1", None),
    ("hosts unmanaged web-1", None),
    ("hosts revoked", None),
    ("audit alarms", None),
    ("hosts damaged", None),
    ("hosts resync --all", None),
    ("hosts resync web-1", {"server", "waits_for_host", "held", "decided"}),
    ("keys list", {"id", "user", "title", "fingerprint", "created", "last_used"}),
    ("repos list", {"id", "path", "visibility", "branch", "folder", "workspace"}),
    ("tidy", {"rows", "kind", "ended_before"}),
    ("tidy --apply", {"rows", "kind", "ended_before"}),
    ("tokens list", {"id", "name", "user", "scopes", "created", "end", "last_used"}),
]


GROUPS = (
    *("audit", "events", "grants", "groups", "hosts", "keys", "people", "repos", "requests", "servers", "sessions"),
    "tokens",
    "webhooks",
    "freeze",
    "policy",
)


@pytest.fixture
def data(team_folder: Path, tmp_path: Path) -> Path:
    """A data folder with the team in it, and files to apply beside it."""
    subprocess.run(["cp", "-r", str(team_folder), str(tmp_path / "data")], check=True)
    (tmp_path / "FILE").write_text(TEAM)
    (tmp_path / "MORE").write_text(TEAM + '[[servers]]\nname = "more-1"\naddress = "192.0.2.77"\n')
    (tmp_path / "BROKEN").write_text("[workspace\n")
    return tmp_path / "data"


def run(words: str, data: Path) -> Result:
    """One command on the data folder, in the workspace acme unless it says another one."""
    places = {name: str(data.parent / name) for name in ("FILE", "MORE", "BROKEN", "KEY")}
    typed = [places.get(word, word.replace("DATA", str(data))) for word in words.split()]
    if typed[0] in GROUPS and "--workspace" not in typed:
        place = 1 if typed[0] == "events" else 3 if typed[1] in ("mine", "sources", "rules") else 2
        typed[place:place] = ["--workspace", "acme"]
    ended = CliRunner(env={"KEYRACK_DATA": str(data)}).invoke(main, typed)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended


def test_every_command_has_the_documented_exit_status(data: Path) -> None:
    ends = [(words, run(words, data).exit_code) for words, _ in ENDS]
    assert [found for found, wanted in zip(ends, ENDS, strict=True) if found != wanted] == []


@pytest.mark.parametrize(("words", "fields"), SHOWN)
def test_data_is_there_as_json(data: Path, words: str, fields: set[str] | None) -> None:
    run("grants give --user alice --server web-1 --as deploy", data)
    run("repos create acme/new", data)
    ended = run(f"{words} --json", data)
    assert ended.exit_code == 0, ended.output
    listed = json.loads(ended.stdout)
    assert isinstance(listed, list)
    for one in listed:
        assert fields is None or one.keys() == fields


def test_one_host_and_a_plan_are_printed_as_json_objects(data: Path) -> None:
    shown = json.loads(run("hosts show web-1 --json", data).stdout)
    assert (shown["name"], shown["enrolled"], shown["seen_at"], shown["problems"]) == ("web-1", False, None, [])
    plan = json.loads(run("apply MORE --dry-run --json", data).stdout)
    assert plan == {"changes": ["create server more-1 (192.0.2.77)"], "made": False, "left": [], "noted": []}
    assert json.loads(run("apply MORE --json", data).stdout)["made"] is True


# What prints a file, or the findings of a proof.
NOT_AS_JSON = {"audit export", "audit verify"}
# What changes who can log in takes --dry-run; these change no way in by themselves, or have a preview of their own.
CHANGES_NO_LOGIN = {
    *("servers add-account", "servers set", "servers host-keys"),
    *("hosts host-keys", "hosts rename", "hosts offline-policy", "hosts copy-gone", "hosts end-session"),
    *("hosts ignore", "hosts remove", "hosts enrol", "servers enrol", "hosts damaged", "hosts resync"),
    *("requests deny", "requests refuse", "requests cancel", "keys claim", "leaver undo"),
    *("requests rules set", "requests rules delete"),
}


def every(command: click.Command, context: click.Context, words: str) -> Iterator[tuple[str, click.Context]]:
    """The commands below one, each with its context."""
    if not isinstance(command, click.Group):
        yield words, context
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        inner = click.Context(below, parent=context, info_name=name)
        yield from every(below, inner, f"{words} {name}".strip())


def leaves() -> dict[str, set[str | None]]:
    """All commands, each with the names of what it takes."""
    top = click.Context(main, info_name="keyrack")
    return {words: {one.name for one in inner.command.params} for words, inner in every(main, top, "")}


def test_each_help_has_an_example() -> None:
    top = click.Context(main, info_name="keyrack")
    helps = {words: inner.command.get_help(inner) for words, inner in every(main, top, "") if words != "agent"}
    shown = {words: " ".join(shown.partition("\n")[2].split()) for words, shown in helps.items()}
    # One that has two names shows its example by the first.
    last = {words: words.split()[-1] for words in shown}
    without = {words for words, text in shown.items() if not re.search(rf"keyrack ([a-z]+ )*{last[words]}\b", text)}
    assert without - {"leaver remove"} == set()


def test_every_example_is_accepted_by_its_command(data: Path) -> None:
    for words, rest in EXAMPLES.items():
        command, context = click.Context(main, info_name="keyrack").command, click.Context(main, info_name="keyrack")
        for word in words.split():
            assert isinstance(command, click.Group)
            found = command.get_command(context, word)
            assert found is not None, words
            command, context = found, click.Context(found, parent=context, info_name=word)
        taken = [
            str(data.parent / "FILE") if word in ("team.toml", "~/.ssh/id_ed25519") else word
            for word in shlex.split(rest)
        ]
        if not isinstance(command, click.Group) and words != "restore":
            command.make_context(words, taken, parent=context.parent)


def test_every_command_that_the_console_names_exists() -> None:
    known = leaves()
    templates = sorted((Path(keyrack.__file__).parent / "web" / "console" / "templates").glob("*.html"))
    named = [
        (page.name, words)
        for page in templates
        for words in re.findall(r"<code>keyrack ([a-z-]+(?: [a-z-]+)*)", page.read_text("utf-8"))
    ]
    assert len(named) > 3
    for page, words in named:
        assert any(f"{words} ".startswith(f"{command} ") for command in known), f"{page} names keyrack {words}"


def test_each_command_over_the_api_shows_json() -> None:
    wanted = {*GROUPS, "access", "who-can", "request", "leaver", "ssh-config"}
    found = leaves()
    without = {words for words, names in found.items() if words.split()[0] in wanted and "json_wanted" not in names}
    assert without == NOT_AS_JSON


def test_each_command_that_changes_a_login_has_a_dry_run() -> None:
    changing = {"servers", "hosts", "grants", "groups", "leaver", "freeze", "keys", "requests"}
    reading = {
        "list",
        "show",
        "keys",
        "accounts",
        "mine list",
        "rules list",
        "find",
        "where",
        "sessions",
        "receipts",
        "revoked",
        "unmanaged",
    }
    without = {
        words
        for words, names in leaves().items()
        if words.split()[0] in changing and words.split(" ", 1)[-1] not in reading and "dry_run" not in names
    }
    assert without - {"hosts events"} == CHANGES_NO_LOGIN


def test_every_dry_run_changes_nothing_and_says_what_would_happen(data: Path) -> None:
    (data.parent / "KEY").write_text(fresh_line())
    made = json.loads(run("servers add-key web-1 KEY --label laptop --as deploy --json", data).stdout)
    key = made["id"]
    assert run(f"servers restrict-key {key} --restrictions {{}} --dry-run", data).stdout == (
        "Nobody would gain or lose a login.\n"
    )
    ended = run(f'servers restrict-key {key} --restrictions {{"command":"/bin/true"}} --dry-run', data)
    assert f"the key {made['fingerprint']} would keep the login as deploy on web-1" in ended.stdout
    assert "restricted in command" in ended.stdout
    ended = run(f"hosts revoke {made['fingerprint']} --dry-run", data)
    assert f"the key {made['fingerprint']} would lose the login as deploy on web-1" in ended.stdout
    before = run("hosts show web-1 --json", data).stdout
    for words in ("hosts observe web-1", "hosts enforce web-1", "hosts move web-1 192.0.2.9 --tag db"):
        assert run(f"{words} --dry-run", data).exit_code == 0
        assert run("hosts show web-1 --json", data).stdout == before
    (kept,) = json.loads(run("servers keys web-1 --json", data).stdout)
    assert (kept["id"], kept["restrictions"]) == (key, None)
    given = json.loads(run("grants give --user alice --server web-1 --as deploy --json", data).stdout)
    assert run(f"grants renew {given['id']} --for 3h --dry-run", data).exit_code == 0
    assert json.loads(run("grants list --json", data).stdout)[0]["end"] is None
    for words in ("hosts observe web-1", "hosts rename web-1 web-9", "hosts move web-9 192.0.2.9"):
        assert json.loads(run(f"{words} --json", data).stdout)["id"] == 1
    (host,) = json.loads(run("hosts offline-policy web-9 --after 1h --then keep --json", data).stdout)
    assert host["name"] == "web-9"
    assert "curl" in json.loads(run("hosts enrol web-9 --public-url https://k.example.org --json", data).stdout)["line"]


def test_a_users_key_is_registered_renewed_and_deleted_by_an_operator(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "alice.pub"
    file.write_text(fresh_line())
    ended = run(f"people add-key alice {file} --title laptop", data)
    assert ended.exit_code == 0, ended.output
    assert run(f"people add-key alice {file} --title laptop", data).stdout == ended.stdout
    differs = run(f"people add-key alice {file} --title desk", data)
    assert (differs.exit_code, "under the title 'laptop'" in differs.output) == (1, True)
    (key,) = json.loads(run("people keys alice --json", data).stdout)
    assert (key["title"], key["expires_at"]) == ("laptop", None)
    assert run(f"keys renew {key['id']} --for 3h", data).stdout.startswith(f"Key {key['id']} lasts until 2")
    (renewed,) = json.loads(run("people keys alice --json", data).stdout)
    assert renewed["expires_at"] is not None
    assert run(f"people delete-key alice {key['id']}", data).stdout == f"Deleted key {key['id']} of alice.\n"
    assert json.loads(run("people keys alice --json", data).stdout) == []


def test_a_user_may_be_called_as_the_operator_is(data: Path, tmp_path: Path) -> None:
    me, file = pwd.getpwuid(os.geteuid()).pw_name, tmp_path / "mine.pub"
    file.write_text(fresh_line())
    assert run(f"people set {me}", data).exit_code == 0
    ended = run(f"people add-key {me} {file}", data)
    assert ended.exit_code == 0, ended.output
    (key,) = json.loads(run(f"people keys {me} --json", data).stdout)
    assert run(f"people delete-key {me} {key['id']}", data).exit_code == 0


def test_a_command_that_changes_one_thing_prints_one_json_object(data: Path) -> None:
    given = json.loads(run("grants give --user alice --server web-1 --as deploy --json", data).stdout)
    renewed = json.loads(run(f"grants renew {given['id']} --for 3h --json", data).stdout)
    assert (renewed["id"], renewed["expires_at"] is not None) == (given["id"], True)
    changed = json.loads(
        run(
            f'grants change {given["id"]} --no-end --restrictions {{"command":"/bin/true"}} --reason x --json', data
        ).stdout
    )
    assert (changed["id"], changed["expires_at"], changed["reason"]) == (given["id"], None, "x")
    assert changed["restrictions"]["command"] == "/bin/true"
    run("freeze keys --user alice", data)
    assert json.loads(run("freeze end 1 --json", data).stdout) == {}
    rule = json.loads(run("requests rules set night --approvers 2 --tag web --at-most 2h --json", data).stdout)
    (listed,) = json.loads(run("requests rules list --json", data).stdout)
    assert (rule["name"], listed["approvers"], listed["at_most"]) == ("night", 2, "2h")
    assert json.loads(run("requests rules delete night --json", data).stdout) == {}
    made = json.loads(run("webhooks create https://alerts.example.org/ --json", data).stdout)
    assert made["secret"].startswith("krwh_")
    assert json.loads(run(f"webhooks test {made['id']} --json", data).stdout)["state"] == "waiting"
    removed = json.loads(run("leaver alice --workspace acme --json", data).stdout)
    assert json.loads(run(f"leaver undo {removed['id']} --workspace acme --json", data).stdout)["user"] == "alice"
