"""The database goes back: hosts are noticed, what they refused stays refused on hosts and for Git, people decide."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select

from keyrack.core.audit import events
from keyrack.core.git import access
from keyrack.core.hosts import (
    database_rollback,
    deleted_servers,
    documents,
    enrolment,
    modes,
    reports,
    resync,
    servers,
    system_users,
)
from keyrack.core.hosts.database_rollback import HostRevision
from keyrack.core.hosts.documents import SignedDocument
from keyrack.core.keys import credentials, everywhere, grants, receipts, revocation, user_keys
from keyrack.errors import Refusal
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line


class Database:
    """A copy of all rows, to be put back as a backup would be."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self._rows = team.instance.database.read(self._copy)

    def restore(self) -> None:
        """Make the database what it was."""
        self._team.instance.database.write(self._put)

    def _copy(self, connection: Connection) -> dict[str, list[dict[str, Any]]]:
        return {
            table.name: [dict(row._mapping) for row in connection.execute(select(table))]
            for table in tables.metadata.sorted_tables
        }

    def _put(self, connection: Connection) -> None:
        for table in reversed(tables.metadata.sorted_tables):
            connection.execute(delete(table))
        for table in tables.metadata.sorted_tables:
            if self._rows[table.name]:
                connection.execute(insert(table), self._rows[table.name])


@dataclass
class Host:
    """What an agent remembers, and what it says."""

    team: Team
    secret: str = ""
    last: SignedDocument | None = None

    @property
    def lineage(self) -> str:
        return "" if self.last is None else str(json.loads(self.last.text).get("lineage", ""))

    @property
    def revision(self) -> int:
        return 0 if self.last is None else self.last.revision

    def contact(self) -> HostRevision:
        return database_rollback.judge_revision(self.team.instance, self.team.server.id, self.revision, self.lineage)

    def obey(self, *, report: bool = True) -> None:
        """Ask once; obey and report what comes, as long as it is newer; tell the last document when asked."""
        instance, server_id = self.team.instance, self.team.server.id
        said = self.contact()
        if said is HostRevision.DIVERGED:
            database_rollback.note_diverged(instance, server_id, self.revision)
            self.tell()
            said = self.contact()
        if said is HostRevision.NEWER:
            signed = documents.signed(instance, server_id)
            assert signed is not None
            assert signed.revision > self.revision, "the host would refuse it"
            self.last = signed
            if report:
                server = servers.get(instance, self.team.owner, server_id)
                fields = {"revision": self.revision, "lineage": self.lineage, "state": "applied"}
                reports.ingest(instance, server, fields)
        assert self.contact() is HostRevision.CURRENT

    def tell(self, size: int = 500) -> None:
        """Hand the last document over in pieces."""
        assert self.last is not None
        pieces = [self.last.text[at : at + size] for at in range(0, len(self.last.text), size)]
        for number, text in enumerate(pieces):
            server = servers.get(self.team.instance, self.team.owner, self.team.server.id)
            fields = {"number": number, "of": len(pieces), "text": text, "signature": self.last.signature}
            database_rollback.receive_piece(self.team.instance, server, fields)

    def lets_in(self, line: str) -> bool:
        """Whether the document in force lets a key in as deploy."""
        assert self.last is not None
        document = json.loads(self.last.text)
        key = parse(line).canonical
        return key not in document["revoked"] and any(
            entry["key"] == key for entry in document["users"].get("deploy", ())
        )

    def refuses(self, line: str) -> bool:
        """Whether the document in force names it as revoked."""
        assert self.last is not None
        return parse(line).canonical in json.loads(self.last.text)["revoked"]


@pytest.fixture
def host(team: Team) -> Host:
    """A host that obeys the first document."""
    known = Host(team)
    known.obey()
    return known


def add(team: Team, label: str, line: str, **more: Any) -> int:
    """Put a key on deploy."""
    return credentials.add(
        team.instance, team.owner, team.server.id, label=label, username="deploy", public_key=line, **more
    ).id


def alarms(team: Team) -> list[str]:
    """The alarms of the workspace."""
    return [one.summary for one in events.find(team.instance, team.owner, limit=1000).items if one.level == "alarm"]


def opens_git(team: Team, line: str) -> bool:
    """Whether sshd of the Git host would be given the key."""
    return access.public_key_of(team.instance, parse(line).fingerprint) is not None


