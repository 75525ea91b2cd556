"""huaweicloudsdkcodeartsrepo's v3 package, unchanged: the deprecated v1 and v2 calls, on the same objects as v4."""

from __future__ import annotations

from typing import Any

import pytest
from huaweicloudsdkcodeartsrepo.v3 import (
    AddDeployKeyRequest,
    AddDeployKeyRequestBody,
    AddDeployKeyV2Request,
    AddRepoMembersRequest,
    AddSshKeyRequest,
    AddSshKeyRequestBody,
    CodeArtsRepoClient,
    CreateRepoMemberRequest,
    CreateRepoRequest,
    CreateRepositoryRequest,
    DeleteDeployKeyRequest,
    DeleteDeployKeyV2Request,
    DeleteRepoMemberRequest,
    DeleteRepositoryRequest,
    DeleteSShkeyRequest,
    ListRepoMembersRequest,
    ListSshKeysRequest,
    ListUserAllRepositoriesRequest,
    PrivateKeyVerify,
    RepoMemberInfo,
    SetRepoRoleRequest,
    SetRepoRoleRequestBody,
    ShowAllRepositoryByTwoProjectIdRequest,
    ShowPrivateKeyVerifyRequest,
    ShowRepositoryByUuidRequest,
)
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException

from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.sdk.clients import PROJECT, client, credentials, make_access_key

# The SDK warns that these calls are deprecated; that they still work is the point here.
pytestmark = pytest.mark.filterwarnings("ignore:Method '.*' of CodeArtsRepoClient is deprecated:DeprecationWarning")


@pytest.fixture
def sdk(team: Service) -> Any:
    return client(CodeArtsRepoClient, team, credentials(make_access_key(team)))


@pytest.fixture
def owner(team: Service) -> Any:
    return client(CodeArtsRepoClient, team, credentials(make_access_key(team, "token-of-olga")))


def add(sdk: Any, title: str | None, key: str | None) -> Any:
    """Add an SSH key with the SDK."""
    return sdk.add_ssh_key(AddSshKeyRequest(body=AddSshKeyRequestBody(title=title, key=key)))


def deploy(title: str, key: str, can_push: bool = False) -> AddDeployKeyRequestBody:
    """What is sent to add a deploy key."""
    return AddDeployKeyRequestBody(application="ci", can_push=can_push, key=key, key_title=title)


def test_ssh_keys(team: Service, sdk: Any) -> None:
    line = fresh_line("clé de Zoë")
    added = add(sdk, "laptop", line)
    assert (added.status, added.result.title, added.result.key) == ("success", "laptop", line)
    assert added.result.id.isdigit()
    listed = sdk.list_ssh_keys(ListSshKeysRequest())
    assert (listed.status, listed.result.total, listed.result.sshkey[0].id) == ("success", 1, added.result.id)
    v4 = team.call("GET", "/v4/user/keys", headers={"X-Auth-Token": "token-of-alice"}).json()
    assert [(key["id"], key["key"]) for key in v4["keys"]] == [(int(added.result.id), line)]
    gone = sdk.delete_s_shkey(DeleteSShkeyRequest(id=added.result.id))
    assert (gone.status, gone.result) == ("success", added.result.id)
    assert sdk.list_ssh_keys(ListSshKeysRequest()).result.total == 0


@pytest.mark.parametrize(
    ("title", "key", "status", "code"),
    [
        ("", "fresh", 400, "CH.080002"),
        ("x", "", 400, "CH.080002"),
        (None, "fresh", 400, "CH.080002"),
        ("x", "ssh-ed25519 AAAA", 400, "40"),
        ("t" * 256, "fresh", 400, "CH.010001"),
    ],
)
def test_refused_ssh_keys(sdk: Any, title: str | None, key: str, status: int, code: str) -> None:
    with pytest.raises(ClientRequestException) as refused:
        add(sdk, title, fresh_line() if key == "fresh" else key)
    assert (refused.value.status_code, refused.value.error_code) == (status, code)
    assert len(refused.value.request_id) == 32


