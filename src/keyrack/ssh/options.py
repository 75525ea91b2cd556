"""Typed restrictions on a key, and the authorized_keys options they become; no user's text can become an option.

Names, quoting and order are those of sshd(8), AUTHORIZED_KEYS FILE FORMAT. What is not written here is not
allowed: expiry-time is made by authorized_keys.py alone; environment, principals, cert-authority and tunnel
by nobody.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from keyrack.ssh.names import hidden_character
from keyrack.ssh.quotes import quote_option, unquote_option

MAX_OPTIONS = 32  # of one line
LONGEST_OPTION = 8192  # characters
_LONGEST_COMMAND = 4096  # characters
_MAX_ENTRIES = 100  # in one list
# sshd backtracks over all stars before a pattern fails, and anybody can make it do so by offering the key.
_MAX_STARS = 4  # in one pattern, enough for *.*.*.*

# Permissions: a field of Restrictions, the option that gives it, the option that takes it.
_PERMISSIONS = (
    ("permit_pty", "pty", "no-pty"),
    ("agent_forwarding", "agent-forwarding", "no-agent-forwarding"),
    ("port_forwarding", "port-forwarding", "no-port-forwarding"),
    ("x11_forwarding", "X11-forwarding", "no-X11-forwarding"),
    ("user_rc", "user-rc", "no-user-rc"),
)
_FLAGS = frozenset(
    ["restrict", "verify-required", "no-touch-required", *(name for row in _PERMISSIONS for name in row[1:])]
)

_HOST_PATTERN = re.compile(r"[A-Za-z0-9*?]([A-Za-z0-9._*?-]{0,252}[A-Za-z0-9*?.])?")
_FORWARD_HOST = re.compile(r"\*|[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")
_NUMBERS = re.compile(r"[0-9.]+")


class _Fields(NamedTuple):
    sources: Tuple[str, ...] = ()
    command: Optional[str] = None
    restrict: bool = False
    permit_pty: Optional[bool] = None
    agent_forwarding: Optional[bool] = None
    port_forwarding: Optional[bool] = None
    x11_forwarding: Optional[bool] = None
    user_rc: Optional[bool] = None
    permitopen: Tuple[str, ...] = ()
    permitlisten: Tuple[str, ...] = ()
    verify_required: bool = False
    no_touch_required: bool = False


class Restrictions(_Fields):
    """What a key may do beyond what its account may. The default restricts nothing.

    sources: addresses, networks (10.0.0.0/8) or host patterns (*.example.com) it may come from, "!" in
    front denies; command: runs instead of what the client asks for; restrict: takes every permission that
    is not given below; permissions: True gives, False takes, None leaves it to `restrict` and to the
    server; permitopen: host:port that may be forwarded to; permitlisten: [host:]port that may be listened
    on; verify_required: the security key must check its user (PIN); no_touch_required: it need not be
    touched (both for sk- keys only). Raises ValueError with words for a person when a value breaks its
    grammar.
    """

    __slots__ = ()

    def __new__(cls, *values: Any, **named: Any) -> Restrictions:
        """The same arguments as fields; checked before anything is made of them."""
        made = super().__new__(cls, *values, **named)
        if made.command is not None:
            _check_command(made.command)
        for name, check in (("sources", _check_source), ("permitopen", _check_open), ("permitlisten", _check_listen)):
            entries = getattr(made, name)
            if len(entries) > _MAX_ENTRIES:
                raise ValueError(f"{name} has more than {_MAX_ENTRIES} entries.")
            for entry in entries:
                check(entry)
        if made.sources and all(source.startswith("!") for source in made.sources):
            raise ValueError("sources only denies, so nobody could log in; add what is allowed, such as *.")
        return made

    @classmethod
    def from_json(cls, value: object) -> Restrictions:
        """Reads what `to_json` writes; a field may be missing. Raises ValueError for anything else."""
        if not isinstance(value, Mapping):
            raise ValueError("Restrictions must be an object.")
        arguments: Dict[str, object] = {}
        for name, entry in value.items():
            if name not in cls._fields:
                # Never ignored: a restriction that is dropped is a permission that is given.
                raise ValueError("There is an unknown restriction; known are: " + ", ".join(cls._fields) + ".")
            arguments[name] = _READ[name](name, entry)
        return cls(**arguments)

    @property
    def forwards_nothing(self) -> bool:
        """Whether sshd forwards no port, whatever permitopen and permitlisten name: these give no permission."""
        return self.port_forwarding is False or (self.restrict and self.port_forwarding is None)

    def to_json(self) -> Dict[str, object]:
        """Only the fields that differ from their defaults, with lists for tuples."""
        chosen: Dict[str, object] = {}
        for name in self._fields:
            value = getattr(self, name)
            if value != self._field_defaults[name]:
                chosen[name] = list(value) if isinstance(value, tuple) else value
        return chosen


def render(restrictions: Restrictions, key_type: str) -> List[str]:
    """The options of one authorized_keys line, each ready to be joined with commas.

    Raises ValueError when an option cannot hold for a key of `key_type`, as sshd would refuse or ignore it, and for
    more than one line may have: a host refuses the whole document that has such a line.
    """
    rendered = written(restrictions, key_type)
    if len(rendered) > MAX_OPTIONS:
        raise ValueError(f"A key has at most {MAX_OPTIONS} options, each place to forward to one; * stands for any.")
    if any(len(option) > LONGEST_OPTION for option in rendered):
        raise ValueError(f"An option has at most {LONGEST_OPTION} characters; write a network or a pattern for many.")
    return rendered


def written(restrictions: Restrictions, key_type: str) -> List[str]:
    """The same without the limits of a line, for people to read. Raises ValueError for an option that cannot hold."""
    rendered = []
    if restrictions.restrict:
        rendered.append("restrict")  # first: sshd reads in order, and this revokes the permissions before it
    if restrictions.sources:
        rendered.append(f"from={quote_option(','.join(restrictions.sources))}")
    if restrictions.command is not None:
        rendered.append(f"command={quote_option(restrictions.command)}")
    for name, given, taken in _PERMISSIONS:
        permission = getattr(restrictions, name)
        if permission is not None:
            rendered.append(given if permission else taken)
    # Each once: sshd would accept one twice, but check_rendered(), which the agent calls, does not.
    rendered.extend(f"permitopen={quote_option(entry)}" for entry in dict.fromkeys(restrictions.permitopen))
    rendered.extend(f"permitlisten={quote_option(entry)}" for entry in dict.fromkeys(restrictions.permitlisten))
    for wanted, name in (
        (restrictions.verify_required, "verify-required"),
        (restrictions.no_touch_required, "no-touch-required"),
    ):
        if wanted:
            if not key_type.startswith("sk-"):
                raise ValueError(f"{name} only works with keys on a security key (types beginning with sk-).")
            rendered.append(name)
    return rendered


def check_rendered(rendered: Sequence[str]) -> None:
    """Raises ValueError unless every entry is one option that `render` could have made, and none comes twice.

    For the agent: it writes these texts into a file for sshd as they are, so it checks them itself.
    """
    seen = set()
    for option in rendered:
        if not isinstance(option, str):
            raise ValueError("An option is not text.")
        name, value = split_option(option)
        if value is None:
            if name not in _FLAGS:
                raise ValueError("An option is not one of those that Keyrack sets.")
        else:
            check = _VALUES.get(name)
            if check is None:
                raise ValueError("An option is not one of those that Keyrack sets.")
            check(value)
            if option != f"{name}={quote_option(value)}":
                raise ValueError(f"The option {name} is not quoted as sshd reads it.")
        key = option if name in ("permitopen", "permitlisten") else name
        if key in seen:
            raise ValueError(f"The option {name} comes twice.")
        seen.add(key)


def split_option(option: str) -> Tuple[str, Optional[str]]:
    """The name of an option and its value without quotes, as sshd takes them off; None when it has no value."""
    name, equals, quoted = option.partition("=")
    if not equals:
        return name, None
    if not quoted.startswith('"'):
        raise ValueError("The value of an option is not in quotes.")
    value, end = unquote_option(quoted, 0)
    if value is None or end != len(quoted):
        raise ValueError("The quotes of an option do not end where it ends.")
    return name, value


def _check_command(value: str) -> None:
    if not value.strip():
        raise ValueError("The command is empty.")
    if len(value) > _LONGEST_COMMAND:
        raise ValueError(f"The command is longer than {_LONGEST_COMMAND} characters.")
    hidden = hidden_character(value)
    if hidden is not None:
        raise ValueError(f"The command contains {hidden}.")
    if value.endswith("\\"):
        raise ValueError("The command must not end with a backslash.")


def _check_source(value: str) -> None:
    """One address, network or host pattern. sshd refuses a login when it cannot read one of them."""
    entry = value[1:] if value.startswith("!") else value
    if "/" in entry:
        address, _, prefix = entry.partition("/")
        if "%" in address or not re.fullmatch(r"[0-9]{1,3}", prefix):
            raise ValueError("A network is written like 10.0.0.0/8 or 2001:db8::/32.")
        try:
            ipaddress.ip_network(entry)
        except ValueError:
            raise ValueError("A network is not valid: write its first address, as in 10.1.2.0/24.") from None
        return
    if ":" in entry or _NUMBERS.fullmatch(entry):
        try:
            ipaddress.ip_address(entry if "%" not in entry else "")
        except ValueError:
            raise ValueError("An address to come from is not valid.") from None
        return
    if not _HOST_PATTERN.fullmatch(entry):
        raise ValueError("A source is an address, a network, or a host name that may hold * and ?.")
    if entry.count("*") > _MAX_STARS:
        raise ValueError(f"A source has at most {_MAX_STARS} stars; write a network such as 10.0.0.0/8.")


def _check_sources(value: str) -> None:
    entries = value.split(",")
    Restrictions(sources=tuple(entries))


def _check_port(port: str) -> None:
    if port != "*" and not (re.fullmatch(r"[1-9][0-9]{0,4}", port) and int(port) < 65536):
        raise ValueError("A port is a number from 1 to 65535, or *.")


def _check_open(value: str) -> None:
    host, colon, port = value.rpartition(":")
    if not colon:
        raise ValueError("A forwarding is written host:port, an IPv6 address in brackets.")
    _check_port(port)
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1] if "%" not in host else "")
        except ValueError:
            raise ValueError("The brackets of a forwarding hold an IPv6 address.") from None
    elif not _FORWARD_HOST.fullmatch(host):
        raise ValueError("A forwarding is written host:port, an IPv6 address in brackets.")


def _check_listen(value: str) -> None:
    if ":" in value:
        _check_open(value)
    else:
        _check_port(value)


_VALUES: Dict[str, Callable[[str], None]] = {
    "from": _check_sources,
    "command": _check_command,
    "permitopen": _check_open,
    "permitlisten": _check_listen,
}


def _read_bool(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false.")
    return value


def _read_optional_bool(name: str, value: object) -> Optional[bool]:
    return None if value is None else _read_bool(name, value)


def _read_text(name: str, value: object) -> Optional[str]:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be text.")
    return value


def _read_list(name: str, value: object) -> Tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(entry, str) for entry in value):
        raise ValueError(f"{name} must be a list of text.")
    return tuple(value)


_READ: Dict[str, Callable[[str, object], object]] = {
    "sources": _read_list,
    "command": _read_text,
    "restrict": _read_bool,
    "permit_pty": _read_optional_bool,
    "agent_forwarding": _read_optional_bool,
    "port_forwarding": _read_optional_bool,
    "x11_forwarding": _read_optional_bool,
    "user_rc": _read_optional_bool,
    "permitopen": _read_list,
    "permitlisten": _read_list,
    "verify_required": _read_bool,
    "no_touch_required": _read_bool,
}
