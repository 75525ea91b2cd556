"""The nouns: frozen records of what Keyrack knows; must hold no behaviour beyond reading itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, Literal, TypeVar, get_args

T = TypeVar("T")
S = TypeVar("S")


LONGEST_SECONDS = 36_525 * 86_400
"""A hundred years: nobody may ask for longer."""


def span_of(seconds: int) -> timedelta:
    """How long something lasts, as the database has it: others may write a number beyond all calendars."""
    return timedelta(seconds=max(0, min(seconds, LONGEST_SECONDS)))


def has_ended(ends_at: datetime | None, at: datetime) -> bool:
    """Whether what has this end, None for none, is over; at its very end it is."""
    return ends_at is not None and ends_at <= at


class Role(StrEnum):
    """What a user is in a workspace."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    AUDITOR = "auditor"


class RepositoryRole(StrEnum):
    """What a member may do with a repository: viewers read, the others write as well."""

    VIEWER = "viewer"
    DEVELOPER = "developer"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Workspace:
    """Everything one organisation owns; uid is its 32 hexadecimal digits (Huawei's domain id)."""

    id: int
    uid: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Project:
    """An IAM project: the scope a token may carry."""

    id: int
    uid: str
    workspace_id: int
    name: str


UserKind = Literal["person", "service"]
"""What a user may be: a service is a program."""
USER_KINDS: tuple[UserKind, ...] = get_args(UserKind)
PERSON, SERVICE = USER_KINDS
Mode = Literal["observe", "enforce", "auto"]
"""What a host may be asked to do."""
MODES: tuple[Mode, ...] = get_args(Mode)
OBSERVE, ENFORCE, AUTO = MODES
OfflineAction = Literal["keep", "drop-temporary", "drop-all"]
"""What becomes of the keys of a host that cannot reach the service."""
OFFLINE_ACTIONS: tuple[OfflineAction, ...] = get_args(OfflineAction)


@dataclass(frozen=True, slots=True)
class User:
    """A person or a program in a workspace. uid: its 32 hexadecimal digits (the IAM user id); kind: of USER_KINDS."""

    id: int
    uid: str
    workspace_id: int
    name: str
    role: Role
    policies: tuple[str, ...]
    disabled_at: datetime | None
    created_at: datetime
    kind: UserKind = PERSON


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer secret as it is kept: never the secret itself. kind is "api" or "iam"; last_used_at: to the hour."""

    id: int
    user_id: int
    workspace_id: int
    kind: str
    name: str
    scopes: tuple[str, ...]
    details: Mapping[str, Any]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = None

    def is_in_force(self, at: datetime) -> bool:
        """Whether it is neither revoked nor over; its user may be disabled."""
        return self.revoked_at is None and not has_ended(self.expires_at, at)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: the user, the workspace, what proved it, and from where.

    user_id None stands for Keyrack itself (expiry, first start) and for strangers, who have no rights.
    token_id, access_key, web_session_id: the token, the access key, the browser's session that proved it, if one did;
    temporary: that key is one.
    project: the uid of the one project that the proof is for, "" for the whole workspace; ends_at: when a proof
    that somebody limited in time ends, which nothing made with it may outlive; repository_id: the repository whose
    members' rights are among the policies, and which the user has there alone.
    """

    workspace_id: int
    user_id: int | None
    name: str
    role: Role | None
    policies: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ("*",)
    token_id: int | None = None
    token_name: str = ""
    address: str = ""
    channel: str = ""
    access_key: str = ""
    temporary: bool = False
    project: str = ""
    ends_at: datetime | None = None
    web_session_id: int | None = None
    repository_id: int | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """A host that Keyrack serves. revision: what it must obey; applied_revision: what it said it obeys."""

    id: int
    workspace_id: int
    host: str
    name: str
    address: str
    provider: str | None
    mode: Mode
    revision: int
    applied_revision: int
    applied_at: datetime | None
    agent_version: str | None
    os: str | None
    os_version: str | None
    enrolled_at: datetime | None
    seen_at: datetime | None
    sshd: Mapping[str, str]
    facts: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    sshd_revision: int | None = None
    sshd_changed_at: datetime | None = None
    tags: tuple[str, ...] = ()
    offline_after_seconds: int = 0
    offline_then: OfflineAction = "keep"
    # Marks of the last revisions, the newest first, and the one of the applied revision: see store/hosts/lineage.py.
    lineage: str = ""
    applied_lineage: str = ""
    reported_lineage: str = ""
    # Since when the host is known to obey what this database does not know, and when its document was compared.
    rolled_back_at: datetime | None = None
    compared_at: datetime | None = None
    # Which run of its agent asked last, and since when two machines go by its identity: see core/hosts/copies.py.
    agent_run: str | None = None
    copied_at: datetime | None = None
    # Whether the row is as Keyrack wrote it. If it is not, nothing that it says of its host may be signed or believed.
    sound: bool = True
    # Keys that were there then open no new session on it until somebody confirms them (core/keys/freezes.py).
    frozen_at: datetime | None = None
    # When its host said for the first time since it was enrolled that it obeys something.
    first_applied_at: datetime | None = None

    @property
    def is_behind(self) -> bool:
        """Whether the host has not said yet that it obeys all that is decided."""
        return self.applied_revision < self.revision


