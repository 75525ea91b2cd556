"""Finds every key that sshd would take on this host, for every account and in every file that sshd names; it changes
none.

A file is read with the rights of its account, as sshd reads it. A file that could not be read, or has no room in a
report, is reported as cut: nobody may believe that a key is gone because a scan was not complete.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import time
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from keyrack.agent.keys import account_tasks, key_file, other_sources
from keyrack.agent.keys.seen_files import Place, SeenFiles
from keyrack.agent.sshd import keys_command, listening, revoked_list
from keyrack.agent.sshd.read_settings import UNREAD, ReadSettings
from keyrack.agent.sshd.running import TAKES_PATTERNS, UNKNOWN, TimeZone, Version
from keyrack.agent.sshd.settings import Effective, Sshd, SshdProblem, SshdSilent
from keyrack.agent.sshd.settings_text import PLACE_CRITERIA, SettingLine, criteria
from keyrack.agent.system import account_names, file_stamp
from keyrack.agent.system.account_names import AccountList, LocalAccount
from keyrack.agent.system.mounts import Mounts
from keyrack.protocol.report import AUTHORITY, COMMAND, EVERYBODY, KEY, UNREADABLE, Cut, ReportedKey
from keyrack.ssh import authorized_keys
from keyrack.ssh.digest import sha256
from keyrack.ssh.line_key import USUAL_RULES, SshdRules

MAX_FOUND, MAX_CHARACTERS = 1400, 600_000  # in one report, which the service reads up to a megabyte of
MAX_CUT = 200
LIST_SECONDS = 60.0  # how old the list of accounts may get: a directory service does not announce changes
GROUPS_SECONDS = 600.0  # how old sshd's answers may get where groups come from a directory service
_MAX_ASKED = 500  # accounts that sshd is asked about in one scan
_LANE = -1  # the queue of files that count for all accounts (account_tasks.py)
_USUAL = (".ssh/authorized_keys", ".ssh/authorized_keys2")
_WILD = frozenset("*?[\\")
_LARGE = "it is larger than 1 MiB, and only its beginning was read for rules (Match) and the files of keys they name"
_OTHER_ROOT = "another sshd has this path below a root folder of its own (chroot), and what it reads is not looked at"
_NAMING_KEYS = ("authorizedkeysfile", "trustedusercakeys", "authorizedkeyscommand")
_REVOKING_KEYS = ("revokedkeys",)
_JUDGING_KEYS = ("pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes", "requiredrsasize")


class _Place(NamedTuple):
    """A file that may hold keys of an account. in_force: sshd reads it now; authorities: its keys are certificate
    authorities'; perhaps: it may be no file of keys at all (such as a host key's), so lines without a key are not
    reported.
    """

    username: str
    path: str
    in_force: bool
    authorities: bool = False
    perhaps: bool = False


class _Sources:
    """All sources of keys by the settings of this machine's sshds: files, and programs that print keys."""

    def __init__(self, ours: str) -> None:
        """ours: the folder whose files the agent writes, which is not scanned."""
        self._ours = ours
        self.commands: Set[ReportedKey] = set()
        self.files: Dict[Place, _Place] = {}
        self.rules: Dict[str, Set[SshdRules]] = {EVERYBODY: set()}  # by account; EVERYBODY: those of all accounts
        self.revoked: Dict[str, Set[str]] = {}  # files of revoked keys, by account likewise; "": there may be none

    def keep(self, places: Iterable[_Place], commands: Iterable[ReportedKey], accounts: AccountList) -> None:
        """Add what counted by older settings that a running sshd still obeys, for accounts that still exist."""
        names = {EVERYBODY, *(account.name for account in accounts.accounts)}
        for place in places:
            if place.in_force and place.username in names:
                self.files[place[:2]] = place
        self.commands.update(commands)

    def add_file(self, account: LocalAccount, pattern: str, *, in_force: bool, perhaps: bool = False) -> None:
        """Add a file that AuthorizedKeysFile names for an account. in_force, perhaps: see _Place."""
        path = expand(pattern, account)
        if path is None or os.path.dirname(path) == self._ours:
            return
        # A file in an account's home is usually owned by it; sshd then takes it for that account only (StrictModes).
        own = len(account.home) > 1 and path.startswith(f"{account.home.rstrip('/')}/")
        username = EVERYBODY if pattern == path and "%" not in pattern and not own else account.name
        known = self.files.get((username, path))
        if known is None or (in_force and not known.in_force):
            self.files[(username, path)] = _Place(username, path, in_force, perhaps=perhaps)

    def add_rules(self, username: str, rules: SshdRules) -> None:
        """Add what an sshd requires of an account's keys."""
        for name in (username, EVERYBODY):
            self.rules.setdefault(name, set()).add(rules)

    def add_revoked(self, username: str, path: str) -> None:
        """Add the file of RevokedKeys that an sshd has for an account; empty where it has none or that is unknown."""
        for name in (username, EVERYBODY):
            self.revoked.setdefault(name, set()).add(path)

    def add_authorities(self, path: str) -> None:
        """Add a file of TrustedUserCAKeys, which counts for all accounts."""
        if path not in ("", "none"):
            self.files.setdefault((EVERYBODY, path), _Place(EVERYBODY, path, in_force=True, authorities=True))

    def add_command(self, username: str, command: str) -> None:
        """Add a program of AuthorizedKeysCommand."""
        if not keys_command.names_nobody(command):
            self.commands.add(ReportedKey(username, command, COMMAND, comment=other_sources.name_of(command)))

    def places(self) -> List[_Place]:
        """The files to scan. One that is in force for some accounts is not listed again as one that is not in force for
        everybody.
        """
        counting = {place.path for place in self.files.values() if place.in_force}
        everybody = (EVERYBODY, False)
        return [
            place
            for place in self.files.values()
            if (place.username, place.in_force) != everybody or place.path not in counting
        ]


