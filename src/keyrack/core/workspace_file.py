"""`keyrack apply`: brings a workspace to what a file says, all at once or not at all; must hold no rule of a noun."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Connection

from keyrack.core import passwords, people
from keyrack.core.instance import Instance
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.core.workspace_plan import Doing, Plan, compare
from keyrack.core.workspace_text import WorkspaceFile, read
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor
from keyrack.store import keys, workspace_state
from keyrack.store.workspace_state import State

HASHED_AT_ONCE = 4


def apply(
    instance: Instance,
    text: str,
    environment: Mapping[str, str],
    progress: Callable[[str], None] = lambda line: None,
    *,
    left: Callable[[str], None] = lambda line: None,
    prune: bool = False,
    reset_secrets: bool = False,
    dry_run: bool = False,
    actor: Actor | None = None,
) -> list[str]:
    """Bring a workspace to what the TOML text says; answers what was changed, nothing on a second run.

    environment: where `password_env` and the like are looked up; progress: called with each change before the first
    is made; left: called with each removal that takes prune. With dry_run nothing is done. All changes are one
    transaction. Raises Refusal INVALID with place and reason; then nothing has changed.
    """
    wanted = read(text, environment)
    by = actor or people.keyrack(door="apply")
    at = instance.now()

    def planned(connection: Connection) -> tuple[State, Plan]:
        state = _state(instance, connection, wanted)
        return state, compare(instance, wanted, state, prune=prune, reset_secrets=reset_secrets, at=at)

    state, plan = instance.database.read(planned)
    for change in plan.changes:
        progress(change.words)
    for words in plan.left:
        left(words)
    shown = [change.words for change in plan.changes]
    if dry_run or not shown:
        return shown
    hashed = _hashed(wanted, state, reset_secrets=reset_secrets)
    workspace_id = state.workspace.id if state.workspace else 0
    by = people.keyrack(workspace_id, door=by.door, like=by)
    with Attempt(instance, by, "people:write", "apply a workspace file", target_kind="workspace") as attempt:

        def run(work: Work) -> None:
            now, again = planned(work.connection)
            if [change.words for change in again.changes] != shown:
                words = (
                    "Nothing was applied: the workspace was changed meanwhile. Run it again to see what it does now."
                )
                raise Refusal(Kind.TAKEN, "workspace-changed", words)
            _carry_out(work, now, again, hashed)

        attempt.write(run)
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
    if state.grants:
        # A damaged row opens nothing: what it seems to say is given anew.
        state.grants = keys.sound_grants(connection, state.grants[0].workspace_id)
    return state


def _hashed(wanted: WorkspaceFile, state: State, *, reset_secrets: bool) -> dict[str, str]:
    """The hashes of the passwords to be set, by user, made before the transaction that must not wait for them."""

    def is_set(name: str) -> bool:
        user = state.users.get(name)
        return user is None or state.passwords.get(user.id) is None or reset_secrets

    due = {user.name: user.password for user in wanted.users if user.password is not None and is_set(user.name)}
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        return dict(zip(due, map(passwords.Hashed, pool.map(passwords.hash_password, due.values())), strict=True))


def _carry_out(work: Work, state: State, plan: Plan, hashed: Mapping[str, str]) -> None:
    doing = Doing(
        instance=within(work),
        actor=work.actor,
        users=dict(state.users),
        groups=dict(state.groups),
        servers={server.name: server.id for server in state.servers.values()} | plan.servers,
        hashed=dict(hashed),
    )
    for number, change in enumerate(plan.changes, 1):
        try:
            change.run(doing)
        except Refusal as refusal:
            words = f"Nothing was applied: change {number}, {change.words}: {refusal.message}"
            raise Refusal(refusal.kind, refusal.code, words, field=refusal.field) from None
    work.record(
        f"Applied a workspace file: {len(plan.changes)} changes", workspace_id=doing.actor.workspace_id, level="info"
    )
