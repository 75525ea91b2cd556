"""Shows that the running sshd obeys Keyrack's files: asks it, and judges only by its answers; changes no setting.

For the time of one question, two public keys without private keys are put into a key file, and one of them into the
file of revoked keys. Where ends are written in local time, a third key is added whose end has passed. An sshd that has
read Keyrack's settings accepts the first and refuses the others; one that runs with other settings does not. The answer
counts while the same processes listen on the same sockets and the settings on disk stay the same, as sshd reads them
only when it starts. After ASK_AGAIN_SECONDS it is asked again all the same.
"""

from __future__ import annotations

import itertools
import os
import pwd
import time
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from keyrack.agent.keys.ends import EndForm, form_of, write
from keyrack.agent.sshd import listening, probe
from keyrack.agent.sshd.listening import Listener
from keyrack.agent.sshd.login_check import LoginCheck
from keyrack.agent.sshd.login_verdict import Verdict
from keyrack.agent.sshd.settings import Sshd
from keyrack.agent.state import Enrolment
from keyrack.agent.system import lookup
from keyrack.agent.system.as_account import AccountProblem
from keyrack.agent.system.folder import PUBLIC_FOLDER, Folder
from keyrack.ssh import authorized_keys, revoked_keys
from keyrack.ssh.public_key import fingerprint_of

ASK_AGAIN_SECONDS = 3600.0
_LATER_SECONDS, _PASSED_SECONDS = 2 * 86400, 2
_LARGEST_FILE = 64 * 1024 * 1024
_MAX_KEYS = 50  # of an account, among which to find one without `from`
_SHELLS = ("sh", "bash", "zsh")
_MAX_ACCOUNTS = 3  # to ask with, one after another, while sshd refuses


class Observation(NamedTuple):
    """obeys: whether the running sshd obeys; None where that is unknown. words: why it does not, or is unknown."""

    obeys: Optional[bool]
    words: str = ""


OBEYS = Observation(True)
NOT_OBSERVED = Observation(None, "it was not looked at yet")


