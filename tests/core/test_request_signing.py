"""The signature rule by itself: the published vector, and every part of a request that it must cover."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from keyrack.core.people.request_signing import (
    BadSignature,
    SignatureClaim,
    SignedRequest,
    canonical_request,
    check,
    read_claim,
    sign,
)

# Published with the description of the algorithm.
SECRET = "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc"
DATE = "20191115T033655Z"
NOW = datetime(2019, 11, 15, 3, 36, 55, tzinfo=UTC)
HEADERS = ("content-type", "host", "x-sdk-date")
REQUEST = SignedRequest(
    method="GET",
    path=b"/v1/77b6a44cba5143ab91d13ab9a8ff44fd/vpcs",
    query=b"limit=2&marker=13551d6b-755d-4757-b956-536f674975c0",
    headers=(
        ("content-type", b"application/json"),
        ("host", b"service.region.example.com"),
        ("x-sdk-date", DATE.encode()),
    ),
    body=b"",
)
HASH = "b25362e603ee30f4f25e7858e8a7160fd36e803bb2dfe206278659d71a9bcd7a"
SIGNATURE = "7be6668032f70418fcc22abc52071e57aff61b84a1d2381bb430d6870f4f6ebe"
CLAIM = SignatureClaim("QTWAOYTTINDUT2QVKYUC", HEADERS, SIGNATURE)


def test_the_published_signature_is_reproduced() -> None:
    canonical = canonical_request(REQUEST, HEADERS, hashlib.sha256(b"").hexdigest())
    assert hashlib.sha256(canonical).hexdigest() == HASH
    assert sign(canonical, DATE, SECRET) == SIGNATURE
    check(REQUEST, CLAIM, SECRET, NOW)


def test_a_request_written_otherwise_but_meaning_the_same_keeps_its_signature() -> None:
    query = b"marker=13551d6b%2D755d-4757-b956-536f674975c0&limit=2&"
    headers = (*REQUEST.headers[:1], ("host", b"  service.region.example.com "), *REQUEST.headers[2:], ("x-more", b"1"))
    for same in (
        replace(REQUEST, query=query),
        replace(REQUEST, path=REQUEST.path + b"/"),
        replace(REQUEST, path=REQUEST.path.replace(b"vpcs", b"%76pcs")),
        replace(REQUEST, headers=headers),
        replace(REQUEST, method="get"),
    ):
        check(same, CLAIM, SECRET, NOW)


def test_the_word_for_an_unsigned_body_is_refused() -> None:
    unsigned = ("x-sdk-content-sha256", b"UNSIGNED-PAYLOAD")
    request = replace(REQUEST, headers=(*REQUEST.headers, unsigned), body=b"whatever")
    canonical = canonical_request(request, HEADERS, "UNSIGNED-PAYLOAD")
    check(request, replace(CLAIM, signature=sign(canonical, DATE, SECRET)), SECRET, NOW)
    # Without a body, SDKs differ on what they sign.
    check(replace(request, body=b""), CLAIM, SECRET, NOW)
    check(replace(request, body=b""), replace(CLAIM, signature=sign(canonical, DATE, SECRET)), SECRET, NOW)


def changed(name: str, value: bytes) -> tuple[tuple[str, bytes], ...]:
    """The request's headers with another value for one."""
    return tuple((other, value if other == name else old) for other, old in REQUEST.headers)


FORGED = {
    "method": replace(REQUEST, method="DELETE"),
    "path": replace(REQUEST, path=REQUEST.path + b"/x"),
    "query value": replace(REQUEST, query=REQUEST.query.replace(b"limit=2", b"limit=3")),
    "query added": replace(REQUEST, query=REQUEST.query + b"&more"),
    "query gone": replace(REQUEST, query=b""),
    "plus for a blank": replace(REQUEST, query=REQUEST.query.replace(b"limit=2", b"limit=+2")),
    "body": replace(REQUEST, body=b"{}"),
    "host": replace(REQUEST, headers=changed("host", b"other.example.com")),
    "content type": replace(REQUEST, headers=changed("content-type", b"text/plain")),
    "header gone": replace(REQUEST, headers=REQUEST.headers[1:]),
    "header twice": replace(REQUEST, headers=(*REQUEST.headers, ("host", b"service.region.example.com"))),
    "date": replace(REQUEST, headers=changed("x-sdk-date", b"20191115T033656Z")),
    "date malformed": replace(REQUEST, headers=changed("x-sdk-date", b"2019-11-15T03:36:55Z")),
    "date in other digits": replace(REQUEST, headers=changed("x-sdk-date", "２0191115T033655Z".encode())),
    "lying hash": replace(
        REQUEST,
        headers=(*REQUEST.headers, ("x-sdk-content-sha256", hashlib.sha256(b"").hexdigest().encode())),
        body=b"{}",
    ),
}


