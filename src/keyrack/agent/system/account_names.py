"""Names the accounts of this host, also those that the system does not list; it reads no file of theirs.

An account that is not listed may still exist: a directory service (SSSD, LDAP, winbind) answers for a name and need not
list its names.
"""

from __future__ import annotations

import contextlib
import functools
import grp
import itertools
import os
import pwd
import re
import time
import zlib
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from keyrack.agent.keys import account_tasks
from keyrack.agent.sshd.settings_text import SettingLine, criteria
from keyrack.agent.system.mounts import Mounts
from keyrack.protocol.words import count
from keyrack.ssh.names import account_problem

SECONDS = 20.0
HOMES_SECONDS = 10.0  # of these, for one folder of homes
_NAMED_SECONDS = 8.0  # of these, for accounts known only by name: first those asked for, then those of groups and files
_LANE = -4  # the queue of this module's tasks (account_tasks.py); those of folders of homes are below it
_FIRST_OF_PEOPLE = 1000
_MAX_HOMES = 20_000
_MAX_OWNERLESS = 1000
_MAX_HOMES_ELSEWHERE = 200
_MAX_SHOWN = 5  # problems that are named one by one
_NOBODY = -1  # a user id that no account has
_LARGEST_FILE = 1 << 22
_MAX_DOMAINS = 100
_FILES_OF_ACCOUNTS = ("authorizedkeysfile", "authorizedprincipalsfile")
_EACH = {"%u": "(?P<u>.+)", "%U": "(?P<U>[0-9]{1,10})"}
_NSSWITCH = ("/etc/nsswitch.conf", "/usr/etc/nsswitch.conf")  # the second is openSUSE's
_NO_SHELLS = ("nologin", "false")
_LISTED = ("files", "compat", "systemd", "altfiles", "db")


