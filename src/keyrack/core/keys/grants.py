"""Who may log in as which system user: give and take back grants; must deliver nothing to hosts itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, product
from typing import Any, TypedDict, Unpack

from sqlalchemy import Connection

from keyrack.core import cursors, lookups, quotas, validation
from keyrack.core.hosts.servers import tag as server_tag
from keyrack.core.instance import Instance
from keyrack.core.keys import event_terms, openings, propagation
from keyrack.core.lookups import own_grant, own_server, own_user
from keyrack.core.work import Attempt, Work
from keyrack.errors import invalid, missing
from keyrack.model import Actor, Grant, Page, Window, has_ended
from keyrack.store.hosts import servers, system_users
from keyrack.store.keys import grants, user_keys
from keyrack.store.keys.openings import Opening, files_of_accounts
from keyrack.store.keys.openings import of_account as openings_of
from keyrack.store.people import groups as group_rows
from keyrack.store.people import users as user_rows

MAX_PAIRS = 20
BATCH_SIZE = 50


class StandingTerms(TypedDict, total=False):
    """Terms of a grant that mean the same whenever they are given.

    starts_at: nothing is opened before it; expires_at: as validation.end takes it; restrictions: as
    validation.restrictions takes them; reason: in words; break_glass: each use is an alarm.
    """

    starts_at: datetime | None
    expires_at: object
    restrictions: Mapping[str, Any] | None
    reason: object
    break_glass: bool


class Terms(StandingTerms, total=False):
    """All terms; duration: in place of expires_at, a span from the start on, as validation.end takes it."""

    duration: object


def give(
    instance: Instance,
    actor: Actor,
    *,
    user_id: int | None = None,
    group_id: int | None = None,
    server_id: int | None = None,
    tag: str | None = None,
    all_servers: bool = False,
    system_user: object,
    **terms: Unpack[Terms],
) -> Grant:
    """Let a user or a group log in as system_user on a server, on servers with a tag, or on all of the workspace.

    Exactly one of user_id and group_id, and exactly one of server_id, tag and all_servers. Keys that cannot obey the
    restrictions are not let in, such as, under verify_required, one that is on no security key. Raises Refusal INVALID,
    MISSING or LIMIT.
    """
    attempt = Attempt(instance, actor, "grants:write", "give a grant", target_kind="grant", server_id=server_id)
    with attempt:
        _refuse_unclear(user_id, group_id, server_id, tag, all_servers=all_servers)
        now = instance.now()
        start, end = when(now, terms.get("starts_at"), terms.get("expires_at"), terms.get("duration"))
        values: dict[str, Any] = {
            "workspace_id": actor.workspace_id,
            "user_id": user_id,
            "group_id": group_id,
            "server_id": server_id,
            "tag": None if tag is None else server_tag(tag),
            "system_user": validation.account(system_user, field="system_user"),
            "restrictions": validation.restrictions(terms.get("restrictions")),
            "expires_at": end,
            "break_glass": terms.get("break_glass") or None,
            "all_servers": all_servers or None,
            "starts_at": start,
            "reason": validation.reason(terms.get("reason")) or None,
        }

        def change(work: Work) -> Grant:
            if server_id is not None:
                own_server(work, server_id)
            who = _subject(work, user_id, group_id)
            quotas.refuse_more(work, "grant")
            grant = own_grant(work, grants.add_grant(work.connection, {**values, "created_at": work.now}))
            if grant.has_begun(work.now):
                let_in(work, grant)
            work.record(
                f"Let {who} log in as {grant.system_user} on {_where(work, grant)}{_terms(grant)}",
                target_id=grant.id,
                details=event_terms.details(grant.restrictions),
            )
            return grant

        return attempt.write(change)


def begin(instance: Instance, keyrack: Actor) -> int:
    """Tell hosts of grants whose start has come, each with its event; answers how many.

    No document has their lines before. A host that is away then gets them at its next contact.
    """
    at = instance.now()
    if not instance.database.read(lambda connection: grants.grants_to_begin(connection, at, 1)):
        return 0
    with Attempt(instance, keyrack, "grants:write", "begin grants", target_kind="grant") as attempt:

        def change(work: Work) -> int:
            due = grants.grants_to_begin(work.connection, work.now, BATCH_SIZE)
            for grant in due:
                grants.note_begun(work.connection, grant.id, work.now)
                before = dict(work.bumped)
                work.bumped.clear()
                if not has_ended(grant.expires_at, work.now):
                    let_in(work, grant)
                work.record(
                    f"Grant {grant.id} of the login as {grant.system_user} began",
                    target_id=grant.id,
                    workspace_id=grant.workspace_id,
                )
                work.bumped.update({**before, **work.bumped})
            if not due:
                work.no_event("another process was quicker")
            return len(due)

        return attempt.write(change)


def get(instance: Instance, actor: Actor, grant_id: int) -> Grant:
    """One grant. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(instance, actor, "grants:read", "see a grant", target_kind="grant", target_id=grant_id) as attempt:
        return attempt.read(lambda connection: lookups.grant(connection, actor, grant_id))


