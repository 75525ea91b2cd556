"""OpenID Connect with one provider: where it is, its keys, what it says; must decide nothing about who may.

OpenID Connect Core 1.0 (code flow), Discovery 1.0, Back-Channel Logout 1.0; PKCE is RFC 7636.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from keyrack.core.keys.key_sync import NoHttpAnswer
from keyrack.core.people.provider_rules import Claims
from keyrack.errors import Kind, Refusal
from keyrack.settings import Settings
from keyrack.web.outgoing import Outgoing

if TYPE_CHECKING:
    import jwt

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
"""Signatures by a key that only the provider has; none by a shared secret, and never none at all."""
KEPT_SECONDS = 600.0
LEEWAY_SECONDS = 60
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


@dataclass(frozen=True, slots=True)
class ProviderSignIn:
    """A sign-in at the provider that has begun: where to send the browser, and what it carries meanwhile."""

    address: str
    state: str
    nonce: str
    verifier: str


class Provider:
    """The provider of the settings; what it says of itself is asked again after ten minutes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ask = Outgoing(settings, "oidc_networks")
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Any]] = {}

    @property
    def callback(self) -> str:
        """Where the provider sends browsers back to, as it must be registered there."""
        return f"{self._settings.url}/login/oidc/callback"

    def begin(self) -> ProviderSignIn:
        """Begin a sign-in. Raises Refusal UNAVAILABLE where the provider does not answer."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        asked = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": self.callback,
            "scope": self._settings.oidc_scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        where = self._described("authorization_endpoint")
        return ProviderSignIn(f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}", state, nonce, verifier)

    def finish(self, code: str, begun: ProviderSignIn) -> Claims:
        """What the provider says of whom it signed in, for the code that it gave. Raises Refusal UNAUTHENTICATED."""
        client, secret = self._settings.oidc_client_id, self._settings.oidc_client_secret
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.callback,
            "code_verifier": begun.verifier,
            "client_id": client,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if secret:
            pair = f"{quote(client, safe='')}:{quote(secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        answer = self._answered(self._described("token_endpoint"), headers, urlencode(fields).encode())
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise _not_believed()
        said = self._verified(token)
        if said.get("nonce") != begun.nonce or not isinstance(said.get("sub"), str):
            raise _not_believed()
        return self._claims(said)

    def logout(self, token: str) -> tuple[str | None, str | None, bytes]:
        """The session and the subject that a logout token ends, and its mark. Raises Refusal UNAUTHENTICATED."""
        said = self._verified(token)
        session, subject, number = said.get("sid"), said.get("sub"), said.get("jti")
        events = said.get("events")
        right = isinstance(events, Mapping) and LOGOUT_EVENT in events and "nonce" not in said
        if not right or not isinstance(number, str) or not (isinstance(session, str) or isinstance(subject, str)):
            raise _not_believed()
        mark = hashlib.sha256(f"logout {said['iss']} {number}".encode()).digest()
        return (session if isinstance(session, str) else None, subject if isinstance(subject, str) else None, mark)

    def _claims(self, said: Mapping[str, Any]) -> Claims:
        named = said.get(self._settings.oidc_name_claim)
        groups = said.get(self._settings.oidc_groups_claim)
        if not isinstance(named, str) or not named:
            claim = self._settings.oidc_name_claim
            words = f"The provider does not say what you are called: its token has no {claim} (see oidc_name_claim)."
            raise Refusal(Kind.FORBIDDEN, "name-lacking", words)
        held = tuple(group for group in groups if isinstance(group, str)) if isinstance(groups, list) else ()
        session = said.get("sid")
        return Claims(said["iss"], said["sub"], named, held, session if isinstance(session, str) else None)

    def _verified(self, token: str) -> Mapping[str, Any]:
        """What a token says whose signature, issuer, audience and time hold."""
        import jwt  # with the first token of a provider: it loads all of X.509

        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise _not_believed()
            said: dict[str, Any] = jwt.decode(
                token,
                self._key(header.get("kid")),
                algorithms=[header["alg"]],
                audience=self._settings.oidc_client_id,
                issuer=self._settings.oidc_issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "aud", "exp", "iat"]},
            )
        except jwt.PyJWTError:
            raise _not_believed() from None
        others = isinstance(said["aud"], list) and len(said["aud"]) > 1
        if (others or "azp" in said) and said.get("azp") != self._settings.oidc_client_id:
            raise _not_believed()
        return said

    def _key(self, name: object) -> jwt.PyJWK:
        """The provider's key of this name; asked again once for one that is not among those known."""
        import jwt

        for newest in (False, True):
            keys = self._document(self._described("jwks_uri"), newest=newest).get("keys")
            entries = [one for one in keys if isinstance(one, dict)] if isinstance(keys, list) else []
            fitting = [one for one in entries if one.get("use", "sig") == "sig" and name in (None, one.get("kid"))]
            if len(fitting) == 1 or (fitting and name is not None):
                return jwt.PyJWK.from_dict(fitting[0])
        raise _not_believed()

    def _described(self, name: str) -> str:
        """An address that the provider's own description names."""
        issuer = self._settings.oidc_issuer
        described = self._document(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        value = described.get(name)
        if described.get("issuer") != issuer or not isinstance(value, str):
            raise _away("its description is not that of the issuer that the settings name")
        return value

    def _document(self, address: str, *, newest: bool = False) -> Mapping[str, Any]:
        with self._lock:
            at, kept = self._kept.get(address, (0.0, None))
        age = time.monotonic() - at
        if kept is not None and age < (30.0 if newest else KEPT_SECONDS):
            return dict(kept)
        document = self._answered(address, {"Accept": "application/json"}, None)
        with self._lock:
            self._kept[address] = (time.monotonic(), document)
        return document

    def _answered(self, address: str, headers: Mapping[str, str], body: bytes | None) -> Mapping[str, Any]:
        try:
            answer = self._ask(address, headers) if body is None else self._ask.post(address, headers, body)
            answered = json.loads(answer.body)
        except NoHttpAnswer as error:
            raise _away(str(error)) from None
        except (ValueError, RecursionError):
            raise _away("its answer cannot be read") from None
        if body is not None and answer.status in (400, 401):
            raise _not_believed()
        if answer.status != 200 or not isinstance(answered, dict):
            raise _away(f"it answers {answer.status}")
        return answered


def _not_believed() -> Refusal:
    words = "What the provider sent does not prove who you are. Begin again."
    return Refusal(Kind.UNAUTHENTICATED, "provider-not-believed", words)


def _away(why: str) -> Refusal:
    words = f"The provider that signs people in does not answer as it should: {why}. Try again."
    return Refusal(Kind.UNAVAILABLE, "provider-away", words, retry_after=5)
