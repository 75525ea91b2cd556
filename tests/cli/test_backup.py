"""`keyrack backup` and `restore`: what was taken away since stays so, and what is no backup of ours changes nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from keyrack import app
from keyrack.cli.main import main
from keyrack.core.git import access
from keyrack.core.hosts import enrolment, servers
from keyrack.core.instance import Instance
from keyrack.core.keys import key_sources, user_keys
from keyrack.core.people import actors, tokens, users
from keyrack.errors import Refusal
from keyrack.model import User
from keyrack.ssh.public_key import parse
from keyrack.store.database import Database
from keyrack.store.people import users as user_rows
from keyrack.store.tables import instance_facts
from tests.core.keys_for_tests import fresh_line
from tests.services import settings_for


def run(*words: str, data: Path) -> Result:
    """Run `keyrack …` on a data folder."""
    return CliRunner().invoke(main, [*words, "--data", str(data)])


@contextmanager
def opened(data: Path) -> Iterator[Instance]:
    """The instance in a data folder."""
    instance = app.open_instance(settings_for(data, ""))
    try:
        yield instance
    finally:
        instance.database.close()


def named(instance: Instance, name: str) -> User:
    """A user of the team."""
    user = instance.database.read(lambda connection: user_rows.user_by_name(connection, 1, name))
    assert user is not None
    return user


def content(file: Path) -> str:
    """All that a database holds."""
    with closing(sqlite3.connect(file)) as raw:
        return "\n".join(raw.iterdump())


def is_known(instance: Instance, token: str) -> bool:
    """Whether a token opens the API."""
    try:
        tokens.authenticate(instance, token, address="192.0.2.1", channel="test")
    except Refusal:
        return False
    return True


def run_without_privileges(*words: str, data: Path) -> subprocess.CompletedProcess[str]:
    """The same as an account for which rights of files count, which they do not for root."""
    return unprivileged(*words, "--data", str(data))


def unprivileged(*words: str) -> subprocess.CompletedProcess[str]:
    """One command as such an account."""
    dropped = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all", "--"]
    program = [sys.executable, "-m", "keyrack.cli.main", *words]
    whole = [*(dropped if os.geteuid() == 0 else []), *program]
    return subprocess.run(whole, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("what", "mode", "words"),
    [
        # What was taken away since the backup stands in it: not to be written is not to be damaged.
        ("keyrack.db", 0o400, "cannot be opened for writing"),
        ("keyrack.db", 0o000, "cannot be opened"),
        ("", 0o500, "cannot be opened for writing"),
    ],
)
def test_a_restore_that_may_not_write_changes_nothing(
    data: Path, tmp_path: Path, what: str, mode: int, words: str
) -> None:
    copy = tmp_path / "copy.db"
    assert run("backup", str(copy), data=data).exit_code == 0
    before, there = content(data / "keyrack.db"), {one.name for one in data.iterdir()}
    was = (data / what).stat().st_mode
    (data / what).chmod(mode)
    ended = run_without_privileges("restore", str(copy), "--yes", data=data)
    (data / what).chmod(was)
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False), ended.stderr
    assert words in ended.stderr
    assert content(data / "keyrack.db") == before
    assert {one.name for one in data.iterdir()} - {"keyrack.db-wal", "keyrack.db-shm"} == there


def test_a_restore_names_the_files_in_its_way(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    assert run("backup", str(copy), data=data).exit_code == 0
    before = content(data / "keyrack.db")
    (data / "keyrack.db-shm").mkdir()  # so that SQLite cannot open what it could read
    ended = run("restore", str(copy), "--yes", data=data)
    assert (ended.exit_code, "Nothing was changed" in ended.output) == (1, True), ended.output
    (data / "keyrack.db-shm").rmdir()
    (data / ".keyrack.db.restoring").mkdir()
    ended = run("restore", str(copy), "--yes", data=data)
    assert (ended.exit_code, "File exists" in ended.output) == (1, True), ended.output
    (data / ".keyrack.db.restoring").rmdir()
    assert content(data / "keyrack.db") == before


def times_of_the_next_minute() -> list[str]:
    """The times in the names of what a restore within it puts aside."""
    return [f"{datetime.now(UTC) + timedelta(seconds=second):%Y%m%dT%H%M%SZ}" for second in range(60)]


def test_a_second_restore_of_the_same_second_keeps_what_the_first_put_aside(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    assert run("backup", str(copy), data=data).exit_code == 0
    earlier = [data / f"keyrack.db.before-{time}" for time in times_of_the_next_minute()]
    for path in earlier:
        path.write_text("of another restore")
    done = run("restore", str(copy), "--yes", data=data)
    assert done.exit_code == 0, done.output
    (aside,) = set(data.glob("keyrack.db.before-*")) - set(earlier)
    assert content(aside)
    assert {path.read_text() for path in earlier} == {"of another restore"}


def test_a_restore_that_fails_at_the_end_leaves_the_checkpoint(data: Path, tmp_path: Path) -> None:
    """Else nobody hears of it when this database is later put back to an older state."""
    copy = tmp_path / "copy.db"
    assert run("backup", str(copy), data=data).exit_code == 0
    (data / "audit.checkpoint").write_text("of the database that stays")
    (data / "keyrack.db").write_bytes(b"damaged")  # its log is moved away, where something is in the way
    (data / "keyrack.db-wal").write_bytes(b"")
    for time in times_of_the_next_minute():
        (data / f"keyrack.db.before-{time}-wal").mkdir()
    ended = run("restore", str(copy), "--yes", data=data)
    assert ended.exit_code == 1, ended.output
    assert (data / "keyrack.db").read_bytes() == b"damaged"
    assert (data / "audit.checkpoint").exists()


@pytest.mark.parametrize("bring_back", [False, True])
def test_access_removed_since_the_backup_stays_removed_after_a_restore(
    data: Path, tmp_path: Path, bring_back: bool
) -> None:
    copy, line = tmp_path / "copy.db", fresh_line()
    keyrack = actors.system_actor(1)
    with opened(data) as instance:
        alice = actors.of_user(named(instance, "alice"), address="192.0.2.1", channel="test")
        key = user_keys.add(instance, alice, title="laptop", public_key=line)
        key_sources.put(instance, alice, "alice", "github", account="octocat")
    assert run("backup", str(copy), data=data).exit_code == 0
    with opened(data) as instance:
        user_keys.delete(instance, alice, key.id)
        key_sources.delete(instance, alice, "alice", "github")
        tokens.revoke_secret(instance, alice, "token-of-alice")
        users.change(instance, keyrack, named(instance, "bob").id, enabled=False)
        users.delete_user(instance, keyrack, named(instance, "mallory").id)
        users.create_user(instance, keyrack, name="zoe", role=named(instance, "alice").role, password="zoe's password")
    (data / "audit.checkpoint").write_text("of the database that is replaced")
    done = run("restore", str(copy), "--yes", *(["--bring-back"] if bring_back else []), data=data)
    assert done.exit_code == 0, done.output
    assert ("COMES BACK" in done.output) is bring_back
    assert "1 user's key" in done.output
    with opened(data) as instance:
        assert (access.public_key_of(instance, parse(line).fingerprint) is not None) is bring_back
        assert bool(key_sources.find(instance, keyrack, "alice")) is bring_back
        assert is_known(instance, "token-of-alice") is bring_back
        assert is_known(instance, "token-of-bob") is bring_back
        assert is_known(instance, "token-of-mallory") is bring_back
        assert is_known(instance, "token-of-olga")
        names = {user.name for user in users.find(instance, keyrack)}
        assert ("mallory" in names) is bring_back
        assert "zoe" not in names
    assert not (data / "audit.checkpoint").exists()
    (aside,) = data.glob("keyrack.db.before-*")
    with closing(sqlite3.connect(aside)) as raw:
        assert raw.execute("SELECT count(*) FROM users WHERE name = 'zoe'").fetchone() == (1,)
    assert (data / "keyrack.db").stat().st_mode & 0o777 == 0o600


def test_hosts_that_enrolled_since_the_backup_are_named(data: Path, tmp_path: Path) -> None:
    """The restored database does not know them, so that they hear of nothing."""
    keyrack, copy = actors.system_actor(1), tmp_path / "copy.db"
    with opened(data) as instance:
        enrolment.enrol(instance, servers.invite(instance, keyrack, 1), {}, address="192.0.2.1")
    assert run("backup", str(copy), data=data).exit_code == 0
    asked = run("restore", str(copy), data=data)
    assert ("Lost: 0 events" in asked.output, "enrolled since" in asked.output) == (True, False), asked.output
    with opened(data) as instance:
        made = servers.create(instance, keyrack, name="web-9", address="192.0.2.9")
        for server_id in (1, made.id):
            enrolment.enrol(instance, servers.invite(instance, keyrack, server_id), {}, address="192.0.2.1")
    done = run("restore", str(copy), "--yes", data=data)
    assert done.exit_code == 0, done.output
    assert "2 hosts enrolled since, and would be told nothing, revocations included, until" in done.output
    assert "pasted there: web-1, web-9." in done.output


def test_a_file_that_is_no_backup_of_this_instance_changes_nothing(
    data: Path, team_folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    assert run("backup", str(copy), data=data).exit_code == 0
    junk, cut, foreign, newer, other = (tmp_path / name for name in ("junk", "cut", "foreign", "newer", "other"))
    junk.write_bytes(b"no database at all" * 1000)
    cut.write_bytes(copy.read_bytes()[:20000])
    with closing(sqlite3.connect(foreign)) as raw:
        raw.execute("CREATE TABLE notes (text)")
    shutil.copy(copy, newer)
    with closing(sqlite3.connect(newer)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
        raw.commit()
    assert run("apply", "--dry-run", str(_team_file(tmp_path)), data=other).exit_code == 0
    before = content(data / "keyrack.db")
    for file, words in (
        (junk, "no whole SQLite database"),
        (cut, "no whole SQLite database"),
        (foreign, "not Keyrack's"),
        (newer, "later version"),
        (tmp_path / "nothing", "no file"),
    ):
        ended = run("restore", str(file), "--yes", data=data)
        assert ended.exit_code == 1, (file, ended.output)
        assert words in ended.output, (file, ended.output)
        assert "Traceback" not in ended.output
    elsewhere = run("restore", str(copy), "--yes", data=other)
    assert elsewhere.exit_code == 1
    assert "another instance's key" in elsewhere.output
    assert CliRunner().invoke(main, ["restore", str(copy), "--data", str(data)], input="n\n").exit_code == 1
    assert content(data / "keyrack.db") == before
    assert [path.name for path in data.iterdir() if "restor" in path.name or "before" in path.name] == []


def test_a_backup_replaces_nothing_unasked(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    assert run("backup", str(copy), data=data).exit_code == 0
    assert run("backup", str(copy), data=data).exit_code == 1
    assert run("backup", str(copy), "--overwrite", data=data).exit_code == 0
    assert run("backup", str(data / "keyrack.db"), "--overwrite", data=data).exit_code == 1
    assert run("backup", str(tmp_path / "no" / "folder"), data=data).exit_code == 1
    assert run("backup", str(copy), data=tmp_path / "empty").exit_code == 1


def test_the_partial_copy_of_a_killed_backup_is_removed_after_a_day(data: Path, tmp_path: Path) -> None:
    """Each is as large as the database, and a nightly one that is killed would fill the disk."""
    old, new, other = (
        tmp_path / f".{name}.partial" for name in ("copy.db.0123abcd", "copy.db.89abcdef", "x.db.0123abcd")
    )
    for left in (old, new, other):
        left.write_bytes(b"half a copy")
    for left in (old, other):
        os.utime(left, (0, 0))
    assert run("backup", str(tmp_path / "copy.db"), data=data).exit_code == 0
    assert [left.exists() for left in (old, new, other)] == [False, True, True]


def test_a_backup_overwrites_nothing_but_an_earlier_one(data: Path, tmp_path: Path) -> None:
    with Database.open(f"sqlite:///{data / 'keyrack.db'}") as database:
        database.check()  # so that it has a log
        (tmp_path / "notes.txt").write_text("mine", "ascii")
        for file in (data / "instance.key", data / "keyrack.db-wal", data / "keyrack.db", tmp_path / "notes.txt"):
            before = file.read_bytes()
            assert "no earlier copy" in run("backup", str(file), "--overwrite", data=data).output
            assert file.read_bytes() == before
        assert [path.name for path in tmp_path.glob(".*")] == []
        database.check()


def test_changes_in_the_write_ahead_log_of_a_copy_are_restored_too(data: Path, tmp_path: Path) -> None:
    """As somebody has it who copied all files that lie there, or restores what a restore put aside."""
    copy = tmp_path / "copy.db"
    with Database.open(f"sqlite:///{data / 'keyrack.db'}") as database:
        database.write(lambda conn: conn.execute(instance_facts.insert().values(name="late", value="x")))
        for part in ("", "-wal"):
            copy.with_name(f"copy.db{part}").write_bytes((data / f"keyrack.db{part}").read_bytes())
    assert run("restore", str(data / "keyrack.db"), "--yes", data=data).exit_code == 1
    assert run("restore", str(copy), "--yes", data=data).exit_code == 0
    with Database.open(f"sqlite:///{data / 'keyrack.db'}") as database:
        assert "late" in database.read(lambda conn: set(conn.execute(select(instance_facts.c.name)).scalars()))


def test_backup_of_postgresql_names_pg_dump_and_pg_restore(data: Path, tmp_path: Path) -> None:
    for words, command in (("backup", "pg_dump"), ("restore", "pg_restore")):
        ended = run(words, str(tmp_path / "x"), "--database", "postgresql://keyrack:secret@db/keyrack", data=data)
        assert ended.exit_code == 1
        assert command in ended.output
        assert "secret" not in ended.output


def test_the_named_line_holds_for_a_shell_what_file_and_database_are_called(data: Path, tmp_path: Path) -> None:
    file, database = tmp_path / "of today", "postgresql://keyrack@db/keyrack?connect_timeout=5&sslmode=require"
    ended = run("backup", str(file), "--database", database, data=data)
    line = ended.output.partition("`")[2].partition("`")[0]
    assert shlex.split(line)[2:] == [f"--file={file}", f"--dbname={database}"]


def _team_file(folder: Path) -> Path:
    file = folder / "other.toml"
    file.write_text('[workspace]\nname = "other"\n', "utf-8")
    return file
