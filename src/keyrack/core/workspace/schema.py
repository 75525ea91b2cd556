"""The shape of the file of `keyrack apply`: its names and what each holds; must hold no rules for these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from keyrack.core import shape
from keyrack.core.hosts.ssh_lines import USUAL_PORT
from keyrack.model import MODES, USER_KINDS, RepositoryRole, Role
from keyrack.protocol.document_words import DROP_ALL, DROP_TEMPORARY, KEEP_ALL

LARGEST_ID = 2_000_000_000
"""The largest id that a file may give. Ids count on from it, and the database's end at 2,147,483,647."""
Texts = list[str]
Moment = Annotated[Any, WithJsonSchema({"type": "string", "format": "date-time"})]
"""A TOML time or a text with one; read_file.py says what is wrong with it."""
Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)


class Workspace(_Table):
    """The workspace that the file is about."""

    name: str = Field(description="Its name.")
    tags: Texts = Field([], description="Tags that grants may name though no server has them yet.")


class Project(_Table):
    """A project."""

    name: str = Field(description="Its name.")
    id: str | None = Field(None, description="Its id: 32 hexadecimal digits.")


class AccessKey(_Table):
    """An access key of a user."""

    id: str = Field(description="Its id.")
    secret: str | None = Field(None, description="Its secret; or name secret_env.")
    secret_env: str | None = Field(None, description="The environment variable that holds its secret.")


class Token(_Table):
    """An API token of a user."""

    name: str = Field(description="What it is called.")
    token: str | None = Field(None, description="The token; or name token_env.")
    token_env: str | None = Field(None, description="The environment variable that holds it.")
    scopes: Texts = Field(["*"], description="What it may be used for.")
    expires_at: Moment | None = Field(None, description="When it ends, with its zone.")


class UserKey(_Table):
    """A public key that a user registered."""

    public_key: str = Field(description="One line as ssh-keygen writes it.")
    title: str | None = Field(None, description="What it is called.")
    expires_at: Moment | None = Field(None, description="When it ends, with its zone; left out: as it is.")
    frozen: bool = Field(False, description="Whether it opens no new session until its owner confirms it.")


class KeySource(_Table):
    """An account elsewhere whose keys a user has here too."""

    kind: str = Field(description="What speaks there.", json_schema_extra={"enum": ["github", "gitlab"]})
    account: str = Field(description="The account's name there.")
    url: str | None = Field(None, description="The service, where it is not github.com or gitlab.com.")


class User(_Table):
    """A user, and what proves who that is."""

    name: str = Field(description="The name.")
    id: str | None = Field(None, description="The id: 32 hexadecimal digits.")
    role: str = Field("member", description="What the user may do.", json_schema_extra={"enum": list(Role)})
    password: str | None = Field(None, description="The first password; or name password_env.")
    password_env: str | None = Field(None, description="The environment variable that holds it.")
    policies: Texts = Field([], description="What a member may do beside it, such as codeartsrepo:*:*.")
    access_keys: list[AccessKey] = Field([], description="The user's access keys.")
    tokens: list[Token] = Field([], description="The user's API tokens.")
    kind: str | None = Field(
        None, description="A person, or a program.", json_schema_extra={"enum": [*USER_KINDS, None]}
    )
    disabled: bool | None = Field(None, description="Whether the user is shut out.")
    keys: list[UserKey] = Field([], description="The user's SSH keys.")
    key_sources: list[KeySource] = Field([], description="Accounts whose keys the user has here too.")


class Group(_Table):
    """A group of users."""

    name: str = Field(description="Its name.")
    members: Texts = Field([], description="Its users, by name.")


class Credential(_Table):
    """A key on a system user of a server."""

    label: str = Field(description="What it is called there.")
    username: str = Field(description="As which system user it logs in.")
    public_key: str = Field(description="One line as ssh-keygen writes it.")
    temporary: bool = Field(False, description="Whether the offline policy drop-temporary drops it.")
    expires_at: Moment | None = Field(None, description="When it ends, with its zone.")
    restrictions: dict[str, Any] | None = Field(None, description="What it may do.")
    break_glass: bool = Field(False, description="Whether its use is an alarm.")
    frozen: bool = Field(False, description="Whether it opens no new session until somebody confirms it.")


class HostKey(_Table):
    """A key by which people know a server, which somebody confirmed."""

    public_key: str = Field(description="One line as ssh-keyscan has it, without the name.")
    port: int = Field(USUAL_PORT, ge=1, le=65_535, description="The port of its sshd.")


class Server(_Table):
    """A server."""

    name: str = Field(description="Its name.")
    id: Id | None = Field(None, description="Its id, where there is one already.")
    was: str | None = Field(None, description="The name that it had before.")
    address: str = Field(description="Its address.")
    system_users: Texts = Field([], description="Its system users.")
    tags: Texts = Field([], description="Its tags.")
    provider: str | None = Field(None, description="Who runs the machine.")
    mode: str | None = Field(None, description="What its host is to do.", json_schema_extra={"enum": [*MODES, None]})
    credentials: list[Credential] = Field([], description="The keys on it.")
    offline_after_seconds: int | None = Field(None, description="After how long without the service; 0 for never.")
    offline_then: str | None = Field(
        None,
        description="What its host does then.",
        json_schema_extra={"enum": [KEEP_ALL, DROP_TEMPORARY, DROP_ALL, None]},
    )
    host_keys: list[HostKey] = Field([], description="Its own keys; taken where none is known of it yet.")


