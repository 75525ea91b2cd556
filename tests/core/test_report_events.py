"""However much a host reports, what is kept of it has a bound, and nobody else waits for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, event, func, select

from keyrack.core.audit import alarms, events
from keyrack.core.hosts import host_keys, report_events, reports, status, unmanaged_keys
from keyrack.core.hosts.unmanaged_keys import GONE
from keyrack.model import EventFilter
from keyrack.protocol import audit_tree
from keyrack.protocol.audit_tree import Checkpoint
from keyrack.store import tables
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.core.test_unmanaged_keys import entry, here, known, tell


def log(team: Team) -> list[str]:
    """The server's events, newest first."""
    page = events.find(team.instance, team.owner, EventFilter(server_id=team.server.id), limit=10_000)
    return [one.summary for one in page.items]


def rows(team: Team, state: str | None = None) -> int:
    """How many unmanaged keys are kept."""
    statement = select(func.count()).select_from(tables.unmanaged_keys)
    if state is not None:
        statement = statement.where(tables.unmanaged_keys.c.state == state)
    return int(team.instance.database.read(lambda connection: connection.execute(statement).scalar_one()))


def refuse(team: Team, *problems: str, revision: int = 1, state: str = "failed") -> None:
    """Report that a document was refused, or could not be applied for now."""
    reports.ingest(team.instance, here(team), {"revision": revision, "state": state, "problems": list(problems)})


