"""The changes that a workspace file means, collected and carried out; must hold no rules for what the file declares."""

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
    """A plan that is being carried out: actor, instance, and users, groups and servers by name, also new ones."""

    instance: Instance
    actor: Actor
    users: dict[str, User]
    groups: dict[str, int]
    servers: dict[str, int]
    hashed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """One change: in words, and the function that makes it."""

    words: str
    run: Callable[[Execution], object]


@dataclass(slots=True)
class PlannedChanges:
    """What a file means for a workspace.

    changes: to be made; left: removals that are not made, as nobody asked for them; noted: what else differs and stays;
    servers: the ids of servers that the file means, by its names.
    """

    changes: list[Change] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)
    servers: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Comparison:
    """A file and a workspace, compared, and the plan so far.

    other_passwords: see plan.compare; key_rules: which keys are accepted while the plan is carried out, None for those
    now; matched, meant: servers that entries of the file mean, by the file's name, and their ids.
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
    # Indexes for what each entry looks up, so that a big file costs no more than its size.
    user_names: dict[int, str] = field(default_factory=dict)
    known_people: set[str] = field(default_factory=set)
    keys_of: dict[int, list[AccessKeyRow]] = field(default_factory=dict)
    tokens_of: dict[int, list[TokenRow]] = field(default_factory=dict)
    servers_named: dict[str, list[ServerState]] = field(default_factory=dict)
    servers_at: dict[str, list[ServerState]] = field(default_factory=dict)
    servers_declared: set[object] = field(default_factory=set)

    @property
    def workspace_id(self) -> int | None:
        """The workspace's id, None where it is to be created."""
        return None if self.state.workspace is None else self.state.workspace.id

    def __post_init__(self) -> None:
        self.user_names = {user.id: name for name, user in self.state.users.items()}
        self.known_people = set(self.state.users) | {user.name for user in self.wanted.users}
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
        """Raises Refusal INVALID for a key that is not accepted once the plan is carried out."""
        validation.public_key(self.instance, self.workspace_id, line, rules=self.key_rules)

    def do(self, words: str, run: Callable[[Execution], object]) -> None:
        """Add a change."""
        self.plan.changes.append(Change(words, run))

    def remove(self, words: str, run: Callable[[Execution], object]) -> None:
        """Add a removal if these are asked for; otherwise note it as left."""
        if self.prune:
            self.do(words, run)
        else:
            self.plan.left.append(words)


def refuse_unknown(place: str, what: str, names: Iterable[str]) -> None:
    """Raises Refusal INVALID for the first of these unknown names; what: "user", "group" …"""
    for name in names:
        raise wrong(place, f"the {what} {name!r} is named, and there is none, neither in the file nor in the workspace")


def shortened(names: Iterable[str]) -> str:
    """Names; of more than twenty the first twenty."""
    listed = list(names)
    return ", ".join(listed[:20]) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")
