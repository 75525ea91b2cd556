"""A person's own public keys, and one key with every place that it opens; must hold no rule of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from keyrack.core import validation
from keyrack.core.git import repositories
from keyrack.core.hosts import sessions, status
from keyrack.core.instance import Instance
from keyrack.core.keys import (
    freezes,
    last_uses,
    published_keys,
    receipts,
    rehearsal,
    renewals,
    revocation,
    user_keys,
    who_can,
)
from keyrack.core.keys.who_can import Way
from keyrack.core.people import offboarding
from keyrack.errors import Kind, Refusal, missing
from keyrack.model import User, UserKey, has_ended
from keyrack.protocol.words import count
from keyrack.ssh.public_key import parse
from keyrack.ssh.random_art import random_art
from keyrack.store.keys.expired_keys import EndedKey
from keyrack.web import bodies
from keyrack.web.console import ends, templates
from keyrack.web.console.key_places import places_of
from keyrack.web.console.pages_live import hosts_awaited
from keyrack.web.console.visits import Asked, Visit, change, cursor_of, page, paged, rehearsed, unless_changed

PER_PAGE = 50
MAX_WAYS = 200
MAX_REPOSITORIES = 20
MAX_NAMED = 10
OPENS_NOTHING = "It opens no host at this moment."


@dataclass(frozen=True, slots=True)
class KeyCard:
    """A key with what people recognise it by, and where it opens at this moment. last_used_at: anywhere, over Git too;
    cut: there are more ways than these; frozen: the hosts on which it opens no new session until its owner confirms it.
    """

    key: UserKey
    bits: int
    art: str
    last_used_at: datetime | None = None
    ways: tuple[Way, ...] = ()
    cut: bool = False
    frozen: tuple[str, ...] = ()

    @property
    def hosts(self) -> str:
        """How many hosts it opens."""
        return self.counted(len({way.server.id for way in self.ways}))

    def counted(self, number: int) -> str:
        """So many hosts of those that are known here."""
        return ("at least " if self.cut else "") + count(number, "host")

    def has_ended(self, now: datetime) -> bool:
        """Whether its end has come."""
        return has_ended(self.key.expires_at, now)

    @property
    def waiting(self) -> tuple[str, ...]:
        """The hosts that have not said yet that they obey what is decided by now."""
        behind = {way.server.name for way in self.ways if way.server.is_behind}
        return tuple(sorted(behind))

    @property
    def shut(self) -> tuple[str, ...]:
        """The hosts whose sshd does not read Keyrack's keys, as they observe."""
        there = {way.server.name for way in self.ways if way.server.enrolled_at and not status.opens(way.server)}
        return tuple(sorted(there))


def _shown(key: UserKey, ways: who_can.Ways | None, used: Mapping[str, datetime]) -> KeyCard:
    """A key among all that its owner's keys open; used: when keys were last used, by fingerprint."""
    if key.public_key is None or key.fingerprint is None or key.key_type is None or ways is None:
        return KeyCard(key, 0, "")
    bits = parse(key.public_key).bits
    own = tuple(way for way in ways.items if way.reason.fingerprint == key.fingerprint)
    frozen = sorted({server.name for server, line in ways.frozen if line.fingerprint == key.fingerprint})
    art = random_art(key.key_type, bits, key.fingerprint)
    return KeyCard(key, bits, art, used.get(key.fingerprint), own, ways.next is not None, tuple(frozen))


def _card(visit: Visit, key: UserKey, whose: User | None) -> KeyCard:
    """One key with where it opens; whose: None for one of the visitor's."""
    user = whose.name if whose else visit.actor.name
    ways = who_can.find(visit.instance, visit.actor, user=user, fingerprint=key.fingerprint, limit=MAX_WAYS)
    return _shown(key, ways, last_uses.newest(visit.instance, visit.actor, [key]))


def keys(visit: Visit) -> Response:
    """One's own keys, and how far hosts are with one that was just removed."""
    gone = _receipts(visit)
    if visit.is_part:
        return visit.show("_removed.html", gone=gone)
    piece = user_keys.find(visit.instance, visit.actor, cursor=cursor_of(visit), limit=PER_PAGE)
    mine = _own(visit, piece.items)
    return visit.show(
        "keys.html",
        keys=mine,
        gone=gone,
        removed=_removed(visit),
        ended=_ended(visit, piece.items) if not cursor_of(visit) else (),
        adding="add" in visit.query or visit.refusal is not None,
        adds=visit.may(user_keys.ADD),
        ends=ends.ENDS,
        **paged(visit, piece),
    )


