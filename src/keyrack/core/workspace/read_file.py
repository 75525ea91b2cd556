"""Reads and checks the TOML file of `keyrack apply`, with the place of each fault; must change nothing."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from keyrack import policy
from keyrack.core import lifetimes, validation
from keyrack.core.git import repositories
from keyrack.core.hosts import servers
from keyrack.core.hosts.ssh_lines import USUAL_PORT
from keyrack.core.lifetimes import LifetimeError
from keyrack.core.people import passwords, tokens
from keyrack.core.people import users as people
from keyrack.core.workspace import schema
from keyrack.core.workspace.faults import Faults, placed, wrong
from keyrack.core.workspace.wanted import (
    WantedCredential,
    WantedDeployKey,
    WantedGrant,
    WantedGroup,
    WantedKeyPolicy,
    WantedProject,
    WantedRepository,
    WantedRevocation,
    WantedRule,
    WantedServer,
    WantedSource,
    WantedToken,
    WantedUser,
    WantedUserKey,
    WorkspaceFile,
)
from keyrack.model import MODES, USER_KINDS, RepositoryRole, Role
from keyrack.ssh import names

_HEADER = re.compile(r"\s*\[\[\s*([a-z_]+)\s*\]\]")


def read(text: str, environment: Mapping[str, str]) -> WorkspaceFile:
    """The file, each value checked by the core's own rules. Raises Refusal INVALID with each fault and its place.

    environment: where `password_env` and the like are looked up.
    """
    try:
        values = tomllib.loads(text.removeprefix("\ufeff"))  # a byte order mark, which some editors write
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


class _Reader:
    """Reads one file's entries; knows the line where each starts."""

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
        """The entries of a section, each read by `read`; refuses one whose `name` repeats."""
        entries = values.get(section, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self.faults.add(wrong(section, f"it must hold tables, each under [[{section}]]"))
            return ()
        lines = self._lines.get(section, [])
        records: dict[str, Any] = {}
        for number, entry in enumerate(entries):
            place = f"[[{section}]] number {number + 1}"
            title = entry.get("path" if section == "repositories" else "name")
            place += f" ({title})" if isinstance(title, str) and title.isprintable() and len(title) < 100 else ""
            place += f", line {lines[number]}" if len(lines) == len(entries) else ""
            with self.faults.noted():
                _shaped(entry, section, place)
                with placed(place):
                    record = read(place, entry)
                if name(record) in records:
                    raise wrong(place, f"{name(record)!r} stands twice")
                records[name(record)] = record
        return tuple(records.values())

    def project(self, place: str, entry: Mapping[str, Any]) -> WantedProject:
        name = validation.text(entry.get("name"), field="name")
        return WantedProject(place, name, _uid(entry, "a project", place))

    def user(self, place: str, entry: Mapping[str, Any]) -> WantedUser:
        name = validation.called(entry.get("name"))
        password = self._secret(entry, "password", place)
        if password is not None:
            passwords.check(password)
        access_keys = [self._access_key(place, item) for item in entry.get("access_keys", [])]
        if len(dict(access_keys)) != len(access_keys):
            raise wrong(place, "an access key stands twice")
        user_tokens = [self._token(place, item) for item in entry.get("tokens", [])]
        if len({token.name for token in user_tokens}) != len(user_tokens) or len(
            {token.secret for token in user_tokens}
        ) != len(user_tokens):
            raise wrong(place, "two tokens have the same name or the same text")
        return WantedUser(
            place=place,
            name=name,
            uid=_uid(entry, "a user", place),
            role=_role(entry.get("role", "member"), place),
            policies=policy.patterns(entry.get("policies", []), field="policies"),
            password=password,
            access_keys=tuple(access_keys),
            tokens=tuple(user_tokens),
            has_tokens="tokens" in entry,
            kind=_one_of(entry.get("kind"), USER_KINDS, "kind", place),
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
            mode=_one_of(entry.get("mode"), MODES, "mode", place),
            credentials=self._credentials(place, entry.get("credentials", [])),
            has_credentials="credentials" in entry,
            offline_after_seconds=entry.get("offline_after_seconds"),
            offline_then=entry.get("offline_then"),
            host_keys=tuple((item["public_key"], item.get("port", USUAL_PORT)) for item in entry.get("host_keys", [])),
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
        named = {name: entry.get(name) for name in ("user", "group", "server", "tag")}
        if (named["user"] is None) == (named["group"] is None):
            raise wrong(place, "name either a user or a group")
        everywhere = bool(entry.get("all"))
        if (named["server"] is not None) + (named["tag"] is not None) + everywhere != 1:
            raise wrong(place, "name either a server or a tag, or write all = true")
        if named["tag"] is not None:
            servers.tag(named["tag"])
        return WantedGrant(
            place=place,
            user=None if named["user"] is None else names.composed(named["user"]),
            group=None if named["group"] is None else names.composed(named["group"]),
            server=named["server"],
            tag=named["tag"],
            all=everywhere,
            system_user=validation.account(entry.get("system_user"), field="system_user"),
            starts_at=_moment(entry, "starts_at", place),
            expires_at=_moment(entry, "expires_at", place),
            restrictions=validation.restrictions(entry.get("restrictions")),
            reason=entry.get("reason"),
            break_glass=entry.get("break_glass", False),
        )

    def _credentials(self, place: str, items: list[Mapping[str, Any]]) -> tuple[WantedCredential, ...]:
        credentials = [
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
        if len({one.label for one in credentials}) != len(credentials):
            raise wrong(place, "two credentials have the same label")
        return tuple(credentials)

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


def _shaped(value: Mapping[str, Any], section: str, place: str) -> None:
    """Refuse unknown names, and values of another type."""
    problem = schema.problem(section, value)
    if problem is not None:
        raise wrong(place, problem)


def _one_of(value: str | None, known: tuple[str, ...], name: str, place: str) -> str | None:
    if value is not None and value not in known:
        raise wrong(place, f"{name} is one of {', '.join(known)}")
    return value


def _uid(entry: Mapping[str, Any], owner: str, place: str) -> str | None:
    uid = entry.get("id")
    if uid is not None and not people.PROJECT_UID.fullmatch(uid):
        raise wrong(place, f"{owner}'s id is 32 hexadecimal digits")
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
