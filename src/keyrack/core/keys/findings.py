"""Finds keys that should be removed: weak, old, unused, unowned; must change nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import Connection

from keyrack import policy
from keyrack.core import cursors
from keyrack.core.instance import Instance
from keyrack.core.keys import key_rules
from keyrack.core.work import Attempt
from keyrack.errors import invalid
from keyrack.model import Actor, has_ended
from keyrack.policy import KeyRules
from keyrack.ssh import known_private
from keyrack.ssh.public_key import KeyProblem, read_canonical
from keyrack.store.keys import findings
from keyrack.store.keys.findings import KeyAtPlace

FindingKind = Literal["weak", "old", "unused", "unowned"]
WEAK: Final = "weak"
OLD: Final = "old"
UNUSED: Final = "unused"
UNOWNED: Final = "unowned"
KINDS: tuple[FindingKind, ...] = (WEAK, OLD, UNUSED, UNOWNED)
OLD_DAYS, UNUSED_DAYS = 365, 90
BATCH_SIZE = 500
MAX_CHECKED = 20_000
"""So many keys are checked by one call; a page may be short for that, and still name a next one."""
_CREDENTIALS, _USER_KEYS = 0, 1
_Place = tuple[int, int, int]  # one of these, the server of a credential, and the key's id


@dataclass(frozen=True, slots=True)
class Finding:
    """A key, and what is wrong with it: kinds of KINDS, and the same in words."""

    key: KeyAtPlace
    kinds: tuple[FindingKind, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Findings:
    """A page of findings; next: the cursor of the next one, None at the end."""

    items: tuple[Finding, ...]
    next: str | None


def find(
    instance: Instance,
    actor: Actor,
    *,
    kinds: Iterable[str] = KINDS,
    old_days: int = OLD_DAYS,
    unused_days: int = UNUSED_DAYS,
    cursor: str = "",
    limit: int = 50,
) -> Findings:
    """A page of the workspace's keys that should be removed: first those on servers, then users' own.

    kinds: which of KINDS. WEAK: refused by the rules of today; OLD: entered more than old_days ago; UNUSED: not used
    for unused_days; UNOWNED: registered by nobody, or by a disabled user. Raises Refusal INVALID or FORBIDDEN.
    """
    with Attempt(instance, actor, "credentials:read", "find keys that should go", target_kind="key") as attempt:
        wanted = tuple(kinds)
        for kind in wanted:
            if kind not in KINDS:
                raise invalid("kind", f"kind takes one or several, with commas, of: {', '.join(KINDS)}.")
        place: tuple[Any, ...] = cursors.read(cursor, (int, int, int)) if cursor else (_CREDENTIALS, 0, 0)
        now = instance.now()
        criteria = _Criteria(
            key_rules.of_registered_keys(instance, actor.workspace_id),
            wanted,
            now - timedelta(days=old_days),
            now - timedelta(days=unused_days),
            now,
        )

        def question(connection: Connection) -> Findings:
            items: list[Finding] = []
            last: _Place = (place[0], place[1], place[2])
            for count, (where, key) in enumerate(_keys(connection, actor.workspace_id, last), 1):
                if len(items) == limit or count > MAX_CHECKED:
                    return Findings(tuple(items), cursors.write(last))
                last = where
                finding = criteria.finding(key)
                if finding is not None:
                    items.append(finding)
            return Findings(tuple(items), None)

        return attempt.read(question)


def _keys(connection: Connection, workspace_id: int, after: _Place) -> Iterator[tuple[_Place, KeyAtPlace]]:
    kind, server_id, last = after
    if kind == _CREDENTIALS:
        while page := findings.credentials_after(connection, workspace_id, server_id, last, BATCH_SIZE):
            for key in page:
                server_id, last = key.server_id or 0, key.id
                yield (_CREDENTIALS, server_id, last), key
        last = 0
    while page := findings.user_keys_after(connection, workspace_id, last, BATCH_SIZE):
        for key in page:
            last = key.id
            yield (_USER_KEYS, 0, last), key


@dataclass(frozen=True, slots=True)
class _Criteria:
    """What makes a key a finding.

    kinds: those of KINDS that are asked for; old_before: keys entered before are old; unused_before: keys last used
    before, or never used and entered before, are unused.
    """

    rules: KeyRules
    kinds: tuple[str, ...]
    old_before: datetime
    unused_before: datetime
    now: datetime

    def finding(self, key: KeyAtPlace) -> Finding | None:
        """What is wrong with a key, None for nothing. A key that has ended opens nothing and is no finding."""
        if has_ended(key.expires_at, self.now):
            return None
        problems: list[tuple[FindingKind, str]] = []
        if WEAK in self.kinds and (words := self._weak(key)):
            problems.append((WEAK, words))
        if OLD in self.kinds and key.created_at < self.old_before:
            problems.append((OLD, f"It was entered on {key.created_at:%Y-%m-%d}."))
        if UNUSED in self.kinds and (key.used_at or key.created_at) < self.unused_before:
            since = "never" if key.used_at is None else f"last on {key.used_at:%Y-%m-%d}"
            problems.append((UNUSED, f"It was used {since}."))
        if UNOWNED in self.kinds and (key.user is None or key.disabled):
            owner = "No user registered it." if key.user is None else f"Its owner {key.user} is shut out."
            problems.append((UNOWNED, owner))
        if not problems:
            return None
        return Finding(key, tuple(kind for kind, _ in problems), " ".join(words for _, words in problems))

    def _weak(self, key: KeyAtPlace) -> str:
        try:
            read = read_canonical(key.public_key)
        except KeyProblem as problem:
            return str(problem)
        refusal = policy.key_problem(read, self.rules)
        if refusal is None and known_private.is_known(read):
            refusal = policy.compromised()
        return "" if refusal is None else refusal.message