class LocalAccount(NamedTuple):
    """An account, with the fields of the module pwd."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str

    @property
    def may_log_in(self) -> bool:
        """Whether its shell is not one that ends every login."""
        return os.path.basename(self.shell) not in _NO_SHELLS


class AccountList(NamedTuple):
    """The accounts of this host. accounts: root first, then those that can log in; ownerless: homes whose owner is
    unknown now; problem: why accounts may be missing, in words; empty where all are listed.
    """

    accounts: Tuple[LocalAccount, ...] = ()
    ownerless: Tuple[str, ...] = ()
    problem: str = ""


def find(names: Iterable[str], lines: Iterable[SettingLine]) -> AccountList:
    """All accounts that the system lists, that own a home, or that are named: by `names`, by sshd's settings (`lines`)
    or in a group.

    Where the system does not answer in time, the list is empty and its problem says so.
    """
    lines = list(lines)
    by_files, numbers, problems = _named_by_files(lines)
    asked, groups = sorted({*names, *named(lines)}), sorted(groups_named(lines))
    ask = functools.partial(_ask, asked, groups, sorted(by_files), numbers)
    task = account_tasks.Task(os.geteuid(), os.getegid(), "", ask, lane=_LANE)
    (answer,) = account_tasks.run([task], one=SECONDS, everything=SECONDS)
    if answer.problem or not isinstance(answer.value, dict):
        return AccountList(problem=f"this host does not say which accounts it has: {answer.problem}")
    accounts = {str(one[0]): LocalAccount(*one) for one in answer.value["accounts"]}
    if answer.value["late"]:
        problems.append("this host takes long to say which accounts it has, and was not asked for all names")
    sources = directories("passwd")
    if sources:
        problems.append(f"this host has accounts which cannot be listed (nsswitch.conf: {', '.join(sources)})")
    ownerless, silent = _add_owners_of_homes(accounts)
    more = [f"and {len(silent) - _MAX_SHOWN} more"] if len(silent) > _MAX_SHOWN else []
    problems += silent[:_MAX_SHOWN] + more
    order = sorted(accounts.values(), key=lambda one: (one.uid != 0, not one.may_log_in, one.name))
    return AccountList(tuple(order), tuple(ownerless), "; ".join(problems))


def _named_by_files(lines: Iterable[SettingLine]) -> Tuple[Set[str], List[int], List[str]]:
    """Account names and user ids by which files are named in folders of key files (AuthorizedKeysFile
    /etc/ssh/keys/%u), as a directory service's account may have no home; and which folders did not answer, in words.
    """
    patterns = {value for line in lines if line.keyword in _FILES_OF_ACCOUNTS for value in line.values}
    folders = sorted({place for place in map(_folder_of_accounts, patterns) if place is not None})
    mounts = Mounts()
    tasks = [
        account_tasks.Task(
            os.geteuid(), os.getegid(), "", functools.partial(_entries, folder), mounts.may_hang(folder), _lane(folder)
        )
        for folder, _ in folders
    ]
    names: Set[str] = set()
    numbers: Set[int] = set()
    silent: List[str] = []
    answers = account_tasks.run(tasks, one=HOMES_SECONDS, everything=SECONDS)
    for (folder, entry), answer in zip(folders, answers):  # noqa: B905 - not in Python 3.9
        if answer.problem:
            silent.append(f"the files in {folder} were not listed: {answer.problem}")
            continue
        if len(answer.value) > _MAX_HOMES:
            silent.append(f"there are more than {_MAX_HOMES} files in {folder}")
        for match in (re.fullmatch(entry, text, re.DOTALL) for text in answer.value):
            fields = match.groupdict() if match else {}
            if fields.get("u") and account_problem(fields["u"]) is None:
                names.add(fields["u"])
            elif fields.get("U"):
                numbers.add(int(fields["U"]))
    return names, sorted(numbers), silent


def _folder_of_accounts(pattern: str) -> Optional[Tuple[str, str]]:
    """The folder in which a pattern has an entry for each account, and a regular expression for the entry; None where
    there is no such folder.
    """
    parts = pattern.split("/")
    number = next((number for number, part in enumerate(parts) if re.search("%[uU]", part.replace("%%", ""))), None)
    folder = "/".join(parts[: number or 0])
    if number is None or not folder.startswith("/") or "%h" in pattern.replace("%%", ""):
        return None
    entry, seen = "", set()
    for piece in re.findall(r"%.|[^%]+|%", parts[number]):
        if piece not in _EACH:
            entry += re.escape("%" if piece == "%%" else piece)
        elif piece in seen:
            entry += f"(?P={piece[1:]})"
        else:
            entry += _EACH[piece]
        seen.add(piece)
    return folder.replace("%%", "%"), entry


def _entries(folder: str) -> List[str]:
    """The names in a folder. Called in a child process, as the folder may not answer."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in itertools.islice(entries, _MAX_HOMES + 1) if entry.name.isprintable()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _add_owners_of_homes(accounts: Dict[str, LocalAccount]) -> Tuple[List[str], List[str]]:
    """Add the accounts that own a home or have a home's name. Answers the homes whose owner is unknown, and which
    folders did not answer, in words.
    """
    mounts = Mounts()
    homes = {one.home.rstrip("/") for one in accounts.values()}
    names, numbers = set(accounts), {one.uid for one in accounts.values()}
    folders = {"/home", *(os.path.dirname(one.home) for one in accounts.values() if one.uid >= _FIRST_OF_PEOPLE)}
    waiting = places = sorted(folders)
    ownerless: List[str] = []
    silent: List[str] = []
    while waiting:
        several = waiting is places
        scans = [functools.partial(_owners, one, several, folders, homes, names, numbers, mounts) for one in waiting]
        tasks = [
            account_tasks.Task(os.geteuid(), os.getegid(), "", scan, mounts.may_hang(folder), _lane(folder))
            for folder, scan in zip(waiting, scans)  # noqa: B905 - not in Python 3.9
        ]
        answers = account_tasks.run(tasks, one=HOMES_SECONDS, everything=SECONDS)
        apart: List[str] = []
        for folder, answer in zip(waiting, answers):  # noqa: B905 - not in Python 3.9
            if answer.problem:
                silent.append(f"the homes in {folder} were not listed: {answer.problem}")
                continue
            for one in answer.value["accounts"]:
                accounts.setdefault(str(one[0]), LocalAccount(*one))
            ownerless += answer.value["ownerless"]
            apart += answer.value["apart"]
            silent += answer.value["missed"]
        # Each in a task of its own: one that does not answer must not hide the others.
        waiting = [path for path in apart if path not in folders]
        if len(waiting) > _MAX_HOMES_ELSEWHERE:
            homes_left = count(len(waiting) - _MAX_HOMES_ELSEWHERE, "home")
            silent.append(f"{homes_left} on file systems of their own were not looked at")
            del waiting[_MAX_HOMES_ELSEWHERE:]
        folders |= {*waiting}
    return ownerless[:_MAX_OWNERLESS], silent


