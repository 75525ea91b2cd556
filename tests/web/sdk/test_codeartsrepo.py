"""huaweicloudsdkcodeartsrepo, unchanged, against v4: access key, temporary key, token, async, region look-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from huaweicloudsdkcodeartsrepo.v4 import (
    AddRepositoryMembersRequest,
    AddSshKeyRequest,
    BatchCreateRepositoryMemberBodyDto,
    CheckDeployKeyRequest,
    CodeArtsRepoAsyncClient,
    CodeArtsRepoClient,
    CreateRepositoryMemberDto,
    DeleteSshKeyRequest,
    DeployKeyParamsDto,
    DeployKeyValueDto,
    ListCurrentUserRepositoriesRequest,
    ListMembersRequest,
    ListRepositoryDeployKeysRequest,
    ListUserKeysRequest,
    RemoveDeployKeyRequest,
    ShowRepositoryRequest,
)
from huaweicloudsdkcodeartsrepo.v4.region.codeartsrepo_region import CodeArtsRepoRegion
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException

from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.sdk.clients import AccessKey, client, credentials, make_access_key, make_temporary_key


def add(sdk: Any, title: str | None, key: str | None) -> Any:
    """Add an SSH key with the SDK."""
    return sdk.add_ssh_key(AddSshKeyRequest(body=DeployKeyParamsDto(title=title, key=key)))


def walk_through(sdk: Any) -> None:
    """Add, list with a window and a text, and delete; as every way to authenticate must allow."""
    lines = [fresh_line(f"büro 🔑 {number}") for number in range(3)]
    added = [add(sdk, f"Büro, Nr. {number} + 山田", line) for number, line in enumerate(lines)]
    assert [key.status_code for key in added] == [201] * 3
    assert [key.key for key in added] == lines
    assert added[0].title == "Büro, Nr. 0 + 山田"
    listed = sdk.list_user_keys(ListUserKeysRequest())
    assert (listed.total, [key.id for key in listed.keys]) == (3, [key.id for key in reversed(added)])
    part = sdk.list_user_keys(ListUserKeysRequest(offset=1, limit=1, query="nr. "))
    assert (part.total, [key.key for key in part.keys]) == (3, [lines[1]])
    assert sdk.list_user_keys(ListUserKeysRequest(query="+ 山田")).total == 3
    for key in added:
        assert sdk.delete_ssh_key(DeleteSshKeyRequest(key_id=key.id)).status_code == 204
    assert sdk.list_user_keys(ListUserKeysRequest()).total == 0


@pytest.fixture
def access_key(team: Service) -> AccessKey:
    return make_access_key(team)


def test_the_sdk_works_with_an_access_key(team: Service, access_key: AccessKey) -> None:
    walk_through(client(CodeArtsRepoClient, team, credentials(access_key)))


def test_the_sdk_works_with_a_temporary_access_key(team: Service) -> None:
    walk_through(client(CodeArtsRepoClient, team, credentials(make_temporary_key(team))))


def test_the_sdk_works_with_a_token_header_beside_the_signature(team: Service, access_key: AccessKey) -> None:
    sdk = client(CodeArtsRepoClient, team, credentials(access_key))
    request = ListUserKeysRequest()
    mine = sdk.list_user_keys_invoker(request).add_header("X-Auth-Token", "token-of-alice").invoke()
    assert mine.total == 0
    with pytest.raises(ClientRequestException) as refused:
        sdk.list_user_keys_invoker(request).add_header("X-Auth-Token", "token-of-bob").invoke()
    assert (refused.value.status_code, refused.value.error_code) == (401, "APIGW.0301")
    with pytest.raises(ClientRequestException) as refused:
        sdk.list_user_keys_invoker(request).add_header("X-Auth-Token", "a token that never was").invoke()
    assert (refused.value.status_code, refused.value.error_code) == (401, "DEV.00000003")


def test_the_asynchronous_client_adds_and_deletes_a_key(team: Service, access_key: AccessKey) -> None:
    sdk = client(CodeArtsRepoAsyncClient, team, credentials(access_key))
    line = fresh_line()
    body = DeployKeyParamsDto(title="async", key=line)
    added = sdk.add_ssh_key_async_invoker(AddSshKeyRequest(body=body)).invoke().result()
    assert (added.title, added.key) == ("async", line)
    assert sdk.list_user_keys_async(ListUserKeysRequest()).result().total == 1
    gone = sdk.delete_ssh_key_async(DeleteSshKeyRequest(key_id=added.id)).result()
    assert gone.status_code == 204


def test_the_sdk_finds_the_project_by_its_region(
    team: Service, access_key: AccessKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUAWEICLOUD_SDK_REGION_CODEARTSREPO_CN_NORTH_4", team.url)
    monkeypatch.setenv("HUAWEICLOUD_SDK_IAM_ENDPOINT", team.url)
    given = credentials(access_key, project=None)
    region = CodeArtsRepoRegion.value_of("cn-north-4")
    sdk = CodeArtsRepoClient.new_builder().with_credentials(given).with_region(region).build()
    assert sdk.list_user_keys(ListUserKeysRequest()).total == 0


def test_the_fields_of_the_published_example_are_taken(team: Service, access_key: AccessKey) -> None:
    sdk = client(CodeArtsRepoClient, team, credentials(access_key))
    assert add(sdk, None, None).key is None
    assert sdk.list_user_keys(ListUserKeysRequest()).keys[0].title is None


Deed = Callable[[Any], Any]
LINE = fresh_line()
REFUSED: dict[str, tuple[Deed, int, str]] = {
    "duplicate": (lambda sdk: (add(sdk, "one", LINE), add(sdk, "two", LINE)), 409, "CH.080002"),
    "malformed": (lambda sdk: add(sdk, "x", "ssh-ed25519 AAAA"), 400, "CH.010001"),
    "over-long title": (lambda sdk: add(sdk, "t" * 1001, LINE), 400, "CH.010001"),
    "missing": (lambda sdk: sdk.delete_ssh_key(DeleteSshKeyRequest(key_id=999_999)), 404, "CH.000404"),
    "limit": (lambda sdk: sdk.list_user_keys(ListUserKeysRequest(limit=101)), 400, "CH.010001"),
    "no repository": (lambda sdk: sdk.show_repository(ShowRepositoryRequest(9_999)), 404, "CH.00402000"),
}


@pytest.mark.parametrize(("deed", "status", "code"), REFUSED.values(), ids=REFUSED)
def test_refusals_reach_the_caller_as_exceptions(team: Service, deed: Deed, status: int, code: str) -> None:
    sdk = client(CodeArtsRepoClient, team, credentials(make_access_key(team)))
    with pytest.raises(ClientRequestException) as refused:
        deed(sdk)
    assert (refused.value.status_code, refused.value.error_code) == (status, code)
    assert refused.value.error_msg
    assert len(refused.value.request_id) == 32


def test_missing_rights_and_a_wrong_secret_raise_the_sdks_errors(team: Service, access_key: AccessKey) -> None:
    sdk = client(CodeArtsRepoClient, team, credentials(make_access_key(team, "token-of-mallory")))
    with pytest.raises(ClientRequestException) as refused:
        sdk.list_user_keys(ListUserKeysRequest())
    assert (refused.value.status_code, refused.value.error_code) == (403, "CH.004403")
    wrong = client(CodeArtsRepoClient, team, credentials(AccessKey(access_key.id, "not the secret")))
    with pytest.raises(ClientRequestException) as refused:
        wrong.list_user_keys(ListUserKeysRequest())
    assert (refused.value.status_code, refused.value.error_code) == (401, "APIGW.0301")
    assert refused.value.error_msg.startswith("Incorrect IAM authentication information: ")
    assert len(refused.value.request_id) == 32


def test_repositories_members_and_deploy_keys(team: Service) -> None:
    team.apply('[workspace]\nname = "acme"\n[[repositories]]\nid = 4242\npath = "acme/site"\n')

    sdk = client(CodeArtsRepoClient, team, credentials(make_access_key(team, "token-of-olga")))
    shown = sdk.show_repository(ShowRepositoryRequest(repository_id=4242))
    assert (shown.id, shown.name, shown.path_with_namespace) == (4242, "site", "acme/site")
    listed = sdk.list_current_user_repositories(ListCurrentUserRepositoriesRequest(search="SITE"))
    assert [repository.id for repository in listed.body] == [4242]
    bob = team.call("GET", "/v3/users?name=bob", headers={"X-Auth-Token": "token-of-olga"}).json()["users"][0]["id"]
    new = [
        CreateRepositoryMemberDto(user_iam_id=bob, repository_role_id="30"),
        CreateRepositoryMemberDto(user_iam_id="0" * 32, repository_role_id="30"),
    ]
    body = BatchCreateRepositoryMemberBodyDto(users=new)
    outcome = sdk.add_repository_members(AddRepositoryMembersRequest(repository_id=4242, body=body)).body
    assert [(part.status, len(part.result)) for part in outcome] == [("success", 1), ("error", 1)]
    members = sdk.list_members(ListMembersRequest(repository_id=4242))
    assert [(member.user_name, member.repository_role_id) for member in members.body] == [("bob", "30")]
    assert members.x_total == "1"
    line = fresh_line()
    check = CheckDeployKeyRequest(repository_id=4242, body=DeployKeyValueDto(key=line))
    assert sdk.check_deploy_key(check).exists is False
    made = team.call(
        "POST",
        "/v2/repositories/4242/deploy-keys",
        headers={"X-Auth-Token": "token-of-olga"},
        json={"application": "ci", "can_push": False, "key": line, "key_title": "ci"},
    )
    assert made.status_code == 200, made.text
    assert sdk.check_deploy_key(check).exists is True
    keys = sdk.list_repository_deploy_keys(ListRepositoryDeployKeysRequest(repository_id=4242))
    assert (keys.x_total, [key.title for key in keys.body]) == ("1", ["ci"])
    gone = sdk.remove_deploy_key(RemoveDeployKeyRequest(repository_id=4242, key_id=keys.body[0].id))
    assert gone.status_code == 204
    assert sdk.list_repository_deploy_keys(ListRepositoryDeployKeysRequest(repository_id=4242)).x_total == "0"
