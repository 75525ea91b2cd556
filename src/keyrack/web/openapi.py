"""Describes the APIs from their route tables: OpenAPI for programs, a page for people; must add no call."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from html import escape
from itertools import chain, count
from typing import Any

from keyrack import __version__
from keyrack.web import shapes
from keyrack.web.api import Dialect, Endpoint
from keyrack.web.bodies import LARGEST_ID
from keyrack.web.examples import example
from keyrack.web.models import parameters, schemas
from keyrack.web.shapes import Description, Schema, Shape

Described = tuple[tuple[str, Dialect], ...]

_TEN_DIGITS = 9_999_999_999
WINDOW: Mapping[str, tuple[int, int]] = {
    "page": (1, _TEN_DIGITS),
    "perPage": (1, _TEN_DIGITS),
    "per_page": (1, _TEN_DIGITS),
    "offset": (0, LARGEST_ID),
    "limit": (1, 100),
    "page_index": (1, LARGEST_ID),
    "page_size": (1, 100),
}
"""Parameters that select a page of a list, in APIs without models: the smallest and the largest value accepted."""
NAME = re.compile(r"\{(\w+)\}")


def openapi(apis: Described, url: str) -> dict[str, Any]:
    """An OpenAPI 3.1 description of every call of every API; apis: pairs of path prefix and dialect."""
    paths: dict[str, dict[str, Any]] = {}
    described = {dialect.name: _description_of(dialect) for _, dialect in apis}
    known = {name: schema for one in described.values() for name, schema in one.schemas.items()} | _of_models(apis)
    names: set[str] = set()
    for prefix, dialect in apis:
        for endpoint in dialect.endpoints:
            shape = _shape(prefix, dialect, endpoint)
            called = f"{dialect.name}.{prefix.strip('/').replace('/', '_')}.{endpoint.handler.__name__}"
            # Another path of the same call gets a number: generators of clients would take x and x_ for the same name.
            spellings = chain([called], (f"{called}_{number}" for number in count(2)))
            name = next(one for one in spellings if one not in names)
            names.add(name)
            operation: dict[str, Any] = {
                "tags": [dialect.name],
                "operationId": name,
                "summary": _words(endpoint),
                "responses": _responses(_description_of(dialect), endpoint, shape, known),
                "security": [] if endpoint.open else [{dialect.name: []}],
            }
            asked = _parameters(_description_of(dialect), endpoint, shape)
            if asked:
                operation["parameters"] = asked
            if shape is not None and shape.body is not None:
                content = _content(shape.body, known, body=True)
                operation["requestBody"] = {"required": _is_needed(shape.body, known), "content": content}
            paths.setdefault(prefix + endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Keyrack", "version": __version__},
        "servers": [{"url": url}],
        "tags": [{"name": name, "description": described[name].title} for name in sorted(described)],
        "paths": paths,
        "components": {
            "schemas": known,
            "securitySchemes": {name: described[name].scheme for name in sorted(described)},
        },
    }


def page(apis: Described) -> str:
    """The same as a page: one table for each API."""
    parts = [_HEAD]
    for prefix, dialect in apis:
        parts.append(f"<h2>{escape(_description_of(dialect).title)} <code>{escape(prefix)}</code></h2><table>")
        for endpoint in dialect.endpoints:
            parts.append(
                f"<tr><td><b>{endpoint.method}</b></td><td><code>{escape(prefix + endpoint.path)}</code></td>"
                f"<td>{escape(_words(endpoint))}</td></tr>"
            )
        parts.append("</table>")
    return "".join((*parts, "</body></html>\n"))


def _description_of(dialect: Dialect) -> Description:
    assert dialect.described is not None, f"{dialect.name} is in APIS, and has no description"
    return dialect.described


def _of_models(apis: Described) -> dict[str, Schema]:
    """The schemas of the APIs that have models."""
    components: dict[str, Schema] = {}
    for _, dialect in apis:
        models = [model for one in dialect.endpoints for model in (one.takes, one.answers) if model is not None]
        if dialect.error is not None:
            components |= schemas(dialect.name, [dialect.error, *models])
    return components


def _shape(prefix: str, dialect: Dialect, endpoint: Endpoint) -> Shape | None:
    """What a call takes and answers, None where that is not described; the prefix tells versions of CodeArts apart."""
    name = endpoint.handler.__name__
    if dialect.error is not None:
        answer, body = (
            None if model is None else shapes.schema_ref(f"{dialect.name}.{model.__name__}")
            for model in (endpoint.answers, endpoint.takes)
        )
        return Shape(answer, body, endpoint.status)
    known = _description_of(dialect).shapes
    return known.get(f"{dialect.name}.{name}") or known.get(f"{dialect.name}.{prefix}.{name}")


def _parameters(description: Description, endpoint: Endpoint, shape: Shape | None) -> list[dict[str, Any]]:
    described: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in NAME.findall(endpoint.path)
    ]
    if endpoint.asks is not None:
        described += parameters(endpoint.asks)
    for name in shape.query if shape is not None else ():
        schema: Schema = {"type": "integer" if name in WINDOW else "string"}
        if name in WINDOW and description.refuses_pages:
            schema["minimum"], schema["maximum"] = WINDOW[name]
        described.append({"name": name, "in": "query", "schema": schema})
    return described


def _responses(
    description: Description, endpoint: Endpoint, shape: Shape | None, known: Mapping[str, Schema]
) -> dict[str, Any]:
    error = shapes.schema_ref(description.error)
    content = _content(error, known)
    if description.gateway is not None:
        content["application/json"]["schema"] = {"anyOf": [error, shapes.schema_ref(description.gateway)]}
    refusals = {
        "401": None if endpoint.open and not endpoint.hashes else "The credentials are missing or not valid.",
        "403": "The caller may not do this." if not endpoint.open else None,
        "404": "It does not exist, or the caller may not see it." if "{" in endpoint.path else None,
        "409": "It conflicts with something that exists." if endpoint.takes is not None else None,
        "413": "The body is too long." if endpoint.takes is not None else None,
        "422": (
            "A field or parameter is not valid; the error names it."
            if endpoint.takes is not None or endpoint.asks is not None
            else None
        ),
        "429": "Too many requests, or too many wrong credentials; Retry-After says when to try again.",
        "503": "Busy, or the database is unavailable; nothing was changed. Retry-After says when to try again.",
        "default": "An error.",
    }
    responses: dict[str, Any] = {}
    for status, words in refusals.items():
        if words:
            # The example of an error is the same for each status, so only "default" has it.
            shown = (
                content
                if status == "default"
                else {"application/json": {"schema": content["application/json"]["schema"]}}
            )
            responses[status] = {"description": words, "content": shown}
    if shape is None:
        return {"200": {"description": "The answer, as the page of this API shows it."}, **responses}
    answer: dict[str, Any] = {"description": "Success." if shape.status < 400 else "Always this error."}
    if shape.answer is not None:
        answer["content"] = _content(shape.answer, known)
    return {**responses, str(shape.status): answer}


def _is_needed(body: Schema, known: Mapping[str, Schema]) -> bool:
    """Whether a request needs a body, as a field of it is required."""
    whole = known[body["$ref"].rpartition("/")[2]] if "$ref" in body else body
    return "properties" not in whole or bool(whole.get("required"))


def _content(schema: Schema, known: Mapping[str, Schema], *, body: bool = False) -> dict[str, Any]:
    return {"application/json": {"schema": schema, "example": example(schema, known, body=body)}}


def _words(endpoint: Endpoint) -> str:
    """What a call does: the first line of its handler's docstring."""
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
<p>Several APIs, one set of data: what one API changes, the others show. For programs:
<a href="/openapi.json">/openapi.json</a>. Back to <a href="/">the first page</a>.</p>
"""
