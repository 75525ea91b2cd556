"""Authenticates requests to Huawei's APIs: by a token, a signature, or both; must hold no rule of either."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keyrack import policy
from keyrack.core.instance import Instance
from keyrack.core.people import access_keys, tokens
from keyrack.core.people.request_signing import SignedRequest, read_claim
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor
from keyrack.web import bodies
from keyrack.web.api import address_of, is_shared

NO_CREDENTIALS = "no-credentials"
GATEWAY = "gateway"
SIGNATURE_WORDS = "Incorrect IAM authentication information: "
FAILED_SIGNATURE = "APIGW.0301"
THROTTLED = "APIGW.0308"
TOO_LARGE = "APIGW.0201"
# The published gateway's words for some of the core's reasons; {key}: the access key's id.
SIGNATURE_REASONS = {
    "signature-wrong": "verify aksk signature fail",
    "access-key-unknown": "ak {key} not exist",
    "access-key-locked-out": (
        f"the ak was locked for 5 minutes after {access_keys.MAX_FAILURES} failures in a row; try later"
    ),
    "access-key-inactive": "the ak is not active",
    "security-token-unexpected": "this ak is permanent and takes no X-Security-Token",
    "security-token-wrong": "the X-Security-Token is not the one of this ak",
}


def authenticate(instance: Instance, request: Request, channel: str) -> Actor:
    """The actor of `X-Auth-Token`, of a signature, or of both when they are of one user.

    Raises Refusal UNAUTHENTICATED with one of three codes: NO_CREDENTIALS, "token-not-in-force", GATEWAY.
    """
    signatures = bodies.sent_texts(request, b"authorization")
    secrets = bodies.sent_texts(request, b"x-auth-token")
    # Proxies and browsers set Authorization to other schemes; beside a token these are ignored.
    signed = bool(signatures) and (not secrets or signatures[0].startswith(("SDK-", "V11-")) or len(signatures) > 1)
    if not signed and not any(secrets):  # an empty one is a variable that is not set
        raise Refusal(Kind.UNAUTHENTICATED, NO_CREDENTIALS, "The request carries no credentials.")
    signer = _signer(instance, request, signatures, channel) if signed else None
    if not secrets:
        assert signer is not None
        return signer
    holder = _holder(instance, request, secrets, channel)
    if signer is None:
        return holder
    if signer.user_id != holder.user_id:
        words = f"{SIGNATURE_WORDS}the signature and the X-Auth-Token are of two different users"
        raise Refusal(Kind.UNAUTHENTICATED, GATEWAY, words)
    # Both are valid, so the request may do what both of them allow.
    if "" not in (signer.project, holder.project) and signer.project != holder.project:
        words = f"{SIGNATURE_WORDS}the signature and the X-Auth-Token are for two different projects"
        raise Refusal(Kind.UNAUTHENTICATED, GATEWAY, words)
    return replace(
        signer,
        scopes=policy.both(signer.scopes, holder.scopes),
        token_id=holder.token_id,
        project=signer.project or holder.project,
        ends_at=min(filter(None, (signer.ends_at, holder.ends_at)), default=None),
    )


def gateway_refusal(request: Request, refusal: Refusal) -> Response | None:
    """The answer to what Huawei's API gateway refuses before an API, in the gateway's shape; None for the rest."""
    if refusal.kind is Kind.THROTTLED:
        status, code = 429, THROTTLED
    elif refusal.kind is Kind.TOO_LARGE:
        status, code = 413, TOO_LARGE
    elif refusal.code == GATEWAY:
        status, code = 401, FAILED_SIGNATURE
    else:
        return None
    body = {"error_msg": refusal.message, "error_code": code, "request_id": request.state.request_id}
    return bodies.retried(JSONResponse(body, status), refusal)


def _signer(instance: Instance, request: Request, signatures: list[str], channel: str) -> Actor:
    if len(signatures) > 1:
        words = f"{SIGNATURE_WORDS}the request has more than one Authorization header"
        raise Refusal(Kind.UNAUTHENTICATED, GATEWAY, words)
    wire = SignedRequest(
        method=request.method,
        path=request.scope["raw_path"],
        query=request.scope["query_string"],
        headers=tuple((name.decode("latin-1").lower(), value) for name, value in request.scope["headers"]),
        body=request.state.content,
    )
    try:
        return access_keys.authenticate(
            instance, wire, signatures[0], address=address_of(request), channel=channel, shared=is_shared(request)
        )
    except Refusal as refusal:
        if refusal.kind is not Kind.UNAUTHENTICATED:
            raise
        raise Refusal(refusal.kind, GATEWAY, SIGNATURE_WORDS + _reason(refusal, signatures[0])) from None


def _reason(refusal: Refusal, authorization: str) -> str:
    """Why a signature is refused, in the gateway's documented words if there are some."""
    words = SIGNATURE_REASONS.get(refusal.code)
    if words is None:
        return refusal.message
    return words.format(key=read_claim(authorization).access_key)


def _holder(instance: Instance, request: Request, secrets: list[str], channel: str) -> Actor:
    if len(secrets) == 1:
        try:
            return tokens.authenticate(instance, secrets[0], address=address_of(request), channel=channel)
        except Refusal as refusal:
            if refusal.kind is not Kind.UNAUTHENTICATED:
                raise
    # One answer for all tokens that are not in force, so that nobody learns whether one ever existed.
    words = "Authentication information expired."
    raise Refusal(Kind.UNAUTHENTICATED, "token-not-in-force", words)
