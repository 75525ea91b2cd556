"""Groups: what calls take and answer; must call no use case."""

from __future__ import annotations

from typing import Annotated

from keyrack.core.people.groups import Group as GroupRecord
from keyrack.web.native.shapes import (
    Answer,
    Id,
    Listed,
    Request,
    Time,
    about,
    time,
)


class GroupChange(Request):
    """Who is in a group."""

    members: Annotated[list[str] | None, about("Exactly these users; left out: as it is.", ["alice"])] = None


class Group(Answer):
    """A group."""

    id: Annotated[Id, about("Its id.")]
    name: Annotated[str, about("Its name.", "ops")]
    members: Annotated[list[str], about("Its users, by name.", ["alice"])]
    created_at: Annotated[Time, about("When it was made.")]


class GroupPage(Listed[Group]):
    """A page of groups."""


def group(record: GroupRecord) -> Group:
    """A group."""
    return Group(id=record.id, name=record.name, members=list(record.members), created_at=time(record.created_at))
