"""The browser of a visit, as passkeys (WebAuthn) know it: origin, host, cookie; must check no passkey."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from keyrack.core.people.passkeys import Browser
from keyrack.web.console import safety
from keyrack.web.console.visits import Visit


def of(visit: Visit) -> Browser | None:
    """A visit's browser; None where browsers make no passkeys: at an address instead of a name, or in the clear."""
    host = visit.request.url.hostname or ""
    named = urlsplit(visit.instance.settings.url)
    secure = safety.is_secure(visit.instance, visit.request)
    if _is_address(host) or not (secure or safety.is_loopback(host)):
        return None
    # Whoever sends another name in Host is no browser of ours.
    if host != named.hostname and not safety.is_loopback(host):
        return None
    origin = f"{'https' if secure else 'http'}://{visit.request.url.netloc}"
    return Browser(origin=origin, host=host, cookie=visit.secret)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