class Member(_Table):
    """A member of a repository."""

    user: str = Field(description="The user, by name.")
    role: str = Field(
        "developer", description="What the user may do.", json_schema_extra={"enum": list(RepositoryRole)}
    )


class DeployKey(_Table):
    """A key that opens one repository."""

    title: str = Field(description="What it is called.")
    public_key: str = Field(description="One line as ssh-keygen writes it.")
    application: str | None = Field(None, description="Where it comes from.")
    can_push: bool = Field(False, description="Whether it may write, too.")


class Repository(_Table):
    """A Git repository."""

    path: str = Field(description="Its path.")
    id: Id | None = Field(None, description="Its id, where it must have this one.")
    members: list[Member] = Field([], description="Who may read and write it.")
    visibility: int | None = Field(
        None,
        description="0 private, 10 for the workspace, 20 for everybody to read.",
        json_schema_extra={"enum": [0, 10, 20, None]},
    )
    protect_default: bool | None = Field(None, description="Whether its default branch is protected.")
    deploy_keys: list[DeployKey] = Field([], description="Keys that open it and nothing else.")


class Grant(_Table):
    """Who may log in where: a user or a group, on a server, on servers with a tag, or on all."""

    user: str | None = Field(None, description="The user, by name.")
    group: str | None = Field(None, description="The group, by name.")
    server: str | None = Field(None, description="The server, by name.")
    tag: str | None = Field(None, description="All servers with this tag.")
    all: bool = Field(False, description="All servers of the workspace.")
    system_user: str = Field(description="As which system user.")
    starts_at: Moment | None = Field(None, description="When it begins, with its zone.")
    reason: str | None = Field(None, description="Why it is given.")
    expires_at: Moment | None = Field(None, description="When it ends, with its zone.")
    restrictions: dict[str, Any] | None = Field(None, description="What the keys may do.")
    break_glass: bool = Field(False, description="Whether its use is an alarm.")


class RequestRule(_Table):
    """How many must approve requests for access, and for how long at most."""

    name: str = Field(description="What it is called.")
    approvers: int = Field(1, description="How many different people must approve: 1 or 2.")
    server: str | None = Field(None, description="For this server alone, by name.")
    tag: str | None = Field(None, description="For servers with this tag alone.")
    system_user: str | None = Field(None, description="For this system user alone.")
    max_duration: str | None = Field(None, description="The longest span that may be asked for, such as 8h.")


class KeyPolicy(_Table):
    """Which keys the workspace accepts, stricter than the service was started with."""

    key_types: Texts | None = Field(None, description="Types of keys; those of the service where it is left out.")
    rsa_minimum_bits: int | None = Field(None, description="The shortest RSA key; likewise.")


class RevokedKey(_Table):
    """A key that was revoked everywhere: nobody registers it in the workspace again."""

    fingerprint: str = Field(description="SHA256:… as ssh-keygen -l prints it.")
    reason: str | None = Field(None, description="Why it was revoked.")


class File(_Table):
    """What `keyrack apply` reads, written in TOML."""

    workspace: Workspace = Field(description="The workspace.")
    key_policy: KeyPolicy | None = Field(None, description="Which keys it accepts.")
    projects: list[Project] = Field([], description="Its projects.")
    users: list[User] = Field([], description="Its users.")
    groups: list[Group] = Field([], description="Its groups.")
    servers: list[Server] = Field([], description="Its servers.")
    repositories: list[Repository] = Field([], description="Its repositories.")
    grants: list[Grant] = Field([], description="Its grants.")
    request_rules: list[RequestRule] = Field([], description="Its rules of requests for access.")
    revoked_keys: list[RevokedKey] = Field([], description="Keys that nobody may register.")


TABLES: Mapping[str, type[BaseModel]] = {
    "": File,
    "workspace": Workspace,
    "key_policy": KeyPolicy,
    "projects": Project,
    "users": User,
    "access_keys": AccessKey,
    "tokens": Token,
    "groups": Group,
    "servers": Server,
    "repositories": Repository,
    "members": Member,
    "grants": Grant,
    "keys": UserKey,
    "key_sources": KeySource,
    "credentials": Credential,
    "request_rules": RequestRule,
    "host_keys": HostKey,
    "deploy_keys": DeployKey,
    "revoked_keys": RevokedKey,
}


def problem(section: str, entry: Mapping[str, Any]) -> str | None:
    """What is wrong with the shape of one table, in words, None for nothing; section: a name of TABLES."""
    try:
        TABLES[section].model_validate(entry)
    except ValidationError as error:
        fault = shape.faults(error)[0]
    else:
        return None
    if fault.kind != shape.UNKNOWN:
        return f"{fault.path or 'it'} {fault.words}"
    return unknown(next((str(one) for one in fault.place[-3:-2]), section), str(fault.place[-1]))


def unknown(section: str, name: str) -> str:
    """The words for an unknown name in a table."""
    where = f" in [{section}]" if section else ""
    return f"unknown name {name!r}{where}; known: {', '.join(sorted(TABLES[section].model_fields))}"


def json_schema() -> dict[str, Any]:
    """The file's shape as JSON Schema 2020-12, for editors and other programs."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **File.model_json_schema()}
