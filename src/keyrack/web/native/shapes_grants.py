"""Grants: what calls take and answer; must call no use case."""

from __future__ import annotations

from typing import Annotated, ClassVar

from keyrack.core.keys.grants import Given, GrantNames
from keyrack.model import Grant as GrantRecord
from keyrack.web.native.shapes import (
    Answer,
    DurationOrNone,
    End,
    EndOrNone,
    Flag,
    Id,
    Listed,
    Moment,
    Request,
    Restrictions,
    Time,
    about,
    time,
    time_or_null,
)


class WantedGrant(Request):
    """Who may log in where: a user or a group, on a server, on servers with a tag or on all."""

    user: Annotated[str | None, about("A user, by name; or name a group.", "alice")] = None
    group: Annotated[str | None, about("A group, by name.", None)] = None
    server: Annotated[str | int | None, about("A server, by name or id; or name a tag.", "web-1")] = None
    tag: Annotated[str | None, about("All servers with this tag, now and later.", None)] = None
    all: Annotated[bool, about("Whether all servers of the workspace are meant, now and later.", False)] = False
    system_user: Annotated[str, about("As which system user.", "deploy")]
    starts_at: Annotated[Moment | None, about("When it begins; none for at once.", None)] = None
    expires_at: EndOrNone = None
    restrictions: Annotated[Restrictions | None, about("What the keys may do; none for everything.")] = None
    reason: Annotated[str | None, about("Why, for those who ask later.", "release 12")] = None
    break_glass: Annotated[bool, about("Whether its use is an alarm.", False)] = False


class NewGrant(WantedGrant):
    """A grant to give, for a while from now on where it says for how long."""

    duration: DurationOrNone = None


class GrantChange(Request):
    """What is to change of a grant; what is left out stays."""

    restrictions: Annotated[Restrictions | None, about("All that the keys are restricted to; {} for nothing.")] = None
    expires_at: Annotated[
        End | None, about("When it ends: a time with its zone, or a span; null for no end.", None)
    ] = None
    duration: Annotated[End | None, about("For how long from now on, instead of expires_at.", "12h")] = None
    reason: Annotated[str | None, about("Why, for those who ask later; null for none.", "release 12")] = None


class Grant(Answer):
    """Who may log in where."""

    id: Annotated[Id, about("Its id.")]
    user: Annotated[str | None, about("The user.", "alice")]
    group: Annotated[str | None, about("The group.", None)]
    server: Annotated[str | None, about("The server.", "web-1")]
    server_id: Annotated[Id | None, about("The server's id.")]
    tag: Annotated[str | None, about("The tag.", None)]
    all: Annotated[Flag, about("Whether it is for all servers of the workspace.")]
    system_user: Annotated[str, about("As which system user.", "deploy")]
    starts_at: Annotated[Time | None, about("When it begins; null for when it was given.")]
    expires_at: Annotated[Time | None, about("When it ends.")]
    restrictions: Annotated[Restrictions, about("What the keys may do; {} for everything.")]
    reason: Annotated[str | None, about("Why it was given.", "release 12")]
    break_glass: Annotated[Flag, about("Whether its use is an alarm.")]
    created_at: Annotated[Time, about("When it was given.")]


class GivenGrant(Grant):
    """A grant that was given just now."""

    untagged: ClassVar[frozenset[str]] = frozenset({"note"})

    note: Annotated[str | None, about("What to know: that it opens nothing yet, or that there is the same.", None)]


class GrantPage(Listed[Grant]):
    """A page of grants."""


def grant(given: GrantRecord, names: GrantNames) -> Grant:
    """A grant; names: of the users, groups and servers that grants name."""
    return Grant(
        id=given.id,
        user=names.users.get(given.user_id or 0),
        group=names.groups.get(given.group_id or 0),
        server=names.servers.get(given.server_id or 0),
        server_id=given.server_id,
        tag=given.tag,
        all=bool(given.all_servers),
        system_user=given.system_user,
        starts_at=time_or_null(given.starts_at),
        expires_at=time_or_null(given.expires_at),
        restrictions=dict(given.restrictions),
        reason=given.reason,
        break_glass=bool(given.break_glass),
        created_at=time(given.created_at),
    )


def given_grant(made: Given, names: GrantNames) -> GivenGrant:
    """A grant that was given just now, with what is to be known of it."""
    return GivenGrant(**grant(made.grant, names).model_dump(), note=made.note)