def page(
    instance: Instance, actor: Actor, *, offset: int = 0, limit: int = 50, cursor: str | None = None
) -> Page[Grant]:
    """A page of the workspace's grants, oldest first.

    cursor: of the page before, "" for the first one; takes the place of offset. Raises Refusal FORBIDDEN, or INVALID
    for a malformed cursor.
    """
    with Attempt(instance, actor, "grants:read", "list grants", target_kind="grant") as attempt:
        window = Window(limit, offset, cursors.place(cursor, int))
        return attempt.read(lambda connection: grants.page_of_grants(connection, actor.workspace_id, window))


@dataclass(frozen=True, slots=True)
class GrantNames:
    """The names that some grants need to be shown, by id."""

    users: Mapping[int, str]
    groups: Mapping[int, str]
    servers: Mapping[int, str]

    def sentence(self, grant: Grant) -> str:
        """A grant as a sentence: "Group ops may log in as root on hosts tagged production"."""
        user, group = self.users.get(grant.user_id or 0, "?"), self.groups.get(grant.group_id or 0, "?")
        who = f"Group {group}" if grant.group_id else user
        where = f"hosts tagged {grant.tag}" if grant.tag else self.servers.get(grant.server_id or 0, "?")
        return f"{who} may log in as {grant.system_user} on {'all hosts' if grant.all_servers else where}"


def names(instance: Instance, actor: Actor, some: Iterable[Grant], *, written: bool = False) -> GrantNames:
    """The names that grants of the actor's workspace need to be shown.

    written: the actor has just given them; no right to read grants is asked for then.
    """
    shown = tuple(some)

    def question(connection: Connection) -> GrantNames:
        server_ids = {grant.server_id for grant in shown if grant.server_id}
        named = {number: servers.get(connection, actor.workspace_id, number) for number in server_ids}
        return GrantNames(
            users=user_rows.user_names(connection, (grant.user_id for grant in shown if grant.user_id)),
            groups=group_rows.group_names(connection, (grant.group_id for grant in shown if grant.group_id)),
            servers={number: server.name for number, server in named.items() if server is not None},
        )

    if written:
        return instance.database.read(question)
    with Attempt(instance, actor, "grants:read", "list grants", target_kind="grant") as attempt:
        return attempt.read(question)


@dataclass(frozen=True, slots=True)
class Given:
    """A grant that was given just now; note: a warning about it, None for none."""

    grant: Grant
    note: str | None


def noted(instance: Instance, given: Grant) -> Given:
    """A grant with what its giver should know: another grant does the same, or it opens nothing yet."""

    def question(connection: Connection) -> str | None:
        place = (given.user_id, given.group_id, given.server_id, given.tag)
        twins = grants.grants_like(connection, given.workspace_id, given.system_user, place, given.id)
        if twins:
            return f"Grant {twins[0].id} lets the same in at the same place already; to end that login take back both."
        user = None if given.user_id is None else user_rows.user(connection, given.user_id)
        if user is not None and user.disabled_at is not None:
            return f"{user.name} is disabled; this opens nothing until somebody enables the user."
        if given.tag is not None and not servers.ids_with_tag(connection, given.workspace_id, given.tag):
            return f"No server has the tag {given.tag!r} yet; this opens nothing until one has."
        return None

    return Given(given, instance.database.read(question))


