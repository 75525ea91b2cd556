"""Which addresses named by others Keyrack speaks to: public ones, and those of given networks; must connect nowhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Addresses by which networks without IPv4 reach those with it (RFC 6052)."""


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address, as getaddrinfo writes it, is in one of the networks."""
    read = ipaddress.ip_address(address.partition("%")[0])
    return any(read in network for network in networks)


def is_public(address: str) -> bool:
    """Whether an address, as getaddrinfo writes it, is one of the whole internet's and of one machine; also where a
    gateway makes an IPv4 address of it.
    """
    read = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(read, ipaddress.IPv6Address):
        if read in NAT64:
            return is_public(str(ipaddress.IPv4Address(read.packed[-4:])))
        plain = read.ipv4_mapped or read.sixtofour
        if plain is not None:
            return is_public(str(plain))
        if read.is_site_local:
            return False
    return read.is_global and not read.is_multicast and not read.is_reserved


def is_private_host(host: str, networks: Iterable[Network]) -> bool:
    """Whether the host of a URL is a private address by itself, outside the networks. Of a name nothing is known yet:
    it is judged by its addresses when it is asked.
    """
    if host.rstrip(".").lower().rpartition(".")[2] == "localhost":
        return not (is_within("127.0.0.1", networks) or is_within("::1", networks))
    try:
        return not is_public(host) and not is_within(host, networks)
    except ValueError:
        return False