class SshdProof:
    """Asks one sshd whether it obeys, and remembers for which of its processes it was shown."""

    def __init__(self, sshd: Sshd, enrolment: Enrolment, check: LoginCheck) -> None:
        self._sshd = sshd
        self._enrolment = enrolment
        self._check = check
        self._shown: Optional[Tuple[Tuple[Listener, ...], Tuple[object, ...]]] = None
        self._asked_at = 0.0

    def forget(self) -> None:
        """Ask again next time."""
        self._shown = None

    def show(self, verdicts: Iterable[Verdict]) -> Observation:
        """Whether the running sshd obeys Keyrack's key files and its file of revoked keys. Raises SshdProblem.

        verdicts: of the document in force; sshd must also accept a key that opens an account by them.
        """
        if self._shown is not None:
            listeners, settings = self._shown
            fresh = time.monotonic() - self._asked_at < ASK_AGAIN_SECONDS
            if fresh and settings == self._sshd.signature() and listening.still(listeners):
                return OBEYS
        self._shown = None
        listeners = self._sshd.listeners()
        if not listeners and listening.can_be_seen():
            return Observation(None, "sshd is not running: nobody listens where it should, so nobody can log in")
        settings = self._sshd.signature()
        places = _places(listeners) or [one.near for one in self._sshd.configured()][:1]
        for place in places:
            shown = self._ask_with_somebody(place, list(verdicts))
            if not shown.obeys:
                return shown
        self._shown, self._asked_at = (listeners, settings), time.monotonic()
        return OBEYS

    def _ask_with_somebody(self, place: Tuple[str, int], verdicts: List[Verdict]) -> Observation:
        shown = Observation(None, "sshd could not be asked: no account may log in with a key from this host")
        for username, known in self._accounts(verdicts):
            try:
                shown = self._ask(place, username, known)
            except (OSError, ValueError) as error:
                words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                return Observation(None, f"sshd could not be asked what it has read: {words}")
            if shown.obeys is not False:
                break
        return shown

    def _ask(self, place: Tuple[str, int], username: str, known: str) -> Observation:
        """Ask sshd at a place as an account. known: a key that it must accept for the account now; empty for none."""
        ed25519 = "ssh-ed25519" in (self._check.effective(username).one("pubkeyacceptedalgorithms") or "ssh-ed25519")
        taken, refused, ended = (probe.key_without_owner(ed25519) for _ in range(3))
        later, passed = self._ends()
        keys = Folder.open(self._enrolment.keys_folder, PUBLIC_FOLDER)
        try:
            revoked = Folder.open(os.path.dirname(self._enrolment.revoked_keys), PUBLIC_FOLDER)
            try:
                revoked_name = os.path.basename(self._enrolment.revoked_keys)
                # If somebody had such a private key after all, it would still open nothing.
                options = {taken: later, refused: later, **({ended: passed} if passed else {})}
                lines = [
                    authorized_keys.key_line(key, ["restrict", 'command="false"', *end]) for key, end in options.items()
                ]
                more = "".join(f"{line}\n" for line in lines).encode("ascii")
                now_keys = _bytes(keys, username)
                now_revoked = _bytes(revoked, revoked_name) or revoked_keys.render(())
                now_revoked += f"{refused}\n".encode("ascii")
                with (
                    revoked.instead(revoked_name, now_revoked),
                    keys.instead(username, now_keys + more),
                ):
                    source = self._check.near(username) or ""
                    answer = probe.ask(place, username, [*([known] if known else []), *options], source)
            finally:
                revoked.close()
        finally:
            keys.close()
        if not answer.reached:
            return Observation(None, f"sshd could not be asked what it has read: {answer.words}")
        if fingerprint_of(taken) not in answer.accepted:
            return Observation(False, f"the running sshd does not take Keyrack's key file for {username}")
        if fingerprint_of(refused) in answer.accepted:
            return Observation(False, "the running sshd lets keys in that are revoked")
        if fingerprint_of(ended) in answer.accepted:
            return Observation(False, "the running sshd takes keys whose end has passed: it is in another time zone")
        if known and fingerprint_of(known) not in answer.accepted:
            return Observation(False, f"the running sshd refuses the key {fingerprint_of(known)} of {username}")
        return OBEYS

    def _ends(self) -> Tuple[List[str], List[str]]:
        """The options for a key that ends later and for one that has ended, where sshd reads ends in its local time:
        only sshd itself can show that it uses the time zone in which the agent writes them. Two empty lists elsewhere.
        Raises ValueError where they cannot be written.
        """
        if form_of(self._sshd) is not EndForm.LOCAL:
            return [], []
        now = int(time.time())
        moments = [now + _LATER_SECONDS, now - _PASSED_SECONDS]
        try:
            texts = write(moments, self._sshd.running.zone())
        except AccountProblem as problem:
            raise ValueError(f"no end can be written in its local time: {problem}") from None
        later, passed = ([authorized_keys.expiry_option(texts[moment] or "")] for moment in moments)
        return later, passed

    def _accounts(self, verdicts: List[Verdict]) -> List[Tuple[str, str]]:
        """The accounts to ask with, each with a key that sshd must accept (or ""): accounts that the document lets in;
        where it lets nobody in, others without a key.
        """
        accounts: List[Tuple[str, str]] = []
        for verdict in verdicts:
            opening = list(itertools.islice(verdict.opening(), _MAX_KEYS))
            # If a directory service no longer answers, sshd refuses all of its accounts.
            may = opening and len(accounts) < _MAX_ACCOUNTS and lookup.exists(verdict.username)
            if may and self._check.near(verdict.username) is not None:
                free = [key.public_key for key in opening if not _asks_for_a_place(key.options)]
                accounts.append((verdict.username, free[0] if free else ""))
        if accounts:
            return accounts
        own = pwd.getpwuid(os.geteuid()).pw_name
        names = [own, *(verdict.username for verdict in verdicts), *_some_accounts()]
        able = (name for name in dict.fromkeys(names) if lookup.exists(name) and self._is_able(name))
        return [(name, "") for name in itertools.islice(able, _MAX_ACCOUNTS)]

    def _is_able(self, name: str) -> bool:
        return not self._check.key_problem(name) and self._check.near(name) is not None


def _asks_for_a_place(options: Iterable[str]) -> bool:
    return any(option.lower().startswith("from=") for option in options)


def _some_accounts() -> List[str]:
    """Accounts to ask with where none of the document can be used: the first ones with a usual shell."""
    people = (account.pw_name for account in pwd.getpwall() if os.path.basename(account.pw_shell) in _SHELLS)
    return list(itertools.islice(people, _MAX_ACCOUNTS))


def _places(listeners: Iterable[Listener]) -> List[Tuple[str, int]]:
    """One address of each sshd process: a process with several has read its settings once for all."""
    places: Dict[object, Tuple[str, int]] = {}
    for one in sorted(listeners, key=lambda one: not one.near[0].startswith("127.")):
        places.setdefault(one.owners or one.inode, one.near)
    return list(places.values())


def _bytes(folder: Folder, name: str) -> bytes:
    try:
        return folder.read(name, _LARGEST_FILE)
    except FileNotFoundError:
        return b""
