"""One key on many servers by one call: all or nothing, and no statement more for more servers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from keyrack.core.audit import events
from keyrack.core.hosts import documents, servers, system_users
from keyrack.core.keys import credentials, everywhere, grants, revocation, user_keys
from keyrack.core.people import groups, users
from keyrack.errors import Kind, Refusal
from keyrack.model import EventFilter
from keyrack.protocol import host_document
from keyrack.ssh.public_key import fingerprint_of
from keyrack.store import tables
from keyrack.store.sealing import sums
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.statements import all_statements

WEB = {"tag": "web"}


def more_servers(team: Team, count: int, first: int = 2) -> list[int]:
    """Servers web-2 … with the tag web and the account deploy."""
    ids = []
    for number in range(first, first + count):
        made = servers.create(team.instance, team.owner, name=f"web-{number}", address="192.0.2.9", tags=("web",))
        system_users.create(team.instance, team.owner, made.id, username="deploy")
        ids.append(made.id)
    return ids


def add(team: Team, line: str, chosen: Any = WEB, **more: Any) -> list[tuple[str, str]]:
    """Add a key; the states by server."""
    given = {"label": "bot", "username": "deploy", "public_key": line} | more
    made = everywhere.add(team.instance, team.owner, chosen, **given)
    return [(one.server, one.state) for one in made]


def document(team: Team, server_id: int) -> host_document.HostDocument:
    """What a host must obey now; nothing on it may be damaged."""
    signed = documents.signed(team.instance, server_id)
    assert signed is not None
    return host_document.decode(signed.text)


def lets_in(team: Team, server_id: int, line: str) -> bool:
    """Whether a host's document lets a key in as deploy."""
    key = " ".join(line.split()[:2])
    sent_document = document(team, server_id)
    inside = key in {one.public_key for one in sent_document.users.get("deploy", ())}
    assert not (inside and key in sent_document.revoked)
    return inside


def refuses(team: Team, server_id: int, line: str) -> bool:
    """Whether a host's document refuses a key."""
    return " ".join(line.split()[:2]) in document(team, server_id).revoked


def test_adding_or_revoking_on_many_servers_twice_changes_nothing_more(team: Team) -> None:
    ids = [team.server.id, *more_servers(team, 2)]
    line = fresh_line("bot@ci")
    assert add(team, line) == [(f"web-{number}", "added") for number in (1, 2, 3)]
    assert add(team, line) == [(f"web-{number}", "present") for number in (1, 2, 3)]
    assert all(lets_in(team, one, line) for one in ids)
    assert credentials.find(team.instance, team.owner, ids[1]).items[0].label == "bot"
    newest = events.find(team.instance, team.owner, EventFilter(server_id=ids[1]), limit=1).items[0]
    assert newest.summary.startswith("Added SSH key bot")
    assert newest.summary.endswith("web-2")

    gone = everywhere.revoke(team.instance, team.owner, ["web-2", ids[2]], fingerprint=fingerprint_of(line))
    assert [(one.server, one.state) for one in gone] == [("web-2", "revoked"), ("web-3", "revoked")]
    assert lets_in(team, ids[0], line)
    assert refuses(team, ids[1], line)
    assert refuses(team, ids[2], line)
    again = everywhere.revoke(team.instance, team.owner, "all", label="bot")
    assert [one.state for one in again] == ["revoked", "absent", "absent"]
    assert add(team, line) == [(f"web-{number}", "added") for number in (1, 2, 3)]
    assert all(lets_in(team, one, line) and not refuses(team, one, line) for one in ids)


def test_a_server_is_found_by_its_name_however_it_is_spelled(team: Team) -> None:
    server = servers.create(team.instance, team.owner, name="zoë-1", address="192.0.2.9")
    system_users.create(team.instance, team.owner, server.id, username="deploy")
    line = fresh_line("bot@ci")
    assert add(team, line, ["zoë-1"]) == [("zoë-1", "added")]
    assert add(team, line, ["zoe\u0308-1"]) == [("zoë-1", "present")]


