"""The public SDKs, as their users set them up, pointed at a service on loopback; holds no assertion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.services import Service

PROJECT = "aa2d97d7e62c4b7da3ffdfc11551f878"


@dataclass(frozen=True)
class AccessKey:
    """An access key as its owner notes it down; security_token is "" for permanent ones."""

    id: str
    secret: str
    security_token: str = ""


def make_access_key(service: Service, token: str = "token-of-alice") -> AccessKey:
    """Make a permanent access key of the token's user, over HTTP."""
    answer = service.call(
        "POST",
        "/v3.0/OS-CREDENTIAL/credentials",
        headers={"X-Auth-Token": token},
        json={"credential": {"description": "for the SDK"}},
    )
    assert answer.status_code == 201, answer.text
    made = answer.json()["credential"]
    return AccessKey(made["access"], made["secret"])


def make_temporary_key(service: Service, token: str = "token-of-alice", **identity: Any) -> AccessKey:
    """Make a temporary access key of the token's user, over HTTP."""
    answer = service.call(
        "POST",
        "/v3.0/OS-CREDENTIAL/securitytokens",
        json={"auth": {"identity": {"methods": ["token"], "token": {"id": token}, **identity}}},
    )
    assert answer.status_code == 201, answer.text
    made = answer.json()["credential"]
    return AccessKey(made["access"], made["secret"], made["securitytoken"])


def credentials(key: AccessKey, project: str | None = PROJECT) -> Any:
    """The SDKs' credentials for a project."""
    from huaweicloudsdkcore.auth.credentials import BasicCredentials  # 300 ms, for SDK tests alone

    given = BasicCredentials(key.id, key.secret, project)
    return given.with_security_token(key.security_token) if key.security_token else given


def client(kind: Any, service: Service, given: Any) -> Any:
    """An SDK client of a class, with credentials, at the service."""
    return kind.new_builder().with_credentials(given).with_endpoints([service.url]).build()