class Scanner:
    """Scans again and again, and reads only files that changed. ours: the folder whose files the agent writes; seen:
    the files that had keys before this agent started.

    cut: the places that the last scan could not read whole; problem: why an account may be missing in it, in words.
    """

    def __init__(self, sshd: Sshd, ours: str, seen: Optional[SeenFiles] = None) -> None:
        self._sshd = sshd
        self._ours = ours
        self._seen = seen or SeenFiles()
        self._known: Tuple[object, ...] = ()
        self._listed_at = 0.0
        self._account_list = AccountList()
        self._settings: Dict[Tuple[object, ...], ReadSettings] = {}  # of each sshd, by settings file and command line
        self._unread: List[Cut] = []
        self._gone_names = {name for name, _ in self._seen.files}  # accounts known before and not listed (yet)
        self._places: List[_Place] = []
        self._asked: Dict[str, Effective] = {}
        self._asked_at = 0.0
        self._unasked: List[Cut] = []
        self._rules: Dict[str, SshdRules] = {}
        self._revoked: Dict[str, Set[str]] = {}
        self._zone: Optional[TimeZone] = None
        self._strict = False  # whether every sshd here has StrictModes
        self._commands: List[ReportedKey] = []
        self._read = {place: key_file.KnownFile(mount=mount) for place, mount in self._seen.files.items()}
        self.cut: Tuple[Cut, ...] = ()
        self.problem = ""

    @property
    def rules(self) -> SshdRules:
        """What sshd required of keys at the last scan, for the account with the weakest rules."""
        return self._rules.get(EVERYBODY, USUAL_RULES)

    def scan(self, before: Sequence[str] = (), names: Iterable[str] = ()) -> List[ReportedKey]:
        """All keys found, in a fixed order. before: patterns of AuthorizedKeysFile from before the agent changed sshd's
        settings; names: accounts known from elsewhere, which the system may not list.

        Raises SshdProblem when sshd does not say which files it reads.
        """
        cut = self._find_places(tuple(before), tuple(sorted(names)))
        keys = list(self._commands)
        for place, file in self._scan_files():
            told = [row for row in file.rows if row.fingerprint or not place.perhaps]
            rows = [_judged(row, place, file.unsafe or self._refused(row, place)) for row in told]
            if file.problem:
                cut.append(Cut(place.username, place.path, file.problem))
                if (
                    (place.in_force or file.refused)
                    and not place.perhaps
                    and file.problem not in (account_tasks.NO_TIME, key_file.AWAY)
                ):
                    rows.append(ReportedKey(place.username, place.path, UNREADABLE, problem=file.problem))
            if file.cut:
                cut.append(Cut(place.username, place.path, file.cut))
            keys += rows
        keys, left_out = _share(keys, [account.name for account in self._account_list.accounts if account.may_log_in])
        cut += left_out
        if len(cut) > MAX_CUT:
            cut = [*cut[: MAX_CUT - 1], Cut("", "", f"{len(cut)} places could not be looked at whole")]
        self.cut = tuple(cut)
        return keys

    def _refused(self, row: key_file.KeyFileLine, place: _Place) -> str:
        """Why every sshd here refuses a key as revoked although it stands in a file; empty where one may take it."""
        why = ""
        for path in sorted(self._revoked.get(place.username, ()), reverse=True) if row.public_key else ():
            why = revoked_list.unreadable(path)
            if not why and not revoked_list.refuses(path, row.public_key):
                return ""
            why = why or f"sshd refuses it (RevokedKeys {path})"
        return why

    def _scan_files(self) -> List[Tuple[_Place, key_file.KnownFile]]:
        """Read every file again that may have changed. Answers each place with what is known of its file."""
        accounts = {account.name: account for account in self._account_list.accounts}
        # Files that the last scan had no time for come first, after root's.
        late = {key for key, file in self._read.items() if file.problem == account_tasks.NO_TIME}
        mounts = Mounts()
        # Files that may hang come last, so that they keep no other waiting.
        hanging = {place[:2] for place in self._places if mounts.may_hang(place.path)}
        places = sorted(
            self._places,
            key=lambda place: (place[:2] in hanging, place.username not in ("root", EVERYBODY), place[:2] not in late),
        )
        tasks = [self._task(place, accounts.get(place.username), may_hang=place[:2] in hanging) for place in places]
        known, self._read = self._read, {}
        files = []
        for place, answer in zip(places, account_tasks.run(tasks)):  # noqa: B905 - not in Python 3.9
            self._read[place[:2]] = key_file.known_after(answer, known.get(place[:2]))
            files.append((place, self._read[place[:2]]))
        self._remember()
        return files

    def _task(self, place: _Place, account: Optional[LocalAccount], *, may_hang: bool) -> account_tasks.Task:
        """The scan of one file with its account's rights; with root's where it counts for all accounts (None)."""
        last = self._read.get(place[:2])
        if account is None:
            scan = key_file.FileScan(place.path, self.rules, last, everybody=True, authorities=place.authorities)
            return account_tasks.Task(os.geteuid(), os.getegid(), "root", scan.run, may_hang, _LANE)
        home = account.home.rstrip("/")
        home = home if home and place.path.startswith(f"{home}/") else ""
        strict_home = account.home if self._strict else ""
        rules = self._rules.get(account.name, self.rules)
        scan = key_file.FileScan(place.path, rules, last, home=home, strict_home=strict_home)
        return account_tasks.Task(account.uid, account.gid, account.name, scan.run, may_hang)

    def _remember(self) -> None:
        """Remember which files have keys now; for accounts that are missing now, keep what was remembered."""
        files: Dict[Place, str] = {
            place: file.mount
            for place, file in self._read.items()
            if place[0] != EVERYBODY and (file.rows or file.mount)
        }
        away = ((place, mount) for place, mount in self._seen.files.items() if place[0] in self._gone_names)
        self._seen.keep({**dict(away), **files})

    def _find_places(self, before: Tuple[str, ...], names: Tuple[str, ...]) -> List[Cut]:
        """Find the files to scan anew, where they may have changed. Answers the places that cannot be scanned.

        before, names: see scan().
        """
        files = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf")
        stamps = tuple(file_stamp.stamp(path) for path in files)
        unread = self._is_unread(self._sshd)
        state = (self._sshd.signature(), self._sshd.running.arguments(), stamps, before, names, unread)
        old = time.monotonic() - self._listed_at > LIST_SECONDS
        if state != self._known or old:
            sshds = [self._sshd, *self._sshd.beside()]
            lines = [line for sshd in sshds for line in sshd.lines()]
            # A changed file shows by its stamp; a change in a directory service's groups does not show.
            stale = account_names.directories("group") and time.monotonic() - self._asked_at > GROUPS_SECONDS
            known = {*names, *self._gone_names, *(account.name for account in self._account_list.accounts)}
            self._list(account_names.find(known, lines), anew=state != self._known or bool(stale))
            self._listed_at = time.monotonic()
            # A running sshd that has not read its changed settings may name files that are not known here.
            behind = [sshd for sshd in sshds if self._is_unread(sshd)]
            self._unread = [Cut("", sshd.config if self._read_by(sshd).known else "", UNREAD) for sshd in behind]
            self._unread += [Cut("", path, _LARGE) for path in sorted({path for one in sshds for path in one.large()})]
            self._name_places(before, sshds, unread=bool(behind))
            self._known = state
        cut = [*self._unasked, *self._unread]
        cut += [Cut(name, "", "this account is not known now; its directory may be away") for name in self._gone_names]
        for home in self._account_list.ownerless:
            cut += [Cut("", os.path.join(home, usual), "whose home this is nobody knows now") for usual in _USUAL]
        self.problem = self._account_list.problem
        if not self._account_list.accounts:
            cut.append(Cut("", "", self.problem))
        return sorted(cut)

    def _is_unread(self, sshd: Sshd) -> bool:
        """Whether a running sshd obeys other settings than those on disk."""
        return self._read_by(sshd).unread(sshd)

    def _read_by(self, sshd: Sshd) -> ReadSettings:
        return self._settings.setdefault((sshd.config, sshd.running.arguments()), ReadSettings())

    def _list(self, listed: AccountList, *, anew: bool) -> None:
        """Take a new list of accounts; anew: forget what sshd answered about them."""
        if os.geteuid() != 0:
            # An sshd that does not run as root lets in its own account only.
            own = tuple(account for account in listed.accounts if account.uid == os.geteuid())
            listed = listed._replace(accounts=own, ownerless=())
        if anew:
            self._asked, self._asked_at = {}, time.monotonic()
        if not listed.accounts and self._account_list.accounts:
            # No answer is no empty list.
            self._account_list = self._account_list._replace(problem=listed.problem)
            return
        if listed.problem:
            self._gone_names |= {account.name for account in self._account_list.accounts}
            self._gone_names = self._seen.still_away(self._gone_names - {account.name for account in listed.accounts})
        else:
            self._gone_names = self._seen.still_away(())
        self._account_list = listed

    def _name_places(self, before: Sequence[str], sshds: Sequence[Sshd], *, unread: bool) -> None:
        """Set the places to scan: the files that are in force for an account, and those that would be if another rule
        applied or the agent were uninstalled.

        sshds: this host's own, then others of this machine, whose files let people in too; unread: one of them still
        obeys older settings, so the places and rules of the last scan are kept beside the new ones.
        """
        sources = _Sources(self._ours)
        strict_before = self._strict
        self._unasked = []
        self._strict = True
        self._add_sources(sources, self._sshd, self._asked, before)
        for sshd in sshds[1:]:
            if listening.have_other_root(sshd.listeners()):
                self._unasked.append(Cut("", sshd.config, _OTHER_ROOT))
                continue
            try:
                self._add_sources(sources, sshd, {})
            except SshdProblem as problem:
                self._unasked.append(Cut("", sshd.config, f"another sshd does not say what it reads: {problem}"))
        if unread and self._known:
            sources.keep(self._places, self._commands, self._account_list)
            self._strict = self._strict and strict_before
            for username, asked in self._rules.items():
                sources.add_rules(username, asked)
        self._revoked = {} if unread else sources.revoked
        self._judge_by(sources.rules)
        self._commands = sorted(sources.commands)
        self._places = sources.places()

    def _add_sources(
        self, sources: _Sources, sshd: Sshd, known: Dict[str, Effective], before: Sequence[str] = ()
    ) -> None:
        """Add the sources of one sshd. known: its settings for each account asked about so far; this adds to it."""
        lines = sshd.lines()
        for_all = sshd.effective()
        self._strict = self._strict and for_all.one("strictmodes") == "yes"
        single, judged = _differs(lines, _NAMING_KEYS), _differs(lines, (*_JUDGING_KEYS, *_REVOKING_KEYS))
        if single or judged:
            known.update(self._ask_for_each(sshd, known, for_all))
        version, tz = self._sshd.running.version(), self._sshd.running.zone().tz
        written = [value for line in lines if line.keyword == "authorizedkeysfile" for value in line.values]
        others: Set[str] = {*written, *before, *_USUAL}
        somewhere = by_place(lines)
        unseen: Set[Cut] = set()
        for account in self._account_list.accounts:
            effective = known.get(account.name, for_all)
            sources.add_rules(account.name, rules(effective, version, tz))
            if any(somewhere[keyword] for keyword in _JUDGING_KEYS):
                sources.add_rules(account.name, SshdRules("*", 0, version, tz))
            unasked = (single or judged) and account.name not in known
            listed = "" if unasked or somewhere["revokedkeys"] else effective.one("revokedkeys")
            sources.add_revoked(account.name, listed)
            here: Sequence[str] = effective.patterns("authorizedkeysfile", lines)
            if single and account.name not in known:
                here = sorted(others)  # until a later scan asks sshd about the account
            for pattern in (*here, *somewhere["authorizedkeysfile"]):
                sources.add_file(account, pattern, in_force=True)
                unseen |= _unseen(pattern, account, self._ours)
            for pattern in sshd.running.perhaps_files():
                sources.add_file(account, pattern, in_force=True, perhaps=True)
            for path in (*effective.patterns("trustedusercakeys", lines), *somewhere["trustedusercakeys"]):
                sources.add_authorities(path)
            for command in (effective.one("authorizedkeyscommand"), *somewhere["authorizedkeyscommand"]):
                sources.add_command(account.name if single else EVERYBODY, command)
            for pattern in sorted(others):
                sources.add_file(account, pattern, in_force=False)
        if sshd.running.version() >= TAKES_PATTERNS:
            self._unasked += sorted(unseen)
        if sshd is self._sshd and (single or judged) and len(known) < len(self._account_list.accounts):
            self._listed_at = 0.0

    def _ask_for_each(self, sshd: Sshd, known: Mapping[str, Effective], for_all: Effective) -> Dict[str, Effective]:
        """An sshd's settings for accounts that it was not asked about yet; for _MAX_ASKED of them at most."""
        said: Dict[str, Effective] = {}
        may_mean_a_file = revoked_list.none_may_mean_a_file(sshd.lines())
        names = (account.name for account in self._account_list.accounts if account.name not in known)
        for name in itertools.islice(names, _MAX_ASKED):
            asked = functools.partial(_asked, sshd, name)
            try:
                said[name] = revoked_list.with_its_file(asked(), asked) if may_mean_a_file else asked()
            except SshdSilent:
                break  # it will not answer for the next one either
            except SshdProblem:
                # sshd may refuse its settings for one account (auth2.c): that one is scanned by those for everybody.
                said[name] = for_all
        return said

    def _judge_by(self, asked: Mapping[str, Set[SshdRules]]) -> None:
        """Take the rules for each account's keys; where they changed, all files are read again."""
        zone = self._sshd.running.zone()
        now = {username: _least(several) for username, several in asked.items() if several}
        if (now, zone) != (self._rules, self._zone):
            self._rules, self._zone = now, zone
            self._read = {place: known._replace(stamp=None) for place, known in self._read.items()}


