"""People who are removed everywhere: what calls take and answer; must call no use case."""

from __future__ import annotations

from typing import Annotated, Any

from keyrack.core.people.offboarding import OffboardingPlan, Progress, counted, taken_away
from keyrack.core.people.offboarding_undo import UndoneOffboarding
from keyrack.web.native.shapes import (
    Answer,
    Count,
    Fingerprint,
    Flag,
    Id,
    Listed,
    Name,
    Query,
    Request,
    Time,
    about,
    time,
    time_or_null,
)
from keyrack.web.native.shapes_keys import Receipt, receipt


class Offboard(Request):
    """Why a person goes, or whether it is only to be seen what would go."""

    preview: Annotated[bool, about("Show what would go, and change nothing.", False)] = False
    reason: Annotated[str | None, about("Why, for those who ask later.", "left the company")] = None


class PreviewAsked(Query):
    """Whether it is only to be seen what would go."""

    preview: Annotated[bool, about("Show what would go, and change nothing.", False)] = False


class GoneKey(Answer):
    """An SSH key of the person."""

    title: Annotated[str | None, about("Its title.", "laptop")]
    fingerprint: Annotated[Fingerprint | None, about("Its fingerprint.")]


class GoneCredential(Answer):
    """A credential with one of the keys."""

    server: Annotated[Name, about("On which server.")]
    username: Annotated[str, about("As which system user.", "deploy")]
    label: Annotated[str, about("Its label.", "laptop")]
    fingerprint: Annotated[Fingerprint, about("Its fingerprint.")]


class GoneGrant(Answer):
    """A grant for the person by name."""

    id: Annotated[Id, about("The id that it had.")]
    server: Annotated[Name | None, about("On which server.")]
    tag: Annotated[str | None, about("On servers with which tag.", None)]
    system_user: Annotated[str, about("As which system user.", "deploy")]


class GoneRole(Answer):
    """A membership of a repository."""

    path: Annotated[str, about("The repository.", "acme/site")]
    role: Annotated[str, about("The role.", "developer")]


class GoneToken(Answer):
    """A token of the API."""

    id: Annotated[Id, about("Its id.")]
    name: Annotated[str, about("What it was called.", "ci")]


class GoneSession(Answer):
    """An open login with one of the keys, which its host ends."""

    server: Annotated[Name, about("On which server.")]
    username: Annotated[str, about("As which system user.", "deploy")]
    address: Annotated[str, about("From where.", "198.51.100.3")]


class FoundKey(Answer):
    """One of the keys in a file of a host's own, which that host refuses from now on."""

    server: Annotated[Name, about("On which server.")]
    username: Annotated[str, about("For which account.", "deploy")]
    path: Annotated[str, about("In which file.", "/home/deploy/.ssh/authorized_keys")]
    fingerprint: Annotated[Fingerprint, about("Its fingerprint.")]


class Gone(Answer):
    """What goes with a person."""

    keys: Annotated[list[GoneKey], about("SSH keys.")]
    credentials: Annotated[list[GoneCredential], about("Credentials with one of these keys, whoever added them.")]
    grants: Annotated[list[GoneGrant], about("Grants by name.")]
    groups: Annotated[list[str], about("Memberships of groups.", ["ops"])]
    repositories: Annotated[list[GoneRole], about("Memberships of repositories.")]
    tokens: Annotated[list[GoneToken], about("Tokens of the API.")]
    iam_tokens: Annotated[Count, about("How many IAM tokens.")]
    access_keys: Annotated[list[str], about("The ids of access keys.", ["AKEXAMPLE"])]
    sessions: Annotated[list[GoneSession], about("Open logins.")]
    found: Annotated[list[FoundKey], about("The keys in files of hosts' own.")]
    key_sources: Annotated[list[str], about("Accounts that keys came from.", ["octocat at https://github.com"])]
    requests: Annotated[list[GoneGrant], about("Requests for access that were pending.")]
    servers: Annotated[list[str], about("The servers concerned.", ["web-1"])]


class Stays(Answer):
    """What the person added for others, which stays."""

    deploy_keys: Annotated[Count, about("Deploy keys of repositories that the person added.")]
    credentials: Annotated[Count, about("Credentials with keys of others that the person added.")]


