"""Keys end at their second wherever the host believes to be, with nothing of ours running: real sshd in three zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keyrack.agent.keys.key_files import KeyFiles, render
from keyrack.protocol.host_document import AuthorizedKey, HostDocument
from tests.login.private_sshd import USERNAME, Key, private_sshd, strict_folder


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Niue"])
def test_a_key_ends_at_its_second(zone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Fourteen hours ahead and eleven behind: an end in local time would be off by as much.
    monkeypatch.setenv("TZ", zone)
    key, lasting = Key.make(tmp_path / "key"), Key.make(tmp_path / "lasting")
    with strict_folder() as folder, private_sshd(folder) as (server, client):
        end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=6)
        document = HostDocument(
            "h_1", 1, datetime.now(UTC), {USERNAME: [AuthorizedKey(key.public, end), AuthorizedKey(lasting.public)]}
        )
        files = KeyFiles.open(str(server.keys), str(server.revoked_keys))
        try:
            assert files.put(render(document)).problems == ()
        finally:
            files.close()
        last_in = None
        while True:
            asked = datetime.now(UTC)
            if not client.lets_in(key):
                break
            last_in = asked
        # Let in until the end, and by no login that began later.
        assert last_in is not None
        assert last_in < end <= datetime.now(UTC)
        assert client.lets_in(lasting)
