"""Puts sshd under the document: switches enforcing on and off, keeps it on, and takes it back by itself.

From the first write until a minute after sshd read it, everything that was changed can be undone, and is: when
sshd would not start, does not do what was written, greets nobody, when the service cannot be reached any more,
or when the agent is killed in between. What is undone stays off until the service asks for adopting first.
"""

from __future__ import annotations

import os
import pwd
import time
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from keyrack.agent import accounts, drop_in, originals
from keyrack.agent.folder import PUBLIC_FILE, PUBLIC_FOLDER, Folder, FolderProblem
from keyrack.agent.memory import Enrolment, Memory, MemoryProblem
from keyrack.agent.originals import Original
from keyrack.agent.sshd import GREETING_SECONDS, Sshd, SshdProblem
from keyrack.ssh.host_document import HostDocument

NOTE = "enforcement.json"
TRIAL_SECONDS = 60.0
_MOST_ACCOUNTS = 500  # asked one by one, where rules are for single accounts

OFF, TRYING, ON, UNDONE = "off", "trying", "on", "undone"


class Record(NamedTuple):
    """What is kept over a restart. why: words about state UNDONE; files: as they were before the first change;
    step: as they were before the change that is not yet trusted, None: all are; folders: made on the way;
    before: the AuthorizedKeysFile patterns that counted for somebody until then.
    """

    state: str = OFF
    why: str = ""
    files: Tuple[Original, ...] = ()
    step: Optional[Tuple[Original, ...]] = None
    folders: Tuple[str, ...] = ()
    before: Tuple[str, ...] = ()

    def to_json(self) -> Dict[str, object]:
        """For a note."""
        step = None if self.step is None else [original.to_json() for original in self.step]
        files = [original.to_json() for original in self.files]
        return {**self._asdict(), "files": files, "step": step}


class _Broken(Exception):
    """A step that must be undone; the words say why."""


