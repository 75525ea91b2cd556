"""Fixtures of the whole suite: databases, a running service, a team to try it with."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import structlog
from argon2 import PasswordHasher

from keyrack import app
from keyrack.core.people import passwords
from keyrack.core.workspace import apply as workspace_apply
from tests.login import debian_host
from tests.postgres import Cluster, database_name
from tests.services import STRANGERS, TEAM, Service, running, settings_for
from tests.shared_in_run import made_once, run_folder

pytest_plugins = ["tests.databases", "tests.costs", "tests.workers"]

# The longest first, so that no worker begins a long one when the others are done.
SYSTEM = {"login", "agent", "crash", "git", "cli", "console"}
# Of the others, what takes seconds for each thing that it shows, of processors or waiting: not in the inner loop.
SLOW = {
    *("core/test_sealed_rows.py", "ssh/test_agreement.py", "store/test_migrations.py", "web/test_held_contacts.py"),
    *("web/test_guesses.py", "web/test_hostile_http.py", "web/test_no_circles.py", "web/test_proofs.py"),
    *(
        "web/test_former_members.py",
        "web/test_runcloud_loops.py",
        "web/test_runcloud_rights.py",
        "web/test_webhooks.py",
    ),
    *("web/test_native_order.py", "core/test_alterations.py", "ssh/test_properties.py"),
    *("test_leftovers.py", "test_ready_programs.py", "test_workers.py"),
}
# PROGRAMS: the files of this folder itself, which start much for a few tests.
PROGRAMS = "*.py"
ORDER = ("login", "agent", "crash", "git", "console", "cli", PROGRAMS, "store", "ssh", "core", "web")


def pytest_configure(config: pytest.Config) -> None:
    """Settings of libraries, for all tests."""
    # What tests start hundreds of times, and the tests themselves, are compiled once, whatever is usual here.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # As the command has it (cli/main.py), whether or not a test of this run loads that.
    gc.set_threshold(100_000, 10, 10)
    # With rich, which tools of tests bring along, it would print every value on the way to an exception.
    structlog.get_config()["processors"][-1].exception_formatter = structlog.dev.plain_traceback


def pytest_addoption(parser: pytest.Parser) -> None:
    """--no-system, for scripts/check."""
    parser.addoption(
        "--no-system", action="store_true", help="only tests that start no sshd, Git host or PostgreSQL and are quick"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What nobody asked for is not even loaded."""
    here = Path(__file__).parent
    unasked = config.getoption("no_system") and collection_path in {here / name for name in SYSTEM | SLOW}
    return True if unasked else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests in order."""
    if config.getoption("no_system"):
        chosen = [item for item in items if not _needs_system(item)]
        config.hook.pytest_deselected(items=[item for item in items if _needs_system(item)])
        items[:] = chosen
    are_being_made = debian_host.are_being_made()
    items.sort(key=lambda item: _place(item, are_being_made=are_being_made))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is loaded stays: nothing of it is garbage, and it is not looked through for any, now or by a test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _needs_system(item: pytest.Item) -> bool:
    """Whether a test starts a server that is not ours, or takes seconds for commands that it starts."""
    module = item.getparent(pytest.Module)
    starts_programs = module is not None and "subprocess" in vars(module.obj)
    if _folder(item.path) in SYSTEM or (starts_programs and _folder(item.path) in {"core", "store", "web"}):
        return True
    names = set(getattr(item, "fixturenames", ()))
    values = getattr(getattr(item, "callspec", None), "params", {}).values()
    return bool(names & {"cluster", "durable_cluster", "sshd", "postgresql_url"}) or "postgresql" in values


def _folder(path: Path) -> str:
    return path.relative_to(Path(__file__).parent).parts[0]


def _place(item: pytest.Item, *, are_being_made: bool) -> tuple[int, bool]:
    """That of its folder, and there behind what takes long."""
    folder = _folder(item.path)
    if folder.endswith(".py"):
        folder = PROGRAMS
    if are_being_made and _boots(item):
        folder = "store"  # the first that needs little
    is_slow = str(item.path.relative_to(Path(__file__).parent)) in SLOW
    return ORDER.index(folder) if folder in ORDER else len(ORDER), not is_slow


def _boots(item: pytest.Item) -> bool:
    """Whether a test takes one of the Debians of scripts/hosts.sh."""
    module = item.getparent(pytest.Module)
    return module is not None and bool({"DebianHost", "debian_host", "system_of"} & set(vars(module.obj)))


@pytest.fixture(scope="session", autouse=True)
def _quick_hashes() -> Iterator[None]:
    """Passwords of tests are hashed with less work; test_passwords.py holds what is done in earnest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
        yield


@pytest.fixture(scope="session")
def team_folder(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> Path:
    """The data folder of an instance with a team and strangers in it, to be copied."""

    def make(folder: Path) -> None:
        shutil.copy(migrated_file, folder)
        _create_team(folder, "")

    return made_once(run_folder(tmp_path_factory) / "team-sqlite", make)


def _create_team(folder: Path, database: str) -> None:
    instance = app.open_instance(settings_for(folder, database))
    for text in (TEAM, STRANGERS):
        workspace_apply.apply(instance, text, {})
    instance.database.close()


@pytest.fixture(scope="session")
def team_on_postgresql(cluster: Cluster, migrated_template: str) -> tuple[Path, str]:
    """The same on PostgreSQL: the data folder, and the name of the database to be copied."""

    def make(folder: Path) -> None:
        url = cluster.create_database(migrated_template)
        (folder / "data").mkdir()
        _create_team(folder / "data", url)
        (folder / "name").write_text(database_name(url), "ascii")

    made = made_once(cluster.folder / "team", make)
    return made / "data", (made / "name").read_text("ascii")


@pytest.fixture(params=["sqlite", "postgresql"])
def team_data(request: pytest.FixtureRequest) -> Iterator[tuple[Path, str]]:
    """A folder of the team to be copied and a database address for the copy, once of each kind; "" is SQLite."""
    if request.param == "sqlite":
        yield request.getfixturevalue("team_folder"), ""
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    folder, template = request.getfixturevalue("team_on_postgresql")
    url = cluster.create_database(template)
    yield folder, url
    cluster.drop_database(url)


@pytest.fixture
def team_on_each(team_data: tuple[Path, str], tmp_path: Path) -> Iterator[Service]:
    """The service of `team`, once on each kind of database."""
    source, database = team_data
    folder = tmp_path / "data"
    shutil.copytree(source, folder)
    with running(settings_for(folder, database)) as service:
        yield service


@pytest.fixture
def team(team_folder: Path, tmp_path: Path) -> Iterator[Service]:
    """A service with two workspaces: a team with one server (id 1), and strangers with another (id 2)."""
    folder = tmp_path / "data"
    shutil.copytree(team_folder, folder)
    with running(settings_for(folder, "")) as service:
        yield service


@pytest.fixture(scope="module")
def unchanged_team(team_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service of `team`, one for the file: for tests that change nothing, as all that they ask is refused."""
    folder = tmp_path_factory.mktemp("unchanged") / "data"
    shutil.copytree(team_folder, folder)
    with running(settings_for(folder, "")) as service:
        yield service
