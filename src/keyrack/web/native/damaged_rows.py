"""Keyrack's own API: rows of the database that are not as Keyrack wrote them; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.hosts import servers
from keyrack.core.keys import damaged_rows
from keyrack.web.api import Call
from keyrack.web.native import shapes_keys as shapes
from keyrack.web.native.calls import endpoint


def list_damaged(call: Call, asked: shapes.DamagedRowsAsked) -> shapes.DamagedRows:
    """List rows of the database that are not as Keyrack wrote them"""
    server_id = None if asked.server is None else servers.named(call.instance, call.actor, asked.server).id
    piece = damaged_rows.find(call.instance, call.actor, server_id, cursor=asked.cursor, limit=asked.per_page)
    return shapes.DamagedRows(items=[shapes.damaged_row(row) for row in piece.items], next=piece.next)


def remove_damaged(call: Call) -> shapes.DamagedRow:
    """Remove a row of the database that is not as Keyrack wrote it"""
    return shapes.damaged_row(damaged_rows.remove(call.instance, call.actor, call.path["row"]))


ENDPOINTS = (
    endpoint(
        "GET",
        "/damaged-rows",
        list_damaged,
        "credentials:read",
        asks=shapes.DamagedRowsAsked,
        answers=shapes.DamagedRows,
    ),
    endpoint(
        "DELETE",
        "/damaged-rows/{row}",
        remove_damaged,
        "credentials:write",
        answers=shapes.DamagedRow,
        first=lambda call: damaged_rows.may_remove(call.instance, call.actor, call.path["row"]),
    ),
)
