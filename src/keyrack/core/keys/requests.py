"""Access that users ask for and others approve: it opens as a grant with an end; must open nothing by itself.

Nobody approves their own request; rules say how many must approve, and for how long at most (decision 130).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from keyrack import policy
from keyrack.core import cursors, lifetimes, validation
from keyrack.core.hosts import servers as hosts
from keyrack.core.instance import Instance
from keyrack.core.keys import grants
from keyrack.core.lookups import server_named
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import Actor, Page, Window
from keyrack.ssh.names import spellings
from keyrack.store.hosts import servers, system_users
from keyrack.store.keys import requests
from keyrack.store.keys.requests import (
    APPROVED,
    CANCELLED,
    DENIED,
    LAPSED,
    PENDING,
    STATES,
    AccessRequest,
    RequestRule,
)
from keyrack.store.people import users as user_rows

MAX_PENDING = 20
MAX_PER_DAY = 200
"""Requests of one user, cancelled ones too: each stays as long as the audit log."""
MAX_RULES = 200
BATCH_SIZE = 200
MAX_APPROVERS = 2


@dataclass(frozen=True, slots=True)
class RequestNames:
    """Names that some requests need to be shown: users and servers by id, approvers by the request's id."""

    users: dict[int, str]
    servers: dict[int, str]
    approved_by: dict[int, tuple[str, ...]]


def ask(
    instance: Instance,
    actor: Actor,
    *,
    server: object = None,
    tag: object = None,
    system_user: object,
    duration: object,
    reason: object,
) -> AccessRequest:
    """Ask to log in as system_user on a server, or on servers with a tag, for a while.

    server: a name or an id; duration: as lifetimes.read takes it, counted from the approval. The same request again,
    also with the same reason, while it is pending answers the first: a call that was sent twice asks once.
    Raises Refusal INVALID, LIMIT or FORBIDDEN.
    """
    with Attempt(instance, actor, "requests:ask", "ask for access", target_kind="request") as attempt:
        account = validation.account(system_user, field="system_user")
        why = validation.text(reason, field="reason", maximum=validation.LONGEST_REASON)
        if (server is None) == (tag is None):
            raise invalid("server", "Name either a server or a tag.")
        lasting = validation.lifetime(duration, field="duration")
        end = validation.end(instance.now(), None, duration=duration)
        assert end is not None

        def change(work: Work) -> AccessRequest:
            user_id = _asker(work)
            server_id, tagged = _place(work, server, tag)
            if not _has_account(work, server_id, tagged, account):
                raise invalid("system_user", f"No server there has the account {account!r}; name one that it has.")
            asked: dict[str, Any] = {
                "user_id": user_id,
                "server_id": server_id,
                "tag": tagged,
                "system_user": account,
                "seconds": None if lasting.span is None else int(lasting.span.total_seconds()),
                "until": lasting.at,
                "reason": why,
            }
            pending = requests.pending_alike(work.connection, asked, work.now)
            if pending is not None:
                work.no_event("it is asked for already")
                return pending
            _refuse_many(work, user_id)
            matching = _rules(work, server_id, tagged, account)
            _refuse_long(matching, end - work.now)
            return _add(work, asked, matching, lasting.words)

        return attempt.write(change)


def _add(work: Work, asked: dict[str, Any], matching: list[RequestRule], lasting: str) -> AccessRequest:
    """Insert a request and record it; asked: columns of the table; lasting: for how long, in words."""
    values = {
        **asked,
        "workspace_id": work.actor.workspace_id,
        "state": PENDING,
        "approvers": max((rule.approvers for rule in matching), default=1),
        "created_at": work.now,
        "pending_until": work.now + timedelta(hours=work.instance.settings.request_hours),
    }
    made = _own(work, requests.add(work.connection, values))
    who = _name(work, made.user_id)
    work.record(
        f"{who} asks to log in as {made.system_user} on {_where(work, made)} {lasting}: {made.reason}",
        target_id=made.id,
        server_id=made.server_id,
        details={"user": who, "approvers": made.approvers},
    )
    return made


