"""Statuses, codes and words with which all of CodeArts' versions refuse; must decide nothing."""

from __future__ import annotations

from collections.abc import Mapping

from keyrack.errors import Kind, Refusal

NOT_IN_FORCE = "token-not-in-force"
NO_CREDENTIALS_CODE = "DEV.00000001"
UNKNOWN_API = "There is no such API."

# Statuses and error codes by kind of refusal, as CodeArts documents them.
ANSWERS: dict[Kind, tuple[int, str]] = {
    Kind.UNAUTHENTICATED: (401, "DEV.00000003"),
    Kind.FORBIDDEN: (403, "CH.004403"),
    Kind.MISSING: (404, "CH.000404"),
    Kind.INVALID: (400, "CH.010001"),
    Kind.TAKEN: (409, "CH.080002"),
    Kind.LIMIT: (400, "CH.010001"),
    Kind.CHANGED: (412, "CH.080002"),
    Kind.THROTTLED: (429, "APIGW.0308"),
    Kind.TOO_LARGE: (413, "APIGW.0201"),
    Kind.UNAVAILABLE: (503, "CH.000001"),
    Kind.FAULT: (500, "CH.000001"),
}


SPELLINGS = {"public_key": "key", "visibility": "visibility_level"}
"""The core's names of fields that have other names in these APIs."""


def words(refusal: Refusal, spellings: Mapping[str, str] = SPELLINGS) -> str:
    """The message of a refusal; one that begins with "This" gets the field's name before it, as no other part of the
    answer names the field. spellings: as SPELLINGS, for this call.
    """
    field = spellings.get(refusal.field or "", refusal.field or "")
    if refusal.kind is Kind.INVALID and field not in ("", "key") and refusal.message.startswith("This "):
        return f"{field}: {refusal.message}"
    return refusal.message


def status_and_code(refusal: Refusal) -> tuple[int, str]:
    """The status and code of a refusal, in CodeArts' own series."""
    status, code = ANSWERS[refusal.kind]
    if refusal.code == "no-credentials":
        code = NO_CREDENTIALS_CODE
    return status, code