def _lane(folder: str) -> int:
    return _LANE - 1 - zlib.crc32(os.fsencode(folder))


def named(lines: Iterable[SettingLine]) -> Set[str]:
    """The accounts that sshd's settings name without wildcards, also those that a rule excludes (!)."""
    accounts: Set[str] = set()
    for line in lines:
        values: List[str] = []
        if line.keyword in ("allowusers", "denyusers"):
            # sshd_config(5): after the last @ stands an address; an account's name may contain another @ before it.
            whole = [value.lstrip("!") for value in line.values]
            values = [name for value in whole for name in (value, value.rpartition("@")[0])]
        elif line.keyword == "match":
            asked = (value for keyword, value in criteria(line.values) if keyword == "user")
            values = [name.lstrip("!") for value in asked for name in value.split(",")]
        accounts.update(value for value in values if account_problem(value) is None)
    return accounts


def groups_named(lines: Iterable[SettingLine]) -> Set[str]:
    """The groups that sshd's settings name without wildcards."""
    groups: Set[str] = set()
    for line in lines:
        if line.keyword in ("allowgroups", "denygroups"):
            groups.update(line.values)
        elif line.keyword == "match":
            asked = (value for keyword, value in criteria(line.values) if keyword == "group")
            groups.update(name for value in asked for name in value.split(","))
    return {name for name in groups if name and not set(name) & set("*?!")}


def _ask(names: Sequence[str], groups: Sequence[str], by_files: Sequence[str], numbers: Sequence[int]) -> Any:
    """The accounts that the system lists, and those of these names, groups and user ids. Called in a child process, as
    a directory service may not answer.
    """
    known: Dict[str, pwd.struct_passwd] = {one.pw_name: one for one in pwd.getpwall()}
    until = time.monotonic() + _NAMED_SECONDS
    for name in names:
        # A slow directory service must not lose what is known by now.
        if name not in known and time.monotonic() < until:
            _note(known, lambda name=name: pwd.getpwnam(name))
    late = time.monotonic() >= until
    until = time.monotonic() + _NAMED_SECONDS
    for name in (*_members(groups), *by_files):
        if name not in known and time.monotonic() < until:
            _note(known, lambda name=name: pwd.getpwnam(name))
    listed = {one.pw_uid for one in known.values()}
    for number in numbers:
        if number not in listed and time.monotonic() < until:
            _note(known, lambda number=number: pwd.getpwuid(number))
    return {"accounts": _as_json(known), "late": late or time.monotonic() >= until}


def _as_json(known: Mapping[str, pwd.struct_passwd]) -> List[List[Any]]:
    return [[one.pw_name, one.pw_uid, one.pw_gid, one.pw_dir, one.pw_shell] for one in known.values()]


def _owners(
    folder: str,
    several: bool,
    folders: Set[str],
    homes: Set[str],
    names: Set[str],
    numbers: Set[int],
    mounts: Mounts,
) -> Any:
    """The owners of a folder's homes, and of those in its folders of domains. Called in a child process, as it may not
    answer.

    several: the folder is known to hold homes, whoever owns it (a network file system may misreport its owner); else it
    may be a home itself. homes, names, numbers: of known accounts; folders: all that are scanned. Answers accounts,
    ownerless (homes whose owner is unknown), apart (folders to scan in tasks of their own, each possibly a home) and
    missed (what was not seen, in words).
    """
    accounts: Dict[str, pwd.struct_passwd] = {}
    numbers = set(numbers)
    ownerless: List[str] = []
    strangers: Set[int] = set()
    apart: List[str] = []
    missed: List[str] = []

    def has_owner(path: str, owner: int) -> None:
        if owner not in numbers and owner not in strangers:
            is_known = _note(accounts, lambda: pwd.getpwuid(owner))
            (numbers if is_known else strangers).add(owner)
        if owner in strangers:
            ownerless.append(path)

    itself = os.lstat(folder).st_uid if mounts.may_hang(folder) else 0
    if itself != 0:
        has_owner(folder, itself)
    for place in sorted({folder, *_of_domains(folder, homes, mounts)}) if several or itself == 0 else ():
        for name, owner in _homes(place, homes, mounts, missed):
            path = os.path.join(place, name)
            if path in folders:
                continue
            if name not in names and name not in accounts and account_problem(name) is None:
                _note(accounts, lambda name=name: pwd.getpwnam(name))
            if owner is not None:
                has_owner(path, owner)
            elif path not in homes and path not in {one.pw_dir for one in accounts.values()}:
                apart.append(path)
    return {
        "accounts": _as_json(accounts),
        "ownerless": ownerless[:_MAX_OWNERLESS],
        "apart": apart[:_MAX_OWNERLESS],
        "missed": missed,
    }


