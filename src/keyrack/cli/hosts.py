"""`keyrack hosts …`: what an operator sees of hosts and tells them; must hold no rule, the core has them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from keyrack.cli import options
from keyrack.cli.opened import opened, workspace_named
from keyrack.cli.operator import operator
from keyrack.cli.shown import say
from keyrack.cli.spans import ago, moment, seconds_of
from keyrack.core.audit import events
from keyrack.core.hosts import deleted_servers, modes, resync, servers, sessions, status, unmanaged_keys
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, last_uses, receipts, revocation
from keyrack.core.keys import damaged_rows as damaged
from keyrack.core.keys.receipts import Receipts
from keyrack.core.people import users
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Event, Page, Server, UnmanagedKey
from keyrack.ssh.printable import printable

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

AT_ONCE = 500
LOOK_SECONDS = 0.5
ID = click.IntRange(1, 2**31 - 1)
HELD_WORDS = {
    "line": "held back",
    "revoked": "stays revoked",
    "lost": "lost",
    "account": "left as it is",
}


@click.group(name="hosts")
def command() -> None:
    """Hosts as the operator of this instance sees and steers them.

    SERVER is a name or an id. Everything here is also in the API: docs/api/keyrack.md.
    """


@dataclass(frozen=True, slots=True)
class OperatorContext:
    """The opened instance and who acts on it."""

    instance: Instance
    actor: Actor

    def server(self, reference: str) -> Server:
        """The server that is meant; exits with words when there is none."""
        try:
            return servers.named(self.instance, self.actor, reference)
        except Refusal as refusal:
            if refusal.kind is not Kind.MISSING:
                raise
            raise click.ClickException(
                f"There is no server {reference!r}; `keyrack hosts list` shows which there are."
            ) from None


def shared(function: F) -> F:
    """The options that every command of this group takes."""
    workspace = click.option("--workspace", metavar="NAME", help="Whose hosts; needed where there are several.")
    return workspace(options.data(options.database(function)))


as_json = click.option("--json", "json_wanted", is_flag=True, help="For programs: a JSON list of objects.")


@contextmanager
def operator_context(given: dict[str, Any]) -> Iterator[OperatorContext]:
    """Open the instance and act as whoever runs this, in the workspace that is meant."""
    name = given.pop("workspace")
    with opened(given) as instance:
        yield OperatorContext(
            instance, users.system_actor(workspace_named(instance, name).id, channel="cli", like=operator())
        )


@command.command(name="list")
@click.option("--deleted", is_flag=True, help="Deleted servers instead, and whether their hosts have obeyed that.")
@as_json
@shared
def list_hosts(deleted: bool, json_wanted: bool, **given: Any) -> None:
    """List hosts and how each is held.

    APPLIED is the revision applied of the one wanted; FOUND counts keys found by hand that nobody decided on.
    """
    with operator_context(given) as at:
        if deleted:
            gone = every(lambda offset: deleted_servers.find(at.instance, at.actor, offset=offset, limit=AT_ONCE))
            told = [
                (one.id, one.name, one.address, moment(one.deleted_at), one.deleted_by, moment(one.acknowledged_at))
                for one in gone
            ]
            table(("ID", "NAME", "ADDRESS", "DELETED", "BY", "OBEYED"), told, json_wanted)
            return
        found = unmanaged_keys.counts(at.instance, at.actor)
        rows = []
        for server in every(lambda offset: servers.find(at.instance, at.actor, offset=offset, limit=AT_ONCE)):
            held = status.of(at.instance, server)
            revisions = f"{held.applied}/{held.wanted}"
            heard = ago(at.instance, held.seen_at)
            rows.append((server.id, server.name, held.mode, held.state, revisions, heard, found.get(server.id, 0)))
        table(("ID", "NAME", "MODE", "STATE", "APPLIED", "HEARD", "FOUND"), rows, json_wanted)


@command.command()
@click.argument("reference", metavar="SERVER")
@shared
def show(reference: str, **given: Any) -> None:
    """Show how one host is held."""
    with operator_context(given) as at:
        server = at.server(reference)
        held = status.of(at.instance, server)
        applied = f"{held.applied} since {moment(held.applied_at)}" if held.applied_at else "none"
        facts = (
            ("server", f"{server.name} (id {server.id}, {server.address})"),
            ("tags", ", ".join(server.tags) or "none"),
            ("mode", held.mode),
            ("state", held.state),
            ("host says", held.enforcement or "nothing yet"),
            ("undone", held.undone),
            ("revision", f"wanted {held.wanted}, applied {applied}"),
            ("last heard", moment(held.seen_at)),
            ("when silent", held.offline_words),
            ("agent", server.agent_version or "none"),
            ("system", " ".join(filter(None, (server.os, server.os_version))) or "unknown"),
        )
        for name, value in facts:
            if value:
                say(f"{name:<12} {value}")
        for problem in held.problems:
            say(f"{'problem':<12} {problem}")
        if server.enrolled_at is None:
            say(f"Enrol it: keyrack hosts enrol {server.id}", err=True)


@command.command()
@click.argument("reference", metavar="SERVER")
@click.option("--all", "everything", is_flag=True, help="Also what was accepted, ignored, or is gone.")
@as_json
@shared
def found(reference: str, everything: bool, json_wanted: bool, **given: Any) -> None:
    """List keys that a host found and Keyrack did not put there."""
    states = unmanaged_keys.STATES if everything else unmanaged_keys.OPEN
    with operator_context(given) as at:
        server = at.server(reference)
        known = every(
            lambda offset: unmanaged_keys.find(
                at.instance, at.actor, server.id, states=states, offset=offset, limit=AT_ONCE
            )
        )
        rows = [_found_row(one) for one in known]
        table(("ID", "STATE", "ACCOUNT", "OWNER", "WHAT", "OPTIONS", "WHERE", "IN FORCE"), rows, json_wanted)


@command.command()
@click.argument("reference", metavar="SERVER")
@click.argument("found_id", metavar="ID", type=ID)
@click.option("--label", help="What to call it; otherwise its comment or fingerprint.")
@click.option("--username", metavar="ACCOUNT", help="For which account, where the key counts for every one.")
@shared
def accept(reference: str, found_id: int, label: str | None, username: str | None, **given: Any) -> None:
    """Make an unmanaged key a credential.

    Its restrictions and its end are kept.
    """
    with (
        operator_context(given) as at,
        known_id(f"`keyrack hosts unmanaged {reference} --all` shows which unmanaged keys there are."),
    ):
        made = unmanaged_keys.accept(
            at.instance, at.actor, at.server(reference).id, found_id, label=label, username=username
        )
        say(f"Accepted {made.fingerprint} as SSH key {made.label} (id {made.id}) for {made.username}.")


@command.command()
@click.argument("reference", metavar="SERVER")
@click.argument("found_id", metavar="ID", type=ID)
@shared
def ignore(reference: str, found_id: int, **given: Any) -> None:
    """Let an unmanaged key be where it is, and speak of it no more."""
    with (
        operator_context(given) as at,
        known_id(f"`keyrack hosts unmanaged {reference} --all` shows which unmanaged keys there are."),
    ):
        one = unmanaged_keys.ignore(at.instance, at.actor, at.server(reference).id, found_id)
        say(f"Ignored {one.fingerprint or one.kind} in {one.path}.")


@command.command()
@click.argument("reference", metavar="SERVER")
@click.argument("found_id", metavar="ID", type=ID)
@shared
def remove(reference: str, found_id: int, **given: Any) -> None:
    """Have the host take an unmanaged key out of its file."""
    with (
        operator_context(given) as at,
        known_id(f"`keyrack hosts unmanaged {reference} --all` shows which unmanaged keys there are."),
    ):
        one = unmanaged_keys.remove(at.instance, at.actor, at.server(reference).id, found_id)
        say(f"Asked to remove {one.fingerprint} from {one.path}; it is listed until the host did it.")


@command.command()
@click.argument("reference", metavar="SERVER")
@shared
def observe(reference: str, **given: Any) -> None:
    """Have a host report who gets in, and change nothing about it."""
    _set_mode(reference, "observe", given)


@command.command()
@click.argument("reference", metavar="SERVER")
@shared
def enforce(reference: str, **given: Any) -> None:
    """Have Keyrack's keys alone open a host.

    The host tries for a minute, and undoes it when it does not work.
    """
    _set_mode(reference, "enforce", given)


@command.command()
@click.argument("reference", metavar="[SERVER]", required=False)
@click.option("--tag", help="All servers that have this tag now, instead of one.")
@click.option("--after", required=True, metavar="TIME", help="Such as 90s, 30m, 1h, 7d; 0 for never.")
@click.option("--then", required=True, metavar="keep|drop-temporary|drop-all", help="What the host does then.")
@shared
def stale(reference: str | None, tag: str | None, after: str, then: str, **given: Any) -> None:
    """Set what hosts do while the service is silent."""
    if (reference is None) == (tag is None):
        raise click.UsageError("Name one SERVER, or several with --tag.")
    seconds = seconds_of(after)
    with operator_context(given) as at:
        server_id = None if reference is None else at.server(reference).id
        changed = modes.set_staleness(
            at.instance, at.actor, after_seconds=seconds, then=then, server_id=server_id, tag=tag
        )
        for server in changed:
            say(f"{server.name}: {status.of(at.instance, server).offline_words}")


@command.command()
@click.argument("fingerprint", metavar="FINGERPRINT")
@click.option("--wait", type=click.IntRange(min=0), metavar="SECONDS", help="Wait until every host obeys.")
@click.option("--reason", metavar="TEXT", help="Why, for those who ask later.")
@click.option("--lift", is_flag=True, help="Let a key that was revoked be registered again.")
@shared
def revoke(fingerprint: str, wait: int | None, reason: str | None, lift: bool, **given: Any) -> None:
    """Take a key away from everywhere.

    It shows which hosts refuse it. Nobody can register the key again until it is lifted.

    With --wait it ends with status 1 when not all hosts said in time that they refuse it.
    """
    if lift and (wait is not None or reason is not None):
        raise click.UsageError("--lift takes neither --wait nor --reason.")
    hint = f"It may be revoked already: keyrack hosts receipts {fingerprint}"
    if lift:
        hint = "`keyrack hosts revoked` shows which are."
    with operator_context(given) as at, known_id(hint):
        if lift:
            noted = revocation.lift(at.instance, at.actor, fingerprint)
            say(f"{noted.fingerprint} may be registered again; hosts refuse it until somebody does.")
            return
        done = revocation.revoke_everywhere(at.instance, at.actor, fingerprint, reason=reason)
        say(
            f"Revoked {done.fingerprint}: {done.credentials} credentials, {done.user_keys} user keys and "
            f"{done.repositories} deploy keys, on {len(done.revisions)} servers."
        )
        if done.revisions and not _follow(at, fingerprint, wait) and wait is not None:
            raise SystemExit(1)


@command.command(name="resync")
@click.argument("reference", metavar="[SERVER]", required=False)
@click.option("--all", "everything", is_flag=True, help="Every server whose host knows more than the database.")
@click.option("--let-in", multiple=True, metavar="FINGERPRINT", help="Let this key in again; may be given repeatedly.")
@click.option("--accept-database", is_flag=True, help="Hold nothing back: what the database says counts.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@shared
def resync_hosts(
    reference: str | None,
    everything: bool,
    let_in: tuple[str, ...],
    accept_database: bool,
    yes: bool,
    **given: Any,
) -> None:
    """Decide on hosts that know more than the database, as it went back.

    It shows what the host refused and the database would let in, and what the host had and the database lost. What
    was refused stays refused, unless you say otherwise.
    """
    if (reference is None) != everything:
        raise click.UsageError("Name one SERVER, or --all.")
    with operator_context(given) as at:
        chosen = resync.waiting(at.instance, at.actor) if reference is None else (at.server(reference),)
        if not chosen:
            say("No host knows more than the database.")
        for server in chosen:
            _resync(at, server, let_in, accept_database, yes)


def _resync(at: OperatorContext, server: Server, let_in: tuple[str, ...], accept_database: bool, yes: bool) -> None:
    found = resync.difference(at.instance, at.actor, server.id)
    if not found.undecided and not found.held:
        say(f"{server.name}: its host knows nothing that the database does not know.")
        return
    if found.asked and not accept_database:
        say(f"{server.name}: its host has not yet told what it obeyed; nothing new reaches it until then.")
        return
    rows = [
        (
            HELD_WORDS[row.kind],
            row.username or "-",
            row.fingerprint or "-",
            " ".join(row.options) or "-",
            row.name or "-",
        )
        for row in found.held
    ]
    say(f"{server.name}:")
    table(("WHAT", "ACCOUNT", "FINGERPRINT", "OPTIONS", "NAME"), rows)
    if not found.undecided and not let_in and not accept_database:
        say("Decided; --let-in FINGERPRINT or --accept-database changes that.")
        return
    mine = tuple(one for one in let_in if any(row.fingerprint == one for row in found.held))
    if let_in and not mine and not accept_database:
        say(f"{server.name}: none of these keys is held back here.")
        return
    aim = "Let in what the database says" if accept_database else "Keep refused what is not named by --let-in"
    if not yes and not click.confirm(f"{aim}?"):
        raise click.ClickException("Nothing was decided.")
    resync.decide(at.instance, at.actor, server.id, let_in=mine, accept_database=accept_database)
    say(f"Decided for {server.name}.")


@command.command(name="revoked")
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


@command.command(name="damaged")
@click.argument("reference", metavar="[SERVER]", required=False)
@click.option("--remove", "name", metavar="KIND:ID", help="Remove this row; its key is refused from then on.")
@click.option("--reseal", "again", multiple=True, metavar="KIND:ID", help="Let this row (or: all) count as it stands.")
@as_json
@shared
def damaged_rows(reference: str | None, name: str | None, again: Any, json_wanted: bool, **given: Any) -> None:
    """List rows that are not as Keyrack wrote them and open nothing, remove one, or let it count as it stands."""
    with operator_context(given) as at:
        if again:
            for row in damaged.reseal(at.instance, at.actor, again):
                say(f"Sealed {row.name} as it stands: {row.what}.")
            return
        if name is not None:
            gone = damaged.remove(at.instance, at.actor, name)
            say(f"Removed {gone.name}: {gone.what}.")
            return
        server_id = None if reference is None else at.server(reference).id
        rows = [(row.name, row.what) for row in damaged.find(at.instance, at.actor, server_id)]
        table(("ROW", "WHAT IT SAYS NOW"), rows, json_wanted)


@command.command(name="receipts")
@click.argument("change", metavar="FINGERPRINT|EVENT_ID")
@shared
def show_receipts(change: str, **given: Any) -> None:
    """Show which hosts obey a change.

    The change is a revoked key, by fingerprint, or an event of the log.
    """
    hint = "Name a revoked key's fingerprint, or an event that `keyrack hosts events` lists."
    with operator_context(given) as at, known_id(hint):
        if change.isascii() and change.isdigit() and len(change) < 10:
            _show_receipts(receipts.of_event(at.instance, at.actor, int(change)))
        else:
            _show_receipts(receipts.of_key(at.instance, at.actor, change))


@command.command(name="events")
@click.argument("reference", metavar="[SERVER]", required=False)
@click.option("--from", "since", metavar="TIME", help="Such as 2026-11-22T16:00:00Z, or 2026-11-22, a day in UTC.")
@click.option("--to", "until", metavar="TIME", help="Before that time, or up to the end of that day.")
@click.option("--search", default="", metavar="TEXT", help="Only what holds TEXT, in any case.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=0), help="How many at most; 0 for all.")
@as_json
@shared
def show_events(
    reference: str | None,
    since: str | None,
    until: str | None,
    search: str,
    limit: int,
    json_wanted: bool,
    **given: Any,
) -> None:
    """List the audit log, or a server's part of it, newest first."""
    with operator_context(given) as at:
        asked: dict[str, Any] = {
            "server_id": None if reference is None else at.server(reference).id,
            "since": None if since is None else events.moment(since, field="from"),
            "until": None if until is None else events.moment(until, field="to", end=True),
            "search": search,
        }
        found = _events(at, asked, limit)
        if json_wanted:
            click.echo(json.dumps([_event_json(one) for one in found], indent=1))
            return
        rows = [(one.id, moment(one.at), one.actor_name or "-", one.summary) for one in found]
        table(("ID", "AT", "WHO", "WHAT"), rows)


