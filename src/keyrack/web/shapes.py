"""The shapes of requests and answers, for the description that clients are generated from; must check nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """What one call takes and answers: the schema of its body, None for none, and of its answer with its status."""

    answer: Schema | None
    body: Schema | None = None
    status: int = 200
    query: tuple[str, ...] = ()


TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
YES_OR_NO: Schema = {"type": "boolean"}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
WHOLE_OR_NULL: Schema = {"type": ["integer", "null"]}


def record(required: dict[str, Schema], **optional: Schema) -> Schema:
    """An object; required and optional: its fields."""
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def many(schema: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": schema}


def named(name: str) -> Schema:
    """One of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def texts(*names: str) -> dict[str, Schema]:
    """Fields of text."""
    return dict.fromkeys(names, TEXT)


_PAGINATION = record(
    {
        **dict.fromkeys(("total", "count", "per_page", "current_page", "total_pages"), WHOLE),
        "links": record({}, previous=TEXT, next=TEXT),
    }
)
_THEN: Schema = {"enum": ["keep", "drop-temporary", "drop-all"]}
_THREE = dict.fromkeys(("passwordlessLogin", "useDns", "preventRootLogin"), YES_OR_NO)
_RECEIPT = {"server_id": WHOLE, "server_name": TEXT, "wanted": WHOLE, "applied": WHOLE, "done": YES_OR_NO}

