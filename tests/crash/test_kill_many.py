"""kill -9 of the service while one call puts a key on many servers: it is on all of them, or on none."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import httpx2

from keyrack import app
from keyrack.core.people import users
from keyrack.ssh.public_key import fingerprint_of
from keyrack.store.keys import revocations
from tests.crash.test_kill import OLGA, Killed, killed, public_line
from tests.services import TEAM, settings_for

__all__ = ["killed"]
SERVERS = 300
ROUNDS = 4


def test_a_key_is_on_all_servers_or_on_none(killed: Killed, tmp_path: Path) -> None:
    more = "".join(
        f'[[servers]]\nname = "many-{n}"\naddress = "m-{n}"\nsystem_users = ["deploy"]\ntags = ["many"]\n'
        for n in range(SERVERS)
    )
    (tmp_path / "team.toml").write_text(TEAM + more, "utf-8")
    apply = killed.run("apply", str(tmp_path / "team.toml"))
    subprocess.run(apply, check=True, timeout=120, stdout=subprocess.DEVNULL)
    acknowledged: set[str] = set()
    sent: list[str] = []

    def send(number: int) -> None:
        line = public_line()
        sent.append(fingerprint_of(line))
        body = {"label": f"k{number}", "username": "deploy", "publicKey": line, "servers": {"tag": "many"}}
        try:
            answer = httpx2.post(f"{killed.url}/api/keyrack/v1/credentials", json=body, headers=OLGA, timeout=60)
        except httpx2.TransportError:
            return
        assert answer.status_code == 200, answer.text
        acknowledged.add(sent[-1])

    for number in range(ROUNDS):
        killed.start()
        thread = threading.Thread(target=send, args=(number,))
        thread.start()
        time.sleep(0.03 * 2**number)  # at another moment of the call each time
        killed.kill()
        thread.join(60)
    instance = app.open_instance(settings_for(killed.data, killed.database))
    try:
        workspace = users.system_actor(1).workspace_id
        for fingerprint in sent:
            places = instance.database.read(
                lambda connection, key=fingerprint: revocations.credentials_of_key(connection, workspace, key)  # type: ignore[misc]
            )
            assert len(places) in ((SERVERS,) if fingerprint in acknowledged else (0, SERVERS))
    finally:
        instance.database.close()
