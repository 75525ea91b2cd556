"""The vocabulary that the shapes of all APIs are written in, for the description of the service; must check nothing."""

from __future__ import annotations

from collections.abc import Mapping
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


@dataclass(frozen=True, slots=True)
class Description:
    """How /openapi.json and /docs show an API.

    title: what it is; scheme: how callers prove who they are, as OpenAPI says it; schemas: by their names, such as
    "runcloud.Server"; shapes: by the API's name and the handler's, with the prefix between where two versions name
    their handlers alike; error: the schema of a refusal, gateway: likewise where something before the API refuses;
    refuses_pages: whether it refuses what is no number of a page, else that counts as not sent.
    """

    title: str
    scheme: Schema
    schemas: Mapping[str, Schema]
    shapes: Mapping[str, Shape]
    error: str
    gateway: str | None = None
    refuses_pages: bool = True


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
    """A schema of one of the APIs' SCHEMAS, by its name, e.g. "runcloud.Server"."""
    return {"$ref": f"#/components/schemas/{name}"}


def texts(*names: str) -> dict[str, Schema]:
    """Fields of text."""
    return dict.fromkeys(names, TEXT)