@pytest.mark.parametrize("request_", FORGED.values(), ids=FORGED)
def test_any_change_of_a_signed_request_is_noticed(request_: SignedRequest) -> None:
    with pytest.raises(BadSignature):
        check(request_, CLAIM, SECRET, NOW)


def test_another_secret_or_signature() -> None:
    for claim, secret in ((CLAIM, SECRET + "x"), (replace(CLAIM, signature="0" * 64), SECRET)):
        with pytest.raises(BadSignature) as problem:
            check(REQUEST, claim, secret, NOW)
        assert problem.value.forged


@pytest.mark.parametrize("minutes", [-15, 15])
def test_a_signature_is_valid_for_a_quarter_of_an_hour_either_way(minutes: int) -> None:
    check(REQUEST, CLAIM, SECRET, NOW + timedelta(minutes=minutes))
    late = NOW + timedelta(minutes=minutes, seconds=1 if minutes > 0 else -1)
    with pytest.raises(BadSignature, match="15 minutes"):
        check(REQUEST, CLAIM, SECRET, late)


@pytest.mark.parametrize("blank", [" ", "", "   "])
def test_blanks_between_the_parts_do_not_matter(blank: str) -> None:
    text = f"SDK-HMAC-SHA256 Access=A1,{blank}SignedHeaders=X-Sdk-Date;Host,{blank}Signature={SIGNATURE.upper()}"
    assert read_claim(text) == SignatureClaim("A1", ("host", "x-sdk-date"), SIGNATURE)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "SDK-HMAC-SHA256",
        "SDK-HMAC-SHA256 ",
        "Bearer token",
        f"SDK-HMAC-SM3 Access=A, SignedHeaders=x-sdk-date, Signature={SIGNATURE}",
        f"V11-HMAC-SHA256 Credential=A/x, SignedHeaders=x-sdk-date, Signature={SIGNATURE}",
        f"sdk-hmac-sha256 Access=A, SignedHeaders=x-sdk-date, Signature={SIGNATURE}",
        f"SDK-HMAC-SHA256 Access=, SignedHeaders=x-sdk-date, Signature={SIGNATURE}",
        f"SDK-HMAC-SHA256 Access={'A' * 129}, SignedHeaders=x-sdk-date, Signature={SIGNATURE}",
        f"SDK-HMAC-SHA256 Access=A, SignedHeaders=host, Signature={SIGNATURE}",
        f"SDK-HMAC-SHA256 Access=A, SignedHeaders=x-sdk-date;x-sdk-date, Signature={SIGNATURE}",
        f"SDK-HMAC-SHA256 Access=A, SignedHeaders=x-sdk-date;;host, Signature={SIGNATURE}",
        f"SDK-HMAC-SHA256 Access=A, SignedHeaders=x-sdk-date;authorization, Signature={SIGNATURE}",
        "SDK-HMAC-SHA256 Access=A, SignedHeaders=x-sdk-date, Signature=abc",
        f"SDK-HMAC-SHA256 Access=A, SignedHeaders=x-sdk-date, Signature={SIGNATURE}, More=1",
        f"SDK-HMAC-SHA256 Access=A\n, SignedHeaders=x-sdk-date, Signature={SIGNATURE}é",
    ],
)
def test_a_malformed_authorization_header_is_refused(authorization: str) -> None:
    with pytest.raises(BadSignature):
        read_claim(authorization)
