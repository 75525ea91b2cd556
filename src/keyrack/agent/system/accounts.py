"""Creates and removes accounts of this host as a document asks, where its administrator allows that; never others.

It removes only accounts that it created itself. An account that was there before is left as it is, and the home of
a removed account stays, because its files are not Keyrack's. A password's hash goes to chpasswd through its standard
input, since every account can read arguments.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import threading
from typing import Any, Dict, List, Mapping, Tuple

from keyrack.agent.state import StateFolder, StateProblem
from keyrack.agent.system import as_account, lookup, programs, threads
from keyrack.agent.system.local import Local
from keyrack.protocol.host_document import DesiredAccount
from keyrack.ssh import names
from keyrack.ssh.digest import sha256

NOTE = "accounts.json"
_SHELLS = ("/bin/bash", "/bin/sh")
_KEY_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")  # which git and ssh use by default

KEY_PAIR_WAIT_SECONDS = 0.3  # how long the main loop waits for a key pair

NOT_ALLOWED = "this host does not let the service create or change accounts; allow it in local.json, or do it by hand"


class _Making(threading.Thread):
    """Makes one account's key pair. key and problem may be read only when the thread has ended."""

    def __init__(self, account: pwd.struct_passwd) -> None:
        super().__init__(name="key pair", daemon=True)
        self._account = account
        self.key = ""
        self.problem = ""

    def run(self) -> None:
        """Make the key pair."""
        try:
            self.key = deployment_key(self._account)
        except (as_account.AccountProblem, OSError) as problem:
            self.problem = str(problem)


class Accounts:
    """The accounts that the document in force speaks of."""

    def __init__(self, state: StateFolder, local: Local) -> None:
        self._state_folder = state
        self._local = local
        self._damage = ""
        noted: Dict[str, Any] = {}
        try:
            noted = state.load(NOTE) or {}
        except StateProblem as problem:
            # Keys of the document still come into force.
            self._damage = f"accounts are left alone: {problem}"
        created, passwords = noted.get("created"), noted.get("passwords")
        self._created: List[str] = [str(name) for name in created] if isinstance(created, list) else []
        self._passwords: Dict[str, str] = dict(passwords) if isinstance(passwords, dict) else {}
        # The user ids of created accounts: one of the same name that is made by hand mostly gets another id.
        numbers = noted.get("numbers")
        self._numbers: Dict[str, int] = dict(numbers) if isinstance(numbers, dict) else {}
        # Names that a directory service had once, even if it does not answer for them now.
        elsewhere = noted.get("elsewhere")
        self._elsewhere: List[str] = [str(name) for name in elsewhere] if isinstance(elsewhere, list) else []
        self._keys: Dict[str, str] = {}
        self._refused: Dict[str, str] = {}
        self._making: Dict[str, _Making] = {}

    @property
    def waiting(self) -> bool:
        """Whether key pairs are being made."""
        return bool(self._making)

    def put(self, wanted: Mapping[str, DesiredAccount]) -> List[str]:
        """Create, change and remove accounts as wanted. Answers in words what was not done. May raise OSError for the
        agent's folder.
        """
        self._refused = {}
        if not self._damage:
            self._remember(wanted)
        for name, account in sorted(wanted.items()):
            problem = self._not_allowed(name, account) or self._damage
            if not problem and self._local.allow_accounts:
                try:
                    problem = self._put_one(name, account) if account.present else self._remove(name)
                except KeyError:  # a directory service stopped answering meanwhile
                    problem = lookup.absence(name)
            if problem:
                self._refused[name] = problem
        return list(dict.fromkeys(self._refused.values()))

    def _not_allowed(self, name: str, account: DesiredAccount) -> str:
        """Why this host's administrator does not allow what is wanted for an account; empty where it is allowed."""
        if not self._local.allow_accounts:
            if account.present and not lookup.exists(name):
                return self._not_made(name) or NOT_ALLOWED
            asked = account.present != lookup.exists(name) or account.password_hash or account.deployment_key
            return NOT_ALLOWED if asked else ""
        if not self._local.speaks_for(name):
            return f"this host does not let the service speak for the account {name}"
        return ""

    def _remember(self, wanted: Mapping[str, DesiredAccount]) -> None:
        """Remember which of these accounts come from a directory service, for when it does not answer."""
        names = (name for name in wanted if name not in self._elsewhere and name not in self._created)
        new = [name for name in names if lookup.exists(name) and lookup.is_of_a_directory(name)]
        if new:
            self._elsewhere += new
            self._note(self._created, self._passwords)

    def _not_made(self, name: str) -> str:
        """Why an account that does not exist now must not be created here; empty where it may be. A directory service
        may have it, and a local account would hide that one for good.
        """
        if name in self._elsewhere:
            return (
                f"the account {name} is a directory's, which does not know it now or does not answer, so none is made "
                "here; make it by hand where it is to be this host's own"
            )
        if lookup.is_unanswered(name):
            return f"the account {name} is not made: {lookup.absence(name)}"
        return ""

    def facts(self, wanted: Mapping[str, DesiredAccount]) -> Dict[str, Dict[str, Any]]:
        """What a report has of the wanted accounts: by name, exists, refused (words) and deployment_key."""
        facts: Dict[str, Dict[str, Any]] = {}
        for name in wanted:
            facts[name] = {"exists": lookup.exists(name)}
            if name in self._refused:
                facts[name]["refused"] = self._refused[name]
            if name in self._keys:
                facts[name]["deployment_key"] = self._keys[name]
        return facts

    def _put_one(self, name: str, account: DesiredAccount) -> str:
        if not lookup.exists(name):
            problem = self._not_made(name) or self._create(name)
            if problem:
                return problem
        if account.password_hash is not None:
            problem = self._set_password(name, account.password_hash)
            if problem:
                return problem
        if account.deployment_key and name not in self._keys:
            return self._make_key(name)
        return ""

    def _make_key(self, name: str) -> str:
        """Have the account make its key pair on a thread, as the account can make that slow. Answers why it failed."""
        making = self._making.get(name)
        if making is None:
            making = _Making(pwd.getpwnam(name))
            threads.begin(making)
            self._making[name] = making
        making.join(KEY_PAIR_WAIT_SECONDS)
        if making.is_alive():
            return ""
        del self._making[name]
        if making.problem:
            return f"no key pair could be made for {name}: {making.problem}"
        self._keys[name] = making.key
        return ""

    def _create(self, name: str) -> str:
        problem = names.username_problem(name)
        if problem is not None:
            return f"this host has no account {name}, and none of that name is made: {problem}"
        shell = next((path for path in _SHELLS if os.path.exists(path)), "/bin/sh")
        # A new account has neither the password nor the key pair of the former one of its name.
        self._keys.pop(name, None)
        self._numbers.pop(name, None)
        passwords = {other: mark for other, mark in self._passwords.items() if other != name}
        # Saved first: an account that a killed agent created may be removed later.
        self._note([*(other for other in self._created if other != name), name], passwords)
        # "*": no password fits, and unlike "!" it does not make sshd take the account for locked (sshd(8)).
        problem = _run(["useradd", "-m", "-s", shell, "-p", "*", "--", name])
        if problem:
            self._note([other for other in self._created if other != name], self._passwords)
            return f"the account {name} could not be created: {problem}"
        self._numbers[name] = pwd.getpwnam(name).pw_uid
        self._note(self._created, self._passwords)
        return ""

    def _set_password(self, name: str, hashed: str) -> str:
        # Once for each new hash: a user who changes their password later keeps it.
        mark = sha256(f"{name}:{hashed}".encode()).hex()
        if self._passwords.get(name) == mark:
            return ""
        if not self._has_created(name) and pwd.getpwnam(name).pw_uid == 0:
            return f"the password of {name} is not the service's to set"
        problem = _run(["chpasswd", "-e"], f"{name}:{hashed}\n".encode("ascii"))
        if problem:
            return f"the password of {name} could not be set: {problem}"
        self._note(self._created, {**self._passwords, name: mark})
        return ""

    def _remove(self, name: str) -> str:
        exists = lookup.exists(name)
        if exists and not self._has_created(name):
            return f"the account {name} was not made by Keyrack, so it stays; remove it by hand"
        if exists:
            problem = _run(["userdel", "--", name])
            if problem:
                return f"the account {name} could not be removed: {problem}"
        elif name not in self._created:
            return ""
        # Also where somebody else removed it: a later account of this name is not Keyrack's.
        self._keys.pop(name, None)
        self._numbers.pop(name, None)
        others = {other: mark for other, mark in self._passwords.items() if other != name}
        self._note([other for other in self._created if other != name], others)
        return ""

    def _has_created(self, name: str) -> bool:
        """Whether the account of this name is the one that this agent created."""
        return name in self._created and self._numbers.get(name) in (None, pwd.getpwnam(name).pw_uid)

    def _note(self, created: List[str], passwords: Dict[str, str]) -> None:
        noted = {"created": created, "passwords": passwords, "elsewhere": self._elsewhere, "numbers": self._numbers}
        self._state_folder.save(NOTE, noted)
        self._created, self._passwords = created, passwords


