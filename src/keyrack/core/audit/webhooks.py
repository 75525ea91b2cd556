"""Webhooks: addresses to which events of a workspace are sent, signed and at least once; must speak no HTTP itself.

The queue is filled from the log, each second, so that no change waits for its delivery.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidTag
from sqlalchemy import Connection

from keyrack import policy
from keyrack.core.audit import outgoing_events
from keyrack.core.instance import Instance
from keyrack.core.keys.key_sync import HttpAnswer, NoHttpAnswer
from keyrack.core.private_addresses import outgoing_url
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import LEVELS, Actor, Event
from keyrack.store.audit import events, webhooks
from keyrack.store.audit.webhooks import DELIVERED, FAILED, Delivery, Webhook

READ, WRITE = "webhooks:read", "webhooks:write"
LOG = "events:read"
MAX = 50
LONGEST_URL = 2000
SHORTEST_SECRET, LONGEST_SECRET = 16, 256
WAITS = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 1800, 3600, *(6 * 3600,) * 12))
"""The waits after failed attempts, three days in all; then the delivery is given up."""
LEASE = timedelta(minutes=2)
KEPT = timedelta(days=14)
BATCH_SIZE = 500
CLEAR_BATCH_SIZE = 1000
DAMAGED = "It was changed in the database, not by Keyrack: nothing is sent until its secret is set anew."

Post = Callable[[str, Mapping[str, str], bytes], HttpAnswer]
"""POST of a body with headers to an address; raises NoHttpAnswer. See web/outgoing.py."""


@dataclass(frozen=True, slots=True)
class WebhookWithSecret:
    """A webhook, and its secret where it was just set, shown only this once, else ""."""

    webhook: Webhook
    secret: str


def create(
    instance: Instance,
    actor: Actor,
    *,
    url: object,
    secret: object = None,
    level: object = "warning",
    actions: Iterable[object] = ("*",),
) -> WebhookWithSecret:
    """Send events of the actor's workspace to an address from now on.

    url: https, or http if `webhook_networks` names private networks; secret: 16 to 256 printable characters, None for a
    random one; level: the least one of LEVELS that is sent; actions: patterns over actions. Events are the audit log,
    so this takes the right to read that too. Raises Refusal INVALID, LIMIT or FORBIDDEN.
    """
    with Attempt(instance, actor, WRITE, "create a webhook", target_kind="webhook") as attempt:
        address, patterns = _wanted(instance, actor, url, level, actions)
        chosen = f"krwh_{secrets.token_urlsafe(32)}" if secret is None else _secret(secret)

        def change(work: Work) -> Webhook:
            existing = webhooks.of_workspace(work.connection, actor.workspace_id)
            if len(existing) >= MAX:
                raise Refusal(Kind.LIMIT, "no-room", f"There are {MAX} webhooks, which is the most; delete one first.")
            values: dict[str, Any] = {
                "workspace_id": actor.workspace_id,
                "url": address,
                "encrypted_secret": instance.key.encrypt(chosen, _context(actor.workspace_id, address)),
                "level": level,
                "actions": list(patterns),
                "active": True,
                "cursor": 0,
                "created_by": actor.name,
                "created_at": work.now,
            }
            webhook_id = webhooks.add(work.connection, values)
            work.record(f"Events from {level} on are sent to {_host(address)}", target_id=webhook_id, level="warning")
            webhooks.set_cursor(work.connection, webhook_id, events.newest_id(work.connection))
            webhook = webhooks.get(work.connection, actor.workspace_id, webhook_id)
            assert webhook is not None
            return webhook

        return WebhookWithSecret(attempt.write(change), chosen)


def put(
    instance: Instance,
    actor: Actor,
    *,
    url: object,
    secret: object = None,
    level: object = "warning",
    actions: Iterable[object] = ("*",),
) -> WebhookWithSecret:
    """The webhook that sends to an address, created or changed as needed; as create.

    secret: None leaves that of an existing one. Raises Refusal TAKEN where several send there, and as create does.
    """
    with Attempt(instance, actor, WRITE, "set up a webhook", target_kind="webhook") as attempt:
        address, patterns = _wanted(instance, actor, url, level, actions)
        chosen = None if secret is None else _secret(secret)

        def change(work: Work) -> WebhookWithSecret:
            existing = [one for one in webhooks.of_workspace(work.connection, actor.workspace_id) if one.url == address]
            if len(existing) > 1:
                words = f"{len(existing)} webhooks send there; delete those that are too many."
                raise Refusal(Kind.TAKEN, "several-webhooks", words)
            if not existing:
                work.no_event("creating it leaves one")
                return create(within(work), actor, url=address, secret=chosen, level=level, actions=patterns)
            before = existing[0]
            values: dict[str, Any] = {}
            if (before.level, before.actions) != (level, patterns):
                values |= {"level": level, "actions": list(patterns)}
            if chosen is not None and chosen != _held_secret(instance, before):
                values["encrypted_secret"] = instance.key.encrypt(chosen, _context(actor.workspace_id, address))
            if not values:
                work.no_event("it is as wanted already")
                return WebhookWithSecret(before, "")
            webhooks.update_one(work.connection, before.id, values)
            what = "another secret signs them" if "encrypted_secret" in values else f"for {', '.join(patterns)}"
            work.record(
                f"Events from {level} on are sent to {_host(address)} ({what})", target_id=before.id, level="warning"
            )
            return WebhookWithSecret(_own(work.connection, actor, before.id), chosen or "")

        return attempt.write(change)


def find(instance: Instance, actor: Actor) -> tuple[Webhook, ...]:
    """The webhooks of the workspace, oldest first. Raises Refusal FORBIDDEN."""
    with Attempt(instance, actor, READ, "list webhooks", target_kind="webhook") as attempt:
        return attempt.read(lambda connection: webhooks.of_workspace(connection, actor.workspace_id))


def get(instance: Instance, actor: Actor, webhook_id: int) -> Webhook:
    """One webhook. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(instance, actor, READ, "see a webhook", target_kind="webhook", target_id=webhook_id) as attempt:
        return attempt.read(lambda connection: _own(connection, actor, webhook_id))


