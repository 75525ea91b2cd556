"""The decisions: may this actor do this, is this key acceptable; must answer with a refusal or None, and do nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from keyrack.errors import Kind, Refusal, missing
from keyrack.model import Actor, RepositoryRole, Role
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
    "sshconfig:read": "see a server's SSH settings",
    "sshconfig:write": "change a server's SSH settings",
    "sessions:read": "see who is logged in",
    "sessions:write": "end a session",
    "events:read": "read the audit log",
    "people:read": "see users, groups and their tokens",
    "people:write": "create, change and delete users, groups and their tokens",
    "grants:read": "see who may log in where",
    "grants:write": "let users log in on servers, and stop it",
    "codeartsrepo::createUserSSHkey": "add an SSH key of one's own",
    "codeartsrepo::getUserSetting": "see one's own SSH keys",
    "codeartsrepo::updateUserSetting": "delete an SSH key of one's own",
    "codeartsrepo:repository:createRepository": "create a repository",
    "codeartsrepo:repository:getRepository": "see a repository and its deploy keys",
    "codeartsrepo:repository:setRepository": "change a repository and its deploy keys",
    "codeartsrepo:repository:deleteRepository": "delete a repository",
    "codeartsrepo:repository:createMembers": "add members to a repository",
    "codeartsrepo:repository:deleteMembers": "remove members from a repository",
    "git:fetch": "clone and fetch every repository of the workspace",
    "git:push": "push to every repository of the workspace",
    "iam:self": "see and change one's own tokens and access keys",
}

# Invariant 2: nothing is allowed by default; a role or policy that names nothing allows nothing.
ROLE_ACTIONS: dict[Role, tuple[str, ...]] = {
    Role.OWNER: ("*",),
    Role.ADMIN: ("*",),
    Role.MEMBER: ("iam:self",),
    Role.AUDITOR: ("*:read", "codeartsrepo::getUserSetting", "codeartsrepo:repository:get*", "iam:self"),
}

# What a member of a repository may do with it, whatever the role in the workspace.
REPOSITORY_ROLE_ACTIONS: dict[RepositoryRole, tuple[str, ...]] = {
    RepositoryRole.VIEWER: ("codeartsrepo:repository:getRepository",),
    RepositoryRole.DEVELOPER: ("codeartsrepo:repository:getRepository",),
    RepositoryRole.ADMIN: ("codeartsrepo:repository:*",),
}


@lru_cache(maxsize=4096)
def matches(pattern: str, action: str) -> bool:
    """Whether a pattern with * wildcards covers an action, e.g. ``codeartsrepo::*``; case counts."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), action) is not None


def may(actor: Actor, action: str) -> Refusal | None:
    """None when the actor may do the action; otherwise the refusal, which names what is lacking."""
    if action not in ACTIONS:
        raise LookupError(f"no such action: {action}")
    allowed = (*(ROLE_ACTIONS[actor.role] if actor.role else ()), *actor.policies)
    if not any(matches(pattern, action) for pattern in allowed):
        return Refusal(
            Kind.FORBIDDEN,
            "not-allowed",
            f"You are not allowed to {ACTIONS[action]}; this takes the action {action}. "
            "Ask an owner or admin of the workspace.",
        )
    if not any(matches(scope, action) for scope in actor.scopes):
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
    max_characters: int
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
