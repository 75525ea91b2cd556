"""The demo's admin at each start: what still opens stays, what does not is made anew."""

from __future__ import annotations

from keyrack.core.instance import Instance
from keyrack.core.people import actors, passwords, tokens, users
from keyrack.core.workspace import first_start
from keyrack.core.workspace.first_start import FirstAdmin
from keyrack.model import User
from keyrack.store.people import users as user_rows


def again(instance: Instance, first: FirstAdmin) -> FirstAdmin:
    """The next start, which has what the first one showed."""
    return first_start.ensure_admin(instance, token=first.token, password=first.password)


def opens(instance: Instance, admin: FirstAdmin) -> bool:
    """Whether token and password are the admin's."""
    actor = tokens.authenticate(instance, admin.token, address="127.0.0.1", channel="api")
    held = instance.database.read(lambda connection: user_rows.password_hash(connection, admin.user.id))
    return actor.user_id == admin.user.id and passwords.verify(held, admin.password or "")


def test_token_and_password_stay_over_a_start(instance: Instance) -> None:
    first = first_start.ensure_admin(instance)
    second = again(instance, first)
    assert (second.token, second.password) == (first.token, first.password)
    assert opens(instance, second)


def test_a_token_or_password_that_no_longer_works_is_made_anew(instance: Instance) -> None:
    first = first_start.ensure_admin(instance)
    actor = actors.system_actor(first.workspace.id)
    (bearer,) = tokens.of_user(instance, first.user.id, name=first_start.TOKEN_NAME)
    tokens.revoke(instance, actor, bearer)
    users.change_password(instance, actor, first.user.id, "another password")
    second = again(instance, first)
    assert second.token != first.token
    assert second.password not in (first.password, None)
    assert opens(instance, second)
    # Without what was shown before, nothing of it goes on.
    third = first_start.ensure_admin(instance)
    assert third.token != second.token
    assert [one.user.name for one in tokens.of_user(instance, first.user.id, name=first_start.TOKEN_NAME)] == ["admin"]


def test_a_token_of_somebody_else_is_not_taken_for_the_admins(instance: Instance) -> None:
    first = first_start.ensure_admin(instance)
    actor = actors.system_actor(first.workspace.id)
    secret, _ = tokens.create(instance, actor, _bob(instance, first), name=first_start.TOKEN_NAME, scopes=("*",))
    narrow, _ = tokens.create(instance, actor, first.user, name=first_start.TOKEN_NAME, scopes=("servers:read",))
    for wrong in (narrow, secret, "no token"):
        assert first_start.ensure_admin(instance, token=wrong, password=first.password).token != wrong


def _bob(instance: Instance, first: FirstAdmin) -> User:
    actor = actors.system_actor(first.workspace.id)
    return users.create_user(instance, actor, name="bob", role=first.user.role, password="bob's password")