def give_named(
    instance: Instance,
    actor: Actor,
    *,
    user: object = None,
    group: object = None,
    server: object = None,
    tag: object = None,
    all_servers: bool = False,
    system_user: object,
    **terms: Unpack[Terms],
) -> Grant:
    """As give, by names; server: a name or an id. Raises Refusal INVALID or TAKEN, and as give does."""
    attempt = Attempt(instance, actor, "grants:write", "give a grant", target_kind="grant")
    with attempt:
        user_id, group_id, server_id = named(
            attempt, user=user, group=group, server=server, tag=tag, all_servers=all_servers
        )
        if (server is None) != (tag is None) and not all_servers:
            own = () if server_id is None else (server_id,)
            _refuse_account_of_nobody(attempt, own, tag, validation.account(system_user, field="system_user"))
    return give(
        instance,
        actor,
        user_id=user_id,
        group_id=group_id,
        server_id=server_id,
        tag=None if tag is None else str(tag),
        all_servers=all_servers,
        system_user=system_user,
        **terms,
    )


def named(
    attempt: Attempt, *, user: object, group: object, server: object, tag: object, all_servers: bool
) -> tuple[int | None, int | None, int | None]:
    """The ids of the user, the group and the server that a grant is for; None for what is not named.

    server: a name or an id. Raises Refusal INVALID.
    """
    _refuse_unnamed(user=user, group=group, server=server, tag=tag)
    actor = attempt.actor

    def question(connection: Connection) -> tuple[int | None, int | None, int | None]:
        return (
            None if user is None else lookups.user_named(connection, actor, str(user), field="user").id,
            None if group is None else lookups.group_named(connection, actor, str(group), field="group").id,
            None if server is None else lookups.server_named(connection, actor, str(server), field="server").id,
        )

    user_id, group_id, server_id = attempt.read(question)
    _refuse_unclear(user_id, group_id, server_id, None if tag is None else str(tag), all_servers=all_servers)
    return user_id, group_id, server_id


