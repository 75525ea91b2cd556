"""Temporary keys on an sshd that reads no end in UTC: they open, and end with nothing of ours running, in any zone.

sshd is this machine's own under the number of an older one (old_sshd.py), which is what the agent goes by; the real
8.4 of Debian 11 is in test_debian_releases.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keyrack.agent.keys.ends import EARLY_SECONDS, EndForm, Ends, EndWriter
from keyrack.agent.keys.key_files import KeyFiles, render
from keyrack.agent.keys.unmanaged_keys import Scanner
from keyrack.agent.service.enrolment import openssh_version
from keyrack.agent.sshd.settings import Sshd
from keyrack.private_sshd import PrivateSshd
from keyrack.protocol.host_document import AuthorizedKey, HostDocument
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import document
from tests.agent.small_service import small_service
from tests.login.old_sshd import in_zone, stand_in, zone_file
from tests.login.private_sshd import USERNAME, Key, SshClient, private_sshd, strict_folder

LOCAL_END = re.compile(r'expiry-time="([0-9]{14})"')
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


class Host:
    """An sshd of some age in some zone, and what writes the files for it."""

    def __init__(self, server: PrivateSshd, client: SshClient) -> None:
        self.server = server
        self.client = client
        self.writer = EndWriter(Sshd(str(server.config)))

    def put(self, ends: dict[Key, datetime | None]) -> Ends:
        """Make the files, as the agent does."""
        keys = [AuthorizedKey(key.public, end) for key, end in ends.items()]
        document = HostDocument("h_1", 1, datetime.now(UTC), {USERNAME: keys})
        written = self.writer.ends_of(document)
        files = KeyFiles.open(str(self.server.keys), str(self.server.revoked_keys))
        try:
            assert files.put(render(document, written)).problems == ()
        finally:
            files.close()
        return written

    def written(self) -> list[str]:
        """The ends that stand in the file."""
        return LOCAL_END.findall((self.server.keys / USERNAME).read_text("ascii"))


@contextmanager
def host(version: str, tz: str, without: tuple[str, ...] = ()) -> Iterator[Host]:
    with strict_folder() as folder:
        program = in_zone(folder / "start", stand_in(folder / "sshd-of-then", version, without), tz)
        with private_sshd(folder, program) as (server, client):
            yield Host(server, client)


def soon(seconds: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)


def ends_at_its_second(host: Host, key: Key, end: datetime, early: int = 0) -> None:
    """Let in until so many seconds before its end, and never by a login that began at the end or later."""
    last_in = None
    while True:
        asked = datetime.now(UTC)
        if not host.client.lets_in(key):
            break
        last_in = asked
        time.sleep(0.1)
    assert last_in is not None
    assert last_in < end <= datetime.now(UTC) + timedelta(seconds=early)


def own_zone(folder: Path, text: str) -> str:
    """A TZ for rules of one's own; {before} and {after}: twenty minutes ago and from now, as zic has them."""
    now = datetime.now(UTC)
    moments = {name: now + timedelta(minutes=minutes) for name, minutes in (("before", -20), ("after", 20))}
    said = {name: f"{moment:%Y %b} {moment.day} {moment:%H:%M:%S}u" for name, moment in moments.items()}
    return f":{zone_file(folder, text.format(**said))}"


# A summer's hour that comes twice: the clock goes back from UTC+2 to UTC+1, and back is winter time again.
SUMMER_ENDS = """\
Rule T {year} only - Jan 1 0:00u 1:00 S
Rule T {year} only - {month} {day} {clock}u 0 -
Zone Own 1:00 T A%s
"""


# A summer's beginning, which skips an hour: winter time would stand in it now.
SUMMER_BEGINS = """\
Rule T {year} only - Jan 1 0:00u 0 -
Rule T {year} only - {month} {day} {clock}u 1:00 S
Zone Own 1:00 T A%s
"""
OWN = {"twice": (SUMMER_ENDS, 20), "again": (SUMMER_ENDS, -20), "skipped": (SUMMER_BEGINS, -20)}


def summer(folder: Path, rules: str, minutes: int) -> str:
    """A TZ of these rules, in which the clock changes so many minutes from now."""
    when = datetime.now(UTC) + timedelta(minutes=minutes)
    text = rules.format(year=when.year, month=f"{when:%b}", day=when.day, clock=f"{when:%H:%M}")
    return f":{zone_file(folder, text)}"


MORE = ["UTC0", "Pacific/Niue", "Asia/Kathmandu", "Europe/Dublin"] if os.environ.get("KEYRACK_LONG") else []


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Australia/Lord_Howe", *OWN, *MORE])
def test_a_key_ends_at_its_second_in_the_zone_of_the_running_sshd(zone: str, tmp_path: Path) -> None:
    """Ahead, behind, in summer time, now within the first and the second of two equal hours, and in a skipped one."""
    if zone in OWN:
        zone = summer(tmp_path, *OWN[zone])
        tmp_path.chmod(0o755)
    key, lasting = Key.make(tmp_path / "key"), Key.make(tmp_path / "lasting")
    with host("8.9", zone) as old:
        end = soon(6)
        assert old.put({key: end, lasting: end + HOUR}).form is EndForm.LOCAL
        assert len(old.written()) == 2
        ends_at_its_second(old, key, end)
        assert old.client.lets_in(lasting)


