"""Finds every key that sshd would take on this host, on every account and path that sshd names; it changes none.

A file is read as the account that it counts for, as sshd does it.
"""

from __future__ import annotations

import json
import os
import pwd
import stat
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

from keyrack.agent import as_account
from keyrack.agent.folder import unsafe_because
from keyrack.agent.sshd import Line, Sshd
from keyrack.ssh import authorized_keys
from keyrack.ssh.digest import sha256

EVERYBODY = "*"  # stands for all accounts, where one file counts for each of them
_USUAL = (".ssh/authorized_keys", ".ssh/authorized_keys2")
_NAMING_KEYS = ("authorizedkeysfile", "trustedusercakeys", "authorizedkeyscommand")
_LARGEST_FILE = 2 * 1024 * 1024
_MOST_ACCOUNTS = 500
_MOST_FOUND = 1500  # in one report, which the service reads up to a megabyte of

KEY, AUTHORITY, COMMAND, UNREADABLE = "key", "cert-authority", "command", "unreadable"


class Found(NamedTuple):
    """One thing that lets somebody in, or looks like it.

    kind: "key"; "cert-authority": whoever it certifies; "command": a program that names keys (path is its name);
    "unreadable": a file that could not be read. options: as written. problem: why sshd would ignore it.
    in_force: whether sshd reads this file for this account now; taken: it stood in a file of ours, and is gone.
    """

    username: str
    path: str
    kind: str
    line: int = 0
    type: str = ""
    fingerprint: str = ""
    key: str = ""
    options: str = ""
    comment: str = ""
    problem: str = ""
    in_force: bool = True
    taken: bool = False

    def to_json(self) -> Dict[str, Any]:
        """For a report."""
        return dict(self._asdict())


class _Place(NamedTuple):
    username: str
    path: str
    in_force: bool
    authorities: bool = False


class Scanner:
    """Looks again and again, and reads only what changed. `ours`: the folder whose files the agent writes."""

    def __init__(self, sshd: Sshd, ours: str) -> None:
        self._sshd = sshd
        self._ours = ours
        self._known: Tuple[object, ...] = ()
        self._places: List[_Place] = []
        self._commands: List[Found] = []
        self._read: Dict[str, Tuple[object, List[Found]]] = {}

    def scan(self, before: Sequence[str] = ()) -> List[Found]:
        """Everything found, in a fixed order. before: patterns that counted before the agent changed sshd's settings.

        Raises SshdProblem when sshd does not say what it reads.
        """
        state = (self._sshd.signature(), _stamp("/etc/passwd"), tuple(before))
        if state != self._known:
            self._commands = []
            self._places = self._find_places(before)
            self._known = state
        found = list(self._commands)
        for place in self._places:
            found += [one._replace(in_force=place.in_force and one.in_force) for one in self._look(place)]
        gone = set(self._read).difference(_key_of(place) for place in self._places)
        for key in gone:
            del self._read[key]
        return sorted(found)[:_MOST_FOUND]

    def _look(self, place: _Place) -> List[Found]:
        stamp = _stamp(place.path)
        known = self._read.get(_key_of(place))
        if known is not None and known[0] == stamp:
            return known[1]
        found = self._read_place(place) if stamp is not None else []
        self._read[_key_of(place)] = (stamp, found)
        return found

    def _read_place(self, place: _Place) -> List[Found]:
        try:
            data = read_as_reader(place.path, place.username)
        except (as_account.AccountProblem, OSError) as problem:
            words = problem.strerror if isinstance(problem, OSError) else str(problem)
            return [Found(place.username, place.path, UNREADABLE, problem=str(words))]
        found = []
        for line in authorized_keys.read(data):
            if line.fingerprint is None:
                continue
            authority = place.authorities or "cert-authority" in line.options.lower()
            found.append(
                Found(
                    place.username,
                    place.path,
                    AUTHORITY if authority else KEY,
                    line.line_number,
                    line.type,
                    line.fingerprint,
                    line.key,
                    line.options[:2000],
                    line.comment[:200],
                    line.problem or "",
                    line.problem is None,
                )
            )
        return found

    def _find_places(self, before: Sequence[str]) -> List[_Place]:
        """Every file that counts for somebody, and those that would if a rule applied or the agent left."""
        accounts = sorted(pwd.getpwall())[:_MOST_ACCOUNTS]
        lines = self._sshd.lines()
        single = _differs(lines)
        for_all = self._sshd.effective()
        written = [value for line in lines if line.keyword == "authorizedkeysfile" for value in line.values]
        others: Set[str] = {*written, *before, *_USUAL}
        places: Dict[Tuple[str, str], _Place] = {}
        for account in accounts:
            effective = self._sshd.effective(account.pw_name) if single else for_all
            for pattern in effective.one("authorizedkeysfile").split():
                self._place(places, account, pattern, True)
            for path in effective.all("trustedusercakeys"):
                if path not in ("", "none"):
                    places.setdefault((EVERYBODY, path), _Place(EVERYBODY, path, True, True))
            command = effective.one("authorizedkeyscommand")
            if command not in ("", "none"):
                self._commands.append(Found(account.pw_name if single else EVERYBODY, command, COMMAND))
            for pattern in sorted(others):
                self._place(places, account, pattern, False)
        self._commands = sorted(set(self._commands))
        return list(places.values())

    def _place(
        self, places: Dict[Tuple[str, str], _Place], account: pwd.struct_passwd, pattern: str, in_force: bool
    ) -> None:
        path = expand(pattern, account)
        if path is None or os.path.dirname(path) == self._ours:
            return
        username = EVERYBODY if pattern == path and "%" not in pattern else account.pw_name
        places.setdefault((username, path), _Place(username, path, in_force))


