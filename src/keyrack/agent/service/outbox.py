"""Reports that wait to be sent, split to sizes that the service and any proxy take; must lose no receipt.

A long list of keys is sent in several reports. Each is true by itself: it lists the keys of some files, and names all
other files as not scanned (`keys_cut`), so that keys in another report do not count as gone.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from keyrack.protocol.report import APPLIED, Cut

PIECE = 100_000  # characters; proxies refuse a megabyte by default, some less
LARGEST_FILE = 700_000  # up to this size the keys of one file stay in one report, which then shows which keys are gone
SMALLEST = 10_000  # a report of this size is not refused for its size

Fields = Dict[str, Any]  # of a report, as JSON has them
_Place = Tuple[str, str]

_RECEIPT = ("revision", "lineage", "state", "problems", "agent_version")
_KEYS, _CUT = "keys_found", "keys_cut"
_TOO_LONG = "the report would be too long"


class Outbox:
    """The reports that the service has not accepted yet, oldest first."""

    def __init__(self) -> None:
        self._pieces: List[Fields] = []
        self._whole = True

    def put(self, report: Fields) -> None:
        """Send this report in place of those that wait. Of these, the receipt of the last applied revision is still
        sent first.
        """
        waiting = [piece for piece in self._pieces if piece.get("state") == APPLIED]
        keep = waiting[-1:] if report.get("state") != APPLIED else []
        self._pieces = [_receipt(piece) for piece in keep] + _pieces(report)
        self._whole = True

    def clear(self) -> None:
        """Drop all reports."""
        self._pieces = []

    @property
    def first(self) -> Optional[Fields]:
        """The report to send next; None where there is none."""
        return self._pieces[0] if self._pieces else None

    def accepted(self) -> bool:
        """Drop the first report, which the service has accepted. Answers whether it has all of the last report now."""
        self._pieces.pop(0)
        return not self._pieces and self._whole

    def receipt_first(self) -> bool:
        """Split the first report, so that its receipt is sent before the rest. Answers False where it has no receipt or
        nothing else.
        """
        piece = self._pieces[0]
        if "revision" not in piece or not piece.keys() - set(_RECEIPT):
            return False
        self._pieces[:1] = _smaller(piece)
        return True

    def refused(self) -> bool:
        """The service has refused the first report: split it, or drop it where it cannot be split. Answers False for a
        bare receipt, which stays until it is accepted.
        """
        piece = self._pieces[0]
        smaller = _smaller(piece)
        if not smaller and "revision" in piece:
            return False
        self._pieces[:1] = smaller
        names = {name for one in smaller for name in one}
        self._whole = self._whole and names >= piece.keys()
        return True


def _pieces(report: Fields) -> List[Fields]:
    if _size(report) <= PIECE:
        return [report]
    head = {name: value for name, value in report.items() if name not in (_KEYS, _CUT)}
    lists = _lists(report.get(_KEYS) or [], report.get(_CUT) or [])
    return ([head] if _size(head) <= PIECE else _smaller(head)) + lists


def _smaller(piece: Fields) -> List[Fields]:
    """A report in smaller pieces; an empty list where it cannot be split."""
    if "revision" in piece:
        rest = {name: value for name, value in piece.items() if name not in _RECEIPT}
        if rest:
            return [_receipt(piece), rest]
        # Without the field: an empty list would mean that there are no problems.
        return [{name: value for name, value in piece.items() if name != "problems"}] if "problems" in piece else []
    keys = piece.get(_KEYS)
    if keys is None or _size(piece) <= SMALLEST:
        return []
    others = {name: value for name, value in piece.items() if name not in (_KEYS, _CUT)}
    if others:
        return [others, {name: piece[name] for name in (_KEYS, _CUT) if name in piece}]
    middle = len(keys) // 2
    return [_list(half, keys, piece.get(_CUT) or []) for half in (keys[:middle], keys[middle:]) if half and middle]


def _receipt(piece: Mapping[str, Any]) -> Fields:
    return {name: piece[name] for name in _RECEIPT if name in piece}


def _lists(keys: List[Fields], cut: List[Fields]) -> List[Fields]:
    """Reports of these keys, each of a few files; a file with very many keys is split over several."""
    files: Dict[_Place, List[Fields]] = {}
    for key in keys:
        files.setdefault(_place(key), []).append(key)
    groups: List[List[Fields]] = []
    room = 0
    for of_file in files.values():
        size = _size(of_file)
        if size > LARGEST_FILE:
            groups += _shares(of_file, LARGEST_FILE)
            room = 0
        elif size <= room:
            groups[-1] += of_file
            room -= size
        else:
            groups.append(list(of_file))
            room = PIECE - size
    return [_list(group, keys, cut) for group in groups]


def _shares(keys: List[Fields], most: int) -> List[List[Fields]]:
    shares: List[List[Fields]] = []
    room = 0
    for key in keys:
        size = _size(key) + 2
        if size > room:
            shares.append([])
            room = most
        shares[-1].append(key)
        room -= size
    return shares


def _list(parts: List[Fields], keys: List[Fields], cut: List[Fields]) -> Fields:
    """A report of some of the keys (parts), which names every file as cut of which it does not have all keys."""
    here = {_place(key) for key in parts}
    counts = _counts(parts)
    places = [place for place, number in _counts(keys).items() if place not in here or counts[place] < number]
    unseen = [Cut(username, path, _TOO_LONG)._asdict() for username, path in places]
    return {_KEYS: parts, _CUT: cut + unseen}


def _counts(keys: Iterable[Fields]) -> Dict[_Place, int]:
    counts: Dict[_Place, int] = {}
    for key in keys:
        counts[_place(key)] = counts.get(_place(key), 0) + 1
    return counts


def _place(key: Mapping[str, Any]) -> _Place:
    return str(key.get("username") or ""), str(key.get("path") or "")


def _size(value: object) -> int:
    return len(json.dumps(value))
