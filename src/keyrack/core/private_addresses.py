"""Which addresses that others name Keyrack may connect to: public ones and given networks; must connect nowhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv6 addresses that a gateway translates to IPv4 (RFC 6052)."""


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address, as getaddrinfo writes it, is in one of the networks."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return any(parsed in network for network in networks)


def is_public(address: str) -> bool:
    """Whether an address, as getaddrinfo writes it, is public unicast, also after a translation to IPv4."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed in NAT64:
            return is_public(str(ipaddress.IPv4Address(parsed.packed[-4:])))
        ipv4 = parsed.ipv4_mapped or parsed.sixtofour
        if ipv4 is not None:
            return is_public(str(ipv4))
        if parsed.is_site_local:
            return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


def is_private_host(host: str, networks: Iterable[Network]) -> bool:
    """Whether the host of a URL is itself a private address outside the networks.

    False for names: their addresses are judged when they are resolved.
    """
    if host.rstrip(".").lower().rpartition(".")[2] == "localhost":
        return not (is_within("127.0.0.1", networks) or is_within("::1", networks))
    try:
        return not is_public(host) and not is_within(host, networks)
    except ValueError:
        return False
