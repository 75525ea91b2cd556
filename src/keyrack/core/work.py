"""The unit of work: policy first, then change, event and revisions committed as one; must know no use case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from keyrack import policy
from keyrack.core.audit.refusals import RefusedAttempt
from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal, missing
from keyrack.model import Actor, Level
from keyrack.store.audit import events
from keyrack.store.database import Prefetch
from keyrack.store.engine.prepared import Row
from keyrack.store.hosts import servers
from keyrack.store.people import standing, users
from keyrack.store.people.standing import Standing

T = TypeVar("T")

RACES = 2


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was done to one of many things; fields as Work.record has them."""

    summary: str
    target_kind: str = ""
    target_id: int | None = None
    server_id: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Work:
    """One transaction of one command: its connection, its time, and the events it leaves."""

    def __init__(self, attempt: Attempt, connection: Connection) -> None:
        self.attempt = attempt
        self.actor = attempt.actor
        self.instance = attempt.instance
        self.connection = connection
        self.now = attempt.instance.now()
        self._accounted = False
        self.bumped: dict[int, int] = {}

    def check_actor_again(self, standing: Standing) -> None:
        """Go on with the rights that the actor's user has in this transaction.

        Who was shut out, has less, is no member any more, or whose proof has ended since it was looked at changes
        nothing any more. Raises Refusal UNAUTHENTICATED or FORBIDDEN.
        """
        gone = standing.role is None or standing.workspace_id != self.actor.workspace_id
        if standing.role is None or gone or not standing.proven or standing.disabled_at is not None:
            code = "user-disabled" if not gone and standing.disabled_at is not None else "token-not-in-force"
            raise Refusal(Kind.UNAUTHENTICATED, code, "This token is not in force.")
        now = standing.policies
        if self.actor.repository_id is not None:
            now = (*now, *policy.lent(standing.membership, standing.visibility))
        if (standing.role, now) != (self.actor.role, self.actor.policies):
            self.actor = replace(self.actor, role=standing.role, policies=now)
            refusal = policy.may(self.actor, self.attempt.action)
            if refusal is not None:
                raise refusal

    def bump_revision(self, server_id: int) -> int:
        """Give a server a new revision, and answer it; whoever waits for it is woken after the commit.

        Events recorded from here on name it, so that one can ask whether the host obeys it (receipts.py).
        """
        revision = servers.raise_revision(self.connection, server_id, self.now)
        self.bumped[server_id] = revision
        return revision

    def raising(
        self, server_ids: Iterable[int], *, locked: Sequence[Row] | None = None, last: bool = False
    ) -> AbstractContextManager[dict[int, int]]:
        """The same for many servers, as store/servers.raised has it: in few statements, at the end of the block."""
        return servers.raised(self.connection, server_ids, self.now, locked=locked, last=last, note=self.bumped.update)

    def bump_revisions(self, server_ids: Iterable[int]) -> dict[int, int]:
        """The same for many servers where nothing else belongs to it; answers the revisions by server."""
        with self.raising(server_ids) as revisions:
            return revisions

    def record_each(self, of: Iterable[Recorded]) -> None:
        """Leave an event for each thing of one change, whose own event names the revisions."""
        entries = [
            {
                "target_kind": one.target_kind or self.attempt.target_kind,
                "target_id": one.target_id,
                "server_id": one.server_id,
                "summary": one.summary,
                "details": one.details,
            }
            for one in of
        ]
        common = {"at": self.now, "action": self.attempt.action, "outcome": "done", "reason": "", "level": "info"}
        events.add_many(self.connection, self.actor, common, entries)
        self.instance.figures.done.inc(len(entries))

    def record(
        self,
        summary: str,
        *,
        target_kind: str = "",
        target_id: int | None = None,
        server_id: int | None = None,
        workspace_id: int | None = None,
        level: Level = "info",
        details: Mapping[str, Any] | None = None,
        naming_revisions: bool = True,
    ) -> None:
        """Leave an event of what was done; summary: one sentence, past tense, without secrets.

        naming_revisions: False for one of many events of one change, where another one names them all.
        workspace_id: whose log it belongs in when Keyrack itself acts, which has no workspace of its own.
        """
        actor = self.actor if workspace_id is None else replace(self.actor, workspace_id=workspace_id)
        events.add(
            self.connection,
            actor,
            at=self.now,
            action=self.attempt.action,
            outcome="done",
            reason="",
            target_kind=target_kind or self.attempt.target_kind,
            target_id=target_id,
            server_id=server_id if server_id is not None else self.attempt.server_id,
            summary=summary,
            level=level,
            details={**(details or {}), **(self._revisions() if naming_revisions else {})},
        )
        self._accounted = True
        self.instance.figures.done.inc()

    def no_event(self, why: str) -> None:
        """Say why this command, or this path of it, leaves no event, so that it is not taken for one that forgot.

        why: a few words for whoever reads the code, such as "as it is already"; they are kept nowhere.
        """
        if not why:
            raise ValueError("say why there is no event")
        self._accounted = True

    @property
    def accounted(self) -> bool:
        """Whether an event was left, or it was said why there is none."""
        return self._accounted

    def _revisions(self) -> dict[str, Any]:
        if not self.bumped:
            return {}
        return {"revisions": {str(server_id): revision for server_id, revision in self.bumped.items()}}


