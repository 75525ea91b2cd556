"""Verifies an export of the audit log; needs neither database nor instance, and must repair nothing.

An export is lines of JSON: a head, one line for each record, after each block of records their signed hashes, and last
the signed checkpoint. Only the first altered record is named, as later differences may follow from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from keyrack.protocol import audit_tree
from keyrack.protocol.audit_tree import CheckpointProblem
from keyrack.store.audit.audit_log import SignedCheckpoint
from keyrack.store.sealing.canonical_json import encode

BLOCK = 256
MAX_WAITING = 8 * BLOCK
"""No export has more records than this without signed hashes."""
LONGEST_LINE = 16 * 1024 * 1024
"""In bytes; records and the hashes of a block are much shorter."""
_OTHER_FORMATS = {
    b"\x1f\x8b": "it is packed by gzip; unpack it before: gzip -dc FILE | keyrack audit verify --export -",
    b"(\xb5/\xfd": "it is packed by zstd; unpack it before: zstd -dc FILE | keyrack audit verify --export -",
    b"\xfd7zXZ": "it is packed by xz; unpack it before: xz -dc FILE | keyrack audit verify --export -",
    b"BZh": "it is packed by bzip2; unpack it before: bzip2 -dc FILE | keyrack audit verify --export -",
    b"PK\x03\x04": "it is a zip archive; unpack it before",
    b"\xff\xfe": "it is UTF-16, as a shell of Windows writes it; an export is UTF-8",
    b"\xfe\xff": "it is UTF-16, as a shell of Windows writes it; an export is UTF-8",
    b"SQLite format 3": "it is a database, and no export of one",
}
"""How files of other formats begin, and what they are."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
Verified = Callable[[str, str], bool]
"""Whether a text has this signature, for the audit log."""
OnProgress = Callable[[int], None]


class NotAnExport(ValueError):
    """A file is no export at all; the message says what it is."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The result. records: how many are unaltered; pruned: how many of these were deleted for their age; problem: the
    first one, "" for none; new: events that have no place in the chain yet.
    """

    records: int
    pruned: int
    problem: str
    new: int = 0


class KnownCheckpoints:
    """What the log was at certain sizes, by checkpoints; each is compared once the tree has that size."""

    def __init__(self, kept: Iterable[SignedCheckpoint], witnessed: Iterable[SignedCheckpoint]) -> None:
        self._waiting = sorted(
            (checkpoint.size, checkpoint.root, origin)
            for origin, checkpoints in (("signed", kept), ("seen by a witness", witnessed))
            for checkpoint in (audit_tree.read(signed.text) for signed in checkpoints)
        )

    def problem(self, tree: audit_tree.Frontier) -> str:
        """What is wrong with the records that the tree is over so far, "" for nothing."""
        while self._waiting and self._waiting[0][0] <= tree.size:
            _size, root, origin = self._waiting.pop(0)
            if root != tree.root():
                return f"the first {tree.size} records are not those that were {origin}"
        return ""

    def missing(self, tree: audit_tree.Frontier) -> str:
        """What is missing at the end of the log, "" for nothing."""
        if not self._waiting:
            return ""
        size, _root, origin = self._waiting[-1]
        return f"records from place {tree.size} on are missing; there were {size}, as was {origin}"


def unsigned(witnesses: Iterable[SignedCheckpoint], signed: Verified) -> str:
    """What is wrong with checkpoints that witnesses kept, "" for nothing."""
    for witness in witnesses:
        if not signed(witness.text, witness.signature):
            return "the checkpoint of a witness is not signed by this instance"
        try:
            audit_tree.read(witness.text)
        except CheckpointProblem as problem:
            return f"the checkpoint of a witness cannot be read: {problem}"
    return ""


