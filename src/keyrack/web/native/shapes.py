"""Each noun of Keyrack's own API as JSON, and the schemas of its calls; must call no use case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar

from starlette.responses import JSONResponse, Response

from keyrack.core.hosts import status
from keyrack.core.hosts.resync import Difference
from keyrack.core.instance import Instance
from keyrack.core.keys.grants import Names
from keyrack.core.keys.receipts import Receipts
from keyrack.core.keys.revocation import Revoked
from keyrack.model import Credential, Event, Grant, Page, Server, Session, UnmanagedKey, UserKey
from keyrack.store.deleted_servers import DeletedServer
from keyrack.store.people import Bearer
from keyrack.store.repositories import Repository
from keyrack.store.revoked_keys import RevokedKey
from keyrack.store.uses import Use
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

T = TypeVar("T")

_THEN: Schema = {"enum": ["keep", "drop-temporary", "drop-all"]}
_RECEIPT = {"server_id": WHOLE, "server_name": TEXT, "wanted": WHOLE, "applied": WHOLE, "done": YES_OR_NO}

SCHEMAS: dict[str, Schema] = {
    "native.Error": record({"error": record(texts("code", "message"), field=TEXT)}),
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


def _page_of(name: str) -> Schema:
    return record({"items": many(named(f"native.{name}")), **dict.fromkeys(("total", "page", "per_page"), WHOLE)})


_PAGE = ("page", "per_page")
_OFFLINE = record({"after_seconds": WHOLE, "then": _THEN})
_RESTRICTIONS: Schema = {"type": ["object", "null"]}
_SERVERS = record({"items": many(named("native.Server"))})
_FINGERPRINT = record({"fingerprint": TEXT})

# By dialect and handler.
SHAPES: dict[str, Shape] = {
    "native.list_servers": Shape(_page_of("Server"), query=("search", *_PAGE)),
    "native.show_server": Shape(named("native.Server")),
    "native.change_server": Shape(named("native.Server"), record({"mode": {"enum": ["observe", "enforce"]}})),
    "native.set_offline_policy_of_server": Shape(_SERVERS, _OFFLINE),
    "native.set_offline_policy_of_tag": Shape(_SERVERS, _OFFLINE),
    "native.enrol": Shape(record({"line": TEXT}), status=201),
    "native.list_unmanaged_keys": Shape(_page_of("UnmanagedKey"), query=("state", *_PAGE)),
    "native.accept_unmanaged_key": Shape(
        named("native.Credential"), record({}, label=TEXT_OR_NULL, username=TEXT_OR_NULL, expires_at=TEXT_OR_NULL), 201
    ),
    "native.ignore_unmanaged_key": Shape(named("native.UnmanagedKey")),
    "native.remove_unmanaged_key": Shape(named("native.UnmanagedKey"), status=202),
    "native.list_sessions": Shape(_page_of("Session"), query=_PAGE),
    "native.end_session": Shape(named("native.Session"), status=202),
    "native.revoke_key": Shape(named("native.Revoked"), record({"fingerprint": TEXT}, reason=TEXT_OR_NULL)),
    "native.list_revoked_keys": Shape(_page_of("RevokedKey"), query=_PAGE),
    "native.lift_revocation": Shape(named("native.RevokedKey"), _FINGERPRINT),
    "native.show_receipts_of_key": Shape(named("native.Receipts"), query=("fingerprint",)),
    "native.list_events": Shape(_page_of("Event"), query=("search", "server", "from", "to", "before", *_PAGE)),
    "native.show_receipts_of_event": Shape(named("native.Receipts")),
    "native.list_deleted_servers": Shape(_page_of("DeletedServer"), query=_PAGE),
    "native.show_resync": Shape(named("native.Difference")),
    "native.decide_resync": Shape(named("native.Difference"), record({}, let_in=many(TEXT), accept_database=YES_OR_NO)),
    "native.list_damaged": Shape(record({"items": many(named("native.DamagedRow"))})),
    "native.remove_damaged": Shape(named("native.DamagedRow")),
    "native.list_grants": Shape(_page_of("Grant"), query=_PAGE),
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
    "native.list_credentials": Shape(_page_of("Credential"), query=("search", *_PAGE)),
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
    "native.list_user_keys": Shape(_page_of("UserKey"), query=("user", *_PAGE)),
    "native.list_tokens": Shape(_page_of("Token"), query=_PAGE),
    "native.revoke_token": Shape(None, status=204),
    "native.show_repository": Shape(named("native.Repository")),
    "native.change_repository": Shape(
        named("native.Repository"), record({}, visibility={"enum": [0, 10, 20]}, protect_default=YES_OR_NO)
    ),
}


def listed(found: Page[T], show: Callable[[T], dict[str, Any]]) -> Response:
    """A page of a list."""
    page = found.offset // found.limit + 1
    items = [show(item) for item in found.items]
    return JSONResponse({"items": items, "total": found.total, "page": page, "per_page": found.limit})


def time(at: datetime | None) -> str | None:
    """A time in UTC by ISO 8601 to the second, or null."""
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def server(instance: Instance, shown: Server) -> dict[str, Any]:
    """A server with its status."""
    held = asdict(status.of(instance, shown))
    held |= {"applied_at": time(shown.applied_at), "seen_at": time(shown.seen_at)}
    return {
        "id": shown.id,
        "name": shown.name,
        "address": shown.address,
        "tags": list(shown.tags),
        "agent_version": shown.agent_version,
        "os": shown.os,
        "os_version": shown.os_version,
        "enrolled_at": time(shown.enrolled_at),
        **held,
    }


def deleted_server(gone: DeletedServer) -> dict[str, Any]:
    """A server that was deleted; acknowledged_at: when its host said that it obeys that, or null."""
    return {
        "id": gone.id,
        "name": gone.name,
        "address": gone.address,
        "deleted_at": time(gone.deleted_at),
        "deleted_by": gone.deleted_by,
        "acknowledged_at": time(gone.acknowledged_at),
    }


def revoked_key(noted: RevokedKey) -> dict[str, Any]:
    """A key that nobody may register, with who revoked it, when and why."""
    return {
        "fingerprint": noted.fingerprint,
        "revoked_by": noted.revoked_by,
        "reason": noted.reason,
        "revoked_at": time(noted.revoked_at),
    }


def unmanaged_key(found: UnmanagedKey) -> dict[str, Any]:
    """An unmanaged key; owner: the user of the workspace whose key it is, or null."""
    return asdict(found) | {"found_at": time(found.found_at), "seen_at": time(found.seen_at)}


def credential(made: Credential) -> dict[str, Any]:
    """A credential as far as an operator needs it."""
    return {
        "id": made.id,
        "server_id": made.server_id,
        "username": made.username,
        "label": made.label,
        "fingerprint": made.fingerprint,
        "public_key": made.line,
        "restrictions": dict(made.restrictions),
        "expires_at": time(made.expires_at),
        "revision": made.revision,
    }


def session(shown: Session) -> dict[str, Any]:
    """An open login."""
    return {
        "id": shown.id,
        "username": shown.username,
        "address": shown.address,
        "fingerprint": shown.fingerprint or None,
        "label": shown.label,
        "started_at": time(shown.started_at),
        "ending": shown.ending,
    }


def event(shown: Event) -> dict[str, Any]:
    """A line of the audit log."""
    return {
        "id": shown.id,
        "at": time(shown.at),
        "actor": shown.actor_name,
        "token": shown.token_name,
        "address": shown.address,
        "channel": shown.channel,
        "action": shown.action,
        "outcome": shown.outcome,
        "reason": shown.reason,
        "server_id": shown.server_id,
        "summary": shown.summary,
        "level": shown.level,
    }


def revoked(done: Revoked) -> dict[str, Any]:
    """What a key was taken away from, and the revision of each server that says so."""
    return asdict(done)


def difference(found: Difference) -> dict[str, Any]:
    """What is held back on a server since the database went back."""
    held = [
        {
            "kind": row.kind,
            "username": row.username or None,
            "fingerprint": row.fingerprint or None,
            "options": list(row.options),
            "name": row.name or None,
            "decided_at": time(row.decided_at),
        }
        for row in found.held
    ]
    return {"waiting_for_host": found.asked, "undecided": found.undecided, "held_back": held}


def receipts(found: Receipts) -> dict[str, Any]:
    """How far a change has come."""
    servers = [asdict(one) | {"at": time(one.at), "done": one.done} for one in found.of]
    return {"done": found.done, "words": found.words, "servers": servers}


def grant(grant: Grant, names: Names) -> dict[str, Any]:
    """A grant; names: of the users, groups and servers that grants name."""
    return {
        "id": grant.id,
        "user": names.users.get(grant.user_id or 0),
        "group": names.groups.get(grant.group_id or 0),
        "server": names.servers.get(grant.server_id or 0),
        "server_id": grant.server_id,
        "tag": grant.tag,
        "system_user": grant.system_user,
        "expires_at": time(grant.expires_at),
        "restrictions": dict(grant.restrictions),
        "created_at": time(grant.created_at),
    }


def listed_credential(one: Credential, used: tuple[Use, ...]) -> dict[str, Any]:
    """A credential as it is listed; used: its last uses on its server, newest first."""
    return credential(one) | {
        "temporary": one.temporary,
        "delivered": one.delivered,
        "created_at": time(one.created_at),
        "last_used_at": time(used[0].at) if used else None,
        "last_used_from": used[0].address if used else None,
    }


def user_key(key: UserKey, names: dict[int, str], used: tuple[Use, ...]) -> dict[str, Any]:
    """A key of a user; names: of users by id; used: its last uses, newest first."""
    return {
        "id": key.id,
        "user": names.get(key.user_id),
        "title": key.title,
        "fingerprint": key.fingerprint,
        "public_key": key.line,
        "created_at": time(key.created_at),
        "last_uses": _uses(used),
    }


def token(found: Bearer) -> dict[str, Any]:
    """A token of the API, never its secret."""
    token = found.token
    return {
        "id": token.id,
        "name": token.name,
        "user": found.user.name,
        "scopes": list(token.scopes),
        "created_at": time(token.created_at),
        "expires_at": time(token.expires_at),
        "last_used_at": time(token.last_used_at),
    }


def repository(found: Repository) -> dict[str, Any]:
    """A repository and how it is protected."""
    return {
        "id": found.id,
        "path": found.path,
        "visibility": found.visibility,
        "default_branch": found.default_branch,
        "protect_default": found.protect_default,
    }


def _uses(used: tuple[Use, ...]) -> list[dict[str, Any]]:
    return [
        {"server": one.server or "git", "server_id": one.server_id, "at": time(one.at), "address": one.address}
        for one in used
    ]
