"""Reads what this host's own administrator decided, which overrides every document; must never guess it."""

from __future__ import annotations

import contextlib
from typing import NamedTuple, Optional, Tuple

from keyrack.agent.state import StateFolder, StateProblem
from keyrack.protocol.host_document import HostDocument
from keyrack.ssh import names

FILE = "local.json"
_LAST_GOOD = "local-last-good.json"


class Local(NamedTuple):
    """The file local.json in the agent's state folder, which enrolment writes and administrators may edit.

    allow_accounts: the service may create and remove accounts; only: the accounts that it may decide about, None for
    all; drop_in: the file for sshd's settings, None where the agent must not change them; trial_seconds: how long
    enforcing stays on trial; chain_keys_command: while enforcing, sshd's own AuthorizedKeysCommand still lets people
    in, except with revoked keys; boot_seconds: how long sshd waits at boot for the service's first answer.
    """

    allow_accounts: bool = False
    only: Optional[Tuple[str, ...]] = None
    drop_in: Optional[str] = None
    trial_seconds: float = 60.0
    chain_keys_command: bool = False
    boot_seconds: float = 15.0

    def speaks_for(self, username: str) -> bool:
        """Whether the service may say who logs in as this account."""
        return self.only is None or username in self.only

    def allowed(self, document: HostDocument) -> HostDocument:
        """A document without the accounts that the service may not speak for here."""
        users = {name: entries for name, entries in document.users.items() if self.speaks_for(name)}
        return document._replace(users=users)


class Decided(NamedTuple):
    """The decisions that count. problem: why local.json cannot be used and the last good one counts, in words."""

    local: Local
    problem: str = ""


def read(state: StateFolder) -> Local:
    """The decisions that count; the defaults, which allow least, where there is no file. Raises StateProblem where the
    file cannot be used and there is no earlier one.
    """
    return read_with_problem(state).local


def read_with_problem(state: StateFolder) -> Decided:
    """The decisions of the file, or, where it cannot be used, those of the last good one. Raises StateProblem where
    there is neither.

    An agent that stopped because of a broken file would no longer remove revoked keys.
    """
    try:
        return Decided(_read(state, FILE))
    except StateProblem as problem:
        last = _last_good(state)
        if last is None:
            raise
        return Decided(last, f"{problem}; until it is mended and the agent starts again, what it said before counts")


def remember(state: StateFolder) -> Decided:
    """The same as read_with_problem(), and save a good file as the last good one. For the running agent only."""
    decided = read_with_problem(state)
    if not decided.problem:
        with contextlib.suppress(OSError):
            if _last_good(state) != decided.local:
                state.save(_LAST_GOOD, decided.local._asdict())
    return decided


def _last_good(state: StateFolder) -> Optional[Local]:
    try:
        return _read(state, _LAST_GOOD) if state.has(_LAST_GOOD) else None
    except StateProblem:
        return None


def _read(state: StateFolder, name: str) -> Local:
    fields = state.load(name)
    if fields is None:
        return Local()
    only, allow, drop_in = fields.get("only"), fields.get("allow_accounts", False), fields.get("drop_in")
    listed = isinstance(only, list) and all(isinstance(name, str) for name in only)
    trial = fields.get("trial_seconds", 60.0)
    if type(trial) not in (int, float) or not 1 <= trial <= 3600:
        raise StateProblem(f"{state.folder.path}/{name}: trial_seconds is a number from 1 to 3600")
    if not isinstance(allow, bool) or not (only is None or listed) or not (drop_in is None or isinstance(drop_in, str)):
        raise StateProblem(f"{state.folder.path}/{name} is not as it must be; see the agent's page in the manual")
    chain = fields.get("chain_keys_command", False)
    if not isinstance(chain, bool):
        raise StateProblem(f"{state.folder.path}/{name}: chain_keys_command is true or false")
    boot = fields.get("boot_seconds", 15.0)
    if type(boot) not in (int, float) or not 0 <= boot <= 60:
        raise StateProblem(f"{state.folder.path}/{name}: boot_seconds is a number from 0 to 60")
    return Local(allow, None if only is None else tuple(only), drop_in, float(trial), chain, float(boot))


def write(state: StateFolder, local: Local) -> None:
    """Save the decisions. May raise OSError."""
    state.save(FILE, local._asdict())
    state.save(_LAST_GOOD, local._asdict())


def account_names(text: Optional[str]) -> Optional[Tuple[str, ...]]:
    """The names in a comma-separated list; None for no text. Raises ValueError for one that no account can have."""
    if not text:
        return None
    accounts = tuple(name.strip() for name in text.split(","))
    for name in accounts:
        if names.account_problem(name) is not None:
            raise ValueError(f"{name!r} cannot be the name of an account")
    return accounts
