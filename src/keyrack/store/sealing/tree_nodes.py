"""The nodes of the access tree as bytes: where a place is among them, what they hold, how they are linked and changed;
must not ask the database (store/sealing/access_tree.py does, and says what the tree is for).

A node's id is made of the number of its table's tree (the bits above 48), its level (8 bits; 1 is the lowest) and its
number in that level (40 bits). The content of a lowest node is 64 slots, one for each place: the count of changes at
which it was written, then its masked sum. A node above holds 64 links, one for each node below; the top node of a tree
holds more where ids reach 2^30, as there is one top node whatever the ids. The root, id 0, is the count of changes,
then a link for each tree, then a seal. What is empty at the end may be left out.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping

from keyrack.store.sealing.seals import Seals

Place = tuple[int, int]
"""The number of a table's tree, and the index in it."""
SumChange = tuple[int | None, int]
"""How the sum of a place changes: the sum to start from, None for the one that it has, and what to add to it."""

ROOT = 0
MODULUS = 2**256
"""Sums are taken modulo this."""
LINK_BYTES = 16
NO_LINK = bytes(LINK_BYTES)
"""The link of a node that holds nothing."""
_BITS, _LEVELS = 6, 5
_SLOT_BYTES, _COUNTER_BYTES, _SEAL_BYTES = 40, 8, 32


def path_to(place: Place) -> list[int]:
    """The ids of the nodes from the top of a tree down to the one that has a place's slot."""
    tree, index = place
    return [_node_at(tree, level, index) for level in range(_LEVELS, 0, -1)]


def lowest_nodes(tree: int) -> tuple[int, int]:
    """The first and the last id that a lowest node of a tree may have."""
    first = _node_id(tree, 1, 0)
    return first, first + 2**40 - 1


def tree_of(node: int) -> int:
    """The number of the tree that a node is of; 0 for the root."""
    return node >> 48


def is_lowest(node: int) -> bool:
    """Whether a node holds slots, and not the links of nodes below."""
    return _level_of(node) == 1


def is_above_others(node: int) -> bool:
    """Whether a node, which is not the root, holds the links of nodes below."""
    return _level_of(node) > 1


def _node_id(tree: int, level: int, number: int) -> int:
    return tree << 48 | level << 40 | number


def _node_at(tree: int, level: int, index: int) -> int:
    """The node of a level on the path to an index; there is one top node, as the root has one link for each tree."""
    return _node_id(tree, level, 0 if level == _LEVELS else index >> (_BITS * level))


def _level_of(node: int) -> int:
    return node >> 40 & 255


def _number_of(node: int) -> int:
    return node & (2**40 - 1)


def link_of(seals: Seals, node: int, content: bytes) -> bytes:
    """The link that the node above must have for a node with this content."""
    if not content:
        return NO_LINK
    return seals.mac(b"access tree node " + node.to_bytes(8, "big") + content)[:LINK_BYTES]


def link_from_root(root: bytes, tree: int) -> bytes:
    """The link to the top of a tree; root: with its seal."""
    return _part(root, tree - 1, LINK_BYTES, _COUNTER_BYTES, len(root) - _SEAL_BYTES)


def link_towards(content: bytes | bytearray, node: int, place: Place) -> bytes:
    """What a node on the path to a place holds for it: the link of the next node or, in a lowest node, its slot."""
    return _part(content, _position(node, place), _SLOT_BYTES if is_lowest(node) else LINK_BYTES)


def links_below(node: int, content: bytes, trees: Iterable[int]) -> dict[int, bytes]:
    """The ids of the nodes just below this one, each with its link. node: the root or one above others; trees: the
    numbers of all trees.
    """
    if node == ROOT:
        return {_node_id(tree, _LEVELS, 0): link_from_root(content, tree) for tree in trees}
    tree, below, first = tree_of(node), _level_of(node) - 1, _number_of(node) << _BITS
    return {
        _node_id(tree, below, first | position): _part(content, position, LINK_BYTES)
        for position in range(_parts_in(content, LINK_BYTES))
    }


def slots_held(node: int, content: bytes) -> dict[int, bytes]:
    """The slots of a lowest node that hold something, by the index of their places."""
    first = _number_of(node) << _BITS
    slots = ((first + position, _part(content, position, _SLOT_BYTES)) for position in range(_parts_in(content)))
    return {index: slot for index, slot in slots if any(slot)}


def sum_in(seals: Seals, place: Place, slot: bytes) -> int:
    """The sum that a place's slot holds, without its mask; 0 for b""."""
    if not slot:
        return 0
    return (int.from_bytes(slot[_COUNTER_BYTES:], "big") - _mask(seals, place, slot[:_COUNTER_BYTES])) % MODULUS


def _mask(seals: Seals, place: Place, counter: bytes) -> int:
    text = f"access tree mask {place[0]} {place[1]} ".encode() + counter
    return int.from_bytes(seals.mac(text), "big")


