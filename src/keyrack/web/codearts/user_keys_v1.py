"""CodeArts Repo v1: a user's own SSH keys; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core.keys import user_keys
from keyrack.errors import missing
from keyrack.web.api import Call, Endpoint
from keyrack.web.codearts import parameters, shapes

LONGEST_TITLE = 255
MAX_LISTED = 100_000


def add_ssh_key(call: Call) -> Response:
    """Register a public key of your own (v1)"""
    parameters.filled(call, "title", "key")
    key = user_keys.add(
        call.instance,
        call.actor,
        title=call.body["title"],
        public_key=call.body["key"],
        longest_title=LONGEST_TITLE,
    )
    return shapes.succeeded(shapes.user_key_v1(key))


def list_ssh_keys(call: Call) -> Response:
    """List all of your own SSH keys, without pages (v1)"""
    page = user_keys.find(call.instance, call.actor, limit=MAX_LISTED)
    return shapes.succeeded({"total": page.total, "sshkey": [shapes.user_key_v1(key) for key in page.items]})


def delete_ssh_key(call: Call) -> Response:
    """Delete an SSH key of your own, on all servers and repositories that it opened as yours (v1)"""
    gone = user_keys.delete(call.instance, call.actor, call.ids["id"])
    return shapes.succeeded(str(gone.id))


def refuse_private_key(call: Call) -> Response:
    """Always 404, as Keyrack takes no private keys: never send one here"""
    raise missing("API")


ENDPOINTS = (
    Endpoint("POST", "/users/sshkey", add_ssh_key),
    Endpoint("GET", "/users/sshkey", list_ssh_keys, on_event_loop=True),
    Endpoint("DELETE", "/users/sshkey/{id}", delete_ssh_key),
    Endpoint("POST", "/users/sshkey/privatekey/verify", refuse_private_key, open=True),
)
