"""Workspaces, users and groups: create and change them; must keep an owner in every workspace."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

from sqlalchemy import Connection

from keyrack.core import acceptance, delivery, passwords
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import Actor, Project, Role, User, Workspace
from keyrack.store import access_keys, keys, people

PROJECT_UID = re.compile(r"[0-9a-f]{32}")


def keyrack(workspace_id: int = 0, door: str = "keyrack") -> Actor:
    """The actor that Keyrack itself is: first start, expiry, `keyrack apply`."""
    return Actor(workspace_id=workspace_id, user_id=None, name="keyrack", role=Role.OWNER, door=door)


def found_workspace(instance: Instance, actor: Actor, name: object) -> Workspace:
    """Create a workspace. Raises Refusal INVALID or TAKEN."""
    attempt = Attempt(instance, actor, "people:write", "create a workspace", target_kind="workspace")
    with attempt:
        title = acceptance.text(name, field="name")

        def change(work: Work) -> Workspace:
            if people.workspace_by_name(work.connection, title) is not None:
                raise Refusal(Kind.TAKEN, "workspace-taken", "There is a workspace of that name.", field="name")
            workspace_id = people.add_workspace(work.connection, uid=secrets.token_hex(16), name=title, at=work.now)
            work.record(f"Created workspace {title}", target_id=workspace_id, workspace_id=workspace_id)
            return people.workspace(work.connection, workspace_id)

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
    """Create a user of the actor's workspace. Raises Refusal INVALID or TAKEN."""
    attempt = Attempt(instance, actor, "people:write", "create a user", target_kind="user")
    with attempt:
        login = acceptance.text(name, field="name")
        hashed = None if password is None else passwords.hash_password(password)

        def change(work: Work) -> User:
            if people.user_by_name(work.connection, actor.workspace_id, login) is not None:
                raise Refusal(Kind.TAKEN, "user-taken", "There is a user of that name.", field="name")
            user_id = people.add_user(
                work.connection,
                actor.workspace_id,
                uid=uid or secrets.token_hex(16),
                name=login,
                role=role,
                policies=policies,
                password_hash=hashed,
                at=work.now,
            )
            work.record(f"Created user {login} as {role.value}", target_id=user_id)
            return own_user(work, user_id)

        return attempt.write(change)


def change_password(instance: Instance, actor: Actor, user_id: int, password: str) -> None:
    """Give a user a new password; IAM tokens and temporary access keys of the old one end.

    Raises Refusal INVALID or MISSING.
    """
    action = "iam:self" if user_id == actor.user_id else "people:write"
    attempt = Attempt(instance, actor, action, "change a password", target_kind="user", target_id=user_id)
    with attempt:
        hashed = passwords.hash_password(password)

        def change(work: Work) -> None:
            user = own_user(work, user_id)
            people.change_user(work.connection, user.id, {"password_hash": hashed})
            people.revoke_tokens(work.connection, work.now, user_id=user.id, kind="iam")
            access_keys.remove_temporary(work.connection, user.id)
            work.record(f"Changed the password of {user.name}", target_id=user.id)

        attempt.write(change)


def change_own_password(instance: Instance, actor: Actor, *, original: str, password: str) -> None:
    """Give the actor a new password for the old one. Raises Refusal UNAUTHENTICATED when the old one is wrong."""
    attempt = Attempt(instance, actor, "iam:self", "change one's own password", target_kind="user")
    with attempt:
        if actor.user_id is None:
            raise missing("user")
        user_id = actor.user_id
        hashed = attempt.read(lambda connection: people.password_hash(connection, user_id))
        if not passwords.verify(hashed, original):
            raise Refusal(Kind.UNAUTHENTICATED, "password-wrong", "The original password is wrong.")
    change_password(instance, actor, user_id, password)


def find(instance: Instance, actor: Actor) -> tuple[User, ...]:
    """All users of the workspace, oldest first. Raises Refusal FORBIDDEN."""
    with Attempt(instance, actor, "people:read", "list users", target_kind="user") as attempt:
        return attempt.read(lambda connection: people.find_users(connection, actor.workspace_id))