def _differs(lines: Iterable[Line]) -> bool:
    """Whether sshd may read other keys for one account than for another: else asking it once is enough."""
    for_some = False
    for line in lines:
        if line.keyword == "match":
            # Where a rule ends is not followed through included files: what comes after one may belong to it.
            for_some = for_some or [value.lower() for value in line.values] != ["all"]
        elif for_some and line.keyword in _NAMING_KEYS:
            return True
    return False


def expand(pattern: str, account: pwd.struct_passwd) -> Optional[str]:
    """The path that a pattern names for an account (sshd_config(5), TOKENS); None for "none"."""
    if pattern == "none":
        return None
    tokens = {"%": "%", "h": account.pw_dir, "u": account.pw_name, "U": str(account.pw_uid)}
    pieces = []
    at = 0
    while at < len(pattern):
        if pattern[at] == "%" and pattern[at + 1 : at + 2] in tokens:
            pieces.append(tokens[pattern[at + 1]])
            at += 2
        else:
            pieces.append(pattern[at])
            at += 1
    return os.path.join(account.pw_dir, "".join(pieces))


def planted(path: str, username: str, data: bytes, ours: Iterable[str]) -> List[Found]:
    """The keys that somebody put into a file of ours: those whose fingerprints are not `ours`."""
    known = set(ours)
    return [
        Found(
            username,
            path,
            KEY,
            line.line_number,
            line.type,
            line.fingerprint,
            line.key,
            line.options[:2000],
            line.comment[:200],
            "it was taken away: this file is Keyrack's",
            False,
            True,
        )
        for line in authorized_keys.read(data)
        if line.fingerprint is not None and line.fingerprint not in known
    ]


def read_as_reader(path: str, username: str) -> bytes:
    """A file's bytes, read as sshd reads it: as the account that logs in, so that no link leads it further than
    that account may look. Raises AccountProblem or OSError.
    """
    if username != EVERYBODY:
        try:
            account = pwd.getpwnam(username)
        except KeyError:
            raise as_account.AccountProblem(f"{username} is no account of this host") from None
        return as_account.run(account, lambda: _bytes(path))
    problem = unsafe_because(path)
    if problem is not None:
        raise as_account.AccountProblem(problem)
    return _bytes(path)


def digest(found: Iterable[Found]) -> str:
    """Two scans with the same digest found the same."""
    return sha256(json.dumps([one.to_json() for one in found]).encode()).hex()


def _bytes(path: str) -> bytes:
    # O_NONBLOCK: opening a pipe must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise as_account.AccountProblem("it is not a regular file")
        if status.st_size > _LARGEST_FILE:
            raise as_account.AccountProblem("it is larger than 2 MiB")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(_LARGEST_FILE)
    finally:
        os.close(descriptor)


def _stamp(path: str) -> Optional[Tuple[object, ...]]:
    """Changes with the file; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_uid)


def _key_of(place: _Place) -> str:
    return f"{place.username}\0{place.path}"
