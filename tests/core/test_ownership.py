"""A database belongs to one instance key: another one, or none, is refused with words by whatever opens it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import delete

from keyrack import app
from keyrack.core.instance import Instance
from keyrack.core.instance_key import InstanceKey
from keyrack.core.keys import user_keys
from keyrack.core.ownership import ForeignKey, LostDatabase
from keyrack.core.people import actors, users
from keyrack.core.workspace import apply as workspace_apply
from keyrack.model import Actor, Role
from keyrack.store.database import Database
from keyrack.store.tables import instance_facts
from tests.services import TEAM, settings_for

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOlnN8hWog8MXHhJWiq/lB2hNutrO3cWh2CEnhzdjfyy laptop"
COMMANDS = (
    ("serve", "--listen", "127.0.0.1:1"),
    ("git-host", "--git-listen", "127.0.0.1:1"),
    ("hosts", "list"),
    ("repos", "list"),
    ("apply", __file__),
)


def begin(folder: Path, url: str, text: str = TEAM) -> None:
    instance = app.open_instance(settings_for(folder, url))
    workspace_apply.apply(instance, text, {})
    instance.database.close()


def forget_the_key(url: str) -> None:
    """As a version left it that noted no key."""
    with Database.open(url) as database:
        database.write(lambda connection: connection.execute(delete(instance_facts)))


def facts(url: str) -> list[tuple[str, str]]:
    with Database.open(url) as database:
        rows = database.read(lambda connection: connection.execute(instance_facts.select()).all())
    return [(row.name, row.value) for row in rows]


def test_an_empty_data_folder_gets_no_key_for_a_database_that_has_one(bare_url: str, tmp_path: Path) -> None:
    begin(tmp_path / "first", bare_url)
    known = facts(bare_url)
    with pytest.raises(ForeignKey, match=r"instance\.key is missing.*SHA256:"):
        app.open_instance(settings_for(tmp_path / "second", bare_url))
    assert not (tmp_path / "second" / "instance.key").exists()
    assert facts(bare_url) == known
    # With the right file put there it starts.
    (tmp_path / "second" / "instance.key").write_bytes((tmp_path / "first" / "instance.key").read_bytes())
    app.open_instance(settings_for(tmp_path / "second", bare_url)).database.close()


def test_another_key_is_refused(bare_url: str, tmp_path: Path) -> None:
    begin(tmp_path / "first", bare_url)
    other = InstanceKey.load(tmp_path / "other.key")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "instance.key").write_bytes((tmp_path / "other.key").read_bytes())
    with pytest.raises(ForeignKey, match="another instance's key") as refused:
        app.open_instance(settings_for(tmp_path / "second", bare_url))
    assert other.fingerprint in str(refused.value)


@pytest.mark.parametrize("words", COMMANDS, ids=[command[0] for command in COMMANDS])
def test_every_command_refuses_another_key(words: tuple[str, ...], database_url: str, tmp_path: Path) -> None:
    begin(tmp_path / "first", database_url)
    where = ["--data", str(tmp_path / "second"), "--database", database_url]
    run = [sys.executable, "-m", "keyrack.cli.main", *words, *where]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 1
    assert "instance.key is missing" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "second" / "instance.key").exists()


@pytest.mark.parametrize("words", COMMANDS, ids=[command[0] for command in COMMANDS])
def test_every_command_refuses_to_begin_anew_in_the_place_of_a_lost_database(
    words: tuple[str, ...], sqlite_url: str, tmp_path: Path
) -> None:
    begin(tmp_path / "data", sqlite_url)
    (tmp_path / "keyrack.db").unlink()
    run = [sys.executable, "-m", "keyrack.cli.main", *words, "--data", str(tmp_path / "data"), "--database", sqlite_url]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 1
    assert "keyrack restore FILE" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "keyrack.db").exists()


def test_an_empty_database_is_begun_for_a_key_only_where_that_is_asked_for(bare_url: str, tmp_path: Path) -> None:
    InstanceKey.load(tmp_path / "instance.key")
    with pytest.raises(LostDatabase, match="missing or empty"):
        app.open_instance(settings_for(tmp_path, bare_url))
    (tmp_path / "team.toml").write_text(TEAM, "utf-8")
    where = ["--data", str(tmp_path), "--database", bare_url]
    run = [sys.executable, "-m", "keyrack.cli.main", "apply", str(tmp_path / "team.toml"), "--new-database", *where]
    subprocess.run(run, check=True, capture_output=True, timeout=240)
    app.open_instance(settings_for(tmp_path, bare_url)).database.close()


@pytest.mark.parametrize("sealed", [False, True], ids=["users only", "keys"])
def test_a_database_of_an_earlier_version_takes_the_key_that_sealed_it_and_no_other(
    sealed: bool, bare_url: str, tmp_path: Path
) -> None:
    instance = app.open_instance(settings_for(tmp_path / "first", bare_url))
    workspace_apply.apply(instance, TEAM, {})
    if sealed:
        _give_alice_a_key(instance)
    instance.database.close()
    forget_the_key(bare_url)
    with pytest.raises(ForeignKey, match="is missing"):
        app.open_instance(settings_for(tmp_path / "second", bare_url))
    if sealed:
        InstanceKey.load(tmp_path / "second" / "instance.key")
        with pytest.raises(ForeignKey, match="is not the instance key that sealed"):
            app.open_instance(settings_for(tmp_path / "second", bare_url))
    app.open_instance(settings_for(tmp_path / "first", bare_url)).database.close()
    assert facts(bare_url) == [("key fingerprint", InstanceKey.load(tmp_path / "first" / "instance.key").fingerprint)]


def _give_alice_a_key(instance: Instance) -> None:
    alice = next(user for user in users.find(instance, actors.system_actor(1)) if user.name == "alice")
    actor = Actor(workspace_id=1, user_id=alice.id, name="alice", role=Role.OWNER)
    user_keys.add(instance, actor, title="laptop", public_key=KEY)


def test_one_of_many_that_start_at_once_with_keys_of_their_own_gets_the_database(bare_url: str, tmp_path: Path) -> None:
    def open_it(number: int) -> bool:
        try:
            app.open_instance(settings_for(tmp_path / f"{number}", bare_url)).database.close()
        except ForeignKey:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(open_it, range(6)))
    assert opened.count(True) == 1
    # The others can start as soon as the key that counts is put there: none of theirs was left lying.
    assert [(tmp_path / f"{number}" / "instance.key").exists() for number in range(6)] == opened


def test_many_that_begin_at_once_with_one_folder_share_its_key(bare_url: str, tmp_path: Path) -> None:
    def open_it(_: int) -> str:
        instance = app.open_instance(settings_for(tmp_path / "data", bare_url))
        instance.database.close()
        return instance.key.fingerprint

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(open_it, range(6)))) == 1
    names = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert names == [f"instance.key{mark}" for mark in ("", ".counted", ".events", ".receipts", ".sealed")]
