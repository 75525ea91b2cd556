"""The docs are true: settings, help, files, invariants and links; a page that lies fails the build."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from pkgutil import resolve_name

import pytest
from click import Context, Group

from keyrack.cli.main import COMMANDS, main
from keyrack.web.native.api import ENDPOINTS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SOURCE = ROOT / "src" / "keyrack"


def read(name: str) -> str:
    """A page of the project."""
    return (ROOT / name).read_text("utf-8")


def test_every_setting_is_described_as_it_is() -> None:
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "scripts" / "settings_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    words = "run: .venv/bin/python scripts/docs.py"
    assert read("docs/running.md").endswith(module.part()), words


def test_the_readme_shows_the_help_that_there_is() -> None:
    command = [sys.executable, "-c", "from keyrack.cli.main import main; main(prog_name='keyrack')", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert f"```\n{shown}```" in read("README.md")


@pytest.mark.parametrize("command", ["up", "serve", "apply"])
def test_help_answers(command: str) -> None:
    program = [sys.executable, "-m", "keyrack.cli.main", command, "--help"]
    shown = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "--data" in shown
    assert "KEYRACK_DATA" in shown


def test_commands_that_are_named_exist() -> None:
    commands = {name: resolve_name(where) for name, (where, _) in COMMANDS.items()}
    groups = {
        name: command.list_commands(Context(main))
        for name, command in commands.items()
        if isinstance(command, Group) and name != "leaver"  # which takes a person's name too
    }
    here = [page for page in PAGES if page.parent.name != "decisions" and page.name != "CHANGELOG.md"]
    for file in (*here, *SOURCE.rglob("*.py")):
        for group, name in re.findall(rf"`keyrack ({'|'.join(groups)}) ([a-z][a-z-]*)", file.read_text("utf-8")):
            assert name in groups[group], f"{file.name} names `keyrack {group} {name}`"


def _calls_of(cell: str) -> set[tuple[str, str]]:
    """The calls that a cell names, such as `PUT`, `DELETE /groups/{name}`, `…/{id}`; what is in braces is left out."""
    methods = set(re.findall(r"[`, ](GET|PUT|POST|PATCH|DELETE)\b", cell))
    paths: list[str] = []
    for span in re.findall(r"`([^`]+)`", re.sub(r"{[^}]*}", "{}", cell)):
        path = span.split(" ")[-1]
        if path.startswith("…"):
            paths += [base + path[1:] for base in (paths[0], paths[0].rpartition("/")[0])]
        elif path.startswith("/"):
            paths.append(path)
    return {(method, path) for method in methods for path in paths}


def test_every_call_of_keyracks_own_api_is_on_its_page() -> None:
    rows = [line.split(" | ")[0] for line in read("docs/api/keyrack.md").split("\n") if line.startswith("| `")]
    named = {call for cell in rows for call in _calls_of(cell)}
    for endpoint in ENDPOINTS:
        path = re.sub(r"{[^}]*}", "{}", endpoint.path)
        assert (endpoint.method, path) in named, f"docs/api/keyrack.md lacks {endpoint.method} {endpoint.path}"


def test_tests_that_the_threat_model_names_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", read("docs/threat-model.md"))
    assert len(named) > 30
    for file, name in named:
        assert f"def {name}(" in read(file), f"docs/threat-model.md names {file}::{name}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def _folders_of(table: str) -> set[str]:
    """The folders that a table names; what stands behind a line's first may be named as what is in that one."""
    found: set[str] = set()
    for line in table.split("\n"):
        names = re.findall(r"`((?:[\w<>]+/)+)`", line)
        found |= {below if (SOURCE / (below := names[0] + name)).is_dir() else name for name in names[1:]} | set(
            names[:1]
        )
    return found


def test_files_that_architecture_names_exist() -> None:
    text = read("ARCHITECTURE.md")
    table = text.split("## Folders")[1].split("\n## ")[0]
    there = {
        f"{path.relative_to(SOURCE)}/"
        for path in (*SOURCE.iterdir(), *SOURCE.glob("*/*"))
        if path.is_dir() and path.name != "__pycache__" and any(file.is_file() for file in path.iterdir())
    }
    assert _folders_of(table) == there, "ARCHITECTURE.md's map is not that of the folders"
    for line in table.split("\n"):
        if line.startswith("| `"):
            folder = line.split("`")[1]
            for name in re.findall(r"`(\w+\.py)`", line):
                base = SOURCE / folder if folder.endswith("/") else SOURCE
                assert (base / name).exists() or (SOURCE / name).exists(), f"{folder} has no {name}"
    elsewhere = text.replace(table, "")
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", elsewhere):
        bare = "/" not in name and any(SOURCE.rglob(name))
        assert bare or any((base / name).exists() for base in (SOURCE, ROOT)), name


def test_each_invariant_is_marked_where_it_is_enforced() -> None:
    code = "\n".join(file.read_text("utf-8") for file in (*SOURCE.rglob("*.py"), ROOT / "tests" / "test_layers.py"))
    claimed = re.findall(r"^(\d)\. ", read("ARCHITECTURE.md").split("## Invariants")[1], re.M)
    assert len(claimed) == 9
    for number in claimed:
        assert re.search(rf"[Ii]nvariant {number}\b", code), f"invariant {number} is marked nowhere"


def test_decisions_are_numbered_once_and_complete() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")]
    assert len(set(numbers)) == len(numbers)
    for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
        text = path.read_text("utf-8")
        for part in ("**Context.**", "**Decision.**", "**Consequences.**", "**Alternatives.**"):
            assert part in text, f"{path.name} lacks {part}"


def test_the_index_of_decisions_is_whole() -> None:
    index = read("docs/decisions/README.md")
    for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
        number, _, words = path.read_text("utf-8").split("\n", 1)[0].lstrip("# ").partition(". ")
        assert f"| [{number}]({path.name}) | {words} |" in index, f"docs/decisions/README.md lacks {path.name}"


def test_every_dependency_has_its_reason() -> None:
    wanted = tomllib.loads(read("pyproject.toml"))["project"]["dependencies"]
    reasons = read("docs/dependencies.md")
    for line in wanted:
        name = re.split(r"[\[>=]", line)[0]
        assert name in reasons, f"docs/dependencies.md gives no reason for {name}"


def test_no_file_names_the_machine_that_it_was_made_on() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.split("\n"):
        path = ROOT / name
        if not name or not path.is_file() or path.suffix in (".png", ".dat", ".jsonl", ".lock"):
            continue
        text = path.read_text("utf-8", errors="replace")
        for word in ("files.python" + "hosted", "pypi" + ".org"):
            assert word not in text, f"{name} holds {word}"
