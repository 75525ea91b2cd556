"""What programs make of the description of Keyrack's own API: a client that works, and requests drawn by lot that find
no fault.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.services import Service

LONG = bool(os.environ.get("KEYRACK_LONG"))
OWN = "/api/keyrack/v1"
LONGEST = 3600 if LONG else 280
"""Seconds, also on a busy machine: a hundred examples of each call take many minutes."""
PROGRAMS = Path(sys.executable).parent
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture
def description(team: Service, tmp_path: Path) -> Path:
    """The description of Keyrack's own API as a file; the others' are held by their transcripts."""
    described = team.call("GET", "/openapi.json").json()
    described["paths"] = {path: calls for path, calls in described["paths"].items() if path.startswith(OWN)}
    shapes = described["components"]["schemas"]
    described["components"]["schemas"] = {name: one for name, one in shapes.items() if name.startswith("native.")}
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(described), "utf-8")
    return file


def run(folder: Path, program: str, *words: str) -> str:
    """Run a program as the package index has it; answers what it said."""
    environment = {**os.environ, "HOME": str(folder), "NO_COLOR": "1", "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / program), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def client(team: Service, description: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls of a client that was generated from the description: by name, with what each takes."""
    words = ("generate", "--path", str(description), "--output-path", str(tmp_path / "made_client"), "--meta", "none")
    said = run(tmp_path, "openapi-python-client", *words)
    assert "WARNING" not in said, said
    monkeypatch.syspath_prepend(str(tmp_path))
    called = importlib.import_module("made_client").AuthenticatedClient(
        base_url=team.url, token="token-of-olga", verify_ssl=False
    )

    def call(name: str, *path: str, **more: Any) -> Any:
        module = importlib.import_module(f"made_client.api.native.native_api_keyrack_v1_{name}")
        answer = module.sync_detailed(*path, client=called, **more)
        return answer.parsed if answer.parsed is not None else int(answer.status_code)

    yield call
    called.get_httpx_client().close()
    for name in [one for one in sys.modules if one.partition(".")[0] == "made_client"]:
        del sys.modules[name]


def test_a_generated_client_gives_and_takes_back_access(client: Any) -> None:
    models = importlib.import_module("made_client.models")
    group = client("put_group", "ops", body=models.NativeGroupChange(members=["alice"]))
    assert group.members == ["alice"]
    wanted = models.NativeNewGrant(system_user="deploy", group="ops", server="web-1", expires_at="12h", reason="a test")
    given = client("give_grant", body=wanted)
    assert (given.group, given.server, given.note) == ("ops", "web-1", None)
    assert given.expires_at > given.created_at
    assert [one.id for one in client("list_grants", cursor="").items] == [given.id]
    mistaken = client("give_grant", body=models.NativeNewGrant(system_user="deploy", user="nobody", server="web-1"))
    assert (mistaken.error.code, mistaken.error.field) == ("user-missing", "user")
    assert "GET /people" in mistaken.error.hint
    assert client("take_back_grant", str(given.id)) == 204
    assert client("list_grants").total == 0


@pytest.mark.timeout(LONGEST + 20)
@pytest.mark.parametrize("token", ["token-of-olga", "token-of-alice"])
def test_requests_drawn_by_lot_find_no_fault(team: Service, description: Path, tmp_path: Path, token: str) -> None:
    """An answer with another status, type or shape than described, or one of 500, is a fault."""
    # A member is refused most of it, so that one of each says as much.
    few = "2" if token == "token-of-olga" else "1"
    phases, most = ("examples,coverage,fuzzing", "100") if LONG else ("fuzzing", few)
    run(
        tmp_path,
        "st",
        *("run", str(description), "--url", team.url, "-H", f"Authorization: Bearer {token}", "--checks", CHECKS),
        *("--phases", phases, "--max-examples", most, "--seed", "20", "--continue-on-failure", "--warnings", "off"),
        *("--suppress-health-check", "all", "--request-timeout", "60"),
    )