@dataclass(frozen=True, slots=True)
class SystemUser:
    """An account on a server.

    managed: Keyrack asked the host to make it; revision: the server's when something was last asked of the host
    for it, None when nothing ever was; state: how far the host is with that, see core.accounts; reason: why it is
    not as asked, in the host's words, empty where it did not say.
    """

    id: int
    server_id: int
    username: str
    deletable: bool
    deployment_key: str | None
    created_at: datetime
    managed: bool = False
    revision: int | None = None
    deployment_key_asked_at: datetime | None = None
    state: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Credential:
    """A public key with a label on a system user of a server; expires_at None means no end.

    acknowledged: its host applied the revision this key came with; acknowledged_at: since when; noticed_at:
    when its end was announced; renewed_at: when it got another end; break_glass: its use is an alarm; frozen_at: it
    opens nothing unless confirmed since.
    """

    id: int
    server_id: int
    system_user_id: int
    username: str
    label: str
    public_key: str
    comment: str
    fingerprint: str
    key_type: str
    temporary: bool
    expires_at: datetime | None
    restrictions: Mapping[str, Any]
    created_by: int | None
    created_at: datetime
    revision: int
    acknowledged: bool = False
    acknowledged_at: datetime | None = None
    noticed_at: datetime | None = None
    renewed_at: datetime | None = None
    break_glass: bool | None = None
    confirmed_at: datetime | None = None
    frozen_at: datetime | None = None

    @property
    def with_comment(self) -> str:
        """The key as it was registered: type, base64 and comment."""
        return f"{self.public_key} {self.comment}" if self.comment else self.public_key


@dataclass(frozen=True, slots=True)
class Session:
    """A login that a host reported as open; label: of the key that opened it; ending: its end was asked for."""

    id: int
    server_id: int
    host_session: str
    username: str
    address: str
    fingerprint: str
    started_at: datetime
    ending: bool
    label: str | None = None


@dataclass(frozen=True, slots=True)
class UnmanagedKey:
    """Something on a host that lets somebody in and that Keyrack did not put there.

    username "*": it counts for every account; in_force: sshd takes it there now; owner: the user of the workspace
    whose key it is; credential_id: the credential that is this very key on this account.
    """

    id: int
    server_id: int
    username: str
    path: str
    kind: str
    line: int
    fingerprint: str
    key_type: str
    public_key: str
    options: str
    comment: str
    problem: str
    in_force: bool
    state: str
    found_at: datetime
    seen_at: datetime
    owner: str | None = None
    credential_id: int | None = None


