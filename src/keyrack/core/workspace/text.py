"""The TOML file of `keyrack apply`, read and checked, with the place of what is wrong; must change nothing."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from keyrack import policy
from keyrack.core import lifetimes, validation
from keyrack.core.git import repositories
from keyrack.core.hosts import servers
from keyrack.core.lifetimes import LifetimeError
from keyrack.core.people import passwords, tokens
from keyrack.core.people import users as people
from keyrack.core.workspace import schema
from keyrack.errors import Kind, Refusal
from keyrack.model import RepositoryRole, Role
from keyrack.ssh import names

SHOWN_FAULTS = 20
NOTHING = "Nothing was applied."
_HEADER = re.compile(r"\s*\[\[\s*([a-z_]+)\s*\]\]")


@dataclass(frozen=True, slots=True)
class WantedProject:
    """A project; place: where in the file, for words."""

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
    """An account elsewhere whose keys a user has here too; url: None for github.com and gitlab.com."""

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
    """A user with what proves who that is; access_keys: pairs of id and secret; has_…: the file says which."""

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
    """A server; id: of one there is already; was: the name it had before."""

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
    """A repository; members: user name to role; None: as it is."""

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
    """A grant by names."""

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
        """Who logs in where."""
        where = "all servers" if self.all else self.server or f"tag {self.tag}"
        return f"{self.user or f'group {self.group}'} as {self.system_user} on {where}"

    @property
    def whole(self) -> str:
        """The same with its terms, by which one of several is told from the others."""
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
    """Which keys the workspace accepts. types: empty, rsa_minimum_bits: None for as the service was started."""

    types: tuple[str, ...]
    rsa_minimum_bits: int | None

    @property
    def words(self) -> str:
        """What is accepted."""
        types = f"of {', '.join(self.types)}" if self.types else "of the types that the service accepts"
        return types if self.rsa_minimum_bits is None else f"{types}, RSA of at least {self.rsa_minimum_bits} bits"


@dataclass(frozen=True, slots=True)
class WantedRevocation:
    """A key that nobody may register."""

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


def read(text: str, environment: Mapping[str, str]) -> WorkspaceFile:
    """The file, each value checked by the core's own rules; raises Refusal INVALID with each fault and its place.

    environment: where `password_env` and the like are looked up.
    """
    try:
        values = tomllib.loads(text.removeprefix("\ufeff"))  # some editors begin a file with that
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise wrong("", f"the file is not valid TOML: {error}") from None
    reader = _Reader(text, environment)
    for name in values:
        if name not in schema.File.model_fields:
            raise wrong("", schema.unknown("", name))
    workspace = values.get("workspace")
    if not isinstance(workspace, dict):
        raise wrong("", 'the file lacks [workspace]; write it with the name of yours: name = "acme"')
    _shaped(workspace, "workspace", "[workspace]")
    with placed("[workspace]"):
        name = validation.text(workspace.get("name"), field="name")
        tags = tuple(servers.tag(value) for value in workspace.get("tags", []))
    file = WorkspaceFile(
        name=name,
        tags=tags,
        key_policy=_key_policy(values.get("key_policy")),
        projects=reader.all(values, "projects", reader.project, lambda one: one.name),
        users=reader.all(values, "users", reader.user, lambda one: one.name),
        groups=reader.all(values, "groups", reader.group, lambda one: one.name),
        servers=reader.all(values, "servers", reader.server, lambda one: one.name),
        repositories=reader.all(values, "repositories", reader.repository, lambda one: one.path),
        grants=reader.all(values, "grants", reader.grant, lambda one: one.whole),
        rules=reader.all(values, "request_rules", reader.rule, lambda one: one.name),
        has_rules="request_rules" in values,
        revoked_keys=reader.all(values, "revoked_keys", reader.revoked_key, lambda one: one.fingerprint),
    )
    reader.faults.refuse()
    return file


def _key_policy(entry: object) -> WantedKeyPolicy | None:
    place = "[key_policy]"
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise wrong("key_policy", f"it must be a table, under {place}")
    _shaped(entry, "key_policy", place)
    types = entry.get("key_types")
    if types == []:
        raise wrong(place, "key_types names at least one type; leave it out for those that the service accepts")
    return WantedKeyPolicy(tuple(sorted(set(types or ()))), entry.get("rsa_minimum_bits"))


def wrong(place: str, message: str) -> Refusal:
    """The refusal of a file as a whole; place: where in it, "" for all of it."""
    words = f"{place}: {message}" if place else message[:1].upper() + message[1:]
    return Refusal(Kind.INVALID, "file-invalid", f"{NOTHING} {words.rstrip('.')}.")


class Faults:
    """What is wrong with a file, one fault an entry, so that all of it can be mended at once."""

    def __init__(self) -> None:
        self._found: list[Refusal] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Go on behind an entry that is wrong."""
        try:
            yield
        except Refusal as refusal:
            if refusal.code != "file-invalid":
                raise
            self.add(refusal)

    def add(self, fault: Refusal) -> None:
        """Keep a fault for later."""
        self._found.append(fault)

    def refuse(self) -> None:
        """Raise what was found, the first twenty, if there is anything."""
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            lines = [one.message.removeprefix(f"{NOTHING} ") for one in self._found[:SHOWN_FAULTS]]
            more = len(self._found) - len(lines)
            lines += [f"And {more} more."] if more else []
            raise Refusal(Kind.INVALID, "file-invalid", "\n  ".join((f"{NOTHING} These are wrong:", *lines)))


