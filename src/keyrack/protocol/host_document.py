"""The host document, all that one host must obey: written by the service, read by the agent; must sign nothing.

Format 1 is one JSON object, ASCII, keys sorted, no blanks, so that the same content is the same bytes:

    format       1; another number is refused, because it may mean what this reader cannot do
    host         opaque name of the one host it is for
    revision     a number that grows with each change
    issued_at    when it was made
    users        account name -> list of {"key", "expires_at" or null, "options", "name"}
    accounts     account name -> {"present": true or false}: to create or to remove; others stay. May also hold
                 "password_hash" (crypt(5)) and "deployment_key": true, for a key pair in the account's home
    revoked      public keys that this host must refuse
    sshd         sshd keyword -> wanted value, only the ones asked for
    mode         "adopt" (observe) or "enforce"
    stale        the offline policy, {"after_seconds", "then"}: what to do without an answer from the service; 0 = never
    end_sessions names of live sessions, as the host reported them, that must end; may be left out

These fields may be absent:

    take_away    list of {"path", "fingerprint"}: unmanaged keys that must go from that file
    break_glass  account name -> list of public keys that the offline policy does not drop there
    frozen       account name -> list as in users: keys that open no new session; those that are open go on
    deleted      true: the service does not serve this host any more, and there will be no other document
    lineage      a random mark of this revision, eight hexadecimal digits: the host says it with the revision that it
                 obeys, so that a restored database tells its own revisions from those of the one that was lost

"adopt", "stale" and "take_away" are this format's words for what is called observe, offline policy and removal of
keys everywhere else: they stay, as older agents obey a newer service.

All other fields of format 1 must be there. Unknown fields are left alone, so that a newer service can tell newer
agents more; not inside a key, where an unknown field may be a restriction that must not be dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import (
    Any,
    NamedTuple,
    Optional,
    Tuple,
    TypeVar,
)

from keyrack.protocol.document_words import DROP_ALL, DROP_TEMPORARY, ENFORCE, KEEP_ALL, OBSERVE
from keyrack.ssh import fingerprint, names, options, public_key

T = TypeVar("T")
_Entry = Tuple[str, Optional[str], Tuple[str, ...], str]
"""A key as it stands in a document: the key, its end, its options, its name."""

FORMAT = 1
_MODE_WORDS = {OBSERVE: "adopt", ENFORCE: "enforce"}  # as format 1 has them

# Bounds against a document that would eat the host's memory or time; far above what sshd can serve quickly.
MAX_CHARACTERS = 64 * 1024 * 1024
MAX_USERS = 10_000
MAX_KEYS = 200_000  # of all users together, and of the revoked ones
MAX_SESSIONS = 10_000

_HOST = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_MOMENT = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})Z")
_KEYWORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_SETTING = re.compile(r"[A-Za-z0-9@*?!%+,.:/=_-][ A-Za-z0-9@*?!%+,.:/=_-]{0,1023}")
# What useradd's file can hold of crypt(5)'s forms that are still made: SHA-512, SHA-256, yescrypt, bcrypt.
_PASSWORD_HASH = re.compile(r"\$(6|5|y|2b)\$[A-Za-z0-9./$=,]{8,500}")
_FINGERPRINT = re.compile(fingerprint.PATTERN)
_PATH = re.compile(r"/[^\x00-\x1f\x7f]{1,1023}")
_SESSION = re.compile(r"[A-Za-z0-9-]{1,64}")
_LINEAGE = re.compile(r"[0-9a-f]{8}")
_LARGEST_NUMBER = 2**63 - 1
_in_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


class DocumentError(ValueError):
    """A text that is no host document; the words say what and where, and are safe to print."""


class AuthorizedKey(NamedTuple):
    """What opens an account. public_key: type and base64; expires_at None: no end; options: as sshd reads them."""

    public_key: str
    expires_at: Optional[datetime] = None
    options: tuple[str, ...] = ()
    name: str = ""


class DesiredAccount(NamedTuple):
    """Whether an account must exist on the host; password_hash: crypt(3)'s form; deployment_key: it needs a pair."""

    present: bool
    password_hash: Optional[str] = None
    deployment_key: bool = False


class OfflinePolicy(NamedTuple):
    """What happens after after_seconds without an answer (0: never): keep, drop-temporary or drop-all."""

    after_seconds: int = 0
    then: str = KEEP_ALL


class KeyRemoval(NamedTuple):
    """A key that was found in a file of the host and must not stay there."""

    path: str
    fingerprint: str


