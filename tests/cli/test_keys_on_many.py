"""`keyrack keys add`, `replace`, `revoke`: one key on many servers, as an operator types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from keyrack.ssh.public_key import fingerprint_of
from tests.cli.test_operator import run
from tests.core.keys_for_tests import fresh_line


def test_a_key_comes_is_replaced_and_goes(data: Path, tmp_path: Path) -> None:
    old, new = fresh_line(), fresh_line()
    (tmp_path / "old.pub").write_text(old + "\n", "ascii")
    (tmp_path / "new.pub").write_text(new + "\n", "ascii")
    words = ("keys", "add", str(tmp_path / "old.pub"), "--label", "bot", "--as", "deploy")
    assert "Say which servers" in run(data, *words, status=2)
    (added,) = json.loads(run(data, *words, "--tag", "web", "--json"))
    assert (added["server"], added["state"]) == ("web-1", "added")
    assert "present" in run(data, *words, "--server", "web-1")
    assert "no-such" in run(data, *words, "--server", "no-such", status=1)
    done = run(data, "keys", "replace", fingerprint_of(old), str(tmp_path / "new.pub"), "--all")
    assert "replaced" in done
    assert fingerprint_of(new) in run(data, "hosts", "keys", "web-1")
    assert "revoked" in run(data, "keys", "revoke", "--label", "bot", "--all")


def test_a_key_is_read_from_standard_input_too(data: Path) -> None:
    line = fresh_line()

    def piped(text: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "keyrack.cli.main", *words, "--data", str(data), "--workspace", "acme"]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

    assert fingerprint_of(line) in piped(line + "\n", "people", "add-key", "alice", "-").stdout
    on_server = ("servers", "add-key", "web-1", "-", "--label", "x", "--as", "deploy")
    windows = "\ufeff" + line + "\r\n"
    assert fingerprint_of(line) in piped(windows, *on_server).stdout, "as editors and shells of Windows write a file"
    private = piped("-----BEGIN OPENSSH PRIVATE KEY-----\n", "people", "add-key", "alice", "-")
    assert (private.returncode, private.stderr) == (
        1,
        "Error: That is a private key, and was not sent; ssh-keygen -y -f prints its public half.\n",
    )
    closed = [
        "sh",
        "-c",
        f'exec {sys.executable} -m keyrack.cli.main people add-key alice - --workspace acme --data "$0" <&-',
    ]
    without = subprocess.run([*closed, str(data)], capture_output=True, text=True, check=False)
    assert (without.returncode, without.stderr) == (1, "Error: Standard input is closed; name a file.\n")


def test_a_key_is_found_wherever_it_stands(data: Path, tmp_path: Path) -> None:
    line = fresh_line()
    file = tmp_path / "robot.pub"
    file.write_text(line + "\n", "ascii")
    missing = run(data, "keys", "where", str(file), status=1)
    assert "`keyrack keys list` shows the keys of users" in missing
    run(data, "keys", "add", str(file), "--label", "bot", "--as", "deploy", "--for", "1h", "--tag", "web")
    for named in (fingerprint_of(line), str(file), line):
        shown = run(data, "keys", "where", named)
        assert "credential" in shown
        assert "not delivered yet" in shown
    places = json.loads(run(data, "keys", "where", line, "--json"))
    assert places.keys() == {"fingerprint", "revoked_at", "ended_at", "items"}
    (place,) = places["items"]
    assert (place["server"], place["system_user"], place["name"], place["delivered"]) == (
        "web-1",
        "deploy",
        "bot",
        False,
    )
    run(data, "hosts", "revoke", fingerprint_of(line))
    assert "revoked everywhere" in run(data, "keys", "where", line)
    for wrong in ("no-such-file", "SHA256:short", "ssh-rsa not-a-key", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blb\n"):
        run(data, "keys", "where", wrong, status=2 if wrong[0] in "n-" else 1)
