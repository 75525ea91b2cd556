"""Workspaces, projects and users: create and change them; must keep an owner in every workspace."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

from keyrack import policy
from keyrack.core import lookups, quotas, validation
from keyrack.core.instance import Instance
from keyrack.core.keys import propagation
from keyrack.core.lookups import ONESELF, own_user
from keyrack.core.people import owners, passwords, throttle
from keyrack.core.people.rights import OWN_KEYS, refuse_exceeding, refuse_giving
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import Actor, Project, Role, User, Workspace
from keyrack.protocol.words import count
from keyrack.store.keys import grants, user_keys
from keyrack.store.people import access_keys, authenticators, tokens, users, web_sessions, workspaces
from keyrack.store.people.authenticators import OWN_PASSWORD

PROJECT_UID = re.compile(r"[0-9a-f]{32}")


def create_workspace(instance: Instance, actor: Actor, name: object) -> Workspace:
    """Create a workspace. Raises Refusal INVALID or TAKEN."""
    attempt = Attempt(instance, actor, "people:write", "create a workspace", target_kind="workspace")
    with attempt:
        title = validation.new_name(name)

        def change(work: Work) -> Workspace:
            if workspaces.workspace_by_name(work.connection, title) is not None:
                raise Refusal(Kind.TAKEN, "workspace-taken", "There is a workspace of that name.", field="name")
            workspace_id = workspaces.add_workspace(work.connection, uid=secrets.token_hex(16), name=title, at=work.now)
            work.record(f"Created workspace {title}", target_id=workspace_id, workspace_id=workspace_id)
            return workspaces.workspace(work.connection, workspace_id)

        return attempt.write(change)


def create_user(
    instance: Instance,
    actor: Actor,
    *,
    name: object,
    role: Role,
    policies: Iterable[str] = (),
    password: str | None = None,
    uid: str | None = None,
) -> User:
    """Create a user of the actor's workspace, who may do no more than the actor.

    Raises Refusal INVALID, TAKEN, LIMIT or FORBIDDEN.
    """
    attempt = Attempt(instance, actor, "people:write", "create a user", target_kind="user")
    with attempt:
        login = validation.name(name)
        if login == ONESELF:
            words = f"{ONESELF} stands for whoever asks, so that nobody could name this user; choose another name."
            raise Refusal(Kind.INVALID, "name-reserved", words, field="name")
        allowed = policy.fitting(policies, field="policies")
        refuse_giving(actor, role, allowed)
        hashed = None if password is None else passwords.hash_password(password)

        def change(work: Work) -> User:
            refuse_giving(work.actor, role, allowed)
            if users.user_by_name(work.connection, actor.workspace_id, login) is not None:
                raise Refusal(Kind.TAKEN, "user-taken", "There is a user of that name.", field="name")
            quotas.refuse_more(work, "user")
            user_id = users.add_user(
                work.connection,
                actor.workspace_id,
                uid=uid or secrets.token_hex(16),
                name=login,
                role=role,
                policies=allowed,
                password_hash=hashed,
                at=work.now,
            )
            work.record(f"Created user {login} as {role.value}", target_id=user_id)
            return own_user(work, user_id)

        return attempt.write(change)


def change_password(instance: Instance, actor: Actor, user_id: int, password: str) -> None:
    """Give a user a new password; IAM tokens, sessions and temporary access keys of the old one end.

    Raises Refusal INVALID or MISSING, or FORBIDDEN for a user who may do more than the actor.
    """
    change(instance, actor, user_id, password=password)


def change(
    instance: Instance,
    actor: Actor,
    user_id: int,
    *,
    password: str | None = None,
    enabled: bool | None = None,
    proven: bool = False,
    session_id: int | None = None,
) -> User:
    """Give a user a new password, enable or disable them, all or nothing; None leaves things as they are.

    enabled: False ends tokens, sessions and temporary access keys, switches off permanent access keys and takes the SSH
    keys from every server; True puts the SSH keys back, and none of the others. proven: the actor showed the user's
    present password, and so has the user's rights already. session_id: the console session that a new password does not
    end, as it was set there.

    Raises Refusal INVALID or MISSING, or FORBIDDEN for a user who may do more than the actor.
    """
    aim = {None: "change a password", True: "enable a user", False: "disable a user"}[enabled]
    action = "iam:self" if user_id == actor.user_id and enabled is None else "people:write"
    with Attempt(instance, actor, action, aim, target_kind="user", target_id=user_id) as attempt:
        hashed = None if password is None else passwords.hash_password(password)

        def run(work: Work) -> User:
            user = own_user(work, user_id)
            if not proven:
                refuse_exceeding(work, user)
            if hashed is not None:
                _set_password(work, user, hashed, session_id)
            if enabled is not None:
                (_enable if enabled else _disable)(work, user)
            return own_user(work, user.id)

        return attempt.write(run)


def change_own_password(
    instance: Instance, actor: Actor, *, original: str, password: str, session_id: int | None = None
) -> None:
    """Change the actor's password; original: the present one. session_id: as change() takes it.

    Raises Refusal UNAUTHENTICATED for a wrong original, INVALID or THROTTLED.
    """
    prove_own_password(instance, actor, original)
    assert actor.user_id is not None
    change(instance, actor, actor.user_id, password=password, proven=True, session_id=session_id)


def prove_own_password(instance: Instance, actor: Actor, password: str) -> None:
    """Check that an actor knows the password of their user.

    Raises Refusal UNAUTHENTICATED where it is wrong, MISSING for an actor who is no user, or THROTTLED.
    """
    attempt = Attempt(instance, actor, "iam:self", "prove their own password", target_kind="user")
    with attempt:
        if actor.user_id is None:
            raise missing("user")
        user_id = actor.user_id
        hashed = attempt.read(lambda connection: users.password_hash(connection, user_id))

        def check() -> None:
            if not passwords.verify(hashed, password):
                raise Refusal(Kind.UNAUTHENTICATED, "password-wrong", "The original password is wrong.")

        # A stolen token must give no more guesses than signing in does.
        account = throttle.name_of("user", str(user_id))
        instance.throttle.prove(throttle.PASSWORD, actor.address, account, check)


def find(instance: Instance, actor: Actor) -> tuple[User, ...]:
    """All users of the workspace, oldest first. Raises Refusal FORBIDDEN."""
    with Attempt(instance, actor, "people:read", "list users", target_kind="user") as attempt:
        return attempt.read(lambda connection: users.find_users(connection, actor.workspace_id))


def get(instance: Instance, actor: Actor, uid: str) -> User:
    """The actor, or another user of the workspace, by uid. Raises Refusal MISSING or FORBIDDEN."""
    user = instance.database.read(lambda connection: lookups.user_with_uid(connection, actor, uid))
    action = "iam:self" if user.id == actor.user_id else "people:read"
    with Attempt(instance, actor, action, "see a user", target_kind="user", target_id=user.id):
        return user


def myself(instance: Instance, actor: Actor) -> User:
    """The actor's user. Raises Refusal MISSING for an actor who is no user."""
    with Attempt(instance, actor, "iam:self", "see their own user", target_kind="user") as attempt:
        return attempt.read(lambda connection: lookups.user(connection, actor, actor.user_id))