def _members(groups: Sequence[str]) -> List[str]:
    """The members of all groups in this host's own /etc/group, where an administrator may put a directory service's
    account, and of these groups. Other groups of a directory service are not listed: that may take long.
    """
    members: Dict[str, None] = {}
    with contextlib.suppress(OSError), open("/etc/group", encoding="utf-8", errors="replace") as file:
        for line in file.read(_LARGEST_FILE).split("\n"):
            members.update(dict.fromkeys(line.rpartition(":")[2].split(",")))
    for group in groups:
        try:
            members.update(dict.fromkeys(grp.getgrnam(group).gr_mem))
        except (KeyError, OSError):
            continue
    return [name for name in members if account_problem(name) is None]


def _of_domains(folder: str, homes: Set[str], mounts: Mounts) -> Set[str]:
    """Folders of root's in a folder of homes: they are no homes, but may hold a domain's homes (SSSD: /home/%d/%u,
    winbind: /home/%D/%U). Links are not followed: their targets may not answer.
    """
    inside = (os.path.join(folder, name) for name, owner in _homes(folder, homes, mounts, []) if owner == 0)
    return set(itertools.islice((path for path in inside if not os.path.islink(path)), _MAX_DOMAINS))


def _note(known: Dict[str, pwd.struct_passwd], ask: Any) -> bool:
    try:
        account = ask()
    except (KeyError, OSError):
        return False
    known.setdefault(account.pw_name, account)
    return True


def _homes(folder: str, known: Set[str], mounts: Mounts, missed: List[str]) -> List[Tuple[str, Optional[int]]]:
    """The names of homes in a folder, each with its owner's user id. Folders such as / have none. A home may be a link,
    which is not followed.

    The owner is None, as it is not asked for, where the home is known already, or lies on a file system of its own that
    may hang and would hide the other homes. It is _NOBODY where it cannot be read. missed: a list that gets what was
    not seen, in words.
    """
    if folder in ("", "/", "/usr", "/var", "/etc", "/run", "/dev", "/proc", "/sys"):
        return []
    homes: List[Tuple[str, Optional[int]]] = []
    silent = mounts.may_hang(folder)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if len(homes) >= _MAX_HOMES:
                    missed.append(f"there are more than {_MAX_HOMES} homes in {folder}")
                    break
                if not entry.name.startswith(".") and (entry.is_symlink() or entry.is_dir(follow_symlinks=False)):
                    quiet = entry.path in known or (not silent and mounts.may_hang(entry.path))
                    homes.append((entry.name, None if quiet else _owner(entry)))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as problem:
        # An agent that does not run as root need not know the owners of others' homes.
        if os.geteuid() == 0:
            missed.append(f"the homes in {folder} were not all listed: {problem.strerror}")
    return [one for one in homes if one[1] != 0 or one[0] != "lost+found"]


def _owner(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat(follow_symlinks=False).st_uid
    except FileNotFoundError:
        return 0  # removed meanwhile
    except OSError:
        return _NOBODY  # the other homes must still be seen


def directories(database: str) -> List[str]:
    """The directory services that this host asks for accounts or groups beside its own files. database: "passwd",
    "group" or "shadow", as in nsswitch.conf.
    """
    text = ""
    for path in _NSSWITCH:
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 16)
            break
    for line in text.split("\n"):
        keyword, _, sources = line.partition("#")[0].partition(":")
        if keyword.strip() == database:
            sources = re.sub(r"\[[^]]*\]", " ", sources)
            return sorted({source for source in sources.split() if source not in _LISTED})
    return []