@pytest.mark.parametrize("when", ["after", "before"])
def test_an_end_in_a_repeated_hour_of_the_clock_is_never_later(tmp_path: Path, when: str) -> None:
    """A country that changed its zone for good: no word of summer tells the two hours apart, so the earlier counts."""
    zone = own_zone(tmp_path, f"Zone Own 2:00 - A {{{when}}}\n 1:00 - B\n")
    tmp_path.chmod(0o755)
    short, later = Key.make(tmp_path / "short"), Key.make(tmp_path / "later")
    with host("8.9", zone) as old:
        end = soon(3)
        old.put({short: end, later: end + 3 * HOUR})
        time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds() + 0.1))
        assert not old.client.lets_in(short)
        assert old.client.lets_in(later)


def test_another_zone_has_the_lines_written_again(tmp_path: Path) -> None:
    zone = zone_file(tmp_path, "Zone Own 5:00 - A\n")
    tmp_path.chmod(0o755)
    key = Key.make(tmp_path / "key")
    with host("8.9", f":{zone}") as old:
        end = soon(1800)
        old.put({key: end})
        assert old.written() == [f"{end + 5 * HOUR - SECOND:%Y%m%d%H%M%S}"]
        assert old.client.lets_in(key)
        zone.unlink()
        zone_file(tmp_path, "Zone Own 7:00 - A\n")
        assert not old.client.lets_in(key)
        old.put({key: end})
        assert old.written() == [f"{end + 7 * HOUR - SECOND:%Y%m%d%H%M%S}"]
        assert old.client.lets_in(key)


def test_the_form_of_an_end_follows_the_running_sshd(tmp_path: Path) -> None:
    """Not the client's version, nor that of a program that lies beside it."""
    key = Key.make(tmp_path / "key")
    with host("9.1", "UTC0") as newer:
        assert newer.put({key: soon(60)}).form is EndForm.UTC
    with host("7.7", "UTC0") as old:
        assert old.put({key: soon(60)}).form is EndForm.LOCAL
        assert openssh_version(str(old.server.config)) == "OpenSSH_7.7"  # what the agent reports
    with host("7.6", "UTC0", ("expiry-time",)) as older:
        assert older.put({key: soon(60)}).form is EndForm.ABSENT
        assert older.client.lets_in(key)


def test_a_line_that_the_agent_removes_is_gone_before_its_end(tmp_path: Path) -> None:
    """A second before, as it wakes and writes a moment late on a busy host."""
    key, lasting = Key.make(tmp_path / "key"), Key.make(tmp_path / "lasting")
    with host("7.6", "UTC0", ("expiry-time",)) as old:
        old.put({key: datetime.fromtimestamp(int(time.time()) + 1, UTC), lasting: None})
        assert not old.client.lets_in(key)
        assert old.client.lets_in(lasting)


def test_the_end_of_a_found_key_is_judged_as_the_running_sshd_does(tmp_path: Path) -> None:
    key = Key.make(tmp_path / "key")
    end = soon(1800)
    lines = (f'expiry-time="{end:%Y%m%d%H%M%S}Z" ', f'expiry-time="{end:%Y%m%d%H%M%S}" ', "")
    seen = {}
    for version, without in (("9.1", ()), ("8.9", ()), ("7.6", ("expiry-time",))):
        with host(version, "Asia/Tokyo", without) as old:
            (old.server.keys / USERNAME).write_text("".join(f"{line}{key.public}\n" for line in lines), "ascii")
            found = Scanner(Sshd(str(old.server.config)), "/nowhere").scan()
            mine = {one.line: one for one in found if one.path == str(old.server.keys / USERNAME)}
            seen[version] = [mine[number].in_force for number in (1, 2, 3)]
    # In Tokyo the second has passed long ago.
    assert seen == {"9.1": [True, False, True], "8.9": [False, False, True], "7.6": [False, False, True]}


def test_the_agent_ends_keys_itself_where_sshd_knows_no_ends(tmp_path: Path) -> None:
    """And says what it means while it does not run."""
    short, later, lasting = (Key.make(tmp_path / name) for name in ("short", "later", "lasting"))
    with host("7.6", "UTC0", ("expiry-time",)) as old, small_service() as service:
        agent = EnrolledHost(old.server.directory)
        agent.keys, agent.revoked_keys = old.server.keys, old.server.revoked_keys
        enrolment = {
            "KEYRACK_AGENT_URL": service.url,
            "KEYRACK_AGENT_TOKEN": "t0ken",
            "KEYRACK_AGENT_SSHD_CONFIG": str(old.server.config),
        }
        assert agent.agent("enroll", environment=enrolment).returncode == 0
        end = soon(8)
        ends = {short: end, later: end + timedelta(seconds=5), lasting: None}
        keys = [AuthorizedKey(key.public, at) for key, at in ends.items()]
        service.publish(1, service.signer.signed(document(1, {USERNAME: keys})))
        with running(agent):
            service.wait_for_report("applied", 1)
            ends_at_its_second(old, short, end, EARLY_SECONDS)
            assert "the agent takes each key away at its end" in agent.agent("doctor").stdout
        said = agent.agent("doctor").stdout
        assert "BAD  OpenSSH 7.6 cannot read ends of keys" in said
        assert "keys whose end comes go on opening" in said
        time.sleep(max(0.0, (end + timedelta(seconds=5) - datetime.now(UTC)).total_seconds() + 1.1))
        assert old.client.lets_in(later)  # what doctor said
        assert agent.agent("run", "--once").returncode == 0
        assert not old.client.lets_in(later)
        assert old.client.lets_in(lasting)
        assert not any(
            "was changed on this host" in words for report in service.reports for words in report.get("problems", ())
        )


@contextmanager
def running(agent: EnrolledHost) -> Iterator[None]:
    """The agent, following."""
    process = subprocess.Popen(agent.command("run"), stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)
