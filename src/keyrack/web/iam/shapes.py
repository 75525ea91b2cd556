"""Each noun of IAM as JSON, and the schemas of its calls; must call no use case."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from keyrack.core.instance import Instance
from keyrack.core.people.access_keys import AccessKey
from keyrack.core.people.tokens import SECOND, SignedIn
from keyrack.model import Project, User, Workspace
from keyrack.web.api import Call
from keyrack.web.shapes import (
    BOOLEAN,
    INTEGER,
    STRING,
    STRING_OR_NULL,
    Schema,
    Shape,
    array_of,
    object_of,
    schema_ref,
    strings,
)

_LINKS = object_of({"self": STRING}, previous=STRING_OR_NULL, next=STRING_OR_NULL)

SCHEMAS: dict[str, Schema] = {
    "iam.Error": object_of({"error": object_of({"code": INTEGER, **strings("message", "title")})}),
    "iam.Named": object_of(strings("id", "name")),
    "iam.Token": object_of(
        {
            "methods": array_of(STRING),
            **strings("issued_at", "expires_at"),
            "user": object_of({**strings("id", "name", "password_expires_at"), "domain": schema_ref("iam.Named")}),
            "roles": array_of(schema_ref("iam.Named")),
        },
        project=object_of({**strings("id", "name"), "domain": schema_ref("iam.Named")}),
        domain=schema_ref("iam.Named"),
        catalog=array_of({"type": "object"}),
    ),
    "iam.Project": object_of(
        {
            **strings("id", "name", "domain_id", "parent_id"),
            "enabled": BOOLEAN,
            "is_domain": BOOLEAN,
            "description": STRING,
            "links": _LINKS,
        }
    ),
    "iam.Domain": object_of({**strings("id", "name"), "enabled": BOOLEAN, "description": STRING, "links": _LINKS}),
    "iam.User": object_of(
        {
            **strings("id", "name", "domain_id"),
            "enabled": BOOLEAN,
            **strings("password_expires_at", "description"),
            "links": _LINKS,
        }
    ),
    "iam.AccessKey": object_of(
        {
            **strings("access", "user_id"),
            "status": {"enum": ["active", "inactive"]},
            **strings("description", "create_time"),
        },
        secret=STRING,
    ),
    "iam.TemporaryAccessKey": object_of(strings("access", "secret", "securitytoken", "expires_at")),
    "iam.Version": object_of(
        {
            **strings("id", "status", "updated"),
            "links": array_of(object_of(strings("rel", "href"))),
            "media-types": array_of(object_of(strings("base", "type"))),
        }
    ),
    "iam.Endpoints": object_of(
        {
            **strings("id", "type", "name"),
            "endpoints": array_of(object_of(strings("id", "url", "region", "region_id", "interface"))),
        }
    ),
}

_NAMED_USER = object_of({"password": STRING}, id=STRING, name=STRING, domain=object_of({}, id=STRING, name=STRING))
_PLACE = object_of({}, id=STRING, name=STRING, domain=object_of({}, id=STRING, name=STRING))
_SIGN_IN = object_of(
    {
        "auth": object_of(
            {
                "identity": object_of(
                    {"methods": array_of({"enum": ["password", "totp"]}), "password": object_of({"user": _NAMED_USER})},
                    totp=object_of({"user": object_of({"passcode": STRING}, id=STRING)}),
                )
            },
            scope=object_of({}, project=_PLACE, domain=_PLACE),
        )
    }
)
_PROJECTS = Shape(object_of({"projects": array_of(schema_ref("iam.Project")), "links": _LINKS}), query=("name",))
_ONE_USER = object_of({"user": schema_ref("iam.User")})
_ONE_KEY = object_of({"credential": schema_ref("iam.AccessKey")})
_POLICY = object_of(
    {"Statement": array_of(object_of({"Effect": {"enum": ["Allow"]}, "Action": array_of(STRING)}))}, Version=STRING
)
_BY_TOKEN = object_of(
    {"methods": array_of({"enum": ["token"]})}, token=object_of({}, id=STRING, duration_seconds=INTEGER), policy=_POLICY
)

# By dialect and handler.
SHAPES: dict[str, Shape] = {
    "iam.issue_token": Shape(object_of({"token": schema_ref("iam.Token")}), _SIGN_IN, status=201, query=("nocatalog",)),
    "iam.validate_token": Shape(object_of({"token": schema_ref("iam.Token")}), query=("nocatalog",)),
    "iam.revoke_token": Shape(None, status=204),
    "iam.show_version": Shape(object_of({"version": schema_ref("iam.Version")})),
    "iam.show_catalog": Shape(object_of({"catalog": array_of(schema_ref("iam.Endpoints")), "links": _LINKS})),
    "iam.list_projects": _PROJECTS,
    "iam.list_own_projects": _PROJECTS,
    "iam.list_domains": Shape(object_of({"domains": array_of(schema_ref("iam.Domain")), "links": _LINKS})),
    "iam.list_users": Shape(object_of({"users": array_of(schema_ref("iam.User")), "links": _LINKS}), query=("name",)),
    "iam.create_user": Shape(_ONE_USER, object_of({"user": object_of({"name": STRING}, password=STRING)}), status=201),
    "iam.show_user": Shape(_ONE_USER),
    "iam.change_user": Shape(_ONE_USER, object_of({"user": object_of({}, enabled=BOOLEAN, password=STRING)})),
    "iam.delete_user": Shape(None, status=204),
    "iam.change_own_password": Shape(
        None, object_of({"user": object_of(strings("original_password", "password"))}), status=204
    ),
    "iam.create": Shape(
        _ONE_KEY, object_of({"credential": object_of({}, user_id=STRING, description=STRING)}), status=201
    ),
    "iam.find": Shape(object_of({"credentials": array_of(schema_ref("iam.AccessKey"))}), query=("user_id",)),
    "iam.show": Shape(_ONE_KEY),
    "iam.change": Shape(
        _ONE_KEY, object_of({"credential": object_of({}, status={"enum": ["active", "inactive"]}, description=STRING)})
    ),
    "iam.delete": Shape(None, status=204),
    "iam.issue_temporary": Shape(
        object_of({"credential": schema_ref("iam.TemporaryAccessKey")}),
        object_of({"auth": object_of({"identity": _BY_TOKEN})}),
        status=201,
    ),
    "iam.caller_identity": Shape(object_of(strings("account_id", "principal_id", "principal_urn"))),
}


def moment(at: datetime | None) -> str:
    """A time as IAM writes it, UTC with six decimals; "" for never."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def links(call: Call) -> dict[str, Any]:
    """The links of a list, which has one page."""
    return {"self": f"{call.instance.settings.url}{call.request.url.path}", "previous": None, "next": None}