def _asked(sshd: Sshd, name: str, given: Tuple[str, ...] = ()) -> Effective:
    return sshd.effective(name, given=given)


def _unseen(pattern: str, account: LocalAccount, ours: str) -> Set[Cut]:
    """What is not scanned where sshd takes a path for a glob pattern: the files that it matches. ours: the agent's own
    folder, where there is no such file.
    """
    path = expand(pattern, account)
    if path is None or os.path.dirname(path) == ours or not set(path) & _WILD:
        return set()
    if set(pattern) & _WILD:
        return {Cut("", pattern, "AuthorizedKeysFile names files by a pattern, and which they are is not looked for")}
    return {Cut(account.name, path, "sshd takes a character of this path for a pattern, and reads other files")}


def rules(effective: Effective, version: Version, tz: Optional[str] = None) -> SshdRules:
    """What this host's sshd requires of keys. version: of the sshd that runs; tz: its time zone."""
    accepted = effective.one("pubkeyacceptedalgorithms") or effective.one("pubkeyacceptedkeytypes")
    size = effective.one("requiredrsasize")
    known = USUAL_RULES.version if version == UNKNOWN else version
    return SshdRules(accepted, int(size) if size.isdecimal() else 0, known, tz)


def _least(several: Set[SshdRules]) -> SshdRules:
    """The weakest of several rules: a key that any of them accepts is accepted by it."""
    accepted = {name for each in several for name in each.accepted.split(",")}
    smallest = min(each.smallest_rsa for each in several)
    return next(iter(several))._replace(accepted=",".join(sorted(accepted)), smallest_rsa=smallest)