def many(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Unmanaged keys in places of their own."""
    one = entry(fresh_line("robot"))
    return [{**one, "path": f"/srv/{number}/keys"} for number in range(first, first + count)]


def test_a_repeated_refusal_is_one_event_with_a_count(team: Team) -> None:
    before = len(log(team))
    for _ in range(50):
        refuse(team, "the disk is full", "x" * 500)
    assert len(log(team)) == before + 1
    # Reports of sessions in between are no end of it.
    reports.ingest(team.instance, here(team), {"sessions": []})
    refuse(team, "the disk is full", "x" * 500)
    assert len(log(team)) == before + 1
    refuse(team, "another reason")
    assert len(log(team)) == before + 2
    refuse(team, "another reason")
    tell(team)
    assert "web-1 obeys again; it had said 2 times: host web-1 cannot apply its document" in log(team)[0]
    assert "revision 1 is in force: another reason. It tries again" in log(team)[0]
    assert all(len(summary) <= report_events.LONGEST for summary in log(team))


def test_a_refused_document_is_an_alarm_that_says_what_to_do(team: Team) -> None:
    def alarms_raised() -> list[str]:
        page = events.find(team.instance, team.owner, EventFilter(server_id=team.server.id, kind=events.ALARM))
        return [one.summary for one in page.items]

    tell(team)
    for _ in range(5):
        refuse(team, "its signature is another's", state="refused")
    (raised,) = alarms_raised()
    assert raised.startswith(
        "Alarm: host web-1 refuses its document, so nothing new comes into force there, revocations"
    )
    assert "revision 1 stays in force: its signature is another's. Paste its installation line there, which" in raised
    assert raised.endswith(f"On the command line: `keyrack hosts enrol {team.server.id}`")
    assert raised.removeprefix("Alarm: ") in status.of(team.instance, here(team)).problems
    # What comes and goes within the hour is one alarm.
    tell(team)
    refuse(team, "its signature is another's", state="refused")
    assert len(alarms_raised()) == 1
    refuse(team, "x" * 500, "y" * 500, state="refused")
    assert len(alarms_raised()) == 2
    assert len(alarms_raised()[0]) <= report_events.LONGEST
    assert alarms_raised()[0].endswith(f"On the command line: `keyrack hosts enrol {team.server.id}`")
    tell(team)
    assert not any("refuses its document" in words for words in status.of(team.instance, here(team)).problems)


def test_a_document_that_cannot_be_applied_is_an_alarm_until_it_is_applied(team: Team) -> None:
    """A full disk keeps revocations from coming into force, as a refusal does."""

    def shown() -> str:
        return "; ".join(status.of(team.instance, here(team)).problems)

    tell(team)
    for _ in range(3):
        refuse(team, "a new document waits: no space left")
    (found,) = events.find(team.instance, team.owner, EventFilter(kind=events.ALARM)).items
    assert found.reason == report_events.FAILED_CODE
    words = found.summary.removeprefix("Alarm: ")
    assert words.startswith("host web-1 cannot apply its document")
    assert "revocations included; revision 1 is in force: a new document waits: no space left." in words
    assert words in shown()
    tell(team)
    assert "cannot apply" not in shown()
    assert "host web-1 obeys again".lower() in log(team)[0].lower()


def test_a_log_that_a_host_does_not_find_as_it_was_is_an_alarm(team: Team) -> None:
    """It obeys all the same, and says so with its receipt."""
    before = Checkpoint(5, b"a" * 32, 1, 0)
    for new in (Checkpoint(4, b"b" * 32, 1, 0), Checkpoint(6, b"b" * 32, 1, 0)):
        words = audit_tree.problem(before, new, ())
        reports.ingest(team.instance, here(team), {"revision": 1, "state": "applied", "problems": [words]})
        (newest, *_) = events.find(team.instance, team.owner, EventFilter(kind=events.ALARM)).items
        assert words in newest.summary
        assert "somebody rewrote it" in newest.summary
    reports.ingest(team.instance, here(team), {"revision": 1, "state": "applied", "problems": ["the clock is ahead"]})
    assert len(events.find(team.instance, team.owner, EventFilter(kind=events.ALARM)).items) == 2


def test_refusals_that_are_new_each_time_have_a_bound(team: Team, monkeypatch: Any) -> None:
    monkeypatch.setattr(alarms, "MAX_PER_HOUR", 5)
    before = len(log(team))
    for number in range(12):
        refuse(team, f"reason {number}", state="refused")
    assert len(log(team)) == before + 6


def test_the_events_of_one_host_in_an_hour_are_bounded(team: Team, monkeypatch: Any) -> None:
    monkeypatch.setattr(report_events, "MAX_PER_HOUR", 20)
    for number in range(report_events.MAX_PER_HOUR + 50):
        report = {"revision": 1, "state": "applied", "problems": [f"reason {number}"]}
        reports.ingest(team.instance, here(team), report)
    summaries = [summary for summary in log(team) if "web-1 says: reason" in summary]
    assert len(summaries) == report_events.MAX_PER_HOUR - 1
    assert "the rest is left out" in log(team)[0]
    # A receipt counts all the same.
    tell(team)
    assert here(team).applied_revision == 1


def test_alarms_that_are_new_each_time_have_a_bound_too(team: Team, monkeypatch: Any) -> None:
    monkeypatch.setattr(alarms, "MAX_PER_HOUR", 5)
    for _ in range(12):
        reports.ingest(team.instance, here(team), {"host_keys": {"port": 22, "keys": [fresh_line("")]}})
    raised = [summary for summary in log(team) if summary.startswith("Alarm:")]
    assert len(raised) == 6
    assert "the rest is left out" in raised[0]
    # What is shown now is known all the same.
    assert len(host_keys.find(team.instance, team.owner, "web-1")) == 2


def test_a_state_that_comes_and_goes_does_not_fill_the_log(team: Team) -> None:
    before = len(log(team))
    for number in range(60):
        enforcement = ("unproven", "enforce")[number % 2]
        scan = ("", "the look was cut")[number % 2]
        facts = {"enforcement": enforcement, "scan": scan}
        reports.ingest(team.instance, here(team), {"facts": facts, "problems": [scan] if scan else []})
    assert len(log(team)) == before + 4 * report_events.MAX_ALIKE
    assert sum("left out" in summary for summary in log(team)) == 4
    # What is new is logged all the same.
    reports.ingest(team.instance, here(team), {"facts": {"enforcement": "observe"}})
    assert "no longer enforces" in log(team)[0]
    earlier = tables.events.update().values(at=team.instance.now() - timedelta(hours=2))
    team.instance.database.write(lambda connection: connection.execute(earlier))
    reports.ingest(team.instance, here(team), {"facts": {"enforcement": "enforce"}})
    assert log(team)[0].endswith("Keyrack's keys alone open it")


def test_keys_that_are_new_in_each_report_do_not_pile_up(team: Team, monkeypatch: Any) -> None:
    monkeypatch.setattr(unmanaged_keys, "MAX_GONE", 100)
    for number in range(4):
        tell(team, *many(60, number * 60))
    assert (rows(team), rows(team, GONE)) == (160, 100)
    # What is there now is what was reported last.
    assert {one.path for one in known(team)} <= {one["path"] for one in many(60, 180)}


def test_an_unchanged_list_of_keys_is_not_stored_again(team: Team) -> None:
    found = many(50)
    tell(team, *found)
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        tell(team, *found)
        assert not [statement for statement in statements if "unmanaged_keys" in statement]
        # One key more: the others are not written again.
        tell(team, *found, *many(1, 90))
        written = [
            statement for statement in statements if statement.startswith(("INSERT INTO unmanaged", "UPDATE unmanaged"))
        ]
        assert len(written) == 1
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert rows(team) == 51


def test_keys_beyond_the_limit_of_a_host_are_left_out_and_reported(team: Team, monkeypatch: Any) -> None:
    monkeypatch.setattr(unmanaged_keys, "MAX_PER_SERVER", 10)
    tell(team, *many(14))
    assert rows(team) == 10
    assert any("4 of them are not listed" in summary for summary in log(team))


def test_events_come_back_after_an_hour(team: Team, monkeypatch: Any) -> None:
    """The bound is one of the last hour, not for good."""
    monkeypatch.setattr(report_events, "MAX_PER_HOUR", 20)
    for number in range(report_events.MAX_PER_HOUR + 1):
        refuse(team, f"reason {number}")
    earlier = tables.events.update().values(at=team.instance.now() - timedelta(hours=2))
    team.instance.database.write(lambda connection: connection.execute(earlier))
    refuse(team, "a new reason")
    assert "a new reason" in log(team)[0]


def test_a_report_of_sessions_ends_no_problem(team: Team) -> None:
    tell(team, problems=["the disk is full"])
    reports.ingest(team.instance, here(team), {"sessions": [], "machine": {"cores": 4, "load": -1, "kernel": 5}})
    assert here(team).facts["problems"] == ["the disk is full"]
    machine = here(team).facts["machine"]
    assert (machine["cores"], machine["load"], machine["kernel"]) == (4, None, None)
    tell(team, problems=[])
    assert here(team).facts["problems"] == []
