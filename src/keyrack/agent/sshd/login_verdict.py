"""The verdict on one account of a document: whether keys open it, from where, and for how long; must ask neither sshd
nor the system.

Enforcing needs more than a key that opens an account: the key must give a shell, for long enough, from an address that
people log in from.
"""

from __future__ import annotations

import itertools
import time
from typing import FrozenSet, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

from keyrack.agent.sshd import key_check, places
from keyrack.agent.sshd.places import Place
from keyrack.agent.sshd.settings import Effective
from keyrack.protocol.host_document import AuthorizedKey
from keyrack.ssh import public_key

_MAX_WORDS = 10
_MAX_NAMED = 3  # keys and addresses in one sentence


class KeyVerdict(NamedTuple):
    """One key of an account. why: the rule by which it does not open the account, in words; empty where it does."""

    key: AuthorizedKey
    why: str

    @property
    def fingerprint(self) -> str:
        """The key's SHA256 fingerprint."""
        return public_key.fingerprint_of(self.key.public_key)


class OpenPlaces(NamedTuple):
    """The ways in to an account from some addresses. open: those that no rule closes, each with sshd's settings for it;
    why: the rule that closes the others, in words, or that no login can come from there.
    """

    open: Tuple[Tuple[Place, Effective], ...] = ()
    why: str = ""


class RecentLogins(NamedTuple):
    """The recent logins, by this host's processes and log. addresses: they came from, newest first; keys: the
    fingerprints of the keys that sshd accepted.
    """

    addresses: Tuple[str, ...] = ()
    keys: FrozenSet[str] = frozenset()


NO_RECENT_LOGINS = RecentLogins()


class Verdict:
    """One account of a document. why: the rule that keeps everybody out of it, whatever the key, in words; empty where
    there is none.

    Its keys are judged only when they are asked for: most callers stop at the first that opens the account.
    """

    def __init__(
        self,
        username: str,
        why: str,
        keys: Sequence[AuthorizedKey],
        answers: Sequence[Effective],
        revoked: "set[str]",
        everywhere: bool = False,
        *,
        version: key_check.Version,
        sources: Mapping[str, OpenPlaces],
        seen: OpenPlaces = OpenPlaces(),  # noqa: B008 - a tuple
    ) -> None:
        """answers: sshd's settings for logins from this host, and from and to other addresses; everywhere: whether a
        key counts as refused only where all of these refuse it; version: of the running sshd; sources: by each `from`
        of the keys, the ways in from what it names; seen: the ways in from the addresses of recent logins.
        """
        self.username = username
        self.why = why
        self._keys = keys
        self._answers = answers
        self._revoked = revoked
        self._everywhere = everywhere
        self._version = version
        self._sources = sources
        self._seen = seen

    def judged(self) -> Iterator[KeyVerdict]:
        """A verdict on each of its keys."""
        return (self._judge(key) for key in self._keys)

    def opening(self) -> Iterator[AuthorizedKey]:
        """The keys that open it."""
        return iter(()) if self.why else (one.key for one in self.judged() if not one.why)

    def hindrances(self, until: float, recent: RecentLogins) -> Iterator[Tuple[AuthorizedKey, str]]:
        """Each key that opens it, and why nobody could repair this host with it until `until` (seconds since 1970);
        empty where somebody could. recent: the recent logins.
        """
        for key in self.opening():
            yield key, self._binding(key, until, recent) or self._elsewhere(key, recent)

    @property
    def words(self) -> str:
        """Why no key opens the account, in one line; empty where one does."""
        if next(self.opening(), None) is not None:
            return ""
        whys = "; ".join(sorted({one.why for one in self.judged()}))
        return f"no key opens the account {self.username}: {self.why or whys}"

    def _answers_for(self, key: AuthorizedKey) -> Sequence[Effective]:
        source = key_check.sources(key)
        return [answer for _, answer in self._sources[source].open] if source else self._answers

    def _judge(self, key: AuthorizedKey) -> KeyVerdict:
        whys = [self._problem(key, answer) for answer in self._answers_for(key)]
        source = key_check.sources(key)
        if source and not whys:
            return KeyVerdict(key, self._sources[source].why)
        # A key with `from` needs only one address that lets it in; so does every key where `everywhere` is set.
        accepted = [not why for why in whys]
        opens = any(accepted) if self._everywhere or source else all(accepted)
        return KeyVerdict(key, "" if opens else next(filter(None, whys)))

    def _problem(self, key: AuthorizedKey, answer: Effective) -> str:
        return key_check.problem(key, answer, self.username, self._revoked, self._version)

    def _binding(self, key: AuthorizedKey, until: float, recent: RecentLogins) -> str:
        if key_check.command(key):
            return "it runs one command alone (command=)"
        if key.expires_at is not None and key.expires_at.timestamp() <= until:
            return "its end is near"
        answers = self._answers_for(key)
        bound = [key_check.is_bound(answer, self.username) for answer in answers]
        if all(bound) if key_check.sources(key) else any(bound):
            return (
                "its account carries files, runs one command or is shut in (ForceCommand, ChrootDirectory, its shell)"
            )
        unsure = public_key.fingerprint_of(key.public_key) not in recent.keys
        if unsure and all(key_check.must_verify(key, answer) for answer in answers):
            return (
                "sshd wants its security key to check its user (verify-required), and that it does is known only once "
                "it has logged in here"
            )
        return ""

    def _elsewhere(self, key: AuthorizedKey, recent: RecentLogins) -> str:
        if not recent.addresses or not (self._seen.open or self._seen.why):
            return ""  # it is unknown where people log in from, or they no longer can in any case
        source = key_check.sources(key)
        whys = [self._seen.why] if self._seen.why else []
        for place, answer in self._seen.open:
            if source and not places.may_name(source, place):
                whys.append(f"it may come from {source} alone (from=)")
            elif key_check.is_bound(answer, self.username):
                whys.append("sshd keeps who comes from there to one command or one folder")
            else:
                why = self._problem(key, answer)
                if not why:
                    return ""
                whys.append(why)
        some = f" and {len(recent.addresses) - _MAX_NAMED} more" if len(recent.addresses) > _MAX_NAMED else ""
        where = ", ".join(recent.addresses[:_MAX_NAMED]) + some
        return f"{'; '.join(dict.fromkeys(whys))}, and logins came from {where}"