class _Reader:
    """Reads one file's entries; knows the line at which each starts."""

    def __init__(self, text: str, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.faults = Faults()
        self._lines: dict[str, list[int]] = {}
        for number, line in enumerate(text.split("\n"), 1):
            header = _HEADER.match(line)
            if header:
                self._lines.setdefault(header[1], []).append(number)

    def all(
        self, values: Mapping[str, Any], section: str, read: Callable[[str, Any], Any], name: Callable[[Any], str]
    ) -> tuple[Any, ...]:
        """The entries of a section, each read; no name twice."""
        entries = values.get(section, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self.faults.add(wrong(section, f"it must hold tables, each under [[{section}]]"))
            return ()
        lines = self._lines.get(section, [])
        found: dict[str, Any] = {}
        for number, entry in enumerate(entries):
            place = f"[[{section}]] number {number + 1}"
            title = entry.get("path" if section == "repositories" else "name")
            place += f" ({title})" if isinstance(title, str) and title.isprintable() and len(title) < 100 else ""
            place += f", line {lines[number]}" if len(lines) == len(entries) else ""
            with self.faults.noted():
                _shaped(entry, section, place)
                with placed(place):
                    record = read(place, entry)
                if name(record) in found:
                    raise wrong(place, f"{name(record)!r} stands twice")
                found[name(record)] = record
        return tuple(found.values())

    def project(self, place: str, entry: Mapping[str, Any]) -> WantedProject:
        name = validation.text(entry.get("name"), field="name")
        return WantedProject(place, name, _uid(entry, "a project", place))

    def user(self, place: str, entry: Mapping[str, Any]) -> WantedUser:
        name = validation.called(entry.get("name"))
        password = self._secret(entry, "password", place)
        if password is not None:
            passwords.check(password)
        pairs = [self._access_key(place, item) for item in entry.get("access_keys", [])]
        if len(dict(pairs)) != len(pairs):
            raise wrong(place, "an access key stands twice")
        made = [self._token(place, item) for item in entry.get("tokens", [])]
        if len({token.name for token in made}) != len(made) or len({token.secret for token in made}) != len(made):
            raise wrong(place, "two tokens have the same name or the same text")
        return WantedUser(
            place=place,
            name=name,
            uid=_uid(entry, "a user", place),
            role=_role(entry.get("role", "member"), place),
            policies=policy.patterns(entry.get("policies", []), field="policies"),
            password=password,
            access_keys=tuple(pairs),
            tokens=tuple(made),
            has_tokens="tokens" in entry,
            kind=_one_of(entry.get("kind"), ("person", "service"), "kind", place),
            disabled=entry.get("disabled"),
            keys=tuple(
                WantedUserKey(
                    item.get("title"),
                    item["public_key"],
                    expires_at=_moment(item, "expires_at", place),
                    frozen=item.get("frozen", False),
                )
                for item in entry.get("keys", [])
            ),
            has_keys="keys" in entry,
            sources=tuple(
                WantedSource(item["kind"], item["account"], item.get("url")) for item in entry.get("key_sources", [])
            ),
            has_sources="key_sources" in entry,
        )

    def group(self, place: str, entry: Mapping[str, Any]) -> WantedGroup:
        members = dict.fromkeys(names.composed(name) for name in entry.get("members", []))
        return WantedGroup(place, validation.called(entry.get("name")), tuple(members))

    def server(self, place: str, entry: Mapping[str, Any]) -> WantedServer:
        return WantedServer(
            place=place,
            name=validation.text(entry.get("name"), field="name"),
            id=entry.get("id"),
            was=entry.get("was"),
            address=servers.host_address(entry.get("address")),
            provider=validation.text(entry["provider"], field="provider") if "provider" in entry else None,
            has_provider="provider" in entry,
            tags=tuple(dict.fromkeys(servers.tag(value) for value in entry.get("tags", []))),
            accounts=tuple(dict.fromkeys(validation.account(value) for value in entry.get("system_users", []))),
            mode=_one_of(entry.get("mode"), ("observe", "enforce", "auto"), "mode", place),
            credentials=self._credentials(place, entry.get("credentials", [])),
            has_credentials="credentials" in entry,
            offline_after_seconds=entry.get("offline_after_seconds"),
            offline_then=entry.get("offline_then"),
            host_keys=tuple((item["public_key"], item.get("port", 22)) for item in entry.get("host_keys", [])),
        )

    def revoked_key(self, place: str, entry: Mapping[str, Any]) -> WantedRevocation:
        return WantedRevocation(place, validation.fingerprint(entry["fingerprint"]), entry.get("reason"))

    def rule(self, place: str, entry: Mapping[str, Any]) -> WantedRule:
        name = validation.called(entry.get("name"))
        rest = {field: entry.get(field) for field in ("server", "tag", "system_user", "max_duration")}
        return WantedRule(place=place, name=name, approvers=entry.get("approvers", 1), **rest)

    def repository(self, place: str, entry: Mapping[str, Any]) -> WantedRepository:
        visibility = entry.get("visibility")
        if visibility is not None:
            repositories.visibility_of(visibility)
        protect = entry.get("protect_default")
        members: dict[str, RepositoryRole] = {}
        for item in entry.get("members", []):
            user = names.composed(validation.text(item.get("user"), field="user"))
            if user in members:
                raise wrong(place, f"the member {user!r} stands twice")
            members[user] = repositories.member_role(item.get("role", "developer"))
        return WantedRepository(
            place=place,
            path=repositories.path_of(entry.get("path")),
            id=entry.get("id"),
            visibility=visibility,
            protect_default=protect,
            members=members,
            deploy_keys=tuple(
                WantedDeployKey(
                    item["title"], item["public_key"], item.get("application") or "", item.get("can_push", False)
                )
                for item in entry.get("deploy_keys", [])
            ),
            has_deploy_keys="deploy_keys" in entry,
        )

    def grant(self, place: str, entry: Mapping[str, Any]) -> WantedGrant:
        of = {name: entry.get(name) for name in ("user", "group", "server", "tag")}
        if (of["user"] is None) == (of["group"] is None):
            raise wrong(place, "name either a user or a group")
        everywhere = bool(entry.get("all"))
        if (of["server"] is not None) + (of["tag"] is not None) + everywhere != 1:
            raise wrong(place, "name either a server or a tag, or write all = true")
        if of["tag"] is not None:
            servers.tag(of["tag"])
        return WantedGrant(
            place=place,
            user=None if of["user"] is None else names.composed(of["user"]),
            group=None if of["group"] is None else names.composed(of["group"]),
            server=of["server"],
            tag=of["tag"],
            all=everywhere,
            system_user=validation.account(entry.get("system_user"), field="system_user"),
            starts_at=_moment(entry, "starts_at", place),
            expires_at=_moment(entry, "expires_at", place),
            restrictions=validation.restrictions(entry.get("restrictions")),
            reason=entry.get("reason"),
            break_glass=entry.get("break_glass", False),
        )

    def _credentials(self, place: str, items: list[Mapping[str, Any]]) -> tuple[WantedCredential, ...]:
        made = [
            WantedCredential(
                label=validation.text(item["label"], field="label"),
                username=validation.account(item["username"]),
                public_key=item["public_key"],
                temporary=item.get("temporary", False),
                expires_at=_moment(item, "expires_at", place),
                restrictions=validation.restrictions(item.get("restrictions")),
                break_glass=item.get("break_glass", False),
                frozen=item.get("frozen", False),
            )
            for item in items
        ]
        if len({one.label for one in made}) != len(made):
            raise wrong(place, "two credentials have the same label")
        return tuple(made)

    def _access_key(self, place: str, item: Mapping[str, Any]) -> tuple[str, str]:
        key_id = validation.text(item.get("id"), field="id")
        secret = self._secret(item, "secret", place)
        if secret is None:
            raise wrong(place, f"the access key {key_id} has no secret")
        return key_id, secret

    def _token(self, place: str, item: Mapping[str, Any]) -> WantedToken:
        name = validation.text(item.get("name"), field="name")
        secret = self._secret(item, "token", place)
        if secret is None:
            raise wrong(place, f"the token {name!r} has no token")
        scopes = policy.patterns(item.get("scopes", ["*"]), field="scopes")
        return WantedToken(place, name, tokens.strong(secret), scopes, _moment(item, "expires_at", place))

    def _secret(self, item: Mapping[str, Any], name: str, place: str) -> str | None:
        variable = item.get(f"{name}_env")
        if variable is None:
            return item.get(name)
        if name in item:
            raise wrong(place, f"{name} and {name}_env are given both")
        if variable not in self._environment:
            raise wrong(place, f"the environment variable {variable} is not set")
        return self._environment[variable]


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Say where in the file it was that the core refused something."""
    try:
        yield
    except Refusal as refusal:
        if refusal.code == "file-invalid":
            raise
        field = f"{refusal.field}: " if refusal.field else ""
        raise wrong(place, field + refusal.message) from None


def _shaped(value: Mapping[str, Any], section: str, place: str) -> None:
    """Refuse what is not of the file's shape: unknown names, and values of another type."""
    problem = schema.problem(section, value)
    if problem is not None:
        raise wrong(place, problem)


def _one_of(value: str | None, known: tuple[str, ...], name: str, place: str) -> str | None:
    if value is not None and value not in known:
        raise wrong(place, f"{name} is one of {', '.join(known)}")
    return value


def _uid(entry: Mapping[str, Any], whose: str, place: str) -> str | None:
    uid = entry.get("id")
    if uid is not None and not people.PROJECT_UID.fullmatch(uid):
        raise wrong(place, f"{whose}'s id is 32 hexadecimal digits")
    return uid


def _role(value: Any, place: str) -> Role:
    try:
        return Role(value)
    except ValueError:
        raise wrong(place, f"{value!r} is no role; there are {', '.join(Role)}") from None


def _moment(value: Mapping[str, Any], name: str, place: str) -> datetime | None:
    at = value.get(name)
    if at is None:
        return None
    try:
        return lifetimes.zoned(at) if isinstance(at, datetime) else lifetimes.moment(str(at))
    except LifetimeError as problem:
        raise wrong(place, f"{name} {problem}") from None
