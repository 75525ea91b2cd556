"""Calls of a Keyrack service for this collection's modules; must decide nothing."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

from ansible.module_utils.urls import fetch_url

ARGUMENTS = {
    "url": {"type": "str", "required": True},
    "token": {"type": "str", "required": True, "no_log": True},
    "validate_certs": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 30},
}
A_PAGE = 100


def call(module, method, path, body=None, missing=False):
    """The answer to one call as a value; missing: answer None to a 404. Ends the module where the service says no."""
    headers = {"Authorization": "Bearer " + module.params["token"], "Accept": "application/json"}
    data = None
    if body is not None:
        headers["Content-Type"] = "application/json"
        data = json.dumps(body).encode("utf-8")
    response, info = fetch_url(
        module,
        module.params["url"].rstrip("/") + path,
        method=method,
        headers=headers,
        data=data,
        timeout=module.params["timeout"],
    )
    status = info["status"]
    # The body of a refusal was read already, and stands beside its headers.
    content = response.read() if 200 <= status < 300 else info.get("body") or b""
    if status == 404 and missing:
        return None
    if not 200 <= status < 300:
        module.fail_json(
            msg="%s %s: %s" % (method, path.partition("?")[0], words(status, content, info)), status=status
        )
    return json.loads(content) if content else None


def words(status, content, info):
    """What the service said, whichever of its APIs answered."""
    try:
        said = json.loads(content)
    except ValueError:
        return info.get("msg") or "HTTP status %s" % status
    if not isinstance(said, dict):
        return "HTTP status %s" % status
    error = said.get("error")
    found = said.get("detail") or (error.get("message") if isinstance(error, dict) else error) or said.get("message")
    return found if isinstance(found, str) else json.dumps(found or said)


def every(module, path, **query):
    """All entries of a list, page by page, whether it is answered as such or under `items`."""
    number = 1
    found = []
    while True:
        asked = urlencode(dict(query, page=number, per_page=A_PAGE))
        page = call(module, "GET", path + "?" + asked)
        items = page["items"] if isinstance(page, dict) else page
        found += items
        if len(items) < A_PAGE:
            return found
        number += 1


def segment(text):
    """A text as one part of a path."""
    return quote(str(text), safe="")