def get(instance: Instance, actor: Actor, uid: str) -> User:
    """The actor, or another user of the workspace, by uid. Raises Refusal MISSING or FORBIDDEN."""
    found = instance.database.read(lambda connection: people.user_by_uid(connection, uid))
    if found is None or found.workspace_id != actor.workspace_id:
        raise missing("user")
    action = "iam:self" if found.id == actor.user_id else "people:read"
    with Attempt(instance, actor, action, "see a user", target_kind="user", target_id=found.id):
        return found


def myself(instance: Instance, actor: Actor) -> User:
    """The user that the actor is. Raises Refusal MISSING when it is none."""
    with Attempt(instance, actor, "iam:self", "see oneself", target_kind="user") as attempt:
        user_id = actor.user_id
        found = None if user_id is None else attempt.read(lambda connection: people.user(connection, user_id))
        if found is None:
            raise missing("user")
        return found


def projects(instance: Instance, actor: Actor, name: str | None = None) -> tuple[Project, ...]:
    """The projects of the actor's workspace, all or the one that is named."""
    with Attempt(instance, actor, "iam:self", "list projects", target_kind="project") as attempt:
        return attempt.read(lambda connection: people.find_projects(connection, actor.workspace_id, name))


def own_workspace(instance: Instance, actor: Actor) -> Workspace:
    """The actor's workspace."""
    with Attempt(instance, actor, "iam:self", "see the workspace", target_kind="workspace") as attempt:
        return attempt.read(lambda connection: people.workspace(connection, actor.workspace_id))


def delete_user(instance: Instance, actor: Actor, user_id: int) -> User:
    """Delete a user: tokens and access keys end, and the keys leave every server. Raises Refusal MISSING."""
    attempt = Attempt(instance, actor, "people:write", "delete a user", target_kind="user", target_id=user_id)
    with attempt:

        def change(work: Work) -> User:
            user = own_user(work, user_id)
            _keep_an_owner(work, user)
            held = keys.keys_of_user(work.connection, user.id)
            opened = keys.servers_of_user(work.connection, user.id)
            people.remove_user(work.connection, user.id)
            gone = [(key.fingerprint, key.public_key) for key in held if key.fingerprint and key.public_key]
            delivery.left(work, opened, gone)
            work.record(
                f"Deleted {user.name}: {len(gone)} SSH keys leave {len(opened)} servers",
                target_id=user.id,
                level="warning",
            )
            return user

        return attempt.write(change)


def enable(instance: Instance, actor: Actor, user_id: int) -> User:
    """Let a disabled user in again, with the keys but without the tokens of before. Raises Refusal MISSING."""
    attempt = Attempt(instance, actor, "people:write", "enable a user", target_kind="user", target_id=user_id)
    with attempt:

        def change(work: Work) -> User:
            user = own_user(work, user_id)
            people.change_user(work.connection, user.id, {"disabled_at": None})
            opened = keys.servers_of_user(work.connection, user.id)
            for key in keys.keys_of_user(work.connection, user.id):
                if key.fingerprint is not None:
                    delivery.arrived(work, opened, key.fingerprint)
            work.record(f"Enabled {user.name}", target_id=user.id, level="warning")
            return own_user(work, user.id)

        return attempt.write(change)


def disable(instance: Instance, actor: Actor, user_id: int) -> User:
    """Shut a user out everywhere: tokens end, and the keys leave every server. Raises Refusal MISSING."""
    attempt = Attempt(instance, actor, "people:write", "disable a user", target_kind="user", target_id=user_id)
    with attempt:

        def change(work: Work) -> User:
            user = own_user(work, user_id)
            _keep_an_owner(work, user)
            held = keys.keys_of_user(work.connection, user.id)
            opened = keys.servers_of_user(work.connection, user.id)
            people.change_user(work.connection, user.id, {"disabled_at": work.now})
            people.revoke_tokens(work.connection, work.now, user_id=user.id)
            access_keys.remove_temporary(work.connection, user.id)
            gone = [(key.fingerprint, key.public_key) for key in held if key.fingerprint and key.public_key]
            delivery.left(work, opened, gone)
            work.record(
                f"Disabled {user.name}: {len(gone)} SSH keys leave {len(opened)} servers",
                target_id=user.id,
                level="warning",
            )
            return own_user(work, user.id)

        return attempt.write(change)


