"""Each noun of CodeArts' API as JSON, and the schemas of its calls; must call no use case."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from starlette.responses import JSONResponse, Response

from keyrack.core.git.access import clone_address
from keyrack.core.instance import Instance
from keyrack.model import Page, RepositoryRole, UserKey, Workspace
from keyrack.store.git.deploy_keys import DeployKey
from keyrack.store.git.repositories import Member, Repository
from keyrack.web.answers import RecordsAsJson
from keyrack.web.shapes import (
    BOOLEAN,
    INTEGER,
    INTEGER_OR_NULL,
    STRING,
    STRING_OR_NULL,
    Schema,
    Shape,
    array_of,
    object_of,
    schema_ref,
    strings,
)

ROLE_NUMBERS = {RepositoryRole.VIEWER: 20, RepositoryRole.DEVELOPER: 30, RepositoryRole.ADMIN: 40}
VISIBILITIES = {0: "private", 10: "internal", 20: "public"}

_ROLE: Schema = {"type": ["integer", "string"], "description": "20 (viewer), 30 (developer) or 40 (administrator)"}

SCHEMAS: dict[str, Schema] = {
    "codearts.Error": object_of(strings("error_code", "error_msg"), request_id=STRING),
    "codearts.ErrorOfV1": object_of({"error": object_of(strings("code", "message")), "status": STRING}),
    "codearts.UserKey": object_of(
        {"id": INTEGER, "title": STRING_OR_NULL, "key": STRING_OR_NULL, "created_at": STRING}
    ),
    "codearts.AddedKey": object_of(
        {"id": INTEGER, "title": {"type": ["string", "number", "null"]}, "key": STRING_OR_NULL, "created_at": STRING}
    ),
    "codearts.Repository": object_of(
        {
            "id": INTEGER,
            **strings("uuid", "name", "path"),
            "namespace": object_of(strings("path", "full_path", "name")),
            **strings("name_with_namespace", "path_with_namespace"),
            "visibility": {"enum": ["private", "internal", "public"]},
            "default_branch": STRING_OR_NULL,
            "creator_id": INTEGER_OR_NULL,
            **strings("created_at", "ssh_url_to_repo", "http_url_to_repo"),
            "archived": BOOLEAN,
        }
    ),
    "codearts.Member": object_of(
        {
            "user_id": INTEGER,
            **strings("user_iam_id", "user_name", "user_nick_name", "tenant_name", "tenant_id"),
            **dict.fromkeys(("is_repo_creator", "is_group_creator", "is_Project_admin"), INTEGER),
            "project_role_name": STRING_OR_NULL,
            **strings("repository_role_name", "repository_role_Id"),
            **dict.fromkeys(("member_source", "member_group_source", "member_source_id"), STRING_OR_NULL),
            "service_license_status": INTEGER_OR_NULL,
            "action_enabled": BOOLEAN,
        }
    ),
    "codearts.DeployKey": object_of({"id": INTEGER, **strings("title", "fingerprint", "created_at")}),
    "codearts.UserKeyOfV1": object_of({"id": STRING, "title": STRING_OR_NULL, "key": STRING_OR_NULL}),
    "codearts.DeployKeyOfV1": object_of(
        {**strings("key_id", "key_title", "key"), "can_push": BOOLEAN, "created_at": STRING}
    ),
    "codearts.RepositoryOfV1": object_of(
        {
            **strings("id", "repoId", "name", "groupName"),
            "visibilityLevel": INTEGER,
            **strings("sshUrl", "httpUrl", "createAt"),
        }
    ),
    "codearts.RepositoryOfV2": object_of(
        {
            "repository_uuid": STRING,
            "repository_id": INTEGER,
            **strings("repository_name", "group_name", "domain_name"),
            "visibility_level": INTEGER,
            **strings("ssh_url", "https_url", "created_at"),
        }
    ),
    "codearts.MemberOfV1": object_of(
        {**strings("id", "user_id", "name"), "role": INTEGER, **strings("domain_id", "domain_name"), "enabled": STRING}
    ),
}


def _envelope(result: Schema) -> Schema:
    """The envelope of CodeArts' v1 and v2."""
    return object_of({"result": result, "status": {"enum": ["success"]}})


_WINDOW = ("offset", "limit")
_PAGES = ("page_index", "page_size")
_V4 = "codearts./v4"
_V1 = "codearts./v1"
_KEY_OF_V1 = object_of(strings("title", "key"))
_DEPLOY_KEY = object_of({**strings("key_title", "key", "application"), "can_push": {"enum": [False]}})
_OUTCOME = object_of(strings("status", "message"), id=STRING, name=STRING)
_OUTCOME_OF_V4 = object_of(
    strings("status", "message"),
    user_iam_id=STRING,
    user_name=STRING,
    tenant_name=STRING,
    tenant_id=STRING,
    repository_role_Id=STRING,
)
_NEW_MEMBER = object_of(
    {"user_iam_id": STRING, "repository_role_Id": _ROLE}, user_name=STRING, tenant_name=STRING, tenant_id=STRING
)
_LISTED_OF_V2 = _envelope(
    object_of({"total": INTEGER, "repositories": array_of(schema_ref("codearts.RepositoryOfV2"))})
)

