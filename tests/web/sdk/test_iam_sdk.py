"""huaweicloudsdkiam, unchanged: tokens of every scope, their validation, and access keys of both kinds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from huaweicloudsdkcore.auth.credentials import GlobalCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkiam.v3 import (
    AuthScope,
    AuthScopeDomain,
    AuthScopeProject,
    CreateCredentialOption,
    CreatePermanentAccessKeyRequest,
    CreatePermanentAccessKeyRequestBody,
    CreateTemporaryAccessKeyByTokenRequest,
    CreateTemporaryAccessKeyByTokenRequestBody,
    DeletePermanentAccessKeyRequest,
    IamClient,
    IdentityToken,
    KeystoneCreateUserTokenByPasswordRequest,
    KeystoneCreateUserTokenByPasswordRequestBody,
    KeystoneListAuthDomainsRequest,
    KeystoneListAuthProjectsRequest,
    KeystoneShowVersionRequest,
    KeystoneValidateTokenRequest,
    ListPermanentAccessKeysRequest,
    PwdAuth,
    PwdIdentity,
    PwdPassword,
    PwdPasswordUser,
    PwdPasswordUserDomain,
    ShowPermanentAccessKeyRequest,
    TokenAuth,
    TokenAuthIdentity,
    UpdateCredentialOption,
    UpdatePermanentAccessKeyRequest,
    UpdatePermanentAccessKeyRequestBody,
)
from huaweicloudsdkiam.v3.iam_credentials import IamCredentials

from tests.services import Service
from tests.web.sdk.clients import PROJECT, client, make_access_key


def sign_in(sdk: Any, password: str = "alice's password", scope: AuthScope | None = None) -> Any:
    """Ask for a token with the SDK."""
    user = PwdPasswordUser(domain=PwdPasswordUserDomain(name="acme"), name="alice", password=password)
    identity = PwdIdentity(methods=["password"], password=PwdPassword(user=user))
    body = KeystoneCreateUserTokenByPasswordRequestBody(auth=PwdAuth(identity=identity, scope=scope))
    return sdk.keystone_create_user_token_by_password(KeystoneCreateUserTokenByPasswordRequest(body=body))


def test_a_token_for_each_scope(team: Service) -> None:
    sdk = client(IamClient, team, IamCredentials())
    plain = sign_in(sdk)
    assert (plain.status_code, plain.token.domain.name) == (201, "acme")
    of_project = sign_in(sdk, scope=AuthScope(project=AuthScopeProject(name="cn-north-4")))
    assert of_project.token.project.id == PROJECT
    of_id = sign_in(sdk, scope=AuthScope(project=AuthScopeProject(id=PROJECT)))
    assert of_id.token.project.name == "cn-north-4"
    of_account = sign_in(sdk, scope=AuthScope(domain=AuthScopeDomain(name="acme")))
    assert of_account.token.domain.id == plain.token.domain.id
    lives = datetime.fromisoformat(plain.token.expires_at) - datetime.now(UTC)
    assert timedelta(hours=23) < lives <= timedelta(hours=24)
    for token in (plain, of_project, of_id, of_account):
        listed = team.call("GET", "/v4/user/keys", headers={"X-Auth-Token": token.x_subject_token})
        assert listed.status_code == 200


def test_a_signed_token_request(team: Service) -> None:
    key = make_access_key(team)
    sdk = client(IamClient, team, GlobalCredentials(key.id, key.secret, "any domain"))
    assert sign_in(sdk).token.user.name == "alice"


def test_wrong_password(team: Service) -> None:
    with pytest.raises(ClientRequestException) as refused:
        sign_in(client(IamClient, team, IamCredentials()), "wrong")
    assert (refused.value.status_code, str(refused.value.error_code)) == (401, "401")
    assert "password is wrong" in refused.value.error_msg
    assert len(refused.value.request_id) == 32


def test_validation(team: Service) -> None:
    secret = sign_in(client(IamClient, team, IamCredentials())).x_subject_token
    sdk = client(IamClient, team, IamCredentials(secret))
    found = sdk.keystone_validate_token(KeystoneValidateTokenRequest(x_subject_token=secret))
    assert (found.token.user.name, found.x_subject_token) == ("alice", secret)
    assert found.token.catalog
    bare = sdk.keystone_validate_token(KeystoneValidateTokenRequest(x_subject_token=secret, nocatalog="1"))
    assert bare.token.catalog is None
    for other, status in (("a token that never was", 404), ("token-of-victor", 404), ("token-of-olga", 403)):
        with pytest.raises(ClientRequestException) as refused:
            sdk.keystone_validate_token(KeystoneValidateTokenRequest(x_subject_token=other))
        assert refused.value.status_code == status, other


def test_permanent_access_keys(team: Service) -> None:
    sdk = client(IamClient, team, IamCredentials("token-of-alice"))
    users = team.call("GET", "/v3/users", headers={"X-Auth-Token": "token-of-olga"}).json()["users"]
    alice = next(user["id"] for user in users if user["name"] == "alice")
    option = CreateCredentialOption(user_id=alice, description="büro")
    request = CreatePermanentAccessKeyRequest(body=CreatePermanentAccessKeyRequestBody(credential=option))
    made = sdk.create_permanent_access_key(request).credential
    assert (made.status, made.user_id, made.description) == ("active", alice, "büro")
    assert (len(made.access), len(made.secret)) == (20, 40)
    listed = sdk.list_permanent_access_keys(ListPermanentAccessKeysRequest()).credentials
    assert [(key.access, key.status) for key in listed] == [(made.access, "active")]
    show = ShowPermanentAccessKeyRequest(access_key=made.access)
    assert sdk.show_permanent_access_key(show).credential.description == "büro"
    change = UpdatePermanentAccessKeyRequestBody(credential=UpdateCredentialOption(status="inactive"))
    request_change = UpdatePermanentAccessKeyRequest(access_key=made.access, body=change)
    assert sdk.update_permanent_access_key(request_change).credential.status == "inactive"
    signed = client(IamClient, team, GlobalCredentials(made.access, made.secret, "any domain"))
    with pytest.raises(ClientRequestException) as refused:
        signed.keystone_list_auth_domains(KeystoneListAuthDomainsRequest())
    assert (refused.value.status_code, refused.value.error_code) == (401, "APIGW.0301")
    sdk.create_permanent_access_key(request)
    with pytest.raises(ClientRequestException) as refused:
        sdk.create_permanent_access_key(request)
    assert (refused.value.status_code, refused.value.error_msg) == (400, "akSkNumExceed")
    assert sdk.delete_permanent_access_key(DeletePermanentAccessKeyRequest(access_key=made.access)).status_code == 204
    with pytest.raises(ClientRequestException) as refused:
        sdk.show_permanent_access_key(show)
    assert refused.value.status_code == 404


def test_temporary_access_keys(team: Service) -> None:
    secret = sign_in(client(IamClient, team, IamCredentials())).x_subject_token
    sdk = client(IamClient, team, IamCredentials(secret))
    identity = TokenAuthIdentity(methods=["token"], token=IdentityToken(id=secret, duration_seconds=1800))
    body = CreateTemporaryAccessKeyByTokenRequestBody(auth=TokenAuth(identity=identity))
    made = sdk.create_temporary_access_key_by_token(CreateTemporaryAccessKeyByTokenRequest(body=body)).credential
    lives = datetime.fromisoformat(made.expires_at) - datetime.now(UTC)
    assert timedelta(minutes=29) < lives <= timedelta(minutes=30)
    given = GlobalCredentials(made.access, made.secret).with_security_token(made.securitytoken)
    # Without a domain the SDK looks it up first, with a signed request of its own.
    signed = IamClient.new_builder().with_credentials(given.with_iam_endpoint(team.url)).with_endpoints([team.url])
    found = signed.build().keystone_list_auth_domains(KeystoneListAuthDomainsRequest())
    assert [domain.name for domain in found.domains] == ["acme"]
    wrong = GlobalCredentials(made.access, made.secret, "any domain").with_security_token("another")
    with pytest.raises(ClientRequestException) as refused:
        client(IamClient, team, wrong).keystone_list_auth_domains(KeystoneListAuthDomainsRequest())
    assert (refused.value.status_code, refused.value.error_code) == (401, "APIGW.0301")


def test_projects_and_version(team: Service) -> None:
    sdk = client(IamClient, team, IamCredentials("token-of-alice"))
    found = sdk.keystone_list_auth_projects(KeystoneListAuthProjectsRequest())
    assert [(project.id, project.name) for project in found.projects] == [(PROJECT, "cn-north-4")]
    assert sdk.keystone_show_version(KeystoneShowVersionRequest()).version.id == "v3.6"
