"""One frozen record of settings, from environment and file, each with its help; must read nothing at import."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from keyrack import setting_values
from keyrack.setting_values import KEY_TYPES, read, setting

PREFIX = "keyrack_"
MAX_DAYS = 36_500
"""A hundred years: what lies further back than the calendar cannot be reckoned with."""


class SettingsError(ValueError):
    """What the environment or DATA/keyrack.toml says that is no setting, or no value of it, in words."""


@dataclass(frozen=True, init=False)
class Settings:
    """Every setting; each is also KEYRACK_NAME in the environment, and a line of DATA/keyrack.toml."""

    def __init__(self, **given: Any) -> None:
        """What is given counts first, then the environment, then DATA/keyrack.toml.

        Raises SettingsError, and what opening and reading the file raises.
        """
        from_environment = _environment()
        path = Path(given.get("data") or from_environment.get("data") or "keyrack-data") / "keyrack.toml"
        values = {**_file(path), **from_environment, **given}
        for name, field in FIELDS.items():
            try:
                value = read(field, values.get(name, field.default))
            except ValueError as error:
                raise SettingsError(f"{name}: {error}") from None
            object.__setattr__(self, name, value)

    listen: str = setting(
        check=setting_values.listen_address,
        default="127.0.0.1:8022",
        description="The address and port that the service listens on, HOST:PORT.",
    )
    data: Path = setting(
        default=Path("keyrack-data"),
        description="The folder with the instance's key and, without a database address, its database.",
    )
    database: str = setting(
        default="",
        description="The database's address, e.g. postgresql://keyrack@db/keyrack; empty: SQLite in the data folder.",
    )
    public_url: str = setting(
        check=setting_values.http_url,
        default="",
        description="The address at which hosts and programs reach the service; empty: http:// and `listen`.",
    )
    workers: int = setting(default=1, ge=1, le=64, description="How many processes serve HTTP; SQLite serves with one.")
    time_zone: str = setting(
        check=setting_values.time_zone,
        default="UTC",
        description="The zone in which CodeArts' created_at is written, e.g. Asia/Shanghai.",
    )
    cut_public_key: bool = setting(
        default=False,
        description="Answer only the first 50 characters of a key and '...' on RunCloud's API, as its examples do.",
    )
    require_key: bool = setting(
        default=False, description="Refuse CodeArts' published add call without a key instead of keeping it."
    )
    max_key_characters: int = setting(
        default=5000,
        ge=200,
        le=16000,
        description="The longest public key line that is accepted, in characters.",
    )
    max_user_keys: int = setting(default=100, ge=1, description="How many keys one user may register.")
    rsa_minimum_bits: int = setting(
        default=2048, ge=2048, le=16384, description="The shortest RSA key that is accepted."
    )
    public_keys: bool = setting(
        default=True,
        description="Show the public keys of a user of the first workspace to anybody who asks by name (/NAME.keys), "
        "as GitHub and GitLab do; false: to users of the workspace alone.",
    )
    key_source_minutes: int = setting(
        default=60,
        ge=0,
        le=10_080,
        description="How often the accounts at GitHub and GitLab that users named are looked at, in minutes; 0: never "
        "by itself.",
    )
    key_source_networks: str = setting(
        check=setting_values.network_list,
        default="",
        description="Private networks in which a GitHub or GitLab of your own may be asked for keys, also over http, "
        "with commas between, e.g. 10.0.0.0/8; empty: public addresses over https alone.",
    )
    key_types: tuple[str, ...] = setting(
        check=setting_values.key_types,
        default=KEY_TYPES,
        description="The types of public keys that are accepted.",
    )
    block_list: Path | None = setting(
        check=setting_values.existing_file,
        default=None,
        description="A file of fingerprints of keys that nobody may register.",
    )
    temporary_hours: float = setting(default=12, gt=0, le=8760, description="How long a temporary key lives, in hours.")
    token_hours: float = setting(default=24, gt=0, le=720, description="How long an IAM token lives, in hours.")
    oidc_issuer: str = setting(
        default="",
        description="The OpenID provider through which people of the first workspace may sign in to the console, as it "
        "names itself, e.g. https://login.example.org; empty: none. It sends them back to `public_url` and "
        "/login/oidc/callback, and may tell /login/oidc/backchannel which sessions are over.",
    )
    oidc_name: str = setting(default="OpenID Connect", description="What the button for that provider says.")
    oidc_client_id: str = setting(default="", description="What Keyrack is called at that provider.")
    oidc_client_secret: str = setting(
        default="", repr=False, description="The secret by which it proves itself there; empty: by PKCE alone."
    )
    oidc_scopes: str = setting(
        default="openid profile email", description="What that provider is asked for, with blanks between."
    )
    oidc_name_claim: str = setting(
        default="preferred_username", description="The claim of its tokens that is the name of a new user."
    )
    oidc_groups_claim: str = setting(default="groups", description="The claim of its tokens that lists groups.")
    oidc_roles: str = setting(
        check=setting_values.role_rules,
        default="",
        description="Whom that provider lets in, by its groups, and as what: GROUP=ROLE with commas between, * for "
        "everybody, e.g. ssh-admins=admin, staff=member; the highest counts, at each sign-in. Empty: nobody. "
        'Where a name has a comma, all as JSON, as in oidc_groups: {"Operations, Berlin": "admin", "*": "member"}.',
    )
    oidc_groups: str = setting(
        check=setting_values.group_rules,
        default="",
        description="Which of its groups are groups here, followed at each sign-in: GROUP=GROUP with commas between; "
        "where a name there has a comma, as in a directory, all of them as JSON: "
        '{"cn=ops,ou=groups,dc=example": "ops"}.',
    )
    oidc_networks: str = setting(
        check=setting_values.network_list,
        default="",
        description="Private networks in which that provider may be, also over http, with commas between; empty: it is "
        "at a public address over https.",
    )
    session_hours: float = setting(
        default=24, gt=0, le=8760, description="How long somebody stays signed in to the console at most, in hours."
    )
    session_idle_minutes: float = setting(
        default=120, gt=1, le=525_600, description="How long a session of the console lasts without use, in minutes."
    )
    leaver_undo_hours: float = setting(
        default=72,
        ge=0,
        le=8760,
        description="For how long it can be undone that a person was removed everywhere, in hours; 0: never.",
    )
    metrics_listen: str = setting(
        check=setting_values.optional_listen_address,
        default="",
        description="An address and port of its own for /metrics, HOST:PORT, e.g. 127.0.0.1:9402; empty: none.",
    )
    metrics_token: str = setting(
        default="",
        description="The bearer token that opens /metrics at the service's own address; empty: it is closed there.",
    )
    log_format: Literal["text", "json"] = setting(
        default="text", description="How lines of the log are written: as text, key=value, or as JSON."
    )
    rate_limit: int = setting(
        default=6000, ge=1, description="How many requests one token, access key or host may send a minute."
    )
    password_guesses: int = setting(
        default=20, ge=1, description="How many wrong passwords one address may send a minute."
    )
    token_guesses: int = setting(
        default=600, ge=1, description="How many wrong tokens, access keys and secrets one address may send a minute."
    )
    trusted_proxies: str = setting(
        check=setting_values.network_list,
        default="",
        description="Proxies in front of the service, whose word for a client's address is believed: addresses and "
        "networks with commas between, e.g. 127.0.0.1, 10.0.0.0/8; empty: none.",
    )
    forwarded_header: Literal["x-forwarded-for", "forwarded"] = setting(
        default="x-forwarded-for",
        description="The header in which trusted proxies name the client; they must set or extend it, always.",
    )
    git_listen: str = setting(
        check=setting_values.listen_address,
        default="127.0.0.1:2223",
        description="The address and port on which `keyrack git-host` serves Git over SSH, HOST:PORT.",
    )
    git_address: str = setting(
        default="",
        description="How clone addresses begin, e.g. git@git.example.org: or ssh://git@git.example.org:2223/; "
        "empty: made from `git_listen`.",
    )
    git_stale_seconds: int = setting(
        default=60,
        ge=0,
        le=3600,
        description="How old an answer Git may go on with while the database is away, in seconds.",
    )
    git_max_push_bytes: int = setting(
        default=1_000_000_000, ge=1_000_000, description="How much one push may send to Git, in bytes."
    )
    git_max_file_bytes: int = setting(
        default=200_000_000,
        ge=1_000_000,
        le=10_000_000_000,
        description="The largest file that Git takes, in bytes as it is checked out; a push needs as much memory, "
        "and sends at most one object for each hundred bytes of this.",
    )
    git_max_repository_bytes: int = setting(
        default=10_000_000_000, ge=1_000_000, description="How much one Git repository may take on the disk, in bytes."
    )
    git_keep_free_bytes: int = setting(
        default=500_000_000,
        ge=0,
        description="How much of the disk pushes leave free, in bytes; with less, nothing new is taken.",
    )
    git_max_transfer_seconds: int = setting(
        default=3600, ge=1, le=86_400, description="The longest that a clone, fetch or push may take, in seconds."
    )
    git_max_idle_seconds: int = setting(
        default=600,
        ge=1,
        le=86_400,
        description="How long a Git client may neither send nor take anything, in seconds (OpenSSH 9.2 and newer).",
    )
    git_max_cpu_seconds: int = setting(
        default=900, ge=1, description="How long one program of a Git operation may compute, in seconds."
    )
    git_max_memory_bytes: int = setting(
        default=2_000_000_000,
        ge=50_000_000,
        description="How much memory one program of a Git operation may take, in bytes.",
    )
    git_max_sessions: int = setting(
        default=200, ge=1, le=10_000, description="How many Git operations may be under way at once."
    )
    git_max_sessions_each: int = setting(
        default=20,
        ge=1,
        le=10_000,
        description="How many of them one user, or one deploy key, may have under way.",
    )
    max_revoked_keys: int = setting(
        default=10_000,
        ge=100,
        le=100_000,
        description="How many keys a host is told to refuse after it has said that it does, the newest; those that it "
        "finds in files of its own are always told.",
    )
    revocations_days: int = setting(
        default=400,
        ge=30,
        le=MAX_DAYS,
        description="How many days a revocation is kept after its host has said that it obeys; longer while the key is "
        "revoked everywhere or the host finds it in a file.",
    )
    events_days: int = setting(
        default=1096,
        ge=0,
        le=MAX_DAYS,
        description="How many days the audit log goes back; 0: for ever. Ended tokens, closed requests for access, "
        "ended freezes and offboardings that can be undone no more are kept as long.",
    )
    audit_checkpoint_file: Path | None = setting(
        default=None,
        description="A file that holds the last signed checkpoint of the audit log, for whoever keeps it elsewhere.",
    )
    known_triggers: str = setting(
        default="",
        description="Triggers, rules and views on Keyrack's tables that are your own, by name, with commas between: no "
        "alarm is raised about them, and `keyrack audit verify` goes on.",
    )
    key_uses_days: int = setting(
        default=400,
        ge=1,
        le=MAX_DAYS,
        description="How many days the last use of a key is kept once nothing has the key any more.",
    )
    deleted_servers_days: int = setting(
        default=400,
        ge=1,
        le=MAX_DAYS,
        description="How many days a deleted server waits for its host to hear of it.",
    )
    expired_keys_days: int = setting(
        default=0,
        ge=0,
        le=MAX_DAYS,
        description="For how many days after its end a key is not taken again; 0 is for ever.",
    )
    readd_expired_keys: bool = setting(
        default=False,
        description="Take a key again whose end came in the workspace; temporary keys always are. Keys that "
        "were revoked everywhere stay refused until that is lifted.",
    )
    notice_hours: float = setting(
        default=24,
        ge=0,
        le=24 * MAX_DAYS,
        description="How long before the end of a key or a grant an event says so, once, in hours; 0: never. Of what "
        "lasts shortly, when a quarter of its time is left.",
    )
    webhook_networks: str = setting(
        check=setting_values.network_list,
        default="",
        description="Private networks to which webhooks may be sent, also over http, with commas between, e.g. "
        "10.0.0.0/8; empty: to public addresses over https alone.",
    )
    syslog: str = setting(
        check=setting_values.syslog_address,
        default="",
        description="Where each event of the audit log is sent as a line of syslog (RFC 5424): udp://HOST:PORT, "
        "tcp://HOST:PORT or unix:/dev/log; empty: nowhere.",
    )
    event_lines: Path | None = setting(
        default=None,
        description="A file to which each event of the audit log is added as a line of JSON; it is opened anew for "
        "each look, so that it may be rotated.",
    )
    request_hours: float = setting(
        default=24, gt=0, le=8760, description="How long a request for access waits to be approved, in hours."
    )
    max_body_bytes: int = setting(
        default=1_000_000, ge=20_000, description="The longest request body that is read, in bytes."
    )

    @property
    def proxy_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """`trusted_proxies`, taken apart."""
        return self.networks("trusted_proxies")

    def networks(self, setting: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """A setting that lists networks, taken apart; setting: its name."""
        return setting_values.networks_in(str(getattr(self, setting)))

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


FIELDS: dict[str, Field[Any]] = {field.name: field for field in fields(Settings)}


def _environment() -> dict[str, Any]:
    """What the environment says, by the names of settings. A list is written as JSON there."""
    by_lower_name = {name.lower(): (name, value) for name, value in os.environ.items()}
    found: dict[str, Any] = {}
    for name, field in FIELDS.items():
        variable, value = by_lower_name.get(PREFIX + name, ("", None))
        if value is None:
            continue
        found[name] = value
        if isinstance(field.default, tuple):
            try:
                found[name] = json.loads(value)
            except ValueError:
                raise SettingsError(f'{variable}: a list is written as JSON, such as ["ssh-ed25519"]') from None
    return found


def _file(path: Path) -> dict[str, Any]:
    """What DATA/keyrack.toml says. A name that is no setting's is refused, as what it should say would not hold."""
    if not path.exists():
        return {}
    if not path.is_file():
        raise IsADirectoryError(errno.EISDIR, "it is not a file", str(path))
    import tomllib  # here, as most instances have no such file

    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # some editors begin a file with a mark
    except ValueError as error:
        raise SettingsError(f"keyrack.toml in the data folder is not valid TOML: {error}") from None
    for name in values:
        if name not in FIELDS:
            raise SettingsError(f"{path}: there is no setting {name!r}; see docs/running.md")
    return values