def delete(instance: Instance, actor: Actor, webhook_id: int) -> Webhook:
    """Send no more events there, and drop those that wait; answers the webhook as it was. Raises Refusal MISSING."""
    aim = "delete a webhook"
    with Attempt(instance, actor, WRITE, aim, target_kind="webhook", target_id=webhook_id) as attempt:

        def change(work: Work) -> Webhook:
            webhook = _own(work.connection, actor, webhook_id)
            webhooks.remove(work.connection, webhook.id)
            work.record(f"Events are sent to {_host(webhook.url)} no more", target_id=webhook.id, level="warning")
            return webhook

        return attempt.write(change)


def test(instance: Instance, actor: Actor, webhook_id: int) -> Delivery:
    """Queue a test delivery, and answer it as it waits. Raises Refusal MISSING."""
    aim = "test a webhook"
    with Attempt(instance, actor, WRITE, aim, target_kind="webhook", target_id=webhook_id) as attempt:

        def change(work: Work) -> Delivery:
            webhook = _own(work.connection, actor, webhook_id)
            webhooks.enqueue(work.connection, webhook.id, (None,), work.now)
            work.record(f"Sent a test to {_host(webhook.url)}", target_id=webhook.id)
            return webhooks.deliveries(work.connection, webhook.id, None, 1)[0]

        return attempt.write(change)


def deliveries(
    instance: Instance, actor: Actor, webhook_id: int, *, before: int | None = None, limit: int = 50
) -> tuple[Delivery, ...]:
    """What was sent there or waits, newest first; before: only smaller ids. Raises Refusal MISSING."""
    aim = "see what was sent"
    with Attempt(instance, actor, READ, aim, target_kind="webhook", target_id=webhook_id) as attempt:

        def question(connection: Connection) -> tuple[Delivery, ...]:
            return webhooks.deliveries(connection, _own(connection, actor, webhook_id).id, before, limit)

        return attempt.read(question)


def queue_new(instance: Instance) -> int:
    """Queue new events for the webhooks that want them; answers how many."""
    held = instance.database.read(webhooks.active)
    if not held:
        return 0
    newest = instance.database.read(events.newest_id)
    if all(one.cursor == newest for one in held):
        return 0
    return sum(_queue(instance, one) for one in held)