def _events(at: OperatorContext, asked: dict[str, Any], limit: int) -> Iterator[Event]:
    """The events asked for, newest first, at most so many; 0: all."""
    before, left = None, limit
    while True:
        piece = AT_ONCE if limit == 0 else min(AT_ONCE, left)
        page = events.find(at.instance, at.actor, **asked, before=before, limit=piece)
        yield from page.items
        left -= len(page.items)
        if len(page.items) < piece or (limit and left == 0):
            return
        before = page.items[-1].id


def _event_json(one: Event) -> dict[str, object]:
    return {
        "id": one.id,
        "at": moment(one.at),
        "actor": one.actor_name,
        "token": one.token_name,
        "address": one.address,
        "channel": one.channel,
        "action": one.action,
        "outcome": one.outcome,
        "reason": one.reason,
        "server_id": one.server_id,
        "summary": one.summary,
        "level": one.level,
    }


@command.command(name="keys")
@click.argument("reference", metavar="SERVER")
@as_json
@shared
def list_keys(reference: str, json_wanted: bool, **given: Any) -> None:
    """List the keys that Keyrack put on a host, each with its end and its last use."""
    with operator_context(given) as at:
        server = at.server(reference)
        found = list(
            every(lambda offset: credentials.find(at.instance, at.actor, server.id, offset=offset, limit=AT_ONCE))
        )
        used = last_uses.on_server(at.instance, at.actor, server.id, [one.fingerprint for one in found])
        rows = []
        for one in found:
            last = used.get(one.fingerprint, ())
            seen = f"{moment(last[0].at)} from {last[0].address}" if last else "-"
            limits = ", ".join(sorted(one.restrictions)) or "-"
            rows.append((one.id, one.label, one.username, one.fingerprint, moment(one.expires_at), limits, seen))
        table(("ID", "LABEL", "ACCOUNT", "FINGERPRINT", "END", "RESTRICTIONS", "LAST USED"), rows, json_wanted)