@pytest.mark.parametrize("changes_after", [0, 1, 2, 3, 100])
def test_a_key_revoked_after_the_backup_stays_refused_after_a_restore(
    team: Team, host: Host, changes_after: int
) -> None:
    """However many changes were made before the host came back: its number may be above, equal, or below."""
    kept, revoked = fresh_line(), fresh_line()
    add(team, "kept", kept)
    doomed = add(team, "doomed", revoked)
    host.obey()
    backup = Database(team)
    credentials.delete(team.instance, team.owner, team.server.id, doomed)
    late = fresh_line()
    add(team, "late", late)
    host.obey()
    assert host.refuses(revoked)

    backup.restore()
    after = [fresh_line() for _ in range(changes_after)]
    for number, line in enumerate(after):
        add(team, f"after-{number}", line)
    host.obey()

    assert host.refuses(revoked)
    assert not host.lets_in(revoked)
    assert host.lets_in(kept)
    assert not host.lets_in(late), "nothing opens that the database does not know"
    assert len(alarms(team)) == 1
    difference = resync.difference(team.instance, team.owner, team.server.id, limit=1000)
    assert difference.undecided
    by_kind = {(row.kind, row.fingerprint) for row in difference.held}
    assert {
        ("line", parse(revoked).fingerprint),
        ("revoked", parse(revoked).fingerprint),
        ("lost", parse(late).fingerprint),
    } <= by_kind
    # What people do from now on counts.
    new = fresh_line()
    add(team, "new", new)
    host.obey()
    assert host.lets_in(new)
    assert host.refuses(revoked)
    found = receipts.of_key(team.instance, team.owner, parse(revoked).fingerprint)
    assert found.done
    assert len(alarms(team)) == 1


def test_the_same_revision_of_another_database_is_no_receipt(team: Team, host: Host) -> None:
    backup = Database(team)
    add(team, "lost", fresh_line())
    host.obey()
    backup.restore()
    added = add(team, "other", fresh_line())
    credential = credentials.get(team.instance, team.owner, team.server.id, added)
    assert credential.revision == host.revision
    server = servers.get(team.instance, team.owner, team.server.id)
    reports.ingest(team.instance, server, {"revision": host.revision, "lineage": host.lineage, "state": "applied"})
    assert not credentials.get(team.instance, team.owner, team.server.id, added).acknowledged
    host.obey()
    assert credentials.get(team.instance, team.owner, team.server.id, added).acknowledged


@pytest.mark.parametrize("is_reported", [True, False])
def test_a_host_that_comes_back_after_many_changes_is_known(team: Team, host: Host, *, is_reported: bool) -> None:
    """Also where what it obeys was never reported: it went away, or nothing could be written, before it could."""
    for number in range(3):
        add(team, f"before-{number}", fresh_line())
        host.obey(report=is_reported)
    lines = [fresh_line() for _ in range(140)]
    for number, line in enumerate(lines):
        add(team, f"after-{number}", line)
        assert host.contact() is HostRevision.NEWER, f"after {number + 1} changes"
    host.obey()
    assert alarms(team) == []
    assert all(host.lets_in(line) for line in lines)


def test_marks_of_many_servers_are_kept_too(team: Team, host: Host) -> None:
    """Where one change is made on many at once."""
    add(team, "before", fresh_line())
    host.obey(report=False)
    for number in range(130):
        key = fresh_line()
        everywhere.add(team.instance, team.owner, "all", label=f"after-{number}", username="deploy", public_key=key)
    assert host.contact() is HostRevision.NEWER


def test_a_host_that_is_only_behind_raises_no_alarm(team: Team, host: Host) -> None:
    for number in range(100):
        add(team, f"k-{number}", fresh_line())
    host.obey()
    assert alarms(team) == []
    assert not resync.difference(team.instance, team.owner, team.server.id).undecided


