"""Whoever takes a key away hears where it still lets in: other entries, grants, files on the host."""

from __future__ import annotations

from typing import Any

from keyrack.core.audit import events
from keyrack.core.keys import credentials, grants, user_keys
from keyrack.core.keys.credentials import Deleted
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.core.test_unmanaged_keys import entry, tell


def put(team: Team, label: str, line: str, username: str = "deploy") -> int:
    """Put a key on an account; answers the credential's id."""
    return credentials.add(
        team.instance, team.owner, team.server.id, label=label, username=username, public_key=line
    ).id


def delete(team: Team, credential_id: int) -> Deleted:
    """Take it away."""
    return credentials.delete(team.instance, team.owner, team.server.id, credential_id)


def said(team: Team, words: str) -> str:
    """The newest event that begins so."""
    found = events.find(team.instance, team.owner, limit=50).items
    return next(one.summary for one in found if one.summary.startswith(words))


def kinds(deleted: Deleted) -> list[tuple[str, str]]:
    """What is answered, in short."""
    return [(one.kind, one.name) for one in deleted.still_opened_by]


def test_deleting_a_key_that_opens_nothing_else_says_nothing_more(team: Team) -> None:
    assert kinds(delete(team, put(team, "alone", fresh_line()))) == []
    assert "still opened" not in said(team, "Deleted SSH key alone")


def test_another_entry_of_the_same_account_counts_and_one_of_another_account_does_not(team: Team) -> None:
    line = fresh_line()
    first = put(team, "first", line)
    put(team, "second", line)
    put(team, "of-root", line, "root")
    assert kinds(delete(team, first)) == [("credential", "second")]
    assert said(team, "Deleted SSH key first").endswith("; still opened by: SSH key second")


def test_a_file_on_the_host_counts_while_sshd_takes_it(team: Team) -> None:
    for path, in_force, state, expected in (
        ("/etc/ssh/all", True, "new", True),
        ("/home/deploy/keys", False, "new", False),
        ("/home/deploy/old", True, "gone", False),
    ):
        line = fresh_line()
        found: dict[str, Any] = {**entry(line), "username": "*" if expected else "deploy", "path": path}
        tell(team, {**found, "in_force": in_force})
        change = tables.unmanaged_keys.update().where(tables.unmanaged_keys.c.path == path).values(state=state)
        team.instance.database.write(lambda connection, change=change: connection.execute(change))  # type: ignore[misc]
        still = kinds(delete(team, put(team, "l", line)))
        assert still == ([("file", path)] if expected else [])


def test_deleting_an_own_key_names_the_accounts_that_it_still_opens(team: Team) -> None:
    line = fresh_line()
    own = user_keys.add(team.instance, team.owner, title="laptop", public_key=line)
    put(team, "too", line)
    user_keys.delete(team.instance, team.owner, own.id)
    words = f"{team.owner.name} deleted SSH key laptop ({parse(line).fingerprint})"
    assert said(team, words) == f"{words}; still opened by: SSH key too (deploy on web-1)"


def test_taking_back_a_grant_names_what_still_lets_its_keys_in(team: Team) -> None:
    line, other = fresh_line(), fresh_line()
    for title, key in (("laptop", line), ("phone", other)):
        user_keys.add(team.instance, team.member, title=title, public_key=key)
    put(team, "by hand", line)
    put(team, "of-root", other, "root")

    def give(**where: Any) -> int:
        who = team.member_user.id
        return grants.give(team.instance, team.owner, user_id=who, system_user="deploy", **where).id

    first, second = give(server_id=team.server.id), give(tag="web")
    still = grants.take_back(team.instance, team.owner, first).still_opened_by
    assert {(one.kind, one.id if one.kind == "grant" else one.name) for one in still} == {
        ("credential", "by hand"),
        ("grant", second),
    }
    words = said(team, "Took back from alice").partition("still opened by: ")[2]
    assert "SSH key by hand (deploy on web-1)" in words
    assert [one.name for one in grants.take_back(team.instance, team.owner, second).still_opened_by] == ["by hand"]