def _queue(instance: Instance, webhook: Webhook) -> int:
    now = instance.now()
    count = 0
    after = webhook.cursor

    def question(connection: Connection) -> list[Event]:
        return webhooks.new_events(connection, webhook, after, BATCH_SIZE)

    while waiting := instance.database.read(question):
        wanted = [event.id for event in waiting if _wants(webhook, event)]
        settled = [event.id for event in waiting if outgoing_events.is_settled(instance, event)]

        def write(connection: Connection, wanted: list[int] = wanted, settled: list[int] = settled) -> None:
            webhooks.enqueue(connection, webhook.id, wanted, now)
            if settled:
                webhooks.set_cursor(connection, webhook.id, max(settled))

        if wanted or settled:
            instance.database.write(write)
        count += len(wanted)
        after = waiting[-1].id
    return count


def _wants(webhook: Webhook, event: Event) -> bool:
    level = LEVELS.index(event.level) if event.level in LEVELS else 0
    return level >= LEVELS.index(webhook.level) and any(policy.matches(one, event.action) for one in webhook.actions)


@dataclass(frozen=True, slots=True)
class DueDeliveries:
    """What is to be sent to one webhook now, the longest waiting first; events: by id."""

    webhook: Webhook
    deliveries: tuple[Delivery, ...]
    events: Mapping[int, Event]


def claim(instance: Instance, busy: frozenset[int] = frozenset()) -> tuple[DueDeliveries, ...]:
    """The due deliveries, which no other process sends within LEASE; busy: ids of webhooks that are being sent to."""
    now = instance.now()
    if not instance.database.read(lambda connection: webhooks.due(connection, now, 1)):
        return ()

    def take(connection: Connection) -> tuple[DueDeliveries, ...]:
        due = [one for one in webhooks.due(connection, now, BATCH_SIZE) if one.webhook_id not in busy]
        for one in due:
            webhooks.change(connection, replace(one, next_at=now + LEASE))
        held = webhooks.by_ids(connection, [one.webhook_id for one in due])
        known = webhooks.events_by_ids(connection, [one.event_id for one in due if one.event_id is not None])
        return tuple(
            DueDeliveries(webhook, tuple(one for one in due if one.webhook_id == webhook.id), known)
            for webhook in held.values()
        )

    return instance.database.write(take)


def send(instance: Instance, due: DueDeliveries, post: Post) -> int:
    """Send what is due to one webhook, in order; after a failure the others wait. Answers how many were delivered."""
    secret = _held_secret(instance, due.webhook)
    delivered = 0
    down = False
    for one in due.deliveries:
        if down:
            later = replace(one, next_at=instance.now() + WAITS[0])
        else:
            later = _sent(instance, due, one, secret, post)
            down = later.state != DELIVERED
            delivered += not down
        instance.database.write(lambda connection, later=later: webhooks.change(connection, later))  # type: ignore[misc]
    return delivered


def forget_old(instance: Instance) -> None:
    """Delete deliveries that were sent, or given up, before KEPT."""
    before = instance.now() - KEPT
    # A piece at a time, so that other writes come between.
    while instance.database.write(lambda connection: webhooks.forget(connection, before, BATCH_SIZE)) == BATCH_SIZE:
        pass


def clear_deleted(instance: Instance) -> None:
    """Delete the deliveries of deleted webhooks."""
    for webhook_id in instance.database.read(webhooks.deleted):

        def piece(connection: Connection, webhook_id: int = webhook_id) -> int:
            return webhooks.clear(connection, webhook_id, CLEAR_BATCH_SIZE)

        # A piece at a time, as deleting a million at once would make all other writes wait.
        while instance.database.write(piece) == CLEAR_BATCH_SIZE:
            pass


