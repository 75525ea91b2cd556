"""Cookies, headers and tokens that keep other sites from acting as the console; must know no page."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal

FIELD = "csrf"
HEADER = "x-csrf-token"
SAFE = ("GET", "HEAD")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
NO_STORE = "no-store"
SESSION, FORM, SAID, STEP = "keyrack", "keyrack-form", "keyrack-said", "keyrack-step"
_LOOPBACK = ("localhost",)


def is_secure(instance: Instance, request: Request) -> bool:
    """Whether the browser speaks TLS: to us, or to a proxy in front of the address that the settings name."""
    return request.url.scheme == "https" or instance.settings.url.startswith("https://")


def refuse_in_the_clear(instance: Instance, request: Request) -> None:
    """Refuse to sign anybody in where a password would cross a network as it is. Raises Refusal FORBIDDEN."""
    if is_secure(instance, request) or is_loopback(request.url.hostname or ""):
        return
    words = (
        "The console is used over https, as a password must cross no network in the clear. Put a proxy with TLS in "
        "front and set public_url, or open it over loopback: ssh -L 8022:127.0.0.1:8022 THIS-MACHINE."
    )
    raise Refusal(Kind.FORBIDDEN, "not-in-the-clear", words)


def is_loopback(host: str) -> bool:
    """Whether a host is this very machine to the browser."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host in _LOOPBACK or host.endswith(".localhost")


def cookie_name(instance: Instance, request: Request, name: str) -> str:
    """What a cookie is called: __Host- binds it to this host over TLS; over plain loopback browsers would refuse it."""
    return f"__Host-{name}" if is_secure(instance, request) else f"{name}-loopback"


def cookie(instance: Instance, request: Request, name: str) -> str:
    """A cookie's value, "" where there is none."""
    return request.cookies.get(cookie_name(instance, request, name), "")


def set_cookie(
    instance: Instance, request: Request, response: Response, name: str, value: str, *, seconds: int | None = None
) -> None:
    """Have the browser keep a cookie; value: "" deletes it; seconds: None until the browser is closed."""
    response.set_cookie(
        cookie_name(instance, request, name),
        value,
        max_age=0 if not value else seconds,
        path="/",
        secure=is_secure(instance, request),
        httponly=True,
        samesite="lax",
    )


def token(instance: Instance, secret: str) -> str:
    """What a form carries to show that it was made for the browser that holds this cookie; "" without a cookie."""
    return instance.key.hash_token("form of\x00" + secret).hex() if secret else ""


def new_secret() -> str:
    """A cookie's value that nobody can guess."""
    return secrets.token_urlsafe(32)


def check(instance: Instance, request: Request, secret: str, sent: str) -> None:
    """Refuse a change that did not come from a page of ours. secret: the cookie; sent: what its form carried.

    Browsers say where a form was: a page of another origin is refused by that alone. Raises Refusal FORBIDDEN.
    """
    words = "This form was not sent by the console, or your session has changed since. Open the page again."
    foreign = Refusal(Kind.FORBIDDEN, "form-foreign", words)
    site = request.headers.get("sec-fetch-site", "")
    if site not in ("", "same-origin", "none"):
        raise foreign
    origin = request.headers.get("origin", "null")
    if origin != "null" and not _is_ours(instance, request, origin):
        raise foreign
    if not secret or not hmac.compare_digest(token(instance, secret).encode(), sent.encode("utf-8", "replace")):
        raise foreign


def _is_ours(instance: Instance, request: Request, origin: str) -> bool:
    # A proxy that ends TLS may say so to nobody, so the scheme is the setting's there.
    _, _, place = origin.partition("://")
    return place == request.headers.get("host") or origin == _origin(instance.settings.url)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def signed(instance: Instance, text: str) -> str:
    """A text that a browser keeps and brings back, as we wrote it."""
    mark = instance.key.hash_token("said\x00" + text)[:16]
    return urlsafe_b64encode(mark + text.encode()).decode().rstrip("=")


def unsigned(instance: Instance, value: str) -> str:
    """The text again, "" where it is not as we wrote it."""
    try:
        raw = urlsafe_b64decode(value + "=" * (-len(value) % 4))
        text = raw[16:].decode()
    except ValueError:
        return ""
    return text if hmac.compare_digest(raw[:16], instance.key.hash_token("said\x00" + text)[:16]) else ""


def local_path(value: str) -> str:
    """An address of ours to go on to, "/" for any other: nobody is sent elsewhere by a link to us."""
    # What begins with one slash has neither scheme nor host (RFC 3986, 4.2); browsers take a backslash for one.
    ours = value.startswith("/") and not value.startswith("//")
    plain = value.isascii() and value.isprintable() and "\\" not in value
    return value if ours and plain and len(value) <= 2048 else "/"


def with_path(value: str, path: str) -> str:
    """A cookie's value and where to go on to, as one."""
    return f"{value}.{urlsafe_b64encode(path.encode()).decode().rstrip('=')}"


def without_path(value: str) -> tuple[str, str]:
    """Both again; the path is one of ours in any case."""
    held, _, path = value.partition(".")
    try:
        return held, local_path(urlsafe_b64decode(path + "=" * (-len(path) % 4)).decode())
    except ValueError:
        return held, "/"