def _own(visit: Visit, keys: Sequence[UserKey]) -> list[KeyCard]:
    """The visitor's keys with where they open: on as many hosts as the page of one key tells."""
    if not keys:
        return []
    asked = visit.instance, visit.actor
    ways = who_can.find(*asked, user=visit.actor.name, limit=MAX_WAYS * len(keys))
    used = last_uses.newest(*asked, keys)
    return [_shown(key, ways, used) for key in keys]


def _removed(visit: Visit) -> int:
    """The key that was just removed, as the address says; 0 for none."""
    return bodies.identifier(visit.query.get("removed", ""))


def _receipts(visit: Visit) -> tuple[receipts.Receipt, ...]:
    """How far hosts are with that key."""
    removed = _removed(visit)
    return receipts.of_own_key(visit.instance, visit.actor, removed).of if removed else ()


def _ended(visit: Visit, keys: Iterable[UserKey]) -> list[EndedKey]:
    """The visitor's keys that are gone since their end came."""
    again = {key.fingerprint for key in keys}
    return [one for one in user_keys.ended(visit.instance, visit.actor) if one.fingerprint not in again]


def check(visit: Visit) -> Response:
    """Say, while somebody types, whether the line is a key that is accepted; nothing is kept."""
    public_key = visit.form.text("public_key")
    if not public_key.strip():
        return visit.show("_verdict.html", key=None, wrong=None, art="")
    try:
        key = validation.public_key(visit.instance, visit.actor.workspace_id, public_key)
    except Refusal as refusal:
        return visit.show("_verdict.html", key=None, wrong=refusal, art="")
    return visit.show("_verdict.html", key=key, wrong=None, art=random_art(key.type, key.bits, key.fingerprint))


def add(visit: Visit) -> Response:
    """Register a key of the visitor's."""
    made = user_keys.add(
        visit.instance,
        visit.actor,
        title=visit.form.text("title"),
        public_key=visit.form.text("public_key"),
        duration=ends.chosen(visit),
    )
    return visit.go(f"/keys/{made.fingerprint}", f"Your key {made.title} is registered.")


def _whose(visit: Visit) -> tuple[UserKey, User | None]:
    """The key that the path names: the visitor's own, or with people:read anybody's. Raises Refusal MISSING."""
    fingerprint = visit.path["fingerprint"]
    own = user_keys.with_fingerprint(visit.instance, visit.actor, fingerprint)
    if own is not None:
        return own, None
    if not visit.may("people:read"):
        raise missing("SSH key")
    return published_keys.by_fingerprint(visit.instance, visit.actor, fingerprint)


def key(visit: Visit) -> Response:
    """One key: where it opens and why, when it was used, how far hosts are."""
    try:
        own, whose = _whose(visit)
    except Refusal as refusal:
        if refusal.kind is not Kind.MISSING:
            raise
        return _of_nobody(visit, refusal)
    shown = _card(visit, own, whose)
    if visit.is_part:
        return visit.show("_delivery.html", shown=shown)
    renews = not shown.has_ended(visit.now) and visit.may("people:write" if whose else user_keys.ADD)
    place: dict[str, Any] = {"rail": visit.rail("/people")} if whose else {}
    return visit.show(
        "key.html",
        **place,
        shown=shown,
        whose=whose,
        may_revoke=visit.may("keys:revoke"),
        renews=renews,
        seen_end=ends.seen(own.expires_at),
        deletes=visit.may(user_keys.DELETE),
        spans=ends.ENDS[1:],
        repositories=_repositories(visit, whose),
    )


def _repositories(visit: Visit, whose: User | None) -> list[str]:
    """The paths of repositories that a person's keys open, the first MAX_REPOSITORIES of them."""
    if whose is not None:
        memberships = offboarding.holds(visit.instance, visit.actor, whose.name)["repositories"]
        return [one["path"] for one in memberships[:MAX_REPOSITORIES]]
    return [one.path for one in repositories.find(visit.instance, visit.actor, limit=MAX_REPOSITORIES).items]