SCHEMAS: dict[str, Schema] = {
    "runcloud.Error": record({"message": TEXT}, errors={"type": "object", "additionalProperties": many(TEXT)}),
    "codearts.Error": record(texts("error_code", "error_msg"), request_id=TEXT),
    "codearts.ErrorOfV1": record({"error": record(texts("code", "message")), "status": TEXT}),
    "iam.Error": record({"error": record({"code": WHOLE, **texts("message", "title")})}),
    "native.Error": record({"error": record(texts("code", "message"), field=TEXT)}),
    "runcloud.Credential": record(
        {
            "id": WHOLE,
            **texts("label", "user", "publicKey"),
            "temporary": YES_OR_NO,
            **texts("created_at", "fingerprint"),
            "expires_at": TEXT_OR_NULL,
            "state": {"enum": ["pending", "delivered"]},
            "delivered_at": TEXT_OR_NULL,
        },
        user_id=WHOLE,
    ),
    "runcloud.Opening": record({"kind": {"enum": ["credential", "grant", "file"]}, "id": WHOLE, "name": TEXT}),
    "runcloud.SystemUser": record(
        {
            "id": WHOLE,
            "username": TEXT,
            "deploymentKey": TEXT_OR_NULL,
            "deleteable": YES_OR_NO,
            **texts("created_at", "state"),
        }
    ),
    "runcloud.Server": record(
        {
            "id": WHOLE,
            "name": TEXT,
            "provider": TEXT_OR_NULL,
            **texts("stack", "ipAddress"),
            "country_iso_code": TEXT_OR_NULL,
            "os": TEXT,
            "osVersion": TEXT_OR_NULL,
            "connected": YES_OR_NO,
            "online": YES_OR_NO,
            "agentVersion": TEXT_OR_NULL,
            "phpCLIVersion": TEXT_OR_NULL,
            "softwareUpdate": YES_OR_NO,
            "securityUpdate": YES_OR_NO,
            **texts("transferStatus", "created_at"),
            "tags": many(TEXT),
            "mode": TEXT,
        }
    ),
    "runcloud.Config": record(
        {"id": WHOLE, "server_id": WHOLE, **_THREE, **texts("created_at", "updated_at", "state")}
    ),
    "runcloud.Settings": record(_THREE),
    "runcloud.Session": record(
        {
            "id": WHOLE,
            **texts("user", "ipAddress"),
            "fingerprint": TEXT_OR_NULL,
            "label": TEXT_OR_NULL,
            "created_at": TEXT,
            "ending": YES_OR_NO,
        }
    ),
    "runcloud.Log": record(
        {
            **texts("kind", "content", "created_at", "actor"),
            "token": TEXT_OR_NULL,
            **texts("ipAddress", "action", "outcome"),
        }
    ),
    "runcloud.Machine": record(
        {
            "kernelVersion": TEXT_OR_NULL,
            "processorName": TEXT_OR_NULL,
            **dict.fromkeys(("totalCPUCore", "totalMemory", "freeMemory", "diskTotal", "diskFree"), WHOLE_OR_NULL),
            "loadAvg": {"type": ["number", "null"]},
            "uptime": WHOLE_OR_NULL,
            "updated_at": TEXT_OR_NULL,
        }
    ),
    "codearts.UserKey": record({"id": WHOLE, "title": TEXT_OR_NULL, "key": TEXT_OR_NULL, "created_at": TEXT}),
    "codearts.AddedKey": record(
        {"id": WHOLE, "title": {"type": ["string", "number", "null"]}, "key": TEXT_OR_NULL, "created_at": TEXT}
    ),
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
    "native.Server": record(
        {
            "id": WHOLE,
            **texts("name", "address"),
            "tags": many(TEXT),
            **dict.fromkeys(("agent_version", "os", "os_version", "enrolled_at"), TEXT_OR_NULL),
            **texts("mode", "enforcement", "undone"),
            **dict.fromkeys(("wanted", "applied"), WHOLE),
            **dict.fromkeys(("applied_at", "seen_at"), TEXT_OR_NULL),
            "online": YES_OR_NO,
            "offline_after_seconds": WHOLE,
            "offline_then": _THEN,
            "problems": many(TEXT),
            **texts("state", "offline_words"),
        }
    ),
    "native.DeletedServer": record(
        {"id": WHOLE, **texts("name", "address", "deleted_at", "deleted_by"), "acknowledged_at": TEXT_OR_NULL}
    ),
    "native.Difference": record(
        {
            "waiting_for_host": YES_OR_NO,
            "undecided": YES_OR_NO,
            "held_back": many(
                record(
                    {
                        "kind": TEXT,
                        **dict.fromkeys(("username", "fingerprint"), TEXT_OR_NULL),
                        "options": many(TEXT),
                        **dict.fromkeys(("name", "decided_at"), TEXT_OR_NULL),
                    }
                )
            ),
        }
    ),
    "native.DamagedRow": record(texts("row", "what")),
    "native.Grant": record(
        {
            "id": WHOLE,
            **dict.fromkeys(("user", "group", "server"), TEXT_OR_NULL),
            "server_id": WHOLE_OR_NULL,
            "tag": TEXT_OR_NULL,
            "system_user": TEXT,
            "expires_at": TEXT_OR_NULL,
            "restrictions": {"type": "object"},
            "created_at": TEXT,
        }
    ),
    "native.UserKey": record(
        {
            "id": WHOLE,
            **dict.fromkeys(("user", "title", "fingerprint", "public_key"), TEXT_OR_NULL),
            "created_at": TEXT,
            "last_uses": many(record({"server": TEXT, "server_id": WHOLE_OR_NULL, **texts("at", "address")})),
        }
    ),
    "native.Token": record(
        {
            "id": WHOLE,
            **texts("name", "user"),
            "scopes": many(TEXT),
            "created_at": TEXT,
            **dict.fromkeys(("expires_at", "last_used_at"), TEXT_OR_NULL),
        }
    ),
    "native.Repository": record(
        {
            "id": WHOLE,
            "path": TEXT,
            "visibility": WHOLE,
            "default_branch": TEXT_OR_NULL,
            "protect_default": YES_OR_NO,
        }
    ),
    "native.UnmanagedKey": record(
        {
            "id": WHOLE,
            "server_id": WHOLE,
            **texts("username", "path", "kind"),
            "line": WHOLE,
            **texts("fingerprint", "key_type", "public_key", "options", "comment", "problem"),
            "in_force": YES_OR_NO,
            **texts("state", "found_at", "seen_at"),
            "owner": TEXT_OR_NULL,
            "credential_id": WHOLE_OR_NULL,
        }
    ),
    "native.Credential": record(
        {
            "id": WHOLE,
            "server_id": WHOLE,
            **texts("username", "label", "fingerprint", "public_key"),
            "restrictions": {"type": "object"},
            "expires_at": TEXT_OR_NULL,
            "revision": WHOLE,
        },
        temporary=YES_OR_NO,
        delivered=YES_OR_NO,
        created_at=TEXT,
        last_used_at=TEXT_OR_NULL,
        last_used_from=TEXT_OR_NULL,
    ),
    "native.Session": record(
        {
            "id": WHOLE,
            **texts("username", "address"),
            "fingerprint": TEXT_OR_NULL,
            "label": TEXT_OR_NULL,
            "started_at": TEXT,
            "ending": YES_OR_NO,
        }
    ),
    "native.Event": record(
        {
            "id": WHOLE,
            **texts("at", "actor", "token", "address", "channel", "action", "outcome", "reason"),
            "server_id": WHOLE_OR_NULL,
            **texts("summary", "level"),
        }
    ),
    "native.Receipts": record({"done": YES_OR_NO, "words": TEXT, "servers": many(record(_RECEIPT, at=TEXT_OR_NULL))}),
    "native.Revoked": record(
        {
            "fingerprint": TEXT,
            **dict.fromkeys(("credentials", "user_keys", "repositories"), WHOLE),
            "revisions": {"type": "object", "additionalProperties": WHOLE},
        }
    ),
    "native.RevokedKey": record({**texts("fingerprint", "revoked_by"), "reason": TEXT_OR_NULL, "revoked_at": TEXT}),
}


