"""The hash tree of the audit log, as in RFC 6962: roots, proofs and checkpoints; pure, must know no event.

Service, command line and agent share it. Records are numbered from 0. Functions that need the hashes of complete
subtrees are given a function that reads them, so that the tree need not be in memory.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

HASH_BYTES = 32
NAMESPACE = "keyrack-audit"
"""What checkpoints are signed for, apart from host documents."""
LONGEST_PROOF = 130

Whole = Callable[[int, int], bytes]
"""The hash of a complete subtree, by its level (it has 2**level records) and its number on that level."""


class CheckpointProblem(ValueError):
    """A checkpoint or a proof that is malformed or impossible; the words say how."""


class Checkpoint(NamedTuple):
    """What the log was at a moment. size: records; root: of the tree over them; access: how often what decides about
    access was changed, which never becomes less; at: seconds since 1970.
    """

    size: int
    root: bytes
    access: int
    at: int

    def encode(self) -> str:
        """The text that is signed."""
        fields = {"access": self.access, "at": self.at, "root": self.root.hex(), "size": self.size}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def read(text: str) -> Checkpoint:
    """A checkpoint from its text. Raises CheckpointProblem."""
    try:
        fields = json.loads(text)
        numbers = [fields[name] for name in ("size", "access", "at")]
        root = bytes.fromhex(fields["root"])
    except (ValueError, KeyError, TypeError):
        raise CheckpointProblem("it is not a checkpoint") from None
    if not all(type(one) is int and 0 <= one < 2**63 for one in numbers) or len(root) != HASH_BYTES:
        raise CheckpointProblem("it is not a checkpoint")
    return Checkpoint(numbers[0], root, numbers[1], numbers[2])


def leaf(record: bytes) -> bytes:
    """The hash of one record."""
    return sha256(b"\x00" + record).digest()


def node(left: bytes, right: bytes) -> bytes:
    """The hash of two parts side by side."""
    return sha256(b"\x01" + left + right).digest()


EMPTY = sha256(b"").digest()
"""The root of a log without records."""


class Frontier:
    """The complete subtrees of a tree, the largest first: all that is needed to add records to it."""

    def __init__(self, size: int = 0, parts: Sequence[bytes] = ()) -> None:
        if len(parts) != bin(size).count("1"):
            raise CheckpointProblem("a tree of this size has another number of complete subtrees")
        self.size = size
        self.parts: List[bytes] = list(parts)

    def add(self, hashed: bytes) -> None:
        """Add a record by its hash."""
        size = self.size
        self.parts.append(hashed)
        while size & 1:
            right = self.parts.pop()
            self.parts[-1] = node(self.parts[-1], right)
            size >>= 1
        self.size += 1

    def root(self) -> bytes:
        """The root over all records."""
        if not self.parts:
            return EMPTY
        hashed = self.parts[-1]
        for part in reversed(self.parts[:-1]):
            hashed = node(part, hashed)
        return hashed


def frontier(whole: Whole, size: int) -> Frontier:
    """The complete subtrees of the tree over the first `size` records."""
    parts, start = [], 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            parts.append(whole(level, start >> level))
            start += 1 << level
    return Frontier(size, parts)


def _range(whole: Whole, start: int, end: int) -> bytes:
    """The hash over the records from start to before end; start is a multiple of a power of two that is not below
    end - start.
    """
    size = end - start
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return whole(level, start >> level)
    half = 1 << (size - 1).bit_length() - 1
    return node(_range(whole, start, start + half), _range(whole, start + half, end))


def inclusion(whole: Whole, number: int, size: int) -> List[bytes]:
    """The proof that a record is in the tree over the first `size` ones (RFC 6962, 2.1.1)."""
    if not 0 <= number < size:
        raise CheckpointProblem("there is no such record in a log of this size")
    path: List[bytes] = []
    start, end = 0, size
    while end - start > 1:
        half = start + (1 << (end - start - 1).bit_length() - 1)
        if number < half:
            path.append(_range(whole, half, end))
            end = half
        else:
            path.append(_range(whole, start, half))
            start = half
    return path[::-1]


def consistency(whole: Whole, first: int, second: int) -> List[bytes]:
    """The proof that the log of `second` records begins with that of `first` ones (RFC 6962, 2.1.2)."""
    if not 0 <= first <= second:
        raise CheckpointProblem("a log does not become shorter")
    path: List[bytes] = []
    if first in (0, second):
        return path
    start, end, is_whole = 0, second, True
    while first != end:
        half = start + (1 << (end - start - 1).bit_length() - 1)
        if first <= half:
            path.append(_range(whole, half, end))
            end = half
        else:
            path.append(_range(whole, start, half))
            start, is_whole = half, False
    if not is_whole:
        path.append(_range(whole, start, end))
    return path[::-1]


def extends(first: int, first_root: bytes, second: int, second_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether a proof shows that the longer log begins with the shorter one (RFC 9162, 2.1.4.2)."""
    if first == second:
        return first_root == second_root and not path
    if not 0 <= first < second or len(path) > LONGEST_PROOF:
        return False
    if first == 0:
        return not path
    given = list(path)
    if first & (first - 1) == 0:
        given.insert(0, first_root)
    if not given:
        return False
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = given[0]
    for part in given[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = node(part, old), node(part, new)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new = node(new, part)
        at, last = at >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root


def problem(last: Optional[Checkpoint], new: Checkpoint, path: Sequence[bytes]) -> str:
    """Why a checkpoint does not go on from the last one that was seen; "" where it does."""
    if last is None:
        return ""
    if new.size < last.size:
        return f"the audit log had {last.size} records and has {new.size} now"
    if not extends(last.size, last.root, new.size, new.root, path):
        return f"the first {last.size} records of the audit log are not those that were there before"
    if new.access < last.access:
        return "what decides about access was put back to an older state"
    return ""


def says_rewritten(words: str) -> bool:
    """Whether an agent's problem says that the log was rewritten, in the words of problem() or its own."""
    return words.startswith(_REWRITTEN)


_REWRITTEN = (
    "the audit log had ",
    "the first ",
    "what decides about access was put back",
    "a checkpoint of the audit log is refused",
)


def read_path(values: Any) -> Tuple[bytes, ...]:
    """A proof as it travels, hashes in hexadecimal. Raises CheckpointProblem."""
    try:
        path = tuple(bytes.fromhex(one) for one in values)
    except (TypeError, ValueError):
        raise CheckpointProblem("it is not a proof") from None
    if len(path) > LONGEST_PROOF or any(len(one) != HASH_BYTES for one in path):
        raise CheckpointProblem("it is not a proof")
    return path
