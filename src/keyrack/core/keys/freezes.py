"""Freezes keys: they open no new session until somebody confirms them. Open sessions go on and break-glass keys work.
Must take no key away.

A freeze is a mark on the rows of servers and keys, under their seals (decision 151); access.py reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from keyrack.core import validation
from keyrack.core.instance import Instance
from keyrack.core.keys import access, receipts, user_keys
from keyrack.core.keys.receipts import Receipt, Receipts
from keyrack.core.lookups import is_oneself, server_named, user_named
from keyrack.core.people.rights import refuse_exceeding
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import SERVICE, Actor, Server, User
from keyrack.protocol.words import count
from keyrack.store.engine.prepared import Row
from keyrack.store.hosts import servers
from keyrack.store.keys import freezes, grants
from keyrack.store.keys.access import servers_with_credentials
from keyrack.store.keys.freezes import Freeze
from keyrack.store.people import users

FREEZE, READ = "keys:freeze", "credentials:read"


@dataclass(frozen=True, slots=True)
class Frozen:
    """A freeze, or a preview of one, whose freeze is None.

    where: in words; keys: how many it is for; break_glass: how many break-glass keys it leaves alone; servers: which
    hosts obey it; user, server: the names that a preview is for.
    """

    freeze: Freeze | None
    where: str
    keys: int
    break_glass: int
    servers: tuple[Receipt, ...]
    user: str | None = None
    server: str | None = None

    @property
    def done(self) -> bool:
        """Whether every host has said that it obeys."""
        return Receipts(self.servers).done

    @property
    def words(self) -> str:
        """How far it has come, in words."""
        return Receipts(self.servers).words


@dataclass(frozen=True, slots=True)
class _Scope:
    """What a freeze is for.

    where: in words; marked: ids of servers whose rows get the mark; server_ids: of servers whose hosts get a new
    revision; keys, held: rows of user keys and of credentials that get the mark; count: of keys.
    """

    where: str
    user_id: int | None
    server_id: int | None
    marked: list[int]
    server_ids: list[int]
    keys: list[Row]
    held: list[Row]
    count: int
    break_glass: int


def preview(
    instance: Instance, actor: Actor, *, user: object = None, server: object = None, reason: object = None
) -> Frozen:
    """What a freeze with these arguments would be for; changes nothing. Raises Refusal as freeze does."""
    with Attempt(instance, actor, FREEZE, "see what a freeze would stop", target_kind="freeze") as attempt:
        validation.reason(reason)

        def question(connection: Connection) -> Frozen:
            person, place = _named(connection, actor, user, server)
            scope = _scope(instance, connection, actor, person, place)
            # No host obeys a freeze that is not there yet, so none of their receipts counts.
            hosts = receipts.of_revisions(connection, actor.workspace_id, dict.fromkeys(scope.server_ids, 0))
            return Frozen(
                None,
                scope.where,
                scope.count,
                scope.break_glass,
                tuple(replace(one, wanted=one.applied, acknowledged_at=None) for one in hosts),
                user=None if person is None else person.name,
                server=None if place is None else place.name,
            )

        return attempt.read(question)


def freeze(
    instance: Instance, actor: Actor, *, user: object = None, server: object = None, reason: object = None
) -> Frozen:
    """Stop keys from opening new sessions until they are confirmed: of a user, on a server, or of the whole workspace.

    user: a name; server: a name or an id; at most one of them. Keys that are entered later are not frozen. Raises
    Refusal INVALID, MISSING, TAKEN for a name of several servers, or FORBIDDEN.
    """
    with Attempt(instance, actor, FREEZE, "freeze keys", target_kind="freeze") as attempt:
        why = validation.reason(reason)

        def change(work: Work) -> Frozen:
            scope = _scope(instance, work.connection, actor, *_named(work.connection, actor, user, server))
            _mark(work, scope, work.now)
            revisions = work.bump_revisions(scope.server_ids)
            number = freezes.add(
                work.connection,
                {
                    "workspace_id": actor.workspace_id,
                    "user_id": scope.user_id,
                    "server_id": scope.server_id,
                    "reason": why,
                    "asked_by": actor.name,
                    "at": work.now,
                    "keys": scope.count,
                    "revisions": {str(one): revision for one, revision in revisions.items()},
                },
            )
            work.record(
                f"Froze {count(scope.count, 'SSH key')} {scope.where}: no new session until confirmed"
                + (f" ({why})" if why else ""),
                target_id=number,
                server_id=scope.server_id,
                level="warning",
                details={"break_glass": scope.break_glass},
            )
            made = freezes.get(work.connection, actor.workspace_id, number)
            hosts = receipts.of_revisions(work.connection, actor.workspace_id, revisions)
            return Frozen(made, scope.where, scope.count, scope.break_glass, hosts)

        return attempt.write(change)


def freeze_some(
    instance: Instance, actor: Actor, *, fingerprints: Iterable[str], held: Iterable[tuple[int, str]]
) -> None:
    """Stop single keys from opening new sessions until they are confirmed.

    fingerprints: of users' keys, wherever they stand; held: keys on servers, as pairs of server id and label. This
    makes no Freeze that could be ended as a whole. Raises Refusal FORBIDDEN.
    """
    with Attempt(instance, actor, FREEZE, "freeze keys by name", target_kind="key") as attempt:

        def change(work: Work) -> None:
            wanted, places = set(fingerprints), set(held)
            of_users = freezes.user_keys_of(work.connection, actor.workspace_id)
            user_keys_wanted = [row for row in of_users if row.fingerprint in wanted]
            on_servers = freezes.credentials_of_servers(work.connection, {server_id for server_id, _ in places})
            credentials_wanted = [row for row in on_servers if (row.server_id, row.label) in places]
            freezes.mark_user_keys(work.connection, user_keys_wanted, work.now)
            freezes.mark_credentials(work.connection, credentials_wanted, work.now)
            server_ids = {row.server_id for row in credentials_wanted}
            for user_id in {row.user_id for row in user_keys_wanted}:
                server_ids |= grants.servers_of_user(work.connection, user_id)
            work.bump_revisions(server_ids)
            on_hosts = len(credentials_wanted)
            words = f"Froze {count(len(user_keys_wanted), 'SSH key')} of users and {on_hosts} on hosts"
            work.record(f"{words} until they are confirmed", level="warning")

        attempt.write(change)


def get(instance: Instance, actor: Actor, freeze_id: int) -> Frozen:
    """A freeze, and which hosts obey it; where and break_glass are empty. Raises Refusal MISSING."""
    with Attempt(instance, actor, READ, "see a freeze", target_kind="freeze", target_id=freeze_id) as attempt:

        def question(connection: Connection) -> Frozen:
            own = freezes.get(connection, actor.workspace_id, freeze_id)
            if own is None:
                raise missing("freeze")
            revisions = {int(server): revision for server, revision in own.revisions.items()}
            hosts = receipts.of_revisions(connection, actor.workspace_id, revisions)
            return Frozen(own, "", own.keys, 0, hosts)

        return attempt.read(question)


def find(instance: Instance, actor: Actor, *, before: int | None = None, limit: int = 50) -> tuple[Freeze, ...]:
    """The freezes of the workspace, newest first; before: only those with a smaller id. Raises Refusal FORBIDDEN."""
    with Attempt(instance, actor, READ, "list freezes", target_kind="freeze") as attempt:
        return attempt.read(lambda connection: freezes.find(connection, actor.workspace_id, before, limit))


def end(instance: Instance, actor: Actor, freeze_id: int) -> Freeze:
    """End a freeze: its keys open sessions again unless another freeze is for them.

    Raises Refusal MISSING, or TAKEN for one that has ended.
    """
    with Attempt(instance, actor, FREEZE, "end a freeze", target_kind="freeze", target_id=freeze_id) as attempt:

        def change(work: Work) -> Freeze:
            own = freezes.get(work.connection, actor.workspace_id, freeze_id)
            if own is None:
                raise missing("freeze")
            if own.ended_at is not None:
                raise Refusal(Kind.TAKEN, "freeze-ended", f"{own.ended_by} ended this freeze already.")
            freezes.end(work.connection, own.id, work.now, actor.name)
            freezes.unmark(work.connection, actor.workspace_id, own.at)
            # This freeze overwrote the marks that older ones had left on the same keys.
            for other in freezes.active(work.connection, actor.workspace_id):
                user = None if other.user_id is None else users.user(work.connection, other.user_id)
                place = None if other.server_id is None else servers.by_id(work.connection, other.server_id)
                if (other.user_id, other.server_id) == (user.id if user else None, place.id if place else None):
                    _mark(work, _scope(instance, work.connection, actor, user, place), other.at, only_free=True)
            work.bump_revisions(int(server) for server in own.revisions)
            work.record(f"Ended freeze {own.id} of {count(own.keys, 'SSH key')}", target_id=own.id, level="warning")
            ended = freezes.get(work.connection, actor.workspace_id, own.id)
            assert ended is not None
            return ended

        return attempt.write(change)


def confirm_key(instance: Instance, actor: Actor, key_id: int) -> None:
    """Confirm a key of the actor's own, or, with people:write, of a program: it opens sessions again wherever it
    stands.

    Raises Refusal MISSING or FORBIDDEN.
    """
    with _confirming_key(instance, actor, key_id) as attempt:

        def change(work: Work) -> None:
            key = _key_to_confirm(work.connection, actor, key_id)
            owner = users.user(work.connection, key.user_id)
            if owner is not None and owner.id != actor.user_id:
                refuse_exceeding(work, owner, has_keys=True)
            owner_name = str(key.user_name)
            row = Row({name: value for name, value in key.items() if name not in ("user_kind", "user_name")})
            copies = freezes.credentials_of_keys(work.connection, actor.workspace_id, (row.fingerprint,))
            freezes.confirm(work.connection, (row,), copies, work.now)
            server_ids = {one.server_id for one in copies} | grants.servers_of_user(work.connection, row.user_id)
            work.bump_revisions(server_ids)
            words = f"Confirmed SSH key {row.title or 'without a title'} ({row.fingerprint}) of {owner_name}"
            work.record(words, target_id=row.id, details={"fingerprint": row.fingerprint})

        attempt.write(change)


def confirm_credential(instance: Instance, actor: Actor, credential_id: int) -> None:
    """Confirm a key that no user registered, on one server. Raises Refusal MISSING, or FORBIDDEN for a user's key."""
    with _confirming_credential(instance, actor, credential_id) as attempt:

        def change(work: Work) -> None:
            credential = _credential_to_confirm(work.connection, actor, credential_id)
            where = f"{credential.username} on {credential.server_name}"
            row = Row({name: value for name, value in credential.items() if name not in ("server_name", "username")})
            freezes.confirm(work.connection, (), (row,), work.now)
            work.bump_revision(row.server_id)
            work.record(
                f"Confirmed SSH key {row.label} ({row.fingerprint}) of {where}",
                target_id=row.id,
                server_id=row.server_id,
                details={"fingerprint": row.fingerprint},
            )

        attempt.write(change)


