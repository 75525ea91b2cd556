"""Finds the HTTP proxy to the service, by a setting or by the usual environment; must connect to nothing.

As curl does: HTTPS_PROXY or https_proxy for https, http_proxy (only in lower case) for http, ALL_PROXY for both.
NO_PROXY names hosts, domains, addresses and networks that are reached without a proxy, or `*` for all.
"""

from __future__ import annotations

import base64
import ipaddress
from typing import Mapping, NamedTuple, Optional
from urllib.parse import unquote, urlsplit

NONE = "none"  # a setting: no proxy, whatever the environment says


class ProxyProblem(ValueError):
    """A URL that no usable proxy has; the words say what one is like."""


class Proxy(NamedTuple):
    """A proxy that speaks HTTP. authorization: the value of Proxy-Authorization, empty for none."""

    host: str
    port: int
    authorization: str = ""

    @property
    def name(self) -> str:
        """Its name for people, without the password."""
        return f"{self.host}:{self.port}"


def find(url: str, setting: Optional[str], environment: Mapping[str, str]) -> Optional[Proxy]:
    """The proxy for the service at this URL; None for none. setting: a proxy's URL, "none", or None to use the
    environment. Raises ProxyProblem.
    """
    if setting is not None:
        return None if setting == NONE else _read(setting)
    named = said(url, environment)
    return None if named is None else _read(named)


def said(url: str, environment: Mapping[str, str]) -> Optional[str]:
    """The proxy that the environment names for this URL, as it is written there; None for none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    names = ("HTTPS_PROXY", "https_proxy") if parts.scheme == "https" else ("http_proxy",)
    named = next(filter(None, map(environment.get, (*names, "ALL_PROXY", "all_proxy"))), None)
    spared = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    return None if named is None or _is_near(host) or is_spared(host, spared) else named


def is_spared(host: str, patterns: str) -> bool:
    """Whether NO_PROXY names a host."""
    host = host.lower().rstrip(".")
    for pattern in patterns.replace(",", " ").split():
        name = pattern.lower().rstrip(".")
        if name == "*" or _is_in(host, name):
            return True
        name = name.lstrip("*").lstrip(".")
        if name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _is_in(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network.strip("[]"), strict=False)
    except ValueError:
        return False


def _is_near(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(text: str) -> Proxy:
    words = "the proxy (--proxy, HTTPS_PROXY) is no address like http://proxy.example.org:3128"
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ProxyProblem(words) from None
    if parts.scheme != "http" or not host:
        raise ProxyProblem(f"{words}; others than http:// are not spoken" if host else words)
    if parts.username is None:
        return Proxy(host, port or 80)
    proof = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return Proxy(host, port or 80, f"Basic {base64.b64encode(proof).decode('ascii')}")
