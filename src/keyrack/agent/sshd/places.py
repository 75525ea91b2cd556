"""Lists the addresses to judge logins from: at least one of each kind that sshd's rules tell apart; must ask neither
sshd nor the DNS.

Rules name addresses, networks and patterns (sshd_config(5): Match, AllowUsers, DenyUsers). A few addresses of each
stand for all that it names, and a few that no rule names stand for the rest. Only possible connections count: none from
another machine to loopback, and none by IPv6 to IPv4.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import re
import secrets
import socket
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from keyrack.agent.sshd.listening import Listener

HERE = "127.0.0.1"
ASKING = "127.83.71.3"  # one of asking_address()
_NEAR, _NEAR_6 = (HERE, ASKING, "127.0.0.2"), ("::1",)
_FAR = ("192.0.2.1", "198.51.100.77", "203.0.113.9", "192.88.99.2")  # of nobody (RFC 5737, RFC 7526)
_FAR_6 = ("2001:db8::1", "2001:db8:ffff::77")  # of nobody (RFC 3849)
_MAX = 64  # of the addresses, and of the host names, that rules name
_MAX_OF_KEY = 256  # the same for those that one key names (options.py takes so many)
_WHOLE = 4  # numbers of an IPv4 address


class Place(NamedTuple):
    """A way in. address: the client's; host: the name that sshd has for it; local, port: the server's address and port,
    None for the usual ones; usual: it stands for all addresses that no rule names.
    """

    address: str
    host: str
    local: Optional[str] = None
    port: Optional[int] = None
    usual: bool = True


class _Endpoint(NamedTuple):
    """An address and port that sshd listens on, and the address families that reach it."""

    local: Optional[str]
    port: Optional[int]
    near_only: bool
    families: Tuple[int, ...]


def asking_address() -> str:
    """A random loopback address to ask the running sshd from. sshd refuses addresses with failed logins for a while
    (PerSourcePenalties, since 9.8): a question must neither be refused for others' failures nor have others refused.
    """
    return f"127.83.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"


def ways_in(
    listeners: Iterable[Listener], named: Iterable[str], more: Iterable[str] = (), *, by_ends: bool, names_hosts: bool
) -> Tuple[Place, ...]:
    """Every way in worth asking about, those from this host first. named: the patterns of addresses in sshd's rules;
    more: other patterns of interest; by_ends: whether a rule depends on the server's address or port; names_hosts:
    whether sshd asks the DNS for names (UseDNS).
    """
    patterns, others = _parts(named), _parts(more)
    (addresses, hosts), wanted = _samples(patterns), _samples(others, _MAX_OF_KEY)
    addresses, hosts = list(dict.fromkeys(addresses + wanted[0])), list(dict.fromkeys(hosts + wanted[1]))
    places: List[Place] = []
    for endpoint in _endpoints(listeners, by_ends=by_ends):
        for address, usual in _client_addresses(endpoint, addresses, patterns):
            host = "localhost" if names_hosts and _is_near(address) else address
            places.append(Place(address, host, endpoint.local, endpoint.port, usual))
        if names_hosts and not endpoint.near_only:
            far = _FAR[0] if socket.AF_INET in endpoint.families else _FAR_6[0]
            places += [Place(far, host, endpoint.local, endpoint.port, False) for host in hosts]
    return tuple(dict.fromkeys(places))


def from_addresses(
    listeners: Iterable[Listener], addresses: Iterable[str], *, by_ends: bool, names_hosts: bool
) -> Tuple[Place, ...]:
    """The ways in from these client addresses; where sshd asks the DNS for their names, the host is left empty."""
    places: List[Place] = []
    for endpoint in _endpoints(listeners, by_ends=by_ends):
        for address in addresses:
            if _can_reach(address, endpoint):
                places.append(Place(address, "" if names_hosts else address, endpoint.local, endpoint.port, False))
    return tuple(dict.fromkeys(places))


def may_name(pattern: str, place: Place) -> bool:
    """Whether a list of patterns may name a place: as names(), and True where it has host names and the place's host is
    unknown.
    """
    if not place.host and any(not list(_of_pattern(part)) and part.strip("*?") for part in _parts([pattern])):
        return _listed(pattern, place.address, networks=True) >= 0
    return names(pattern, place)


def names(pattern: str, place: Place) -> bool:
    """Whether a pattern of AllowUsers or DenyUsers, or a comma-separated list of them, names a place (match.c,
    match_host_and_ip).
    """
    by_address = _listed(pattern, place.address, networks=True)
    by_host = _listed(pattern, place.host.lower(), networks=False)
    return by_address >= 0 and by_host >= 0 and bool(by_address or by_host)


def near_among(places: Iterable[Place]) -> Optional[str]:
    """The address of one of these places that this host itself can connect from; "" for any that questions come from
    (asking_address), None where there is none.
    """
    addresses = {place.address for place in places}
    if ASKING in addresses:
        return ""
    return next((address for address in sorted(addresses) if _is_near(address) or _is_own(address)), None)


def match_key(patterns: Sequence[str], place: Place) -> Tuple[object, ...]:
    """A key that is equal for two places unless a Match with one of these patterns tells them apart."""
    by_value = (
        (_listed(pattern, place.address, networks=True), _listed(pattern, place.host.lower(), networks=False))
        for pattern in patterns
    )
    return (place.local, place.port, ":" in place.address, *by_value)


def like(pattern: str, text: str) -> bool:
    """Whether a pattern matches a text (ssh_config(5), PATTERNS: only * and ? are special)."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text, re.DOTALL) is not None