def _refuse_account_of_nobody(attempt: Attempt, server_ids: tuple[int, ...], tag: object, name: str) -> None:
    """Refuse an account that none of the servers has: it is a typing error, and would let nobody in anywhere.

    A tag that no server has yet is for servers to come, whose accounts nobody knows.
    """

    def unknown(connection: Connection) -> bool:
        ids = server_ids or servers.ids_with_tag(connection, attempt.actor.workspace_id, str(tag))
        return bool(ids) and not system_users.have_account(connection, ids, name)

    if attempt.read(unknown):
        words = f"No server that this is for has the account {name!r}; add it there first."
        raise invalid("system_user", words, "account-missing")


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A grant as it was; still_opened_by: what lets its keys in all the same, as far as _still_open checks."""

    grant: Grant
    still_opened_by: tuple[Opening, ...]


def take_back(instance: Instance, actor: Actor, grant_id: int) -> TakenBack:
    """End a grant, and answer it as it was. Raises Refusal MISSING."""
    attempt = Attempt(instance, actor, "grants:write", "take back a grant", target_kind="grant", target_id=grant_id)
    with attempt:

        def change(work: Work) -> TakenBack:
            grant = own_grant(work, grant_id)
            # A grant that has not begun is on no host, so no host has to refuse its keys.
            begun = grant.has_begun(work.now)
            opened = grants.servers_of_grant(work.connection, grant) if begun else frozenset[int]()
            held = _held_keys(work, grant)
            where = _where(work, grant)
            grants.remove_grant(work.connection, grant.id)
            left = propagation.withdrawn(work, opened, held)
            who = _subject(work, grant.user_id, grant.group_id)
            still = _still_open(work, grant, opened, held, left)
            words = f"Took back from {who} the login as {grant.system_user} on {where}"
            work.record(words + openings.words(still, everywhere=True), target_id=grant.id)
            return TakenBack(grant, still)

        return attempt.write(change)


def _still_open(
    work: Work,
    grant: Grant,
    opened: Iterable[int],
    held: Iterable[tuple[str, str]],
    left: frozenset[tuple[int, str]],
) -> tuple[Opening, ...]:
    """What else lets the keys of a grant in. Only the first MAX_PAIRS pairs of server and key are checked.

    left: pairs that credentials or grants still let in, most often none. Only for these is the database asked what it
    is; for all pairs one question finds files on hosts.
    """
    pairs = list(islice(product(sorted(opened), sorted({fingerprint for fingerprint, _ in held})), MAX_PAIRS))
    if not pairs:
        return ()
    ids, prints = sorted({server_id for server_id, _ in pairs}), sorted({fingerprint for _, fingerprint in pairs})
    files = files_of_accounts(work.connection, ids, grant.system_user, prints)
    openings_by_pair = (
        openings_of(
            work.connection,
            workspace_id=work.actor.workspace_id,
            server_id=server_id,
            username=grant.system_user,
            fingerprint=fingerprint,
            at=work.now,
        )
        if (server_id, fingerprint) in left
        else files.get((server_id, fingerprint), ())
        for server_id, fingerprint in pairs
    )
    return tuple(dict.fromkeys(opening for of_pair in openings_by_pair for opening in of_pair))


def let_in(work: Work, grant: Grant) -> None:
    """Have the hosts of a grant let its keys in, within a unit of work."""
    opened = grants.servers_of_grant(work.connection, grant)
    propagation.granted_all(work, opened, (fingerprint for fingerprint, _ in _held_keys(work, grant)))


def _refuse_unnamed(**named: object) -> None:
    """Refuse what is neither None nor a name; for a server also an id. Raises Refusal INVALID."""
    for field, value in named.items():
        text = isinstance(value, str) or (field == "server" and isinstance(value, int))
        if value is not None and (not text or isinstance(value, bool) or value == ""):
            raise invalid(field, f"{field} takes a name.")


def _refuse_unclear(
    user_id: int | None, group_id: int | None, server_id: int | None, tag: str | None, *, all_servers: bool
) -> None:
    if (user_id is None) == (group_id is None):
        raise invalid("user", "Name either a user or a group.")
    if sum((server_id is not None, tag is not None, all_servers)) != 1:
        raise invalid("server", "Name either a server or a tag, or all.")


def when(
    now: datetime, starts_at: datetime | None, expires_at: object, duration: object
) -> tuple[datetime | None, datetime | None]:
    """Start and end; a span begins with the start. Raises Refusal INVALID."""
    begins = None if starts_at is None or starts_at.tzinfo is None else max(now, starts_at)
    end = validation.end(now, expires_at, duration=duration, begins=begins)
    return _start(now, starts_at, end), end


def _start(now: datetime, starts_at: datetime | None, expires_at: datetime | None) -> datetime | None:
    """A start in the future, None for one that is past. Raises Refusal INVALID."""
    if starts_at is None or (starts_at.tzinfo is not None and starts_at <= now):
        return None
    start = validation.end(now, starts_at, field="starts_at")
    if start is not None and expires_at is not None and expires_at <= start:
        raise invalid("expires_at", "It would end before it starts.")
    return start


def _terms(grant: Grant) -> str:
    """Start, end, restrictions and reason of a grant, as the end of a sentence."""
    terms = event_terms.sentence_end(
        starts_at=grant.starts_at,
        expires_at=grant.expires_at,
        restrictions=grant.restrictions,
        break_glass=bool(grant.break_glass),
    )
    return terms + (f" ({grant.reason})" if grant.reason else "")


def _held_keys(work: Work, grant: Grant) -> list[tuple[str, str]]:
    """The keys that a grant lets in: pairs of fingerprint and public key."""
    if grant.user_id is not None:
        user_ids = frozenset((grant.user_id,))
    else:
        assert grant.group_id is not None
        user_ids = group_rows.group_member_ids(work.connection, grant.group_id)
    return [
        (key.fingerprint, key.public_key)
        for user_id in sorted(user_ids)
        for key in user_keys.keys_of_user(work.connection, user_id)
        if key.fingerprint is not None and key.public_key is not None
    ]


def _subject(work: Work, user_id: int | None, group_id: int | None) -> str:
    if user_id is not None:
        return own_user(work, user_id).name
    assert group_id is not None
    name = group_rows.group_name(work.connection, work.actor.workspace_id, group_id)
    if name is None:
        raise missing("group")
    return f"group {name}"


def _where(work: Work, grant: Grant) -> str:
    if grant.server_id is not None:
        return own_server(work, grant.server_id).name
    if grant.all_servers:
        return "all hosts"
    return f"hosts with the tag {grant.tag}"


def open_for(
    work: Work, *, user_id: int, server_id: int | None, tag: str | None, system_user: str, end: datetime, reason: str
) -> Grant:
    """Insert a grant for a user within a unit of work; the caller records it. Raises Refusal LIMIT."""
    quotas.refuse_more(work, "grant")
    values: dict[str, Any] = {
        "workspace_id": work.actor.workspace_id,
        "user_id": user_id,
        "group_id": None,
        "server_id": server_id,
        "tag": tag,
        "system_user": system_user,
        "restrictions": {},
        "expires_at": end,
        "created_at": work.now,
        "reason": reason,
    }
    grant = own_grant(work, grants.add_grant(work.connection, values))
    let_in(work, grant)
    return grant
