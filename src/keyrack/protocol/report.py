"""The report of an agent to the service, written by one and read by the other; must trust no field.

A report is one JSON object. Every field may be absent, and then nothing is said about its subject:

    revision      the revision that this host obeys, with `state`: "applied", "refused" or "failed"
    lineage       the mark of that revision (host_document.py)
    problems      words for what is not as asked
    agent_version, machine (kernel, memory, load …), facts (settings, accounts, enforcing: core/hosts/facts.py)
    keys_found    list of ReportedKey: keys of this host that the document does not have
    keys_cut      list of Cut: where keys_found may be incomplete, because the scan was cut short
    host_keys     {"port", "keys"}: what the running sshd shows, keys by type and base64
    sessions      open sessions;  last_used: the last login with each key since the previous report; both with
                  `break_glass` where the document in force then named the key as a break-glass key
    logins        {"batch", "entries", "more", "anybodys"}: each login since the previous batch, as in last_used, also
                  those without a key; sent again under the same name until the service answers. more: how many beyond
                  those; anybodys: every account can write to the log that they were read from
    sessions_unknown  why a session may be open that `sessions` lacks, in words; empty where none can be

A host that observes says "adopt" on the wire, where it enrols (`mode`) and in its facts (`enforcement`), as the host
document does (host_document.py): an older service knows no other word. A reader takes "observe" for the same.
"keys_found" and "keys_cut" are the wire's words for unmanaged keys, for the same reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

from keyrack.protocol.document_words import OBSERVE

_OBSERVE_ON_THE_WIRE = "adopt"

APPLIED, REFUSED, FAILED = "applied", "refused", "failed"
STATES = (APPLIED, REFUSED, FAILED)
UNINSTALLED = "uninstalled"  # as enforcement: the agent was taken off its host
KEY, AUTHORITY, COMMAND, UNREADABLE = "key", "cert-authority", "command", "unreadable"
KINDS = (KEY, AUTHORITY, COMMAND, UNREADABLE)
EVERYBODY = "*"  # stands for all accounts, where one file counts for each of them

_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # the latter stand for bytes that are no UTF-8
_KEY_TEXTS = ("username", "path", "type", "fingerprint", "key", "options", "comment", "problem")


class ReportError(ValueError):
    """A part of a report that no agent would send."""


class ReportedKey(NamedTuple):
    """A key on the host that lets somebody in, or seems to, and that is not in the document.

    kind: "key"; "cert-authority": whoever it certifies; "command": a program that names keys (path is its name);
    "unreadable": a file that could not be read. options: as written. problem: why sshd would ignore it.
    in_force: whether sshd reads this file for this account now; taken: it stood in a file of ours, and is gone.
    """

    username: str
    path: str
    kind: str
    line: int = 0
    type: str = ""
    fingerprint: str = ""
    key: str = ""
    options: str = ""
    comment: str = ""
    problem: str = ""
    in_force: bool = True
    taken: bool = False

    def to_json(self) -> dict[str, Any]:
        """For a report."""
        return dict(self._asdict())

    @classmethod
    def from_json(cls, value: object) -> ReportedKey:
        """As a report has it: the right types of values, whatever they say. Raises ReportError."""
        if not isinstance(value, Mapping) or value.get("kind") not in KINDS:
            raise ReportError("this is no key of a report")
        texts: dict[str, Any] = {name: value.get(name, "") for name in _KEY_TEXTS}
        line = value.get("line", 0)
        if not all(isinstance(text, str) for text in texts.values()) or type(line) is not int:
            raise ReportError("a field of a key is of the wrong type")
        key = cls(kind=value["kind"], line=line, **texts)
        return key._replace(in_force=value.get("in_force") is True, taken=value.get("taken") is True)


class Cut(NamedTuple):
    """Where a scan was cut short: empty stands for every account, or every path. why: words."""

    username: str
    path: str
    why: str


class Report(NamedTuple):
    """One report; None: the field is absent. See the fields above."""

    revision: Optional[int] = None
    lineage: Optional[str] = None
    state: Optional[str] = None
    problems: Optional[Sequence[str]] = None
    agent_version: Optional[str] = None
    facts: Optional[Mapping[str, Any]] = None
    keys_found: Optional[Sequence[ReportedKey]] = None
    keys_cut: Optional[Sequence[Cut]] = None
    machine: Optional[Mapping[str, Any]] = None
    last_used: Optional[Sequence[Mapping[str, Any]]] = None
    logins: Optional[Mapping[str, Any]] = None
    sessions: Optional[Sequence[Mapping[str, Any]]] = None
    host_keys: Optional[Mapping[str, Any]] = None
    sessions_unknown: Optional[str] = None

    def to_json(self) -> dict[str, Any]:
        """The fields that are present, as they are sent."""
        fields = {name: value for name, value in self._asdict().items() if value is not None}
        if self.keys_found is not None:
            fields["keys_found"] = [one.to_json() for one in self.keys_found]
        if self.keys_cut is not None:
            fields["keys_cut"] = [one._asdict() for one in self.keys_cut]
        return fields


def as_reported(path: str) -> str:
    """A path of a host as a report has it, whatever bytes it is made of."""
    return _NO_TEXT.sub("\ufffd", path)


def wire_word(word: str) -> str:
    """A mode or an enforcement as it is sent: "adopt" for "observe", the others as they are."""
    return _OBSERVE_ON_THE_WIRE if word == OBSERVE else word


def read_word(word: object) -> object:
    """A received mode or enforcement as it is called here: "observe" for "adopt", anything else as it is."""
    return OBSERVE if word == _OBSERVE_ON_THE_WIRE else word