def projects(instance: Instance, actor: Actor, name: str | None = None) -> tuple[Project, ...]:
    """The projects of the actor's workspace; name: only the one of this name."""
    with Attempt(instance, actor, "iam:self", "list projects", target_kind="project") as attempt:
        return attempt.read(lambda connection: workspaces.find_projects(connection, actor.workspace_id, name))


def project(instance: Instance, actor: Actor, uid: str) -> Project:
    """A project of the actor's workspace. Raises Refusal MISSING."""
    with Attempt(instance, actor, "iam:self", "see a project", target_kind="project") as attempt:
        project = attempt.read(lambda connection: workspaces.project_by_uid(connection, uid))
        if project is None or project.workspace_id != actor.workspace_id:
            raise missing("project")
        return project


def workspace_of(instance: Instance, actor: Actor) -> Workspace:
    """The actor's workspace, for a caller who has already seen the actor: no right is asked for."""
    return instance.database.read(lambda connection: workspaces.workspace(connection, actor.workspace_id))


def own_workspace(instance: Instance, actor: Actor) -> Workspace:
    """The actor's workspace."""
    with Attempt(instance, actor, "iam:self", "see the workspace", target_kind="workspace") as attempt:
        return attempt.read(lambda connection: workspaces.workspace(connection, actor.workspace_id))


def delete_user(instance: Instance, actor: Actor, user_id: int) -> User:
    """Delete a user: tokens and access keys end, and their keys leave every server.

    Raises Refusal MISSING, INVALID for the last owner, or FORBIDDEN for a user who may do more than the actor.
    """
    attempt = Attempt(instance, actor, "people:write", "delete a user", target_kind="user", target_id=user_id)
    with attempt:

        def change(work: Work) -> User:
            user = own_user(work, user_id)
            refuse_exceeding(work, user)
            owners.refuse_last(work.connection, work.actor, user, work.now)
            held = user_keys.keys_of_user(work.connection, user.id)
            opened = grants.servers_of_user(work.connection, user.id)
            users.remove_user(work.connection, user.id)
            pairs = [(key.fingerprint, key.public_key) for key in held if key.fingerprint and key.public_key]
            propagation.withdrawn(work, opened, pairs)
            work.record(
                f"Deleted {user.name}: {_leaving(len(pairs), len(opened))}",
                target_id=user.id,
                level="warning",
            )
            return user

        return attempt.write(change)


