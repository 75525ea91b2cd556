"""A pasted private key is refused with its own words and is found nowhere afterwards: database, log, event, answer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests import plain_http
from tests.ports import free_port
from tests.services import TEAM
from tests.waiting import wait_until

FORMS = {
    "openssh": ["-t", "ed25519"],
    "openssh-encrypted": ["-t", "ed25519", "-N", "a passphrase"],
    "openssh-rsa": ["-t", "rsa", "-b", "2048"],
    "pem": ["-t", "rsa", "-b", "2048", "-m", "PEM"],
    "pem-encrypted": ["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "a passphrase"],
    "pkcs8": ["-t", "ecdsa", "-m", "PKCS8"],
    "pkcs8-encrypted": ["-t", "ecdsa", "-m", "PKCS8", "-N", "a passphrase"],
}
PUTTY = """PuTTY-User-Key-File-3: ssh-ed25519
Encryption: none
Comment: laptop
Public-Lines: 2
AAAAC3NzaC1lZDI1NTE5AAAAIHIRbfEUwbS5A/6b6HLVEWWJmeUNEZ2mRfWWONae
c+Id
Private-Lines: 1
AAAAIAbRWFyyBY2jo5rWLRsMVvrBCQPzjqbPAOFXbRWFyyBYQ
Private-MAC: 0c21d0bbb3b2c5a1a9ed1a8fc0a7d9b3b1bdf34ce50f0d3d9bd4fd1af1f1ac55
"""


def private_keys(folder: Path) -> dict[str, str]:
    """A private key in each form, made by ssh-keygen."""
    texts = {"putty": PUTTY}
    for name, options in FORMS.items():
        path = folder / name
        given = ["ssh-keygen", "-q", *options, "-f", str(path)]
        if "-N" not in options:
            given += ["-N", ""]
        subprocess.run(given, check=True, timeout=60)
        texts[name] = path.read_text("ascii")
    return texts


def pieces(text: str) -> list[str]:
    """What must be found nowhere: each long run of base64, which for PuTTY is its private part."""
    secret = text.split("Private-Lines", 1)[-1]
    return [run[:24] for run in re.findall(r"[A-Za-z0-9+/=]{24,}", secret)]


@pytest.mark.parametrize("escaped", [False, True], ids=["as it is", "with \\n spelled out"])
def test_private_keys_are_refused_and_found_nowhere(tmp_path: Path, escaped: bool) -> None:
    data = tmp_path / "data"
    (tmp_path / "team.toml").write_text(TEAM, "utf-8")
    keyrack = [sys.executable, "-m", "keyrack.cli.main"]
    apply = [*keyrack, "apply", str(tmp_path / "team.toml"), "--data", str(data)]
    subprocess.run(apply, check=True, timeout=120, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{free_port()}"
    texts = private_keys(tmp_path)
    answers: list[httpx2.Response] = []
    with (tmp_path / "service.log").open("wb") as log:
        serve = [*keyrack, "serve", "--data", str(data), "--listen", url.removeprefix("http://")]
        service = subprocess.Popen(serve, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        try:
            wait_until(lambda: _alive(url), "the service")
            for text in texts.values():
                pasted = text.replace("\n", "\\n") if escaped else text
                answers += _post_everywhere(url, pasted)
        finally:
            service.terminate()
            service.wait(30)
    stored = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
    seen = stored + (tmp_path / "service.log").read_bytes() + b"".join(answer.content for answer in answers)
    for answer in answers:
        assert answer.status_code in (400, 422)
        assert "private key" in answer.text
    for name, text in texts.items():
        for piece in pieces(text):
            assert piece.encode() not in seen, f"a piece of the {name} key was kept or echoed"
    # The attempts themselves are on record.
    assert stored.count(b"private-key") >= 1


def _post_everywhere(url: str, text: str) -> list[httpx2.Response]:
    runcloud: Any = {"label": "oops", "username": "deploy", "publicKey": text}
    bearer = {"Authorization": "Bearer token-of-olga"}
    return [
        plain_http.post(f"{url}/api/v3/servers/1/ssh/credentials", json=runcloud, headers=bearer),
        plain_http.post(f"{url}/api/v3/servers/1/ssh/credentials", data=runcloud, headers=bearer),
        plain_http.post(
            f"{url}/v4/user/keys",
            content=json.dumps({"title": "oops", "key": text}),
            headers={"X-Auth-Token": "token-of-alice", "Content-Type": "application/json"},
        ),
    ]


def _alive(url: str) -> bool:
    try:
        return plain_http.get(f"{url}/readyz").status_code == 200
    except httpx2.TransportError:
        time.sleep(0.05)
        return False