def _of_nobody(visit: Visit, refusal: Refusal) -> Response:
    """A key that is no user's own: where it stands, or what became of it."""
    fingerprint = visit.path["fingerprint"]
    places = None if visit.is_part else places_of(visit, fingerprint)
    if places is None:
        return _gone(visit, refusal)
    rail, may_revoke = visit.rail("/hosts"), visit.may("keys:revoke")
    return visit.show("key_places.html", rail=rail, fingerprint=fingerprint, places=places, may_revoke=may_revoke)


def _gone(visit: Visit, refusal: Refusal) -> Response:
    """Says of a key that was there that it was revoked, that its end came, or that it was removed."""
    asked = visit.instance, visit.actor, visit.path["fingerprint"]
    revoked = user_keys.revoked_at(*asked)
    ended = None if revoked else user_keys.end_of(*asked)
    if visit.is_part:
        return visit.show("_gone.html", ended=ended, revoked=revoked)
    if revoked is not None:
        words = (
            f"This key was revoked everywhere on {templates.exact(revoked)}: every host refuses it. Make a new pair."
        )
    elif ended is not None:
        words = f"This key reached its end on {templates.exact(ended)}. It no longer opens anything."
    else:
        raise refusal
    raise Refusal(Kind.MISSING, refusal.code, words)


def renewing(visit: Visit) -> Asked:
    """What another end of a key does."""
    own, whose = _whose(visit)
    done = rehearsed(visit, partial(_renew, visit))
    opens = f"It opens {_card(visit, own, whose).hosts} at this moment; each is told, and ends it by itself."
    title = f"Another end for {own.title or templates.short_fingerprint(own.fingerprint or '')}?"
    return ends.asked(visit, title, own.expires_at, [opens], f"/keys/{quote(own.fingerprint or '')}", done)


def _renew(visit: Visit, instance: Instance) -> UserKey:
    own, whose = _whose(visit)
    visit = replace(visit, instance=instance)

    def seen(instance: Instance) -> str:
        return ends.seen(_whose(replace(visit, instance=instance))[0].expires_at)

    def set_end(instance: Instance) -> UserKey:
        return renewals.key(instance, visit.actor, own.id, duration=ends.chosen(visit))

    return unless_changed(visit, "people:write" if whose else user_keys.ADD, seen, set_end)


def renew(visit: Visit) -> Response:
    """Give a key another end."""
    made = _renew(visit, visit.instance)
    assert made.expires_at is not None
    words = f"The key {made.title or made.fingerprint} ends {templates.exact(made.expires_at)}."
    return visit.go(f"/keys/{made.fingerprint}", words)


def confirming(visit: Visit) -> Asked:
    """What confirming a frozen key of the visitor's does."""
    own, whose = _whose(visit)
    if whose is not None:
        raise missing("SSH key")
    frozen = _card(visit, own, None).frozen
    words = [
        f"It opens sessions again on {templates.few(frozen, MAX_NAMED)}."
        if frozen
        else ("It opens repositories again." if own.frozen else "It is no longer frozen anywhere."),
        f"Whoever holds it gets in: compare {own.fingerprint} with the fingerprint of the key that you have.",
    ]
    title = f"Is {own.title or 'this key'} in your hands alone?"
    return Asked(title, words, "It is mine, and safe", f"/keys/{quote(own.fingerprint or '')}", takes=False)


def confirm(visit: Visit) -> Response:
    """Say that a key of the visitor's, which was frozen, is safe."""
    own, whose = _whose(visit)
    if whose is not None:
        raise missing("SSH key")
    freezes.confirm_key(visit.instance, visit.actor, own.id)
    return visit.go(f"/keys/{own.fingerprint}", "You confirmed the key; hosts let it in again from now on.")


def removing(visit: Visit) -> Asked:
    """What deleting a key of the visitor's does."""
    own, whose = _whose(visit)
    if whose is not None:
        raise missing("SSH key")
    card = _card(visit, own, None)
    hosts = sorted({way.server.name for way in card.ways})
    opened = f"It opens {card.hosts} for you: {templates.few(hosts, MAX_NAMED)}." if hosts else OPENS_NOTHING
    words = "Every host and repository is told at once, and sessions that it opened end. You may register it again."
    button = f"Remove this key from {card.hosts}" if hosts else "Remove this key"
    title = f"Remove your key {own.title or templates.short_fingerprint(own.fingerprint or '')}?"
    return Asked(title, [opened, words], button, f"/keys/{quote(own.fingerprint or '')}")