# By dialect and handler, and by the version's prefix where versions name their calls alike.
SHAPES: dict[str, Shape] = {
    f"{_V4}.add_ssh_key": Shape(
        schema_ref("codearts.AddedKey"),
        object_of({}, title={"type": ["string", "number", "null"]}, key=STRING_OR_NULL),
        status=201,
    ),
    f"{_V4}.list_user_keys": Shape(
        object_of({"keys": array_of(schema_ref("codearts.UserKey")), "total": INTEGER}),
        query=("offset", "limit", "query"),
    ),
    f"{_V4}.delete_ssh_key": Shape(None, status=204),
    f"{_V4}.show_repository": Shape(schema_ref("codearts.Repository")),
    "codearts.list_user_repositories": Shape(array_of(schema_ref("codearts.Repository")), query=("search", *_WINDOW)),
    "codearts.list_project_repositories": Shape(
        array_of(schema_ref("codearts.Repository")), query=("search", *_WINDOW)
    ),
    f"{_V4}.list_members": Shape(
        array_of(schema_ref("codearts.Member")), query=("search", "permission", "action", *_WINDOW)
    ),
    f"{_V4}.add_members": Shape(
        array_of(object_of({"status": {"enum": ["success", "error"]}, "result": array_of(_OUTCOME_OF_V4)})),
        object_of({"users": array_of(_NEW_MEMBER)}),
    ),
    "codearts.list_deploy_keys": Shape(array_of(schema_ref("codearts.DeployKey")), query=_WINDOW),
    "codearts.check_deploy_key": Shape(object_of({"exists": BOOLEAN}), object_of({"key": STRING})),
    f"{_V4}.delete_deploy_key": Shape(None, status=204),
    "codearts.list_project_deploy_keys": Shape(array_of(schema_ref("codearts.DeployKey")), query=_WINDOW),
    "codearts.list_group_deploy_keys": Shape(array_of(schema_ref("codearts.DeployKey")), query=_WINDOW),
    "codearts.check_group_deploy_key": Shape(object_of({"exists": BOOLEAN}), object_of({"key": STRING})),
    f"{_V1}.add_ssh_key": Shape(_envelope(schema_ref("codearts.UserKeyOfV1")), _KEY_OF_V1),
    "codearts.list_ssh_keys": Shape(
        _envelope(object_of({"total": INTEGER, "sshkey": array_of(schema_ref("codearts.UserKeyOfV1"))}))
    ),
    f"{_V1}.delete_ssh_key": Shape(_envelope(STRING)),
    "codearts.refuse_private_key": Shape(schema_ref("codearts.ErrorOfV1"), status=404),
    "codearts.add_deploy_key": Shape(_envelope(schema_ref("codearts.DeployKeyOfV1")), _DEPLOY_KEY),
    **{f"codearts.{prefix}.delete_deploy_key": Shape(_envelope(BOOLEAN)) for prefix in ("/v1", "/v2")},
    "codearts.create_repository": Shape(
        _envelope(object_of({"repository_uuid": STRING})),
        object_of(strings("name", "project_uuid"), visibility_level={"enum": [0, 10, 20]}),
    ),
    f"{_V1}.show_repository": Shape(_envelope(schema_ref("codearts.RepositoryOfV1"))),
    "codearts.show_repository_v2": Shape(_envelope(schema_ref("codearts.RepositoryOfV2"))),
    "codearts.delete_repository": Shape(_envelope(BOOLEAN)),
    "codearts.list_project": Shape(
        _envelope(object_of({"total": INTEGER, "repositorys": array_of(schema_ref("codearts.RepositoryOfV1"))})),
        query=("search", *_PAGES),
    ),
    "codearts.list_all": Shape(_LISTED_OF_V2, query=("search", *_PAGES)),
    "codearts.list_project_v2": Shape(_LISTED_OF_V2, query=("search", *_PAGES)),
    f"{_V1}.list_members": Shape(
        _envelope(object_of({"total": INTEGER, "users": array_of(schema_ref("codearts.MemberOfV1"))})),
        query=("subject", *_PAGES),
    ),
    f"{_V1}.add_members": Shape(
        _envelope(array_of(_OUTCOME)),
        object_of({"users": array_of(object_of({"id": STRING, "role": _ROLE}, name=STRING))}),
    ),
    "codearts.change_member": Shape(_envelope(object_of({})), object_of({"role": _ROLE})),
    "codearts.remove_member": Shape(_envelope(object_of({}))),
}


def created_at(instance: Instance, at: datetime) -> str:
    """A time as v4 writes it: milliseconds and a numeric offset, in the instance's zone."""
    return at.astimezone(ZoneInfo(instance.settings.time_zone)).isoformat(timespec="milliseconds")


