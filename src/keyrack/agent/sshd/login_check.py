"""Judges whether a key of a document would really let somebody log in, and says which rule prevents it.

What is checked, for each account and then for each of its keys:
(1) the account exists, has not expired, is not locked for sshd or by nologin(5), need not change its password first,
    and its shell is there and lets one work;
(2) sshd's own settings for it (`sshd -T -C user=…`) allow public keys, the account, its groups, root where it is root,
    a login with nothing beside a key, and sessions; sshd takes its ChrootDirectory; and sshd can read Keyrack's file
    with the account's rights (file_access.py);
(3) the key (key_check.py): sshd takes its type, size and options, its end has not come, neither the document nor a list
    of this host revokes it, and a login can come from where it may be used (`from`).
Not checked: the network beyond that, and what PAM's modules do.

It changes nothing. Enforcing, `plan`, `doctor` and reports all use this one judgement.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
import time
from typing import Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from keyrack.agent.keys import account_tasks
from keyrack.agent.sshd import file_access, key_check, places, revoked_list
from keyrack.agent.sshd.listening import Listener
from keyrack.agent.sshd.login_verdict import NO_RECENT_LOGINS, OpenPlaces, RecentLogins, Verdict
from keyrack.agent.sshd.places import Place
from keyrack.agent.sshd.settings import Effective, Sshd, SshdProblem, SshdSilent
from keyrack.agent.sshd.settings_text import PLACE_CRITERIA, match_keywords, matched_sources
from keyrack.agent.system import account_names, file_stamp, lookup, programs
from keyrack.agent.system.mounts import may_hang
from keyrack.protocol.host_document import AuthorizedKey, HostDocument

_NO_LOGIN = ("nologin", "false", "true", "sync", "halt", "shutdown", "reboot", "poweroff")  # shells that end at once
_ACCOUNT_FILES = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/shells", "/etc/nsswitch.conf")
_NOLOGIN_FILES = ("/etc/nologin", "/run/nologin")
_PROGRAM = re.compile(r"/[A-Za-z0-9/._-]+")  # a path in which a shell would see nothing else
_DAY = 86400
_DATABASES, _DIRECTORY_SECONDS = ("passwd", "group", "shadow"), 600
_USERS = ("allowusers", "denyusers")
_LANE = -3  # the queue of this module's tasks (account_tasks.py)
_UNANSWERED = "does not answer"
# Below a Match, sshd takes RevokedKeys "none" for the name of a file in its working folder, /.
_ANYWHERE = Place(places.ASKING, places.ASKING)


class _Judged(NamedTuple):
    """What is known of an account. exists: whether there is such an account; why: the rule that keeps everybody out,
    from any address or from some only; everywhere: the same, from every address; no_key: the rule by which sshd takes
    no key at all for it. All in words, empty where there is no such rule.

    answers: sshd's settings for logins from usual addresses, this host first; open: its settings for each address that
    is not kept out; near: the address of this host from which sshd takes a key, "" for any that questions come from
    (places.ASKING), None for none.
    """

    exists: bool
    why: str
    everywhere: str
    no_key: str
    answers: Tuple[Effective, ...]
    open: Tuple[Effective, ...]
    near: Optional[str]


class LoginCheck:
    """Judges accounts and keys again and again, and asks sshd and the system only where something changed."""

    def __init__(self, sshd: Sshd, keys_folder: Optional[str] = None) -> None:
        """keys_folder: the folder of Keyrack's key files; None: do not check whether sshd can read them."""
        self._sshd = sshd
        self._keys_folder = keys_folder
        self._state: Tuple[object, ...] = ()
        self._accounts: Dict[str, _Judged] = {}
        self._lists: Dict[str, bool] = {}  # files of revoked keys: whether sshd could read them

    def verdicts(
        self, document: HostDocument, config: Optional[str] = None, recent: RecentLogins = NO_RECENT_LOGINS
    ) -> List[Verdict]:
        """A verdict for each account that has a key in the document. config: another settings file to judge by; recent:
        the recent logins.

        Raises SshdProblem when sshd does not answer.
        """
        users = {name: keys for name, keys in sorted(document.users.items()) if keys}
        if self._keys_folder is None:
            return self.judge(users, document.revoked, config, recent=recent)
        unreadable = file_access.hindrances(self._keys_folder)
        return self.judge(users, document.revoked, config, beside=lambda name, _: unreadable(name), recent=recent)

    def judge(
        self,
        users: Mapping[str, Sequence[AuthorizedKey]],
        revoked: Iterable[str],
        config: Optional[str] = None,
        *,
        everywhere: bool = False,
        beside: Optional[Callable[[str, Effective], str]] = None,
        recent: RecentLogins = NO_RECENT_LOGINS,
    ) -> List[Verdict]:
        """A verdict for each of these accounts and their keys; accounts may have no keys. revoked: keys that this host
        refuses; config, recent: as for verdicts().

        everywhere: ignore rules that keep out logins from some addresses only. beside: a function that says, for an
        account and sshd's settings for it, what else would keep everybody out; empty for nothing.
        """
        accounts = self._judged(users, config)
        refused = set(revoked)
        verdicts = []
        asked: Optional[_Answers] = None
        for name, keys in users.items():
            judged = accounts[name]
            why = judged.everywhere if everywhere else judged.why
            answers = judged.open if everywhere and judged.open else judged.answers
            if beside is not None and not why:
                whys = [beside(name, answer) for answer in answers]
                why = next(filter(None, whys), "") if not everywhere or all(whys) else ""
                # Judge keys only by the settings where nothing else keeps everybody out.
                answers = tuple(one for one, also in zip(answers, whys) if why or not also)  # noqa: B905 - Python 3.9
            named = {key_check.sources(key) for key in keys if key.options} - {""}
            sources, seen = dict.fromkeys(named, OpenPlaces((), why)), OpenPlaces((), why)
            if not why and (named or recent.addresses):
                asked = asked or _Answers(self._sshd, config)
                sources = {text: _open_places(name, asked.of(name, text), text, beside) for text in named}
                seen = _open_places(name, asked.from_addresses(name, recent.addresses), None, beside)
            version = self._sshd.running.version
            verdicts.append(
                Verdict(name, why, keys, answers, refused, everywhere, version=version, sources=sources, seen=seen)
            )
        return verdicts

    def key_problem(self, name: str) -> str:
        """Why sshd takes no key for this account, in words; empty where it does, even if the login then fails. Raises
        SshdProblem.
        """
        return self._judged([name], None)[name].no_key

    def effective(self, name: str) -> Effective:
        """sshd's settings for this account. Raises SshdProblem."""
        return self._judged([name], None)[name].answers[0]

    def near(self, name: str) -> Optional[str]:
        """The address of this host from which sshd takes a key for the account; "" for any that questions come from
        (places.ASKING), None for none. Raises SshdProblem.
        """
        return self._judged([name], None)[name].near

    def _judged(self, names: Iterable[str], config: Optional[str]) -> Mapping[str, _Judged]:
        if config is not None:
            known: Dict[str, _Judged] = {}
        else:
            stamps = [file_stamp.stamp(path) for path in (*_ACCOUNT_FILES, *_NOLOGIN_FILES)]
            # A changed file shows by its stamp; a directory service does not announce changes.
            asks_others = any(map(account_names.directories, _DATABASES))
            lasts = _DIRECTORY_SECONDS if asks_others else _DAY
            state = (self._sshd.signature(), self._sshd.running.arguments(), int(time.time() // lasts), *stamps)
            changed = [path for path, readable in self._lists.items() if readable != revoked_list.is_readable(path)]
            if state != self._state or changed:
                self._state, self._accounts, self._lists = state, {}, {}
            known = self._accounts
            for name in [name for name, one in known.items() if _UNANSWERED in one.why]:
                del known[name]
            if asks_others:  # a directory service may have been away, or be away now
                for name in [name for name, one in known.items() if one.exists != lookup.exists(name)]:
                    del known[name]
        missing = [name for name in names if name not in known]
        if missing:
            asked = _Answers(self._sshd, config)
            for name in missing:
                known[name] = _judge(name, asked.of(name))
                for answer in known[name].answers if config is None else ():
                    path = answer.one("revokedkeys")
                    self._lists.setdefault(path, revoked_list.is_readable(path))
        return known


class _Answers:
    """sshd's settings for accounts; it is asked no more often than its Match rules require."""

    def __init__(self, sshd: Sshd, config: Optional[str]) -> None:
        self._sshd = sshd
        self._config = config
        self._lines = sshd.lines() if config is None else Sshd(config).lines()
        words = match_keywords(self._lines)
        self._single = bool(words - {"all"})
        self._by_place = bool(words & set(PLACE_CRITERIA))
        self._by_ends = bool(words & {"localaddress", "localport"})
        self._named = matched_sources(self._lines)
        self._may_mean_a_file = revoked_list.none_may_mean_a_file(self._lines)
        self._all: Optional[Effective] = None

    def of(self, name: str, sources: str = "") -> List[Tuple[Place, Effective]]:
        """sshd's settings for an account: for a login from this host first, then for each address that rules tell
        apart. sources: a list of further addresses to ask about (the option `from`).
        """
        users = [after for before, after in map(_parts, self._users()) if after and places.like(before, name)]
        if not self._by_place and not users and not sources:
            return [(_ANYWHERE, self._asked(name, None))]
        named, more = [*self._named, *users], [sources] if sources else []
        return self._of_places(
            name, places.ways_in(self._listeners(), named, more, by_ends=self._by_ends, names_hosts=self._names_hosts())
        )

    def from_addresses(self, name: str, addresses: Sequence[str]) -> List[Tuple[Place, Effective]]:
        """sshd's settings for an account, for logins from these addresses."""
        if not addresses:
            return []
        return self._of_places(
            name,
            places.from_addresses(self._listeners(), addresses, by_ends=self._by_ends, names_hosts=self._names_hosts()),
        )

    def _of_places(self, name: str, reached: Iterable[Place]) -> List[Tuple[Place, Effective]]:
        known: Dict[Tuple[object, ...], Effective] = {}
        answers = []
        for place in reached:
            kind = places.match_key(self._named, place) if self._by_place else ()
            if kind not in known:
                known[kind] = self._asked(name, place if self._by_place else None)
            answers.append((place, known[kind]))
        return answers

    def _listeners(self) -> Sequence[Listener]:
        return self._sshd.listeners() or self._sshd.configured()

    def _names_hosts(self) -> bool:
        return self._sshd.names_hosts(self._config)

    def _asked(self, name: str, place: Optional[Place]) -> Effective:
        if self._single:
            try:
                effective = self._sshd.effective(name, self._config, place)
                if not self._may_mean_a_file:
                    return effective
                return revoked_list.with_its_file(
                    effective, lambda given: self._sshd.effective(name, self._config, place, given)
                )
            except SshdSilent:
                raise
            except SshdProblem as problem:
                # Valid settings may be invalid for one account: sshd then breaks off its connections (auth2.c).
                return self._sshd.effective(None, self._config).broken(str(problem))
        if self._all is None:
            self._all = self._sshd.effective(None, self._config)
        return self._all

    def _users(self) -> Iterator[str]:
        return (value for line in self._lines if line.keyword in _USERS for value in line.values)


def _judge(name: str, answers: Sequence[Tuple[Place, Effective]]) -> _Judged:
    """Judge one account by sshd's settings for it, for logins from several addresses."""
    usual = tuple(dict.fromkeys(effective for place, effective in answers if place.usual))
    account = lookup.account(name)  # (1)
    if account is None:
        why = lookup.absence(name)
        return _Judged(False, why, why, why, usual, (), None)
    rules = _Rules(account, name)
    no_key = next(filter(None, (rules.no_key(one, None) for one in usual)), "")
    why = no_key or next(filter(None, (rules.no_session(one) for one in usual)), "")
    # Parallel to answers: why sshd takes no key from there, and why a login from there fails.
    no_keys = [rules.no_key(one, place) for place, one in answers]
    whys = [none or rules.no_session(one) for none, (_, one) in zip(no_keys, answers)]  # noqa: B905 - Python 3.9
    everywhere = whys[0] if all(whys) else ""
    free = [pair for pair, ends in zip(answers, whys) if not ends]  # noqa: B905 - Python 3.9
    return _Judged(
        True,
        why or everywhere,
        everywhere,
        no_key or (no_keys[0] if all(no_keys) else ""),
        usual,
        tuple(dict.fromkeys(effective for _, effective in free)),
        places.near_among(place for none, (place, _) in zip(no_keys, answers) if not none),  # noqa: B905 - Python 3.9
    )


class _Rules:
    """The rules that keep everybody out of one account, by sshd's settings; remembered for each settings."""

    def __init__(self, account: pwd.struct_passwd, name: str) -> None:
        self._account = account
        self._name = name
        self._no_keys: Dict[Effective, str] = {}
        self._no_sessions: Dict[Effective, str] = {}

    def no_key(self, effective: Effective, place: Optional[Place]) -> str:
        """Why sshd takes no key for it, by checks (1) and (2), in words; empty where it does. place: where the login
        comes from; None: from any address that AllowUsers and DenyUsers let in.
        """
        if effective not in self._no_keys:
            self._no_keys[effective] = _no_key(self._name, self._account, effective)
        return self._no_keys[effective] or _users_problem(self._account, effective, place)

    def no_session(self, effective: Effective) -> str:
        """Why a login fails although sshd took the key, by checks (1) and (2), in words; empty where it does not."""
        if effective not in self._no_sessions:
            self._no_sessions[effective] = _no_session(self._account, effective)
        return self._no_sessions[effective]


def _open_places(
    name: str,
    answers: Sequence[Tuple[Place, Effective]],
    sources: Optional[str],
    beside: Optional[Callable[[str, Effective], str]],
) -> OpenPlaces:
    """The ways in to an account from these addresses; sources: a list of `from`, to take only those that it names."""
    account = lookup.account(name)
    if account is None:
        return OpenPlaces((), lookup.absence(name))
    rules, others = _Rules(account, name), {}
    open_places: List[Tuple[Place, Effective]] = []
    why = f"nobody can come to where sshd listens from where it may be used (from={sources})" if sources else ""
    named = [(place, effective) for place, effective in answers if sources is None or places.may_name(sources, place)]
    whys = []
    for place, effective in named:
        if beside is not None and effective not in others:
            others[effective] = beside(name, effective)
        closed = rules.no_key(effective, place) or rules.no_session(effective) or others.get(effective, "")
        if closed:
            whys.append(closed)
        else:
            open_places.append((place, effective))
    closing = next(iter(whys), why)
    if sources and whys:
        closing = f"{closing}, from where it may be used (from={sources})"
    return OpenPlaces(tuple(open_places), closing if not open_places else next(iter(whys), ""))


def _no_key(name: str, account: pwd.struct_passwd, effective: Effective) -> str:
    if account.pw_name != name:
        # A directory service may find it by several names, or ignore case; sshd reads the file of its own name (%u).
        return f"this host knows it as {account.pw_name}: give the key to that account"
    return (
        _shell_problem(account, effective)  # (1)
        or _shadow_problem(name, effective, pam=False)  # (1)
        or _sshd_problem(account, effective)  # (2)
    )


def _no_session(account: pwd.struct_passwd, effective: Effective) -> str:
    if effective.one("maxsessions") == "0":  # (2)
        return "sshd lets nobody do anything there (MaxSessions 0)"
    return (
        _nologin_problem(account)  # (1)
        or _shadow_problem(account.pw_name, effective, pam=True)  # (1)
        or _chroot_problem(account, effective)  # (2)
    )


def _shell_problem(account: pwd.struct_passwd, effective: Effective) -> str:
    shell = account.pw_shell or "/bin/sh"
    # auth.c, allowed_user: sshd refuses an account whose shell is missing, but with ChrootDirectory it does not check.
    is_shut_in = effective.one("chrootdirectory") not in ("", "none")
    if not is_shut_in and not (os.path.isfile(shell) and os.access(shell, os.X_OK)):
        return f"its shell {shell} is not there, or cannot be run"
    forced = effective.one("forcecommand")
    if forced.startswith("internal-sftp"):
        return ""
    # The account's shell runs the forced command.
    if _ends_at_once(shell):
        return f"its shell {shell} ends every login at once"
    first = forced.split(" ")[0] if forced not in ("", "none") else shell
    if _ends_at_once(first):
        return f"ForceCommand {first} ends every login at once"
    if _PROGRAM.fullmatch(first) and not is_shut_in and not os.path.exists(first):
        return f"ForceCommand {first} is not there"
    return ""


def _ends_at_once(program: str) -> bool:
    """Whether a program is one of _NO_LOGIN, by its name or by that of the file it links to."""
    return bool({os.path.basename(program), os.path.basename(os.path.realpath(program))} & set(_NO_LOGIN))


def _shadow_problem(name: str, effective: Effective, *, pam: bool) -> str:
    """Why an account's shadow entry prevents a login, in words; empty where it does not. Its fields (shadow(5)): name,
    password, last change, minimum, maximum, warning, inactive, expire.

    pam: True for the rules that PAM applies after the key was taken (pam_unix(8)), False for sshd's own before it.
    """
    if pam != (effective.one("usepam") == "yes"):
        return ""
    fields = _shadow(name)
    if fields is None:
        if pam and os.geteuid() == 0 and programs.find("getent") is not None and _is_in_shadow_alone(name):
            return "it has no entry in /etc/shadow, where /etc/passwd says that its password is (pwck finds such)"
        return ""
    today = int(time.time() // _DAY)
    # sshd(8): without PAM an account is locked when its password begins with "!".
    if fields[1].startswith("!") and not pam:
        return "it is locked (its password begins with !), and sshd without PAM refuses it; usermod -p '*' unlocks it"
    changed, longest, inactive, expires = (_number(fields[at]) for at in (2, 4, 6, 7))
    # pam_unix counts the day itself, sshd does not.
    if expires is not None and (today >= expires if pam else today > expires):
        return "it has expired (chage -E -1 ends that)"
    if not pam or changed is None:
        return ""
    if changed == 0:
        return "its password must be changed before it can be used (chage -d)"
    if longest is None or today - changed < longest:
        return ""
    if today - changed == longest:
        # Nothing says which PAM this is.
        return "this is its password's last day, which Linux-PAM from 1.6 on takes for past (chage -M -1 ends that)"
    if inactive is not None and today - changed > longest + inactive:
        return "its password has been out of date for too long (chage -I)"
    return "its password is out of date, and must be changed before it can be used (chage -M -1 ends that)"


def _chroot_problem(account: pwd.struct_passwd, effective: Effective) -> str:
    """Why sshd does not take the account's ChrootDirectory: only root may be able to change it, and it must exist
    (sshd(8)). Empty where sshd takes it or none is set.
    """
    path = effective.one("chrootdirectory")
    if path in ("", "none") or os.geteuid() != 0:
        return ""
    known = {"%%": "%", "%h": account.pw_dir, "%u": account.pw_name, "%U": str(account.pw_uid)}
    path = re.sub("%[%huU]", lambda match: known[match.group()], path)
    is_inside = effective.one("forcecommand").startswith("internal-sftp")
    shell = "" if is_inside else account.pw_shell or "/bin/sh"
    if not may_hang(path):
        return _folder_problem(path, shell)
    # In a child process: it may hang.
    task = account_tasks.Task(0, 0, "root", lambda: _folder_problem(path, shell), may_hang=True, lane=_LANE)
    (answer,) = account_tasks.run([task])
    if answer.problem:
        return f"its ChrootDirectory {path} {_UNANSWERED}: {answer.problem}"
    return str(answer.value)


def _folder_problem(path: str, shell: str) -> str:
    """Why a folder cannot be a ChrootDirectory, in words. shell: the program that must exist in it; empty for none."""
    parts = [part for part in path.split("/") if part]
    for count in range(len(parts) + 1):
        folder = "/" + "/".join(parts[:count])
        try:
            status = os.stat(folder)
        except OSError as error:
            return f"its ChrootDirectory {path} cannot be used: {folder}: {error.strerror}"
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
            return f"its ChrootDirectory {path} cannot be used: {folder} is not root's alone to change"
    if not shell or os.path.lexists(path + shell):
        return ""
    return f"its shell {shell} is not there below its ChrootDirectory {path}"


def _nologin_problem(account: pwd.struct_passwd) -> str:
    if account.pw_uid == 0:
        return ""
    return next((f"{path} lets root alone log in" for path in _NOLOGIN_FILES if os.path.exists(path)), "")


def _sshd_problem(account: pwd.struct_passwd, effective: Effective) -> str:
    if effective.problem:
        return f"sshd breaks off its logins: {effective.problem}"
    if effective.one("maxauthtries") == "0":
        return "MaxAuthTries 0"
    if effective.one("refuseconnection") == "yes":
        return "RefuseConnection yes"
    if effective.one("pubkeyauthentication") == "no":
        return "PubkeyAuthentication no"
    methods = effective.one("authenticationmethods").split()
    if methods and methods != ["any"] and "publickey" not in methods:
        return f"AuthenticationMethods {' '.join(methods)}: a key alone is not enough"
    if account.pw_uid == 0 and effective.one("permitrootlogin") == "no":
        return "PermitRootLogin no"
    return revoked_list.unreadable(effective.one("revokedkeys"))


def _users_problem(account: pwd.struct_passwd, effective: Effective, place: Optional[Place]) -> str:
    """Which of sshd's lists of users and groups refuses an account; empty where none does. Part of check (2)."""
    denied = _first_match(effective.all("denyusers"), account.pw_name, place, otherwise=False)
    if denied:
        return f"DenyUsers {denied}"
    allowed = effective.all("allowusers")
    if allowed and not _first_match(allowed, account.pw_name, place, otherwise=True):
        return f"AllowUsers {' '.join(allowed)}: only others"
    denied_groups, allowed_groups = effective.all("denygroups"), effective.all("allowgroups")
    if denied_groups or allowed_groups:
        groups = _groups(account)
        for pattern in denied_groups:
            if any(places.like(pattern, group) for group in groups):
                return f"DenyGroups {pattern}"
        if allowed_groups and not any(places.like(pattern, group) for pattern in allowed_groups for group in groups):
            return f"AllowGroups {' '.join(allowed_groups)}: no group of it"
    return ""


def _first_match(patterns: Sequence[str], name: str, place: Optional[Place], *, otherwise: bool) -> str:
    """The first pattern of AllowUsers or DenyUsers that matches an account, empty where none does. otherwise: whether a
    pattern with an address matches where `place` is None.
    """
    for pattern in patterns:
        user, where = _parts(pattern)
        if places.like(user, name) and (not where or (places.names(where, place) if place else otherwise)):
            return pattern
    return ""


def _parts(pattern: str) -> Tuple[str, str]:
    """A pattern of AllowUsers or DenyUsers as (pattern of the account, pattern of addresses), the latter empty where it
    has none.
    """
    user, at, where = pattern.rpartition("@")
    return (user, where) if at else (pattern, "")


def _groups(account: pwd.struct_passwd) -> List[str]:
    names = []
    for number in os.getgrouplist(account.pw_name, account.pw_gid):
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return names


def _shadow(name: str) -> Optional[List[str]]:
    """The nine fields of an account's shadow entry; None where it has none or only root may read it."""
    getent = programs.find("getent")
    if getent is None or os.geteuid() != 0:
        return None
    fields = programs.run([getent, "shadow", name]).output.rstrip("\n").split(":")
    return fields if len(fields) == 9 else None


def _is_in_shadow_alone(name: str) -> bool:
    """Whether this host's own /etc/passwd says that the account's password is in /etc/shadow."""
    try:
        with open("/etc/passwd", "rb") as file:
            return any(line.startswith(os.fsencode(name) + b":x:") for line in file)
    except OSError:
        return False


def _number(text: str) -> Optional[int]:
    return int(text) if text.isdecimal() else None