def page(
    instance: Instance,
    actor: Actor,
    *,
    state: str | None = None,
    offset: int = 0,
    limit: int = 50,
    cursor: str | None = None,
) -> tuple[Page[AccessRequest], RequestNames]:
    """A page of requests, newest first, with the names to show them; members see only their own.

    cursor: of the page before, "" for the first one; takes the place of offset. Raises Refusal INVALID or FORBIDDEN.
    """
    with Attempt(instance, actor, "requests:ask", "list requests for access", target_kind="request") as attempt:
        if state is not None and state not in STATES:
            raise invalid("state", f"state takes one of {', '.join(STATES)}.")
        everybody = policy.may(actor, "grants:read") is None
        window = Window(limit, offset, cursors.place(cursor, int))

        def question(connection: Connection) -> tuple[Page[AccessRequest], RequestNames]:
            piece = requests.page(
                connection,
                actor.workspace_id,
                window,
                state=state,
                user_id=None if everybody else actor.user_id or 0,
            )
            return piece, _names(connection, actor, piece.items)

        return attempt.read(question)


def get(instance: Instance, actor: Actor, request_id: int) -> AccessRequest:
    """One request; members see only their own. Raises Refusal MISSING."""
    aim = "see a request for access"
    with Attempt(instance, actor, "requests:ask", aim, target_kind="request", target_id=request_id) as attempt:
        access_request = attempt.read(lambda connection: requests.get(connection, actor.workspace_id, request_id))
        if access_request is None or (
            access_request.user_id != actor.user_id and policy.may(actor, "grants:read") is not None
        ):
            raise missing("request")
        return access_request


def rule(instance: Instance, actor: Actor, name: str) -> RequestRule:
    """The rule of this name. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(instance, actor, "grants:read", "see a rule of requests", target_kind="request rule") as attempt:
        held = attempt.read(lambda connection: requests.rules(connection, actor.workspace_id))
        return _rule_named(held, name)


def names(instance: Instance, actor: Actor, one: AccessRequest) -> RequestNames:
    """The names to show one request, for a caller who has just written or decided it."""
    return instance.database.read(lambda connection: _names(connection, actor, (one,)))


def _names(connection: Connection, actor: Actor, some: Iterable[AccessRequest]) -> RequestNames:
    shown = tuple(some)
    server_names: dict[int, str] = {}
    for server_id in {one.server_id for one in shown if one.server_id}:
        server = servers.get(connection, actor.workspace_id, server_id)
        server_names[server_id] = server.name if server else "?"
    given = requests.approvals(connection, [one.id for one in shown])
    approvers = {approval.user_id for of in given.values() for approval in of if approval.user_id is not None}
    users = user_rows.user_names(connection, {one.user_id for one in shown} | approvers)
    approved_by = {
        request_id: tuple(
            one.approver.removeprefix("operator ") if one.user_id is None else users.get(one.user_id, "?") for one in of
        )
        for request_id, of in given.items()
    }
    return RequestNames(users, server_names, approved_by)


def approve(instance: Instance, actor: Actor, request_id: int, *, word: object = None) -> AccessRequest:
    """Approve a request; the last approval that it needs opens it. word: to whoever asked, or None.

    1. Nobody approves their own request. 2. The request must be as Keyrack wrote it. 3. Nobody approves twice. 4. Only
    approvals of people who still may approve count. 5. The strictest of the request and today's rules says how many it
    needs.

    Raises Refusal MISSING, FORBIDDEN, TAKEN or INVALID.
    """
    with _attempt(instance, actor, "approve", request_id) as attempt:
        said = _word(word)

        def change(work: Work) -> AccessRequest:
            one = _pending(work, request_id)
            if one.user_id == actor.user_id:  # 1
                words = "Nobody approves what they asked for themselves; ask another owner or admin."
                raise Refusal(Kind.FORBIDDEN, "own-request", words)
            if not requests.is_sound(work.connection, one.workspace_id, one.id):  # 2
                words = "This request was changed in the database, not by Keyrack. Deny it, and have it made anew."
                raise Refusal(Kind.FORBIDDEN, "seal-broken", words)
            approver = f"user {actor.user_id}" if actor.user_id is not None else f"operator {actor.name}"[:255]
            if not requests.approve(work.connection, one.id, approver, actor.user_id, work.now):  # 3
                raise Refusal(Kind.TAKEN, "approved-already", "You approved this already; it takes another person.")
            given = _approvals_that_count(work, one)  # 4
            matching = _rules(work, one.server_id, one.tag, one.system_user)
            needed = max(one.approvers, *(rule.approvers for rule in matching), 1)  # 5
            asked = f"the request of {_name(work, one.user_id)} to log in as {one.system_user} on {_where(work, one)}"
            if given < needed:
                work.record(f"Approved {asked}; {given} of {needed} approvals{_said(work, said)}", target_id=one.id)
                return one
            return _open(work, one, matching, asked, said)

        return attempt.write(change)


def deny(instance: Instance, actor: Actor, request_id: int, *, word: object = None) -> AccessRequest:
    """Deny a pending request. word: to whoever asked, or None. Raises Refusal MISSING, FORBIDDEN, TAKEN or INVALID."""
    with _attempt(instance, actor, "deny", request_id) as attempt:
        said = _word(word)
        return attempt.write(lambda work: _close(work, _pending(work, request_id), DENIED, "Denied", said))


def _word(word: object) -> str | None:
    return validation.reason(word) or None


def cancel(instance: Instance, actor: Actor, request_id: int) -> AccessRequest:
    """Cancel a pending request of the actor's own. Raises Refusal MISSING or TAKEN."""
    aim = "cancel a request for access"
    with Attempt(instance, actor, "requests:ask", aim, target_kind="request", target_id=request_id) as attempt:

        def change(work: Work) -> AccessRequest:
            one = _own(work, request_id)
            if actor.user_id is not None and one.user_id != actor.user_id:
                raise missing("request")
            return _close(work, _pending(work, request_id), CANCELLED, "Cancelled")

        return attempt.write(change)


