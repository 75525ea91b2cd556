"""Says which keys that open accounts today would no longer do so, or not as freely, if only a document counted; it asks
and changes nothing.
"""

from __future__ import annotations

from typing import Optional, Sequence, Set, Tuple

from keyrack.protocol.host_document import AuthorizedKey, HostDocument
from keyrack.protocol.report import EVERYBODY, KEY, ReportedKey
from keyrack.ssh import line_options
from keyrack.ssh.options import split_option
from keyrack.ssh.public_key import fingerprint_of

_BOUNDS = ("from", "command", "verify-required")  # options that restrict what a key opens
_MAX_NAMED = 3  # that are named in one sentence


def words(keys: Sequence[ReportedKey], document: HostDocument) -> str:
    """The keys that the document would shut out, each with its account, in words; empty where there are none."""
    losing = sorted({_named(one) for one in keys if not _stays(one, document)})
    more = [f"and {len(losing) - _MAX_NAMED} more"] if len(losing) > _MAX_NAMED else []
    return ", ".join(losing[:_MAX_NAMED] + more)


def _stays(one: ReportedKey, document: HostDocument) -> bool:
    """Whether a key that was found still opens its account, and no less, when only the document counts."""
    if one.kind != KEY or one.username == EVERYBODY or not one.fingerprint:
        return False
    keys = document.users.get(one.username, ())
    same = (key for key in keys if fingerprint_of(key.public_key) == one.fingerprint)
    written = {_bound(name, value) for name, value in line_options.parse(one.options).entries}
    return any(_bounds(key) <= written for key in same)


def _bounds(key: AuthorizedKey) -> Set[Tuple[str, str]]:
    """The restrictions of a key: those of its options that are in _BOUNDS, and its end."""
    options = {_bound(*split_option(option)) for option in key.options}
    ends = {_bound("expiry-time", None)} if key.expires_at is not None else set()
    return {bound for bound in options if bound[0] in _BOUNDS} | ends


def _bound(name: str, value: Optional[str]) -> Tuple[str, str]:
    return name.lower(), "" if name.lower() == "expiry-time" else value or ""


def _named(one: ReportedKey) -> str:
    return f"{one.fingerprint or one.path} ({'every account' if one.username == EVERYBODY else one.username})"
