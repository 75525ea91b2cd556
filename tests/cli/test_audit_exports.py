"""`keyrack audit verify --export` says of whatever it is given what it is, in words, and takes what an editor adds."""

from __future__ import annotations

import gzip
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from keyrack.cli.main import main
from keyrack.core.audit import verify_export


@pytest.fixture(scope="module")
def data(team_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the team in it."""
    folder = tmp_path_factory.mktemp("exported") / "data"
    subprocess.run(["cp", "-r", str(team_folder), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def whole(data: Path) -> bytes:
    """An export of its log."""
    file = data.parent / "log.jsonl"
    assert CliRunner().invoke(main, ["audit", "export", str(file), "--data", str(data)]).exit_code == 0
    return file.read_bytes()


def verify(data: Path, file: Path | str, given: bytes | None = None) -> Result:
    words = ["audit", "verify", "--export", str(file), "--data", str(data)]
    ended = CliRunner().invoke(main, words, input=given)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended


def lines(whole: bytes, end: bytes = b"\n") -> list[bytes]:
    return [line + end for line in whole.splitlines()]


AS_IT_WAS: dict[str, Callable[[bytes], bytes]] = {
    "a byte order mark": lambda whole: b"\xef\xbb\xbf" + whole,
    "carriage returns": lambda whole: b"".join(lines(whole, b"\r\n")),
    "no newline at the end": lambda whole: whole.rstrip(b"\n"),
}
ALTERED: dict[str, Callable[[bytes], bytes]] = {
    "no export of an audit log: it is empty": lambda whole: b"",
    "gzip -dc FILE": gzip.compress,
    "it is UTF-16": lambda whole: whole.decode().encode("utf-16"),
    "it is a database": lambda whole: b"SQLite format 3\0" + bytes(100),
    "the export was cut in line": lambda whole: whole[:-60],
    "on are missing: the export was cut": lambda whole: b"".join(lines(whole)[:4]),
    "was inserted: the log ends before it": lambda whole: whole + whole,
    "line 4 was altered: it is not UTF-8": lambda whole: b"".join(
        [*lines(whole)[:3], lines(whole)[3].replace(b"summary", b"summ\xffry"), *lines(whole)[4:]]
    ),
    "line 3 is longer than any of an export": lambda whole: (
        b"".join(lines(whole)[:2]) + b'{"' + b"x" * verify_export.LONGEST_LINE + b'": 1}\n'
    ),
    "line 2 is not of an export": lambda whole: b"".join(line for line in lines(whole) for _ in (1, 2)),
    "line 1 is not the first line of an export": lambda whole: b"".join(reversed(lines(whole))),
    "was reordered": lambda whole: b"".join([lines(whole)[0], lines(whole)[2], lines(whole)[1], *lines(whole)[3:]]),
}


@pytest.mark.parametrize("what", AS_IT_WAS)
def test_an_export_with_what_an_editor_adds_still_verifies(data: Path, whole: bytes, tmp_path: Path, what: str) -> None:
    file = tmp_path / "log"
    file.write_bytes(AS_IT_WAS[what](whole))
    ended = verify(data, file)
    assert (ended.exit_code, "The audit log is as it was" in ended.output) == (0, True), ended.output
    assert verify(data, "-", file.read_bytes()).exit_code == 0


@pytest.mark.parametrize("words", ALTERED)
def test_an_export_that_is_cut_or_altered_is_refused_in_words(
    data: Path, whole: bytes, tmp_path: Path, words: str
) -> None:
    file = tmp_path / "log"
    file.write_bytes(ALTERED[words](whole))
    ended = verify(data, file)
    assert (ended.exit_code, words in ended.output) == (1, True), ended.output
    assert verify(data, "-", file.read_bytes()).exit_code == 1


def test_a_folder_is_a_wrong_use_and_a_pipe_is_read(data: Path, whole: bytes, tmp_path: Path) -> None:
    assert verify(data, tmp_path).exit_code == 2
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_bytes, args=(whole,))
    writing.start()
    assert verify(data, pipe).exit_code == 0
    writing.join()
