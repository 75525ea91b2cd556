"""RunCloud's SSH keys of a server; reads, calls the core, shows; must hold no rule but the label's alphabet."""

from __future__ import annotations

from functools import partial

from starlette.responses import JSONResponse, Response

from keyrack.core.keys import credentials, openings
from keyrack.web import answers
from keyrack.web.api import Call, Endpoint
from keyrack.web.runcloud import shapes
from keyrack.web.runcloud.grammar import Fields, is_alpha_dash, window


def list_credentials(call: Call) -> Response:
    """List the SSH keys that were put on a server, each with its system user"""
    search = call.query.get("label") or call.query.get("search") or ""
    page = credentials.find(call.instance, call.actor, call.ids["serverId"], search=search, **window(call))
    return shapes.credential_page(call, page)


def add_credential(call: Call) -> Response:
    """Put a public key on a system user of a server; with `temporary` it ends after 12 hours by default"""
    fields = Fields(call)
    label = fields.text("label")
    if not is_alpha_dash(label):
        fields.wrong("label", "The label field must only contain letters, numbers, dashes, and underscores.")
    username = fields.text("username")
    public_key = fields.text("publicKey")
    temporary = fields.boolean("temporary")
    add = partial(credentials.add, call.instance, call.actor, call.ids["serverId"])
    wrong = partial(credentials.wrong_fields, call.instance, call.actor, call.ids["serverId"])
    credential = fields.through(
        partial(add, label=label, username=username, public_key=public_key, temporary=temporary),
        partial(wrong, label=label or None, username=username or None, public_key=public_key or None),
    )
    return answers.JsonAnswer(shapes.credential(call, credential))


def show_credential(call: Call) -> Response:
    """Show an SSH key of a server, and whether its host has applied it"""
    credential = credentials.get(call.instance, call.actor, call.ids["serverId"], call.ids["sshId"])
    return answers.from_json(shapes.credential_text(call, credential))


def delete_credential(call: Call) -> Response:
    """Delete an SSH key of a server; `still_opened_by` names what still lets it log in there"""
    gone = credentials.delete(call.instance, call.actor, call.ids["serverId"], call.ids["sshId"])
    # The caller must know what still lets the key in. If nothing does, the answer is the object as it was and nothing
    # more, as programs compare the two.
    still = {"still_opened_by": openings.shown(gone.still_opened_by)} if gone.still_opened_by else {}
    return JSONResponse(shapes.credential(call, gone.credential) | still)


def _endpoints(path: str) -> tuple[Endpoint, ...]:
    one = path + "/{sshId}"
    return (
        Endpoint("GET", path, list_credentials, "credentials:read", on_event_loop=True),
        Endpoint("POST", path, add_credential, "credentials:write", on_event_loop=True),
        Endpoint("GET", one, show_credential, "credentials:read", on_event_loop=True),
        Endpoint("DELETE", one, delete_credential, "credentials:write", on_event_loop=True),
    )


# The second path is v2's; programs use it under v3 too.
ENDPOINTS = (*_endpoints("/servers/{serverId}/ssh/credentials"), *_endpoints("/servers/{serverId}/sshcredentials"))