def test_a_key_revoked_everywhere_stays_refused_by_git(team: Team, host: Host) -> None:
    line, other = fresh_line(), fresh_line()
    user_keys.add(team.instance, team.member, title="laptop", public_key=line)
    user_keys.add(team.instance, team.member, title="other", public_key=other)
    grants.give(team.instance, team.owner, user_id=team.member_user.id, server_id=team.server.id, system_user="deploy")
    host.obey()
    assert host.lets_in(line)
    assert opens_git(team, line)
    backup = Database(team)
    revocation.revoke_everywhere(team.instance, team.owner, parse(line).fingerprint)
    host.obey()
    backup.restore()
    host.obey()
    assert not host.lets_in(line)
    assert host.lets_in(other)
    assert not opens_git(team, line)
    assert opens_git(team, other)
    # A new grant does not bring back a key that was refused.
    grants.give(team.instance, team.owner, user_id=team.member_user.id, server_id=team.server.id, system_user="deploy")
    host.obey()
    assert not host.lets_in(line)
    # Decided that it stays so, it stays so.
    resync.decide(team.instance, team.owner, team.server.id)
    host.obey()
    assert not host.lets_in(line)
    assert not opens_git(team, line)
    assert not resync.difference(team.instance, team.owner, team.server.id).undecided
    # Decided otherwise, it is let in.
    resync.decide(team.instance, team.owner, team.server.id, let_in=(parse(line).fingerprint,))
    host.obey()
    assert host.lets_in(line)
    assert opens_git(team, line)


def test_restrictions_tightened_after_the_backup_stay_after_a_restore(team: Team, host: Host) -> None:
    """A shorter end, a restriction, an account, enforcing, the offline policy, sshd's settings."""
    line = fresh_line()
    wide = add(team, "wide", line)
    bob = system_users.create(team.instance, team.owner, team.server.id, username="bob", password="first of bob")
    modes.set_mode(team.instance, team.owner, team.server.id, "observe")
    host.obey()
    backup = Database(team)
    credentials.delete(team.instance, team.owner, team.server.id, wide)
    narrow = {"sources": ["192.0.2.1"]}
    credentials.add(
        team.instance,
        team.owner,
        team.server.id,
        label="narrow",
        username="deploy",
        public_key=line,
        restrictions=narrow,
    )
    system_users.set_password(team.instance, team.owner, team.server.id, bob.id, password="second of bob")
    modes.set_mode(team.instance, team.owner, team.server.id, "enforce")
    modes.set_offline_policy(team.instance, team.owner, after_seconds=3600, then="drop-all", server_id=team.server.id)
    host.obey()
    assert host.last is not None
    before = json.loads(host.last.text)
    backup.restore()
    host.obey()
    document = json.loads(host.last.text)
    assert document["mode"] == "enforce"
    assert document["stale"] == before["stale"]
    assert "deploy" not in document["users"], "the wide line must not come back"
    assert "bob" not in document["accounts"], "nor the password of before"
    system_users.set_password(team.instance, team.owner, team.server.id, bob.id, password="third of bob")
    host.obey()
    assert json.loads(host.last.text)["accounts"]["bob"]["password_hash"]


def test_accepting_the_database(team: Team, host: Host) -> None:
    line = fresh_line()
    doomed = add(team, "doomed", line)
    host.obey()
    backup = Database(team)
    credentials.delete(team.instance, team.owner, team.server.id, doomed)
    host.obey()
    backup.restore()
    host.obey()
    assert not host.lets_in(line)
    resync.decide(team.instance, team.owner, team.server.id, accept_database=True)
    host.obey()
    assert host.lets_in(line)
    assert resync.difference(team.instance, team.owner, team.server.id).held == ()


def test_a_key_that_is_decided_to_stay_refused_is_listed_no_more(team: Team, host: Host) -> None:
    line, kept = fresh_line(), fresh_line()
    doomed = add(team, "doomed", line)
    add(team, "kept", kept)
    host.obey()
    backup = Database(team)
    credentials.delete(team.instance, team.owner, team.server.id, doomed)
    host.obey()
    backup.restore()
    host.obey()
    resync.decide(team.instance, team.owner, team.server.id)
    host.obey()
    listed = credentials.find(team.instance, team.owner, team.server.id).items
    assert [one.label for one in listed] == ["kept"]
    assert host.lets_in(kept)
    assert host.refuses(line)
    add(team, "doomed", line)
    host.obey()
    assert host.lets_in(line), "entered again, it is a decision"