def _judged(row: key_file.KeyFileLine, place: _Place, unsafe: str) -> ReportedKey:
    """A line of a file as it is reported: whether it is in force now, and why not. unsafe: why sshd takes no key of the
    file, in words; empty where it does.
    """
    problem = row.problem or unsafe
    if not problem and row.ends_at is not None and row.ends_at < int(time.time()):  # as sshd counts: in whole seconds
        problem = "its end has passed"
    kind = AUTHORITY if row.authority else KEY if row.fingerprint else UNREADABLE
    in_force = place.in_force and not problem
    return ReportedKey(
        place.username,
        place.path,
        kind,
        row.line_number,
        row.type,
        row.fingerprint,
        row.public_key,
        row.options,
        row.comment,
        problem,
        in_force,
    )


def _share(keys: List[ReportedKey], first: Sequence[str]) -> Tuple[List[ReportedKey], List[Cut]]:
    """As many keys as a report has room for, a fair share of each account, and what was left out. first: accounts whose
    share is taken first.
    """
    if len(keys) <= MAX_FOUND and sum(map(_size, keys)) <= MAX_CHARACTERS:
        return sorted(keys), []
    by_account: Dict[str, List[ReportedKey]] = {}
    for key in sorted(keys, key=lambda key: (not key.in_force, key)):
        by_account.setdefault(key.username, []).append(key)
    privileged = [name for name in (EVERYBODY, *first) if name in by_account]
    rest = [name for name in sorted(by_account) if name not in set(privileged)]
    room, characters = MAX_FOUND * 3 // 4, MAX_CHARACTERS * 3 // 4
    chosen = _deal(by_account, privileged, room, characters)
    room, characters = MAX_FOUND - len(chosen), MAX_CHARACTERS - sum(map(_size, chosen))
    chosen += _deal(by_account, [*rest, *privileged], room, characters)
    left = sorted({(key.username, key.path) for several in by_account.values() for key in several})
    return sorted(chosen), [Cut(name, path, "a report has no room for all of it") for name, path in left]


