"""The doors described from their own route tables: OpenAPI for programs, a page for people; must add no call."""

from __future__ import annotations

import inspect
import re
from html import escape
from typing import Any

from keyrack import __version__
from keyrack.web.dialect import Dialect, Endpoint

Described = tuple[tuple[str, Dialect], ...]

TITLES = {
    "runcloud": "RunCloud API: servers, system users and their SSH keys",
    "codearts": "CodeArts Repo: one's own SSH keys, for servers and Git",
    "iam": "IAM: tokens and access keys",
    "native": "Keyrack: hosts, found keys, receipts, sessions",
}
SCHEMES: dict[str, dict[str, Any]] = {
    "native": {"type": "http", "scheme": "bearer"},
    "runcloud": {"type": "http", "scheme": "bearer"},
    "codearts": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
    "iam": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
}
NAME = re.compile(r"\{(\w+)\}")


def openapi(doors: Described, url: str) -> dict[str, Any]:
    """An OpenAPI 3.1 description of every call of every door; doors: pairs of path prefix and dialect."""
    paths: dict[str, dict[str, Any]] = {}
    known: set[str] = set()
    for prefix, dialect in doors:
        for endpoint in dialect.endpoints:
            parameters = [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in NAME.findall(endpoint.path)
            ]
            name = f"{dialect.name}.{prefix.strip('/').replace('/', '_')}.{endpoint.handler.__name__}"
            while name in known:
                name += "_"  # a second spelling of the same call
            known.add(name)
            operation: dict[str, Any] = {
                "tags": [dialect.name],
                "operationId": name,
                "summary": _words(endpoint),
                "responses": {"default": {"description": "The answer, in this door's own shape."}},
                "security": [] if endpoint.open else [{dialect.name: []}],
            }
            if parameters:
                operation["parameters"] = parameters
            paths.setdefault(prefix + endpoint.path, {})[endpoint.method.lower()] = operation
    used = {dialect.name for _, dialect in doors}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Keyrack", "version": __version__},
        "servers": [{"url": url}],
        "tags": [{"name": name, "description": TITLES.get(name, name)} for name in sorted(used)],
        "paths": paths,
        "components": {"securitySchemes": {name: SCHEMES[name] for name in sorted(used & SCHEMES.keys())}},
    }


def page(doors: Described) -> str:
    """The same as a page: one table a door."""
    parts = [_HEAD]
    for prefix, dialect in doors:
        parts.append(f"<h2>{escape(TITLES.get(dialect.name, dialect.name))} <code>{escape(prefix)}</code></h2><table>")
        for endpoint in dialect.endpoints:
            parts.append(
                f"<tr><td><b>{endpoint.method}</b></td><td><code>{escape(prefix + endpoint.path)}</code></td>"
                f"<td>{escape(_words(endpoint))}</td></tr>"
            )
        parts.append("</table>")
    return "".join((*parts, "</body></html>\n"))


def _words(endpoint: Endpoint) -> str:
    """What a call does: the first line of its handler's text."""
    return (inspect.getdoc(endpoint.handler) or "").split("\n")[0].rstrip(".")


_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Keyrack: the API</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1.2rem }
table { border-collapse: collapse; width: 100% }
td { padding: .25rem .8rem .25rem 0; vertical-align: top; border-top: 1px solid #8884 }
td:first-child { width: 5rem }
code { font-size: 14px; overflow-wrap: anywhere }
h2 { margin-top: 2.2rem; font-size: 1.15rem }
</style>
</head>
<body>
<h1>The API</h1>
<p>Several contracts, one core: what is done through one door is seen through the other. For programs:
<a href="/openapi.json">/openapi.json</a>. Back to <a href="/">the first page</a>.</p>
"""