class HostDocument(NamedTuple):
    """All that one host must obey at a revision; times are aware and whole seconds."""

    host: str
    revision: int
    issued_at: datetime
    users: Mapping[str, Sequence[AuthorizedKey]]
    revoked: Sequence[str] = ()
    accounts: Mapping[str, DesiredAccount] = {}
    sshd: Mapping[str, str] = {}
    mode: str = ENFORCE
    offline_policy: OfflinePolicy = OfflinePolicy()
    remove_keys: Sequence[KeyRemoval] = ()
    end_sessions: Sequence[str] = ()
    deleted: bool = False
    break_glass: Mapping[str, Sequence[str]] = {}
    frozen: Mapping[str, Sequence[AuthorizedKey]] = {}
    lineage: str = ""


def encode(document: HostDocument, texts: Optional[Mapping[str, Sequence[str]]] = None) -> str:
    """The text of a document. Fractions of a second are cut off, so that a key never lives longer than asked.

    It does not check the document: decode does, on the host. texts: key_text of each of its users' keys, where these
    are known already. Raises ValueError for a time without zone.
    """
    if texts is None:
        texts = {name: list(map(key_text, entries)) for name, entries in document.users.items()}
    rest = _in_json(
        {
            "format": FORMAT,
            "host": document.host,
            "revision": document.revision,
            "issued_at": _moment_text(document.issued_at),
            "accounts": {name: _account_fields(account) for name, account in document.accounts.items()},
            "revoked": list(document.revoked),
            "sshd": dict(document.sshd),
            "mode": _MODE_WORDS.get(document.mode, document.mode),
            "stale": {"after_seconds": document.offline_policy.after_seconds, "then": document.offline_policy.then},
            **({"take_away": [entry._asdict() for entry in document.remove_keys]} if document.remove_keys else {}),
            **({"end_sessions": list(document.end_sessions)} if document.end_sessions else {}),
            **(
                {"break_glass": {n: list(some) for n, some in document.break_glass.items()}}
                if document.break_glass
                else {}
            ),
            **(
                {"frozen": {n: [_key_fields(key) for key in some] for n, some in document.frozen.items()}}
                if document.frozen
                else {}
            ),
            **({"deleted": True} if document.deleted else {}),
            **({"lineage": document.lineage} if document.lineage else {}),
        }
    )
    # "users" sorts last; it is nearly all of a large document, and its keys' texts are made elsewhere.
    users = ",".join([f"{_in_json(name)}:[{','.join(texts[name])}]" for name in sorted(document.users)])
    return f'{rest[:-1]},"users":{{{users}}}}}'


def key_text(entry: AuthorizedKey) -> str:
    """A key as it stands in the text of a document."""
    return _in_json(_key_fields(entry))


def _key_fields(entry: AuthorizedKey) -> dict[str, Any]:
    return {
        "key": entry.public_key,
        "expires_at": None if entry.expires_at is None else _moment_text(entry.expires_at),
        "options": list(entry.options),
        "name": entry.name,
    }


def _account_fields(account: DesiredAccount) -> dict[str, Any]:
    fields: dict[str, Any] = {"present": account.present}
    if account.password_hash is not None:
        fields["password_hash"] = account.password_hash
    if account.deployment_key:
        fields["deployment_key"] = True
    return fields


def decode(text: str, last: Optional[HostDocument] = None) -> HostDocument:
    """Read a document, or raise DocumentError: one bad thing refuses all of it.

    Keys are checked in all but their mathematics, which the service did before it stored them; the caller
    checks the signature. last: a document that was read before; keys that are the same in it are not checked again.
    """
    if len(text) > MAX_CHARACTERS:
        raise DocumentError("the document is too large")
    try:
        fields = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except DocumentError:
        raise
    except (ValueError, RecursionError):
        raise DocumentError("the document is not JSON") from None
    if not isinstance(fields, dict):
        raise DocumentError("the document is not a JSON object")
    if _field(fields, "format", _integer) != FORMAT:
        raise DocumentError(f"the document has format {fields['format']}; this program reads format {FORMAT}")
    return HostDocument(
        host=_field(fields, "host", _matching(_HOST, "the name of a host")),
        revision=_field(fields, "revision", _integer),
        issued_at=_field(fields, "issued_at", _moment),
        users=_users(_field(fields, "users", _mapping), _entries(last)),
        revoked=_revoked(_field(fields, "revoked", _list)),
        accounts=_accounts(_field(fields, "accounts", _mapping)),
        sshd=_sshd(_field(fields, "sshd", _mapping)),
        mode=_field(fields, "mode", _mode),
        offline_policy=_offline_policy(_field(fields, "stale", _mapping)),
        remove_keys=_removals(_field(fields, "take_away", _list)) if "take_away" in fields else (),
        end_sessions=_located("end_sessions", _end_sessions, fields.get("end_sessions", [])),
        break_glass=_keys_of_accounts(_optional(fields, "break_glass", _mapping, "") or {}),
        frozen=_users(_optional(fields, "frozen", _mapping, "") or {}),
        deleted=_optional(fields, "deleted", _boolean, "") or False,
        lineage=_field(fields, "lineage", _matching(_LINEAGE, "a mark")) if "lineage" in fields else "",
    )


