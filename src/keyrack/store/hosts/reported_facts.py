"""Reads a host's facts from its row and leaves out those of a wrong shape, as no seal is over them and others may have
written them; must not know what a fact means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeGuard

from keyrack.model import OFFLINE_ACTIONS, OfflineAction

LAST_RUN = "seat"
"""The stored name of the fact about the agent's last run and those before it (core/hosts/copies.py)."""


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _are_logins(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(one, dict) and isinstance(one.get("keys") or {}, dict) for one in value.values()
    )


def _is_plan(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("revision"), int):
        return False
    sections = value.get("sections")
    return isinstance(sections, dict) and all(isinstance(lines, list) for lines in sections.values())


def _is_refusal(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("words"), str) and isinstance(value.get("count"), int)


def _is_run(value: Any) -> bool:
    if not isinstance(value, dict) or not all(isinstance(value.get(one, 0), int | float) for one in ("at", "starts")):
        return False
    return isinstance(value.get("before") or [], list) and isinstance(value.get("copy") or {}, dict)


def _is_machine(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    try:
        return value.get("at") is None or datetime.fromisoformat(value["at"]).tzinfo is not None
    except (TypeError, ValueError):
        return False


def is_port(value: object) -> TypeGuard[int]:
    """Whether this is a port number."""
    return type(value) is int and 1 <= value <= 65_535


_SHAPES: Mapping[str, Callable[[Any], bool]] = {
    "accounts": _is_object,
    "logins": _are_logins,
    "machine": _is_machine,
    "plan": _is_plan,
    "problems": _is_list,
    "refused": _is_refusal,
    LAST_RUN: _is_run,
    "ssh_port": is_port,
    "sshd": _is_object,
    "writers": _is_list,
}


def of(value: Any) -> dict[str, Any]:
    """The facts in a row's value, without those of a wrong shape; none if the value is no object."""
    if not isinstance(value, dict):
        return {}
    wrong = {name for name, is_one in _SHAPES.items() if value.get(name) is not None and not is_one(value[name])}
    return {name: fact for name, fact in value.items() if name not in wrong} if wrong else value


def offline(then: str) -> OfflineAction:
    """What a host does without Keyrack, by its server's row; "keep" for a word that Keyrack never writes."""
    return next((one for one in OFFLINE_ACTIONS if one == then), "keep")