def lines_of(file: BinaryIO) -> Iterator[str]:
    """The lines of a file, without a byte order mark; bytes that are no UTF-8 become surrogates, which verify() finds.

    At most LONGEST_LINE bytes are in memory. Raises NotAnExport.
    """
    line = file.readline(LONGEST_LINE + 1)
    if not line:
        raise NotAnExport("it is empty")
    for beginning, what in _OTHER_FORMATS.items():
        if line.startswith(beginning):
            raise NotAnExport(what)
    line = line.removeprefix(_BYTE_ORDER_MARK)
    while line:
        yield line.decode("utf-8", "surrogateescape")
        line = file.readline(LONGEST_LINE + 1)


def verify(
    lines: Iterable[str],
    signed: Verified,
    on_progress: OnProgress = lambda count: None,
    witnesses: Sequence[SignedCheckpoint] = (),
    key: str = "",
) -> Verification:
    """Verify an export.

    signed: checks a signature against the trusted key; key: that key's line, to recognise another instance's export;
    witnesses: checkpoints that the log must go on from.
    """
    if problem := unsigned(witnesses, signed):
        return Verification(0, 0, problem)
    reading = _ExportReader(signed, on_progress, KnownCheckpoints((), witnesses), key)
    with_ends = False
    for number, line in enumerate(lines, start=1):
        with_ends = line.endswith("\n") if number == 1 else with_ends
        try:
            problem = reading.take(number, json.loads(_readable(line), object_pairs_hook=_each_once))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            is_cut = with_ends and isinstance(error, json.JSONDecodeError)
            problem = _no_line(number, line, is_cut=is_cut and not line.endswith("\n"))
        if problem:
            return Verification(reading.tree.size, reading.pruned, problem)
    return Verification(reading.tree.size, reading.pruned, reading.end())


def _readable(line: str) -> str:
    """The line, if it was UTF-8. Raises UnicodeEncodeError."""
    if not line.isascii():
        line.encode()
    return line


def _no_line(number: int, line: str, *, is_cut: bool) -> str:
    """What is wrong with a line that is not of an export; is_cut: the file ends within it."""
    if len(line) >= LONGEST_LINE and not line.endswith("\n"):
        return f"line {number} is longer than any of an export"
    if line != line.encode("utf-8", "replace").decode():
        return f"line {number} was altered: it is not UTF-8"
    if is_cut:
        return f"the export was cut in line {number}"
    return f"line {number} is not of an export"


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no name repeats: of two values one reader would see the first, another the second."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name is there twice")
    return fields


