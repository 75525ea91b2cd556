"""Who can log in where, and why: what calls take and answer; must call no use case."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import WithJsonSchema

from keyrack.core.keys.rehearsal import Rehearsed
from keyrack.core.keys.who_can import Way as WayIn
from keyrack.core.keys.who_can import Ways as WaysIn
from keyrack.web.examples import FINGERPRINT
from keyrack.web.native.shapes import (
    Answer,
    Count,
    CursorWindow,
    Fingerprint,
    Id,
    NextCursor,
    Request,
    Restrictions,
    Time,
    about,
    time_or_null,
)


class AccessAsked(CursorWindow):
    """Of which server, which user, or both."""

    server: Annotated[str | None, about("A server, by name or id; or name a user.", "web-1")] = None
    system_user: Annotated[str | None, about("As this system user alone.", "deploy")] = None
    user: Annotated[str | None, about("A user, by name, or me; or name a server.", "alice")] = None


class Via(Answer):
    """What opens it: a credential, a grant to the user, or a grant to a group of the user's."""

    kind: Annotated[Literal["credential", "grant", "group"], about("What it is.", "grant")]
    id: Annotated[Id, about("The id of the credential or the grant.")]
    label: Annotated[str | None, about("The label of the credential.", "laptop")]
    group: Annotated[str | None, about("The group that the grant is for.", "ops")]
    tag: Annotated[str | None, about("The tag whose servers the grant is for.", "web")]
    all: Annotated[bool, about("Whether the grant is for all servers.", False)]
    reason: Annotated[str | None, about("Why the grant was given, or what the request for it said.", "release 12")]
    break_glass: Annotated[bool, about("Whether its use is an alarm.", False)]


class Way(Answer):
    """One way in: with this key, as this system user, on this server."""

    user: Annotated[str | None, about("Whose key it is; null where no user registered it.", "alice")]
    system_user: Annotated[str, about("As which system user.", "deploy")]
    server: Annotated[str, about("On which server.", "web-1")]
    server_id: Annotated[Id, about("That server's id.")]
    via: Annotated[Via, about("What opens it.")]
    fingerprint: Annotated[Fingerprint, about("Which key.", FINGERPRINT)]
    restrictions: Annotated[Restrictions, about("What the key may do there, and from where; {} for everything.")]
    expires_at: Annotated[Time | None, about("Until when; null for no end.")]
    last_used_at: Annotated[Time | None, about("When the key last logged in on this server.")]
    refused: Annotated[
        str | None,
        about(
            "Why sshd refuses it there all the same, by the host's word; empty where it does not, null where the host "
            "has not said.",
            "sshd refuses root: PermitRootLogin no",
        ),
    ]


class Access(Answer):
    """Ways in, by server, system user and key."""

    items: Annotated[list[Way], about("What the page holds.")]
    next: NextCursor
    unknown: Annotated[
        list[str],
        about("Servers of which nothing can be said, as their rows are not as Keyrack wrote them.", []),
    ]
    note: Annotated[
        str | None,
        about(
            "Why nothing is there: the server has no such account, the user is disabled, or their keys are frozen.",
            "Host web-1 has no account 'ops' …",
        ),
    ]


class NewRehearsal(Request):
    """A call whose effect is to be seen."""

    method: Annotated[Literal["POST", "PUT", "PATCH", "DELETE"], about("The call's method.", "POST")]
    path: Annotated[str, about("Its path, below /api/keyrack/v1 or whole.", "/grants")]
    body: Annotated[
        dict[str, Any] | None,
        WithJsonSchema({"type": ["object", "null"], "additionalProperties": True}),
        about("Its body.", {"user": "alice", "server": "web-1", "system_user": "deploy"}),
    ] = None


class Rehearsal(Answer):
    """What a call would do to who can log in where; nothing was changed."""

    gains: Annotated[list[Way], about("Ways in that would come.")]
    loses: Annotated[list[Way], about("Ways in that would go.")]
    changes: Annotated[
        list[Way], about("Ways in that would stay with other restrictions or another end, as they would be.")
    ]
    servers: Annotated[Count, about("How many servers it concerns; of more than 200 the first are looked at.")]
    unknown: Annotated[list[str], about("Servers of which nothing can be said.", [])]
    answer: Annotated[
        dict[str, Any] | None,
        WithJsonSchema({"type": ["object", "null"], "additionalProperties": True}),
        about("What the call would answer.", None),
    ]


def rehearsal(done: Rehearsed[Any]) -> Rehearsal:
    """What a call would do."""
    return Rehearsal(
        gains=[_way(one) for one in done.gains],
        loses=[_way(one) for one in done.loses],
        changes=[_way(one) for one in done.changes],
        servers=done.servers,
        unknown=list(done.unknown),
        answer=done.answer,
    )


def access(ways_in: WaysIn) -> Access:
    """A page of ways in."""
    return Access(
        items=[_way(one) for one in ways_in.items], next=ways_in.next, unknown=list(ways_in.unknown), note=ways_in.note
    )


def _way(way: WayIn) -> Way:
    reason = way.reason
    opened_by = reason.credential or reason.grant
    assert opened_by is not None
    grant = reason.grant
    return Way(
        user=way.user,
        system_user=reason.username,
        server=way.server.name,
        server_id=way.server.id,
        via=Via(
            kind=way.kind,
            id=opened_by.id,
            label=reason.credential.label if reason.credential else None,
            group=way.group,
            tag=grant.tag if grant else None,
            all=bool(grant and grant.all_servers),
            reason=grant.reason if grant else None,
            break_glass=reason.break_glass,
        ),
        fingerprint=reason.fingerprint,
        restrictions=dict(opened_by.restrictions),
        expires_at=time_or_null(reason.expires_at),
        last_used_at=time_or_null(way.last_used_at),
        refused=way.refused,
    )
