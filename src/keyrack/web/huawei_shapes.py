"""The shapes of what CodeArts' APIs and IAM take and answer beside keys and tokens; must check nothing."""

from __future__ import annotations

from keyrack.web.shapes import (
    TEXT,
    TEXT_OR_NULL,
    WHOLE,
    WHOLE_OR_NULL,
    YES_OR_NO,
    Schema,
    Shape,
    many,
    named,
    record,
    texts,
)

_LINKS = record({"self": TEXT}, previous=TEXT_OR_NULL, next=TEXT_OR_NULL)
_ROLE: Schema = {"type": ["integer", "string"], "description": "20 (viewer), 30 (developer) or 40 (administrator)"}

SCHEMAS: dict[str, Schema] = {
    "codearts.Repository": record(
        {
            "id": WHOLE,
            **texts("uuid", "name", "path"),
            "namespace": record(texts("path", "full_path", "name")),
            **texts("name_with_namespace", "path_with_namespace"),
            "visibility": {"enum": ["private", "internal", "public"]},
            "default_branch": TEXT_OR_NULL,
            "creator_id": WHOLE_OR_NULL,
            **texts("created_at", "ssh_url_to_repo", "http_url_to_repo"),
            "archived": YES_OR_NO,
        }
    ),
    "codearts.Member": record(
        {
            "user_id": WHOLE,
            **texts("user_iam_id", "user_name", "user_nick_name", "tenant_name", "tenant_id"),
            "is_repo_creator": WHOLE,
            **texts("repository_role_name", "repository_role_Id"),
            "action_enabled": YES_OR_NO,
        }
    ),
    "codearts.DeployKey": record({"id": WHOLE, **texts("title", "fingerprint", "created_at")}),
    "codearts.UserKeyOfV1": record({"id": TEXT, "title": TEXT_OR_NULL, "key": TEXT_OR_NULL}),
    "codearts.DeployKeyOfV1": record(
        {**texts("key_id", "key_title", "key"), "can_push": YES_OR_NO, "created_at": TEXT}
    ),
    "codearts.RepositoryOfV1": record(
        {
            **texts("id", "repoId", "name", "groupName"),
            "visibilityLevel": WHOLE,
            **texts("sshUrl", "httpUrl", "createAt"),
        }
    ),
    "codearts.RepositoryOfV2": record(
        {
            "repository_uuid": TEXT,
            "repository_id": WHOLE,
            **texts("repository_name", "group_name", "domain_name"),
            "visibility_level": WHOLE,
            **texts("ssh_url", "https_url", "created_at"),
        }
    ),
    "codearts.MemberOfV1": record(
        {**texts("user_id", "name"), "role": WHOLE, **texts("domain_id", "domain_name"), "enabled": TEXT}
    ),
    "iam.Project": record(
        {
            **texts("id", "name", "domain_id", "parent_id"),
            "enabled": YES_OR_NO,
            "is_domain": YES_OR_NO,
            "description": TEXT,
            "links": _LINKS,
        }
    ),
    "iam.Domain": record({**texts("id", "name"), "enabled": YES_OR_NO, "description": TEXT, "links": _LINKS}),
    "iam.User": record(
        {
            **texts("id", "name", "domain_id"),
            "enabled": YES_OR_NO,
            **texts("password_expires_at", "description"),
            "links": _LINKS,
        }
    ),
    "iam.AccessKey": record(
        {
            **texts("access", "user_id"),
            "status": {"enum": ["active", "inactive"]},
            **texts("description", "create_time"),
        },
        secret=TEXT,
    ),
    "iam.TemporaryAccessKey": record(texts("access", "secret", "securitytoken", "expires_at")),
    "iam.Version": record(
        {
            **texts("id", "status", "updated"),
            "links": many(record(texts("rel", "href"))),
            "media-types": many(record(texts("base", "type"))),
        }
    ),
    "iam.Endpoints": record(
        {
            **texts("id", "type", "name"),
            "endpoints": many(record(texts("id", "url", "region", "region_id", "interface"))),
        }
    ),
}


def _envelope(result: Schema) -> Schema:
    """The envelope of CodeArts' v1 and v2."""
    return record({"result": result, "status": {"enum": ["success"]}})


_WINDOW = ("offset", "limit")
_PAGES = ("page_index", "page_size")
_V4 = "codearts./v4"
_V1 = "codearts./v1"
_KEY_OF_V1 = record(texts("title", "key"))
_DEPLOY_KEY = record({**texts("key_title", "key", "application"), "can_push": {"enum": [False]}})
_OUTCOME = record(texts("status", "message"), id=TEXT, name=TEXT)
_OUTCOME_OF_V4 = record(
    texts("status", "message"),
    user_iam_id=TEXT,
    user_name=TEXT,
    tenant_name=TEXT,
    tenant_id=TEXT,
    repository_role_Id=TEXT,
)
_NEW_MEMBER = record(
    {"user_iam_id": TEXT, "repository_role_Id": _ROLE}, user_name=TEXT, tenant_name=TEXT, tenant_id=TEXT
)
_LISTED_OF_V2 = _envelope(record({"total": WHOLE, "repositories": many(named("codearts.RepositoryOfV2"))}))
_PROJECTS = Shape(record({"projects": many(named("iam.Project")), "links": _LINKS}), query=("name",))
_ONE_USER = record({"user": named("iam.User")})
_ONE_KEY = record({"credential": named("iam.AccessKey")})
_POLICY = record({"Statement": many(record({"Effect": {"enum": ["Allow"]}, "Action": many(TEXT)}))}, Version=TEXT)
_BY_TOKEN = record(
    {"methods": many({"enum": ["token"]})}, token=record({}, id=TEXT, duration_seconds=WHOLE), policy=_POLICY
)