def test_a_database_restored_twice_is_noticed_twice(team: Team, host: Host) -> None:
    line = fresh_line()
    doomed = add(team, "doomed", line)
    host.obey()
    backup = Database(team)
    credentials.delete(team.instance, team.owner, team.server.id, doomed)
    host.obey()
    for _ in range(3):
        backup.restore()
        host.obey()
        assert host.refuses(line)
        assert not host.lets_in(line)


@pytest.mark.parametrize("changes_after", [0, 1, 5])
def test_the_host_of_a_server_deleted_after_a_restore_takes_its_last_document(team: Team, changes_after: int) -> None:
    """Its last document gets a number that the host takes, and nothing that the host did before is a receipt for it."""
    host = Host(team)
    token = servers.invite(team.instance, team.owner, team.server.id)
    secret = enrolment.enrol(team.instance, token, {}, address="192.0.2.1").secret
    line = fresh_line()
    add(team, "a", line)
    host.obey()
    backup = Database(team)
    for number in range(changes_after):
        add(team, f"more {number}", fresh_line())
    if changes_after:
        host.obey()
    backup.restore()
    servers.delete(team.instance, team.owner, team.server.id)

    def report() -> None:
        fields = {"revision": host.revision, "lineage": host.lineage, "state": "applied"}
        (server,) = enrolment.authenticate_together(team.instance, [(secret, "192.0.2.1")])
        assert not isinstance(server, Exception)
        reports.ingest(team.instance, server, fields)

    report()
    (waiting,) = deleted_servers.find(team.instance, team.owner).items
    assert waiting.acknowledged_at is None
    assert host.contact() is HostRevision.NEWER
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    assert signed.revision > host.revision, "the host would refuse it"
    host.last = signed
    assert host.contact() is HostRevision.CURRENT
    report()
    (obeyed,) = deleted_servers.find(team.instance, team.owner).items
    assert obeyed.acknowledged_at is not None
    assert host.refuses(line)


def test_nothing_but_the_hosts_own_signed_document_is_taken(team: Team, host: Host) -> None:
    add(team, "a", fresh_line())
    host.obey()
    other = servers.create(team.instance, team.owner, name="web-2", address="192.0.2.11")
    of_other = documents.signed(team.instance, other.id)
    assert of_other is not None
    assert host.last is not None
    server = servers.get(team.instance, team.owner, team.server.id)
    piece = {"number": 0, "of": 1, "text": host.last.text, "signature": host.last.signature}
    with pytest.raises(Refusal, match="Nobody asked"):
        database_rollback.receive_piece(team.instance, server, piece)
    database_rollback.note_diverged(team.instance, team.server.id, 99)
    server = servers.get(team.instance, team.owner, team.server.id)
    wrong: list[dict[str, Any]] = [
        {**piece, "text": of_other.text, "signature": of_other.signature},
        {**piece, "text": host.last.text.replace("deploy", "root")},
        {**piece, "of": 2, "number": 1},
        {**piece, "number": -1},
        {**piece, "of": 10**6},
        {**piece, "number": True},
        {**piece, "text": None},
        {**piece, "text": "\ud800"},
        {},
    ]
    for fields in wrong:
        with pytest.raises(Refusal):
            database_rollback.receive_piece(team.instance, server, fields)
    database_rollback.receive_piece(team.instance, server, piece)
    assert not resync.difference(team.instance, team.owner, team.server.id).undecided


def test_a_host_that_is_to_enforce_by_itself_still_is(team: Team, host: Host) -> None:
    """Its document says observe until it enforces: that is nobody's word that it is to go on so."""
    modes.set_mode(team.instance, team.owner, team.server.id, "auto")
    host.obey()
    backup = Database(team)
    add(team, "lost", fresh_line())
    host.obey()
    backup.restore()
    host.obey()
    assert servers.get(team.instance, team.owner, team.server.id).mode == "auto"


def test_a_text_without_anything_lets_no_account_in(team: Team, host: Host) -> None:
    backup = Database(team)
    add(team, "lost", fresh_line())
    host.obey()
    backup.restore()
    system_users.create(team.instance, team.owner, team.server.id, username="after")
    host.obey()
    held = resync.difference(team.instance, team.owner, team.server.id, limit=1000).held
    assert "account" in {row.kind for row in held}
    with pytest.raises(Refusal):
        resync.decide(team.instance, team.owner, team.server.id, let_in=("",))
