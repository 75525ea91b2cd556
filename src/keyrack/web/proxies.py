"""Where a request comes from behind proxies; must trust no proxy that the settings do not name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.types import Scope

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Headers that proxies add: who sends one stands behind a proxy, or pretends to.
SIGNS = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via"})
MAX_HOPS = 20
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]+)', re.IGNORECASE)
_PROTO = re.compile(r'(?:^|;)\s*proto\s*=\s*"?(https?)"?\s*(?:;|$)', re.IGNORECASE)


class Proxies:
    """Puts the client's address in place of a trusted proxy's, and marks what else came through a proxy.

    The header's last entry was written by the proxy that we talk to, the one before it by the one before that: the
    client is the last one that no trusted proxy has. What stands left of it anybody can have written.
    """

    def __init__(self, trusted: Iterable[Network], header: str) -> None:
        self._trusted = tuple(trusted)
        self._header = header.encode()

    def set_client(self, scope: Scope) -> None:
        """Put the client's address into a request's scope, the only place that says where the request comes from."""
        client = scope.get("client")
        peer = _address(client[0]) if client and self._trusted else None
        headers = scope["headers"]
        if peer is None or not self._trusts(peer):
            scope.setdefault("state", {})["shared_address"] = not SIGNS.isdisjoint([name for name, _ in headers])
            return
        said = ",".join(value.decode("latin-1") for name, value in headers if name == self._header)
        client_address: Address = peer
        for hop in reversed(said.split(",")[-MAX_HOPS:]):
            address = _address(_node(hop) if self._header == b"forwarded" else hop)
            if address is None:
                break  # what a trusted proxy wrote there names nobody; the proxy itself is the best we know
            client_address = address
            if not self._trusts(address):
                break
        # A trusted proxy that names nobody leaves only its own address, which all its clients have.
        scope.setdefault("state", {})["shared_address"] = self._trusts(client_address)
        scope["client"] = (str(client_address), 0)
        scheme = self._scheme(headers, said)
        if scheme:
            scope["scheme"] = scheme

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def _scheme(self, headers: Iterable[tuple[bytes, bytes]], said: str) -> str:
        if self._header == b"forwarded":
            match = _PROTO.search(said.split(",")[-1])
            return match[1].lower() if match else ""
        protos = [value for name, value in headers if name == b"x-forwarded-proto"]
        last = protos[-1].decode("latin-1").split(",")[-1].strip().lower() if protos else ""
        return last if last in ("http", "https") else ""


def _node(element: str) -> str:
    match = _FOR.search(element)
    return match[1].strip('"') if match else ""


def _address(text: str) -> Address | None:
    """An address as proxies write it: plain, with a port, in brackets; None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address