class Enforcement:
    """sshd's side of one enrolled host, where its administrator lets the agent change sshd's settings."""

    def __init__(
        self, memory: Memory, enrolment: Enrolment, path: str, say: Callable[[str], None], trial: float = TRIAL_SECONDS
    ) -> None:
        self._memory = memory
        self._enrolment = enrolment
        self._path = path
        self._say = say
        self._trial = trial
        self.sshd = Sshd(enrolment.sshd_config)
        self._record = read(memory)
        self._tried_at = 0.0
        self._heard_at = 0.0
        self._silent = False
        self._failed: Optional[Tuple[object, Tuple[str, ...]]] = None
        self._checked: Optional[Tuple[bytes, Tuple[object, ...]]] = None
        self.put_back: List[str] = []

    @property
    def state(self) -> str:
        """OFF, TRYING, ON or UNDONE."""
        return self._record.state

    @property
    def why(self) -> str:
        """Why it was undone."""
        return self._record.why

    @property
    def before(self) -> Tuple[str, ...]:
        """The AuthorizedKeysFile patterns that counted before enforcing."""
        return self._record.before

    def heard(self, answered: bool) -> None:
        """Whether the service answered just now."""
        self._silent = not answered
        if answered:
            self._heard_at = time.monotonic()

    def begin(self) -> None:
        """After a start: what an earlier agent left unfinished is undone, because nobody saw that it works."""
        if self._record.step is not None:
            self._undo("the agent was stopped before it was sure that logins work")

    def put(self, document: HostDocument) -> List[str]:
        """Make sshd's settings what the document says; answers in words what is not so."""
        try:
            return self._put(document)
        except (OSError, FolderProblem, MemoryProblem, SshdProblem) as problem:
            words = problem.strerror if isinstance(problem, OSError) else str(problem)
            return [f"sshd's settings: {words}"]

    def off(self) -> List[str]:
        """Give the host its own settings back, as they were; answers in words what could not be."""
        if self._record.state in (OFF, UNDONE) and not self._record.files:
            self._keep(Record())
            return []
        problems = originals.restore_all([self._as_edited(original) for original in self._record.files])
        if problems:
            return problems
        fault = self.sshd.problem()
        if fault is not None:
            self._say(f"sshd's own settings have a fault: {fault}")
        else:
            reloaded = self.sshd.reload()
            problems += [reloaded] if reloaded else []
        for folder in reversed(self._record.folders):
            _remove_folder(folder)
        self._keep(Record())
        self._say("sshd has its own settings again")
        return problems

    def settings(self, document: HostDocument) -> Dict[str, str]:
        """What enforcing this document asks of sshd."""
        return drop_in.wanted(self._enrolment.keys_folder, self._enrolment.revoked_keys, document.sshd)

    def accounts(self) -> List[Optional[str]]:
        """Whom to ask sshd about: None for everybody, and each account where a rule may be for it alone."""
        if not any(line.keyword == "match" for line in self.sshd.lines()):
            return [None]
        return [None, *sorted({account.pw_name for account in pwd.getpwall()})[:_MOST_ACCOUNTS]]

    def missing(self, settings: Mapping[str, str], config: Optional[str] = None) -> List[str]:
        """What sshd would do otherwise than these settings say, in words. Raises SshdProblem."""
        found: Dict[str, None] = {}
        for account in self.accounts():
            for keyword, value, now in drop_in.missing(self.sshd.effective(account, config), settings):
                whom = f" for {account}" if account else ""
                found.setdefault(f"sshd has {keyword} {now}{whom} instead of {value}")
            if len(found) > 5:
                break
        return list(found)

    def _put(self, document: HostDocument) -> List[str]:
        if document.mode != "enforce":
            problems = self.off()
            unmet = ["sshd's settings are left alone as long as this host only adopts"] if document.sshd else []
            return problems + unmet
        if self._record.state == UNDONE:
            return [f"enforcing was undone: {self._record.why}; ask for adopting, then for enforcing again"]
        settings = self.settings(document)
        wanted = drop_in.render(settings)
        self.put_back = []
        state = (wanted, self.sshd.signature())
        if self._failed is not None and self._failed[0] == state:
            return list(self._failed[1])
        if self._record.state == TRYING:
            self._watch()
            if self._record.state == UNDONE:
                return [f"enforcing was undone: {self._record.why}"]
        if self._checked == state:
            return []
        if self._record.state == OFF and self._shuts_everybody_out(document):
            return ["enforcing waits: no key of this document opens an account of this host, so nobody could log in"]
        self._failed = None
        problems = self._step(settings, wanted)
        if problems:
            self._failed = ((wanted, self.sshd.signature()), tuple(problems))
        else:
            self._checked = (wanted, self.sshd.signature())
        return problems

    def _step(self, settings: Mapping[str, str], wanted: bytes) -> List[str]:
        """Write, have sshd judge, read and greet; undo all of it where one of them fails."""
        fault = self.sshd.problem()
        if fault is not None and originals.look(self._path).data in (None, wanted):
            return [f"sshd's settings have a fault, and nothing was changed: {fault}"]
        first = self._record.state == OFF
        in_force = first and not self.missing(self._keys_only())
        greeted = self.sshd.greets()
        if first:
            self._record = self._record._replace(before=self._patterns())
        try:
            # What somebody else changed in sshd's settings is theirs to have read.
            reloaded = self.sshd.reload() if self._write(settings, wanted) else None
            if reloaded is not None:
                raise _Broken(reloaded)
            if greeted and not self.sshd.greets(GREETING_SECONDS):
                raise _Broken("sshd greeted nobody after it read its settings")
        except _Broken as broken:
            self._take_back()
            return [f"sshd's settings were put back as they were: {broken}"]
        if first and not in_force:
            self._tried_at = self._heard_at = time.monotonic()
            self._keep(self._record._replace(state=TRYING))
            self._say(f"enforcing begins, and is taken back unless all is well for {self._trial:g} seconds")
        elif self._record.state != TRYING:
            self._keep(self._record._replace(state=ON, step=None))
        return []

    def _write(self, settings: Mapping[str, str], wanted: bytes) -> bool:
        """Write the drop-in and, where sshd does not read it first, the line that has it do so.

        Answers whether that changed anything. Raises _Broken.
        """
        self._make_folder(os.path.dirname(self._path))
        paths = [self._path, self.sshd.config]
        now = [originals.look(path) for path in paths]
        known = {original.path for original in self._record.files}
        step = self._record.step or tuple(now)
        files = self._record.files + tuple(original for original in now if original.path not in known)
        # Noted before the first write: an agent that is killed after it knows what to undo.
        self._keep(self._record._replace(step=step, files=files))
        drop, config = now
        changed = []
        if drop.data != wanted or drop.mode != PUBLIC_FILE:
            originals.put(drop.path, wanted, PUBLIC_FILE)
            changed.append(drop.path)
        fault = self.sshd.problem()
        if fault is not None:
            raise _Broken(fault)
        if config.data is None:
            raise _Broken(f"{config.path} is missing")
        if not drop_in.is_read_first(config.data, self._path) and not drop_in.has_include(config.data):
            originals.put(config.path, drop_in.include_line(self._path) + config.data, config.mode)
            if config.owner != os.geteuid():
                os.chown(config.path, config.owner, config.group)
            changed.append(config.path)
        fault = self.sshd.problem()
        if fault is None:
            fault = "; ".join(self.missing(settings)) or None
        if fault is not None:
            raise _Broken(fault)
        if self._checked is not None and self._checked[0] == wanted:
            self.put_back = [f"{path} was changed on this host; it is put back" for path in changed]
        return bool(changed)

    def _watch(self) -> None:
        """During the trial: undo when logins break; end it when the minute is over and all is well."""
        if not self.sshd.greets(3.0):
            self._undo("sshd greets nobody any more")
        elif time.monotonic() - self._tried_at >= self._trial:
            if self._silent or self._heard_at <= self._tried_at:
                self._undo("the service could not be reached any more")
            else:
                self._keep(self._record._replace(state=ON, step=None))
                self._say("enforcing is in force")

    def _undo(self, why: str) -> None:
        trying = self._record.state in (OFF, TRYING)
        self._take_back()
        if trying:
            self._say(f"enforcing was undone: {why}")
            self._keep(self._record._replace(state=UNDONE, why=why))

    def _take_back(self) -> None:
        """Undo the step that is not trusted."""
        problems = originals.restore_all(list(self._record.step or ()))
        for problem in problems:
            self._say(problem)
        if not problems and self.sshd.problem() is None:
            self.sshd.reload()
        if self._record.state in (OFF, TRYING):
            for folder in reversed(self._record.folders):
                _remove_folder(folder)
            self._keep(Record(before=self._record.before))
        else:
            self._keep(self._record._replace(step=None))
        self._checked = None

    def _keys_only(self) -> Dict[str, str]:
        """What enforcing takes where no other setting is asked for."""
        return drop_in.wanted(self._enrolment.keys_folder, self._enrolment.revoked_keys, {})

    def _shuts_everybody_out(self, document: HostDocument) -> bool:
        """Whether enforcing would leave nobody who can log in with a key, where somebody might today."""
        for username, entries in document.users.items():
            if entries and accounts.exists(username):
                return False
        return bool(self.missing(self._keys_only()))

    def _patterns(self) -> Tuple[str, ...]:
        """Every AuthorizedKeysFile that counts for somebody today."""
        found: Dict[str, None] = {}
        for account in self.accounts():
            for pattern in self.sshd.effective(account).one("authorizedkeysfile").split():
                found.setdefault(pattern)
        return tuple(found)

    def _as_edited(self, original: Original) -> Original:
        """A file as it was, or, where its administrator changed it since, with that change and without our line."""
        now = originals.look(original.path)
        if original.data is None or now.data is None or original.path == os.path.realpath(self._path):
            return original
        if drop_in.without_include(now.data, self._path) == original.data:
            return original
        self._say(f"{original.path} was changed since; only Keyrack's own line is taken away")
        return now._replace(data=drop_in.without_include(now.data, self._path))

    def _make_folder(self, path: str) -> None:
        if os.path.isdir(path):
            return
        self._keep(self._record._replace(folders=(*self._record.folders, path)))
        Folder.open(path, PUBLIC_FOLDER, create=True).close()

    def _keep(self, record: Record) -> None:
        if record != self._record:
            self._memory.save(NOTE, record.to_json())
            self._record = record


def read(memory: Memory) -> Record:
    """What was kept. Raises MemoryProblem for a damaged note."""
    fields = memory.load(NOTE)
    if fields is None:
        return Record()
    try:
        step = fields.get("step")
        return Record(
            state=str(fields.get("state", OFF)),
            why=str(fields.get("why", "")),
            files=tuple(Original.from_json(one) for one in fields.get("files", ())),
            step=None if step is None else tuple(Original.from_json(one) for one in step),
            folders=tuple(str(path) for path in fields.get("folders", ())),
            before=tuple(str(pattern) for pattern in fields.get("before", ())),
        )
    except (TypeError, ValueError):
        raise MemoryProblem(f"{memory.folder.path}/{NOTE} is damaged; sshd's settings are left alone") from None


def adopt_first(memory: Memory) -> None:
    """Enforce nothing before the service has said once that this host adopts: an older one does not know the word."""
    if not read(memory).files:
        why = "this host was enrolled for adopting, and the service has not agreed yet"
        memory.save(NOTE, Record(state=UNDONE, why=why).to_json())


def _remove_folder(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError:
        pass
