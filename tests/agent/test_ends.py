"""A key file that differs only by how ends are written is not one that somebody changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from keyrack.agent.keys.ends import EARLY_SECONDS, EndForm, Ends, next_end
from keyrack.agent.keys.key_files import differ_by_ends, render
from keyrack.protocol.host_document import AuthorizedKey, HostDocument
from tests.agent.signed_documents import public_key

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
SOON, LATER = NOW + timedelta(hours=1), NOW + timedelta(hours=2)
KEYS = [public_key() for _ in range(4)]
TRICKY = 'command="echo ,expiry-time=\\"20300101\\" x"'
DOCUMENT = HostDocument(
    "h_1",
    1,
    NOW,
    {
        "deploy": [
            AuthorizedKey(KEYS[0]),
            AuthorizedKey(KEYS[1], SOON),
            AuthorizedKey(KEYS[2], LATER, ("restrict", TRICKY)),
        ]
    },
)


def moment(when: datetime) -> int:
    return int(when.timestamp())


def file(ends: Ends) -> bytes:
    return render(DOCUMENT, ends).users["deploy"]


LOCAL = Ends(EndForm.LOCAL, ((moment(SOON), "20260701150000"), (moment(LATER), "20260701160000")))
ELSEWHERE = Ends(EndForm.LOCAL, ((moment(SOON), "20260701090000"), (moment(LATER), "20260701100000")))
ABSENT = Ends(EndForm.ABSENT, ended=frozenset([moment(SOON)]))


def test_each_form_of_an_end_is_written_into_lines() -> None:
    assert file(Ends()).count(b'expiry-time="20260701125959Z"') == 1
    assert file(LOCAL).count(b'expiry-time="20260701150000"') == 1
    assert b'"20260701' not in file(ABSENT)
    assert KEYS[1].encode() not in file(ABSENT)
    assert all(file(ends).count(TRICKY.encode()) == 1 for ends in (Ends(), LOCAL, ABSENT))


def test_an_end_that_cannot_be_written_opens_nothing() -> None:
    some = LOCAL._replace(local=((moment(SOON), None), (moment(LATER), "20260701160000")))
    assert KEYS[1].encode() not in file(some)
    assert KEYS[2].encode() in file(some)


def test_an_end_written_otherwise_is_not_taken_for_a_change_by_somebody() -> None:
    for found in (Ends(), LOCAL, ELSEWHERE, Ends(EndForm.ABSENT)):
        for wanted in (Ends(), LOCAL, ELSEWHERE, ABSENT):
            assert differ_by_ends(file(found), file(wanted), file(Ends())), (found, wanted)


def test_a_file_that_somebody_changed_is_told_from_one_with_other_ends() -> None:
    whole, wanted = file(Ends()), file(LOCAL)
    foreign = wanted + f"{KEYS[3]}\n".encode()
    missing = wanted.replace(f"{KEYS[0]}\n".encode(), b"")
    other_option = wanted.replace(b"restrict,", b"")
    other_command = wanted.replace(b"20300101", b"20400101")
    for found in (foreign, missing, other_option, other_command):
        assert not differ_by_ends(found, wanted, whole)


def test_the_next_end_counts_only_those_that_sshd_does_not_enforce() -> None:
    assert next_end(DOCUMENT, Ends()) == float("inf")
    assert next_end(DOCUMENT, Ends(EndForm.ABSENT)) == moment(SOON) - EARLY_SECONDS
    assert next_end(DOCUMENT, ABSENT) == moment(LATER) - EARLY_SECONDS
    assert next_end(DOCUMENT, LOCAL) == moment(SOON)