@command.command(name="sessions")
@click.argument("reference", metavar="SERVER")
@as_json
@shared
def list_sessions(reference: str, json_wanted: bool, **given: Any) -> None:
    """List who is logged in on a host."""
    with operator_context(given) as at:
        server = at.server(reference)
        rows = [
            (one.id, one.username, one.address, moment(one.started_at), one.label or "-", one.fingerprint or "-")
            + (("ending",) if one.ending else ("open",))
            for one in every(
                lambda offset: sessions.find(at.instance, at.actor, server.id, offset=offset, limit=AT_ONCE)
            )
        ]
        table(("ID", "ACCOUNT", "FROM", "SINCE", "KEY", "FINGERPRINT", "STATE"), rows, json_wanted)


@command.command(name="end-session")
@click.argument("reference", metavar="SERVER")
@click.argument("session_id", metavar="ID", type=ID)
@shared
def end_session(reference: str, session_id: int, **given: Any) -> None:
    """Have a host end a login."""
    with operator_context(given) as at, known_id(f"`keyrack hosts sessions {reference}` shows who is in."):
        one = sessions.end(at.instance, at.actor, at.server(reference).id, session_id)
        say(f"Asked to end the session of {one.username} from {one.address}.")


@command.command()
@click.argument("reference", metavar="SERVER")
@options.public_url
@shared
def enrol(reference: str, **given: Any) -> None:
    """Print the line that enrols a host.

    For root to paste there; its token works once, for 24 hours.

    The line names the service's address: give --public-url, or set it where `keyrack serve` reads it.
    """
    with operator_context(given) as at:
        say(servers.installation_line(at.instance, at.actor, at.server(reference).id))