def change_rights(instance: Instance, actor: Actor, user_id: int, *, role: Role, policies: Iterable[str]) -> User:
    """Give a user another role and other policies. Raises Refusal MISSING, or INVALID for the last owner."""
    attempt = Attempt(instance, actor, "people:write", "change a user's rights", target_kind="user", target_id=user_id)
    with attempt:

        def change(work: Work) -> User:
            user = own_user(work, user_id)
            if role is not Role.OWNER:
                _keep_an_owner(work, user)
            people.change_user(work.connection, user.id, {"role": role.value, "policies": list(policies)})
            work.record(f"Made {user.name} {role.value}", target_id=user.id, level="warning")
            return own_user(work, user.id)

        return attempt.write(change)


def ensure_project(instance: Instance, actor: Actor, *, name: object, uid: str | None) -> bool:
    """Make a project exist; False when it did already. Raises Refusal INVALID or TAKEN."""
    attempt = Attempt(instance, actor, "people:write", "create a project", target_kind="project")
    with attempt:
        title = acceptance.text(name, field="name")
        number = uid or secrets.token_hex(16)
        if not PROJECT_UID.fullmatch(number):
            raise invalid("id", "A project's id is 32 hexadecimal digits.")
        known = attempt.read(lambda connection: people.find_projects(connection, actor.workspace_id, title))
        if known and uid in (None, known[0].uid):
            return False

        def change(work: Work) -> bool:
            if known or people.project_by_uid(work.connection, number) is not None:
                raise Refusal(Kind.TAKEN, "project-taken", f"The project {title} or its id is taken.")
            project_id = people.add_project(work.connection, actor.workspace_id, uid=number, name=title)
            work.record(f"Created project {title}", target_id=project_id)
            return True

        return attempt.write(change)


def ensure_group(instance: Instance, actor: Actor, *, name: object, user_ids: Iterable[int]) -> bool:
    """Make a group exist with exactly these users; False when it did already. Raises Refusal."""
    attempt = Attempt(instance, actor, "people:write", "set a group", target_kind="group")
    with attempt:
        title = acceptance.text(name, field="name")
        wanted = frozenset(user_ids)

        def held(connection: Connection) -> tuple[int | None, frozenset[int]]:
            number = people.group_id(connection, actor.workspace_id, title)
            return number, people.group_member_ids(connection, number) if number else frozenset()

        number, members = attempt.read(held)
        if number is not None and members == wanted:
            return False

        def change(work: Work) -> bool:
            group, before = held(work.connection)
            if group is None:
                group = people.add_group(work.connection, actor.workspace_id, title, work.now)
            for user_id in wanted - before:
                own_user(work, user_id)
            people.set_group_members(work.connection, group, wanted)
            for user_id in wanted ^ before:
                _regroup(work, group, user_id)
            work.record(f"Set group {title} to {len(wanted)} users", target_id=group)
            return True

        return attempt.write(change)


def _regroup(work: Work, group: int, user_id: int) -> None:
    """A user entered or left a group: the keys arrive on, or leave, the servers of the group's grants."""
    pairs = [
        (key.fingerprint, key.public_key)
        for key in keys.keys_of_user(work.connection, user_id)
        if key.fingerprint and key.public_key
    ]
    opened: set[int] = set()
    for grant in keys.find_grants(work.connection, work.actor.workspace_id):
        if grant.group_id == group:
            opened |= keys.servers_of_grant(work.connection, grant)
    for server_id in opened:
        for fingerprint, _ in pairs:
            keys.unrevoke(work.connection, server_id, fingerprint)
    delivery.left(work, opened, pairs)


def own_user(work: Work, user_id: int) -> User:
    """The user, if of the actor's workspace; raises Refusal MISSING otherwise."""
    user = people.user(work.connection, user_id)
    if user is None or user.workspace_id != work.actor.workspace_id:
        raise missing("user")
    return user


def _keep_an_owner(work: Work, user: User) -> None:
    others = [
        other
        for other in people.find_users(work.connection, user.workspace_id)
        if other.id != user.id and other.role is Role.OWNER and other.disabled_at is None
    ]
    if user.role is Role.OWNER and not others:
        raise Refusal(Kind.INVALID, "last-owner", "This is the workspace's last owner; make another user owner first.")
