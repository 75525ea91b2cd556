"""Old databases of both kinds are brought up to date with what is in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    inspect,
    text,
)
from sqlalchemy.event import listen, remove
from sqlalchemy.sql import quoted_name

from keyrack.store.changes import changes
from keyrack.store.database import Database
from keyrack.store.engine import catalogue, migrate
from keyrack.store.engine.connect import DatabaseAltered, migrating_engine, parse_url, sqlite_engine
from keyrack.store.hosts import servers
from keyrack.store.people import workspaces
from tests.core import set_back
from tests.databases import DIALECTS
from tests.postgres import Cluster, database_name
from tests.shared_in_run import made_once, run_folder

ROWS = 3

# What a later version calls otherwise.
TABLES = {
    "found_keys": "unmanaged_keys",
    "told_documents": "reported_documents",
    "told_logins": "reported_logins",
}
COLUMNS = {
    "stale_after_seconds": "offline_after_seconds",
    "stale_then": "offline_then",
    "door": "channel",
    "sealed_secret": "encrypted_secret",
    "sealed_password": "encrypted_password",
    "take_away": "remove_keys",
    # Of one table alone.
    "credentials.delivered_at": "acknowledged_at",
    "revocations.confirmed_at": "acknowledged_at",
    "offboarding_hosts.confirmed_at": "acknowledged_at",
    "offboarding_git.confirmed_at": "acknowledged_at",
}
BEFORE_NAMES = "0031"

HEAD = migrate.head()
SCRIPTS = list(ScriptDirectory(migrate.FOLDER, version_locations=[migrate.FOLDER]).walk_revisions())
OLDER = [script.revision for script in SCRIPTS if script.revision != HEAD]

REBUILD = '''
"""As a later version's migration may do: rebuild a table that others point to, then perhaps fail."""
import sqlalchemy
from alembic import op

revision = "later"
down_revision = "{head}"

def upgrade():
    with op.batch_alter_table("servers") as batch:
        batch.add_column(sqlalchemy.Column("probe", sqlalchemy.String(8)))
        batch.alter_column("name", existing_type=sqlalchemy.String(255), type_=sqlalchemy.Text())
    {then}