def test_duplicate_and_missing(sdk: Any) -> None:
    line = fresh_line()
    add(sdk, "one", line)
    with pytest.raises(ClientRequestException) as refused:
        add(sdk, "two", line)
    assert (refused.value.status_code, refused.value.error_code) == (409, "CH.080002")
    with pytest.raises(ClientRequestException) as refused:
        sdk.delete_s_shkey(DeleteSShkeyRequest(id="999999"))
    assert (refused.value.status_code, refused.value.error_code) == (404, "CH.000404")


def test_a_private_key_is_refused(sdk: Any) -> None:
    body = PrivateKeyVerify(repository_uuid="0" * 32, private_key="-----BEGIN OPENSSH PRIVATE KEY-----")
    with pytest.raises(ClientRequestException) as refused:
        sdk.show_private_key_verify(ShowPrivateKeyVerifyRequest(body=body))
    assert (refused.value.status_code, refused.value.error_code) == (404, "CH.000404")


def make_repository(owner: Any, name: str = "site") -> tuple[str, int]:
    """A new repository: its uuid and its id."""
    body = CreateRepoRequest(name=name, project_uuid=PROJECT, visibility_level=0)
    uuid = owner.create_repository(CreateRepositoryRequest(body=body)).result.repository_uuid
    return uuid, owner.show_repository_by_uuid(ShowRepositoryByUuidRequest(repository_uuid=uuid)).result.repository_id


def test_repositories(owner: Any, sdk: Any) -> None:
    uuid, number = make_repository(owner)
    shown = owner.show_repository_by_uuid(ShowRepositoryByUuidRequest(repository_uuid=uuid)).result
    assert (shown.repository_name, shown.group_name, shown.domain_name) == ("site", PROJECT, "acme")
    assert shown.ssh_url.startswith("ssh://")
    assert shown.ssh_url.endswith(f"/{PROJECT}/site.git")
    with pytest.raises(ClientRequestException) as refused:
        make_repository(owner)
    assert refused.value.status_code == 409
    listed = owner.list_user_all_repositories(ListUserAllRepositoriesRequest()).result
    assert (listed.total, [repository.repository_id for repository in listed.repositories]) == (1, [number])
    in_project = ShowAllRepositoryByTwoProjectIdRequest(project_uuid=PROJECT)
    assert owner.show_all_repository_by_two_project_id(in_project).result.total == 1
    # Alice may do everything by her policy codeartsrepo::*, which names no repository actions.
    assert sdk.list_user_all_repositories(ListUserAllRepositoriesRequest()).result.total == 0
    with pytest.raises(ClientRequestException) as refused:
        sdk.delete_repository(DeleteRepositoryRequest(repository_uuid=uuid))
    assert refused.value.status_code == 403
    assert owner.delete_repository(DeleteRepositoryRequest(repository_uuid=uuid)).result is True
    assert owner.list_user_all_repositories(ListUserAllRepositoriesRequest()).result.total == 0


