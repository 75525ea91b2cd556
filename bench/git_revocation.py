"""Times from an acknowledged delete of a key to the end of a transfer under way, and to a refused connection.

Run: python bench/git_revocation.py [ROUNDS]; needs sshd and git.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.git.people import Person, Site, start_host
from tests.login.private_sshd import strict_folder
from tests.services import TEAM, running, settings_for

TOKEN = "token-of-alice"


def one_round(site: Site, alice: Person) -> tuple[float, float]:
    """Seconds until an open upload-pack ends, and until a new connection has been refused."""
    key_id = site.register(TOKEN, alice.public)
    words = [*alice.ssh_words(), f"{site.host.username}@127.0.0.1", "git-upload-pack 'acme/site.git'"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(4)
    site.unregister(TOKEN, key_id)
    deleted = time.perf_counter()
    process.wait(60)
    cut = time.perf_counter() - deleted
    process.communicate()
    started = time.perf_counter()
    assert alice.ssh().code == 255
    return cut, time.perf_counter() - started


def main(rounds: int) -> None:
    """Measure and print."""
    data = Path(tempfile.mkdtemp())
    try:
        with running(settings_for(data / "data", "")) as service, strict_folder() as folder:
            service.apply(TEAM)
            (data / "people").mkdir()
            host = start_host(service, folder)
            try:
                site = Site(service, host, data / "people")
                site.repository("acme/site", alice="developer")
                alice = site.person("alice")
                times = [one_round(site, alice) for _ in range(rounds)]
            finally:
                host.stop()
    finally:
        shutil.rmtree(data, ignore_errors=True)
    for name, column in (("transfer cut after", 0), ("new connection refused within", 1)):
        values = sorted(pair[column] for pair in times)
        print(f"{name:32} p50 {statistics.median(values):.3f} s   most {values[-1]:.3f} s   ({rounds} rounds)")


if __name__ == "__main__":
    help_asked(__doc__)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
