"""SDK-HMAC-SHA256: checks a signature over a request; pure, must know no database, API or framework."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote_from_bytes, unquote_to_bytes

ALGORITHM = "SDK-HMAC-SHA256"
SKEW = timedelta(minutes=15)
DATE_HEADER = "x-sdk-date"
HASH_HEADER = "x-sdk-content-sha256"
UNSIGNED_BODY = "UNSIGNED-PAYLOAD"
MAX_SIGNED_HEADERS = 100

_AUTHORIZATION = re.compile(
    r"SDK-HMAC-SHA256\s+Access=([A-Za-z0-9_-]{1,128})\s*,\s*"
    r"SignedHeaders=([A-Za-z0-9!#$%&'*+.^_`|~;-]{1,4000})\s*,\s*Signature=([0-9a-fA-F]{64})\s*",
    re.ASCII,
)
_DATE = re.compile(r"\d{8}T\d{6}Z", re.ASCII)


class BadSignature(Exception):
    """Why a signature does not count.

    message: for whoever signed; code: a slug, "signature-refused" where no API answers this case in words of its own;
    forged: this may be somebody's guess.
    """

    def __init__(self, message: str, code: str = "signature-refused", *, forged: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.forged = forged


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request as it came over the wire.

    path: as sent, percent-encoded, without the query; query: as sent, without "?"; headers: names in
    lower case with their values, one pair a line of the request; body: its raw bytes.
    """

    method: str
    path: bytes
    query: bytes
    headers: tuple[tuple[str, bytes], ...]
    body: bytes

    def header(self, name: str) -> bytes | None:
        """The value of a header without blanks at its ends, None where it is absent. Raises BadSignature for two."""
        values = [value for other, value in self.headers if other == name]
        if len(values) > 1:
            # Of two values one program may check the one and another use the other.
            raise BadSignature(f"the header {name} stands twice")
        return values[0].strip() if values else None


@dataclass(frozen=True, slots=True)
class SignatureClaim:
    """What an Authorization header claims: an access key's id, the names of the signed headers, the signature."""

    access_key: str
    signed_headers: tuple[str, ...]
    signature: str


def is_forged(error: Exception) -> bool:
    """Whether an error says that a signature may be somebody's guess."""
    return isinstance(error, BadSignature) and error.forged


def read_claim(authorization: str) -> SignatureClaim:
    """Parse an Authorization header. Raises BadSignature for other algorithms and malformed ones."""
    scheme = authorization.partition(" ")[0]
    if scheme.startswith(("SDK-", "V11-")) and scheme != ALGORITHM:
        raise BadSignature(f"the algorithm is not supported, use {ALGORITHM}")
    match = _AUTHORIZATION.fullmatch(authorization.strip())
    if match is None:
        raise BadSignature("the Authorization header is malformed")
    names = tuple(sorted(name.lower() for name in match[2].split(";")))
    if "" in names or len(set(names)) != len(names) or len(names) > MAX_SIGNED_HEADERS:
        raise BadSignature("the list of signed headers is malformed")
    if DATE_HEADER not in names:
        # Without it a captured request would stay good for ever.
        raise BadSignature("X-Sdk-Date must be among the signed headers")
    if "authorization" in names:
        raise BadSignature("Authorization cannot be among the signed headers")
    return SignatureClaim(match[1], names, match[3].lower())


def check_date(request: SignedRequest, now: datetime) -> str:
    """The X-Sdk-Date of a request, at most SKEW from now. Raises BadSignature."""
    text = (request.header(DATE_HEADER) or b"").decode("ascii", "replace")
    try:
        if not _DATE.fullmatch(text):
            raise ValueError(text)
        at = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise BadSignature("X-Sdk-Date must read like 20260203T040506Z") from None
    if abs(now - at) > SKEW:
        raise BadSignature("the signature expired: X-Sdk-Date is more than 15 minutes from the time here")
    return text


def check(request: SignedRequest, claim: SignatureClaim, secret: str, now: datetime) -> None:
    """Raises BadSignature unless this secret made the signature over this very request within SKEW."""
    date = check_date(request, now)
    for body_hash in _body_hashes(request):
        canonical = canonical_request(request, claim.signed_headers, body_hash)
        if hmac.compare_digest(claim.signature, sign(canonical, date, secret)):
            return
    # The canonical request is not echoed: it holds the values of signed headers, tokens among them.
    raise BadSignature("the signature is not the one of this access key", "signature-wrong", forged=True)


def sign(canonical: bytes, date: str, secret: str) -> str:
    """The signature over a canonical request, in hexadecimal; the secret itself is the HMAC key."""
    text = f"{ALGORITHM}\n{date}\n{hashlib.sha256(canonical).hexdigest()}"
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def canonical_request(request: SignedRequest, signed_headers: tuple[str, ...], body_hash: str) -> bytes:
    """The text that is signed; signed_headers: sorted, in lower case. Raises BadSignature."""
    lines = [request.method.upper().encode(), _canonical_path(request.path), _canonical_query(request.query)]
    for name in signed_headers:
        value = request.header(name)
        if value is None:
            raise BadSignature(f"the signed header {name} is not in the request")
        lines.append(name.encode() + b":" + value)
    lines += [b"", ";".join(signed_headers).encode(), body_hash.encode()]
    return b"\n".join(lines)


def _body_hashes(request: SignedRequest) -> tuple[str, ...]:
    """What may stand for the body in the signed text."""
    actual = hashlib.sha256(request.body).hexdigest()
    named = (request.header(HASH_HEADER) or b"").decode("ascii", "replace")
    if not named:
        return (actual,)
    if named == UNSIGNED_BODY:
        # SDKs differ on whether a request without a body signs this word or the hash of nothing.
        return (named,) if request.body else (named, actual)
    if named.lower() != actual:
        # The header stands in place of the hash: were it not checked, anybody could change the body.
        raise BadSignature("X-Sdk-Content-Sha256 is not the hash of the body")
    return (named,)


def _canonical_path(path: bytes) -> bytes:
    segments = unquote_to_bytes(path).split(b"/")
    encoded = b"/".join(_encode(segment) for segment in segments)
    return encoded if encoded.endswith(b"/") else encoded + b"/"


def _canonical_query(query: bytes) -> bytes:
    pairs = []
    for part in query.split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            pairs.append((unquote_to_bytes(name), unquote_to_bytes(value)))
    return b"&".join(_encode(name) + b"=" + _encode(value) for name, value in sorted(pairs))


def _encode(text: bytes) -> bytes:
    """RFC 3986: all except A-Z a-z 0-9 - . _ ~ as %XX."""
    return quote_from_bytes(text, safe="~").encode()