class GitReceipt(Answer):
    """How far one Git endpoint is: nothing new begins from the call on, and it says when what ran has ended."""

    endpoint: Annotated[str, about("Which.", "git.example.org:2223")]
    done: Annotated[Flag, about("Whether no transfer of the person runs there.")]
    acknowledged_at: Annotated[Time | None, about("When it said that what ran has ended.")]
    stopped: Annotated[Count, about("How many transfers were stopped.")]


class Offboarding(Answer):
    """A person who is removed everywhere, or would be."""

    id: Annotated[Id | None, about("Its id; none for a preview.")]
    preview: Annotated[bool, about("Whether nothing was changed.", False)]
    user: Annotated[str, about("Who.", "alice")]
    done: Annotated[Flag, about("Whether every host and Git endpoint has said that it obeys.")]
    words: Annotated[str, about("The same in words.", "done on 2 of 3 servers; not yet on web-1")]
    asked_by: Annotated[str, about("Who asked for it.", "olga")]
    reason: Annotated[str, about("Why.", "left the company")]
    at: Annotated[Time | None, about("When.")]
    undo_until: Annotated[Time | None, about("Until when it can be undone.")]
    undone_at: Annotated[Time | None, about("When it was undone, if it was.")]
    undone_by: Annotated[str | None, about("By whom.", None)]
    gone: Annotated[Gone, about("What went, or would go.")]
    gone_words: Annotated[str, about("The same in words.", "2 SSH keys, 1 grant and 3 sessions")]
    stays: Annotated[Stays | None, about("In a preview: what stays, for somebody to look at.")]
    servers: Annotated[list[Receipt], about("How far each server is.")]
    git: Annotated[list[GitReceipt], about("How far each Git endpoint is.")]


class OffboardingPage(Listed[Offboarding]):
    """A page of offboardings."""


class Undone(Answer):
    """What came back."""

    id: Annotated[Id, about("The offboarding.")]
    user: Annotated[str, about("Whose access came back.", "alice")]
    undone_at: Annotated[Time | None, about("When.")]
    keys: Annotated[Count, about("How many SSH keys.")]
    credentials: Annotated[Count, about("How many credentials.")]
    grants: Annotated[Count, about("How many grants.")]
    memberships: Annotated[Count, about("How many memberships of groups and repositories.")]
    left: Annotated[list[str], about("What could not come back, in words.", ["a grant that has ended"])]


def _gone(gone: Any) -> Gone:
    # Older ones say nothing of these.
    return Gone.model_validate({"key_sources": [], "requests": [], **gone})


def preview(plan: OffboardingPlan) -> Offboarding:
    """What would go with a person."""
    return Offboarding(
        id=None,
        preview=True,
        user=plan.user.name,
        done=False,
        words="nothing was changed",
        asked_by="",
        reason="",
        at=None,
        undo_until=None,
        undone_at=None,
        undone_by=None,
        gone=_gone(plan.gone),
        gone_words=counted(plan.gone),
        stays=Stays(deploy_keys=plan.deploy_keys, credentials=plan.credentials),
        servers=[],
        git=[],
    )


def offboarding(progress: Progress) -> Offboarding:
    """An offboarding, and who has obeyed by now."""
    one = progress.offboarding
    return Offboarding(
        id=one.id,
        preview=False,
        user=one.user_name,
        done=progress.done,
        words=progress.words,
        asked_by=one.asked_by,
        reason=one.reason,
        at=time(one.at),
        undo_until=time(one.undo_until),
        undone_at=time_or_null(one.undone_at),
        undone_by=one.undone_by,
        gone=_gone(one.gone),
        gone_words=taken_away(one),
        stays=None,
        servers=[receipt(host) for host in progress.hosts],
        git=[
            GitReceipt(
                endpoint=endpoint.name,
                done=endpoint.acknowledged_at is not None,
                acknowledged_at=time_or_null(endpoint.acknowledged_at),
                stopped=endpoint.stopped,
            )
            for endpoint in progress.git
        ],
    )


def undone(done: UndoneOffboarding) -> Undone:
    """What came back of an offboarding."""
    return Undone(
        id=done.offboarding.id,
        user=done.offboarding.user_name,
        undone_at=time_or_null(done.offboarding.undone_at),
        keys=done.back["user_keys"],
        credentials=done.back["credentials"],
        grants=done.back["grants"],
        memberships=done.back["group_members"] + done.back["repository_members"],
        left=list(done.left),
    )