def test_a_key_with_a_taken_label_on_one_server_is_added_to_none(team: Team) -> None:
    ids = [team.server.id, *more_servers(team, 2)]
    credentials.add(team.instance, team.owner, ids[1], label="bot", username="deploy", public_key=fresh_line("another"))
    line = fresh_line()
    revisions = [servers.get(team.instance, team.owner, one).revision for one in ids]
    with pytest.raises(Refusal) as refused:
        add(team, line)
    assert (refused.value.kind, refused.value.code) == (Kind.TAKEN, "label-taken")
    assert "web-2" in refused.value.message
    assert "web-1" not in refused.value.message
    with pytest.raises(Refusal) as refused:
        add(team, line, label="other", username="nobody-here")
    assert refused.value.code == "system-user-missing"
    assert "web-3" in refused.value.message
    with pytest.raises(Refusal) as refused:
        add(team, line, ["web-1", "web-77"])
    assert refused.value.code == "server-missing"
    assert "web-77" in refused.value.message
    for chosen in (None, "some", {}, {"tag": 1}, {"tag": "web", "x": 1}, [], [None], [True], [-1], 7, {"tag": "none"}):
        with pytest.raises(Refusal) as refused:
            add(team, line, chosen)
        assert refused.value.kind is Kind.INVALID
    assert [servers.get(team.instance, team.owner, one).revision for one in ids] == revisions
    assert not any(lets_in(team, one, line) for one in ids)


def test_the_same_key_with_other_terms_is_refused(team: Team) -> None:
    line = fresh_line()
    add(team, line)
    with pytest.raises(Refusal) as refused:
        add(team, line, restrictions={"sources": ["192.0.2.0/24"]})
    assert refused.value.code == "terms-differ"
    assert "web-1" in refused.value.message
    assert add(team, fresh_line(), label="short", temporary=True)[0][1] == "added"


def test_a_key_is_replaced_under_its_labels(team: Team) -> None:
    ids = [team.server.id, *more_servers(team, 1)]
    old, new = fresh_line(), fresh_line()
    add(team, old, restrictions={"sources": ["192.0.2.0/24"]})
    ends = [credentials.find(team.instance, team.owner, one).items[0] for one in ids]
    done = everywhere.replace(team.instance, team.owner, "all", fingerprint=fingerprint_of(old), public_key=new)
    assert [(one.id, one.state) for one in done] == [(one.id, "replaced") for one in ends]
    for one in ids:
        held = credentials.find(team.instance, team.owner, one).items[0]
        assert (held.label, held.fingerprint) == ("bot", fingerprint_of(new))
        assert held.restrictions
        assert lets_in(team, one, new)
        assert not lets_in(team, one, old)
        assert refuses(team, one, old)
    with pytest.raises(Refusal) as refused:
        everywhere.replace(team.instance, team.owner, "all", fingerprint=fingerprint_of(old), public_key=fresh_line())
    assert refused.value.kind is Kind.MISSING


def test_removing_a_key_that_a_grant_still_lets_in_says_so_and_does_not_refuse_it(team: Team) -> None:
    more_servers(team, 2)
    line = fresh_line()
    user_keys.add(team.instance, team.member, title="mine", public_key=line)
    groups.ensure(team.instance, team.owner, name="devs", user_ids=[team.member_user.id])
    grants.give_named(team.instance, team.owner, group="devs", server="web-2", system_user="deploy")
    grants.give_named(team.instance, team.owner, user="alice", server="web-3", system_user="deploy")
    add(team, line)
    gone = everywhere.revoke(team.instance, team.owner, WEB, fingerprint=fingerprint_of(line))
    assert [one.still_open for one in gone] == [False, True, True]
    assert [refuses(team, one.server_id, line) for one in gone] == [True, False, False]
    grants.give_named(team.instance, team.owner, user="alice", tag="web", system_user="deploy")
    assert all(lets_in(team, one.server_id, line) for one in gone)
    users.change(team.instance, team.owner, team.member_user.id, enabled=False)
    assert all(refuses(team, one.server_id, line) for one in gone)


def test_a_key_revoked_everywhere_is_put_nowhere(team: Team) -> None:
    more_servers(team, 1)
    line = fresh_line()
    add(team, line)
    revocation.revoke_everywhere(team.instance, team.owner, fingerprint_of(line))
    with pytest.raises(Refusal) as refused:
        add(team, line)
    assert refused.value.code == "key-revoked"


def test_a_member_without_the_right_adds_a_key_nowhere(team: Team) -> None:
    with pytest.raises(Refusal) as refused:
        everywhere.add(team.instance, team.member, "all", label="bot", username="deploy", public_key=fresh_line())
    assert refused.value.kind is Kind.FORBIDDEN