def may_confirm_key(instance: Instance, actor: Actor, key_id: int) -> None:
    """Raises Refusal where the actor may not confirm this key of a user, as confirm_key does."""
    with _confirming_key(instance, actor, key_id) as attempt:
        attempt.read(lambda connection: _key_to_confirm(connection, actor, key_id))


def may_confirm_credential(instance: Instance, actor: Actor, credential_id: int) -> None:
    """Raises Refusal where the actor may not confirm this key on a server, as confirm_credential does."""
    with _confirming_credential(instance, actor, credential_id) as attempt:
        attempt.read(lambda connection: _credential_to_confirm(connection, actor, credential_id))


def _confirming_key(instance: Instance, actor: Actor, key_id: int) -> Attempt:
    row = instance.database.read(lambda connection: freezes.user_key(connection, actor.workspace_id, key_id))
    of_program = row is not None and row.user_id != actor.user_id and row.user_kind == SERVICE
    action = "people:write" if of_program else user_keys.ADD
    return Attempt(instance, actor, action, "confirm an SSH key", target_kind="user key", target_id=key_id)


def _key_to_confirm(connection: Connection, actor: Actor, key_id: int) -> Row:
    row = freezes.user_key(connection, actor.workspace_id, key_id)
    if row is None or (row.user_id != actor.user_id and row.user_kind != SERVICE):
        raise missing("SSH key")
    return row


