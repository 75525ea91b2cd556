"""What is wrong with words, settings, files and streams is said in one line, and nothing is made or lost by it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from keyrack.cli import files
from keyrack.cli.main import main
from keyrack.settings import Settings
from tests.cli.test_backup import run_without_privileges
from tests.ports import free_port

UNWRITTEN = (
    b"Error: The output could not be written: no space left. "
    b"What you asked for may have been done; check before you repeat it.\n"
)


def run(*words: str, data: Path) -> Result:
    """One command on a data folder; words instead of a traceback, whatever it ends with."""
    ended = CliRunner().invoke(main, [*words, "--data", str(data)])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended


@pytest.mark.parametrize(
    "words", ["hosts list", "tidy", "events", "grants list", "repos list", "git-host", "hosts damaged"]
)
def test_a_mistyped_folder_gets_no_key_and_no_database(tmp_path: Path, words: str) -> None:
    ended = run(*words.split(), data=tmp_path / "dat")
    assert ended.exit_code == 1
    assert "There is no instance of Keyrack at" in ended.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["hosts list", "grants list", "events"])
def test_a_command_that_uses_local_data_names_the_setting_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYRACK_DATA", "dat")
    runner = CliRunner()
    may_go_elsewhere = words != "events"
    said = runner.invoke(main, words.split()).output
    assert "/dat/keyrack.db, which KEYRACK_DATA names." in said
    assert ("; without KEYRACK_DATA it goes where `keyrack login` logged in" in said) == may_go_elsewhere
    assert "which --data names" in runner.invoke(main, [*words.split(), "--data", "dat"]).output
    monkeypatch.delenv("KEYRACK_DATA")
    (tmp_path / "keyrack-data").mkdir()
    said = runner.invoke(main, words.split()).output
    assert "/keyrack-data/keyrack.db, the usual place." in said
    assert ("; from a folder that has no keyrack-data it goes where" in said) == may_go_elsewhere


@pytest.mark.parametrize("words", ["hosts list", "events", "audit verify", "hosts damaged", "tidy"])
def test_a_removed_table_is_named_at_the_start(data: Path, words: str) -> None:
    with closing(sqlite3.connect(data / "keyrack.db")) as raw:
        raw.execute("ALTER TABLE grants RENAME TO gone")
    ended = run(*words.split(), data=data)
    assert (ended.exit_code, "table grants is missing" in ended.output) == (1, True), ended.output


def test_a_copy_replaces_copies_alone(data: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()}
    (data / "link").symlink_to(data / "instance.key")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for target in (data / "instance.key", data / "link", data / "keyrack.db-wal", data / "keyrack.db", fifo):
        ended = run("backup", str(target), "--overwrite", data=data)
        assert (ended.exit_code, "give another name" in ended.output) == (1, True), target
    assert {path.name: path.read_bytes() for path in data.iterdir() if path.name in before} == before
    assert fifo.is_fifo()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("KEY_TYPES", "ssh-ed25519", "written as JSON"),
        ("KEY_TYPES", '["ssh-dss"]', "'ssh-dss' is not one of"),
        ("KEY_TYPES", "[]", "name one at least"),
        ("TIME_ZONE", "Nowhere/City", "there is no time zone"),
        ("TIME_ZONE", "../../etc/passwd", "there is no time zone"),
        ("BLOCK_LIST", "/nonexistent", "there is no file /nonexistent"),
        ("PUBLIC_URL", "keys.example.org", "for example https://"),
        ("PUBLIC_URL", "https://keys.example.org:port", "for example https://"),
        ("EVENTS_DAYS", "99999999999", "36500"),
        ("REVOCATIONS_DAYS", "999999999", "36500"),
        ("LISTEN", "[::1", "takes HOST:PORT"),
        ("LISTEN", "a:b:8022", "takes HOST:PORT"),
        ("LISTEN", "127.0.0.1:-1", "takes HOST:PORT"),
        ("GIT_LISTEN", "127.0.0.1:000000022", "takes HOST:PORT"),
        ("OIDC_ROLES", "staff", "is no rule"),
        ("OIDC_ROLES", "staff=boss", "none of the roles"),
        ("OIDC_GROUPS", "/ops=/ops", "holds no /"),
    ],
)
def test_a_wrong_setting_is_named(
    data: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"KEYRACK_{name}", value)
    ended = run("tidy", data=data)
    assert (ended.exit_code, words in ended.output) == (2, True), ended.output
    assert "Value error" not in ended.output


@pytest.mark.parametrize("listen", ["::1:8022", "[::1]:8022"])
def test_an_ipv6_address_is_shown_in_brackets(tmp_path: Path, listen: str) -> None:
    settings = Settings(data=tmp_path, listen=listen, git_listen=listen)
    assert (settings.url, settings.host_and_port) == ("http://[::1]:8022", ("::1", 8022))
    assert settings.git_listen == "[::1]:8022"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'lisen = "127.0.0.1:8022"\n', "there is no setting 'lisen'"),
        (b'\xef\xbb\xbflisen = "127.0.0.1:8022"\n', "there is no setting 'lisen'"),
        (b"lisen\n", "not valid TOML"),
        (b"\xff\n", "not valid TOML"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_settings_file_is_named(data: Path, text: bytes | None, words: str) -> None:
    file = data / "keyrack.toml"
    file.mkdir() if text is None else file.write_bytes(text)
    ended = run("tidy", data=data)
    assert (ended.exit_code, words in ended.output) == (2, True), ended.output


def test_an_unknown_option_of_the_database_address_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYRACK_DATABASE", "postgresql://keyrack@127.0.0.1:1/k?nosuch=1")
    ended = run("tidy", data=data)
    assert (ended.exit_code, ended.output.count("\n")) == (1, 1), ended.output
    assert 'invalid connection option "nosuch". Check --database.' in ended.output


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path, data: Path) -> None:
    file = tmp_path / "acme.toml"
    file.write_text('[workspace]\nname = "acme"\n')
    assert "/proc/nothing: " in run("apply", str(file), data=Path("/proc/nothing")).output
    (data / "instance.key").unlink()
    (data / "instance.key").mkdir()
    assert "instance.key: Is a directory" in run("hosts", "list", data=data).output


@pytest.mark.parametrize(
    "words",
    [
        ("servers", "add-account", "web-1", "ops", "--workspace", "acme"),
        ("up", "--listen", "127.0.0.1:PORT", "--sshd-port", "PORT", "--git-port", "PORT"),
    ],
)
def test_a_read_only_database_is_named(data: Path, words: tuple[str, ...]) -> None:
    (data / "keyrack.db").chmod(0o400)
    ended = run_without_privileges(*(word.replace("PORT", str(free_port())) for word in words), data=data)
    assert (ended.returncode, "Traceback" in ended.stderr) == (4, False), ended.stderr
    assert "Check the data folder" in ended.stderr


def test_bytes_that_are_no_text_are_refused(data: Path) -> None:
    for words in (("events", "--search", "\udcff"), ("hosts", "show", "\udcff"), ("repos", "create", "a/\udcff")):
        ended = run(*words, data=data)
        assert (ended.exit_code, "An argument is not UTF-8." in ended.output) == (2, True), ended.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("peple list", "No such command 'peple'. Did you mean 'people'"),
        ("hosts lst", "No such command 'lst'. Did you mean 'list'?"),
        ("people create alice", "No such command 'create'. There are: add-key, delete, delete-key,"),
        ("people sources drop", "No such command 'drop'. There are: list, remove, set."),
        ("people create\x1b[31m", "No such command 'create\\x1b[31m'. There are:"),
        ("people list --jso", "Did you mean '--json'?"),
    ],
)
def test_who_mistypes_a_command_is_told_which_there_are(words: str, said: str) -> None:
    ended = CliRunner().invoke(main, words.split())
    assert ended.exit_code == 2
    assert said in ended.output


def test_an_unknown_workspace_is_named(data: Path) -> None:
    assert "There is no workspace 'acmee'; there are: acme" in run("events", "--workspace", "acmee", data=data).output


def test_old_terminals_and_full_disks(data: Path) -> None:
    program = [sys.executable, "-m", "keyrack.cli.main"]
    old = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run([*program, "serve", "--help"], capture_output=True, env=old, check=False, timeout=60)
    assert (shown.returncode, shown.stderr) == (0, b"")
    # As people have it: what is printed waits in a buffer until the end.
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [*program, "events", "--limit", "0", "--workspace", "acme", "--data", str(data)],
            stdout=full,
            stderr=subprocess.PIPE,
            env=plain,
            check=False,
            timeout=60,
        )
    assert ended.returncode == 1
    assert ended.stderr == UNWRITTEN


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("words", ["--help", "-h", "--version", "hosts --help", "hosts list --help", "completion bash"])
def test_help_that_cannot_be_written_is_one_line(words: str, buffered: bool) -> None:
    ended = spoken(words, stdout="/dev/full", buffered=buffered)
    assert (ended.returncode, ended.stderr) == (1, UNWRITTEN)


@pytest.mark.parametrize("buffered", [True, False])
def test_an_agent_whose_help_cannot_be_written_says_so(buffered: bool) -> None:
    ended = spoken("agent --help", stdout="/dev/full", buffered=buffered)
    assert (ended.returncode, ended.stderr) == (1, b"keyrack-agent: this machine: No space left on device\n")


@pytest.mark.parametrize(("words", "status"), [("nothing", 2), ("grants renew 1", 1), ("hosts list --data /none", 1)])
def test_an_error_that_cannot_be_printed_keeps_its_exit_status(tmp_path: Path, words: str, status: int) -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [*PROGRAM, *words.split()],
            stdout=full,
            stderr=full,
            env=alone(tmp_path),
            cwd=tmp_path,  # here may lie the data of a service that was tried
            check=False,
            timeout=60,
        )
    assert ended.returncode == status


def test_a_closed_pipe_ends_a_command_without_an_error_message(data: Path) -> None:
    for words in ("--help", f"events --workspace acme --data {data}"):
        reads, writes = os.pipe()
        os.close(reads)
        ended = subprocess.run(
            [*PROGRAM, *words.split()], stdout=writes, stderr=subprocess.PIPE, env=alone(data), check=False, timeout=60
        )
        os.close(writes)
        assert (ended.returncode, ended.stderr) == (1, b""), words


def test_a_command_without_any_output_to_write_to_ends_as_it_should(data: Path) -> None:
    for words in ("--help", f"events --workspace acme --data {data}"):
        line = f"exec {sys.executable} -m keyrack.cli.main {words} >&-"
        ended = subprocess.run(["/bin/sh", "-c", line], stderr=subprocess.PIPE, check=False, timeout=60)
        assert (ended.returncode, ended.stderr) == (0, b""), words


PROGRAM = [sys.executable, "-m", "keyrack.cli.main"]


def alone(home: Path, *, buffered: bool = True) -> dict[str, str]:
    """The environment of somebody who is logged in nowhere."""
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**plain, "HOME": str(home), **({} if buffered else {"PYTHONUNBUFFERED": "1"})}


def spoken(words: str, *, stdout: str, buffered: bool) -> subprocess.CompletedProcess[bytes]:
    """One command whose output goes to a file."""
    with open(stdout, "wb") as out:
        return subprocess.run(
            [*PROGRAM, *words.split()],
            stdout=out,
            stderr=subprocess.PIPE,
            env=alone(Path("/nonexistent"), buffered=buffered),
            check=False,
            timeout=60,
        )


def test_a_file_without_an_end_is_left(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was read until the machine's memory was full."""
    monkeypatch.setattr(files, "LARGEST", 1_000_000)
    key = ("servers", "add-key", "web-1", "/dev/zero", "--label", "l", "--as", "deploy", "--workspace", "acme")
    for command, words in (
        (("apply", "/dev/zero"), "is longer than"),
        (("apply", "/dev/null"), "lacks [workspace]"),
        (key, "is longer than"),
    ):
        ended = run(*command, data=data)
        assert (ended.exit_code != 0, words in ended.output) == (True, True), ended.output
