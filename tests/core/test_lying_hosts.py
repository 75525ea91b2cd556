"""A host that tells what is not so: revisions that it does not hold, or another instance's, are no receipts."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from keyrack.core.hosts import reports, servers
from keyrack.core.hosts.database_rollback import HostRevision, judge_revision
from keyrack.core.keys import credentials, receipts, revocation
from keyrack.errors import Refusal
from keyrack.ssh.public_key import parse
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.core.test_database_rollback import Host, add, alarms
from tests.core.test_receipts import enrol

OTHERS = "0123456789abcdef0123456789abcdef"


def tell(team: Team, **fields: Any) -> None:
    """What the host reports, as an agent does."""
    server = servers.get(team.instance, team.owner, team.server.id)
    reports.ingest(team.instance, server, {"state": "applied", **fields})


@pytest.fixture
def behind(team: Team) -> tuple[Host, str]:
    """A host that obeys a key, which was revoked since; and that key's fingerprint."""
    line = fresh_line()
    enrol(team, team.server)
    host = Host(team)
    add(team, "doomed", line)
    host.obey()
    revocation.revoke_everywhere(team.instance, team.owner, parse(line).fingerprint)
    return host, parse(line).fingerprint


LIES: dict[str, dict[str, Any]] = {
    "the newest, with the mark of the one before": {"ahead": 0},
    "the newest, with another instance's mark": {"ahead": 0, "lineage": OTHERS},
    "of the future": {"ahead": 1},
    "of the far future": {"ahead": 1_000_000},
    "of the future, without a mark": {"ahead": 1, "lineage": ""},
    "the largest": {"revision": 2**31 - 1},
    "another instance's": {"revision": 3, "lineage": OTHERS},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_reported_revision_that_the_host_does_not_have_is_no_receipt(
    team: Team, behind: tuple[Host, str], lie: str
) -> None:
    host, fingerprint = behind
    fields = dict(LIES[lie])
    now = servers.get(team.instance, team.owner, team.server.id).revision
    if "ahead" in fields:
        fields["revision"] = now + fields.pop("ahead")
    before = servers.get(team.instance, team.owner, team.server.id)
    tell(team, **{"lineage": host.lineage, **fields})
    server = servers.get(team.instance, team.owner, team.server.id)
    assert (server.applied_revision, server.applied_lineage) == (before.applied_revision, before.applied_lineage)
    assert not receipts.of_key(team.instance, team.owner, fingerprint).done
    assert judge_revision(team.instance, server.id, fields["revision"], fields.get("lineage", host.lineage)) in (
        HostRevision.DIVERGED,
        HostRevision.NEWER,
    )
    # Once it tells the truth again, all is as ever.
    host.obey()
    assert receipts.of_key(team.instance, team.owner, fingerprint).done
    late = credentials.get(team.instance, team.owner, server.id, add(team, "late", fresh_line()))
    assert not late.acknowledged
    host.obey()
    assert credentials.get(team.instance, team.owner, server.id, late.id).acknowledged
    assert len(alarms(team)) <= 1


NONSENSE: tuple[Any, ...] = (-1, 2**31, 2**63, 2**70, 1.0, True, "3", None, [], {})
MARKS: tuple[Any, ...] = ("x" * 10_000, "\x00", "\ud800", 7, ["0"], {"0": 1}, "é", "0123\n", True)


@pytest.mark.parametrize("fields", [{"lineage": ""}, {"lineage": None}, {}])
def test_a_host_that_has_reported_marks_gives_no_receipt_without_one(
    team: Team, behind: tuple[Host, str], fields: dict[str, Any]
) -> None:
    """A number alone can be guessed; the mark is in the document."""
    host, fingerprint = behind
    before = servers.get(team.instance, team.owner, team.server.id)
    assert before.applied_lineage
    tell(team, revision=before.revision, **fields)
    assert servers.get(team.instance, team.owner, team.server.id).applied_revision == before.applied_revision
    assert not receipts.of_key(team.instance, team.owner, fingerprint).done
    host.obey()
    assert receipts.of_key(team.instance, team.owner, fingerprint).done


@pytest.mark.parametrize("field", ["revision", "lineage"])
def test_a_malformed_revision_is_refused_or_no_receipt(team: Team, behind: tuple[Host, str], field: str) -> None:
    host, fingerprint = behind
    now = servers.get(team.instance, team.owner, team.server.id)
    for value in NONSENSE if field == "revision" else MARKS:
        with suppress(Refusal):
            tell(team, **{"revision": now.revision, "lineage": host.lineage, field: value})
        after = servers.get(team.instance, team.owner, team.server.id)
        assert after.applied_revision == now.applied_revision, value
    assert not receipts.of_key(team.instance, team.owner, fingerprint).done
    host.obey()
    assert receipts.of_key(team.instance, team.owner, fingerprint).done
