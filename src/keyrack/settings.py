"""One frozen record of settings, from environment and file, each with its help; must read nothing at import."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import tomllib
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from keyrack.model import Role
from keyrack.ssh.names import name_problem

PREFIX = "keyrack_"
MOST_DAYS = 36_500
"""A hundred years: what lies further back than the calendar cannot be reckoned with."""


class SettingsError(ValueError):
    """What the environment or DATA/keyrack.toml says and no setting can be read of, in words."""


class Settings(BaseModel):
    """Every setting; each is also KEYRACK_NAME in the environment, and a line of DATA/keyrack.toml."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_default=True)

    def __init__(self, **given: Any) -> None:
        """What is given counts first, then the environment, then DATA/keyrack.toml.

        Raises pydantic's ValidationError, SettingsError, and what opening and reading the file raises.
        """
        said = _environment()
        path = Path(given.get("data") or said.get("data") or "keyrack-data") / "keyrack.toml"
        super().__init__(**{**_file(path), **said, **given})

    listen: str = Field(
        default="127.0.0.1:8022",
        description="The address and port that the service listens on, HOST:PORT.",
    )
    data: Path = Field(
        default=Path("keyrack-data"),
        description="The folder with the instance's key and, without a database address, its database.",
    )
    database: str = Field(
        default="",
        description="The database's address, e.g. postgresql://keyrack@db/keyrack; empty: SQLite in the data folder.",
    )
    public_url: str = Field(
        default="",
        description="The address at which hosts and programs reach the service; empty: http:// and `listen`.",
    )
    workers: int = Field(default=1, ge=1, le=64, description="How many processes serve HTTP; SQLite serves with one.")
    time_zone: str = Field(
        default="UTC", description="The zone in which CodeArts' created_at is written, e.g. Asia/Shanghai."
    )
    cut_public_key: bool = Field(
        default=False,
        description="Answer only the first 50 characters of a key and '...' on RunCloud's API, as its examples do.",
    )
    require_key: bool = Field(
        default=False, description="Refuse CodeArts' published add call without a key instead of keeping it."
    )
    max_key_characters: int = Field(
        default=5000,
        ge=200,
        le=16000,
        description="The longest public key line that is accepted, in characters.",
    )
    max_user_keys: int = Field(default=100, ge=1, description="How many keys one user may register.")
    rsa_minimum_bits: int = Field(default=2048, ge=2048, le=16384, description="The shortest RSA key that is accepted.")
    public_keys: bool = Field(
        default=True,
        description="Show the public keys of a user of the first workspace to anybody who asks by name (/NAME.keys), "
        "as GitHub and GitLab do; false: to users of the workspace alone.",
    )
    key_source_minutes: int = Field(
        default=60,
        ge=0,
        le=10_080,
        description="How often the accounts at GitHub and GitLab that users named are looked at, in minutes; 0: never "
        "by itself.",
    )
    key_source_networks: str = Field(
        default="",
        description="Private networks in which GitHub or GitLab of one's own may be asked for keys, also over http, "
        "with commas between, e.g. 10.0.0.0/8; empty: public addresses over https alone.",
    )
    key_types: tuple[str, ...] = Field(
        default=(
            "ssh-ed25519",
            "ecdsa-sha2-nistp256",
            "ecdsa-sha2-nistp384",
            "ecdsa-sha2-nistp521",
            "ssh-rsa",
            "sk-ssh-ed25519@openssh.com",
            "sk-ecdsa-sha2-nistp256@openssh.com",
        ),
        description="The types of public keys that are accepted.",
    )
    block_list: Path | None = Field(
        default=None, description="A file of fingerprints of keys that nobody may register."
    )
    temporary_hours: float = Field(default=12, gt=0, le=8760, description="How long a temporary key lives, in hours.")
    token_hours: float = Field(default=24, gt=0, le=720, description="How long an IAM token lives, in hours.")
    oidc_issuer: str = Field(
        default="",
        description="The OpenID provider through which people of the first workspace may sign in to the console, as it "
        "names itself, e.g. https://login.example.org; empty: none. It sends them back to `public_url` and "
        "/login/oidc/callback, and may tell /login/oidc/backchannel which sessions are over.",
    )
    oidc_name: str = Field(default="OpenID Connect", description="What the button for that provider says.")
    oidc_client_id: str = Field(default="", description="What Keyrack is called at that provider.")
    oidc_client_secret: str = Field(
        default="", repr=False, description="The secret by which it proves itself there; empty: by PKCE alone."
    )
    oidc_scopes: str = Field(
        default="openid profile email", description="What that provider is asked for, with blanks between."
    )
    oidc_name_claim: str = Field(
        default="preferred_username", description="The claim of its tokens that is the name of a new user."
    )
    oidc_groups_claim: str = Field(default="groups", description="The claim of its tokens that lists groups.")
    oidc_roles: str = Field(
        default="",
        description="Whom that provider lets in, by its groups, and as what: GROUP=ROLE with commas between, * for "
        "everybody, e.g. ssh-admins=admin, staff=member; the highest counts, at each sign-in. Empty: nobody. "
        'Where a name has a comma, all as JSON, as in oidc_groups: {"Operations, Berlin": "admin", "*": "member"}.',
    )
    oidc_groups: str = Field(
        default="",
        description="Which of its groups are groups here, followed at each sign-in: GROUP=GROUP with commas between; "
        "where a name there has a comma, as in a directory, all of them as JSON: "
        '{"cn=ops,ou=groups,dc=example": "ops"}.',
    )
    oidc_networks: str = Field(
        default="",
        description="Private networks in which that provider may be, also over http, with commas between; empty: it is "
        "at a public address over https.",
    )
    session_hours: float = Field(
        default=24, gt=0, le=8760, description="How long somebody stays signed in to the console at most, in hours."
    )
    session_idle_minutes: float = Field(
        default=120, gt=1, le=525_600, description="How long a session of the console lasts without use, in minutes."
    )
    leaver_undo_hours: float = Field(
        default=72,
        ge=0,
        le=8760,
        description="For how long it can be undone that a person was removed everywhere, in hours; 0: never.",
    )
    metrics_listen: str = Field(
        default="",
        description="An address and port of its own for /metrics, HOST:PORT, e.g. 127.0.0.1:9402; empty: none.",
    )
    metrics_token: str = Field(
        default="",
        description="The bearer token that opens /metrics at the service's own address; empty: it is closed there.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="How lines of the log are written: as text, key=value, or as JSON."
    )
    rate_limit: int = Field(
        default=6000, ge=1, description="How many requests one token, access key or host may send a minute."
    )
    password_guesses: int = Field(
        default=20, ge=1, description="How many wrong passwords one address may send a minute."
    )
    token_guesses: int = Field(
        default=600, ge=1, description="How many wrong tokens, access keys and secrets one address may send a minute."
    )
    trusted_proxies: str = Field(
        default="",
        description="Proxies in front of the service, whose word for a client's address is believed: addresses and "
        "networks with commas between, e.g. 127.0.0.1, 10.0.0.0/8; empty: none.",
    )
    forwarded_header: Literal["x-forwarded-for", "forwarded"] = Field(
        default="x-forwarded-for",
        description="The header in which trusted proxies name the client; they must set or extend it, always.",
    )
    git_listen: str = Field(
        default="127.0.0.1:2223",
        description="The address and port on which `keyrack git-host` serves Git over SSH, HOST:PORT.",
    )
    git_address: str = Field(
        default="",
        description="How clone addresses begin, e.g. git@git.example.org: or ssh://git@git.example.org:2223/; "
        "empty: made from `git_listen`.",
    )
    git_stale_seconds: int = Field(
        default=60,
        ge=0,
        le=3600,
        description="How old an answer Git may go on with while the database is away, in seconds.",
    )
    git_max_push_bytes: int = Field(
        default=1_000_000_000, ge=1_000_000, description="How much one push may send to Git, in bytes."
    )
    git_max_file_bytes: int = Field(
        default=200_000_000,
        ge=1_000_000,
        le=10_000_000_000,
        description="The largest file that Git takes, in bytes as it is checked out; a push needs as much memory, "
        "and sends at most one object for each hundred bytes of this.",
    )
    git_max_repository_bytes: int = Field(
        default=10_000_000_000, ge=1_000_000, description="How much one Git repository may take on the disk, in bytes."
    )
    git_keep_free_bytes: int = Field(
        default=500_000_000,
        ge=0,
        description="How much of the disk pushes leave free, in bytes; with less, nothing new is taken.",
    )
    git_max_transfer_seconds: int = Field(
        default=3600, ge=1, le=86_400, description="The longest that a clone, fetch or push may take, in seconds."
    )
    git_max_idle_seconds: int = Field(
        default=600,
        ge=1,
        le=86_400,
        description="How long a Git client may neither send nor take anything, in seconds (OpenSSH 9.2 and newer).",
    )
    git_max_cpu_seconds: int = Field(
        default=900, ge=1, description="How long one program of a Git operation may compute, in seconds."
    )
    git_max_memory_bytes: int = Field(
        default=2_000_000_000,
        ge=50_000_000,
        description="How much memory one program of a Git operation may take, in bytes.",
    )
    git_max_sessions: int = Field(
        default=200, ge=1, le=10_000, description="How many Git operations may be under way at once."
    )
    git_max_sessions_each: int = Field(
        default=20,
        ge=1,
        le=10_000,
        description="How many of them one user, or one deploy key, may have under way.",
    )
    max_revoked_keys: int = Field(
        default=10_000,
        ge=100,
        le=100_000,
        description="How many keys a host is told to refuse after it has said that it does, the newest; those that it "
        "finds in files of its own are always told.",
    )
    revocations_days: int = Field(
        default=400,
        ge=30,
        le=MOST_DAYS,
        description="How many days a revocation is kept after its host has said that it obeys; longer while the key is "
        "revoked everywhere or the host finds it in a file.",
    )
    events_days: int = Field(
        default=1096,
        ge=0,
        le=MOST_DAYS,
        description="How many days the audit log goes back; 0: for ever. Ended tokens, closed requests for access, "
        "ended freezes and offboardings that can be undone no more are kept as long.",
    )
    audit_checkpoint_file: Path | None = Field(
        default=None,
        description="A file that holds the last signed checkpoint of the audit log, for whoever keeps it elsewhere.",
    )
    known_triggers: str = Field(
        default="",
        description="Triggers, rules and views on Keyrack's tables that are your own, by name, with commas between: no "
        "alarm is raised about them, and `keyrack audit verify` goes on.",
    )
    key_uses_days: int = Field(
        default=400,
        ge=1,
        le=MOST_DAYS,
        description="How many days the last use of a key is kept once nothing has the key any more.",
    )
    deleted_servers_days: int = Field(
        default=400,
        ge=1,
        le=MOST_DAYS,
        description="How many days a deleted server waits for its host to hear of it.",
    )
    expired_keys_days: int = Field(
        default=0,
        ge=0,
        le=MOST_DAYS,
        description="For how many days after its end a key is not taken again; 0 is for ever.",
    )
    readd_expired_keys: bool = Field(
        default=False,
        description="Take a key again whose end came in the workspace; temporary keys always are. Keys that "
        "were revoked everywhere stay refused until that is lifted.",
    )
    notice_hours: float = Field(
        default=24,
        ge=0,
        le=24 * MOST_DAYS,
        description="How long before the end of a key or a grant an event says so, once, in hours; 0: never. Of what "
        "lasts shortly, when a quarter of its time is left.",
    )
    webhook_networks: str = Field(
        default="",
        description="Private networks to which webhooks may be sent, also over http, with commas between, e.g. "
        "10.0.0.0/8; empty: to public addresses over https alone.",
    )
    syslog: str = Field(
        default="",
        description="Where each event of the audit log is sent as a line of syslog (RFC 5424): udp://HOST:PORT, "
        "tcp://HOST:PORT or unix:/dev/log; empty: nowhere.",
    )
    event_lines: Path | None = Field(
        default=None,
        description="A file to which each event of the audit log is added as a line of JSON; it is opened anew for "
        "each look, so that it may be rotated.",
    )
    request_hours: float = Field(
        default=24, gt=0, le=8760, description="How long a request for access waits to be approved, in hours."
    )
    max_body_bytes: int = Field(
        default=1_000_000, ge=20_000, description="The longest request body that is read, in bytes."
    )

    @field_validator("trusted_proxies", "key_source_networks", "webhook_networks", "oidc_networks")
    @classmethod
    def _networks_are_some(cls, value: str, info: ValidationInfo) -> str:
        for part in filter(None, map(str.strip, value.split(","))):
            try:
                ipaddress.ip_network(part)
            except ValueError:
                raise ValueError(
                    f"{info.field_name}: {part!r} is no address or network, such as 127.0.0.1 or 10.0.0.0/8"
                ) from None
        return value

    @field_validator("syslog")
    @classmethod
    def _syslog_is_a_place(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            right = (
                parts.scheme in ("udp", "tcp") and bool(parts.hostname) and bool(parts.port) and not parts.path
            ) or (value.startswith("unix:/"))
        except ValueError:
            right = False
        if value and not right:
            raise ValueError("it takes udp://HOST:PORT, tcp://HOST:PORT or unix:/dev/log")
        return value

    @field_validator("time_zone")
    @classmethod
    def _zone_is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (OSError, ValueError, LookupError):
            raise ValueError(f"there is no time zone {value!r}; one is written like Asia/Shanghai") from None
        return value

    @field_validator("public_url")
    @classmethod
    def _url_is_one(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            whole = whole and not (parts.query or parts.fragment or "@" in parts.netloc)
        except ValueError:
            whole = False
        if value and not (whole and value.isascii() and value.isprintable() and " " not in value):
            raise ValueError("it takes the address that programs call, for example https://keys.example.org")
        return value

    @field_validator("key_types")
    @classmethod
    def _types_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = cls.model_fields["key_types"].default
        unknown = [one for one in value if one not in known]
        if unknown or not value:
            raise ValueError(f"{unknown[0]!r} is not one of {', '.join(known)}" if unknown else "name one at least")
        return value

    @field_validator("block_list")
    @classmethod
    def _list_is_there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"there is no file {value}")
        return value

    @field_validator("oidc_roles", "oidc_groups")
    @classmethod
    def _rules_name_two_things(cls, value: str, info: ValidationInfo) -> str:
        for theirs, ours in provider_rules(value):
            if not (theirs and ours):
                words = "write the provider's group, = and what it is here, or all of them as JSON"
                raise ValueError(f"{(theirs or ours)!r} is no rule: {words}")
            if info.field_name == "oidc_roles" and ours and ours not in set(Role):
                raise ValueError(f"{ours!r} is none of the roles {', '.join(Role)}")
            if info.field_name == "oidc_groups" and ours and name_problem(ours) is not None:
                raise ValueError(f"no group here can be called {ours!r}. {name_problem(ours)}")
        return value

    @field_validator("listen", "git_listen", "metrics_listen")
    @classmethod
    def _listen_has_a_port(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name == "metrics_listen":
            return value
        host, _, port = value.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        right = bare and not set("[] \t") & set(bare) and port.isascii() and port.isdigit() and len(port) < 6
        if not right or int(port) > 65535 or (":" in bare and not _is_ipv6(bare)):
            raise ValueError(f"{info.field_name} takes HOST:PORT, for example 127.0.0.1:8022 or [::1]:8022")
        # An IPv6 address is in brackets wherever a port follows it: addresses are made of this.
        return f"[{bare}]:{port}" if ":" in bare else value

    @property
    def proxy_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """`trusted_proxies`, taken apart."""
        parts = (part.strip() for part in self.trusted_proxies.split(","))
        return tuple(ipaddress.ip_network(part) for part in parts if part)

    def networks(self, setting: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """A setting that lists networks, taken apart; setting: its name."""
        parts = (part.strip() for part in str(getattr(self, setting)).split(","))
        return tuple(ipaddress.ip_network(part) for part in parts if part)

    @property
    def database_url(self) -> str:
        """The database's address, with the embedded default filled in."""
        return self.database or f"sqlite:///{self.data.resolve() / 'keyrack.db'}"

    @property
    def url(self) -> str:
        """The address at which the service is reached, without a slash at the end."""
        return (self.public_url or f"http://{self.listen}").rstrip("/")

    @property
    def host_and_port(self) -> tuple[str, int]:
        """`listen`, taken apart; brackets of an IPv6 address are removed."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def provider_rules(text: str) -> list[tuple[str, str]]:
    """`admins=admin, *=member`, or the same as a JSON object, taken apart: a provider's groups, each with what it is
    here. What is no rule has one of the two empty.

    Raises ValueError for JSON that names a group twice or says something else than text of one.
    """
    stripped = text.strip()
    if stripped.startswith("{") and stripped.endswith("}"):
        # No list of pairs ends so: neither a role nor a group here may be called that.
        try:
            pairs: list[tuple[str, str]] = json.loads(stripped, object_pairs_hook=list)
        except (ValueError, RecursionError):
            raise ValueError('it is no JSON object, such as {"Operations, Berlin": "ops"}') from None
        if not all(isinstance(ours, str) for _, ours in pairs):
            raise ValueError("in its JSON each of the provider's groups has a name as its value")
        if len({theirs for theirs, _ in pairs}) < len(pairs):
            raise ValueError("its JSON names one of the provider's groups twice")
        return pairs
    parts = (part.rpartition("=") for part in text.split(",") if part.strip())
    return [(theirs.strip(), ours.strip()) for theirs, _, ours in parts]


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _environment() -> dict[str, Any]:
    """What the environment says. A list is written as JSON there."""
    named = {name.lower(): (name, value) for name, value in os.environ.items()}
    found: dict[str, Any] = {}
    for setting, field in Settings.model_fields.items():
        name, value = named.get(PREFIX + setting, ("", None))
        if value is None:
            continue
        found[setting] = value
        if isinstance(field.default, tuple):
            try:
                found[setting] = json.loads(value)
            except ValueError:
                raise SettingsError(f'{name}: a list is written as JSON, such as ["ssh-ed25519"]') from None
    return found


def _file(path: Path) -> dict[str, Any]:
    """What DATA/keyrack.toml says. A name that is no setting's is refused, as what it should say would not hold."""
    if not path.exists():
        return {}
    if not path.is_file():
        raise IsADirectoryError(errno.EISDIR, "it is not a file", str(path))
    values = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # some editors begin a file with a mark
    for name in values:
        if name not in Settings.model_fields:
            raise SettingsError(f"{path}: there is no setting {name!r}; see docs/running.md")
    return values
