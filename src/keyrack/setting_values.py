"""What a setting is: its default, its help, what reads it from text or TOML, and checks; must name no setting."""

from __future__ import annotations

import ast
import ipaddress
import json
import math
import re
from collections.abc import Callable
from dataclasses import Field, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from keyrack.model import Role
from keyrack.ssh.names import name_problem

KEY_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


def _whole_number(value: object) -> int:
    if isinstance(value, str):
        if not re.fullmatch(r"\s*[+-]?[0-9]+(_[0-9]+)*(\.0+)?\s*", value):
            raise ValueError
        return int(value.partition(".")[0])
    if not isinstance(value, int | float) or value != int(value) or (isinstance(value, float) and value > 2**53):
        raise ValueError
    return int(value)


def _number(value: object) -> float:
    if not isinstance(value, int | float | str) or (isinstance(value, str) and not value.isascii()):
        raise ValueError
    return float(value)


def _boolean(value: object) -> bool:
    lower = value.lower() if isinstance(value, str) else value
    if lower in ("1", "on", "t", "true", "y", "yes", 1):
        return True
    if lower in ("0", "off", "f", "false", "n", "no", 0):
        return False
    raise ValueError


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _path(value: object) -> Path:
    if not isinstance(value, str | Path):
        raise ValueError
    return Path(value)


def _path_or_none(value: object) -> Path | None:
    return None if value is None else _path(value)


def _text_list(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError
    return tuple(map(_text, value))


_READERS: dict[str, tuple[Callable[[object], object], str]] = {
    "str": (_text, "text"),
    "int": (_whole_number, "a whole number"),
    "float": (_number, "a number"),
    "bool": (_boolean, "true or false"),
    "Path": (_path, "a path"),
    "Path | None": (_path_or_none, "a path"),
    "tuple[str, ...]": (_text_list, "a list of texts"),
}
"""By a setting's type as it is written: what reads it from text or from TOML, raising ValueError, and what it takes."""


def _reader_of(type_name: str) -> tuple[Callable[[object], object], str]:
    """What reads a type, as it is written in the class, and what it takes."""
    if not type_name.startswith("Literal["):
        return _READERS[type_name]
    choices = ast.literal_eval(type_name.removeprefix("Literal"))

    def one_of(value: object) -> object:
        if value not in choices:
            raise ValueError
        return value

    return one_of, " or ".join(choices)


def setting(
    *,
    default: object,
    description: str,
    ge: float = -math.inf,
    gt: float = -math.inf,
    le: float = math.inf,
    check: Callable[[Any], object] | None = None,
    repr: bool = True,
) -> Any:
    """A field of Settings. ge, gt, le: its bounds. check: takes what was read and returns what is kept, or raises
    ValueError with words. repr: False keeps a secret out of what is printed.
    """
    metadata = {"description": description, "ge": ge, "gt": gt, "le": le, "check": check}
    return field(default=default, repr=repr, metadata=metadata)


def read(setting: Field[Any], value: object) -> object:
    """A setting's value, of its type, within its bounds and checked; value: text, or what TOML or Python has.

    Raises ValueError with words.
    """
    its = setting.metadata
    reader, what = _reader_of(str(setting.type))
    try:
        found: Any = reader(value)
        if isinstance(found, int | float) and not (found >= its["ge"] and found > its["gt"] and found <= its["le"]):
            raise ValueError
    except (ValueError, OverflowError):
        words = {"gt": "more than", "ge": "at least", "le": "at most"}
        bounds = " and ".join(f"{word} {its[name]}" for name, word in words.items() if math.isfinite(its[name]))
        raise ValueError(f"it takes {what}{', ' if bounds else ''}{bounds}") from None
    return found if its["check"] is None else its["check"](found)


# Checks: each returns what is kept, and raises ValueError with words for what is no such thing.


def network_list(value: str) -> str:
    """Addresses and networks with commas between."""
    networks_in(value)
    return value


def syslog_address(value: str) -> str:
    """udp://HOST:PORT, tcp://HOST:PORT or unix:/PATH, or nothing."""
    try:
        parts = urlsplit(value)
        is_remote = parts.scheme in ("udp", "tcp") and parts.hostname and parts.port and not parts.path
        is_valid = is_remote or value.startswith("unix:/")
    except ValueError:
        is_valid = False
    if value and not is_valid:
        raise ValueError("it takes udp://HOST:PORT, tcp://HOST:PORT or unix:/dev/log")
    return value


def time_zone(value: str) -> str:
    """The name of a zone, such as Asia/Shanghai."""
    if value == "UTC":
        return value  # which is everywhere, and what knows zones is loaded for others alone
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(value)
    except (OSError, ValueError, LookupError):
        raise ValueError(f"there is no time zone {value!r}; one is written like Asia/Shanghai") from None
    return value


def http_url(value: str) -> str:
    """An address of HTTP without a user, a query or a fragment, or nothing."""
    try:
        parts = urlsplit(value)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        # Also an empty query or fragment: the paths that are put behind it would be a part of it.
        is_valid = is_valid and not ("?" in value or "#" in value or "@" in parts.netloc)
    except ValueError:
        is_valid = False
    if value and not (is_valid and value.isascii() and value.isprintable() and " " not in value):
        raise ValueError("it takes the address that programs call, for example https://keys.example.org")
    return value


def key_types(value: tuple[str, ...]) -> tuple[str, ...]:
    """Some of KEY_TYPES, one at least."""
    unknown = [one for one in value if one not in KEY_TYPES]
    if unknown or not value:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(KEY_TYPES)}" if unknown else "name one at least")
    return value


