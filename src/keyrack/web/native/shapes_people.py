"""Users and their own keys: what calls take and answer; must call no use case, and holds no secret."""

from __future__ import annotations

from typing import Annotated, Literal

from keyrack.model import User, UserKind
from keyrack.model import UserKey as UserKeyRecord
from keyrack.web.native.shapes import (
    Answer,
    DurationOrNone,
    End,
    EndOrNone,
    Fingerprint,
    Flag,
    Id,
    KeyRequest,
    Listed,
    PublicKey,
    Request,
    Time,
    about,
    time,
    time_or_null,
)

RoleName = Literal["owner", "admin", "member", "auditor"]


class PersonChange(Request):
    """A user as wanted; what is left out stays, or is what a new user has."""

    role: Annotated[RoleName | None, about("What the user is: an auditor reads everything.", "member")] = None
    kind: Annotated[UserKind | None, about("A person, or a program.", "person")] = None
    policies: Annotated[list[str] | None, about("What else the user may, as patterns.", ["codeartsrepo::*"])] = None
    disabled: Annotated[bool | None, about("Whether the user is shut out.", False)] = None


class Person(Answer):
    """A user."""

    id: Annotated[Id, about("Its id.")]
    name: Annotated[str, about("The name.", "alice")]
    role: Annotated[RoleName, about("What the user is.", "member")]
    kind: Annotated[UserKind, about("A person, or a program.", "person")]
    policies: Annotated[list[str], about("What else the user may.", ["codeartsrepo::*"])]
    disabled: Annotated[Flag, about("Whether the user is shut out.")]
    disabled_at: Annotated[Time | None, about("Since when the user is shut out.", None)]
    created_at: Annotated[Time, about("Since when there is the user.")]


class NewOwnKey(KeyRequest):
    """A key for the caller."""

    title: Annotated[str | None, about("What it is called.", "laptop")] = None
    public_key: Annotated[str, about("One OpenSSH line.", "ssh-ed25519 AAAA… laptop")]
    expires_at: EndOrNone = None
    duration: DurationOrNone = None


class WantedKey(KeyRequest):
    """A key that a user is to have."""

    title: Annotated[str | None, about("What it is called.", "laptop")] = None
    public_key: Annotated[str, about("One OpenSSH line.", "ssh-ed25519 AAAA… laptop")]
    expires_at: Annotated[End | None, about("When it ends: a time with its zone; none for no end.", None)] = None


class OwnKey(Answer):
    """A key of a user, as the user sees it."""

    id: Annotated[Id, about("Its id.")]
    title: Annotated[str | None, about("What it is called.", "laptop")]
    fingerprint: Annotated[Fingerprint | None, about("Its fingerprint.")]
    public_key: Annotated[PublicKey | None, about("The key as it was registered.")]
    created_at: Annotated[Time, about("When it was registered.")]
    expires_at: Annotated[Time | None, about("When it ends.")]
    frozen: Annotated[Flag, about("Whether it opens nothing new until it is confirmed.")]


class PersonPage(Listed[Person]):
    """A page of users."""


class OwnKeyPage(Listed[OwnKey]):
    """A page of keys."""


def person(user: User) -> Person:
    """A user."""
    return Person(
        id=user.id,
        name=user.name,
        role=user.role.value,
        kind=user.kind,
        policies=list(user.policies),
        disabled=user.disabled_at is not None,
        disabled_at=time_or_null(user.disabled_at),
        created_at=time(user.created_at),
    )


def own_key(key: UserKeyRecord) -> OwnKey:
    """A key of a user, as the user sees it."""
    return OwnKey(
        id=key.id,
        title=key.title,
        fingerprint=key.fingerprint,
        public_key=key.with_comment,
        created_at=time(key.created_at),
        expires_at=time_or_null(key.expires_at),
        frozen=key.frozen,
    )
