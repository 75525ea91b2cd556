"""ARCHITECTURE.md's path of one request is the path that a request takes, file by file."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import keyrack
from tests.core.keys_for_tests import fresh_line
from tests.services import running, settings_for
from tests.web.runcloud_team import Agent

SOURCE = Path(keyrack.__file__).parent
PAGE = Path(__file__).parents[2] / "ARCHITECTURE.md"
# They also serve what comes before: the token is looked up, and its rights.
EARLIER = {"store/database.py", "store/sealing/sealed.py", "policy.py", "core/work.py", "ssh/public_key.py"}


@contextmanager
def files_called() -> Iterator[list[str]]:
    """The files of the service whose functions are called by any thread that begins within, each once, in order."""
    called: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        tidying = threading.current_thread().name == "tidy"  # it comes every few seconds, whatever is asked
        if event == "call" and name.startswith(f"{SOURCE}/") and not tidying:
            path = name.removeprefix(f"{SOURCE}/")
            if path not in called:
                called.append(path)

    before = threading.getprofile()
    threading.setprofile(note)
    try:
        yield called
    finally:
        threading.setprofile(before)


def test_a_request_takes_the_path_on_the_page(team_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(team_folder, tmp_path / "data")
    with files_called() as called, running(settings_for(tmp_path / "data", "")) as service:
        agent = Agent(service, 1)
        called.clear()
        body = {"label": "laptop", "username": "deploy", "publicKey": fresh_line("laptop")}
        added = service.call("POST", "/api/v3/servers/1/ssh/credentials", token="token-of-olga", json=body)
        assert added.status_code == 200
        on_the_way = list(called)
        agent.obey()
    text = PAGE.read_text("utf-8").split("## The path of one request")[1].split("\n## ")[0]
    steps = [re.findall(r"`((?:\w+/)*\w+\.py)`", step) for step in re.split(r"^\d+\. ", text, flags=re.M)[1:]]
    named = list(dict.fromkeys(name for step in steps for name in step if not name.startswith("agent/")))
    assert len(named) > 15
    assert not set(named) - set(called), "the page names files that the request does not come by"
    until_the_answer = dict.fromkeys(name for step in steps[:6] for name in step if name not in EARLIER)
    assert [name for name in on_the_way if name in until_the_answer] == list(until_the_answer)