def existing_file(value: Path | None) -> Path | None:
    """The path of a file that is there, or None."""
    if value is not None and not value.is_file():
        raise ValueError(f"there is no file {value}")
    return value


def role_rules(value: str) -> str:
    """Rules for a provider's groups, each of which is a role here."""
    for ours in _named_here(value):
        if ours not in set(Role):
            raise ValueError(f"{ours!r} is none of the roles {', '.join(Role)}")
    return value


def group_rules(value: str) -> str:
    """Rules for a provider's groups, each of which is a group here."""
    for ours in _named_here(value):
        if name_problem(ours) is not None:
            raise ValueError(f"no group here can be called {ours!r}. {name_problem(ours)}")
    return value


def listen_address(value: str) -> str:
    """HOST:PORT; what is kept has an IPv6 address in brackets."""
    host, _, port = value.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_valid = bare and not set("[] \t") & set(bare) and port.isascii() and port.isdigit() and len(port) < 6
    if not is_valid or int(port) > 65535 or (":" in bare and not _is_ipv6(bare)):
        raise ValueError("it takes HOST:PORT, for example 127.0.0.1:8022 or [::1]:8022")
    # An IPv6 address is in brackets wherever a port follows it: addresses are made of this.
    return f"[{bare}]:{port}" if ":" in bare else value


def optional_listen_address(value: str) -> str:
    """HOST:PORT, or nothing."""
    return listen_address(value) if value else value


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


def networks_in(value: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """The networks of a list with commas between, an address as a network of one. Raises ValueError with words."""
    found = []
    for part in filter(None, map(str.strip, value.split(","))):
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError:
            raise ValueError(f"{part!r} is no address or network, such as 127.0.0.1 or 10.0.0.0/8") from None
    return tuple(found)


def _named_here(rules: str) -> list[str]:
    """The roles or groups that a provider's groups are here. Raises ValueError for a rule that lacks one of the two."""
    pairs = provider_rules(rules)
    for theirs, ours in pairs:
        if not (theirs and ours):
            words = "write the provider's group, = and what it is here, or all of them as JSON"
            raise ValueError(f"{(theirs or ours)!r} is no rule: {words}")
    return [ours for _, ours in pairs]


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