def _entries(last: Optional[HostDocument]) -> dict[_Entry, AuthorizedKey]:
    """The keys of a document that was read before, by what stood there."""
    if last is None:
        return {}
    return {
        (
            entry.public_key,
            None if entry.expires_at is None else _moment_text(entry.expires_at),
            entry.options,
            entry.name,
        ): entry
        for entries in last.users.values()
        for entry in entries
    }


def _entry(value: Any, known: Mapping[_Entry, AuthorizedKey]) -> Optional[AuthorizedKey]:
    """The key of a document that was read before, where this entry is the same; None for any other."""
    try:
        if type(value["options"]) is list and len(value) == 4:
            return known.get((value["key"], value["expires_at"], tuple(value["options"]), value["name"]))
    except (TypeError, KeyError):
        pass  # _user_key says what is wrong
    return None


def _users(
    value: Mapping[str, Any], known: Mapping[_Entry, AuthorizedKey] = {}
) -> dict[str, tuple[AuthorizedKey, ...]]:
    if len(value) > MAX_USERS:
        raise DocumentError(f"users: more than {MAX_USERS}")
    users: dict[str, tuple[AuthorizedKey, ...]] = {}
    count = 0
    for username, entries in value.items():
        _username(username, "users")
        where = f"users.{username}"
        if not isinstance(entries, list):
            raise DocumentError(f"{where}: is not a list")
        count += len(entries)
        if count > MAX_KEYS:
            raise DocumentError(f"users: more than {MAX_KEYS} keys")
        read = tuple(
            (_entry(entry, known) if known else None) or _user_key(entry, f"{where}[{at}]")
            for at, entry in enumerate(entries)
        )
        # sshd goes on to the next line when one has expired, so of two lines of one key the earlier end has no effect.
        if len({(entry.public_key, entry.options) for entry in read}) != len(read):
            raise DocumentError(f"{where}: holds a key twice")
        users[username] = read
    return users


def _user_key(value: Any, where: str) -> AuthorizedKey:
    if not isinstance(value, dict):
        raise DocumentError(f"{where}: is not an object")
    unknown = set(value) - {"key", "expires_at", "options", "name"}
    if unknown:
        raise DocumentError(f"{where}: has a field that this program does not know; it may need an update")
    return AuthorizedKey(
        public_key=_field(value, "key", _key, where),
        expires_at=_field(value, "expires_at", _moment_or_none, where),
        options=_field(value, "options", _options, where),
        name=_field(value, "name", _text, where) if "name" in value else "",
    )


