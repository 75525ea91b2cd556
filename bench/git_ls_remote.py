"""`git ls-remote` through Keyrack with ten keys and with a million, and over plain OpenSSH with a one-line key file.

All three are asked in turn, round after round, on this machine; printed are medians and ratios of medians.
Usage: git_ls_remote.py [ROUNDS] [KEYS]
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from binascii import b2a_base64
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import Connection, insert
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack.app import open_instance
from keyrack.core.git import storage
from keyrack.core.instance import Instance
from keyrack.core.keys import user_keys
from keyrack.core.workspace import first_start
from keyrack.core.workspace.first_start import FirstAdmin
from keyrack.git.host import GitHost
from keyrack.model import Actor
from keyrack.private_sshd import PrivateSshd, find_sshd
from keyrack.settings import Settings
from keyrack.ssh import revoked_keys
from keyrack.store.git import repositories
from keyrack.store.tables import key_owners, users
from keyrack.store.tables import user_keys as user_key_rows
from tests.ports import free_port

FEW = 10
BATCH_SIZE = 20_000
KEYS_A_USER = 100


def fill(instance: Instance, admin: FirstAdmin, count: int) -> None:
    """Put keys of other users into the registry, as rows."""
    now = instance.now()
    for start in range(0, count, BATCH_SIZE):
        numbers = range(start, min(start + BATCH_SIZE, count))

        def command(connection: Connection, numbers: range = numbers) -> None:
            people = sorted({number // KEYS_A_USER for number in numbers if number % KEYS_A_USER == 0})
            if people:
                connection.execute(insert(users), [_user(number, admin, now) for number in people])
            rows = [_key(number, admin, now) for number in numbers]
            connection.execute(insert(user_key_rows), rows)
            connection.execute(
                insert(key_owners),
                [{"fingerprint": row["fingerprint"], "kind": "user", "user_key_id": row["id"]} for row in rows],
            )

        instance.database.write(command)


def _user(number: int, admin: FirstAdmin, now: object) -> dict[str, object]:
    return {
        "id": 1000 + number,
        "uid": f"{number:032x}",
        "workspace_id": admin.workspace.id,
        "name": f"user{number}",
        "role": "member",
        "policies": [],
        "created_at": now,
    }


def _key(number: int, admin: FirstAdmin, now: object) -> dict[str, object]:
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + hashlib.sha256(b"%d" % number).digest()
    digest = b2a_base64(hashlib.sha256(blob).digest(), newline=False).decode().rstrip("=")
    return {
        "id": 1000 + number,
        "workspace_id": admin.workspace.id,
        "user_id": 1000 + number // KEYS_A_USER,
        "title": "laptop",
        "public_key": "ssh-ed25519 " + b2a_base64(blob, newline=False).decode(),
        "comment": "",
        "fingerprint": f"SHA256:{digest}",
        "key_type": "ssh-ed25519",
        "created_at": now,
        "seal": b"\0" * 32,
    }


@contextmanager
def keyrack_with(folder: Path, count: int, public_key: str) -> Iterator[tuple[str, Path, Path]]:
    """A Git host with that many keys besides ours: clone address, known_hosts, the bare repository."""
    instance = open_instance(Settings(data=folder / "data"))
    admin = first_start.ensure_admin(instance)
    actor = Actor(admin.workspace.id, admin.user.id, admin.user.name, admin.user.role)
    path = first_start.ensure_demo_repository(instance, admin)
    fill(instance, admin, count)
    user_keys.add(instance, actor, title="bench", public_key=public_key)
    host = GitHost(instance, port=free_port(), directory=folder / "host")
    host.start()
    try:
        found = instance.database.read(lambda connection: repositories.by_path(connection, path))
        assert found is not None
        bare = storage.ensure(host.repositories, found, shutil.which("git") or "git")
        yield host.url(path), host.known_hosts, bare
    finally:
        host.stop()
        instance.database.close()


@contextmanager
def plain(folder: Path, bare: Path, public_key: str) -> Iterator[tuple[str, Path, Path]]:
    """OpenSSH with a key file of one line, which may run anything."""
    sshd = find_sshd()
    assert sshd is not None, "this benchmark needs sshd"
    server = PrivateSshd(folder, free_port(), sshd)
    server.prepare()
    # No ~/.bashrc, as with Keyrack: it may cost more than all the rest.
    server.drop_in.write_text("SetEnv SHLVL=1\n", "ascii")
    server.keys.mkdir()
    server.revoked_keys.write_bytes(revoked_keys.render(()))
    account = GitAccount.name()
    (server.keys / account).write_text(f"{public_key}\n", "ascii")
    server.start()
    try:
        yield f"ssh://{account}@127.0.0.1:{server.port}{bare}", server.known_hosts, bare
    finally:
        server.stop()


class GitAccount:
    """Who one logs in as."""

    @staticmethod
    def name() -> str:
        """The calling account."""
        return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def ls_remote(url: str, known_hosts: Path, key: Path, more: str = "") -> float:
    """Seconds that one `git ls-remote` takes; more: further options for ssh."""
    ssh = (
        f"ssh -F /dev/null -i {key} -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes "
        f"-o UserKnownHostsFile={known_hosts} -o GlobalKnownHostsFile=none {more}"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_SSH_COMMAND": ssh}
    started = time.perf_counter()
    subprocess.run(["git", "ls-remote", url], env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def main(rounds: int, count: int) -> None:
    """Measure and print."""
    with ExitStack() as stack:
        parent = "/var/lib" if os.geteuid() == 0 else str(Path.home())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent, prefix="keyrack-bench-")))
        folder.chmod(0o755)
        key = folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
        public_key = key.with_suffix(".pub").read_text("ascii").strip()
        few = stack.enter_context(keyrack_with(folder / "few", FEW, public_key))
        print(f"filling the registry with {count:,} keys …", flush=True)
        many = stack.enter_context(keyrack_with(folder / "many", count, public_key))
        places = {
            "plain OpenSSH, one key line": stack.enter_context(plain(folder / "plain", few[2], public_key)),
            f"Keyrack, {FEW} keys": few,
            f"Keyrack, {count:,} keys": many,
        }
        times: dict[str, list[float]] = {name: [] for name in places}
        order = list(places)
        for turn in range(rounds + 3):
            # Another one begins each time, so that none always follows the same neighbour.
            for name in order[turn % 3 :] + order[: turn % 3]:
                took = ls_remote(places[name][0], places[name][1], key)
                if turn >= 3:
                    times[name].append(took)
        medians = {name: statistics.median(values) for name, values in times.items()}
        base, ten, million = medians.values()
        for name, median in medians.items():
            print(f"{name:32} p50 {median * 1000:7.1f} ms   {median / base:.3f} of plain")
        print(f"{count:,} keys against {FEW}: {million / ten:.3f}   ({rounds} rounds, interleaved)")


if __name__ == "__main__":
    help_asked(__doc__)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
