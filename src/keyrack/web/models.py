"""Schemas of pydantic models for the description of the service; must know no API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from keyrack.web.shapes import Schema


class _Plain(GenerateJsonSchema):
    """Without titles, which would only say the names again; a null that may be left out has no default of null."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never: a field's name is its title."""
        return False

    def generate_inner(self, schema: Any) -> Schema:
        """One part, without pydantic's own titles and defaults of null."""
        inner = super().generate_inner(schema)
        inner.pop("title", None)
        if inner.get("default", 0) is None:
            inner.pop("default")
        return inner


def schemas(api: str, models: Iterable[type[BaseModel]]) -> dict[str, Schema]:
    """The components of models and of what they hold, by name, such as native.Server; api: the first part of it."""
    wanted: list[tuple[type[BaseModel], Any]] = [(model, "validation") for model in dict.fromkeys(models)]
    _, made = models_json_schema(wanted, ref_template=f"#/components/schemas/{api}.{{model}}", schema_generator=_Plain)
    return {
        f"{api}.{name}": {part: value for part, value in schema.items() if part != "title"}
        for name, schema in made["$defs"].items()
    }


def parameters(asks: type[BaseModel]) -> list[dict[str, Any]]:
    """The parameters of a query, as OpenAPI describes them."""
    schema = asks.model_json_schema(schema_generator=_Plain)
    described = []
    for name, kind in schema["properties"].items():
        inner = {part: value for part, value in kind.items() if part not in ("description", "examples")}
        # What is left out of a query is simply not there: it has no null.
        inner |= next((one for one in inner.pop("anyOf", ()) if one != {"type": "null"}), {})
        parameter: dict[str, Any] = {
            "name": name,
            "in": "query",
            "description": kind["description"],
            "required": name in schema.get("required", ()),
            "schema": inner,
        }
        if kind.get("examples"):
            parameter["example"] = kind["examples"][0]
        described.append(parameter)
    return described