def _options(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > options.MAX_OPTIONS:
        raise DocumentError(f"is not a list of at most {options.MAX_OPTIONS} options")
    for option in value:
        if not isinstance(option, str) or len(option) > options.LONGEST_OPTION:
            raise DocumentError("is no list of options")
    try:
        options.check_rendered(value)
    except ValueError as error:
        raise DocumentError(str(error)) from None
    return tuple(value)


def _key(value: Any) -> str:
    # Invariant 1: on the host too a public key comes from the strict parser, or not at all.
    if not isinstance(value, str):
        raise DocumentError("is not a public key")
    try:
        return public_key.read_canonical(value).canonical
    except public_key.KeyProblem as problem:
        raise DocumentError(f"is not a public key: {problem}") from None


def _keys_of_accounts(value: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    if len(value) > MAX_USERS:
        raise DocumentError(f"break_glass: more than {MAX_USERS}")
    keys: dict[str, tuple[str, ...]] = {}
    for username, lines in value.items():
        _username(username, "break_glass")
        if not isinstance(lines, list) or len(lines) > MAX_KEYS:
            raise DocumentError(f"break_glass.{username}: is no list of at most {MAX_KEYS} keys")
        keys[username] = tuple(_located(f"break_glass.{username}", _key, line) for line in lines)
    return keys


def _revoked(value: list[Any]) -> tuple[str, ...]:
    if len(value) > MAX_KEYS:
        raise DocumentError(f"revoked: more than {MAX_KEYS} keys")
    return tuple(_located(f"revoked[{at}]", _key, line) for at, line in enumerate(value))


def _end_sessions(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_SESSIONS:
        raise DocumentError(f"is not a list of at most {MAX_SESSIONS} sessions")
    return tuple(map(_matching(_SESSION, "a list of sessions"), value))


def _accounts(value: Mapping[str, Any]) -> dict[str, DesiredAccount]:
    if len(value) > MAX_USERS:
        raise DocumentError(f"accounts: more than {MAX_USERS}")
    accounts: dict[str, DesiredAccount] = {}
    for username, entry in value.items():
        _username(username, "accounts")
        if not isinstance(entry, dict):
            raise DocumentError(f"accounts.{username}: is not an object")
        where = f"accounts.{username}"
        accounts[username] = DesiredAccount(
            present=_field(entry, "present", _boolean, where),
            password_hash=_optional(entry, "password_hash", _matching(_PASSWORD_HASH, "a crypt(3) hash"), where),
            deployment_key=_optional(entry, "deployment_key", _boolean, where) or False,
        )
    return accounts


def _sshd(value: Mapping[str, Any]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for keyword, wanted in value.items():
        if not _KEYWORD.fullmatch(keyword):
            raise DocumentError("sshd: holds a name that is no sshd keyword")
        settings[keyword] = _located(f"sshd.{keyword}", _matching(_SETTING, "a value for sshd"), wanted)
    return settings


def _offline_policy(value: Mapping[str, Any]) -> OfflinePolicy:
    return OfflinePolicy(
        after_seconds=_field(value, "after_seconds", _integer, "stale"),
        then=_field(value, "then", _one_of(KEEP_ALL, DROP_TEMPORARY, DROP_ALL), "stale"),
    )


def _mode(value: Any) -> str:
    word = _one_of(*_MODE_WORDS.values())(value)
    return next(mode for mode, said in _MODE_WORDS.items() if said == word)


def _removals(value: list[Any]) -> tuple[KeyRemoval, ...]:
    if len(value) > MAX_USERS:
        raise DocumentError(f"take_away: more than {MAX_USERS}")
    removals = []
    for at, entry in enumerate(value):
        where = f"take_away[{at}]"
        if not isinstance(entry, dict):
            raise DocumentError(f"{where}: is not an object")
        path = _field(entry, "path", _matching(_PATH, "an absolute path"), where)
        key = _field(entry, "fingerprint", _matching(_FINGERPRINT, "a fingerprint"), where)
        removals.append(KeyRemoval(path, key))
    return tuple(removals)


def _field(fields: Mapping[str, Any], name: str, check: Callable[[Any], T], where: str = "") -> T:
    place = f"{where}.{name}" if where else name
    if name not in fields:
        raise DocumentError(f"{place}: is missing")
    return _located(place, check, fields[name])


def _optional(fields: dict[str, Any], name: str, check: Callable[[Any], T], where: str) -> Optional[T]:
    return _field(fields, name, check, where) if name in fields else None


def _located(place: str, check: Callable[[Any], T], value: Any) -> T:
    try:
        return check(value)
    except DocumentError as error:
        raise DocumentError(f"{place}: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        # Two readers could disagree about which one counts.
        raise DocumentError("the document names a field twice")
    return fields


def _no_constant(name: str) -> Any:
    raise DocumentError("the document is not JSON")


def _username(value: str, where: str) -> None:
    # Invariant 6: a name becomes a file's name, so nothing but the grammar of accounts passes.
    if names.account_problem(value) is not None:
        raise DocumentError(f"{where}: holds a name that no account can have")


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DocumentError("is not an object")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise DocumentError("is not a list")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST_NUMBER:
        raise DocumentError("is not a whole number from 0 up")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise DocumentError("is neither true nor false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1024:
        raise DocumentError("is not a text of at most 1,024 characters")
    return value


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise DocumentError(f"is not {what}")
        return value

    return check


def _one_of(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise DocumentError(f"is none of {', '.join(words)}")
        return value

    return check


def _moment_or_none(value: Any) -> Optional[datetime]:
    return None if value is None else _moment(value)


def _moment(value: Any) -> datetime:
    match = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise DocumentError('is not a time like "2026-11-22T16:00:00Z"')
    try:
        return datetime(*map(int, match.groups()), tzinfo=timezone.utc)  # type: ignore[arg-type, misc]
    except ValueError:
        raise DocumentError("is a time that does not exist") from None


def _moment_text(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError("a time in a host document needs a time zone")
    utc = value.astimezone(timezone.utc)
    # strftime does not pad years below 1000 everywhere, and isoformat writes +00:00.
    return f"{utc.year:04}-{utc.month:02}-{utc.day:02}T{utc.hour:02}:{utc.minute:02}:{utc.second:02}Z"
