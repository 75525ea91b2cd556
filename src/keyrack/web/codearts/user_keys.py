"""CodeArts Repo v4: a user's own SSH keys; reads, calls the core, shows; must hold no rule."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core.keys import user_keys
from keyrack.web import answers, bodies
from keyrack.web.api import Call, Endpoint
from keyrack.web.codearts import parameters, shapes

LONGEST_TITLE = 1000


def add_ssh_key(call: Call) -> Response:
    """Register a public key of your own, for the servers and repositories that you may reach"""
    if not call.request.state.content.strip():
        # As documented, {} makes an entry without a key; an empty body does not.
        raise bodies.malformed("The body must be a JSON object.")
    # In the published example the title is a number, also in the answer; it is stored and listed as text.
    sent = title = call.body.get("title")
    if isinstance(title, int | float) and not isinstance(title, bool):
        title = str(title)
    key = user_keys.add(
        call.instance,
        call.actor,
        title=title,
        public_key=call.body.get("key"),
        longest_title=LONGEST_TITLE,
        keyless=True,
    )
    return answers.JsonAnswer(shapes.user_key(call.instance, key) | {"title": sent}, 201)


def list_user_keys(call: Call) -> Response:
    """List your own SSH keys, newest first"""
    offset, limit = parameters.window(call.query)
    search = parameters.searched(call.query, "query")
    page = user_keys.find(call.instance, call.actor, search=search, offset=offset, limit=limit)
    return shapes.user_key_page(call.instance, page)


def delete_ssh_key(call: Call) -> Response:
    """Delete an SSH key of your own, on all servers and repositories that it opened as yours"""
    user_keys.delete(call.instance, call.actor, call.ids["key_id"])
    return Response(status_code=204)


ENDPOINTS = (
    Endpoint("POST", "/user/keys", add_ssh_key, on_event_loop=True),
    Endpoint("GET", "/user/keys", list_user_keys, on_event_loop=True),
    Endpoint("DELETE", "/user/keys/{key_id}", delete_ssh_key),
)