class _ExportReader:
    """Reads an export line by line and checks it."""

    def __init__(self, signed: Verified, on_progress: OnProgress, marks: KnownCheckpoints, key: str) -> None:
        self.tree = audit_tree.Frontier()
        self.pruned = 0
        self._signed, self._on_progress, self._marks, self._key = signed, on_progress, marks, key
        self._waiting: list[Mapping[str, Any]] = []
        self._records = 0
        self._ended = False

    def take(self, number: int, fields: Mapping[str, Any]) -> str:
        """What is wrong with a line, or with the records that it signs, "" for nothing."""
        if self._ended:
            return f"line {number} was inserted: the log ends before it"
        names = set(fields)
        if number == 1:
            return self._head(fields)
        if names == {"event", "place", "record"} and type(fields["event"]) is type(fields["place"]) is int:
            self._waiting.append(fields)
            return self._no_hashes() if len(self._waiting) > MAX_WAITING else ""
        if names == {"block", "signature"}:
            return self._block(fields["block"], fields["signature"])
        if names == {"checkpoint", "signature"}:
            return self._checkpoint(SignedCheckpoint(fields["checkpoint"], fields["signature"]))
        return f"line {number} is not of an export"

    def end(self) -> str:
        """What is wrong with the end of the export, "" for nothing."""
        if self._ended:
            return ""
        return f"records from place {self.tree.size + len(self._waiting)} on are missing: the export was cut"

    def _head(self, fields: Mapping[str, Any]) -> str:
        if set(fields) != {"keyrack", "key", "records"} or type(fields["records"]) is not int:
            return "line 1 is not the first line of an export"
        if self._key and fields["key"].split()[:2] != self._key.split()[:2]:
            return f"another instance's log, or its first line was altered: it names the key {fields['key']}"
        self._records = fields["records"]
        return ""

    def _block(self, text: str, signature: str) -> str:
        expected = self.tree.size
        if not self._signed(text, signature):
            return f"the hashes of records from place {expected} on are not signed by this key"
        block = json.loads(text)
        if problem := self._misplaced(block["first"]) or _block_problem(self._waiting, block):
            return problem
        self.pruned += sum(one["record"] is None for one in self._waiting)
        for hashed in block["hashes"]:
            self.tree.add(bytes.fromhex(hashed))
            if problem := self._marks.problem(self.tree):
                return problem
        self._waiting = []
        self._on_progress(self.tree.size)
        return ""

    def _misplaced(self, first: int) -> str:
        """What is wrong with the place where a block begins, "" for nothing."""
        expected = self.tree.size
        if first == expected:
            return ""
        if self._waiting and self._waiting[0]["place"] == expected:
            return self._no_hashes()
        if first < expected:
            return f"records from place {first} on were inserted once more at place {expected}"
        return f"records from place {expected} on are missing or were reordered; the next ones are from {first} on"

    def _no_hashes(self) -> str:
        return f"the signed hashes of the records from place {self.tree.size} on are missing"

    def _checkpoint(self, last: SignedCheckpoint) -> str:
        size = self.tree.size
        if self._waiting:
            return f"a record was inserted at place {size}" if size == self._records else self._no_hashes()
        if not self._signed(last.text, last.signature):
            return "the checkpoint is not signed by this key"
        checkpoint = audit_tree.read(last.text)
        if checkpoint.size > size:
            return f"records from place {size} on are missing; there were {checkpoint.size}"
        if checkpoint.size < size:
            return f"the checkpoint is an older one, of {checkpoint.size} records"
        if checkpoint.root != self.tree.root():
            return "the records are not those that were signed"
        if self._records != size:
            return f"line 1 was altered: it names {self._records} records, and {size} were signed"
        self._ended = True
        return self._marks.missing(self.tree)


def _block_problem(lines: Sequence[Mapping[str, Any]], block: Mapping[str, Any]) -> str:
    """The first record of a block that its hashes do not match, in words, "" for none."""
    first, hashes = block["first"], block["hashes"]
    own_hashes = [_hash(line, block) for line in lines]
    for at, hashed in enumerate(hashes):
        place = first + at
        if at >= len(lines):
            return f"the record at place {place} is missing"
        line, own = lines[at], own_hashes[at]
        if own == hashed and line["place"] == place:
            continue
        named = f"the record at place {place}, event {line['event']},"
        if own == hashed:
            return f"{named} was altered"
        is_copy = own != "" and own in own_hashes[:at] + own_hashes[at + 1 :]
        if hashed in own_hashes[at + 1 :]:
            if own in hashes[at + 1 :] and not is_copy:
                return f"the record at place {place} was reordered"
            return f"a record was inserted at place {place}"
        if own in hashes or is_copy:
            return f"the record at place {place} is missing"
        if line["record"] is None:
            return f"{named} is missing, and was not deleted for its age"
        if line["place"] != place:
            there = line["place"]
            return f"the record at place {place} was reordered or is missing: that of place {there} stands there"
        return f"{named} was altered"
    return f"a record was inserted after place {first + len(hashes) - 1}" if len(lines) > len(hashes) else ""


def _hash(line: Mapping[str, Any], block: Mapping[str, Any]) -> str:
    """The hash of a record as it is in the export, "" for what is no record."""
    record, place = line["record"], line["place"]
    if record is not None:
        is_of_event = isinstance(record, dict) and record.get("id") == line["event"]
        return audit_tree.leaf(encode(record).encode()).hex() if is_of_event else ""
    at = place - block["first"]
    # Older exports do not name the records that were deleted for their age.
    is_gone = "gone" not in block or block["gone"].get(str(place)) == line["event"]
    return str(block["hashes"][at]) if is_gone and 0 <= at < len(block["hashes"]) else ""
