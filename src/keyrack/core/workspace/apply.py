"""`keyrack apply`: brings a workspace to what a file says, all or nothing; must hold no rules for what is declared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.core.people import actors, passwords
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.core.workspace.changes import Execution, PlannedChanges
from keyrack.core.workspace.plan import compare
from keyrack.core.workspace.read_file import read
from keyrack.core.workspace.wanted import WorkspaceFile
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor
from keyrack.protocol.words import count
from keyrack.store import workspace_state
from keyrack.store.keys import grants
from keyrack.store.workspace_state import State

HASH_THREADS = 4
MAX_COMPARED = 500
"""Without reset_secrets at most so many passwords are compared with the file's: each takes a fortieth of a second."""


class _Undone(Exception):
    """Undoes the transaction of a dry run; refusal: what refused the changes, None for nothing."""

    def __init__(self, refusal: Refusal | None) -> None:
        self.refusal = refusal


_CHANGED_MEANWHILE = "Nothing was applied: the workspace was changed meanwhile. Run it again to see what it does now."


def apply(
    instance: Instance,
    text: str,
    environment: Mapping[str, str],
    progress: Callable[[str], None] = lambda line: None,
    *,
    left: Callable[[str], None] = lambda line: None,
    noted: Callable[[str], None] = lambda line: None,
    prune: bool = False,
    reset_secrets: bool = False,
    dry_run: bool = False,
    actor: Actor | None = None,
) -> list[str]:
    """Bring a workspace to what the TOML text says; answers the changes in words, none at a second run.

    1. The file is read and checked. 2. A plan compares it with the workspace. 3. Its changes are told. 4. Slow hashes
    of passwords are made before the transaction. 5. In the transaction the plan is made again, and refused where it
    differs. 6. All changes are made in that one transaction; dry_run makes and undoes them, so that refusals come now.

    environment: where `password_env` and the like are looked up; progress: called with each change before the first one
    is made; left: called with each removal that needs prune; noted: called with what else differs and stays; prune,
    reset_secrets: see plan.compare. Raises Refusal INVALID with place and reason, or TAKEN for 5; nothing has changed
    then.
    """
    wanted = read(text, environment)  # 1
    by = actor or actors.system_actor(channel="apply")
    at = instance.now()

    state = instance.database.read(lambda connection: _state(instance, connection, wanted))
    other_passwords = _other_passwords(wanted, state, everybody=reset_secrets)

    def compared(of: Instance, now: State) -> PlannedChanges:
        return compare(
            of, wanted, now, prune=prune, reset_secrets=reset_secrets, other_passwords=other_passwords, at=at
        )

    plan = compared(instance, state)  # 2
    shown = [change.words for change in plan.changes]  # 3
    for tell, lines in ((progress, shown), (left, plan.left), (noted, plan.noted)):
        for words in lines:
            tell(words)
    if not shown:
        return shown
    due = _due(wanted, state, reset_secrets=reset_secrets)  # 4
    hashed = dict.fromkeys(due, passwords.Hashed("tried")) if dry_run else _hashed(due)
    workspace_id = state.workspace.id if state.workspace else 0
    by = actors.system_actor(workspace_id, channel=by.channel, like=by)
    attempt = Attempt(instance, by, "people:write", "apply a workspace file", target_kind="workspace")
    with _dry_run_result(), attempt:

        def run(work: Work) -> None:
            now = _state(instance, work.connection, wanted)
            again = compared(within(work), now)
            if [change.words for change in again.changes] != shown:  # 5
                raise Refusal(Kind.TAKEN, "workspace-changed", _CHANGED_MEANWHILE)
            _carry_out(work, now, again, hashed)  # 6

        attempt.write((lambda work: _try(run, work)) if dry_run else run)
    return shown


