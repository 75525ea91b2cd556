"""The decisions: may this actor do this, is this key acceptable; must answer with a refusal or None, and do nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import Actor, RepositoryRole, Role

if TYPE_CHECKING:
    from keyrack.ssh.known_private import BlockList
    from keyrack.ssh.public_key import PublicKey

# What can be attempted. A command names one of these; a role, a policy and a token's scopes are
# patterns over them, where * stands for any run of characters.
ACTIONS: dict[str, str] = {
    "servers:read": "see servers, their system users and settings",
    "servers:write": "create, change and delete servers",
    "systemusers:read": "see system users",
    "systemusers:write": "create, change and delete system users",
    "credentials:read": "see the keys on servers",
    "credentials:write": "put keys on servers and take them away",
    "keys:revoke": "take a key away from everywhere at once",
    "keys:rule": "say which keys are accepted",
    "keys:freeze": "stop keys from opening new sessions until they are confirmed",
    "sshconfig:read": "see a server's SSH settings",
    "sshconfig:write": "change a server's SSH settings",
    "sessions:read": "see who is logged in",
    "sessions:write": "end a session",
    "events:read": "read the audit log",
    "webhooks:read": "see where events are sent",
    "webhooks:write": "say where events are sent",
    "instance:tidy": "delete what was kept as long as it must be",
    "people:read": "see users, groups and their tokens",
    "people:write": "create, change and delete users, groups and their tokens",
    "people:offboard": "remove a person everywhere, and undo it",
    "grants:read": "see who may log in where",
    "access:read": "see who can log in where, and why",
    "grants:write": "let users log in on servers, and stop it",
    "requests:ask": "ask to log in somewhere for a while",
    "requests:approve": "approve and deny requests to log in",
    "requests:rule": "say how many must approve requests",
    "codeartsrepo::createUserSSHkey": "add or confirm your own SSH keys",
    "codeartsrepo::getUserSetting": "see your own SSH keys",
    "codeartsrepo::updateUserSetting": "delete your own SSH keys",
    "codeartsrepo:repository:createRepository": "create a repository",
    "codeartsrepo:repository:getRepository": "see a repository and its deploy keys",
    "codeartsrepo:repository:setRepository": "change a repository and its deploy keys",
    "codeartsrepo:repository:deleteRepository": "delete a repository",
    "codeartsrepo:repository:createMembers": "add members to a repository",
    "codeartsrepo:repository:deleteMembers": "remove members from a repository",
    "git:fetch": "clone and fetch every repository of the workspace",
    "git:push": "push to every repository of the workspace",
    "iam:self": "see and change your own tokens and access keys",
}

# Of what happens and nobody attempts here, or that is no verb of Git's: events alone name it.
OF_EVENTS_ALONE = ("sessions:login", "git:command")

# What anybody with an account may, whatever else he may: it opens nothing without somebody who may more.
OF_EVERY_MEMBER = frozenset({"iam:self", "requests:ask"})

# Invariant 2: nothing is allowed by default; a role or policy that names nothing allows nothing.
ROLE_ACTIONS: dict[Role, tuple[str, ...]] = {
    Role.OWNER: ("*",),
    Role.ADMIN: ("*",),
    Role.MEMBER: tuple(sorted(OF_EVERY_MEMBER)),
    Role.AUDITOR: ("*:read", "codeartsrepo::getUserSetting", "codeartsrepo:repository:get*", "iam:self"),
}

# What a member of a repository may do with it, whatever the role in the workspace.
REPOSITORY_ROLE_ACTIONS: dict[RepositoryRole, tuple[str, ...]] = {
    RepositoryRole.VIEWER: ("codeartsrepo:repository:getRepository",),
    RepositoryRole.DEVELOPER: ("codeartsrepo:repository:getRepository",),
    RepositoryRole.ADMIN: ("codeartsrepo:repository:*",),
}


def lent(role: RepositoryRole | None, visibility: int | None) -> tuple[str, ...]:
    """What a user of the workspace may do with one repository beside their own policies, by its rows.

    role: None for who is no member; visibility: None where there is no such repository.
    """
    granted = REPOSITORY_ROLE_ACTIONS[role] if role is not None and visibility is not None else ()
    seen = REPOSITORY_ROLE_ACTIONS[RepositoryRole.VIEWER] if (visibility or 0) >= 10 else ()
    return (*granted, *seen)


LONGEST_PATTERN = 256
MAX_PATTERNS = 100
"""Of one user, token, access key or policy: what a caller can have us keep and compare is bounded."""


def matches(pattern: str, action: str) -> bool:
    """Whether a pattern with * wildcards covers an action, e.g. ``codeartsrepo::*``; case counts.

    A pattern is a caller's text, so it never becomes a regular expression: what stands between two * is looked
    for once, from left to right, and taken where it first occurs, which no later part can regret.
    """
    first, *between = pattern.split("*")
    if not between:
        return pattern == action
    last = between.pop()
    if len(first) + len(last) > len(action) or not action.startswith(first) or not action.endswith(last):
        return False
    at, end = len(first), len(action) - len(last)
    for text in between:
        position = action.find(text, at, end)
        if position < 0:
            return False
        at = position + len(text)
    return True


def patterns(values: Iterable[object], *, field: str) -> tuple[str, ...]:
    """Patterns over actions as they may be kept: each once, runs of * as one; field: whose argument they are.

    At most MAX_PATTERNS of 1 to LONGEST_PATTERN printable ASCII characters. Raises Refusal INVALID.
    """
    kept: dict[str, None] = {}
    for number, value in enumerate(values):
        if number >= MAX_PATTERNS:
            raise invalid(field, f"At most {MAX_PATTERNS} actions are named at once.", "too-many-patterns")
        if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_PATTERN:
            raise invalid(field, f"An action is a text of 1 to {LONGEST_PATTERN} characters.", "pattern-length")
        if not value.isascii() or not value.isprintable() or " " in value:
            raise invalid(field, "An action is written in printable ASCII without blanks.", "pattern-malformed")
        parts = value.split("*")
        kept["*".join([parts[0], *(part for part in parts[1:-1] if part), *parts[1:][-1:]])] = None
    return tuple(kept)


def fitting(
    values: Iterable[object], *, field: str, held: Iterable[str] = (), also: Iterable[str] = ()
) -> tuple[str, ...]:
    """Patterns as `patterns` keeps them, each of which fits an action: a misspelt one would give or tell nothing.

    Those in the vendor's form (SERVICE:RESOURCE:ACTION) are taken, as a policy that is copied from there names calls
    and services that are not here; but not with other capitals than an action has. held: those that are kept already,
    which may stay as they are; also: what they may fit beside ACTIONS. Raises Refusal INVALID.
    """
    kept, before = patterns(values, field=field), frozenset(held)
    known = (*ACTIONS, *also)
    lowered = {action.lower() for action in known}
    for one in kept:
        of_vendor = one.count(":") == 2 and one.lower() not in lowered
        if one in before or of_vendor or any(matches(one, action) for action in known):
            continue
        from difflib import get_close_matches  # for who misspells alone

        close = get_close_matches(one, known, n=3)
        there = f"the nearest are {', '.join(close)}" if close else f"there are {', '.join(ACTIONS)}"
        raise invalid(field, f"{one} fits no action; {there}. * stands for any characters.", "action-unknown")
    return kept


def actions(role: Role | None, policies: Iterable[str], scopes: Iterable[str] = ("*",)) -> frozenset[str]:
    """What somebody with a role and policies may do through a proof with scopes, as names of ACTIONS."""
    granted = (*(ROLE_ACTIONS[role] if role else ()), *policies)
    bounds = tuple(scopes)
    return frozenset(
        action
        for action in ACTIONS
        if any(matches(pattern, action) for pattern in granted) and any(matches(bound, action) for bound in bounds)
    )


def both(scopes: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """The scopes of what may do only what both of two proofs may."""
    if "*" in scopes:
        return others
    if "*" in others:
        return scopes
    return tuple(sorted(actions(Role.OWNER, (), scopes) & actions(Role.OWNER, (), others)))


def lacking(actor: Actor, wanted: Iterable[str]) -> frozenset[str]:
    """The actions among those wanted that an actor may not do.

    Who may deal with everybody's users, tokens and access keys lacks nothing that everybody with an account has.
    """
    if _unbounded(actor):
        return frozenset()
    own = actions(actor.role, actor.policies, actor.scopes)
    return frozenset(wanted) - own - (OF_EVERY_MEMBER if "people:write" in own else frozenset())


def _unbounded(actor: Actor) -> bool:
    """Whether somebody may do everything with everything: no comparison tells more."""
    granted = (*(ROLE_ACTIONS[actor.role] if actor.role else ()), *actor.policies)
    return "*" in granted and "*" in actor.scopes


def exceeds(actor: Actor, role: Role, policies: Iterable[str], scopes: Iterable[str] = ("*",)) -> Refusal | None:
    """The refusal where somebody with these rights may more than the actor; None where the actor may as much.

    Who could set a password, make a token or switch an access key on for somebody who may more would have it. No action
    names what owners alone may, to see the tokens of all workspaces (tokens.find_everywhere): only owners make owners.
    """
    if role is Role.OWNER and actor.role is not Role.OWNER:
        words = "This would touch or give an owner's rights, which you lack yourself. Ask an owner of the workspace."
        return Refusal(Kind.FORBIDDEN, "exceeds-own-rights", words)
    if _unbounded(actor):
        return None
    more = lacking(actor, actions(role, policies, scopes))
    if not more:
        return None
    first = min(more)
    return Refusal(
        Kind.FORBIDDEN,
        "exceeds-own-rights",
        f"This would touch or give rights that you lack yourself, such as to {ACTIONS[first]} ({first}). "
        "Ask an owner or admin of the workspace.",
    )


@lru_cache(4096)
def _any_matches(patterns: tuple[str, ...], action: str) -> bool:
    """Whether one of the patterns covers an action; the same few are asked about at every call."""
    return any(matches(pattern, action) for pattern in patterns)


def may(actor: Actor, action: str) -> Refusal | None:
    """None when the actor may do the action; otherwise the refusal, which names what is lacking."""
    if action not in ACTIONS:
        raise LookupError(f"no such action: {action}")
    allowed = (*(ROLE_ACTIONS[actor.role] if actor.role else ()), *actor.policies)
    if not _any_matches(allowed, action):
        return Refusal(
            Kind.FORBIDDEN,
            "not-allowed",
            f"You are not allowed to {ACTIONS[action]}; this takes the action {action}. "
            "Ask an owner or admin of the workspace.",
        )
    if not _any_matches(tuple(actor.scopes), action):
        return Refusal(
            Kind.FORBIDDEN,
            "scope-lacking",
            f"This token's scopes don't let it {ACTIONS[action]}; this takes the scope {action}.",
        )
    return None


def git_problem(
    actor: Actor, verb: str, *, workspace_id: int, visibility: int, role: RepositoryRole | None
) -> Refusal | None:
    """None when a user may do the verb, "fetch" or "push", with a repository; otherwise why not.

    workspace_id and visibility are the repository's; role: the user's in it. Visibility 10 is for everybody
    in the workspace to read, 20 for every registered user. A repository that the user may not even read is
    refused as missing, in the words of one that does not exist.
    """
    own = actor.workspace_id == workspace_id
    if own and may(actor, f"git:{verb}") is None:
        return None
    reads = role is not None or visibility >= 20 or (visibility >= 10 and own)
    writes = role in (RepositoryRole.DEVELOPER, RepositoryRole.ADMIN)
    if (verb == "fetch" and reads) or (verb == "push" and writes):
        return None
    if not reads:
        return missing("repository")
    place = "a viewer of it" if role else "not a member of it"
    return Refusal(
        Kind.FORBIDDEN,
        "push-not-allowed",
        f"You may read this repository, but not push to it: you are {place}. "
        "Ask an admin of the repository for the role developer.",
    )


def deploy_key_problem(verb: str, *, can_push: bool) -> Refusal | None:
    """None when a deploy key may do the verb, "fetch" or "push", with its own repository."""
    if verb == "fetch" or (verb == "push" and can_push):
        return None
    return Refusal(
        Kind.FORBIDDEN,
        "deploy-key-reads-only",
        "This deploy key may read this repository, but not push to it. Use a key that may, or your own.",
    )


@dataclass(frozen=True, slots=True)
class KeyRules:
    """What the instance accepts as a public key; blocked: its own list, beside the keys known to everybody."""

    types: frozenset[str]
    rsa_minimum_bits: int
    blocked: BlockList | None = None


def key_problem(key: PublicKey, rules: KeyRules) -> Refusal | None:
    """None when the instance accepts a well-formed key; otherwise why not, in words for its owner."""
    if key.type not in rules.types:
        return Refusal(
            Kind.INVALID,
            "key-type-not-allowed",
            f"Keys of type {key.type} are not accepted here. Accepted: {', '.join(sorted(rules.types))}.",
        )
    if key.type == "ssh-rsa" and key.bits < rules.rsa_minimum_bits:
        return Refusal(
            Kind.INVALID,
            "key-too-short",
            f"This RSA key has {key.bits} bits; at least {rules.rsa_minimum_bits} are required. "
            "Make a new one, for example with: ssh-keygen -t ed25519",
        )
    if rules.blocked is not None and rules.blocked.find(key) is not None:
        return compromised()
    return None


def compromised() -> Refusal:
    """The refusal of a key whose private half is no secret."""
    return Refusal(
        Kind.INVALID,
        "key-compromised",
        "This key's private half is known to others, so it protects nothing. "
        "Make a new pair, for example with: ssh-keygen -t ed25519",
    )