def _sent(instance: Instance, due: DueDeliveries, one: Delivery, secret: str | None, post: Post) -> Delivery:
    """A delivery after one more attempt; secret: None where the stored one was changed in the database."""
    event = None if one.event_id is None else due.events.get(one.event_id)
    now = instance.now()
    if event is None and one.event_id is not None:
        return replace(one, state=FAILED, words="The event was deleted before it could be sent.")
    status: int | None = None
    words = DAMAGED
    if secret is not None:
        body = json.dumps(shown(instance, one, event), separators=(",", ":")).encode()
        status, words = _posted(due.webhook.url, one, body, str(int(now.timestamp())), secret, post)
    tried = replace(one, attempts=one.attempts + 1, status=status, words=words)
    if not words:
        return replace(tried, state=DELIVERED, delivered_at=now)
    if tried.attempts > len(WAITS):
        return replace(tried, state=FAILED)
    return replace(tried, next_at=now + WAITS[tried.attempts - 1])


def _posted(url: str, one: Delivery, body: bytes, stamp: str, secret: str, post: Post) -> tuple[int | None, str]:
    """The status of the answer, None for none, and what went wrong, "" for nothing. stamp: seconds since 1970."""
    headers = {
        "Content-Type": "application/json",
        "X-Keyrack-Delivery": str(one.id),
        "X-Keyrack-Timestamp": stamp,
        "X-Keyrack-Signature": f"sha256={sign(secret, stamp, body)}",
    }
    try:
        status = post(url, headers, body).status
    except NoHttpAnswer as error:
        return None, str(error)
    elsewhere = ", a redirect, which is not followed" if 300 <= status < 400 else ""
    return status, "" if 200 <= status < 300 else f"It answered {status}{elsewhere}."


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over timestamp, a point and body, in hexadecimal."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, "sha256").hexdigest()


def shown(instance: Instance, one: Delivery, event: Event | None) -> dict[str, Any]:
    """The JSON that is sent: the event, or None for a test, and the log's last checkpoint."""
    payload: dict[str, Any] = {"delivery": one.id, "webhook": one.webhook_id, "service": instance.settings.url}
    if (newest := instance.checkpoints.newest) is not None:
        payload["checkpoint"] = {"text": newest.text, "signature": newest.signature}
    if event is None:
        return {**payload, "type": "test", "event": None}
    return {**payload, "type": "event", "event": outgoing_events.fields(event)}


def _wanted(
    instance: Instance, actor: Actor, url: object, level: object, actions: Iterable[object]
) -> tuple[str, tuple[str, ...]]:
    """The checked address and patterns of a webhook. Raises Refusal FORBIDDEN or INVALID."""
    unread = policy.may(actor, LOG)
    if unread is not None:
        raise unread
    place = _url(instance, url)
    if level not in LEVELS:
        raise invalid("level", f"level takes one of {', '.join(LEVELS)}.")
    return place, policy.fitting(actions, field="actions", also=policy.OF_EVENTS_ALONE) or ("*",)


def _own(connection: Connection, actor: Actor, webhook_id: int) -> Webhook:
    webhook = webhooks.get(connection, actor.workspace_id, webhook_id)
    if webhook is None:
        raise missing("webhook")
    return webhook


def _context(workspace_id: int, url: str) -> str:
    """What a secret is encrypted for, so that nothing is signed for an address that was changed in the database."""
    return f"webhook {workspace_id} {url}"


def _held_secret(instance: Instance, webhook: Webhook) -> str | None:
    """The secret of a webhook, None where secret or address was changed in the database, not by Keyrack."""
    try:
        return instance.key.decrypt(webhook.encrypted_secret, _context(webhook.workspace_id, webhook.url))
    except InvalidTag:
        return None


def _host(url: str) -> str:
    return str(urlsplit(url).hostname)


def _secret(value: object) -> str:
    if not isinstance(value, str) or not SHORTEST_SECRET <= len(value) <= LONGEST_SECRET:
        raise invalid("secret", f"A secret has {SHORTEST_SECRET} to {LONGEST_SECRET} characters.")
    if not value.isascii() or not value.isprintable():
        raise invalid("secret", "A secret is written in printable ASCII.")
    return value


def _url(instance: Instance, url: object) -> str:
    # It may have a query: receivers put a token there.
    return outgoing_url(
        instance.settings,
        url,
        setting="webhook_networks",
        words="url takes the https address that events are sent to, such as https://alerts.example.org/keyrack.",
        plain_words="Over plain http they are sent to networks alone",
        longest=LONGEST_URL,
        query=True,
    )
