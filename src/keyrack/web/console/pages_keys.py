"""A person's own public keys, and one key with every place that it opens; must hold no rule of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from keyrack.core import validation
from keyrack.core.keys import published_keys, receipts, rehearsal, revocation, user_keys, who_can
from keyrack.core.keys.who_can import Way
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import User, UserKey
from keyrack.ssh.public_key import parse
from keyrack.ssh.random_art import random_art
from keyrack.web.console.pages_live import of_hosts
from keyrack.web.console.visits import Visit, change, offset_of, page

PER_PAGE = 50
MOST_WAYS = 200
DATE = "date"
ENDS = (("", "never"), ("1h", "1 h"), ("12h", "12 h"), ("7d", "7 days"), (DATE, "a date"))


@dataclass(frozen=True, slots=True)
class Shown:
    """A key with what people tell it by, and where it opens at this moment. cut: there are more ways than these."""

    key: UserKey
    bits: int
    art: str
    ways: tuple[Way, ...] = ()
    cut: bool = False

    @property
    def last_used_at(self) -> datetime | None:
        """When it last logged in on any of those hosts."""
        return max((way.last_used_at for way in self.ways if way.last_used_at), default=None)

    def has_ended(self, now: datetime) -> bool:
        """Whether its end has come."""
        return self.key.expires_at is not None and self.key.expires_at <= now

    @property
    def waiting(self) -> tuple[str, ...]:
        """The hosts that have not said yet that they obey what is decided by now."""
        behind = {way.server.name for way in self.ways if way.server.applied_revision < way.server.revision}
        return tuple(sorted(behind))


def _shown(key: UserKey, ways: Iterable[Way] = (), *, cut: bool = False) -> Shown:
    if key.public_key is None or key.fingerprint is None or key.key_type is None:
        return Shown(key, 0, "")
    bits = parse(key.public_key).bits
    return Shown(key, bits, random_art(key.key_type, bits, key.fingerprint), tuple(ways), cut)


def _ways(visit: Visit, user: str) -> tuple[tuple[Way, ...], bool]:
    found = who_can.find(visit.instance, visit.actor, user=user, limit=MOST_WAYS)
    return found.items, found.next is not None


def keys(visit: Visit) -> Response:
    """One's own keys."""
    offset = offset_of(visit)
    found = user_keys.find(visit.instance, visit.actor, offset=offset, limit=PER_PAGE)
    ways, cut = _ways(visit, visit.actor.name) if found.items else ((), False)
    mine = [
        _shown(key, [way for way in ways if way.line.fingerprint == key.fingerprint], cut=cut) for key in found.items
    ]
    onward = offset + PER_PAGE
    return visit.show(
        "keys.html",
        keys=mine,
        adding="add" in visit.query or visit.refusal is not None,
        ends=ENDS,
        date=DATE,
        first="/keys" if offset else "",
        next=f"/keys?from={onward}" if found.total > onward else "",
    )


def check(visit: Visit) -> Response:
    """What a line is, as it is typed; nothing is kept."""
    text = visit.form.text("public_key")
    if not text.strip():
        return visit.show("_verdict.html", key=None, wrong=None, art="")
    try:
        key = validation.public_key(visit.instance, text)
    except Refusal as refusal:
        return visit.show("_verdict.html", key=None, wrong=refusal, art="")
    return visit.show("_verdict.html", key=key, wrong=None, art=random_art(key.type, key.bits, key.sha256))


def _end(visit: Visit) -> tuple[datetime | None, str | None]:
    """The end that a form names: an instant, or a span."""
    chosen = visit.form.text("ends")
    if chosen != DATE:
        return None, chosen or None
    try:
        at = datetime.fromisoformat(visit.form.text("until"))
        zone = timedelta(minutes=int(visit.form.text("zone", "0") or "0"))
        return (at + zone).replace(tzinfo=UTC), None
    except (ValueError, OverflowError):
        raise invalid("until", "Say on which day and at what time it ends.") from None


