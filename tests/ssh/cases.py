"""Reads the case files of tests/data, and makes keys with the tools that users have."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "data"


@lru_cache
def cases(name: str) -> list[dict[str, Any]]:
    """The records of a file in tests/data."""
    with open(DATA / name, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def case_input(case: dict[str, Any]) -> Any:
    """What a record would have somebody send; a long text is stored as a recipe."""
    if "input_gen" not in case:
        return case["input"]
    return "".join(part[1] if part[0] == "lit" else part[1] * part[2] for part in case["input_gen"])


def value_of(case: dict[str, Any]) -> Any:
    """The value of a record in names.jsonl or values.jsonl."""
    value = case["value"]
    if isinstance(value, dict) and "gen" in value:
        return "".join(part[1] if part[0] == "lit" else part[1] * part[2] for part in value["gen"])
    return value


def ssh_keygen(*arguments: str | Path, data: bytes = b"") -> str:
    """What ssh-keygen prints; raises CalledProcessError when it fails."""
    command: Sequence[str | Path] = ["ssh-keygen", *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout.decode()


def make_key(folder: Path, name: str, *arguments: str) -> tuple[Path, str]:
    """A new pair: the path of the private half and the line of the public one."""
    path = folder / name
    ssh_keygen("-q", "-N", "", "-C", "maker@test", "-f", path, *arguments)
    return path, path.with_name(f"{name}.pub").read_text().rstrip("\n")


def text_line(key_type: str, *fields: bytes) -> str:
    """A line of a .pub file with these fields after the type."""
    blob = b"".join(len(field).to_bytes(4, "big") + field for field in (key_type.encode(), *fields))
    return f"{key_type} {base64.b64encode(blob).decode()}"


def mpint(value: int) -> bytes:
    """A number above zero as in RFC 4251, without its length."""
    return value.to_bytes(value.bit_length() // 8 + 1, "big")
