"""Each noun of RunCloud's API as JSON, and the schemas of its calls; must call no use case."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.responses import Response

from keyrack.core.hosts import last_seen
from keyrack.core.hosts.sshd_settings import SshSettings
from keyrack.core.instance import Instance
from keyrack.model import Credential, Event, Page, Server, Session, SystemUser
from keyrack.web.answers import RecordsAsJson
from keyrack.web.api import Call
from keyrack.web.runcloud.grammar import date, date_or_none, is_v2, log_date, pagination
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

CUT_AT = 50
# RunCloud documents only the first kind of logs, for changed SSH settings.
HIGH = "High Priority Info"
LOG_KINDS = {"alarm": HIGH, "warning": "Warning", "info": "Info"}

_PAGINATION = object_of(
    {
        **dict.fromkeys(("total", "count", "per_page", "current_page", "total_pages"), INTEGER),
        "links": object_of({}, previous=STRING, next=STRING),
    }
)
_THREE = dict.fromkeys(("passwordlessLogin", "useDns", "preventRootLogin"), BOOLEAN)

SCHEMAS: dict[str, Schema] = {
    "runcloud.Error": object_of(
        {"message": STRING}, errors={"type": "object", "additionalProperties": array_of(STRING)}
    ),
    "runcloud.Credential": object_of(
        {
            "id": INTEGER,
            **strings("label", "user", "publicKey"),
            "temporary": BOOLEAN,
            **strings("created_at", "fingerprint"),
            "expires_at": STRING_OR_NULL,
            "state": {"enum": ["pending", "delivered"]},
            "delivered_at": STRING_OR_NULL,
        },
        user_id=INTEGER,
    ),
    "runcloud.Opening": object_of({"kind": {"enum": ["credential", "grant", "file"]}, "id": INTEGER, "name": STRING}),
    "runcloud.SystemUser": object_of(
        {
            "id": INTEGER,
            "username": STRING,
            "deploymentKey": STRING_OR_NULL,
            "deleteable": BOOLEAN,
            **strings("created_at", "state"),
        },
        reason={"type": "string", "description": "why the account is not as asked, in the host's words"},
    ),
    "runcloud.Server": object_of(
        {
            "id": INTEGER,
            "name": STRING,
            "provider": STRING_OR_NULL,
            **strings("stack", "ipAddress"),
            "country_iso_code": STRING_OR_NULL,
            "os": STRING,
            "osVersion": STRING_OR_NULL,
            "connected": BOOLEAN,
            "online": BOOLEAN,
            "agentVersion": STRING_OR_NULL,
            "phpCLIVersion": STRING_OR_NULL,
            "softwareUpdate": BOOLEAN,
            "securityUpdate": BOOLEAN,
            **strings("transferStatus", "created_at"),
            "tags": array_of(STRING),
            "mode": STRING,
        }
    ),
    "runcloud.Config": object_of(
        {"id": INTEGER, "server_id": INTEGER, **_THREE, **strings("created_at", "updated_at", "state")}
    ),
    "runcloud.Settings": object_of(_THREE),
    "runcloud.Session": object_of(
        {
            "id": INTEGER,
            **strings("user", "ipAddress"),
            "fingerprint": STRING_OR_NULL,
            "label": STRING_OR_NULL,
            "created_at": STRING,
            "ending": BOOLEAN,
        }
    ),
    "runcloud.Log": object_of(
        {
            **strings("kind", "content", "created_at", "actor"),
            "token": STRING_OR_NULL,
            **strings("ipAddress", "action", "outcome"),
        }
    ),
    "runcloud.Machine": object_of(
        {
            "kernelVersion": STRING_OR_NULL,
            "processorName": STRING_OR_NULL,
            **dict.fromkeys(("totalCPUCore", "totalMemory", "freeMemory", "diskTotal", "diskFree"), INTEGER_OR_NULL),
            "loadAvg": {"type": ["number", "null"]},
            "uptime": INTEGER_OR_NULL,
            "updated_at": STRING_OR_NULL,
        }
    ),
}


def _page_of(name: str) -> Schema:
    return object_of({"data": array_of(schema_ref(f"runcloud.{name}")), "meta": object_of({"pagination": _PAGINATION})})


_PAGE = ("page", "perPage")
_DELETED = {
    "allOf": [
        schema_ref("runcloud.Credential"),
        object_of({}, still_opened_by=array_of(schema_ref("runcloud.Opening"))),
    ]
}

# By dialect and handler.
SHAPES: dict[str, Shape] = {
    "runcloud.ping": Shape(object_of({"message": STRING})),
    "runcloud.list_credentials": Shape(_page_of("Credential"), query=("label", "search", *_PAGE)),
    "runcloud.add_credential": Shape(
        schema_ref("runcloud.Credential"), object_of(strings("label", "username", "publicKey"), temporary=BOOLEAN)
    ),
    "runcloud.show_credential": Shape(schema_ref("runcloud.Credential")),
    "runcloud.delete_credential": Shape(_DELETED),
    "runcloud.list_system_users": Shape(_page_of("SystemUser"), query=("search", *_PAGE)),
    "runcloud.create_system_user": Shape(
        schema_ref("runcloud.SystemUser"), object_of({"username": STRING}, password=STRING)
    ),
    "runcloud.show_system_user": Shape(schema_ref("runcloud.SystemUser")),
    "runcloud.set_password": Shape(schema_ref("runcloud.SystemUser"), object_of({"password": STRING})),
    "runcloud.make_deployment_key": Shape(schema_ref("runcloud.SystemUser")),
    "runcloud.delete_system_user": Shape(schema_ref("runcloud.SystemUser")),
    "runcloud.list_servers": Shape(_page_of("Server"), query=("search", *_PAGE)),
    "runcloud.list_shared_servers": Shape(_page_of("Server"), query=_PAGE),
    "runcloud.create_server": Shape(
        schema_ref("runcloud.Server"), object_of(strings("name", "ipAddress"), provider=STRING_OR_NULL)
    ),
    "runcloud.show_server": Shape(schema_ref("runcloud.Server")),
    "runcloud.delete_server": Shape(schema_ref("runcloud.Server")),
    "runcloud.rename_server": Shape(
        schema_ref("runcloud.Server"), object_of({"name": STRING}, provider=STRING_OR_NULL)
    ),
    "runcloud.show_installation_script": Shape(object_of({"script": STRING})),
    "runcloud.list_logs": Shape(_page_of("Log"), query=("search", *_PAGE)),
    "runcloud.show_machine": Shape(schema_ref("runcloud.Machine")),
    "runcloud.list_nothing_of_a_server": Shape(_page_of("Server"), query=_PAGE),
    "runcloud.list_nothing": Shape(_page_of("Server"), query=_PAGE),
    "runcloud.show_config": Shape(schema_ref("runcloud.Config")),
    "runcloud.change_config": Shape(schema_ref("runcloud.Config"), object_of({}, **_THREE)),
    "runcloud.show_settings": Shape(schema_ref("runcloud.Settings")),
    "runcloud.change_settings": Shape(schema_ref("runcloud.Settings"), object_of({}, **_THREE)),
    "runcloud.list_sessions": Shape(_page_of("Session"), query=_PAGE),
    "runcloud.end_session": Shape(schema_ref("runcloud.Session")),
}


def credential(call: Call, credential: Credential) -> dict[str, Any]:
    """An SSH key of a server."""
    line = credential.with_comment
    if call.instance.settings.cut_public_key:
        line = line[:CUT_AT] + "..."
    return {
        "id": credential.id,
        "label": credential.label,
        "user": credential.username,
        # v2's objects have it, and its programs read it.
        **({"user_id": credential.system_user_id} if is_v2(call) else {}),
        "publicKey": line,
        "temporary": credential.temporary,
        "created_at": date(credential.created_at),
        "fingerprint": credential.fingerprint,
        "expires_at": date_or_none(credential.expires_at),
        "state": "delivered" if credential.acknowledged else "pending",
        "delivered_at": date_or_none(credential.acknowledged_at if credential.acknowledged else None),
    }


_credentials: RecordsAsJson[Credential] = RecordsAsJson()


def credential_text(call: Call, read: Credential) -> str:
    """The same as JSON text, for one that was read from the database."""
    return _credentials.text(read, _form(call), partial(credential, call))


def credential_page(call: Call, page: Page[Credential]) -> Response:
    """The answer with a page of SSH keys of a server."""
    scope = call.request.scope
    asked = f"{scope['path']}?{scope['query_string'].decode('ascii')}"
    return _credentials.page(
        page, _form(call), partial(credential, call), "data", lambda: {"meta": pagination(call, page)}, asked
    )


def _form(call: Call) -> tuple[bool, bool]:
    return is_v2(call), call.instance.settings.cut_public_key


def server(instance: Instance, server: Server) -> dict[str, Any]:
    """A server; what Keyrack does not know of it is null."""
    return {
        "id": server.id,
        "name": server.name,
        "provider": server.provider,
        "stack": "native",
        "ipAddress": server.address,
        "country_iso_code": None,
        "os": server.os or "Linux",
        "osVersion": server.os_version,
        "connected": server.enrolled_at is not None,
        "online": last_seen.is_online(server, instance.now()),
        "agentVersion": server.agent_version,
        "phpCLIVersion": None,
        "softwareUpdate": False,
        "securityUpdate": False,
        "transferStatus": "AVAILABLE",
        "created_at": date(server.created_at),
        "tags": list(server.tags),
        "mode": server.mode,
    }


def log(event: Event) -> dict[str, Any]:
    """A line of a server's log."""
    is_high = (event.action, event.outcome) == ("sshconfig:write", "done")
    return {
        "kind": HIGH if is_high else LOG_KINDS.get(event.level, LOG_KINDS["info"]),
        "content": event.summary,
        "created_at": log_date(event.at),
        "actor": event.actor_name,
        "token": event.token_name,
        "ipAddress": event.address,
        "action": event.action,
        "outcome": event.outcome,
    }


