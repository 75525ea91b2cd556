"""What a workspace file declares, as records; must read no text and hold no rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from keyrack.model import RepositoryRole, Role


@dataclass(frozen=True, slots=True)
class WantedProject:
    """A project; place: where in the file, for messages."""

    place: str
    name: str
    uid: str | None


@dataclass(frozen=True, slots=True)
class WantedToken:
    """An API token of a user."""

    place: str
    name: str
    secret: str
    scopes: tuple[str, ...]
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class WantedSource:
    """An account at GitHub or GitLab from which a user's keys come; url: None for github.com and gitlab.com."""

    kind: str
    account: str
    url: str | None


@dataclass(frozen=True, slots=True)
class WantedUserKey:
    """A public key of a user, as the file has it; frozen: it opens nothing until its owner confirms it."""

    title: str | None
    public_key: str
    expires_at: datetime | None
    frozen: bool


@dataclass(frozen=True, slots=True)
class WantedUser:
    """A user and their proofs; access_keys: pairs of id and secret; has_…: whether the file names any."""

    place: str
    name: str
    uid: str | None
    role: Role
    policies: tuple[str, ...]
    password: str | None
    access_keys: tuple[tuple[str, str], ...]
    tokens: tuple[WantedToken, ...]
    has_tokens: bool
    kind: str | None
    disabled: bool | None
    keys: tuple[WantedUserKey, ...]
    has_keys: bool
    sources: tuple[WantedSource, ...]
    has_sources: bool


@dataclass(frozen=True, slots=True)
class WantedCredential:
    """A key on a system user of a server, as the file has it."""

    label: str
    username: str
    public_key: str
    temporary: bool
    expires_at: datetime | None
    restrictions: Mapping[str, object]
    break_glass: bool
    frozen: bool


@dataclass(frozen=True, slots=True)
class WantedGroup:
    """A group and the names of its users."""

    place: str
    name: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WantedServer:
    """A server; id: of an existing one; was: its former name; has_…: the file names any; host_keys: lines and ports."""

    place: str
    name: str
    id: int | None
    was: str | None
    address: str
    provider: str | None
    has_provider: bool
    tags: tuple[str, ...]
    accounts: tuple[str, ...]
    mode: str | None
    credentials: tuple[WantedCredential, ...]
    has_credentials: bool
    offline_after_seconds: int | None
    offline_then: str | None
    host_keys: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class WantedDeployKey:
    """A key that opens one repository, as the file has it."""

    title: str
    public_key: str
    application: str
    can_push: bool


@dataclass(frozen=True, slots=True)
class WantedRepository:
    """A repository; members: user name to role; None: stays as it is."""

    place: str
    path: str
    id: int | None
    visibility: int | None
    protect_default: bool | None
    members: Mapping[str, RepositoryRole]
    deploy_keys: tuple[WantedDeployKey, ...]
    has_deploy_keys: bool


@dataclass(frozen=True, slots=True)
class WantedGrant:
    """A grant, by names."""

    place: str
    user: str | None
    group: str | None
    server: str | None
    tag: str | None
    all: bool
    system_user: str
    starts_at: datetime | None
    expires_at: datetime | None
    restrictions: Mapping[str, object]
    reason: str | None
    break_glass: bool

    @property
    def words(self) -> str:
        """Who logs in, as whom and where."""
        where = "all servers" if self.all else self.server or f"tag {self.tag}"
        return f"{self.user or f'group {self.group}'} as {self.system_user} on {where}"

    @property
    def whole(self) -> str:
        """The same with its terms, unique among the file's grants."""
        limits = sorted((name, str(value)) for name, value in self.restrictions.items())
        return f"{self.words} {self.starts_at} {self.expires_at} {limits} {self.reason} {self.break_glass}"


@dataclass(frozen=True, slots=True)
class WantedRule:
    """A rule of requests for access."""

    place: str
    name: str
    approvers: int
    server: str | None
    tag: str | None
    system_user: str | None
    max_duration: str | None


@dataclass(frozen=True, slots=True)
class WantedKeyPolicy:
    """Which keys the workspace accepts; empty types, and None for the bits: as the service's settings say."""

    types: tuple[str, ...]
    rsa_minimum_bits: int | None

    @property
    def words(self) -> str:
        """What is accepted, in words."""
        types = f"of {', '.join(self.types)}" if self.types else "of the types that the service accepts"
        return types if self.rsa_minimum_bits is None else f"{types}, RSA of at least {self.rsa_minimum_bits} bits"


@dataclass(frozen=True, slots=True)
class WantedRevocation:
    """A key that is revoked everywhere."""

    place: str
    fingerprint: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class WorkspaceFile:
    """What a file declares."""

    name: str
    tags: tuple[str, ...]
    key_policy: WantedKeyPolicy | None
    projects: tuple[WantedProject, ...]
    users: tuple[WantedUser, ...]
    groups: tuple[WantedGroup, ...]
    servers: tuple[WantedServer, ...]
    repositories: tuple[WantedRepository, ...]
    grants: tuple[WantedGrant, ...]
    rules: tuple[WantedRule, ...]
    has_rules: bool
    revoked_keys: tuple[WantedRevocation, ...]
