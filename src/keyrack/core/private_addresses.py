"""Which addresses that others name Keyrack may connect to: public ones and given networks; must connect nowhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from keyrack.errors import invalid
from keyrack.settings import Settings

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


def outgoing_url(
    settings: Settings, url: object, *, setting: str, words: str, plain_words: str, longest: int, query: bool
) -> str:
    """The URL of a service that Keyrack is to call, checked and otherwise as it was given. Raises Refusal INVALID.

    setting: the setting with the private networks that may be called, over http too; words: what the URL must be;
    plain_words: the same of http, where the setting names no network; query: whether the URL may have one. A URL with
    a user or a fragment is refused. What its name resolves to is checked when it is called (web/outgoing.py).
    """
    if not isinstance(url, str) or len(url) > longest or not url.isascii() or not url.isprintable() or " " in url:
        raise invalid("url", words)
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        valid = False
    # An empty query or fragment counts too: a path that is put behind it would be a part of it.
    if not valid or parts.scheme not in ("https", "http") or "#" in url or ("?" in url and not query):
        raise invalid("url", words)
    networks = settings.networks(setting)
    if parts.scheme == "http" and not networks:
        raise invalid("url", f"{words} {plain_words} that the service's setting {setting} names.")
    host = str(parts.hostname)
    if is_private_host(host, networks):
        private = f"{host} is a private address; the service's setting {setting} would allow it."
        raise invalid("url", private, "private-address")
    return url
