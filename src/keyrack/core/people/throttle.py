"""How often anybody may try to prove who they are, by address and by account; must decide no proof itself.

Every way to prove oneself goes through `prove`. The rules, which docs/decisions/0090 argues:

1. Wrong proofs spend what an address has. While it has none left, its proofs are refused untried, right or wrong.
2. But what held before from that address is tried all the same, so that guesses from behind somebody's NAT or
   proxy do not shut that somebody out. A password can be guessed, so there it is the account that was signed in to
   from that address which has a small allowance of its own.
3. Wrong passwords also spend what the account has, from wherever they come. While it has none left, an address
   that never signed in to it has two tries a day: no crowd of strangers shuts its owner out, wherever the owner is.
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
"""Wrong passwords that one account stands before strangers get their two tries; ten come back a minute."""
FEW = 2
WIDER = 16
"""How much more than one network of 64 bits the 48 bits around it may spend: whoever has one has 65,536 of them."""
MOST_BUCKETS = 50_000
MOST_KNOWN = 100_000


@dataclass(frozen=True, slots=True)
class _Allowance:
    """What may be spent at once, and the seconds in which all of it comes back."""

    most: int
    seconds: float


class Throttle:
    """The counts of one process, in bounded memory: what was not used longest is forgotten first.

    passwords, proofs: how many wrong passwords, and how many wrong proofs of other kinds, one address may send
    within a minute; processes: how many serve side by side, each of which gives out its share of all this.
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
        """Told of each wrong proof: its kind, and "wrong" or "untried"."""

    def prove(
        self,
        kind: str,
        address: str,
        proof: Hashable,
        attempt: Callable[[], T],
        *,
        is_guess: Callable[[Exception], bool] = lambda error: is_unauthenticated(error),
    ) -> T:
        """What `attempt` answers, unless too many wrong proofs came; raises Refusal THROTTLED then.

        kind: one of the words above; proof: what is known by it later, e.g. the hash of a token, or with PASSWORD
        the account; is_guess: whether what attempt raised means that the proof was wrong.
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
        """Take one of the tries that an address has for one account or key; answers how to give it back.

        most: how many there are, all of which come back within seconds. Raises Refusal THROTTLED.
        """
        with self._lock:
            costs = [((kind, name, network(address)), _Allowance(most, seconds))]
            spent = self._take(kind, costs, self._clock())
        return lambda: self._give_back(spent)

    def knows(self, kind: str, address: str, proof: Hashable) -> bool:
        """Whether a proof held before from an address."""
        return (kind, proof, network(address)) in self._known

    def is_home(self, address: str) -> bool:
        """Whether anybody ever signed in from an address with a password."""
        return network(address) in self._homes

    def _spend(self, kind: str, address: str, proof: Hashable) -> list[tuple[Hashable, _Allowance]]:
        """Take what this try costs before it is made, so that a hundred at once are no more than one by one."""
        where = network(address)
        known = (kind, proof, where) in self._known
        if known and kind != PASSWORD:
            return []
        allowance = self._passwords if kind == PASSWORD else self._proofs
        group = PASSWORD if kind == PASSWORD else "proof"
        with self._lock:
            now = self._clock()
            if known:
                return self._take(kind, [((proof, where), allowance)], now)
            costs: list[tuple[Hashable, _Allowance]] = [((group, where), allowance)]
            if ":" in where:
                wide = _Allowance(allowance.most * WIDER, allowance.seconds)
                costs.append(((group, _prefix(where, 48)), wide))
            if kind != PASSWORD:
                return self._take(kind, costs, now)
            account: tuple[Hashable, _Allowance] = (("account", proof), self._account)
            first: tuple[Hashable, _Allowance] = (("first", proof, where), self._few)
            costs.append(account if self._level(*account, now) >= 1 else first)
            spent = self._take(kind, costs, now)
            if costs[-1] is account and self._level(*first, now) >= 1:
                spent += self._take(kind, [first], now)
            return spent

    def _take(
        self, kind: str, costs: Iterable[tuple[Hashable, _Allowance]], now: float
    ) -> list[tuple[Hashable, _Allowance]]:
        taken = list(costs)
        levels = [self._level(name, allowance, now) for name, allowance in taken]
        wait = 0.0
        for level, (_, allowance) in zip(levels, taken, strict=True):
            if level < 1:
                wait = max(wait, (1 - level) * allowance.seconds / allowance.most)
        if wait:
            self.on_wrong_proof(kind, "untried")
            raise too_many(math.ceil(min(wait, 3600)))
        for level, (name, _) in zip(levels, taken, strict=True):
            self._set(name, level - 1, now)
        return taken

    def _level(self, name: Hashable, allowance: _Allowance, now: float) -> float:
        level, at = self._buckets.get(name, (float(allowance.most), now))
        return min(float(allowance.most), level + (now - at) * allowance.most / allowance.seconds)

    def _set(self, name: Hashable, level: float, now: float) -> None:
        self._buckets[name] = (level, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > MOST_BUCKETS:
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
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
            if name[0] == PASSWORD:
                self._homes[name[2]] = None
                self._homes.move_to_end(name[2])
                if len(self._homes) > MOST_KNOWN:
                    self._homes.popitem(last=False)


def _share(most: int, processes: int) -> int:
    """What one of several processes gives out; never nothing, or it would let nobody try."""
    return max(1, most // processes)


def is_unauthenticated(error: Exception) -> bool:
    """Whether an error says that a proof was wrong."""
    return isinstance(error, Refusal) and error.kind is Kind.UNAUTHENTICATED


def too_many(wait: int) -> Refusal:
    """The refusal of a proof that is not tried; wait: whole seconds."""
    words = f"Too many wrong passwords, tokens or keys were sent from your address. Try again in {wait} seconds."
    return Refusal(Kind.THROTTLED, "too-many-guesses", words, retry_after=wait)


def name_of(*claimed: str | None) -> bytes:
    """What stands for an account that is only claimed, so that those that do not exist are treated alike."""
    text = "\0".join(part or "" for part in claimed)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


@lru_cache(maxsize=10_000)
def network(address: str) -> str:
    """What counts as one address: an IPv4 address, or the 64 bits of an IPv6 address that one customer gets."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped) if parsed.ipv4_mapped else _prefix(str(parsed), 64)
    return str(parsed)


def _prefix(address: str, bits: int) -> str:
    return str(ipaddress.ip_network(f"{address.partition('/')[0]}/{bits}", strict=False))