def _state(instance: Instance, connection: Connection, wanted: WorkspaceFile) -> State:
    state = workspace_state.load(
        connection,
        wanted.name,
        token_hashes=[instance.key.hash_token(token.secret) for user in wanted.users for token in user.tokens],
        access_key_ids=[key_id for user in wanted.users for key_id, _ in user.access_keys],
        repository_paths=[repository.path for repository in wanted.repositories],
        repository_ids=[repository.id for repository in wanted.repositories if repository.id is not None],
    )
    named = {server.name for server in wanted.servers if server.has_credentials}
    named |= {server.was for server in wanted.servers if server.has_credentials and server.was}
    meant = {server.id for server in wanted.servers if server.has_credentials and server.id}
    workspace_state.fill_keys(
        connection,
        state,
        instance.now(),
        users_named=[user.name for user in wanted.users if user.has_keys],
        servers_named=[one.id for one in state.servers.values() if one.name in named or one.id in meant],
    )
    if state.grants:
        # A damaged row opens nothing, so its grant counts as missing and is given anew.
        sound = grants.sound_grants(connection, state.grants[0].workspace_id)
        ids = {grant.id for grant in sound}
        state.damaged_grants = tuple(grant for grant in state.grants if grant.id not in ids)
        state.grants = sound
    return state


def _try(run: Callable[[Work], None], work: Work) -> None:
    """Run a command in its transaction, and undo that whatever the result."""
    try:
        run(work)
    except Refusal as refusal:
        raise _Undone(refusal) from None
    raise _Undone(None)


@contextmanager
def _dry_run_result() -> Iterator[None]:
    """Raise what refused a dry run, outside of the attempt, which would record it; real runs pass through."""
    try:
        yield
    except _Undone as undone:
        if undone.refusal is not None:
            raise undone.refusal from None


def _other_passwords(wanted: WorkspaceFile, state: State, *, everybody: bool) -> Set[tuple[str, str]]:
    """Users whose password is not the file's, as pairs of name and hash; nobody where there are too many to compare."""
    compared = [
        (user.name, user.password, str(state.passwords[state.users[user.name].id]))
        for user in wanted.users
        if user.password is not None
        and user.name in state.users
        and state.passwords.get(state.users[user.name].id) is not None
    ]
    if len(compared) > MAX_COMPARED and not everybody:
        return frozenset()
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        same = pool.map(lambda one: passwords.verify(one[2], one[1]), compared)
        return frozenset(
            (name, hashed) for (name, _, hashed), is_same in zip(compared, same, strict=True) if not is_same
        )


def _due(wanted: WorkspaceFile, state: State, *, reset_secrets: bool) -> dict[str, str]:
    """The passwords that may have to be set, by user."""

    def is_set(name: str) -> bool:
        user = state.users.get(name)
        return user is None or state.passwords.get(user.id) is None or reset_secrets

    return {user.name: user.password for user in wanted.users if user.password is not None and is_set(user.name)}


def _hashed(due: Mapping[str, str]) -> dict[str, str]:
    """The hashes of passwords by user, made before the transaction, which must not wait for them."""
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        return dict(zip(due, map(passwords.Hashed, pool.map(passwords.hash_password, due.values())), strict=True))


def _carry_out(work: Work, state: State, plan: PlannedChanges, hashed: Mapping[str, str]) -> None:
    execution = Execution(
        instance=within(work),
        actor=work.actor,
        users=dict(state.users),
        groups=dict(state.groups),
        servers={server.name: server.id for server in state.servers.values()} | plan.servers,
        hashed=dict(hashed),
    )
    for number, change in enumerate(plan.changes, 1):
        try:
            change.run(execution)
        except Refusal as refusal:
            words = f"Nothing was applied: change {number}, {change.words}: {refusal.message}"
            raise Refusal(refusal.kind, refusal.code, words, field=refusal.field) from None
    work.record(
        f"Applied a workspace file: {count(len(plan.changes), 'change')}",
        workspace_id=execution.actor.workspace_id,
        level="info",
    )