SHAPES: dict[str, Shape] = {
    f"{_V4}.show_repository": Shape(named("codearts.Repository")),
    "codearts.list_user_repositories": Shape(many(named("codearts.Repository")), query=("search", *_WINDOW)),
    "codearts.list_project_repositories": Shape(many(named("codearts.Repository")), query=("search", *_WINDOW)),
    f"{_V4}.list_members": Shape(many(named("codearts.Member")), query=("search", "permission", "action", *_WINDOW)),
    f"{_V4}.add_members": Shape(
        many(record({"status": {"enum": ["success", "error"]}, "result": many(_OUTCOME_OF_V4)})),
        record({"users": many(_NEW_MEMBER)}),
    ),
    "codearts.list_deploy_keys": Shape(many(named("codearts.DeployKey")), query=_WINDOW),
    "codearts.check_deploy_key": Shape(record({"exists": YES_OR_NO}), record({"key": TEXT})),
    f"{_V4}.delete_deploy_key": Shape(None, status=204),
    "codearts.list_project_deploy_keys": Shape(many(named("codearts.DeployKey")), query=_WINDOW),
    f"{_V1}.add_ssh_key": Shape(_envelope(named("codearts.UserKeyOfV1")), _KEY_OF_V1),
    "codearts.list_ssh_keys": Shape(_envelope(record({"total": WHOLE, "sshkey": many(named("codearts.UserKeyOfV1"))}))),
    f"{_V1}.delete_ssh_key": Shape(_envelope(TEXT)),
    "codearts.refuse_private_key": Shape(named("codearts.ErrorOfV1"), status=404),
    "codearts.add_deploy_key": Shape(_envelope(named("codearts.DeployKeyOfV1")), _DEPLOY_KEY),
    **{f"codearts.{prefix}.delete_deploy_key": Shape(_envelope(YES_OR_NO)) for prefix in ("/v1", "/v2")},
    "codearts.create_repository": Shape(
        _envelope(record({"repository_uuid": TEXT})),
        record(texts("name", "project_uuid"), visibility_level={"enum": [0, 10, 20]}),
    ),
    f"{_V1}.show_repository": Shape(_envelope(named("codearts.RepositoryOfV1"))),
    "codearts.show_repository_v2": Shape(_envelope(named("codearts.RepositoryOfV2"))),
    "codearts.delete_repository": Shape(_envelope(YES_OR_NO)),
    "codearts.list_project": Shape(
        _envelope(record({"total": WHOLE, "repositorys": many(named("codearts.RepositoryOfV1"))})),
        query=("search", *_PAGES),
    ),
    "codearts.list_all": Shape(_LISTED_OF_V2, query=("search", *_PAGES)),
    "codearts.list_project_v2": Shape(_LISTED_OF_V2, query=("search", *_PAGES)),
    f"{_V1}.list_members": Shape(
        _envelope(record({"total": WHOLE, "users": many(named("codearts.MemberOfV1"))})), query=("subject", *_PAGES)
    ),
    f"{_V1}.add_members": Shape(
        _envelope(many(_OUTCOME)), record({"users": many(record({"id": TEXT, "role": _ROLE}, name=TEXT))})
    ),
    "codearts.change_member": Shape(_envelope(record({})), record({"role": _ROLE})),
    "codearts.remove_member": Shape(_envelope(record({}))),
    "iam.show_version": Shape(record({"version": named("iam.Version")})),
    "iam.show_catalog": Shape(record({"catalog": many(named("iam.Endpoints")), "links": _LINKS})),
    "iam.list_projects": _PROJECTS,
    "iam.list_own_projects": _PROJECTS,
    "iam.list_domains": Shape(record({"domains": many(named("iam.Domain")), "links": _LINKS})),
    "iam.list_users": Shape(record({"users": many(named("iam.User")), "links": _LINKS}), query=("name",)),
    "iam.create_user": Shape(_ONE_USER, record({"user": record({"name": TEXT}, password=TEXT)}), status=201),
    "iam.show_user": Shape(_ONE_USER),
    "iam.change_user": Shape(_ONE_USER, record({"user": record({}, enabled=YES_OR_NO, password=TEXT)})),
    "iam.delete_user": Shape(None, status=204),
    "iam.change_own_password": Shape(
        None, record({"user": record(texts("original_password", "password"))}), status=204
    ),
    "iam.create": Shape(_ONE_KEY, record({"credential": record({}, user_id=TEXT, description=TEXT)}), status=201),
    "iam.find": Shape(record({"credentials": many(named("iam.AccessKey"))}), query=("user_id",)),
    "iam.show": Shape(_ONE_KEY),
    "iam.change": Shape(
        _ONE_KEY, record({"credential": record({}, status={"enum": ["active", "inactive"]}, description=TEXT)})
    ),
    "iam.delete": Shape(None, status=204),
    "iam.issue_temporary": Shape(
        record({"credential": named("iam.TemporaryAccessKey")}),
        record({"auth": record({"identity": _BY_TOKEN})}),
        status=201,
    ),
    "iam.caller_identity": Shape(record(texts("account_id", "principal_id", "principal_urn"))),
}
