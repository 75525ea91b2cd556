"""Classifies requests by caller, for fair queueing, before their credentials are checked; must not decide who a caller
is, nor what they may do.

A token or cookie counts as its user's only if it was accepted lately from the same address, so that nobody can use up
another user's share. Of a signature only the part with the access key's id counts, as each signature is different.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from starlette.requests import Request

from keyrack.core.people.throttle import network

MAX_KNOWN = 100_000
_SIGNATURE = b"SDK-"
MARK = "mark"
"""The key in a request's state of the hash of its credentials, which is needed twice."""
PROOFS = (b"authorization", b"x-auth-token", b"private-token")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose share a request uses: a user's, a host's, or that of all requests of an address without known credentials.

    known: the credentials were accepted before; at_home: somebody signed in from this address before, also by password.
    """

    name: Hashable
    known: bool = False
    at_home: bool = False


def is_signed(request: Request) -> bool:
    """Whether a request is signed, so that its body is needed to check who sent it."""
    return any(name == b"authorization" and value.startswith(_SIGNATURE) for name, value in request.scope["headers"])


def _network_of(request: Request) -> str:
    client = request.scope.get("client")
    return network(client[0] if client else "")


class Callers:
    """Which credentials were accepted lately, and whose they are; only keyed hashes of them are kept."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, Hashable] = OrderedDict()

    def of(self, request: Request, *, at_home: bool = False) -> Caller:
        """Whose share a request uses. at_home: as in Caller, for a request without known credentials."""
        address = _network_of(request)
        mark = self._mark(request, address)
        who = None if mark is None else self._known.get(mark)
        if mark is None or who is None:
            return Caller(("address", address), at_home=at_home)
        self._known.move_to_end(mark)
        return Caller(who, known=True, at_home=True)

    def accepted(self, request: Request, who: Hashable) -> None:
        """Note that a request's credentials were accepted; who: whose they are, the name for its Caller."""
        mark = self._mark(request, _network_of(request))
        if mark is not None:
            self._known[mark] = who
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)

    def rejected(self, request: Request) -> None:
        """Note that a request's credentials were rejected. Not a signature's: anybody can put another's id into one."""
        if is_signed(request):
            return
        mark = self._mark(request, _network_of(request))
        if mark is not None:
            self._known.pop(mark, None)

    def _mark(self, request: Request, address: str) -> bytes | None:
        """The keyed hash of a request's credentials; None for none."""
        kept = request.scope.setdefault("state", {})
        if MARK not in kept:
            kept[MARK] = self._made(request, address)
        mark: bytes | None = kept[MARK]
        return mark

    def _made(self, request: Request, address: str) -> bytes | None:
        headers = request.scope["headers"]
        # A browser's credentials are its cookies; all count, as other sites on the same host may have set some.
        proofs = [value for name, value in headers if name in PROOFS] or [
            value for name, value in headers if name == b"cookie"
        ]
        if not proofs:
            return None
        counted = [proof.partition(b",")[0] if proof.startswith(_SIGNATURE) else proof for proof in proofs]
        text = b"\n".join((address.encode("utf-8", "surrogatepass"), *counted))
        return hashlib.blake2b(text, key=self._key, digest_size=16).digest()