def _listed(patterns: str, text: str, *, networks: bool) -> int:
    """1 where a pattern of a comma-separated list matches, -1 where one with ! does (which ends the search), else 0."""
    verdict = 0
    for part in patterns.split(","):
        negated, part = part.startswith("!"), part[1:] if part.startswith("!") else part
        if like(part if networks else part.lower(), text) or (networks and _within(part, text)):
            if negated:
                return -1
            verdict = 1
    return verdict


def _within(network: str, address: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address) in ipaddress.ip_network(network)
    return False


def _endpoints(listeners: Iterable[Listener], *, by_ends: bool) -> Sequence[_Endpoint]:
    distinct: Dict[_Endpoint, None] = {}
    usual = {"0.0.0.0": None, "::": "::1"}  # noqa: S104 - what sshd listens on, not we
    for listener in listeners:
        is_4 = ":" not in listener.address
        # systemd's socket for any IPv6 address takes IPv4 too; sshd's own does not.
        families: Tuple[int, ...] = (socket.AF_INET,) if is_4 else (socket.AF_INET6,)
        if listener.is_systemds and listener.address == "::":
            families = (socket.AF_INET, socket.AF_INET6)
        local, port = (usual.get(listener.address, listener.address), listener.port) if by_ends else (None, None)
        endpoint = _Endpoint(local, port, _is_near(listener.address), families)
        distinct[endpoint] = None
    # In a fixed order, loopback first.
    endpoints = sorted(
        distinct,
        key=lambda one: (one.local not in (None, HERE), one.families, one.port or 0, one.local or ""),
    )
    return endpoints or [_Endpoint(None, None, False, (socket.AF_INET,))]


def _client_addresses(
    endpoint: _Endpoint, addresses: Sequence[str], patterns: Sequence[str]
) -> Iterator[Tuple[str, bool]]:
    """Addresses from which a client can reach an endpoint, each with whether it stands for those that no rule names."""
    for family in endpoint.families:
        near, far = (_NEAR, _FAR) if family == socket.AF_INET else (_NEAR_6, _FAR_6)
        yield near[0], True
        for kind in (near[1:],) if endpoint.near_only else (near[1:], far):
            # Where rules name all of these, the first is taken all the same.
            unnamed = (one for one in kind if not any(_names_closely(pattern, one) for pattern in patterns))
            usual = next(itertools.chain(unnamed, kind), None)
            if usual is not None:
                yield usual, kind is far or endpoint.near_only
        for address in addresses:
            if _family(address) == family and _can_reach(address, endpoint):
                yield address, False


def _can_reach(address: str, endpoint: _Endpoint) -> bool:
    return _family(address) in endpoint.families and (not endpoint.near_only or _is_near(address) or _is_own(address))


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _parts(lists: Iterable[str]) -> List[str]:
    return [part.lstrip("!") for text in lists for part in text.split(",")]


def _names_closely(pattern: str, address: str) -> bool:
    """Whether a pattern names an address, but not all addresses."""
    if pattern in ("*", "0.0.0.0/0", "::/0"):
        return False
    return like(pattern, address) or _within(pattern, address)


def _samples(patterns: Iterable[str], most: int = _MAX) -> Tuple[List[str], List[str]]:
    """Up to `most` addresses that these patterns name, and up to `most` host names."""
    addresses: Dict[str, None] = {}
    hosts: Dict[str, None] = {}
    for pattern in patterns:
        matching = list(_of_pattern(pattern))
        for address in matching:
            addresses[address] = None
        if not matching and pattern.strip("*?"):
            hosts[pattern.replace("*", "a").replace("?", "a").lower()] = None
    return list(addresses)[:most], list(hosts)[:most]


def _of_pattern(pattern: str) -> Iterator[str]:
    with contextlib.suppress(ValueError):
        network = ipaddress.ip_network(pattern)
        few = network.num_addresses <= 2
        yield from dict.fromkeys((str(network[0 if few else 1]), str(network[-1 if few else -2])))
        return
    if re.fullmatch(r"[0-9.*?]+", pattern) and pattern.strip("*?"):
        for filling in ("1", "2", "254"):
            for count in range(1, _WHOLE + 1):
                text = (
                    pattern.replace("?", filling[:1]).replace("*", ".".join([filling] * count), 1).replace("*", filling)
                )
                with contextlib.suppress(ValueError):
                    yield str(ipaddress.IPv4Address(text))
                    break
    elif re.fullmatch(r"[0-9a-f:.*?]+", pattern) and ":" in pattern:
        for filling in ("1", "1::1", "::1", "fe"):
            with contextlib.suppress(ValueError):
                yield str(ipaddress.IPv6Address(pattern.replace("?", filling[:1]).replace("*", filling)))


def _is_near(address: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return False


def _is_own(address: str) -> bool:
    """Whether an address is this machine's own, so that a connection to loopback can come from it; nothing is sent."""
    with contextlib.suppress(OSError), socket.socket(_family(address), socket.SOCK_DGRAM) as asking:
        asking.bind((address, 0))
        return True
    return False