def _set_password(work: Work, user: User, hashed: str, kept_session_id: int | None) -> None:
    users.change_user(work.connection, user.id, {"password_hash": hashed})
    authenticators.remove_kind(work.connection, user.id, OWN_PASSWORD)
    if work.actor.user_id == user.id:
        authenticators.note_own_password(work.connection, user.id, work.now)
    tokens.revoke_tokens(work.connection, work.now, user_id=user.id, kind="iam")
    web_sessions.remove_of_user(work.connection, user.id, but=kept_session_id)
    access_keys.remove_temporary(work.connection, user.id)
    work.record(f"Changed the password of {user.name}", target_id=user.id)


def _enable(work: Work, user: User) -> None:
    if user.disabled_at is None:
        work.no_event("enabled already")
        return
    users.change_user(work.connection, user.id, {"disabled_at": None})
    opened = grants.servers_of_user(work.connection, user.id)
    held = user_keys.keys_of_user(work.connection, user.id)
    propagation.granted_all(work, opened, (key.fingerprint for key in held if key.fingerprint is not None))
    work.record(f"Enabled {user.name}, whose tokens and access keys of before stay ended", target_id=user.id)


def _disable(work: Work, user: User) -> None:
    if user.disabled_at is not None:
        work.no_event("disabled already")
        return
    owners.refuse_last(work.connection, work.actor, user, work.now)
    held = user_keys.keys_of_user(work.connection, user.id)
    opened = grants.servers_of_user(work.connection, user.id)
    users.change_user(work.connection, user.id, {"disabled_at": work.now})
    tokens.revoke_tokens(work.connection, work.now, user_id=user.id)
    web_sessions.remove_of_user(work.connection, user.id)
    access_keys.remove_temporary(work.connection, user.id)
    # A permanent access key stays off until somebody who may switches it on again.
    access_keys.switch_off(work.connection, user.id)
    pairs = [(key.fingerprint, key.public_key) for key in held if key.fingerprint and key.public_key]
    propagation.withdrawn(work, opened, pairs)
    work.record(
        f"Disabled {user.name}: {_leaving(len(pairs), len(opened))}",
        target_id=user.id,
        level="warning",
    )


def change_rights(instance: Instance, actor: Actor, user_id: int, *, role: Role, policies: Iterable[str]) -> User:
    """Give a user another role and other policies.

    Raises Refusal MISSING, INVALID for the last owner, or FORBIDDEN where the old or the new rights exceed the actor's.
    """
    attempt = Attempt(instance, actor, "people:write", "change a user's rights", target_kind="user", target_id=user_id)
    with attempt:
        allowed = policy.patterns(policies, field="policies")
        refuse_giving(actor, role, allowed)

        def change(work: Work) -> User:
            refuse_giving(work.actor, role, allowed)
            user = own_user(work, user_id)
            policy.fitting(allowed, field="policies", held=user.policies)
            refuse_exceeding(work, user, has_keys=OWN_KEYS in policy.actions(role, allowed))
            if role is not Role.OWNER:
                owners.refuse_last(work.connection, work.actor, user, work.now)
            users.change_user(work.connection, user.id, {"role": role.value, "policies": list(allowed)})
            work.record(
                f"Made {user.name} {role.value}, with the policies {', '.join(allowed) or 'none'}; "
                f"before: {user.role.value}, {', '.join(user.policies) or 'none'}",
                target_id=user.id,
                level="warning",
                details={"role": role.value, "policies": list(allowed)},
            )
            return own_user(work, user.id)

        return attempt.write(change)


def ensure_project(instance: Instance, actor: Actor, *, name: object, uid: str | None) -> bool:
    """Create a project; False where it exists already. uid: 32 hexadecimal digits, None for a random one.

    Raises Refusal INVALID, LIMIT or TAKEN.
    """
    attempt = Attempt(instance, actor, "people:write", "create a project", target_kind="project")
    with attempt:
        title = validation.text(name, field="name")
        number = uid or secrets.token_hex(16)
        if not PROJECT_UID.fullmatch(number):
            raise invalid("id", "A project's id is 32 hexadecimal digits.")
        known = attempt.read(lambda connection: workspaces.find_projects(connection, actor.workspace_id, title))
        if known and uid in (None, known[0].uid):
            return False
        if not known:
            validation.new_name(name)

        def change(work: Work) -> bool:
            if known or workspaces.project_by_uid(work.connection, number) is not None:
                raise Refusal(Kind.TAKEN, "project-taken", f"The project {title} or its id is taken.")
            quotas.refuse_more(work, "project")
            project_id = workspaces.add_project(work.connection, actor.workspace_id, uid=number, name=title)
            work.record(f"Created project {title}", target_id=project_id)
            return True

        return attempt.write(change)


def _leaving(keys: int, servers: int) -> str:
    return f"{count(keys, 'SSH key')} {'leaves' if keys == 1 else 'leave'} {count(servers, 'host')}"