def lapse(instance: Instance, keyrack: Actor) -> int:
    """Close the requests that nobody decided in time, each with its event; answers how many."""
    at = instance.now()
    if not instance.database.read(lambda connection: requests.lapsing(connection, at, 1)):
        return 0
    with Attempt(instance, keyrack, "requests:approve", "close old requests", target_kind="request") as attempt:

        def change(work: Work) -> int:
            due = requests.lapsing(work.connection, work.now, BATCH_SIZE)
            for one in due:
                requests.set_state(work.connection, one.id, state=LAPSED, decided_at=work.now, decided_by="")
                words = f"Nobody decided in time on request {one.id} for {one.system_user}; it lapsed"
                work.record(words, target_id=one.id, workspace_id=one.workspace_id)
            if not due:
                work.no_event("another process was quicker")
            return len(due)

        return attempt.write(change)


def put_rule(
    instance: Instance,
    actor: Actor,
    name: object,
    *,
    approvers: int = 1,
    server: object = None,
    tag: object = None,
    system_user: object = None,
    max_duration: object = None,
) -> tuple[RequestRule, bool]:
    """Set the rule of this name; answers it, and whether it is new.

    server, tag, system_user: what requests it is for, None for any; approvers: 1 or 2; max_duration: a span, None for
    any. Where several rules fit, the strictest counts. Raises Refusal INVALID or LIMIT.
    """
    with Attempt(instance, actor, "requests:rule", "set a rule of requests", target_kind="request rule") as attempt:
        called = validation.called(name)
        if approvers not in range(1, MAX_APPROVERS + 1):
            raise invalid("approvers", f"approvers takes 1 to {MAX_APPROVERS}.")
        if server is not None and tag is not None:
            raise invalid("server", "Name a server or a tag, or neither for all.")
        account = None if system_user is None else validation.account(system_user, field="system_user")
        most = None if max_duration is None else max_duration_of(max_duration)

        def change(work: Work) -> tuple[RequestRule, bool]:
            server_id, tagged = (None, None) if server is None and tag is None else _place(work, server, tag)
            before = requests.rules(work.connection, actor.workspace_id)
            if all(rule.name != called for rule in before):
                validation.name(called)
            if len(before) >= MAX_RULES and all(rule.name != called for rule in before):
                raise Refusal(Kind.LIMIT, "no-room", f"There are {MAX_RULES} rules, which is the most.")
            values = {
                "workspace_id": actor.workspace_id,
                "name": called,
                "server_id": server_id,
                "tag": tagged,
                "system_user": account,
                "approvers": approvers,
                "longest_seconds": None if most is None else int(most.total_seconds()),
                "created_at": work.now,
            }
            new = requests.put_rule(work.connection, values)
            work.record(f"Set the rule {called} of requests: {approvers} must approve")
            return next(rule for rule in _all_rules(work) if rule.name == called), new

        return attempt.write(change)


