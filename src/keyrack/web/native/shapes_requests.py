"""Requests for access, their rules, and proofs of possession: what calls take and answer; must call no use case."""

from __future__ import annotations

from typing import Annotated

from keyrack.core.keys.claims import NAMESPACE, KeyChallenge
from keyrack.core.keys.requests import RequestNames
from keyrack.core.lifetimes import written
from keyrack.store.keys.requests import AccessRequest as RequestRecord
from keyrack.store.keys.requests import RequestRule as RuleRecord
from keyrack.web.native.shapes import (
    Answer,
    Count,
    Fingerprint,
    Id,
    KeyRequest,
    Listed,
    PublicKey,
    Request,
    Time,
    Window,
    about,
    time,
    time_or_null,
)

_SPAN = "A span such as 90min, 12h, 3d or 1w, or a time with its zone."


class NewRequest(Request):
    """What somebody asks for."""

    server: Annotated[str | int | None, about("A server, by name or id; or name a tag.", "web-1")] = None
    tag: Annotated[str | None, about("All servers with this tag.", None)] = None
    system_user: Annotated[str, about("As which system user.", "deploy")]
    duration: Annotated[str, about(f"How long it opens, once it is approved. {_SPAN}", "1h")]
    reason: Annotated[str, about("Why; those who approve read it.", "the release of today")]


class RequestDecision(Request):
    """What is said with a decision; the body may be left out."""

    reason: Annotated[str | None, about("Why, for whoever asked.", "not during the release")] = None


class RequestsAsked(Window):
    """Which requests."""

    state: Annotated[str | None, about("pending, approved, denied, cancelled, lapsed or ended.", "pending")] = None


class NewRule(Request):
    """How many must approve requests, and for how long at most."""

    approvers: Annotated[int, about("How many different people must approve: 1 or 2.", 2)] = 1
    server: Annotated[str | int | None, about("For this server alone, by name or id.", None)] = None
    tag: Annotated[str | None, about("For servers with this tag alone.", "production")] = None
    system_user: Annotated[str | None, about("For this system user alone.", "root")] = None
    max_duration: Annotated[str | None, about("The longest span that may be asked for.", "8h")] = None


class ChallengeAsked(KeyRequest):
    """The key to prove."""

    public_key: Annotated[PublicKey, about("One line as ssh-keygen writes it.")]


class Claim(KeyRequest):
    """The proof that a key is the caller's."""

    public_key: Annotated[PublicKey, about("The key.")]
    challenge: Annotated[str, about("The text as POST /keys/challenge answered it.", "I prove to Keyrack …")]
    signature: Annotated[str, about("The signature file's text.", "-----BEGIN SSH SIGNATURE----- …")]
    title: Annotated[str | None, about("What the key is called.", "laptop")] = None


class AccessRequest(Answer):
    """A request for access."""

    id: Annotated[Id, about("Its id.")]
    user: Annotated[str | None, about("Who asks.", "alice")]
    server: Annotated[str | None, about("The server.", "web-1")]
    server_id: Annotated[Id | None, about("The server's id.")]
    tag: Annotated[str | None, about("The tag.", None)]
    system_user: Annotated[str, about("As which system user.", "deploy")]
    duration: Annotated[str | None, about("How long it opens, from the approval on.", "1h")]
    until: Annotated[Time | None, about("Or until when.")]
    reason: Annotated[str, about("Why.", "the release of today")]
    state: Annotated[str, about("pending, approved, denied, cancelled, lapsed or ended.", "pending")]
    approvers: Annotated[Count, about("How many must approve.")]
    approved_by: Annotated[list[str], about("Who approved so far, first to last.", ["olga"])]
    created_at: Annotated[Time, about("When it was made.")]
    pending_until: Annotated[Time, about("When it lapses if nobody decides.")]
    decided_at: Annotated[Time | None, about("When it was decided.")]
    decided_by: Annotated[str | None, about("By whom.", "olga")]
    decision_reason: Annotated[str | None, about("Why it was decided so.", "not during the release")]
    grant_id: Annotated[Id | None, about("The grant that it opened as.")]


class AccessRequestPage(Listed[AccessRequest]):
    """A page of requests for access."""


class Rule(Answer):
    """A rule of requests."""

    name: Annotated[str, about("What it is called.", "production")]
    approvers: Annotated[Count, about("How many different people must approve.")]
    server_id: Annotated[Id | None, about("For this server alone.")]
    tag: Annotated[str | None, about("For servers with this tag alone.", "production")]
    system_user: Annotated[str | None, about("For this system user alone.", "root")]
    max_duration: Annotated[str | None, about("The longest span that may be asked for.", "8h")]


class Rules(Answer):
    """All rules of requests."""

    items: Annotated[list[Rule], about("The rules, by name.")]


class Challenge(Answer):
    """What to sign."""

    challenge: Annotated[str, about("The text to sign, to the last byte.", "I prove to Keyrack …")]
    namespace: Annotated[str, about("The namespace of the signature.", NAMESPACE)]
    fingerprint: Annotated[Fingerprint, about("The key.")]
    expires_at: Annotated[Time, about("Until when the signature is taken.")]
    command: Annotated[str, about("How to sign it.", f"ssh-keygen -Y sign -n {NAMESPACE} -f KEY challenge.txt")]


def access_request(one: RequestRecord, names: RequestNames) -> AccessRequest:
    """A request with the names that go with it."""
    return AccessRequest(
        id=one.id,
        user=names.users.get(one.user_id),
        server=names.servers.get(one.server_id or 0),
        server_id=one.server_id,
        tag=one.tag,
        system_user=one.system_user,
        duration=None if one.span is None else written(one.span),
        until=time_or_null(one.until),
        reason=one.reason,
        state=one.state,
        approvers=one.approvers,
        approved_by=list(names.approved_by.get(one.id, ())),
        created_at=time(one.created_at),
        pending_until=time(one.pending_until),
        decided_at=time_or_null(one.decided_at),
        decided_by=one.decided_by,
        decision_reason=one.word,
        grant_id=one.grant_id,
    )


def rule(one: RuleRecord) -> Rule:
    """A rule of requests."""
    return Rule(
        name=one.name,
        approvers=one.approvers,
        server_id=one.server_id,
        tag=one.tag,
        system_user=one.system_user,
        max_duration=None if one.max_duration is None else written(one.max_duration),
    )


def challenge(made: KeyChallenge) -> Challenge:
    """What to sign, and how."""
    return Challenge(
        challenge=made.text,
        namespace=NAMESPACE,
        fingerprint=made.fingerprint,
        expires_at=time(made.expires_at),
        command=f"ssh-keygen -Y sign -n {NAMESPACE} -f KEY challenge.txt",
    )
