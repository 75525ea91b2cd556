"""Turns the options of a key line that somebody else wrote into typed restrictions; must drop none silently.

What sshd refuses is refused here too, and a later option overrides an earlier one as in sshd: a key that is accepted
never permits more than its line did. An option that Keyrack cannot keep is refused.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Dict, List, NamedTuple, Optional

from keyrack.ssh import line_options
from keyrack.ssh.options import Restrictions

LONGEST = 2000
"""Characters of options that a report has; where there are as many, some may be missing."""

_PERMISSIONS = {
    "pty": "permit_pty",
    "agent-forwarding": "agent_forwarding",
    "port-forwarding": "port_forwarding",
    "x11-forwarding": "x11_forwarding",
    "user-rc": "user_rc",
}
_LISTS = ("permitopen", "permitlisten")
_REQUIREMENTS = {
    "verify-required": ("verify_required", True),
    "no-verify-required": ("verify_required", False),
    "touch-required": ("no_touch_required", False),
    "no-touch-required": ("no_touch_required", True),
}


class Read(NamedTuple):
    """What a line's options mean: the restrictions, and the end that they hold; None: no end."""

    restrictions: Restrictions
    expires_at: Optional[datetime]


def read(options: str) -> Read:
    """The meaning of options as they stand in a line. Raises ValueError, with words, for what cannot be kept."""
    if len(options) >= LONGEST or "\ufffd" in options:
        raise ValueError("The options are too long to be kept whole, or hold what is no text.")
    # sshd knows bytes, one character each here.
    parsed = line_options.parse(options.encode("utf-8", "replace").decode("latin-1"))
    if parsed.problem is not None:
        raise ValueError(f"sshd lets nobody in by this line: {parsed.problem}.")
    fields: Dict[str, object] = {}
    lists: Dict[str, List[str]] = {}
    end = None
    for name, raw in parsed.entries:
        negated = name[3:] if name.startswith("no-") else ""
        value = None if raw is None else raw.encode("latin-1").decode("utf-8", "replace")
        if name in _PERMISSIONS:
            fields[_PERMISSIONS[name]] = True
        elif negated in _PERMISSIONS:
            fields[_PERMISSIONS[negated]] = False
        elif name in _REQUIREMENTS:
            field, required = _REQUIREMENTS[name]
            fields[field] = required
        elif name == "restrict":
            # It revokes the permissions before it; render() writes it first, so these must not follow it there.
            for field in _PERMISSIONS.values():
                fields.pop(field, None)
            fields["restrict"] = True
        elif name == "command":
            fields["command"] = value
        elif value is not None and name == "from":
            fields["sources"] = tuple(value.split(","))
        elif value is not None and name in _LISTS:
            lists.setdefault(name, []).append(value)
        elif value is not None and name == "expiry-time":
            moment = _moment(value)
            end = moment if end is None else min(end, moment)
        else:
            raise ValueError(f"The option {name} cannot be kept: Keyrack sets none like it.")
    fields.update((name, tuple(dict.fromkeys(values))) for name, values in lists.items())
    kept = Restrictions(**fields)
    if kept.forwards_nothing:
        # Without port forwarding they have no effect, and would look like a permission.
        kept = kept._replace(permitopen=(), permitlisten=())
    return Read(kept, end)


def _moment(value: str) -> datetime:
    moment = line_options.read_expiry_time(value)
    seconds = None if moment is None else moment.seconds()
    if moment is None or seconds is None:
        raise ValueError("The option expiry-time holds no time.")
    if not moment.utc:
        raise ValueError("The option expiry-time is in the host's local time; give the key an end here instead.")
    return datetime.fromtimestamp(seconds, timezone.utc)