def add(visit: Visit) -> Response:
    """Register a key of one's own."""
    at, span = _end(visit)
    made = user_keys.add(
        visit.instance,
        visit.actor,
        title=visit.form.text("title"),
        public_key=visit.form.text("public_key"),
        expires_at=None if at is None else at.isoformat(),
        duration=span,
    )
    return visit.go(f"/keys/{made.fingerprint}", f"Your key {made.title} is registered.")


def _whose(visit: Visit) -> tuple[UserKey, User | None]:
    """The key that the path names: one's own, or with people:read anybody's. Raises Refusal MISSING."""
    fingerprint = visit.path["fingerprint"]
    offset = 0
    while True:
        mine = user_keys.find(visit.instance, visit.actor, offset=offset, limit=200)
        for key in mine.items:
            if key.fingerprint == fingerprint:
                return key, None
        offset += 200
        if offset >= mine.total:
            break
    if not visit.may("people:read"):
        raise missing("SSH key")
    return published_keys.by_fingerprint(visit.instance, visit.actor, fingerprint)


def key(visit: Visit) -> Response:
    """One key: where it opens and why, when it was used, how far hosts are."""
    found, whose = _whose(visit)
    ways, cut = _ways(visit, whose.name if whose else visit.actor.name)
    shown = _shown(found, [way for way in ways if way.line.fingerprint == found.fingerprint], cut=cut)
    if visit.is_part:
        return visit.show("_delivery.html", shown=shown)
    return visit.show("key.html", shown=shown, whose=whose, may_revoke=visit.may("keys:revoke"))


def remove(visit: Visit) -> Response:
    """Delete a key of one's own."""
    found, whose = _whose(visit)
    if whose is not None:
        raise missing("SSH key")
    gone = user_keys.delete(visit.instance, visit.actor, found.id)
    return visit.go("/keys", f"Your key {gone.title or gone.fingerprint} is removed; hosts are told at once.")


def revoking(visit: Visit) -> Response:
    """What revoking a key everywhere would take away."""
    fingerprint = visit.path["fingerprint"]
    done = rehearsal.rehearse(
        visit.instance,
        visit.actor,
        lambda instance: revocation.revoke_everywhere(instance, visit.actor, fingerprint),
    )
    return visit.show("revoke.html", fingerprint=fingerprint, done=done)


def revoke(visit: Visit) -> Response:
    """Revoke a key everywhere."""
    done = revocation.revoke_everywhere(
        visit.instance, visit.actor, visit.path["fingerprint"], reason=visit.form.text("reason")
    )
    hosts = f"{len(done.revisions)} host{'' if len(done.revisions) == 1 else 's'}"
    return visit.go(f"/revoked/{done.fingerprint}", f"The key is revoked; {hosts} must refuse it.")


def revoked(visit: Visit) -> Response:
    """How far a revocation has come, host by host."""
    fingerprint = visit.path["fingerprint"]
    try:
        found = receipts.of_key(visit.instance, visit.actor, fingerprint).of
    except Refusal as refusal:
        if refusal.kind is not Kind.MISSING:
            raise
        found = ()
    given: dict[str, Any] = {"fingerprint": fingerprint, "receipts": found, "obeyed": "refuses it"}
    return visit.show("_receipts.html" if visit.is_part else "revoked.html", **given, waiting=of_hosts(found))


PAGES = (
    page("/keys", keys, user_keys.READ),
    change("/keys", add, user_keys.ADD, again=keys),
    change("/keys/check", check, user_keys.ADD),
    page("/keys/{fingerprint:path}", key, user_keys.READ),
    change("/remove-key/{fingerprint:path}", remove, user_keys.DELETE),
    page("/revoke/{fingerprint:path}", revoking, "keys:revoke"),
    change("/revoke/{fingerprint:path}", revoke, "keys:revoke", again=revoking, dangerous=True),
    page("/revoked/{fingerprint:path}", revoked, "servers:read"),
)