def config(settings: SshSettings) -> dict[str, Any]:
    """The SSH settings of a server."""
    return {
        # A server has one set of settings, so they have the server's id.
        "id": settings.server_id,
        "server_id": settings.server_id,
        **ssh_settings(settings),
        "created_at": date(settings.created_at),
        "updated_at": date(settings.updated_at),
        "state": settings.state,
    }


def ssh_settings(settings: SshSettings) -> dict[str, Any]:
    """The three SSH settings alone."""
    return {
        "passwordlessLogin": settings.passwordless_login,
        "useDns": settings.use_dns,
        "preventRootLogin": settings.prevent_root_login,
    }


def session(session: Session) -> dict[str, Any]:
    """An open SSH login."""
    return {
        "id": session.id,
        "user": session.username,
        "ipAddress": session.address,
        "fingerprint": session.fingerprint or None,
        "label": session.label,
        "created_at": date(session.started_at),
        "ending": session.ending,
    }


def system_user(user: SystemUser) -> dict[str, Any]:
    """A system user of a server."""
    return {
        "id": user.id,
        "username": user.username,
        "deploymentKey": user.deployment_key,
        "deleteable": user.deletable,
        "created_at": date(user.created_at),
        "state": user.state,
        **({"reason": user.reason} if user.reason else {}),
    }