def remove(visit: Visit) -> Response:
    """Delete a key of the visitor's."""
    own, whose = _whose(visit)
    if whose is not None:
        raise missing("SSH key")
    gone = user_keys.delete(visit.instance, visit.actor, own.id)
    return visit.go(
        f"/keys?removed={gone.id}", f"Your key {gone.title or gone.fingerprint} is removed; hosts are told at once."
    )


def revoking(visit: Visit) -> Response:
    """What revoking a key everywhere would take away."""
    fingerprint = visit.path["fingerprint"]
    done = rehearsal.rehearse(
        visit.instance,
        visit.actor,
        lambda instance: revocation.revoke_everywhere(instance, visit.actor, fingerprint),
    )
    opened = sessions.of_key(visit.instance, visit.actor, fingerprint) if visit.may("sessions:read") else ()
    owner = None
    if done.answer.user_keys:
        # Who may revoke a key need not be allowed to see whose it is.
        with suppress(Refusal):
            owner = (_whose(visit)[1] or visit.actor).name
    return visit.show("revoke.html", fingerprint=fingerprint, done=done, owner=owner, sessions=opened)


def revoke(visit: Visit) -> Response:
    """Revoke a key everywhere."""
    done = revocation.revoke_everywhere(
        visit.instance, visit.actor, visit.path["fingerprint"], reason=visit.form.text("reason")
    )
    hosts = count(len(done.revisions), "host")
    return visit.go(f"/revoked/{done.fingerprint}", f"The key is revoked; {hosts} must refuse it.")


def revoked(visit: Visit) -> Response:
    """How far a revocation has come, host by host."""
    fingerprint = visit.path["fingerprint"]
    noted = revocation.noted(visit.instance, visit.actor, fingerprint) if visit.may("credentials:read") else None
    try:
        of_hosts = receipts.of_key(visit.instance, visit.actor, fingerprint).of
    except Refusal as refusal:
        # A key that no host had is revoked all the same.
        if refusal.kind is not Kind.MISSING or (noted is None and visit.may("credentials:read")):
            raise
        of_hosts = ()
    given: dict[str, Any] = {"fingerprint": fingerprint, "receipts": of_hosts, "obeyed": "refuses it"}
    if visit.is_part:
        return visit.show("_receipts.html", **given)
    return visit.show("revoked.html", **given, noted=noted, waiting=hosts_awaited(of_hosts))


def lifting(visit: Visit) -> Asked:
    """What lifting a revocation does."""
    fingerprint = visit.path["fingerprint"]
    words = "It may be registered again. That alone opens nothing: hosts refuse it until somebody registers it."
    title = f"Lift the revocation of {templates.short_fingerprint(fingerprint)}?"
    return Asked(title, [words], "Let it be registered again", f"/revoked/{quote(fingerprint)}")


def lift(visit: Visit) -> Response:
    """Let a key that was revoked everywhere be registered again."""
    gone = revocation.lift(visit.instance, visit.actor, visit.path["fingerprint"])
    return visit.go(
        f"/revoked/{quote(gone.fingerprint)}", "The key may be registered again; until then it opens nothing."
    )


PAGES = (
    page("/keys", keys, user_keys.READ),
    change("/keys", add, user_keys.ADD, again=keys, undo="/remove-key/{fingerprint:path}"),
    change("/keys/check", check, user_keys.ADD, keeps=False),
    page("/keys/{fingerprint:path}", key, user_keys.READ),
    change("/renew-key/{fingerprint:path}", renew, user_keys.ADD, again=key, asks=renewing),
    change("/confirm-key/{fingerprint:path}", confirm, user_keys.ADD, again=key, asks=confirming),
    change("/remove-key/{fingerprint:path}", remove, user_keys.DELETE, asks=removing),
    page("/revoke/{fingerprint:path}", revoking, "keys:revoke"),
    change(
        "/revoke/{fingerprint:path}",
        revoke,
        "keys:revoke",
        again=revoking,
        dangerous=True,
        preview="/revoke/{fingerprint:path}",
    ),
    page("/revoked/{fingerprint:path}", revoked, "servers:read"),
    change("/lift/{fingerprint:path}", lift, "keys:revoke", asks=lifting, dangerous=True),
)
