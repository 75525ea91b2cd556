"""JSON Schemas in few words, by which the other APIs than Keyrack's own are described; must check nothing."""

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


STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
STRING_OR_NULL: Schema = {"type": ["string", "null"]}
INTEGER_OR_NULL: Schema = {"type": ["integer", "null"]}


def object_of(required: dict[str, Schema], **optional: Schema) -> Schema:
    """The schema of an object; required: fields that are always there, optional: those that may be left out."""
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def array_of(schema: Schema) -> Schema:
    """The schema of a list, each entry of one schema."""
    return {"type": "array", "items": schema}


def schema_ref(name: str) -> Schema:
    """A reference to a schema of an API's SCHEMAS; name: such as "runcloud.Server"."""
    return {"$ref": f"#/components/schemas/{name}"}


def strings(*names: str) -> dict[str, Schema]:
    """Fields for object_of, each a string."""
    return dict.fromkeys(names, STRING)