def _deal(
    by_account: Dict[str, List[ReportedKey]], names: Sequence[str], room: int, characters: int
) -> List[ReportedKey]:
    """Take a key of each account in turn out of by_account, while there is room."""
    chosen: List[ReportedKey] = []
    waiting = [name for name in names if by_account[name]]
    while waiting:
        for name in waiting:
            room, characters = room - 1, characters - _size(by_account[name][0])
            if room < 0 or characters < 0:
                return chosen
            chosen.append(by_account[name].pop(0))
        waiting = [name for name in waiting if by_account[name]]
    return chosen


def _size(key: ReportedKey) -> int:
    return 300 + len(key.path) + len(key.key) + 6 * (len(key.options) + len(key.comment) + len(key.problem))


def _differs(lines: Iterable[SettingLine], keywords: Sequence[str]) -> bool:
    """Whether these keywords may differ between accounts: if not, asking sshd once is enough."""
    for_some = False
    for line in lines:
        if line.keyword == "match":
            # `Match all` changes nothing; after the first other Match, any of the keywords may be for some only.
            for_some = for_some or [value.lower() for value in line.values] != ["all"]
        elif for_some and line.keyword in keywords:
            return True
    return False


def by_place(lines: Iterable[SettingLine]) -> Dict[str, List[str]]:
    """By keyword, the values that stand below a Match by address: they count for logins from there, and sshd, which is
    asked about this machine only, does not answer them.
    """
    paths: Dict[str, List[str]] = {keyword: [] for keyword in (*_NAMING_KEYS, *_JUDGING_KEYS, *_REVOKING_KEYS)}
    elsewhere = False
    for line in lines:
        if line.keyword == "match":
            elsewhere = any(keyword in PLACE_CRITERIA for keyword, _ in criteria(line.values))
        elif elsewhere and line.keyword in paths:
            several = line.keyword == "authorizedkeysfile"
            paths[line.keyword] += line.values if several else [" ".join(line.values)]
    return paths


