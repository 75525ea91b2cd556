"""Signing in with a browser: whom a name means, and the session that a proof begins; must keep no secret."""

from __future__ import annotations

from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.core.people import tokens, web_sessions
from keyrack.core.people.tokens import SignIn
from keyrack.core.people.web_sessions import Begun
from keyrack.core.work import Work
from keyrack.model import User
from keyrack.store import people

LONGEST_NAME = 1024


def by_password(instance: Instance, name: str, password: str, *, address: str, browser: str) -> Begun:
    """Begin a session for a user name and a password.

    name: of a user of the first workspace; "name@workspace" names one of another. Raises Refusal UNAUTHENTICATED, in
    the same words and after the same work whatever was wrong, or THROTTLED.
    """

    def begin(work: Work, user: User) -> Begun:
        return web_sessions.begin(work, user, method="password", browser=browser)

    who = instance.database.read(lambda connection: _named(connection, name[:LONGEST_NAME], password))
    return tokens.by_password(instance, who, begin, address=address, channel=web_sessions.CHANNEL)


def _named(connection: Connection, name: str, password: str) -> SignIn:
    """Whom a name means; user names may hold an @ too, so that what stands behind it counts only as a workspace's."""
    workspaces = people.workspaces_by_name(connection)
    user, _, workspace = name.rpartition("@")
    if len(workspaces) > 1 and user and workspace in {one.name for one in workspaces}:
        return SignIn(password=password, user_name=user, workspace_name=workspace)
    first = min(workspaces, key=lambda one: one.id, default=None)
    return SignIn(password=password, user_name=name, workspace_name=first.name if first else "")
