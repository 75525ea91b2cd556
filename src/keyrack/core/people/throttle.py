"""How often anybody may try to prove who they are, by address and by account; must check no proof itself.

Every proof goes through `prove`. The rules, whose reasons are in docs/decisions/0090:

1. Wrong proofs use up the tries of their address. While it has none left, its proofs are refused untried, right or
   wrong.
2. A proof that held before from that address is tried all the same, so that guesses from behind a NAT or proxy do not
   shut out everybody else there. Passwords can be guessed, so there the account that signed in from that address has a
   few tries of its own.
3. Wrong passwords also use up the tries of their account, whatever address they come from. While it has none left,
   each address that never signed in to it has two tries a day, so that no crowd of strangers shuts the owner out.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from keyrack.errors import Kind, Refusal

T = TypeVar("T")

# The kinds of proof.
PASSWORD = "password"  # noqa: S105
TOKEN = "token"  # noqa: S105
BASIC = "basic"
SIGNATURE = "signature"
AGENT = "agent"
ENROLMENT = "enrolment"
METRICS = "metrics"

MINUTE = 60.0
DAY = 86_400.0
ACCOUNT_PASSWORDS = 50
"""Wrong passwords that one account takes before rule 3 leaves strangers two; ten come back in a minute."""
FEW = 2
WIDER = 16
"""Times as many tries as a /64 network has the /48 around it, whose owner has 65,536 of these."""
MAX_BUCKETS = 50_000
MAX_KNOWN = 100_000


@dataclass(frozen=True, slots=True)
class _Allowance:
    """How many tries there are at most, and the seconds in which all of them come back."""

    most: int
    seconds: float


class Throttle:
    """The counts of one process, in bounded memory: the least recently used are forgotten first.

    passwords, proofs: how many wrong passwords, and wrong proofs of other kinds, one address may send within a minute;
    processes: how many serve side by side; each counts alone, and so allows its share.
    """

    def __init__(
        self,
        passwords: int = 20,
        proofs: int = 600,
        clock: Callable[[], float] = time.monotonic,
        *,
        processes: int = 1,
    ) -> None:
        self._passwords = _Allowance(_share(passwords, processes), MINUTE)
        self._proofs = _Allowance(_share(proofs, processes), MINUTE)
        self._account = _Allowance(_share(ACCOUNT_PASSWORDS, processes), MINUTE * ACCOUNT_PASSWORDS / 10)
        self._few = _Allowance(_share(FEW, processes), DAY)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        self._known: OrderedDict[Hashable, None] = OrderedDict()
        self._homes: OrderedDict[str, None] = OrderedDict()
        self.on_wrong_proof: Callable[[str, str], None] = lambda kind, why: None
        """Called for each wrong proof with its kind, and "wrong" or "untried"."""

    def prove(
        self,
        kind: str,
        address: str,
        proof: Hashable,
        attempt: Callable[[], T],
        *,
        is_guess: Callable[[Exception], bool] = lambda error: is_unauthenticated(error),
    ) -> T:
        """The result of `attempt`. Raises Refusal THROTTLED, without calling it, after too many wrong proofs.

        kind: one of the constants above; proof: identifies it later, such as the hash of a token, or for PASSWORD the
        account; is_guess: whether an error of `attempt` means that the proof was wrong.
        """
        spent = self._spend(kind, address, proof)
        try:
            result = attempt()
        except Exception as error:
            if is_guess(error):
                self.on_wrong_proof(kind, "wrong")
            else:
                self._give_back(spent)
            raise
        self._give_back(spent)
        self._remember((kind, proof, network(address)))
        return result

    def guard(self, kind: str, name: Hashable, address: str, *, most: int, seconds: float) -> Callable[[], None]:
        """Take one of the tries of an address for one account or key; answers a function that gives it back.

        most: how many there are; seconds: in which all come back. Raises Refusal THROTTLED.
        """
        with self._lock:
            costs = [((kind, name, network(address)), _Allowance(most, seconds))]
            spent = self._take(kind, costs, self._clock())
        return lambda: self._give_back(spent)

    def knows(self, kind: str, address: str, proof: Hashable) -> bool:
        """Whether a proof has held before from an address."""
        return (kind, proof, network(address)) in self._known

    def is_home(self, address: str) -> bool:
        """Whether anybody has ever signed in from an address with a password."""
        return network(address) in self._homes

    def _spend(self, kind: str, address: str, proof: Hashable) -> list[tuple[Hashable, _Allowance]]:
        """Take what a proof costs before it is checked, so that many at once cost as much as one after another."""
        where = network(address)
        known = (kind, proof, where) in self._known
        if known and kind != PASSWORD:
            return []  # rule 2
        allowance = self._passwords if kind == PASSWORD else self._proofs
        group = PASSWORD if kind == PASSWORD else "proof"
        with self._lock:
            now = self._clock()
            if known:
                return self._take(kind, [((proof, where), allowance)], now)  # rule 2
            costs: list[tuple[Hashable, _Allowance]] = [((group, where), allowance)]  # rule 1
            if ":" in where:
                wide = _Allowance(allowance.most * WIDER, allowance.seconds)
                costs.append(((group, _prefix(where, 48)), wide))
            if kind != PASSWORD:
                return self._take(kind, costs, now)
            account: tuple[Hashable, _Allowance] = (("account", proof), self._account)  # rule 3
            first: tuple[Hashable, _Allowance] = (("first", proof, where), self._few)
            costs.append(account if self._level(*account, now) >= 1 else first)
            spent = self._take(kind, costs, now)
            if costs[-1] is account and self._level(*first, now) >= 1:
                spent += self._take(kind, [first], now)
            return spent

    def _take(
        self, kind: str, costs: Iterable[tuple[Hashable, _Allowance]], now: float
    ) -> list[tuple[Hashable, _Allowance]]:
        all_costs = list(costs)
        levels = [self._level(name, allowance, now) for name, allowance in all_costs]
        wait = 0.0
        for level, (_, allowance) in zip(levels, all_costs, strict=True):
            if level < 1:
                wait = max(wait, (1 - level) * allowance.seconds / allowance.most)
        if wait:
            self.on_wrong_proof(kind, "untried")
            raise too_many(math.ceil(min(wait, 3600)))
        for level, (name, _) in zip(levels, all_costs, strict=True):
            self._set(name, level - 1, now)
        return all_costs

    def _level(self, name: Hashable, allowance: _Allowance, now: float) -> float:
        level, at = self._buckets.get(name, (float(allowance.most), now))
        return min(float(allowance.most), level + (now - at) * allowance.most / allowance.seconds)

    def _set(self, name: Hashable, level: float, now: float) -> None:
        self._buckets[name] = (level, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)

    def _give_back(self, spent: list[tuple[Hashable, _Allowance]]) -> None:
        if not spent:
            return
        with self._lock:
            now = self._clock()
            for name, allowance in spent:
                self._set(name, min(float(allowance.most), self._level(name, allowance, now) + 1), now)

    def _remember(self, name: tuple[str, Hashable, str]) -> None:
        with self._lock:
            self._known[name] = None
            self._known.move_to_end(name)
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
            if name[0] == PASSWORD:
                self._homes[name[2]] = None
                self._homes.move_to_end(name[2])
                if len(self._homes) > MAX_KNOWN:
                    self._homes.popitem(last=False)


def _share(most: int, processes: int) -> int:
    """The share of one of several processes; at least 1, or it would let nobody try."""
    return max(1, most // processes)


def is_unauthenticated(error: Exception) -> bool:
    """Whether an error says that a proof was wrong."""
    return isinstance(error, Refusal) and error.kind is Kind.UNAUTHENTICATED


def too_many(wait: int) -> Refusal:
    """The refusal of a proof that is not tried; wait: whole seconds."""
    words = f"Too many wrong passwords, tokens or keys were sent from your address. Try again in {wait} seconds."
    return Refusal(Kind.THROTTLED, "too-many-guesses", words, retry_after=wait)


def name_of(*claimed: str | None) -> bytes:
    """A hash for an account that somebody claims, so that accounts that do not exist are treated alike."""
    text = "\0".join(part or "" for part in claimed)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


@lru_cache(maxsize=10_000)
def network(address: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 /64, which one customer has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped) if parsed.ipv4_mapped else _prefix(str(parsed), 64)
    return str(parsed)


def _prefix(address: str, bits: int) -> str:
    return str(ipaddress.ip_network(f"{address.partition('/')[0]}/{bits}", strict=False))