def test_members_have_roles(team: Service, owner: Any, sdk: Any) -> None:
    uuid, number = make_repository(owner)
    found = team.call("GET", "/v3/users?name=alice", headers={"X-Auth-Token": "token-of-olga"}).json()
    alice = found["users"][0]["id"]
    one = [RepoMemberInfo(id=alice, role=20)]
    body = CreateRepoMemberRequest(users=one)
    added = owner.add_repo_members(AddRepoMembersRequest(repository_uuid=uuid, body=body))
    assert [member.status for member in added.result] == ["success"]
    listed = owner.list_repo_members(ListRepoMembersRequest(repository_uuid=uuid)).result
    roles = {member.name: member.role for member in listed.users}
    assert (listed.total, roles) == (2, {"alice": 20, "olga": 40})
    with pytest.raises(ClientRequestException) as refused:
        sdk.add_deploy_key_v2(AddDeployKeyV2Request(repository_id=number, body=deploy("ci", fresh_line())))
    assert (refused.value.status_code, refused.value.error_code) == (403, "CH.004403")
    role = SetRepoRoleRequest(member_id=alice, repository_uuid=uuid, body=SetRepoRoleRequestBody(role=40))
    assert owner.set_repo_role(role).status == "success"
    done = sdk.add_deploy_key_v2(AddDeployKeyV2Request(repository_id=number, body=deploy("ci", fresh_line())))
    assert (done.status, done.result.key_title, done.result.can_push) == ("success", "ci", False)
    away = DeleteRepoMemberRequest(member_id=alice, repository_uuid=uuid)
    assert owner.delete_repo_member(away).status == "success"
    with pytest.raises(ClientRequestException) as refused:
        sdk.show_repository_by_uuid(ShowRepositoryByUuidRequest(repository_uuid=uuid))
    assert refused.value.status_code == 403


def test_deploy_keys(owner: Any, sdk: Any) -> None:
    _, first = make_repository(owner, "one")
    _, second = make_repository(owner, "two")
    line = fresh_line("deploy")
    one = owner.add_deploy_key_v2(AddDeployKeyV2Request(repository_id=first, body=deploy("ci", line))).result
    two = owner.add_deploy_key(AddDeployKeyRequest(repository_id=second, body=deploy("ci", line))).result
    assert one.key == two.key == line
    with pytest.raises(ClientRequestException) as refused:
        owner.add_deploy_key_v2(AddDeployKeyV2Request(repository_id=first, body=deploy("again", line)))
    assert (refused.value.status_code, refused.value.error_code) == (409, "CH.080002")
    with pytest.raises(ClientRequestException) as refused:
        add(sdk, "mine", line)
    assert (refused.value.status_code, refused.value.error_code) == (409, "CH.080002")
    with pytest.raises(ClientRequestException) as refused:
        owner.add_deploy_key_v2(AddDeployKeyV2Request(repository_id=first, body=deploy("x", fresh_line(), True)))
    assert refused.value.status_code == 400
    gone = owner.delete_deploy_key_v2(DeleteDeployKeyV2Request(repository_id=first, key_id=int(one.key_id)))
    assert (gone.status, gone.result) == ("success", True)
    with pytest.raises(ClientRequestException):
        add(sdk, "mine", line)
    owner.delete_deploy_key(DeleteDeployKeyRequest(repository_id=second, key_id=int(two.key_id)))
    assert add(sdk, "mine", line).status == "success"
    with pytest.raises(ClientRequestException) as refused:
        owner.add_deploy_key_v2(AddDeployKeyV2Request(repository_id=first, body=deploy("ci", line)))
    assert (refused.value.status_code, refused.value.error_code) == (409, "CH.080002")


def test_ten_deploy_keys_and_no_more(owner: Any) -> None:
    _, number = make_repository(owner)
    for count in range(10):
        body = deploy(f"key {count}", fresh_line())
        owner.add_deploy_key_v2(AddDeployKeyV2Request(repository_id=number, body=body))
    with pytest.raises(ClientRequestException) as refused:
        body = deploy("one too many", fresh_line())
        owner.add_deploy_key_v2(AddDeployKeyV2Request(repository_id=number, body=body))
    assert (refused.value.status_code, refused.value.error_code) == (400, "CH.010001")


def test_deleting_a_repository_frees_its_deploy_keys(owner: Any, sdk: Any) -> None:
    uuid, number = make_repository(owner)
    line = fresh_line()
    owner.add_deploy_key_v2(AddDeployKeyV2Request(repository_id=number, body=deploy("ci", line)))
    owner.delete_repository(DeleteRepositoryRequest(repository_uuid=uuid))
    assert add(sdk, "mine", line).status == "success"
