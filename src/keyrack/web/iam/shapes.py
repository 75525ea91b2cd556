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
    TEXT,
    TEXT_OR_NULL,
    WHOLE,
    YES_OR_NO,
    Schema,
    Shape,
    many,
    named,
    record,
    texts,
)

_LINKS = record({"self": TEXT}, previous=TEXT_OR_NULL, next=TEXT_OR_NULL)

SCHEMAS: dict[str, Schema] = {
    "iam.Error": record({"error": record({"code": WHOLE, **texts("message", "title")})}),
    "iam.Named": record(texts("id", "name")),
    "iam.Token": record(
        {
            "methods": many(TEXT),
            **texts("issued_at", "expires_at"),
            "user": record({**texts("id", "name", "password_expires_at"), "domain": named("iam.Named")}),
            "roles": many(named("iam.Named")),
        },
        project=record({**texts("id", "name"), "domain": named("iam.Named")}),
        domain=named("iam.Named"),
        catalog=many({"type": "object"}),
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

_NAMED_USER = record({"password": TEXT}, id=TEXT, name=TEXT, domain=record({}, id=TEXT, name=TEXT))
_PLACE = record({}, id=TEXT, name=TEXT, domain=record({}, id=TEXT, name=TEXT))
_SIGN_IN = record(
    {
        "auth": record(
            {
                "identity": record(
                    {"methods": many({"enum": ["password", "totp"]}), "password": record({"user": _NAMED_USER})},
                    totp=record({"user": record({"passcode": TEXT}, id=TEXT)}),
                )
            },
            scope=record({}, project=_PLACE, domain=_PLACE),
        )
    }
)
_PROJECTS = Shape(record({"projects": many(named("iam.Project")), "links": _LINKS}), query=("name",))
_ONE_USER = record({"user": named("iam.User")})
_ONE_KEY = record({"credential": named("iam.AccessKey")})
_POLICY = record({"Statement": many(record({"Effect": {"enum": ["Allow"]}, "Action": many(TEXT)}))}, Version=TEXT)
_BY_TOKEN = record(
    {"methods": many({"enum": ["token"]})}, token=record({}, id=TEXT, duration_seconds=WHOLE), policy=_POLICY
)

# By dialect and handler.
SHAPES: dict[str, Shape] = {
    "iam.issue_token": Shape(record({"token": named("iam.Token")}), _SIGN_IN, status=201, query=("nocatalog",)),
    "iam.validate_token": Shape(record({"token": named("iam.Token")}), query=("nocatalog",)),
    "iam.revoke_token": Shape(None, status=204),
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
    """A temporary access key, with the secret that is shown this once."""
    return {
        "access": key.id,
        "secret": key.secret,
        "securitytoken": key.security_token,
        "expires_at": moment(key.expires_at),
    }


def token(instance: Instance, signed_in: SignedIn, *, catalog: bool) -> dict[str, Any]:
    """A token that is in force: whose, for what, until when; catalog: with what APIs there are."""
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
