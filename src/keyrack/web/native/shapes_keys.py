"""Keys on servers and of users, revocation and its receipts: what calls take and answer; must call no use case."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, ClassVar

from pydantic import ConfigDict

from keyrack.core.hosts import unmanaged_keys
from keyrack.core.hosts.refused_logins import RefusedLogins
from keyrack.core.keys import access
from keyrack.core.keys.damaged_rows import DamagedRow as DamagedRecord
from keyrack.core.keys.receipts import Receipt as ReceiptRecord
from keyrack.core.keys.receipts import Receipts as ReceiptsRecord
from keyrack.core.keys.revocation import RevocationOutcome
from keyrack.model import Credential as CredentialRecord
from keyrack.model import UnmanagedKey as UnmanagedRecord
from keyrack.model import UserKey as UserKeyRecord
from keyrack.store.keys.revoked_keys import RevokedKey as RevokedKeyRecord
from keyrack.store.keys.uses import Use
from keyrack.web.native.shapes import (
    Answer,
    Count,
    CursorWindow,
    DurationOrNone,
    End,
    EndOrNone,
    Fingerprint,
    Flag,
    Id,
    KeyRequest,
    Listed,
    Name,
    NextCursor,
    PlusKept,
    PublicKey,
    Query,
    Request,
    Restrictions,
    Time,
    Window,
    about,
    time,
    time_or_null,
)


class NewCredential(KeyRequest):
    """A key for a system user of a server."""

    label: Annotated[str, about("What the key is called; unique on its server.", "laptop")]
    username: Annotated[str, about("As which system user it logs in.", "deploy")]
    public_key: Annotated[PublicKey, about("One line as ssh-keygen writes it.")]
    temporary: Annotated[
        bool,
        about("Whether it ends after the instance's hours where no end is given, and drop-temporary drops it.", False),
    ] = False
    expires_at: EndOrNone = None
    duration: DurationOrNone = None
    restrictions: Annotated[Restrictions | None, about("What it may do; none for everything.")] = None
    break_glass: Annotated[bool, about("Whether its use is an alarm.", False)] = False


class Acceptance(Request):
    """How an unmanaged key becomes a credential."""

    label: Annotated[str | None, about("What it is called; none for its comment or fingerprint.", "robot")] = None
    username: Annotated[
        str | None, about("As which system user; needed where the key counts for every account.", "deploy")
    ] = None
    expires_at: Annotated[End | None, about("When it ends; none for the end that its line has.", None)] = None
    duration: DurationOrNone = None


class Renewal(Request):
    """Another end, under the same id; one of both."""

    expires_at: Annotated[End | None, about("When it ends from now on: a time with its zone, or a span.", None)] = None
    duration: Annotated[End | None, about("For how long from now on, instead of expires_at.", "12h")] = None


class Restricted(Request):
    """What a key may do from now on, all of it."""

    restrictions: Annotated[Restrictions, about("What it may do; {} for everything.")]


class Revocation(Request):
    """A key to revoke everywhere."""

    fingerprint: Annotated[Fingerprint, about("The key, as ssh-keygen -l prints it.")]
    reason: Annotated[str | None, about("Why, for those who ask later.", "the laptop was stolen")] = None


class Lifting(Request):
    """A key that may be registered again."""

    fingerprint: Annotated[Fingerprint, about("The key, as ssh-keygen -l prints it.")]


_OPEN = ",".join(unmanaged_keys.OPEN)


class UnmanagedKeysAsked(Window):
    """Which unmanaged keys."""

    state: Annotated[str, about("One or several, with commas.", _OPEN)] = _OPEN


class ReceiptsAsked(Query):
    """Whose receipts."""

    # Needed, as the core says: who may not ask hears that first.
    model_config = ConfigDict(json_schema_extra={"required": ["fingerprint"]})
    fingerprint: Annotated[Fingerprint, PlusKept, about("The key that was revoked.")] = ""


class UserKeysAsked(Window):
    """Whose keys."""

    user: Annotated[str | None, about("Of this user alone, by name.", "alice")] = None


class Credential(Answer):
    """A key on a system user of a server."""

    id: Annotated[Id, about("Its id.")]
    server_id: Annotated[Id, about("On which server.")]
    username: Annotated[str, about("As which system user.", "deploy")]
    label: Annotated[str, about("What it is called.", "laptop")]
    fingerprint: Annotated[Fingerprint, about("Its fingerprint.")]
    public_key: Annotated[PublicKey, about("The key as it was registered.")]
    restrictions: Annotated[Restrictions, about("What it may do; {} for everything.")]
    expires_at: Annotated[Time | None, about("When it ends.")]
    break_glass: Annotated[Flag, about("Whether its use is an alarm.")]
    revision: Annotated[Count, about("The revision of the server that it came with.")]
    refused: Annotated[
        str | None,
        about(
            "Why sshd refuses it there, by the host's word: it may be delivered, and opens nothing. Empty where sshd "
            "does not, null where the host has not said.",
            "sshd refuses root: PermitRootLogin no",
        ),
    ]


class ListedCredential(Credential):
    """A key on a system user of a server, with its last use there."""

    untagged: ClassVar[frozenset[str]] = frozenset({"acknowledged", "last_used_at", "last_used_from", "refused"})

    temporary: Annotated[Flag, about("Whether the offline policy drop-temporary drops it.")]
    acknowledged: Annotated[Flag, about("Whether its host applied the revision that it came with.")]
    frozen: Annotated[Flag, about("Whether it opens no new session there until it is confirmed.")]
    created_at: Annotated[Time, about("When it was put there.")]
    last_used_at: Annotated[Time | None, about("When somebody last logged in with it there.")]
    last_used_from: Annotated[str | None, about("From where that was.", "198.51.100.3")]


class UnmanagedKey(Answer):
    """Something on a host that lets somebody in and that Keyrack did not put there."""

    id: Annotated[Id, about("Its id.")]
    server_id: Annotated[Id, about("On which server.")]
    username: Annotated[str, about("For which account; * for every one.", "deploy")]
    path: Annotated[str, about("In which file.", "/home/deploy/.ssh/authorized_keys")]
    kind: Annotated[str, about("What it is.", "key")]
    line: Annotated[int, about("In which line.", 1)]
    fingerprint: Annotated[Fingerprint, about("Its fingerprint; empty where it is no key.")]
    key_type: Annotated[str, about("The type of the key.", "ssh-ed25519")]
    public_key: Annotated[PublicKey, about("The key.")]
    options: Annotated[str, about("The options of its line.", "restrict")]
    comment: Annotated[str, about("The comment of its line.", "alice@laptop")]
    problem: Annotated[str, about("Why it cannot be accepted, if it cannot.", "")]
    in_force: Annotated[Flag, about("Whether sshd takes it there now.")]
    state: Annotated[str, about("new, accepted, ignored, removing or gone.", "new")]
    found_at: Annotated[Time, about("When it was first seen.")]
    seen_at: Annotated[Time, about("When it was last seen.")]
    owner: Annotated[str | None, about("The user of the workspace whose key it is.", "alice")]
    credential_id: Annotated[Id | None, about("The credential that is this very key on this account.")]


class LastUse(Answer):
    """The last login with a key at one place."""

    server: Annotated[Name, about("The server's name, or git.")]
    server_id: Annotated[Id | None, about("The server's id; null for Git.")]
    at: Annotated[Time, about("When.")]
    address: Annotated[str, about("From where.", "198.51.100.3")]


class UserKey(Answer):
    """A key of a user."""

    id: Annotated[Id, about("Its id.")]
    user: Annotated[str | None, about("Whose it is.", "alice")]
    title: Annotated[str | None, about("What it is called.", "laptop")]
    fingerprint: Annotated[Fingerprint | None, about("Its fingerprint.")]
    public_key: Annotated[PublicKey | None, about("The key as it was registered.")]
    created_at: Annotated[Time, about("When it was registered.")]
    expires_at: Annotated[Time | None, about("When it ends.")]
    frozen: Annotated[Flag, about("Whether it opens nothing new until it is confirmed.")]
    last_uses: Annotated[list[LastUse], about("Its last use at each place, newest first.")]


class Revoked(Answer):
    """What a key was taken away from."""

    fingerprint: Annotated[Fingerprint, about("The key.")]
    credentials: Annotated[Count, about("From how many system users of servers.")]
    user_keys: Annotated[Count, about("From how many users.")]
    repositories: Annotated[Count, about("From how many repositories.")]
    revisions: Annotated[dict[int, int], about("Per server's id the revision that says so.", {"1": 12})]


class RevokedKey(Answer):
    """A key that nobody may register."""

    fingerprint: Annotated[Fingerprint, about("The key.")]
    revoked_by: Annotated[str, about("Who revoked it.", "alice")]
    reason: Annotated[str | None, about("Why.", "the laptop was stolen")]
    revoked_at: Annotated[Time, about("When.")]


class Receipt(Answer):
    """How far a change has come on one server."""

    server_id: Annotated[Id, about("The server.")]
    server_name: Annotated[Name, about("Its name.")]
    wanted: Annotated[Count, about("The revision that carries the change.")]
    applied: Annotated[Count, about("The revision that its host applied.")]
    acknowledged_at: Annotated[Time | None, about("Since when its host obeys the change, by its word.")]
    at_latest: Annotated[bool, about("Whether that was by a later revision, so that it may have obeyed before.", False)]
    done: Annotated[Flag, about("Whether its host obeys the change, or it has none.")]
    host: Annotated[Flag, about("Whether it has a host; one without has nothing to obey, and counts as done.")]
    two_machines: Annotated[bool, about("Whether two use its identity, so that no receipt of it counts.", False)]


class Receipts(Answer):
    """How far a change has come."""

    done: Annotated[Flag, about("Whether every host obeys it.")]
    words: Annotated[str, about("The same in words.", "done on 2 of 2 servers")]
    servers: Annotated[list[Receipt], about("Server by server.")]


class DamagedRowsAsked(CursorWindow):
    """Which rows."""

    server: Annotated[str | None, about("Those of this server alone, by name or id.", "web-1")] = None


class DamagedRow(Answer):
    """A row that is not as Keyrack wrote it."""

    row: Annotated[str, about("Its name.", "grants:1")]
    what: Annotated[str, about("What it says now.", "grant of user alice as root on server web-1")]


class DamagedRows(Answer):
    """Rows that are not as Keyrack wrote them."""

    items: Annotated[list[DamagedRow], about("What the page holds; it may be none while there is a next one.")]
    next: NextCursor


class ListedCredentialPage(Listed[ListedCredential]):
    """A page of credentials."""


class UnmanagedCount(Answer):
    """How many unmanaged keys of a server wait for a decision."""

    server_id: Annotated[Id, about("The server's id.")]
    keys: Annotated[Count, about("How many.")]


class UnmanagedCounts(Answer):
    """Where unmanaged keys wait for a decision."""

    items: Annotated[list[UnmanagedCount], about("Servers that have some.")]


class UnmanagedKeyPage(Listed[UnmanagedKey]):
    """A page of unmanaged keys."""


class UserKeyPage(Listed[UserKey]):
    """A page of keys of users."""


class RevokedKeyPage(Listed[RevokedKey]):
    """A page of revoked keys."""


def credential(made: CredentialRecord, logins: RefusedLogins) -> Credential:
    """A credential as far as an operator needs it."""
    return Credential(
        id=made.id,
        server_id=made.server_id,
        username=made.username,
        label=made.label,
        fingerprint=made.fingerprint,
        public_key=made.with_comment,
        restrictions=dict(made.restrictions),
        expires_at=time_or_null(made.expires_at),
        break_glass=bool(made.break_glass),
        revision=made.revision,
        refused=logins.why(made.username, made.fingerprint),
    )


def listed_credential(one: CredentialRecord, logins: RefusedLogins, used: tuple[Use, ...]) -> ListedCredential:
    """A credential as it is listed; used: its last uses on its server, newest first."""
    return ListedCredential(
        id=one.id,
        server_id=one.server_id,
        username=one.username,
        label=one.label,
        fingerprint=one.fingerprint,
        public_key=one.with_comment,
        restrictions=dict(one.restrictions),
        expires_at=time_or_null(one.expires_at),
        break_glass=bool(one.break_glass),
        revision=one.revision,
        refused=logins.why(one.username, one.fingerprint),
        temporary=one.temporary,
        acknowledged=one.acknowledged,
        frozen=access.is_frozen(logins.server, one, break_glass=bool(one.break_glass)),
        created_at=time(one.created_at),
        last_used_at=time(used[0].at) if used else None,
        last_used_from=used[0].address if used else None,
    )


def unmanaged_key(record: UnmanagedRecord) -> UnmanagedKey:
    """An unmanaged key."""
    return UnmanagedKey(**asdict(record) | {"found_at": time(record.found_at), "seen_at": time(record.seen_at)})


def user_key(key: UserKeyRecord, names: dict[int, str], used: tuple[Use, ...]) -> UserKey:
    """A key of a user; names: of users by id; used: its last uses, newest first."""
    return UserKey(
        id=key.id,
        user=names.get(key.user_id),
        title=key.title,
        fingerprint=key.fingerprint,
        public_key=key.with_comment,
        created_at=time(key.created_at),
        expires_at=time_or_null(key.expires_at),
        frozen=key.frozen,
        last_uses=[
            LastUse(server=one.server or "git", server_id=one.server_id, at=time(one.at), address=one.address)
            for one in used
        ],
    )


def revoked(done: RevocationOutcome) -> Revoked:
    """What a key was taken away from, and the revision of each server that says so."""
    return Revoked(**asdict(done))


def revoked_key(noted: RevokedKeyRecord) -> RevokedKey:
    """A key that nobody may register, with who revoked it, when and why."""
    return RevokedKey(
        fingerprint=noted.fingerprint,
        revoked_by=noted.revoked_by,
        reason=noted.reason,
        revoked_at=time(noted.revoked_at),
    )


def receipts(record: ReceiptsRecord) -> Receipts:
    """How far a change has come."""
    return Receipts(done=record.done, words=record.words, servers=[receipt(one) for one in record.of])


def receipt(one: ReceiptRecord) -> Receipt:
    """How far a change has come on one server."""
    return Receipt(
        server_id=one.server_id,
        server_name=one.server_name,
        wanted=one.wanted,
        applied=one.applied,
        acknowledged_at=time_or_null(one.acknowledged_at),
        at_latest=one.at_latest,
        done=one.done,
        host=one.has_host,
        two_machines=one.two_machines,
    )


def damaged_row(row: DamagedRecord) -> DamagedRow:
    """A row that is not as Keyrack wrote it."""
    return DamagedRow(row=row.name, what=row.what)