def max_duration_of(text: object) -> timedelta:
    """The longest span that a rule allows, parsed. Raises Refusal INVALID."""
    most = validation.lifetime(text, field="max_duration").span
    if most is None:
        raise invalid("max_duration", "max_duration takes a span such as 8h.")
    if most > validation.LONGEST_LIFE:
        raise invalid("max_duration", "max_duration is ten years at most; leave it out for any.")
    return most


def rules(instance: Instance, actor: Actor) -> tuple[RequestRule, ...]:
    """The rules of the workspace, by name."""
    with Attempt(instance, actor, "grants:read", "list rules of requests", target_kind="request rule") as attempt:
        return attempt.read(lambda connection: requests.rules(connection, actor.workspace_id))


def delete_rule(instance: Instance, actor: Actor, name: str) -> None:
    """Delete a rule. Raises Refusal MISSING."""
    with Attempt(instance, actor, "requests:rule", "delete a rule of requests", target_kind="request rule") as attempt:

        def change(work: Work) -> None:
            requests.remove_rule(work.connection, _rule_named(_all_rules(work), name).id)
            work.record(f"Deleted the rule {name} of requests")

        attempt.write(change)


def _attempt(instance: Instance, actor: Actor, verb: str, request_id: int) -> Attempt:
    aim = f"{verb} a request for access"
    return Attempt(instance, actor, "requests:approve", aim, target_kind="request", target_id=request_id)


def _asker(work: Work) -> int:
    if work.actor.user_id is None:
        raise Refusal(Kind.FORBIDDEN, "not-a-user", "Only a user can ask for access.")
    return work.actor.user_id


def _place(work: Work, server: object, tag: object) -> tuple[int | None, str | None]:
    """The server's id, or the tag."""
    if tag is not None:
        return None, hosts.tag(str(tag))
    if not isinstance(server, str | int) or isinstance(server, bool):
        raise invalid("server", "server takes a name or an id.")
    return server_named(work.connection, work.actor, str(server), field="server").id, None


def _has_account(work: Work, server_id: int | None, tag: str | None, account: str) -> bool:
    ids = (server_id,) if server_id else servers.ids_with_tag(work.connection, work.actor.workspace_id, tag or "")
    return bool(ids) and system_users.have_account(work.connection, ids, account)


def _rule_named(rules: Iterable[RequestRule], name: str) -> RequestRule:
    """The rule of a name in any of its spellings, the exact one first. Raises Refusal MISSING."""
    by_name = {rule.name: rule for rule in rules}
    found = next((by_name[one] for one in spellings(name) if one in by_name), None)
    if found is None:
        raise missing("rule")
    return found


def _all_rules(work: Work) -> tuple[RequestRule, ...]:
    return requests.rules(work.connection, work.actor.workspace_id)


def _rules(work: Work, server_id: int | None, tag: str | None, account: str) -> list[RequestRule]:
    """The rules for a place; for a tag, those of every server that has it."""
    if server_id is not None:
        ids, tags = {server_id}, requests.tags_of_server(work.connection, server_id)
    else:
        ids = set(servers.ids_with_tag(work.connection, work.actor.workspace_id, tag or ""))
        tags = requests.tags_beside(work.connection, work.actor.workspace_id, tag or "")
    return [
        rule
        for rule in _all_rules(work)
        if (rule.server_id is None or rule.server_id in ids)
        and (rule.tag is None or rule.tag in tags)
        and (rule.system_user is None or rule.system_user == account)
    ]


