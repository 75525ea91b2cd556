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
    """One event of many; the fields as Work.record takes them."""

    summary: str
    target_kind: str = ""
    target_id: int | None = None
    server_id: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Work:
    """One transaction of one command: its connection, its time, and the events it records."""

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

        1. The user must exist in this workspace. 2. The user is not disabled, and the proof has not ended. 3. Role and
        policies must still allow the action. Raises Refusal UNAUTHENTICATED for 1 and 2, FORBIDDEN for 3.
        """
        is_gone = standing.role is None or standing.workspace_id != self.actor.workspace_id
        if standing.role is None or is_gone or not standing.proven or standing.disabled_at is not None:
            code = "user-disabled" if not is_gone and standing.disabled_at is not None else "token-not-in-force"
            raise Refusal(Kind.UNAUTHENTICATED, code, "This token is not in force.")
        policies = standing.policies
        if self.actor.repository_id is not None:
            policies = (*policies, *policy.lent(standing.membership, standing.visibility))
        if (standing.role, policies) != (self.actor.role, self.actor.policies):
            self.actor = replace(self.actor, role=standing.role, policies=policies)
            refusal = policy.may(self.actor, self.attempt.action)
            if refusal is not None:
                raise refusal

    def bump_revision(self, server_id: int) -> int:
        """Give a server a new revision, and answer it; its waiting agent is woken after the commit.

        Events recorded from here on name it, so that receipts.py can show whether the host obeys it.
        """
        revision = servers.raise_revision(self.connection, server_id, self.now)
        self.bumped[server_id] = revision
        return revision

    def raising(
        self, server_ids: Iterable[int], *, locked: Sequence[Row] | None = None, last: bool = False
    ) -> AbstractContextManager[dict[int, int]]:
        """The same for many servers by few statements: a context manager that writes them at the end of the block.

        It gives the new revisions by server id; locked, last: see store/hosts/servers.py, raised.
        """
        return servers.raised(self.connection, server_ids, self.now, locked=locked, last=last, note=self.bumped.update)

    def bump_revisions(self, server_ids: Iterable[int]) -> dict[int, int]:
        """The same for many servers at once; answers the new revisions by server id."""
        with self.raising(server_ids) as revisions:
            return revisions

    def record_each(self, of: Iterable[Recorded]) -> None:
        """Record an event for each part of one change; the event of the whole change names the revisions."""
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
        """Record an event of what was done; summary: one sentence, past tense, without secrets.

        naming_revisions: False for one of many events of one change, where another one names them all. workspace_id:
        whose log it is for where Keyrack itself acts, which has no workspace.
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
        """Say why this command, or this path of it, records no event, so that it is no oversight.

        why: a few words for readers of the code, such as "as it is already"; they are not stored.
        """
        if not why:
            raise ValueError("say why there is no event")
        self._accounted = True

    @property
    def accounted(self) -> bool:
        """Whether an event was recorded, or it was said why there is none."""
        return self._accounted

    def _revisions(self) -> dict[str, Any]:
        if not self.bumped:
            return {}
        return {"revisions": {str(server_id): revision for server_id, revision in self.bumped.items()}}


class Attempt:
    """What somebody tries: `with Attempt(…) as attempt: …` asks policy first, and records refusals.

    action: a name of policy.ACTIONS; aim: what is tried, in words that complete "tried to …"; target_kind: "server",
    "credential" …; server_id: the server concerned, if any; later: the event of a refusal is written by another thread,
    so that the answer takes no longer than without one.
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
            return  # reading what is not there tries nothing
        self._record_refusal(error)

    def read(self, question: Callable[[Connection], T]) -> T:
        """The answer of a question to the database; no event is recorded."""
        return self.instance.database.read(question)

    def write(
        self,
        command: Callable[[Work], T],
        *,
        checks_actor: bool = False,
        prefetch: Prefetch | None = None,
        defers_tree: bool = False,
    ) -> T:
        """Run a command in a transaction; returns once that is durable.

        Invariant 3: the change, its event and the revisions it touches commit together or not at all; a command that
        records no event, and does not say why, is refused, so that no change is without a trace.

        checks_actor: the command checks the actor's rights itself, by Work.check_actor_again, or need not. prefetch,
        defers_tree: see Database.write.
        """

        self._changing = True

        def run(connection: Connection) -> T:
            work = Work(self, connection)
            user_id = self.actor.user_id
            # Of several commands in one transaction only the first is checked: it may change the actor's own rights.
            if not checks_actor and user_id is not None and not self.instance.joined:
                work.check_actor_again(standing.of(connection, self.actor, work.now))
            result = command(work)
            if not work.accounted:
                raise RuntimeError(f"the command {self.action} left no event")
            return result

        # Of two deletions of one key at once, each would see the other's row and so revoke nothing.
        workspace_lock = self.actor.workspace_id
        for _ in range(RACES):
            try:
                return self.instance.database.write(
                    run, workspace_lock=workspace_lock, prefetch=prefetch, defers_tree=defers_tree
                )
            except IntegrityError:
                # Another process took the same label, name or key after it was read as free. The second try reads
                # that, and gives the caller a proper refusal.
                self._refuse_deleted_actor()
        return self.instance.database.write(
            run, workspace_lock=workspace_lock, prefetch=prefetch, defers_tree=defers_tree
        )

    def _refuse_deleted_actor(self) -> None:
        """Refuse an actor whose user was deleted since the proof was checked, as new rows would have no owner."""
        user_id = self.actor.user_id
        if user_id is not None and self.read(lambda connection: users.user(connection, user_id)) is None:
            raise Refusal(Kind.UNAUTHENTICATED, "token-not-in-force", "This token is not in force.")

    def _record_refusal(self, refusal: Refusal) -> None:
        """Record a refusal, repeated ones as one event that counts them (invariant 3). It has only our words, nothing
        that the caller sent.
        """
        refused = RefusedAttempt(
            self.actor, self.action, refusal.code, self.aim, self.target_kind, self.target_id, self.server_id
        )
        self.instance.refusals.record(self.instance.database, refused, self.instance.now(), later=self.later)


def refuse(
    instance: Instance, actor: Actor, action: str, refusal: Refusal, *, there: Callable[[], bool] | None = None
) -> Refusal:
    """Record and answer the refusal of a call whose body is malformed, so that its use case never saw it.

    action: what the call needs; there: whether the server that the call names exists. Answers Refusal FORBIDDEN or
    MISSING instead where the use case would raise that.
    """
    attempt = Attempt(instance, actor, action, "make a call whose body is not as it must be", target_kind="call")
    try:
        with attempt:
            if there is not None and not there():
                raise missing("server")
            raise refusal
    except Refusal as first:
        return first