def test_every_server_that_changed_is_announced_once(team: Team) -> None:
    ids = {team.server.id, *more_servers(team, 3)}
    announced: list[frozenset[int]] = []
    stop = team.instance.database.listen(announced.append)
    add(team, fresh_line())
    stop()
    assert frozenset(ids) in announced


def _rotate(team: Team, line: str) -> None:
    everywhere.replace(team.instance, team.owner, "all", fingerprint=fingerprint_of(line), public_key=fresh_line())


COMMANDS: dict[str, Callable[[Team, str], Any]] = {
    "add": lambda team, line: add(team, line, label=f"second {line[-20:]}"),
    "again": lambda team, line: add(team, line),
    "revoke": lambda team, line: everywhere.revoke(team.instance, team.owner, "all", fingerprint=fingerprint_of(line)),
    "replace": _rotate,
    "revoke everywhere": lambda team, line: revocation.revoke_everywhere(
        team.instance, team.owner, fingerprint_of(line)
    ),
    "grant": lambda team, line: grants.give_named(
        team.instance, team.owner, user="alice", tag="web", system_user="deploy"
    ),
    "disable": lambda team, line: users.change(team.instance, team.owner, team.member_user.id, enabled=False),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_statements_do_not_grow_with_the_servers(team: Team, name: str) -> None:
    counts = []
    for count in (3, 12):
        more_servers(team, count, first=10 * count)
        line = fresh_line()
        add(team, line)
        if name == "disable":
            users.change(team.instance, team.owner, team.member_user.id, enabled=True)
            user_keys.add(team.instance, team.member, title=None, public_key=fresh_line())
            grants.give_named(team.instance, team.owner, user="alice", tag="web", system_user="deploy")
            users.change(team.instance, team.owner, team.member_user.id, enabled=False)
            users.change(team.instance, team.owner, team.member_user.id, enabled=True)
        with all_statements() as sent:
            COMMANDS[name](team, line)
        counts.append(len(sent))
        everywhere.revoke(team.instance, team.owner, "all", label="bot")
    assert counts[1] <= counts[0] + 2, counts


def test_an_altered_server_stays_broken_whatever_is_put_on_it(team: Team) -> None:
    more_servers(team, 1)
    team.instance.database.write(
        lambda c: c.exec_driver_sql(f"UPDATE servers SET host = 'elsewhere' WHERE id = {team.server.id}")
    )
    add(team, fresh_line())
    with pytest.raises(Refusal) as refused:
        documents.signed(team.instance, team.server.id)
    assert refused.value.code == "seal-broken"
    assert team.instance.database.read(lambda c: sums.fits(c, team.server.id + 1))


@pytest.mark.parametrize("begun", [True, False])
def test_a_key_that_a_grant_for_all_servers_lets_in_is_not_refused_where_it_is_taken_away(
    team: Team, begun: bool
) -> None:
    ids = [team.server.id, *more_servers(team, 2)]
    line = fresh_line()
    user_keys.add(team.instance, team.member, title="laptop", public_key=line)
    starts_at = None if begun else team.instance.now() + timedelta(hours=1)
    grants.give(
        team.instance,
        team.owner,
        user_id=team.member_user.id,
        all_servers=True,
        system_user="deploy",
        starts_at=starts_at,
    )
    add(team, line)
    everywhere.revoke(team.instance, team.owner, WEB, fingerprint=fingerprint_of(" ".join(line.split()[:2])))
    assert {lets_in(team, server_id, line) for server_id in ids} == {begun}
    assert {refuses(team, server_id, line) for server_id in ids} == {not begun}


def test_a_key_in_a_damaged_row_is_not_replaced_anywhere(team: Team) -> None:
    """The row cannot be believed, and nothing is done by halves: all is refused, and the words say where to look."""
    old, new = fresh_line(), fresh_line()
    (other,) = more_servers(team, 1)
    assert len(add(team, old)) == 2
    row = (tables.credentials.c.server_id == other) & (tables.credentials.c.label == "bot")
    team.instance.database.write(
        lambda connection: connection.execute(update(tables.credentials).where(row).values(label="bots"))
    )
    with pytest.raises(Refusal) as refused:
        everywhere.replace(team.instance, team.owner, WEB, fingerprint=fingerprint_of(old), public_key=new)
    assert (refused.value.kind, refused.value.code, refused.value.field) == (Kind.INVALID, "damaged", "fingerprint")
    assert "web-2" in refused.value.message
    assert "keyrack hosts damaged" in refused.value.message
    assert lets_in(team, team.server.id, old)
    assert not lets_in(team, team.server.id, new)
