"""What this host's own administrator decided: stronger than anything a document says; it is read, never guessed."""

from __future__ import annotations

import contextlib
from typing import NamedTuple, Optional, Tuple

from keyrack.agent.state import StateFolder, StateProblem
from keyrack.protocol.host_document import HostDocument
from keyrack.ssh import names

FILE = "local.json"
_LAST_GOOD = "local-last-good.json"


class Local(NamedTuple):
    """The file local.json in the agent's folder, made at enrolment and free to be edited.

    allow_accounts: accounts may be created and removed; only: the accounts that the service may speak for, None:
    all; drop_in: the file for sshd's settings, None: sshd's settings are left alone; trial_seconds: how long
    enforcing is watched before it counts as safe; chain_keys_command: while enforcing, whoever sshd's own
    AuthorizedKeysCommand names is let in too, but for revoked keys; boot_seconds: how long sshd waits at boot for the
    service's first answer.
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
    """The decisions that count; problem: words where those of the file cannot, and the last good ones do."""

    local: Local
    problem: str = ""


def read(state: StateFolder) -> Local:
    """The decisions that count; the most careful ones where nothing was decided. Raises StateProblem for none."""
    return read_with_problem(state).local


def read_with_problem(state: StateFolder) -> Decided:
    """The decisions of the file, or, where it cannot be used, the last that could. Raises StateProblem for none.

    An agent that stopped here would take no key away any more, and nobody is told at night what to mend.
    """
    try:
        return Decided(_read(state, FILE))
    except StateProblem as problem:
        last = _last_good(state)
        if last is None:
            raise
        return Decided(last, f"{problem}; until it is mended and the agent starts again, what it said before counts")


def remember(state: StateFolder) -> Decided:
    """As read_with_problem(), and keep what the file says for when it cannot be read. For the agent that runs."""
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
    """Keep the decisions. May raise OSError."""
    state.save(FILE, local._asdict())
    state.save(_LAST_GOOD, local._asdict())


def account_names(text: Optional[str]) -> Optional[Tuple[str, ...]]:
    """Names with commas between them; None for no text. Raises ValueError for what cannot be an account's name."""
    if not text:
        return None
    accounts = tuple(name.strip() for name in text.split(","))
    for name in accounts:
        if names.account_problem(name) is not None:
            raise ValueError(f"{name!r} cannot be the name of an account")
    return accounts