def new_root(seals: Seals, counter: int) -> bytes:
    """The root of an empty tree; counter: of the changes made before."""
    return _sealed_root(seals, counter.to_bytes(_COUNTER_BYTES, "big"))


def counter_of(root: bytes) -> int:
    """How often what the tree counts was changed, as its root says."""
    return int.from_bytes(root[:_COUNTER_BYTES], "big")


def root_holds(seals: Seals, root: bytes) -> bool:
    """Whether a root has its seal."""
    content = root[:-_SEAL_BYTES]
    return len(content) >= _COUNTER_BYTES and hmac.compare_digest(_sealed_root(seals, content), root)


def _sealed_root(seals: Seals, content: bytes) -> bytes:
    return content + seals.mac(b"access tree root " + content)


def _position(node: int, place: Place) -> int:
    """Which part of a node leads to a place: one of 64, or of more in the top node."""
    level = _level_of(node)
    part = place[1] >> (_BITS * (level - 1))
    return part if level == _LEVELS else part & 63


def _parts_in(content: bytes, width: int = _SLOT_BYTES) -> int:
    return -(-len(content) // width)


def _part(content: bytes | bytearray, number: int, width: int, start: int = 0, end: int | None = None) -> bytes:
    at = start + number * width
    return bytes(content[at : min(at + width, len(content) if end is None else end)])


def _put(content: bytearray, number: int, value: bytes, start: int = 0) -> None:
    at = start + number * len(value)
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    content[at : at + len(value)] = value


class TreeEdit:
    """The nodes that a command changes, and those above them."""

    def __init__(self, seals: Seals, root: bytes, read: Mapping[int, bytes]) -> None:
        """root: one that holds; read: the content of the nodes on the paths to all places that are to be set, by id."""
        self._seals = seals
        self._root = bytearray(root[:-_SEAL_BYTES])
        self._counter = counter_of(root) + 1
        self._read = read
        self._contents: dict[int, bytearray | None] = {}
        self._changed: dict[int, Place] = {}
        """The lowest nodes that changed, each with one of its places."""
        self.linked: dict[int, tuple[bytes, bytes]] = {}
        """The nodes that changed, the root left out, each with its new link and content."""

    def set(self, place: Place, change: SumChange) -> None:
        """Change the sum of a place.

        Where a node on the path does not fit its link nothing is set, so that the mismatch stays and is found.
        """
        path = path_to(place)
        link = _part(self._root, place[0] - 1, LINK_BYTES, _COUNTER_BYTES)
        content: bytearray | None = None
        for node in path:
            content = self._content(node, link)
            if content is None:
                return
            link = link_towards(content, node, place)
        assert content is not None
        lowest, slot = path[-1], link
        given, more = change
        before = sum_in(self._seals, place, slot if any(slot) else b"") if given is None else given
        total = (before + more) % MODULUS
        counter = self._counter.to_bytes(_COUNTER_BYTES, "big")
        masked = (total + _mask(self._seals, place, counter)) % MODULUS
        _put(content, _position(lowest, place), counter + masked.to_bytes(32, "big") if total else bytes(_SLOT_BYTES))
        self._changed[lowest] = place

    def _content(self, node: int, link: bytes) -> bytearray | None:
        """A node as it is so far; None where the one that was read does not fit its link."""
        if node not in self._contents:
            content = self._read.get(node, b"") if any(link) else b""
            kept = self._seals.seen.nodes.get(node)
            # The link of a node in memory is known: comparing bytes is faster than hashing what was read.
            fits = not any(link) or kept == (link, content) or link_of(self._seals, node, content) == link
            if not fits and kept is not None and kept[0] == link:
                content, fits = kept[1], True  # others changed it in the database; memory has the right content
            self._contents[node] = bytearray(content) if fits else None
        return self._contents[node]

    def finish(self) -> dict[int, bytes]:
        """Bring the links up to date; answers the content of all nodes that changed, by id, the root among them."""
        written: dict[int, bytes] = {}
        changed = self._changed
        for level in range(1, _LEVELS + 1):
            above: dict[int, Place] = {}
            for node, place in changed.items():
                link = self._linked(node)
                written[node] = self.linked[node][1]
                if level == _LEVELS:
                    _put(self._root, place[0] - 1, link, _COUNTER_BYTES)
                    continue
                parent = _node_at(place[0], level + 1, place[1])
                upper = self._contents[parent]
                assert upper is not None
                _put(upper, _position(parent, place), link)
                above[parent] = place
            changed = above
        self._root[:_COUNTER_BYTES] = self._counter.to_bytes(_COUNTER_BYTES, "big")
        written[ROOT] = _sealed_root(self._seals, bytes(self._root))
        return written

    def _linked(self, node: int) -> bytes:
        """The new link of a node; also put into `linked`, with the content."""
        content = self._contents[node]
        assert content is not None
        plain = bytes(content) if any(content) else b""
        link = link_of(self._seals, node, plain)
        self.linked[node] = (link, plain)
        return link
