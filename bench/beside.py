"""Keyrack beside what people do without it: a line appended to each host's authorized_keys over ssh.

    .venv/bin/python bench/beside.py [HOSTS]

HOSTS (3 unless said) real sshds on loopback for each of the two. A key is granted on all and used, and revoked on all
while the last one is off, which comes back then; a session of that key is open meanwhile. Prints a table as
docs/figures.md has it; a revoked key that Keyrack lets in ends this with an error. SSSD with LDAP and gitolite are in
side_by_side.py. Needs sshd.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import structlog
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack.core.keys import revocation
from keyrack.private_sshd import PrivateSshd
from keyrack.ssh.public_key import fingerprint_of
from tests.login.fleet import Fleet, fleet
from tests.login.private_sshd import USERNAME, Key, SshClient, private_sshd, strict_folder
from tests.services import TEAM, running, settings_for
from tests.waiting import wait_until

SESSION_SECONDS = 5.0


@contextmanager
def session(client: SshClient, key: Key, user: str = USERNAME) -> Iterator[subprocess.Popen[bytes]]:
    """An open login of a key."""
    with subprocess.Popen(client.command(key, user, "echo in; sleep 60"), stdout=subprocess.PIPE) as opened:
        try:
            assert opened.stdout is not None
            assert opened.stdout.readline() == b"in\n"
            yield opened
        finally:
            opened.kill()


def ends(opened: subprocess.Popen[bytes]) -> str:
    """What becomes of an open login, in words."""
    try:
        opened.wait(SESSION_SECONDS)
    except subprocess.TimeoutExpired:
        return "goes on"
    return "ended"


def by_hand(folder: Path, count: int, scratch: Path) -> list[str]:
    """A row of the table: a file on each host, written by whoever has a key there."""
    admin, key = Key.make(scratch / "admin"), Key.make(scratch / "hand")
    with ExitStack() as stack:
        hosts: list[tuple[PrivateSshd, SshClient]] = []
        for number in range(count):
            host = stack.enter_context(private_sshd(folder / f"hand-{number}"))
            (host[0].keys / USERNAME).write_text(f"{admin.public}\n", "ascii")
            hosts.append(host)
        began = time.monotonic()
        for sshd, client in hosts:
            client.login(admin, command=f"echo '{key.public}' >> {sshd.keys / USERNAME}")
        for _, client in hosts:
            client.wait_until_open(key)
        granted = time.monotonic() - began
        last, last_client = hosts[-1]
        last.stop()
        with session(hosts[0][1], key) as opened:
            began = time.monotonic()
            for sshd, client in hosts[:-1]:
                file = sshd.keys / USERNAME
                client.login(
                    admin, command=f"grep -vF '{key.public.split()[1]}' {file} > {file}.new; mv {file}.new {file}"
                )
            for _, client in hosts[:-1]:
                client.wait_until_closed(key)
            revoked = time.monotonic() - began
            after = ends(opened)
        last.start()
        back = "**opens**, until somebody goes there" if last_client.lets_in(key) else "refused"
    return ["authorized_keys by ssh", f"{granted:.1f} s", f"{revoked:.1f} s", back, after]


def by_keyrack(hosts: Fleet, scratch: Path) -> list[str]:
    """A row of the table."""
    key = Key.make(scratch / "keyrack")
    began = time.monotonic()
    hosts.add(key, "laptop")
    for host in hosts.hosts:
        host.client.wait_until_open(key)
    granted = time.monotonic() - began
    last = hosts.hosts[-1]
    last.stop()
    with session(hosts.hosts[0].client, key) as opened:
        began = time.monotonic()
        revocation.revoke_everywhere(hosts.instance, hosts.actor, fingerprint_of(key.public))
        for host in hosts.hosts[:-1]:
            host.client.wait_until_closed(key)
        revoked = time.monotonic() - began
        after = ends(opened)
    last.start()
    began = time.monotonic()
    wait_until(lambda: not last.client.lets_in(key), "the host that was off to refuse the key")
    back = f"refused {time.monotonic() - began:.1f} s after its start"
    return ["Keyrack", f"{granted:.1f} s", f"{revoked:.1f} s", back, after]


def main() -> int:
    """Both."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(f"| on {count} hosts | granted, opens | revoked, refused | a host that was off | a session of it |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, strict_folder() as strict:
        print("|", " | ".join(by_hand(strict, count, Path(folder))), "|", flush=True)
        with running(settings_for(Path(folder) / "data", f"sqlite:///{folder}/keyrack.db")) as service:
            service.apply(TEAM)
            with fleet(service, strict, count) as hosts:
                print("|", " | ".join(by_keyrack(hosts, Path(folder))), "|", flush=True)
    return 0


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
