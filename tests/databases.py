"""Fixtures: databases of both kinds, new for each test and migrated; must share nothing between two tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack.store.database import Database
from keyrack.store.engine import migrate
from tests.postgres import Cluster, database_name, running_cluster, shared_cluster
from tests.shared_in_run import made_once, run_folder

DIALECTS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The PostgreSQL of this run, for all its processes. It does without fsync: see durable_cluster."""
    with shared_cluster(run_folder(tmp_path_factory)) as running:
        yield running


@pytest.fixture(scope="module")
def durable_cluster() -> Iterator[Cluster]:
    """A PostgreSQL that syncs to the disk, for tests that break or stop it; it runs again at the next test."""
    with running_cluster(durable=True) as running:
        yield running


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy from."""

    def make(folder: Path) -> None:
        migrate.upgrade(f"sqlite:///{folder / 'keyrack.db'}")

    return made_once(run_folder(tmp_path_factory) / "migrated-sqlite", make) / "keyrack.db"


@pytest.fixture
def unused_data(migrated_file: Path, tmp_path: Path) -> Path:
    """A data folder that nobody has used yet: its SQLite file has all tables, as to make them takes half a second."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    (folder / "keyrack.db").touch(0o600)
    shutil.copyfile(migrated_file, folder / "keyrack.db")
    return folder


@pytest.fixture(scope="session")
def migrated_template(cluster: Cluster) -> str:
    """The name of a migrated PostgreSQL database to copy from."""

    def make(folder: Path) -> None:
        url = cluster.create_database()
        migrate.upgrade(url)
        (folder / "name").write_text(database_name(url), "ascii")

    return (made_once(cluster.folder / "migrated", make) / "name").read_text("ascii")


@pytest.fixture
def sqlite_url(migrated_file: Path, tmp_path: Path) -> str:
    """The address of a migrated, empty SQLite database."""
    path = tmp_path / "keyrack.db"
    shutil.copyfile(migrated_file, path)
    path.chmod(0o600)
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql_url(cluster: Cluster, migrated_template: str) -> Iterator[str]:
    """The address of a migrated, empty PostgreSQL database."""
    url = cluster.create_database(migrated_template)
    yield url
    cluster.drop_database(url)


@pytest.fixture(params=DIALECTS)
def database_url(request: pytest.FixtureRequest) -> str:
    """The address of a migrated, empty database, once of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=DIALECTS)
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database without any table, once of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'bare.db'}"
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    url = cluster.create_database()
    yield url
    cluster.drop_database(url)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open, migrated, empty database, once of each kind."""
    with Database.open(database_url) as opened:
        yield opened