def domain(instance: Instance, workspace: Workspace) -> dict[str, Any]:
    """A workspace, which IAM calls a domain."""
    return {
        "id": workspace.uid,
        "name": workspace.name,
        "enabled": True,
        "description": "",
        "links": {"self": f"{instance.settings.url}/v3/domains/{workspace.uid}"},
    }


def project(instance: Instance, project: Project, workspace: Workspace) -> dict[str, Any]:
    """A project."""
    return {
        "id": project.uid,
        "name": project.name,
        "domain_id": workspace.uid,
        "parent_id": workspace.uid,
        "enabled": True,
        "is_domain": False,
        "description": "",
        "links": {"self": f"{instance.settings.url}/v3/projects/{project.uid}"},
    }


def user(instance: Instance, user: User, workspace: Workspace) -> dict[str, Any]:
    """A user."""
    return {
        "id": user.uid,
        "name": user.name,
        "domain_id": workspace.uid,
        "enabled": user.disabled_at is None,
        "password_expires_at": "",
        "description": "",
        "links": {"self": f"{instance.settings.url}/v3/users/{user.uid}"},
    }


def access_key(key: AccessKey) -> dict[str, Any]:
    """An access key without its secret."""
    return {
        "access": key.id,
        "user_id": key.user_uid,
        "status": "active" if key.active else "inactive",
        "description": key.description,
        "create_time": moment(key.created_at),
    }


def temporary_access_key(key: AccessKey) -> dict[str, Any]:
    """A temporary access key, with its secret, which is shown only once."""
    return {
        "access": key.id,
        "secret": key.secret,
        "securitytoken": key.security_token,
        "expires_at": moment(key.expires_at),
    }


def token(instance: Instance, signed_in: SignedIn, *, catalog: bool) -> dict[str, Any]:
    """A valid token: its user, scope and end; catalog: whether the catalog of APIs is included."""
    domain = {"id": signed_in.workspace.uid, "name": signed_in.workspace.name}
    body: dict[str, Any] = {
        "methods": ["password", "totp"] if signed_in.token.details.get(SECOND) else ["password"],
        "issued_at": moment(signed_in.token.created_at),
        "expires_at": moment(signed_in.token.expires_at),
        "user": {
            "id": signed_in.user.uid,
            "name": signed_in.user.name,
            "password_expires_at": "",
            "domain": domain,
        },
        "roles": [{"id": "0", "name": "te_admin" if signed_in.user.role in ("owner", "admin") else "readonly"}],
    }
    if signed_in.project is None:
        body["domain"] = domain
    else:
        body["project"] = {
            "id": signed_in.project.uid,
            "name": signed_in.project.name,
            "domain": domain,
        }
    if catalog:
        body["catalog"] = api_catalog(instance)
    return body


def version(instance: Instance) -> dict[str, Any]:
    """The version of this API."""
    return {
        "id": "v3.6",
        "status": "stable",
        "updated": "2026-11-22T00:00:00Z",
        "links": [{"rel": "self", "href": f"{instance.settings.url}/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


def api_catalog(instance: Instance) -> list[dict[str, Any]]:
    """The APIs there are, and where."""

    def entry(uid: str, kind: str, name: str, url: str) -> dict[str, Any]:
        endpoint = {"id": uid, "url": url, "region": "*", "region_id": "*", "interface": "public"}
        return {"id": uid, "type": kind, "name": name, "endpoints": [endpoint]}

    url = instance.settings.url
    return [
        entry("0" * 31 + "1", "identity", "iam", f"{url}/v3"),
        entry("0" * 31 + "2", "codeartsrepo", "codeartsrepo", url),
    ]
