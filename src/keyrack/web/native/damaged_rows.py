"""Keyrack's own API: rows of the database that are not as Keyrack wrote them; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from keyrack.core.keys import damaged_rows
from keyrack.web.api import Call, Endpoint


def list_damaged(call: Call) -> Response:
    """List rows that are not as Keyrack wrote them"""
    rows = damaged_rows.find(call.instance, call.actor)
    return JSONResponse({"items": [{"row": row.name, "what": row.what} for row in rows]})


def remove_damaged(call: Call) -> Response:
    """Remove a row that is not as Keyrack wrote it"""
    gone = damaged_rows.remove(call.instance, call.actor, call.path["row"])
    return JSONResponse({"row": gone.name, "what": gone.what})


ENDPOINTS = (
    Endpoint("GET", "/damaged-rows", list_damaged, "credentials:read"),
    Endpoint("DELETE", "/damaged-rows/{row}", remove_damaged, "credentials:write"),
)
