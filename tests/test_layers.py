"""Who may import whom, and why; the structure in ARCHITECTURE.md is held here."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "keyrack"

# Invariant 8, as which of ours imports which is held here.
# From the top down: a layer may import itself and those below it. web and git are beside each other.
LAYERS = (
    *("cli", "serving", "app", "web", "git", "private_sshd"),
    *("core", "store", "policy", "settings", "setting_values", "model", "errors", "logs", "protocol", "ssh"),
)
WHY = {
    "ssh": "ssh is pure: agents on other people's hosts run it, so it may import nothing of ours.",
    "protocol": "protocol is pure: service and agent both read it, and agents run on other people's hosts.",
    "programs": "sshd and git start them: standard library only, so that they start in milliseconds.",
    "agent": "the agent runs on other people's hosts: keyrack.ssh, keyrack.protocol, the standard library.",
    "web": "HTTP belongs to web alone: the core must be reachable through every API alike.",
}
DOCUMENTS = ("web/native/shapes", "core/workspace/schema")
OUTSIDE_OF_WEB = {"starlette", "fastapi", "uvicorn"}
FILES = sorted(SOURCE.rglob("*.py"))


def part_of(module: str) -> str:
    """The layer of a module: keyrack.web.server is in web, keyrack itself below everything."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else "keyrack"


def is_program(file: Path) -> bool:
    """Whether a file is one of the programs that sshd and git start."""
    return file.parent == SOURCE / "git" / "programs"


def module_of(file: Path) -> str:
    """The dotted name of a source file."""
    pieces = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(pieces[:-1] if pieces[-1] == "__init__" else pieces)


@cache
def tree_of(file: Path) -> ast.Module:
    """A source file, read and parsed once for all tests."""
    return ast.parse(file.read_text("utf-8"))


@cache
def imports_of(file: Path) -> set[str]:
    """Every module that a file imports, wherever in the file the import stands, also by a name in a text."""
    found: set[str] = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide who is meant"
            assert node.module is not None
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            found |= {str(name.value) for name in node.args if isinstance(name, ast.Constant)}
    return found


@pytest.fixture(scope="module", autouse=True)
def _trees() -> Iterator[None]:
    """One worker runs this file, as each would parse all of the source; once it is through, nobody needs the trees."""
    yield
    tree_of.cache_clear()
    imports_of.cache_clear()


# One test for all files, as a test of its own costs ten times what is looked at in a file.
def test_imports_go_down() -> None:
    for file in FILES:
        _imports_go_down(file)


def _imports_go_down(file: Path) -> None:
    layer = "programs" if is_program(file) else part_of(module_of(file))
    for name in imports_of(file):
        top = name.split(".")[0]
        if top == "keyrack":
            below = part_of(name)
            if below == layer or name in ("keyrack", "keyrack.__version__"):
                continue
            if layer == "agent":
                assert below in ("ssh", "protocol"), f"{file}: {name}: {WHY['agent']}"
            elif layer == "programs":
                raise AssertionError(f"{file}: {name}: {WHY['programs']}")
            elif below == "agent":
                assert layer in ("cli", "private_sshd"), f"{file}: only the command line starts the agent in process"
            else:
                down = LAYERS.index(below) > LAYERS.index(layer) and (layer, below) != ("web", "git")
                assert down, f"{module_of(file)} imports {name}: {WHY.get(layer, 'imports go down only.')}"
        elif layer in ("ssh", "protocol", "agent", "programs"):
            assert top in sys.stdlib_module_names | {"_sha2", "_sha256"}, f"{file}: {name}: {WHY[layer]}"
        elif layer in ("git", "core", "store", "policy", "settings", "setting_values", "model", "errors"):
            assert top not in OUTSIDE_OF_WEB, f"{module_of(file)} imports {name}: {WHY['web']}"