def deployment_key(account: pwd.struct_passwd) -> str:
    """The public key of the account's own key pair, which is made now if it has none. Raises AccountProblem.

    It is made with the account's rights; the private key never leaves its home.
    """
    ssh_keygen = programs.find("ssh-keygen")
    if ssh_keygen is None:
        raise as_account.AccountProblem("ssh-keygen was not found")
    program = ssh_keygen

    def make() -> bytes:
        folder = os.path.join(account.pw_dir, ".ssh")
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
        for name in _KEY_NAMES:
            public = os.path.join(folder, f"{name}.pub")
            if os.path.exists(public):
                return _first_line(public)
        path = os.path.join(folder, _KEY_NAMES[0])
        given = [program, "-q", "-t", "ed25519", "-N", "", "-C", account.pw_name, "-f", path]
        ended = subprocess.run(given, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if ended.returncode != 0:
            raise as_account.AccountProblem(ended.stderr.decode("utf-8", "replace")[:200])
        return _first_line(f"{path}.pub")

    return as_account.run(account, make).decode("utf-8", "replace")


def _first_line(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.readline(16384).strip()


def _run(arguments: List[str], stdin: bytes = b"") -> str:
    program = programs.find(arguments[0])
    if program is None:
        return f"{arguments[0]} was not found"
    ended = programs.run([program, *arguments[1:]], stdin=stdin, seconds=60.0)
    return "" if ended.status == 0 else " ".join((ended.errors or ended.output).split())[:200] or "it failed"


def noted(state: StateFolder) -> Tuple[str, ...]:
    """The accounts that this agent created."""
    created = (state.load(NOTE) or {}).get("created")
    return tuple(str(name) for name in created) if isinstance(created, list) else ()