def expand(pattern: str, account: LocalAccount) -> Optional[str]:
    """The path that a pattern names for an account (sshd_config(5), TOKENS); None for "none"."""
    if pattern.lower() == "none":
        return None
    tokens = {"%": "%", "h": account.home, "u": account.name, "U": str(account.uid)}
    pieces = []
    at = 0
    while at < len(pattern):
        if pattern[at] == "%" and pattern[at + 1 : at + 2] in tokens:
            pieces.append(tokens[pattern[at + 1]])
            at += 2
        else:
            pieces.append(pattern[at])
            at += 1
    return os.path.join(account.home, "".join(pieces))


def foreign(path: str, username: str, data: bytes, ours: Iterable[str]) -> List[ReportedKey]:
    """The keys that somebody put into a file of Keyrack's. data: the file's bytes; ours: the fingerprints that the
    document puts there.
    """
    known = set(ours)
    return [
        ReportedKey(
            username,
            path,
            KEY,
            line.line_number,
            line.type,
            line.fingerprint,
            line.public_key,
            line.options[:2000],
            line.comment[:200],
            "it was taken away: this file is Keyrack's",
            in_force=False,
            taken=True,
        )
        for line in authorized_keys.read(data)
        if line.fingerprint is not None and line.fingerprint not in known
    ]


def digest(keys: Iterable[ReportedKey], cut: Iterable[Cut] = ()) -> str:
    """A digest of a scan's keys and cuts, to compare two scans by."""
    return sha256(json.dumps([[key.to_json() for key in keys], list(cut)]).encode()).hex()