def test_no_import_cycles() -> None:
    modules = {module_of(file): imports_of(file) for file in FILES}
    graph = {name: {to for to in targets if to in modules and to != name} for name, targets in modules.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join((*trail, name))}"
        if name in done:
            return
        for target in graph[name]:
            if target != name.rpartition(".")[0]:
                visit(target, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_files_and_functions_stay_small() -> None:
    for file in FILES:
        _is_small(file)


def _is_small(file: Path) -> None:
    text = file.read_text("utf-8")
    assert text.count("\n") <= 600, f"{file.name} is too long to be read in one go"
    tree = tree_of(file)
    if text.strip():
        assert ast.get_docstring(tree), f"{file.name} does not say what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{file.name}: {node.name} has {length} lines"
    scopes: list[ast.Module | ast.ClassDef] = [tree]
    scopes += (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")
    for node in (node for scope in scopes for node in scope.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name[0] != "_":
            overload = [ast.unparse(one) for one in node.decorator_list] == ["overload"]  # the last one has it
            assert overload or ast.get_docstring(node), f"{file.name}: {node.name} has no docstring"


def test_every_broad_except_raises_again_or_says_why() -> None:
    for file in FILES:
        lines = file.read_text("utf-8").split("\n")
        for node in ast.walk(tree_of(file)):
            if not isinstance(node, ast.ExceptHandler) or isinstance(node.body[-1], ast.Raise):
                continue
            caught = "everything" if node.type is None else ast.unparse(node.type)
            if caught in ("everything", "Exception", "BaseException"):
                assert "#" in lines[node.lineno - 1], f"{file.name}:{node.lineno}: say why {caught} is caught"


def test_no_class_name_stands_twice() -> None:
    """But for documents, which call a thing as the code does: shapes of our own API, entries of the workspace file."""
    places: dict[tuple[str, str], list[str]] = {}
    for file in FILES:
        name = file.relative_to(SOURCE).as_posix()
        document = next((one for one in DOCUMENTS if name.startswith(one)), "")
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault((document, node.name), []).append(name)
    assert {name: several for (_, name), several in places.items() if len(several) > 1} == {}


def test_folders_are_at_most_two_deep() -> None:
    for file in FILES:
        assert len(file.relative_to(SOURCE).parts) <= 3, file


# Each takes a tenth of a second and more, for which whoever types a command would wait.
NOT_FOR_OPERATORS = {
    *("keyrack.web", "keyrack.serving", "starlette", "uvicorn", "alembic", "psycopg", "structlog", "rich"),
    *("prometheus_client", "pydantic_settings", "sqlalchemy.dialects.postgresql"),
}


COMMANDS = ("hosts list", "grants", "tokens", "events", "apply", "repos", "tidy", "backup", "restore")


def test_an_operators_command_loads_nothing_that_serves(tmp_path: Path) -> None:
    """In one process, one command after the other, as what one has loaded stays: the first to load it is named."""
    script = f"""
import sys
from keyrack.cli.main import main
for command in {COMMANDS}:
    main([*command.split(), "--help"], standalone_mode=False)
    print("loaded", command.split()[0], *sys.modules)
"""
    # An instance that is there already is opened without what makes or changes its tables.
    opens = """
import sys
from keyrack.app import open_instance
from keyrack.settings import Settings
open_instance(Settings(data=sys.argv[1])).database.close()
print("loaded", "open_instance", *sys.modules)
"""
    subprocess.run([sys.executable, "-c", opens, str(tmp_path)], check=True, capture_output=True)
    run = [sys.executable, "-c", script + opens, str(tmp_path)]
    said = subprocess.run(run, check=True, capture_output=True, text=True).stdout.splitlines()
    loaded = [line.split()[1:] for line in said if line.startswith("loaded ")]
    assert len(loaded) == len(COMMANDS) + 1
    for command, *modules in loaded:
        assert not NOT_FOR_OPERATORS & set(modules), command


# What changes users and hosts, proves who somebody is and reads keys; a list of hosts on the data asks none of it.
NOT_FOR_A_LIST_OF_HOSTS = {
    *("keyrack.core.people.users", "keyrack.core.people.passwords", "keyrack.core.people.second_factors", "argon2"),
    *("keyrack.store.people.web_sessions", "keyrack.store.people.authenticators", "pydantic", "tomllib"),
    *("keyrack.core.hosts.unmanaged_keys", "keyrack.core.hosts.database_rollback", "keyrack.core.keys.credentials"),
    *("keyrack.core.hosts.servers", "keyrack.core.lookups", "keyrack.core.validation", "keyrack.core.hosts.copies"),
    *("keyrack.ssh.public_key", "keyrack.protocol.host_document", "keyrack.store.audit.audit_log", "zoneinfo"),
    *("keyrack.store.people.access_keys", "keyrack.store.keys.access", "keyrack.cli.changes", "difflib"),
    "cryptography.hazmat.primitives.ciphers.aead",
}


def test_a_list_of_hosts_loads_nothing_that_changes_users(tmp_path: Path) -> None:
    opens = """
import sys
from keyrack.app import open_instance
from keyrack.settings import Settings
import keyrack.cli.hosts.host_list, keyrack.cli.hosts.hosts_on_data
open_instance(Settings(data=sys.argv[1])).database.close()
print(*sys.modules)
"""
    asked = [sys.executable, "-c", opens, str(tmp_path)]
    subprocess.run(asked, check=True, capture_output=True)  # makes the instance, which takes more
    loaded = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()
    assert "keyrack.core.hosts.status" in loaded
    assert not NOT_FOR_A_LIST_OF_HOSTS & set(loaded)


# What the first passkey, chart or square code loads, what makes or changes tables, and what speaks to PostgreSQL, which
# a service on SQLite does not; megabytes each.
NOT_AT_REST = {"webauthn", "OpenSSL", "cbor2", "leather", "segno", "unittest", "alembic", "psycopg"}


def test_an_idle_service_has_not_loaded_rarely_used_modules() -> None:
    script = "import sys, keyrack.cli.machine.serve; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert "keyrack.web.server" in loaded
    assert not NOT_AT_REST & set(loaded)
