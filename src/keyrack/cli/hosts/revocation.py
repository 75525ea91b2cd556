"""`keyrack hosts revoke`, `revoked`, `receipts`: keys taken away everywhere, and who obeys; must hold no rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from keyrack.cli.changes import changed, changing, follow
from keyrack.cli.connection.calls import CallRefused, Calls, connected, connection_options, if_missing, path_to
from keyrack.cli.output import receipts
from keyrack.cli.output.ends import partly
from keyrack.cli.output.shown import say
from keyrack.cli.output.tables import as_json, as_json_object, dash, show_json, table
from keyrack.protocol.words import count

FORBIDDEN = 403


@click.command()
@click.argument("fingerprint", metavar="FINGERPRINT")
@click.option("--wait", type=click.IntRange(min=0), metavar="SECONDS", help="Wait until every host obeys.")
@click.option("--reason", "--why", "reason", metavar="TEXT", help="Why, for those who ask later.")
@click.option("--lift", is_flag=True, help="Allow a revoked key to be registered again.")
@changing
@connection_options
def revoke(
    fingerprint: str,
    wait: int | None,
    reason: str | None,
    lift: bool,
    dry_run: bool,
    json_wanted: bool,
    **given: Any,
) -> None:
    """Revoke a key everywhere.

    It shows which hosts refuse it. Nobody can register the key again until the revocation is lifted.

    With --wait it ends with status 3 if not all hosts refused it in time.
    """
    if lift and (wait is not None or reason is not None or dry_run):
        raise click.UsageError("--lift does not go with --wait, --reason or --dry-run; it lets nobody in by itself.")
    hint = "`keyrack hosts revoked` shows which are." if lift else "`ssh-keygen -lf FILE` prints a key's fingerprint."
    with connected(given) as calls, if_missing(hint):
        if lift:
            noted = calls.ask("POST", "/keys/lift", {"fingerprint": fingerprint})
            if json_wanted:
                show_json({"fingerprint": noted["fingerprint"], "lifted": True})
                return
            say(f"{noted['fingerprint']} may be registered again; hosts refuse it until somebody does.")
            return
        done = changed(calls, "POST", "/keys/revoke", {"fingerprint": fingerprint, "reason": reason}, dry_run=dry_run)
        if not json_wanted:
            if done["credentials"] or done["user_keys"] or done["repositories"]:
                what = (
                    f"{count(done['credentials'], 'credential')}, {count(done['user_keys'], 'user key')} and "
                    f"{count(done['repositories'], 'deploy key')}, on"
                )
            else:
                what = "nothing here has it any more; it is refused on"
            say(f"Revoked {done['fingerprint']}: {what} {count(len(done['revisions']), 'server')}.")
        followed = _follow(calls, fingerprint, wait) if done["revisions"] or json_wanted else None
        if followed is not None and json_wanted:
            gone = {name: done[name] for name in ("credentials", "user_keys", "repositories")}
            show_json({"fingerprint": done["fingerprint"], **gone, **_as_object(followed)})
        elif followed is not None:
            _show_receipts(followed)
        if followed is not None and not followed["done"] and wait is not None:
            raise partly()


@click.command(name="revoked")
@as_json
@connection_options
def list_revoked(json_wanted: bool, **given: Any) -> None:
    """List keys that were revoked everywhere.

    Nobody can register one of them again until `keyrack hosts revoke --lift FINGERPRINT`.
    """
    with connected(given) as calls:
        rows = [
            (one["fingerprint"], one["revoked_at"], one["revoked_by"], dash(one["reason"]))
            for one in calls.every("/keys/revoked")
        ]
        table(("FINGERPRINT", "AT", "BY", "REASON"), rows, json_wanted)


@click.command(name="receipts")
@click.argument("change", metavar="FINGERPRINT|EVENT_ID")
@as_json_object
@connection_options
def show_receipts(change: str, json_wanted: bool, **given: Any) -> None:
    """Show which hosts obey a change.

    The change is a revoked key, by fingerprint, or an event of the log.
    """
    hint = "Name a revoked key's fingerprint, or an event that `keyrack audit list` marks (receipts)."
    with connected(given) as calls, if_missing(hint):
        if change.isascii() and change.isdigit() and len(change) < 10:
            _show_receipts(calls.ask("GET", path_to("events", change, "receipts")), json_wanted)
        else:
            _show_receipts(_of_key(calls, change), json_wanted)


def _of_key(calls: Calls, fingerprint: str) -> Any:
    return calls.ask("GET", "/keys/receipts", query={"fingerprint": fingerprint})


def _follow(calls: Calls, fingerprint: str, wait: int | None) -> Any:
    """The receipts once every host obeys or `wait` seconds are over; None: as they are now, printing nothing."""

    def ask() -> Any:
        try:
            return _of_key(calls, fingerprint)
        except CallRefused as refused:
            # Somebody who may revoke keys need not be allowed to read servers.
            if refused.status != FORBIDDEN:
                raise
            raise click.ClickException(
                f"It is revoked. Which hosts refuse it is not shown: {refused.message}"
            ) from None

    return follow(ask, wait or 0, quiet=wait is None)


def _show_receipts(answer: Mapping[str, Any], json_wanted: bool = False) -> None:
    if json_wanted:
        show_json(_as_object(answer))
        return
    receipts.show(answer["servers"])
    say(answer["words"])


def _as_object(answer: Mapping[str, Any]) -> dict[str, object]:
    return {"done": answer["done"], "words": answer["words"], "servers": receipts.objects(answer["servers"])}