def opens_for_long(verdicts: Sequence[Verdict], seconds: float, recent: RecentLogins = NO_RECENT_LOGINS) -> bool:
    """Whether a key of these accounts gives a shell now and for so many seconds: with no forced command, no near end,
    and from the addresses of recent logins, as far as these are known.
    """
    until = time.time() + seconds
    return any(not why for verdict in verdicts for _, why in verdict.hindrances(until, recent))


def nobody_words(verdicts: Sequence[Verdict], seconds: float, recent: RecentLogins = NO_RECENT_LOGINS) -> List[str]:
    """Why opens_for_long() answers False: the accounts that no key opens, and what restricts the keys that open one."""
    until = time.time() + seconds
    hindered = (
        f"the key {public_key.fingerprint_of(key.public_key)} of {verdict.username}: {why}"
        for verdict in verdicts
        for key, why in verdict.hindrances(until, recent)
    )
    reasons = list(itertools.islice(hindered, _MAX_NAMED + 1))
    if len(reasons) > _MAX_NAMED:
        reasons[_MAX_NAMED:] = ["and others"]
    if reasons:
        reasons.append("give an account a key without such bounds, or log in once from where one of these may come")
    return words_of(verdicts) + reasons


def words_of(verdicts: Sequence[Verdict]) -> List[str]:
    """Why nobody can log in, one line for each account that no key opens; _MAX_WORDS accounts at most."""
    reasons = [words for words in (verdict.words for verdict in verdicts) if words]
    more = [f"and {len(reasons) - _MAX_WORDS} accounts more that no key opens"] if len(reasons) > _MAX_WORDS else []
    return reasons[:_MAX_WORDS] + more
