"""The end of a key bites by itself: nothing of Keyrack runs here, only sshd with a file that the agent would write."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keyrack.private_sshd import PrivateSshd
from keyrack.ssh import authorized_keys
from tests.login.private_sshd import USERNAME, Key, SshClient, private_sshd, strict_folder
from tests.waiting import wait_until

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
HOUR = timedelta(hours=1)


def write(server: PrivateSshd, ends: dict[Key, datetime | None]) -> None:
    """Put lines for these keys where sshd reads them."""
    lines = [authorized_keys.key_line(key.public, (), end) for key, end in ends.items()]
    server.keys.chmod(0o755)
    file = server.keys / USERNAME
    file.write_bytes(authorized_keys.render(lines))
    file.chmod(0o644)


# Ahead of UTC and behind it by more than half a day, and not by whole hours.
@pytest.mark.parametrize("zone", ["Etc/GMT+12", "Asia/Kathmandu", "Pacific/Kiritimati"])
def test_a_key_ends_within_its_second_in_every_time_zone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, zone: str
) -> None:
    short, lasting = Key.make(tmp_path / "short"), Key.make(tmp_path / "lasting")
    monkeypatch.setenv("TZ", zone)
    with strict_folder() as folder, private_sshd(folder) as (server, client):
        end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=8)
        write(server, {short: end, lasting: end + HOUR})
        let_in = 0
        while True:
            began = datetime.now(UTC)
            opened = client.lets_in(short)
            ended = datetime.now(UTC)
            if ended < end:
                assert opened, f"refused before its end: {began} to {ended}, end {end}"
                let_in += 1
            if began >= end:
                assert not opened, f"let in after its end: {began} to {ended}, end {end}"
                break
            time.sleep(0.05)
        assert let_in
        assert client.lets_in(lasting)


def log_in(client: SshClient, key: Key, wanted: bool) -> None:
    """Assert that a key opens the account, or that it does not."""
    assert client.lets_in(key) is wanted


@pytest.mark.skipif(not FAKETIME.exists(), reason="changing sshd's clock takes libfaketime (Debian: faketime)")
def test_a_changed_clock_moves_the_end_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    soon, later = Key.make(tmp_path / "soon"), Key.make(tmp_path / "later")
    offset = tmp_path / "offset"
    offset.write_text("+0")
    tmp_path.chmod(0o755)
    monkeypatch.setenv("LD_PRELOAD", str(FAKETIME))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(offset))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DISABLE_SHM", "1")
    with strict_folder() as folder, private_sshd(folder) as (server, client):
        for name in ("LD_PRELOAD", "FAKETIME_TIMESTAMP_FILE", "FAKETIME_NO_CACHE", "FAKETIME_DISABLE_SHM"):
            monkeypatch.delenv(name)  # for sshd alone
        now = datetime.now(UTC)
        write(server, {soon: now + HOUR, later: now + 3 * HOUR})
        wait_until(lambda: client.lets_in(soon), "a login")
        for moved, opens in (("+2h", (False, True)), ("+4h", (False, False)), ("-1h", (True, True))):
            offset.write_text(moved)
            log_in(client, soon, opens[0])
            log_in(client, later, opens[1])