'''


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    dialect, parsed = parse_url(url)
    engine = sqlite_engine(parsed, writer=True) if dialect == "sqlite" else migrating_engine(parsed)
    try:
        with engine.begin() as conn:
            yield conn
    finally:
        engine.dispose()


def tables_in(conn: Connection) -> list[Table]:
    """What the database itself says it has, those first that others point to."""
    found = MetaData()

    def quoted(_inspector: object, _table: object, column: Any) -> None:
        column["name"] = quoted_name(column["name"], quote=True)

    listen(Table, "column_reflect", quoted)
    try:
        found.reflect(conn)
    finally:
        remove(Table, "column_reflect", quoted)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def made_up(column: Any, row: int) -> Any:
    """A value that fits; different in each row, except where a row of another table is meant."""
    if column.foreign_keys:
        (key,) = column.foreign_keys
        return row if isinstance(key.column.type, Integer) else made_up(key.column, row)
    if isinstance(column.type, Boolean):
        return row % 2 == 0
    if isinstance(column.type, JSON):
        return {"row": row}
    if isinstance(column.type, LargeBinary):
        return bytes([row]) * 32
    if isinstance(column.type, Integer):
        # What may be pointed to must be what is pointed at.
        return row if column.primary_key else row * 1_000
    assert isinstance(column.type, String), f"{column} has a type this test cannot make up: {column.type!r}"
    return f"{row} {column.name}"[: column.type.length]


def is_given(column: Any) -> bool:
    """Whether the database gives a column its value: an id, but for those whose numbers mean something."""
    return column.name == "id" and isinstance(column.type, Integer) and not isinstance(column.type, BigInteger)


def fill(conn: Connection) -> None:
    """Some rows in every table, whatever tables there are."""
    for table in tables_in(conn):
        columns = [column for column in table.c if not is_given(column)]
        rows = [{column.name: made_up(column, row) for column in columns} for row in range(1, ROWS + 1)]
        conn.execute(insert(table), rows)


def contents(conn: Connection) -> dict[str, list[dict[str, Any]]]:
    """All rows as the driver gives them: to look at every column first would take longer than all the rest."""
    quoted = {name: conn.dialect.identifier_preparer.quote_identifier(name) for name in inspect(conn).get_table_names()}
    return {
        name: [dict(row) for row in sorted(conn.exec_driver_sql(f"SELECT * FROM {shown}").mappings(), key=repr)]
        for name, shown in quoted.items()
        if name != "alembic_version"
    }


def of_columns(rows: list[dict[str, Any]], columns: Iterable[str]) -> list[tuple[Any, ...]]:
    """The values of these columns, row by row, in an order that follows from them alone."""
    return sorted((tuple(row[column] for column in columns) for row in rows), key=repr)


def test_the_migrated_tables_are_those_the_code_expects(bare_url: str) -> None:
    migrate.upgrade(bare_url)
    with connected(bare_url) as conn:
        options = {"compare_type": True, "compare_server_default": True}
        differences = compare_metadata(MigrationContext.configure(conn, opts=options), changes.metadata)
        how = "store/tables/ says what no migration makes: write one (CONTRIBUTING.md, A column)"
        assert differences == [], how
        for table in changes.metadata.tables.values():
            found = inspect(conn).get_pk_constraint(table.name)
            assert found["constrained_columns"] == [column.name for column in table.primary_key], table.name
            assert found["name"] in (None, table.primary_key.name)  # SQLite names no counted key


def test_new_migrations_say_how_they_are_undone() -> None:
    newest = [script.revision for script in SCRIPTS]
    known = list(set_back.UNDO)
    words = "add to UNDO of tests/core/set_back.py, the newest first, what undoes the migration"
    assert known == newest[: len(known)], words


def test_ids_are_never_used_twice(sqlite_url: str) -> None:
    with connected(sqlite_url) as conn:
        rows = conn.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        made: dict[str, str] = {row.name: row.sql for row in rows}
    for table in changes.metadata.tables.values():
        wanted = table.dialect_options["sqlite"]["autoincrement"]
        assert ("AUTOINCREMENT" in made[table.name]) == wanted, table.name


@pytest.fixture(scope="session")
def old_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SQLite file at each revision but the newest, by its name, to be copied."""

    def make(folder: Path) -> None:
        file = folder / "keyrack.db"
        for revision in reversed(OLDER):
            migrate.upgrade(f"sqlite:///{file}", to=revision)
            shutil.copyfile(file, folder / revision)

    return made_once(run_folder(tmp_path_factory) / "old-sqlite", make)


@pytest.fixture(scope="session")
def old_templates(cluster: Cluster) -> Path:
    """A folder with the name of a PostgreSQL database at each revision but the newest, to be copied."""

    def make(folder: Path) -> None:
        url = cluster.create_database()
        for revision in reversed(OLDER):
            migrate.upgrade(url, to=revision)
            (folder / revision).write_text(database_name(cluster.create_database(database_name(url))), "ascii")

    return made_once(cluster.folder / "old", make)


@pytest.fixture(params=DIALECTS)
def old_url(request: pytest.FixtureRequest, revision: str, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database at a revision, once of each kind."""
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("old_files") / revision, tmp_path / "old.db")
        yield f"sqlite:///{tmp_path / 'old.db'}"
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    url = cluster.create_database((request.getfixturevalue("old_templates") / revision).read_text("ascii"))
    yield url
    cluster.drop_database(url)


@pytest.mark.parametrize("revision", OLDER)
def test_an_old_database_keeps_its_rows(old_url: str, revision: str) -> None:
    assert migrate.current(old_url) == revision
    assert migrate.current(old_url) != migrate.head()
    with connected(old_url) as conn:
        fill(conn)
        before = contents(conn)
    assert [row["label"] for row in before["credentials"]] == ["1 label", "2 label", "3 label"]

    migrate.upgrade(old_url)

    assert migrate.current(old_url) == migrate.head()
    with connected(old_url) as conn:
        assert (catalogue.missing(conn, HEAD), catalogue.unlinked(conn), catalogue.foreign(conn)) == ((), (), ())
        after = contents(conn)
    for name, rows in before.items():
        columns = [COLUMNS.get(f"{name}.{column}", COLUMNS.get(column, column)) for column in rows[0]]
        kept = of_columns(after[TABLES.get(name, name)], columns)
        assert kept == of_columns(rows, rows[0]), name


# Versions that were in use while a migration was not, which is below theirs now.
BETWEEN = [
    ("0004", ("0003",)),
    ("0005", ("0004",)),
    ("0011", ("0018", "0019")),
    ("0016", ("0011",)),
    ("0082", ("0115",)),
    ("0090", ("0115", "0080", "0081", "0082")),
    ("0131", ("0115", "0080", "0081", "0082", "0090", "0070", "0083")),
    ("0160", ("0180",)),
    ("0181", ("0162",)),
    ("0235", ("0230",)),
]


@pytest.mark.parametrize(("at", "without"), BETWEEN, ids=[at for at, _ in BETWEEN])
def test_a_database_that_lacks_what_its_revision_says_gets_it(bare_url: str, at: str, without: tuple[str, ...]) -> None:
    with connected(bare_url) as conn:
        context = MigrationContext.configure(conn, opts={"target_metadata": changes.metadata})
        with Operations.context(context):
            for script in reversed(SCRIPTS[SCRIPTS.index(next(one for one in SCRIPTS if one.revision == at)) :]):
                if script.revision not in without:
                    script.module.upgrade()
        context.stamp(ScriptDirectory(migrate.FOLDER, version_locations=[migrate.FOLDER]), at)
        fill(conn)
        before = contents(conn)

    migrate.upgrade(bare_url)

    with connected(bare_url) as conn:
        assert compare_metadata(MigrationContext.configure(conn, opts={"compare_type": True}), changes.metadata) == []
        assert (catalogue.missing(conn, HEAD), catalogue.unlinked(conn), catalogue.foreign(conn)) == ((), (), ())
        after = contents(conn)
    for name, rows in before.items():
        assert len(after[TABLES.get(name, name)]) == len(rows), name


def test_a_database_upgraded_without_a_later_table_gets_it_too(bare_url: str) -> None:
    migrate.upgrade(bare_url, "0240")
    with connected(bare_url) as conn:
        conn.execute(text("DROP TABLE access_key_failures"))
        conn.execute(text("DROP INDEX ix_events_alarms"))
    migrate.upgrade(bare_url)
    with connected(bare_url) as conn:
        assert compare_metadata(MigrationContext.configure(conn), changes.metadata) == []


ALTERED = {
    "DROP TABLE access_key_failures": r"table access_key_failures is missing",
    "DROP TABLE revoked_keys": r"table revoked_keys is missing",
    "ALTER TABLE tokens RENAME COLUMN name TO gone": r"column tokens\.name is missing",
    "DELETE FROM alembic_version": r"alembic_version in the database is missing or empty",
    "DROP TABLE alembic_version": r"alembic_version in the database is missing or empty",
    "INSERT INTO alembic_version VALUES ('0240')": r"alembic_version in the database has 2 rows \(0240, ",
    "UPDATE alembic_version SET version_num = '0235'": r"says that it is at revision 0235, and has tables",
    "UPDATE alembic_version SET version_num = '0030'": r"says that it is at revision 0030, and has tables",
}


@pytest.mark.parametrize("statement", ALTERED)
def test_a_removed_table_is_named_and_not_made_anew(database_url: str, statement: str) -> None:
    with connected(database_url) as conn:
        conn.execute(text(statement))
        left = set(inspect(conn).get_table_names())
    with pytest.raises(DatabaseAltered, match=ALTERED[statement]):
        migrate.upgrade(database_url)
    with connected(database_url) as conn:
        assert set(inspect(conn).get_table_names()) == left


def test_an_empty_database_with_tables_of_others_is_brought_up(bare_url: str) -> None:
    with connected(bare_url) as conn:
        conn.execute(text("CREATE TABLE notes (id INTEGER)"))
    migrate.upgrade(bare_url)
    assert migrate.current(bare_url) == migrate.head()


def test_tables_of_another_program_with_our_names_are_named(bare_url: str) -> None:
    with connected(bare_url) as conn:
        conn.execute(text("CREATE TABLE users (id INTEGER)"))
    with pytest.raises(DatabaseAltered, match="a database of its own"):
        migrate.upgrade(bare_url)


def test_migrations_are_put_after_those_in_use() -> None:
    """Below one that databases are at already, a migration would never run on them."""
    in_use = (
        "0001 0002 0003 0004 0005 0007 0018 0019 0011 0016 0030 0031 0040 0050 0055 0056 0057 0115 0080 0081 0082 0090"
        " 0070 0083 0130 0131 0180 0170 0160 0161 0162 0181 0230 0235 0240"
    )
    assert " ".join(script.revision for script in reversed(SCRIPTS)).startswith(in_use)


def test_renamed_values_are_carried_over_by_the_migration(bare_url: str) -> None:
    migrate.upgrade(bare_url, to=BEFORE_NAMES)
    with connected(bare_url) as conn:
        fill(conn)
        conn.execute(text("UPDATE servers SET mode = 'adopt', facts = :facts"), {"facts": '{"enforcement": "adopt"}'})
    migrate.upgrade(bare_url)
    with connected(bare_url) as conn:
        for server in contents(conn)["servers"]:
            # A connection outside of the store reads JSON where its driver does.
            facts = json.loads(server["facts"]) if isinstance(server["facts"], str) else server["facts"]
            assert (server["mode"], facts) == ("observe", {"enforcement": "observe"})
        last = max(key["id"] for key in contents(conn)["unmanaged_keys"])
        columns = [name for name in contents(conn)["unmanaged_keys"][0] if name != "id"]
        listed = ", ".join(columns)
        again = ", ".join("'another'" if name == "path" else name for name in columns)
        conn.execute(text(f"INSERT INTO unmanaged_keys ({listed}) SELECT {again} FROM unmanaged_keys LIMIT 1"))
        assert max(key["id"] for key in contents(conn)["unmanaged_keys"]) > last


def test_a_table_that_is_made_anew_uses_no_id_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'keyrack.db'}"
    migrate.upgrade(url, to="0131")
    with connected(url) as conn:
        fill(conn)
        conn.execute(text("DELETE FROM sessions WHERE id = (SELECT max(id) FROM sessions)"))
        before = {row.name: row.seq for row in conn.execute(text("SELECT name, seq FROM sqlite_sequence"))}
    migrate.upgrade(url)
    with connected(url) as conn:
        after = {row.name: row.seq for row in conn.execute(text("SELECT name, seq FROM sqlite_sequence"))}
    assert {name: after[name] for name in before} == before


def test_an_empty_database_is_at_no_revision(bare_url: str) -> None:
    assert migrate.current(bare_url) is None
    assert migrate.current(bare_url) != migrate.head()


def test_a_second_upgrade_changes_nothing(database_url: str) -> None:
    with connected(database_url) as conn:
        fill(conn)
        before = contents(conn)
    migrate.upgrade(database_url)
    with connected(database_url) as conn:
        assert contents(conn) == before


def test_several_that_upgrade_at_once_do_it_once(bare_url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(migrate.upgrade, bare_url) for _ in range(6)]:
            done.result(120)
    assert migrate.current(bare_url) == migrate.head()


def test_a_database_of_a_later_version_is_left_alone(database_url: str) -> None:
    with connected(database_url) as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(migrate.SchemaTooNew, match=r"revision 9999.*Start that version"):
        migrate.upgrade(database_url)
    assert migrate.current(database_url) == "9999"


@pytest.fixture
def later_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The migrations of a version to come; without its own yet."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrate, "FOLDER", folder)
    return folder


def test_rebuilding_a_table_keeps_the_rows_that_point_to_it(database_url: str, later_folder: Path) -> None:
    with connected(database_url) as conn:
        fill(conn)
        before = contents(conn)
    (later_folder / "later.py").write_text(REBUILD.format(head=HEAD, then=""))
    migrate.upgrade(database_url)
    with connected(database_url) as conn:
        after = contents(conn)
    assert after["system_users"] == before["system_users"]
    assert [row.pop("probe") for row in after["servers"]] == [None] * ROWS
    assert after == before


def test_a_service_goes_on_beside_a_later_versions_migration(database_url: str, later_folder: Path) -> None:
    """It reads and writes while tables are made anew under it, and afterwards."""

    def used(conn: Connection) -> int:
        workspaces.add_workspace(conn, uid=uuid4().hex, name=uuid4().hex, at=datetime.now(UTC))
        assert servers.revision_states(conn, (1, 2)) is not None
        return len(workspaces.workspaces_by_name(conn))

    with Database.open(database_url) as older, ThreadPoolExecutor(1) as pool:
        made = older.write(used)
        (later_folder / "later.py").write_text(REBUILD.format(head=HEAD, then=""))
        upgrade = pool.submit(migrate.upgrade, database_url)
        while not upgrade.done():
            made = older.write(used)
        upgrade.result()
        assert migrate.current(database_url) != HEAD
        assert older.write(used) == made + 1
        assert older.read(lambda conn: len(workspaces.workspaces_by_name(conn))) == made + 1


def test_a_migration_that_fails_leaves_everything_as_it_was(database_url: str, later_folder: Path) -> None:
    with connected(database_url) as conn:
        fill(conn)
        before = contents(conn)
    failing = REBUILD.format(head=HEAD, then='op.execute("INSERT INTO no_such_table VALUES (1)")')
    (later_folder / "later.py").write_text(failing)
    with pytest.raises(Exception, match="no_such_table"):
        migrate.upgrade(database_url)
    assert migrate.current(database_url) == HEAD
    with connected(database_url) as conn:
        assert contents(conn) == before