def _set_mode(reference: str, mode: str, given: dict[str, Any]) -> None:
    with operator_context(given) as at:
        server = modes.set_mode(at.instance, at.actor, at.server(reference).id, mode)
        say(f"{server.name} is to {server.mode}, with revision {server.revision}.")
        say(f"See what the host says: keyrack hosts show {server.id}", err=True)


def _found_row(one: UnmanagedKey) -> tuple[object, ...]:
    what = f"{one.fingerprint} {one.comment}".strip() if one.fingerprint else one.kind
    where = f"{one.path}:{one.line}" if one.line else one.path
    force = "yes" if one.in_force else "no"
    options_shown = one.options or one.problem or "-"
    return one.id, one.state, one.username, one.owner or "-", what, options_shown, where, force


def _follow(at: OperatorContext, fingerprint: str, wait: int | None) -> bool:
    """Show the receipts, and each change of them while there is time; whether every host obeys."""
    deadline = time.monotonic() + (wait or 0)
    said = ""
    while True:
        now = receipts.of_key(at.instance, at.actor, fingerprint)
        if now.words != said and wait is not None:
            said = now.words
            say(now.words, err=True)
        if now.done or time.monotonic() >= deadline:
            _show_receipts(now)
            return now.done
        time.sleep(LOOK_SECONDS)


