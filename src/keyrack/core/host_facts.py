"""What a host tells of itself beyond the revision it obeys: settings, accounts, enforcing; must trust no word of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from keyrack.core.host_news import tell as _tell
from keyrack.core.work import Work
from keyrack.model import Server
from keyrack.ssh import names, public_key
from keyrack.store import servers

KEYWORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
MOST = 200
LONGEST = 300
ADOPT, ENFORCE, UNDONE = "adopt", "enforce", "undone"


def take(work: Work, server: Server, told: object, problems: Iterable[str] | None) -> dict[str, Any]:
    """The columns of a server that its agent's facts change; problems: what the same report says is not as asked,
    None: it does not say.

    Told facts replace those told before, field by field. Where enforcing was undone on the host, the server adopts
    again, until somebody asks anew: the host would not try again by itself.
    """
    facts = dict(server.facts)
    values: dict[str, Any] = {}
    if isinstance(told, Mapping):
        for name, read in (("sshd", _settings), ("accounts", _accounts)):
            if isinstance(told.get(name), Mapping):
                facts[name] = read(told[name])
        for name in ("enforcement", "undone", "scan"):
            facts.pop(name, None)
            word = told.get(name)
            if isinstance(word, str) and word:
                facts[name] = word[:LONGEST]
        if facts.get("scan") and facts["scan"] != server.facts.get("scan"):
            _tell(work, server, f"Server {server.name} does not see all keys: {facts['scan']}")
        if isinstance(told.get("accounts"), Mapping):
            _keep_deployment_keys(work, server, told["accounts"])
        if facts.get("enforcement") == UNDONE and server.mode == ENFORCE:
            values["mode"] = ADOPT
            work.touch(server.id)
            reason = facts.get("undone", "no reason given")
            _tell(work, server, f"Enforcing was undone on server {server.name}: {reason}")
    words = None if problems is None else list(problems)
    if words is not None and words != facts.get("problems", []):
        facts["problems"] = words
        if words:
            _tell(work, server, f"Server {server.name} says: {'; '.join(words)}")
    return {**values, "facts": facts} if facts != dict(server.facts) or values else {}


def _settings(told: Mapping[str, Any]) -> dict[str, str]:
    return {
        keyword: value[:LONGEST]
        for keyword, value in list(told.items())[:MOST]
        if KEYWORD.fullmatch(str(keyword)) and isinstance(value, str)
    }


def _accounts(told: Mapping[str, Any]) -> dict[str, dict[str, bool]]:
    """Which accounts are there; their deployment keys are kept with the system users."""
    return {
        name: {"exists": account.get("exists") is True}
        for name, account in list(told.items())[:MOST]
        if isinstance(name, str) and names.username_problem(name) is None and isinstance(account, Mapping)
    }


def _keep_deployment_keys(work: Work, server: Server, told: Mapping[str, Any]) -> None:
    for name, account in list(told.items())[:MOST]:
        line = _key(account) if isinstance(account, Mapping) else None
        user = None if line is None else servers.system_user_by_name(work.connection, server.id, name)
        if user is not None and user.deployment_key != line:
            servers.change_system_user(work.connection, user.id, {"deployment_key": line})
            _tell(work, server, f"Server {server.name} has a deployment key for {name}")


def _key(account: Mapping[str, Any]) -> str | None:
    """Invariant 1: what a host calls its key is one only if the strict parser says so."""
    line = account.get("deployment_key")
    if not isinstance(line, str):
        return None
    try:
        return public_key.parse(line).canonical
    except public_key.KeyProblem:
        return None