def _runcloud(name: str) -> Schema:
    return record({"data": many(named(f"runcloud.{name}")), "meta": record({"pagination": _PAGINATION})})


def _native(name: str) -> Schema:
    return record({"items": many(named(f"native.{name}")), **dict.fromkeys(("total", "page", "per_page"), WHOLE)})


_PAGE = ("page", "perPage")
_PAGE_OF_OURS = ("page", "per_page")
_OFFLINE = record({"after_seconds": WHOLE, "then": _THEN})
_RESTRICTIONS: Schema = {"type": ["object", "null"]}
_SERVERS = record({"items": many(named("native.Server"))})
_NAMED_USER = record({"password": TEXT}, id=TEXT, name=TEXT, domain=record({}, id=TEXT, name=TEXT))
_PLACE = record({}, id=TEXT, name=TEXT, domain=record({}, id=TEXT, name=TEXT))
_SIGN_IN = record(
    {
        "auth": record(
            {"identity": record({"methods": many({"enum": ["password"]}), "password": record({"user": _NAMED_USER})})},
            scope=record({}, project=_PLACE, domain=_PLACE),
        )
    }
)
_FINGERPRINT = record({"fingerprint": TEXT})
_DELETED = {"allOf": [named("runcloud.Credential"), record({}, still_opened_by=many(named("runcloud.Opening")))]}