def _show_receipts(found: Receipts) -> None:
    rows = [(one.server_name, one.wanted, one.applied, moment(one.at)) for one in found.of]
    table(("SERVER", "WANTED", "APPLIED", "DONE AT"), rows)
    say(found.words)


@contextmanager
def known_id(hint: str) -> Iterator[None]:
    """Say what to do next where something is missing."""
    try:
        yield
    except Refusal as refusal:
        if refusal.kind is not Kind.MISSING:
            raise
        raise click.ClickException(f"{refusal.message} {hint}") from None


def every(ask: Callable[[int], Page[T]]) -> Iterator[T]:
    """All items of a list that comes in pages; ask: the page that starts at an offset."""
    offset = 0
    while True:
        page = ask(offset)
        yield from page.items
        offset += len(page.items)
        if not page.items or offset >= page.total:
            return


def table(titles: Sequence[str], rows: Sequence[Sequence[object]], json_wanted: bool = False) -> None:
    """Columns as wide as they must be, titles alone when there is nothing; or the same as JSON objects."""
    if json_wanted:
        names = [title.lower().replace(" ", "_") for title in titles]
        click.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=1))
        return
    shown = [tuple(titles), *(tuple(printable(str(value)) for value in row) for row in rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(titles))]
    for row in shown:
        say("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())
