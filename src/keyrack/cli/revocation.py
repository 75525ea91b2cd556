"""`keyrack hosts revoke`, `revoked`, `receipts`: keys taken away everywhere, and who obeys; must hold no rule."""

from __future__ import annotations

import time
from typing import Any

import click

from keyrack.cli.ends import partly
from keyrack.cli.operator_context import OperatorContext, known_id, operator_context, shared
from keyrack.cli.shown import say
from keyrack.cli.spans import moment
from keyrack.cli.tables import AT_ONCE, as_json, as_json_object, every, objects, show_json, table
from keyrack.core.keys import receipts, revocation
from keyrack.core.keys.receipts import Receipts

LOOK_SECONDS = 0.5
_TITLES = ("SERVER", "WANTED", "APPLIED", "DONE AT")


@click.command()
@click.argument("fingerprint", metavar="FINGERPRINT")
@click.option("--wait", type=click.IntRange(min=0), metavar="SECONDS", help="Wait until every host obeys.")
@click.option("--reason", metavar="TEXT", help="Why, for those who ask later.")
@click.option("--lift", is_flag=True, help="Let a key that was revoked be registered again.")
@as_json_object
@shared
def revoke(fingerprint: str, wait: int | None, reason: str | None, lift: bool, json_wanted: bool, **given: Any) -> None:
    """Revoke a key everywhere.

    It shows which hosts refuse it. Nobody can register the key again until it is lifted.

    With --wait it ends with status 3 when not all hosts said in time that they refuse it.
    """
    if lift and (wait is not None or reason is not None):
        raise click.UsageError("--lift takes neither --wait nor --reason.")
    hint = f"It may be revoked already: keyrack hosts receipts {fingerprint}"
    if lift:
        hint = "`keyrack hosts revoked` shows which are."
    with operator_context(given) as at, known_id(hint):
        if lift:
            noted = revocation.lift(at.instance, at.actor, fingerprint)
            if json_wanted:
                show_json({"fingerprint": noted.fingerprint, "lifted": True})
                return
            say(f"{noted.fingerprint} may be registered again; hosts refuse it until somebody does.")
            return
        done = revocation.revoke_everywhere(at.instance, at.actor, fingerprint, reason=reason)
        if not json_wanted:
            say(
                f"Revoked {done.fingerprint}: {done.credentials} credentials, {done.user_keys} user keys and "
                f"{done.repositories} deploy keys, on {len(done.revisions)} servers."
            )
        told = _follow(at, fingerprint, wait) if done.revisions or json_wanted else None
        if told is not None and json_wanted:
            gone = {"credentials": done.credentials, "user_keys": done.user_keys, "repositories": done.repositories}
            show_json({"fingerprint": done.fingerprint, **gone, **_as_object(told)})
        elif told is not None:
            _show_receipts(told)
        if told is not None and not told.done and wait is not None:
            raise partly()


@click.command(name="revoked")
@as_json
@shared
def list_revoked(json_wanted: bool, **given: Any) -> None:
    """List keys that were revoked everywhere.

    Nobody can register one of them again until `keyrack hosts revoke --lift FINGERPRINT`.
    """
    with operator_context(given) as at:
        found = every(lambda offset: revocation.find(at.instance, at.actor, offset=offset, limit=AT_ONCE))
        rows = [(one.fingerprint, moment(one.revoked_at), one.revoked_by, one.reason or "-") for one in found]
        table(("FINGERPRINT", "AT", "BY", "REASON"), rows, json_wanted)


@click.command(name="receipts")
@click.argument("change", metavar="FINGERPRINT|EVENT_ID")
@as_json_object
@shared
def show_receipts(change: str, json_wanted: bool, **given: Any) -> None:
    """Show which hosts obey a change.

    The change is a revoked key, by fingerprint, or an event of the log.
    """
    hint = "Name a revoked key's fingerprint, or an event that `keyrack hosts events` lists."
    with operator_context(given) as at, known_id(hint):
        if change.isascii() and change.isdigit() and len(change) < 10:
            _show_receipts(receipts.of_event(at.instance, at.actor, int(change)), json_wanted)
        else:
            _show_receipts(receipts.of_key(at.instance, at.actor, change), json_wanted)


def _follow(at: OperatorContext, fingerprint: str, wait: int | None) -> Receipts:
    """The receipts once every host obeys or the time is over; each change of them is told meanwhile."""
    deadline = time.monotonic() + (wait or 0)
    said = ""
    while True:
        now = receipts.of_key(at.instance, at.actor, fingerprint)
        if now.words != said and wait is not None:
            said = now.words
            say(now.words, err=True)
        if now.done or time.monotonic() >= deadline:
            return now
        time.sleep(LOOK_SECONDS)


def _show_receipts(found: Receipts, json_wanted: bool = False) -> None:
    if json_wanted:
        show_json(_as_object(found))
        return
    table(_TITLES, _rows(found))
    say(found.words)


def _as_object(found: Receipts) -> dict[str, object]:
    return {"done": found.done, "words": found.words, "servers": objects(_TITLES, _rows(found))}


def _rows(found: Receipts) -> list[tuple[object, ...]]:
    return [(one.server_name, one.wanted, one.applied, moment(one.at if one.done else None)) for one in found.of]