# By dialect and handler.
SHAPES: dict[str, Shape] = {
    "runcloud.ping": Shape(record({"message": TEXT})),
    "runcloud.list_credentials": Shape(_runcloud("Credential"), query=("label", "search", *_PAGE)),
    "runcloud.add_credential": Shape(
        named("runcloud.Credential"), record(texts("label", "username", "publicKey"), temporary=YES_OR_NO)
    ),
    "runcloud.show_credential": Shape(named("runcloud.Credential")),
    "runcloud.delete_credential": Shape(_DELETED),
    "runcloud.list_system_users": Shape(_runcloud("SystemUser"), query=("search", *_PAGE)),
    "runcloud.create_system_user": Shape(named("runcloud.SystemUser"), record({"username": TEXT}, password=TEXT)),
    "runcloud.show_system_user": Shape(named("runcloud.SystemUser")),
    "runcloud.set_password": Shape(named("runcloud.SystemUser"), record({"password": TEXT})),
    "runcloud.make_deployment_key": Shape(named("runcloud.SystemUser")),
    "runcloud.delete_system_user": Shape(named("runcloud.SystemUser")),
    "runcloud.list_servers": Shape(_runcloud("Server"), query=("search", *_PAGE)),
    "runcloud.list_shared_servers": Shape(_runcloud("Server"), query=_PAGE),
    "runcloud.create_server": Shape(
        named("runcloud.Server"), record(texts("name", "ipAddress"), provider=TEXT_OR_NULL)
    ),
    "runcloud.show_server": Shape(named("runcloud.Server")),
    "runcloud.delete_server": Shape(named("runcloud.Server")),
    "runcloud.rename_server": Shape(named("runcloud.Server"), record({"name": TEXT}, provider=TEXT_OR_NULL)),
    "runcloud.show_installation_script": Shape(record({"script": TEXT})),
    "runcloud.list_logs": Shape(_runcloud("Log"), query=("search", *_PAGE)),
    "runcloud.show_machine": Shape(named("runcloud.Machine")),
    "runcloud.list_nothing_of_a_server": Shape(_runcloud("Server"), query=_PAGE),
    "runcloud.list_nothing": Shape(_runcloud("Server"), query=_PAGE),
    "runcloud.show_config": Shape(named("runcloud.Config")),
    "runcloud.change_config": Shape(named("runcloud.Config"), record({}, **_THREE)),
    "runcloud.show_settings": Shape(named("runcloud.Settings")),
    "runcloud.change_settings": Shape(named("runcloud.Settings"), record({}, **_THREE)),
    "runcloud.list_sessions": Shape(_runcloud("Session"), query=_PAGE),
    "runcloud.end_session": Shape(named("runcloud.Session")),
    "codearts./v4.add_ssh_key": Shape(
        named("codearts.AddedKey"),
        record({}, title={"type": ["string", "number", "null"]}, key=TEXT_OR_NULL),
        status=201,
    ),
    "codearts./v4.list_user_keys": Shape(
        record({"keys": many(named("codearts.UserKey")), "total": WHOLE}), query=("offset", "limit", "query")
    ),
    "codearts./v4.delete_ssh_key": Shape(None, status=204),
    "iam.issue_token": Shape(record({"token": named("iam.Token")}), _SIGN_IN, status=201, query=("nocatalog",)),
    "iam.validate_token": Shape(record({"token": named("iam.Token")}), query=("nocatalog",)),
    "iam.revoke_token": Shape(None, status=204),
    "native.list_servers": Shape(_native("Server"), query=("search", *_PAGE_OF_OURS)),
    "native.show_server": Shape(named("native.Server")),
    "native.change_server": Shape(named("native.Server"), record({"mode": {"enum": ["observe", "enforce"]}})),
    "native.set_offline_policy_of_server": Shape(_SERVERS, _OFFLINE),
    "native.set_offline_policy_of_tag": Shape(_SERVERS, _OFFLINE),
    "native.enrol": Shape(record({"line": TEXT}), status=201),
    "native.list_unmanaged_keys": Shape(_native("UnmanagedKey"), query=("state", *_PAGE_OF_OURS)),
    "native.accept_unmanaged_key": Shape(
        named("native.Credential"), record({}, label=TEXT_OR_NULL, username=TEXT_OR_NULL, expires_at=TEXT_OR_NULL), 201
    ),
    "native.ignore_unmanaged_key": Shape(named("native.UnmanagedKey")),
    "native.remove_unmanaged_key": Shape(named("native.UnmanagedKey"), status=202),
    "native.list_sessions": Shape(_native("Session"), query=_PAGE_OF_OURS),
    "native.end_session": Shape(named("native.Session"), status=202),
    "native.revoke_key": Shape(named("native.Revoked"), record({"fingerprint": TEXT}, reason=TEXT_OR_NULL)),
    "native.list_revoked_keys": Shape(_native("RevokedKey"), query=_PAGE_OF_OURS),
    "native.lift_revocation": Shape(named("native.RevokedKey"), _FINGERPRINT),
    "native.show_receipts_of_key": Shape(named("native.Receipts"), query=("fingerprint",)),
    "native.list_events": Shape(_native("Event"), query=("search", "server", "from", "to", "before", *_PAGE_OF_OURS)),
    "native.show_receipts_of_event": Shape(named("native.Receipts")),
    "native.list_deleted_servers": Shape(_native("DeletedServer"), query=_PAGE_OF_OURS),
    "native.show_resync": Shape(named("native.Difference")),
    "native.decide_resync": Shape(named("native.Difference"), record({}, let_in=many(TEXT), accept_database=YES_OR_NO)),
    "native.list_damaged": Shape(record({"items": many(named("native.DamagedRow"))})),
    "native.remove_damaged": Shape(named("native.DamagedRow")),
    "native.list_grants": Shape(_native("Grant"), query=_PAGE_OF_OURS),
    "native.give_grant": Shape(
        named("native.Grant"),
        record(
            {"system_user": TEXT},
            **dict.fromkeys(("user", "group", "server", "tag", "expires_at"), TEXT_OR_NULL),
            restrictions=_RESTRICTIONS,
        ),
        201,
    ),
    "native.take_back_grant": Shape(None, status=204),
    "native.list_credentials": Shape(_native("Credential"), query=("search", *_PAGE_OF_OURS)),
    "native.add_credential": Shape(
        named("native.Credential"),
        record(
            texts("label", "username", "public_key"),
            temporary=YES_OR_NO,
            expires_at=TEXT_OR_NULL,
            restrictions=_RESTRICTIONS,
        ),
        201,
    ),
    "native.delete_credential": Shape(None, status=204),
    "native.list_user_keys": Shape(_native("UserKey"), query=("user", *_PAGE_OF_OURS)),
    "native.list_tokens": Shape(_native("Token"), query=_PAGE_OF_OURS),
    "native.revoke_token": Shape(None, status=204),
    "native.show_repository": Shape(named("native.Repository")),
    "native.change_repository": Shape(
        named("native.Repository"), record({}, visibility={"enum": [0, 10, 20]}, protect_default=YES_OR_NO)
    ),
}