def succeeded(result: object) -> Response:
    """An answer in v1's and v2's envelope."""
    return JSONResponse({"result": result, "status": "success"})


def counted(items: list[dict[str, Any]], total: int) -> Response:
    """A list as v4 has it: a bare array, with the total in the header X-Total."""
    return JSONResponse(items, headers={"X-Total": str(total)})


def user_key(instance: Instance, key: UserKey) -> dict[str, Any]:
    """A user's own key, as v4 shows it."""
    return {
        "id": key.id,
        "title": key.title,
        "key": key.with_comment,
        "created_at": created_at(instance, key.created_at),
    }


_user_keys: RecordsAsJson[UserKey] = RecordsAsJson()


def user_key_page(instance: Instance, page: Page[UserKey]) -> Response:
    """The answer with a page of a user's own keys."""
    zone = instance.settings.time_zone
    return _user_keys.page(page, zone, partial(user_key, instance), "keys", lambda: {"total": page.total})


def user_key_v1(key: UserKey) -> dict[str, Any]:
    """A user's own key, as v1 shows it."""
    return {"id": str(key.id), "title": key.title, "key": key.with_comment}


def repository(instance: Instance, repository: Repository) -> dict[str, Any]:
    """A repository, as v4 shows it."""
    group, _, name = repository.path.rpartition("/")
    return {
        "id": repository.id,
        "uuid": repository.uid,
        "name": name,
        "path": name,
        "namespace": {"path": group, "full_path": group, "name": group},
        "name_with_namespace": repository.path,
        "path_with_namespace": repository.path,
        "visibility": VISIBILITIES[repository.visibility],
        "default_branch": repository.default_branch,
        "creator_id": repository.created_by,
        "created_at": created_at(instance, repository.created_at),
        "ssh_url_to_repo": clone_address(instance, repository.path),
        "http_url_to_repo": "",
        "archived": False,
    }


def repository_v1(instance: Instance, repository: Repository) -> dict[str, Any]:
    """A repository, as v1 shows it."""
    group, _, name = repository.path.rpartition("/")
    return {
        "id": repository.uid,
        "repoId": str(repository.id),
        "name": name,
        "groupName": group,
        "visibilityLevel": repository.visibility,
        "sshUrl": clone_address(instance, repository.path),
        "httpUrl": "",
        "createAt": created_at(instance, repository.created_at),
    }


def repository_v2(instance: Instance, workspace: Workspace, repository: Repository) -> dict[str, Any]:
    """A repository, as v2 shows it."""
    group, _, name = repository.path.rpartition("/")
    return {
        "repository_uuid": repository.uid,
        "repository_id": repository.id,
        "repository_name": name,
        "group_name": group,
        "domain_name": workspace.name,
        "visibility_level": repository.visibility,
        "ssh_url": clone_address(instance, repository.path),
        "https_url": "",
        "created_at": created_at(instance, repository.created_at),
    }


def member(member: Member, repository: Repository, workspace: Workspace) -> dict[str, Any]:
    """A member of a repository, as v4 shows it."""
    return {
        "user_id": member.user.id,
        "user_iam_id": member.user.uid,
        "user_name": member.user.name,
        "user_nick_name": member.user.name,
        "tenant_name": workspace.name,
        "tenant_id": workspace.uid,
        "is_repo_creator": int(member.user.id == repository.created_by),
        # Keyrack has no groups or project roles; programs read these fields all the same.
        "is_group_creator": 0,
        "is_Project_admin": 0,
        "project_role_name": None,
        "repository_role_name": member.role.value,
        "repository_role_Id": str(ROLE_NUMBERS[member.role]),
        "member_source": None,
        "member_group_source": None,
        "member_source_id": None,
        "service_license_status": None,
        "action_enabled": member.user.disabled_at is None,
    }


def member_v1(member: Member, workspace: Workspace) -> dict[str, Any]:
    """A member of a repository, as v1 shows it."""
    return {
        # CodeArts' documentation calls it id, as in the call that adds a member; its SDK reads user_id.
        "id": member.user.uid,
        "user_id": member.user.uid,
        "name": member.user.name,
        "role": ROLE_NUMBERS[member.role],
        "domain_id": workspace.uid,
        "domain_name": workspace.name,
        "enabled": "true" if member.user.disabled_at is None else "false",
    }


def deploy_key(instance: Instance, key: DeployKey) -> dict[str, Any]:
    """A deploy key, as v4 shows it."""
    return {
        "id": key.id,
        "title": key.title,
        "fingerprint": key.fingerprint,
        "created_at": created_at(instance, key.created_at),
    }


def deploy_key_v1(instance: Instance, key: DeployKey) -> dict[str, Any]:
    """A deploy key, as v1 and v2 show it."""
    return {
        "key_id": str(key.id),
        "key_title": key.title,
        "key": key.with_comment,
        "can_push": key.can_push,
        "created_at": created_at(instance, key.created_at),
    }