class Attempt:
    """What somebody tries: `with Attempt(…) as attempt: …` asks policy first, and a refusal leaves an event.

    action: a name of policy.ACTIONS; aim: what is tried, in words that complete "tried to …";
    target_kind: "server", "credential" …; server_id: the server concerned, if one is; later: a refusal's event is
    written beside the answer, which then takes as long as one that leaves none.
    """

    def __init__(
        self,
        instance: Instance,
        actor: Actor,
        action: str,
        aim: str,
        *,
        target_kind: str,
        target_id: int | None = None,
        server_id: int | None = None,
        later: bool = False,
    ) -> None:
        self.instance = instance
        self.actor = actor
        self.action = action
        self.aim = aim
        self.target_kind = target_kind
        self.target_id = target_id
        self.server_id = server_id
        self.later = later
        self._changing = False

    def __enter__(self) -> Self:
        # Invariant 2: every command names its attempt and asks policy first.
        refusal = policy.may(self.actor, self.action)
        if refusal is not None:
            self._record_refusal(refusal)
            raise refusal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Refusal) or error.kind is Kind.UNAVAILABLE:
            return
        if error.kind is Kind.MISSING and not self._changing:
            return  # a look at something that is not there is no attempt on anything
        self._record_refusal(error)

    def read(self, question: Callable[[Connection], T]) -> T:
        """Answer a question to the database; no event is left."""
        return self.instance.database.read(question)

    def write(
        self,
        command: Callable[[Work], T],
        *,
        checks_actor: bool = False,
        prefetch: Prefetch | None = None,
        defers_tree: bool = False,
    ) -> T:
        """Run a command; returns once it is durable. checks_actor: it asks by itself whether the actor still may, and
        calls Work.check_actor_again, or needs not. prefetch, defers_tree: see Database.write.

        Invariant 3: the change, its event and the revisions it touches commit together or not at all; a
        command that leaves no event, and does not say why, is refused here: no change may happen that nobody can trace.
        """

        self._changing = True

        def run(connection: Connection) -> T:
            work = Work(self, connection)
            user_id = self.actor.user_id
            # Of several commands as one, the first says for all, whatever it changes of the actor's own rights.
            if not checks_actor and user_id is not None and not self.instance.joined:
                work.check_actor_again(standing.of(connection, self.actor, work.now))
            result = command(work)
            if not work.accounted:
                raise RuntimeError(f"the command {self.action} left no event")
            return result

        # Two deletes of one key at once must not each see the other's line and revoke nothing.
        workspace_lock = self.actor.workspace_id
        for _ in range(RACES):
            try:
                return self.instance.database.write(
                    run, workspace_lock=workspace_lock, prefetch=prefetch, defers_tree=defers_tree
                )
            except IntegrityError:
                # Another process took the same label, name or key between our look and our write. Looked
                # at again, it is there to be named, and the caller gets the refusal instead of a riddle.
                self._refuse_who_is_gone()
        return self.instance.database.write(
            run, workspace_lock=workspace_lock, prefetch=prefetch, defers_tree=defers_tree
        )

    def _refuse_who_is_gone(self) -> None:
        """Refuse a user who was deleted since the proof was looked at: what is theirs has nobody to belong to."""
        user_id = self.actor.user_id
        if user_id is not None and self.read(lambda connection: users.user(connection, user_id)) is None:
            raise Refusal(Kind.UNAUTHENTICATED, "token-not-in-force", "This token is not in force.")

    def _record_refusal(self, refusal: Refusal) -> None:
        """Invariant 3: refusals leave an event too, repeated ones one that counts them. Its words are ours; nothing
        the caller sent is kept.
        """
        refused = RefusedAttempt(
            self.actor, self.action, refusal.code, self.aim, self.target_kind, self.target_id, self.server_id
        )
        self.instance.refusals.record(self.instance.database, refused, self.instance.now(), later=self.later)


def refuse(
    instance: Instance, actor: Actor, action: str, refusal: Refusal, *, there: Callable[[], bool] | None = None
) -> Refusal:
    """The refusal of a call that its use case never saw, as its body is not as it must be; an event is left.

    action: what the call needs; there: whether the server that the call names is there. Raises Refusal FORBIDDEN or
    MISSING instead, as the use case would.
    """
    attempt = Attempt(instance, actor, action, "make a call whose body is not as it must be", target_kind="call")
    try:
        with attempt:
            if there is not None and not there():
                raise missing("server")
            raise refusal
    except Refusal as first:
        return first