def _confirming_credential(instance: Instance, actor: Actor, credential_id: int) -> Attempt:
    aim = "confirm an SSH key on a host"
    return Attempt(instance, actor, "credentials:write", aim, target_kind="credential", target_id=credential_id)


def _credential_to_confirm(connection: Connection, actor: Actor, credential_id: int) -> Row:
    row = freezes.credential(connection, actor.workspace_id, credential_id)
    if row is None:
        raise missing("SSH key")
    owner = freezes.owner_of(connection, actor.workspace_id, row.fingerprint)
    if owner is not None and not is_oneself(actor, owner):
        raise Refusal(Kind.FORBIDDEN, "not-the-owner", f"This key is {owner}'s, and nobody else can confirm it.")
    return row


def _named(connection: Connection, actor: Actor, user: object, server: object) -> tuple[User | None, Server | None]:
    """The user or server that is meant, neither for the whole workspace. Raises Refusal INVALID, MISSING or TAKEN."""
    if user is not None and server is not None:
        raise invalid("server", "Name a user or a server, or neither for the whole workspace.")
    if server is not None:
        return None, server_named(connection, actor, str(server))
    if user is None:
        return None, None
    return user_named(connection, actor, str(user), field="user"), None


def _scope(
    instance: Instance, connection: Connection, actor: Actor, person: User | None, place: Server | None
) -> _Scope:
    workspace = actor.workspace_id
    if person is not None:
        rows = freezes.user_keys_of(connection, workspace, person.id)
        prints = [row.fingerprint for row in rows]
        copies = freezes.credentials_of_keys(connection, workspace, prints)
        server_ids = grants.servers_of_user(connection, person.id)
        server_ids |= servers_with_credentials(connection, workspace, prints, instance.now())
        return _Scope(
            where=f"of {person.name}",
            user_id=person.id,
            server_id=None,
            marked=[],
            server_ids=sorted(server_ids),
            keys=rows,
            held=copies,
            count=len(set(prints)),
            break_glass=sum(1 for row in copies if row.break_glass),
        )
    server_id = None if place is None else place.id
    marked = freezes.servers_of(connection, workspace, server_id)
    on_servers = freezes.credentials_at(connection, workspace, server_id)
    fingerprints = {row.fingerprint for row in on_servers}
    if place is not None:
        # A mark on the server also freezes keys that grants put there, which have no row on it.
        user_rows: list[Row] = []
        reasons, _ = access.reasons(connection, place, instance.now())
        fingerprints |= {reason.fingerprint for reason in reasons if reason.fingerprint}
    else:
        user_rows = freezes.user_keys_of(connection, workspace)
        fingerprints |= {row.fingerprint for row in user_rows}
    return _Scope(
        where="of the workspace" if place is None else f"on {place.name}",
        user_id=None,
        server_id=server_id,
        marked=marked,
        server_ids=marked,
        keys=user_rows,
        held=[],
        count=len(fingerprints),
        break_glass=sum(1 for row in on_servers if row.break_glass),
    )


def _mark(work: Work, scope: _Scope, at: datetime, *, only_free: bool = False) -> None:
    """Leave the marks of a freeze; only_free: only on rows that no other freeze has marked."""
    free = [row for row in scope.keys if not only_free or row["frozen_at"] is None]
    credentials = [row for row in scope.held if not only_free or row["frozen_at"] is None]
    freezes.mark_servers(work.connection, scope.marked, at, only_free=only_free)
    freezes.mark_user_keys(work.connection, free, at)
    freezes.mark_credentials(work.connection, credentials, at)
