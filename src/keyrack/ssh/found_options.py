"""Reads the options of a key line that somebody else wrote back into typed restrictions; what it cannot, it refuses."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Dict, List, NamedTuple, Optional, Tuple

from keyrack.ssh.options import Restrictions, split_option

_PERMISSIONS = {
    "pty": "permit_pty",
    "agent-forwarding": "agent_forwarding",
    "port-forwarding": "port_forwarding",
    "x11-forwarding": "x11_forwarding",
    "user-rc": "user_rc",
}
_LISTS = ("permitopen", "permitlisten")
_END = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})(?:([0-9]{2})([0-9]{2})([0-9]{2})?)?(Z?)")


class Read(NamedTuple):
    """What a line's options mean: the restrictions, and the end that they hold; None: no end."""

    restrictions: Restrictions
    expires_at: Optional[datetime]


def read(options: str) -> Read:
    """The meaning of options as they stand in a line. Raises ValueError, with words, for what cannot be kept."""
    fields: Dict[str, object] = {}
    lists: Dict[str, List[str]] = {}
    end = None
    for option in _split(options):
        word, value = split_option(option)
        name = word.lower()
        negated = name[3:] if name.startswith("no-") else ""
        if value is None and name in _PERMISSIONS:
            fields[_PERMISSIONS[name]] = True
        elif value is None and negated in _PERMISSIONS:
            fields[_PERMISSIONS[negated]] = False
        elif value is None and name in ("restrict", "verify-required", "no-touch-required"):
            fields[name.replace("-", "_")] = True
        elif value is not None and name == "command":
            fields["command"] = value
        elif value is not None and name == "from":
            fields["sources"] = tuple(entry.strip() for entry in value.split(","))
        elif value is not None and name in _LISTS:
            lists.setdefault(name, []).append(value)
        elif value is not None and name == "expiry-time":
            moment = _moment(value)
            end = moment if end is None else min(end, moment)
        else:
            raise ValueError(f"The option {word} cannot be kept: Keyrack sets none like it.")
    fields.update((name, tuple(values)) for name, values in lists.items())
    return Read(Restrictions(**fields), end)


def _split(options: str) -> List[str]:
    """The single options; a comma in quotes is part of one (sshd(8))."""
    found, at, begin, quoted = [], 0, 0, False
    while at <= len(options):
        if at == len(options) or (options[at] == "," and not quoted):
            if options[begin:at]:
                found.append(options[begin:at])
            begin = at + 1
        elif options.startswith('\\"', at):
            at += 1
        elif options[at] == '"':
            quoted = not quoted
        at += 1
    return found


def _moment(value: str) -> datetime:
    match = _END.fullmatch(value)
    if match is None:
        raise ValueError("The option expiry-time holds no time.")
    parts: Tuple[int, ...] = tuple(int(part or 0) for part in match.groups()[:6])
    if not match.group(7):
        raise ValueError("The option expiry-time is in the host's local time; give the key an end here instead.")
    try:
        return datetime(*parts, tzinfo=timezone.utc)  # type: ignore[arg-type, misc]
    except ValueError:
        raise ValueError("The option expiry-time holds a time that does not exist.") from None