@dataclass(frozen=True, slots=True)
class UserKey:
    """A public key with a title that belongs to a user; public_key None: the published keyless entry.

    expires_at: None means no end; noticed_at, renewed_at, confirmed_at and frozen_at: as Credential has them.
    """

    id: int
    workspace_id: int
    user_id: int
    title: str | None
    public_key: str | None
    comment: str
    fingerprint: str | None
    key_type: str | None
    created_at: datetime
    expires_at: datetime | None = None
    noticed_at: datetime | None = None
    renewed_at: datetime | None = None
    confirmed_at: datetime | None = None
    frozen_at: datetime | None = None

    @property
    def frozen(self) -> bool:
        """Whether the key itself was frozen, and not confirmed since; a server's freeze is the server's."""
        return (
            self.frozen_at is not None and max(self.confirmed_at or self.created_at, self.created_at) <= self.frozen_at
        )

    @property
    def with_comment(self) -> str | None:
        """The key as it was registered: type, base64 and comment; None for a keyless entry."""
        if self.public_key is None:
            return None
        return f"{self.public_key} {self.comment}" if self.comment else self.public_key


@dataclass(frozen=True, slots=True)
class Grant:
    """A user or group may log in as system_user on a server, on all servers with a tag, or on all of the workspace.

    starts_at: before it the grant opens nothing; begun_at: when hosts were told that it came; reason: why it was given;
    noticed_at, renewed_at and break_glass: as Credential has them.
    """

    id: int
    workspace_id: int
    user_id: int | None
    group_id: int | None
    server_id: int | None
    tag: str | None
    system_user: str
    restrictions: Mapping[str, Any]
    expires_at: datetime | None
    created_at: datetime
    all_servers: bool | None = None
    starts_at: datetime | None = None
    begun_at: datetime | None = None
    reason: str | None = None
    noticed_at: datetime | None = None
    renewed_at: datetime | None = None
    break_glass: bool | None = None

    def has_begun(self, at: datetime) -> bool:
        """Whether its start came, where it has one."""
        return self.starts_at is None or self.starts_at <= at


Level = Literal["info", "warning", "alarm"]
"""How much an event matters."""
LEVELS: tuple[Level, ...] = get_args(Level)
"""The least first."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit log: who did or tried what, when, from where, with which token."""

    id: int
    workspace_id: int
    at: datetime
    actor_id: int | None
    actor_name: str
    token_id: int | None
    token_name: str
    address: str
    channel: str
    action: str
    outcome: str
    reason: str
    target_kind: str
    target_id: int | None
    server_id: int | None
    summary: str
    level: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_refusal(self) -> bool:
        """Whether somebody tried it and was refused, as IS_REFUSAL of store/tables/audit.py has it."""
        return self.outcome != "done" and self.level != "alarm"

    @property
    def has_receipts(self) -> bool:
        """Whether it changed something that hosts obey, as core/keys/receipts.py shows."""
        return bool(self.details.get("revisions"))


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are asked for; what is left out narrows nothing.

    server_id: those of this server; concerning: a server, beside its own events those by which it was to obey something
    else, such as grants to its tag; search: part of the summary, in any case; since, until: from that instant on, and
    before that one; before: only events with a smaller id, so that who reads all of a log goes on from the last one;
    person: what a user, by name, did; key: what names this fingerprint, or a part of it; kind: one of
    core.audit.events.KINDS, REFUSED or ALARM.
    """

    server_id: int | None = None
    concerning: int | None = None
    search: str = ""
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
    person: str = ""
    key: str = ""
    kind: str = ""


Place = tuple[str | int | datetime, ...]
"""What names an item by the order of its list; () is the beginning."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which piece of a list is asked for: limit items from offset on, or, with after, those that follow it."""

    limit: int
    offset: int = 0
    after: Place | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A piece of a list: the items, how many match in all, and where this piece starts.

    counted: whether total says how many match; a piece that follows a place counts nothing, as that would cost more
    than the piece. after: the place of its last item where more follow, None otherwise.
    """

    items: tuple[T, ...]
    total: int
    offset: int
    limit: int
    after: Place | None = None
    counted: bool = True

    def showing(self, items: Iterable[S]) -> Page[S]:
        """The same piece, of what was made of its items."""
        return Page(tuple(items), self.total, self.offset, self.limit, self.after, self.counted)