def _refuse_many(work: Work, user_id: int) -> None:
    if requests.count_pending(work.connection, user_id, MAX_PENDING) >= MAX_PENDING:
        words = f"{MAX_PENDING} of your requests are pending, which is the most; cancel one first."
        raise Refusal(Kind.LIMIT, "too-many-requests", words)
    if requests.asked_since(work.connection, user_id, work.now - timedelta(days=1), MAX_PER_DAY):
        words = f"You asked {MAX_PER_DAY} times within a day, which is the most; ask again tomorrow."
        raise Refusal(Kind.LIMIT, "too-many-requests", words)


def _refuse_long(matching: list[RequestRule], length: timedelta) -> None:
    for rule in matching:
        if rule.max_duration is not None and length > rule.max_duration:
            most = lifetimes.written(rule.max_duration)
            raise invalid("duration", f"The rule {rule.name} lets this last {most} at most.", "too-long")


def _approvals_that_count(work: Work, one: AccessRequest) -> int:
    """How many people approved who still may, without the one who asks."""
    count = 0
    for given in requests.approvals(work.connection, (one.id,)).get(one.id, ()):
        if given.user_id is None:
            count += 1
            continue
        user = user_rows.user(work.connection, given.user_id)
        if user is None or user.disabled_at is not None or user.id == one.user_id:
            continue
        count += "requests:approve" in policy.actions(user.role, user.policies)
    return count


def _open(work: Work, one: AccessRequest, matching: list[RequestRule], asked: str, word: str | None) -> AccessRequest:
    end = one.until if one.span is None else work.now + one.span
    assert end is not None
    if end <= work.now:
        raise invalid("duration", "The end that was asked for is past already; deny this, and ask anew.")
    _refuse_long(matching, end - work.now)
    asker = user_rows.user(work.connection, one.user_id)
    if asker is None or asker.disabled_at is not None:
        raise Refusal(Kind.FORBIDDEN, "user-disabled", "Who asked for this is disabled; nothing opens for them.")
    grant = grants.open_for(
        work,
        user_id=one.user_id,
        server_id=one.server_id,
        tag=one.tag,
        system_user=one.system_user,
        end=end,
        reason=one.reason,
    )
    now = work.now
    decided = {"decided_at": now, "decided_by": work.actor.name, "word": word}
    requests.set_state(work.connection, one.id, state=APPROVED, grant_id=grant.id, **decided)
    work.record(
        f"Approved {asked}: open until {end:%Y-%m-%d %H:%M:%S} UTC (grant {grant.id}){_said(work, word)}",
        target_id=one.id,
        server_id=one.server_id,
        details={"grant_id": grant.id},
    )
    return _own(work, one.id)


def _close(work: Work, one: AccessRequest, state: str, verb: str, word: str | None = None) -> AccessRequest:
    decided = {"decided_at": work.now, "decided_by": work.actor.name, "word": word}
    requests.set_state(work.connection, one.id, state=state, **decided)
    asked = f"the request of {_name(work, one.user_id)} to log in as {one.system_user} on {_where(work, one)}"
    work.record(f"{verb} {asked}{_said(work, word)}", target_id=one.id, server_id=one.server_id)
    return _own(work, one.id)


def _said(work: Work, word: str | None) -> str:
    return f"; {work.actor.name} says: {word}" if word else ""


def _pending(work: Work, request_id: int) -> AccessRequest:
    one = _own(work, request_id)
    if one.state != PENDING or one.pending_until <= work.now:
        state = LAPSED if one.state == PENDING else one.state
        raise Refusal(Kind.TAKEN, "not-pending", f"This request is {state}; nothing is left to decide. Ask anew.")
    return one


def _own(work: Work, request_id: int) -> AccessRequest:
    one = requests.get(work.connection, work.actor.workspace_id, request_id)
    if one is None:
        raise missing("request")
    return one


def _name(work: Work, user_id: int) -> str:
    return user_rows.user_names(work.connection, (user_id,)).get(user_id, "?")


def _where(work: Work, one: AccessRequest) -> str:
    if one.server_id is None:
        return f"hosts with the tag {one.tag}"
    server = servers.get(work.connection, work.actor.workspace_id, one.server_id)
    return server.name if server else "?"
