"""Calls of a Keyrack service for this collection's modules; must decide nothing."""

from __future__ import annotations

import json
from http.client import HTTPException
from urllib.parse import quote, urlencode

from ansible.module_utils.urls import fetch_url

ARGUMENTS = {
    "url": {"type": "str", "required": True},
    "token": {"type": "str", "required": True, "no_log": True},
    "validate_certs": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 30},
}
A_PAGE = 100
MAX_PAGES = 10000


def call(module, method, path, body=None, missing=False):
    """The answer to one call as a value; missing: answer None to a 404. Ends the module where the service says no, and
    where what answers is not the service or breaks off.
    """
    headers = {"Authorization": "Bearer " + module.params["token"], "Accept": "application/json"}
    data = None
    if body is not None:
        headers["Content-Type"] = "application/json"
        data = json.dumps(body).encode("utf-8")
    what = "%s %s" % (method, path.partition("?")[0])
    # The token is for this address alone, and a POST that was sent elsewhere would arrive as a GET.
    module.params["follow_redirects"] = "none"
    broke = None
    try:
        response, info = fetch_url(
            module,
            module.params["url"].rstrip("/") + path,
            method=method,
            headers=headers,
            data=data,
            timeout=module.params["timeout"],
            use_netrc=False,  # its password would take the token's place
        )
        status = info["status"]
        # The body of a refusal was read already, and stands beside its headers.
        content = response.read() if 200 <= status < 300 else info.get("body") or b""
    except (HTTPException, OSError, ValueError) as problem:
        broke = str(problem) or type(problem).__name__
    # Not where it is caught: Ansible would show the traceback too.
    if broke is not None:
        fail(module, what, "the answer broke off (%s)%s" % (broke, unsure(method)))
    if status == 404 and missing:
        return None
    if 300 <= status < 400:
        fail(module, what, "the address leads on to %s; give that one as url" % info.get("location"), status)
    if not 200 <= status < 300:
        said = words(status, content, info)
        fail(module, what, said + (unsure(method) if status < 0 or status >= 500 else ""), status)
    if not content:
        return None
    is_json, value = read(content)
    if not is_json:
        fail(module, what, "what answers there is not Keyrack, as it sent no JSON; look at url", status)
    return value


def read(content):
    """Whether it is JSON, and the value."""
    try:
        return True, json.loads(content)
    except (ValueError, RecursionError):
        return False, None


def fail(module, what, problem, status=-1):
    """End the module with what was asked and why it failed; status: of the answer, -1 without one."""
    module.fail_json(msg="%s: %s" % (what, problem), status=status)


def unsure(method):
    """What to think of a change whose answer did not come."""
    return "" if method == "GET" else "; whether it was done is not known: run the task again"


def words(status, content, info):
    """What the service said, whichever of its APIs answered."""
    is_json, said = read(content)
    if not is_json:
        return info.get("msg") or "HTTP status %s" % status
    if not isinstance(said, dict):
        return "HTTP status %s" % status
    error = said.get("error")
    found = said.get("detail") or (error.get("message") if isinstance(error, dict) else error) or said.get("message")
    return found if isinstance(found, str) else json.dumps(found or said)


def entry(module, what, value, fields):
    """A value that must be an object with these fields. Ends the module where it is none."""
    if not isinstance(value, dict) or any(field not in value for field in fields):
        fail(module, what, "the answer is not as Keyrack's is (%s); look at url" % ", ".join(fields))
    return value


def every(module, path, fields, **query):
    """All entries of a list, page by page, whether it is answered as such or under `items`; fields: that each has."""
    number = 1
    found = []
    while True:
        asked = urlencode(dict(query, page=number, per_page=A_PAGE))
        page = call(module, "GET", path + "?" + asked)
        items = page.get("items") if isinstance(page, dict) else page
        if not isinstance(items, list):
            fail(module, "GET " + path, "the answer is no list; look at url")
        found += [entry(module, "GET " + path, item, fields) for item in items]
        if len(items) < A_PAGE:
            return found
        number += 1
        if number > MAX_PAGES:
            fail(module, "GET " + path, "the list does not end")


def segment(text):
    """A text as one part of a path."""
    return quote(str(text), safe="")
