"""The changes a workspace file means, as they are collected and carried out; must know no noun's rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from datetime import datetime

from keyrack.core import validation
from keyrack.core.instance import Instance
from keyrack.core.workspace.faults import Faults, wrong
from keyrack.core.workspace.wanted import WorkspaceFile
from keyrack.model import Actor, User
from keyrack.policy import KeyRules
from keyrack.store.people.access_keys import AccessKeyRow
from keyrack.store.workspace_state import ServerState, State, TokenRow


@dataclass(slots=True)
class Execution:
    """A plan being carried out: by whom, where, and the ids of what there is by name, also of what was just made."""

    instance: Instance
    actor: Actor
    users: dict[str, User]
    groups: dict[str, int]
    servers: dict[str, int]
    hashed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to do, in words that name it."""

    words: str
    run: Callable[[Execution], object]


@dataclass(slots=True)
class PlannedChanges:
    """changes: what is done; left: removals that are not done, as nobody asked for them; noted: what else differs and
    stays; servers: the ids of those that the file means, by its names.
    """

    changes: list[Change] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)
    servers: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Comparison:
    """A file beside a workspace, and the plan that comes of it; other_passwords: see plan.compare; key_rules:
    which keys are accepted while it is carried out, None for those of now.
    """

    instance: Instance
    wanted: WorkspaceFile
    state: State
    prune: bool
    reset_secrets: bool
    other_passwords: Set[tuple[str, str]]
    at: datetime
    key_rules: KeyRules | None = None
    plan: PlannedChanges = field(default_factory=PlannedChanges)
    faults: Faults = field(default_factory=Faults)
    matched: dict[str, ServerState] = field(default_factory=dict)
    meant: set[int] = field(default_factory=set)
    # What is looked for once an entry, by what it is looked for, so that a big file costs no more than its size.
    user_names: dict[int, str] = field(default_factory=dict)
    people_there: set[str] = field(default_factory=set)
    keys_of: dict[int, list[AccessKeyRow]] = field(default_factory=dict)
    tokens_of: dict[int, list[TokenRow]] = field(default_factory=dict)
    servers_named: dict[str, list[ServerState]] = field(default_factory=dict)
    servers_at: dict[str, list[ServerState]] = field(default_factory=dict)
    servers_declared: set[object] = field(default_factory=set)

    @property
    def workspace_id(self) -> int | None:
        """The workspace's id, None where it is to be made."""
        return None if self.state.workspace is None else self.state.workspace.id

    def __post_init__(self) -> None:
        self.user_names = {user.id: name for name, user in self.state.users.items()}
        self.people_there = set(self.state.users) | {user.name for user in self.wanted.users}
        for key in self.state.access_keys:
            self.keys_of.setdefault(key.user_id, []).append(key)
        for token in self.state.tokens:
            self.tokens_of.setdefault(token.user_id, []).append(token)
        for server in self.state.servers.values():
            self.servers_named.setdefault(server.name, []).append(server)
            self.servers_at.setdefault(server.address, []).append(server)
        for wanted in self.wanted.servers:
            self.servers_declared |= {wanted.name, wanted.was, wanted.id}

    def check_key(self, line: str) -> None:
        """Raise Refusal INVALID for what is no key that is accepted once this is carried out."""
        validation.public_key(self.instance, self.workspace_id, line, rules=self.key_rules)

    def do(self, words: str, run: Callable[[Execution], object]) -> None:
        """One more change."""
        self.plan.changes.append(Change(words, run))

    def remove(self, words: str, run: Callable[[Execution], object]) -> None:
        """One more change where removals are asked for; otherwise it is named and left."""
        if self.prune:
            self.do(words, run)
        else:
            self.plan.left.append(words)


def refuse_unknown(place: str, what: str, names: Iterable[str]) -> None:
    """Raise Refusal INVALID for the first of the names, which nobody has; what: "user", "group" …"""
    for name in names:
        raise wrong(place, f"the {what} {name!r} is named, and there is none, neither in the file nor in the workspace")


def shortened(names: Iterable[str]) -> str:
    """Names, the first twenty of many."""
    listed = list(names)
    return ", ".join(listed[:20]) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")
