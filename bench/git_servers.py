"""OpenSSH with a forced command beside a server on asyncssh: `git ls-remote`, a clone, memory of idle connections.

Not part of Keyrack's dependencies: install asyncssh elsewhere and name it in PYTHONPATH.
Usage: git_servers.py [ROUNDS] [IDLE CONNECTIONS]
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from git_ls_remote import keyrack_with, ls_remote

from tests.ports import free_port

CLONES = 5
CLONES = 6
# asyncssh has no post-quantum key exchange; this is OpenSSH without its own.
CLASSIC = "OpenSSH, forced command, curve25519 alone"

SERVER = """
import asyncio, subprocess, sys
import asyncssh
bare, key, port, host_key = sys.argv[1:]
class Server(asyncssh.SSHServer):
    def begin_auth(self, username): return True
    def public_key_auth_supported(self): return True
    def validate_public_key(self, username, offered):
        return offered == asyncssh.read_public_key(key + ".pub")
async def serve(process):
    git = subprocess.Popen(
        ["git", "upload-pack", bare], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    await process.redirect(stdin=git.stdin, stdout=git.stdout, stderr=git.stderr)
    await process.stdout.drain()
    process.exit(await asyncio.to_thread(git.wait))
async def main():
    await asyncssh.create_server(Server, "127.0.0.1", int(port), server_host_keys=[host_key], process_factory=serve,
                                 encoding=None)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@contextmanager
def asyncssh_server(folder: Path, bare: Path, key: Path) -> Iterator[tuple[str, Path, int]]:
    """A Git server on asyncssh: clone address, known_hosts, process id."""
    folder.mkdir()
    host_key, port = folder / "host", free_port()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True)
    words = [sys.executable, "-c", SERVER, str(bare), str(key), str(port), str(host_key)]
    process = subprocess.Popen(words)
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {host_key.with_suffix('.pub').read_text('ascii')}", "ascii")
    time.sleep(2)
    try:
        yield f"ssh://git@127.0.0.1:{port}/demo/hello.git", known, process.pid
    finally:
        process.kill()
        process.wait()


def family(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def memory(pid: int) -> int:
    """Kilobytes of a process and all below it, shared pages counted once (PSS)."""
    total = 0
    for each in family(pid):
        try:
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().split("\n"):
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            continue
    return total


async def hold(asyncssh: Any, url: str, key: Path, count: int, pid: int) -> float:
    """Kilobytes that each of so many idle, authenticated connections costs the server."""
    account, _, rest = url.removeprefix("ssh://").partition("@")
    port = int(rest.split(":")[1].split("/")[0])
    before = memory(pid)
    opened = []
    for _ in range(count):
        opened.append(
            await asyncssh.connect("127.0.0.1", port, username=account, client_keys=[str(key)], known_hosts=None)
        )
    after = memory(pid)
    for connection in opened:
        connection.close()
        await connection.wait_closed()
    return (after - before) / count


def clone_seconds(url: str, known_hosts: Path, key: Path, target: Path) -> float | None:
    """Seconds that a clone takes; None when it fails."""
    ssh = f"ssh -F /dev/null -i {key} -o IdentitiesOnly=yes -o IdentityAgent=none -o UserKnownHostsFile={known_hosts}"
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_SSH_COMMAND": ssh}
    started = time.perf_counter()
    words = ["git", "clone", "-q", "--bare", url, str(target)]
    ended = subprocess.run(words, env=environment, check=False, capture_output=True)
    took = time.perf_counter() - started
    shutil.rmtree(target, ignore_errors=True)
    return took if ended.returncode == 0 else None


def fill(bare: Path, size: int) -> None:
    """Put one commit with a file that does not compress into a bare repository."""
    identity = {
        f"GIT_{who}_{what}": "bench@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **identity}

    def git(*words: str, data: bytes = b"") -> str:
        done = subprocess.run(
            ["git", "-C", str(bare), *words], input=data, env=environment, check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    blob = git("hash-object", "-w", "--stdin", data=os.urandom(size))
    tree = git("mktree", data=f"100644 blob {blob}\tlarge\n".encode())
    git("update-ref", "refs/heads/main", git("commit-tree", tree, "-m", "large"))


def main(rounds: int, idle: int) -> None:
    """Measure and print."""
    asyncssh = importlib.import_module("asyncssh")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/lib", prefix="keyrack-bench-")))
        folder.chmod(0o755)
        key = folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
        public_key = key.with_suffix(".pub").read_text("ascii").strip()
        url, known, bare = stack.enter_context(keyrack_with(folder / "keyrack", 10, public_key))
        fill(bare, 50_000_000)
        other = stack.enter_context(asyncssh_server(folder / "asyncssh", bare, key))
        sshd = int((folder / "keyrack" / "host" / "sshd.pid").read_text())
        places = {"OpenSSH, forced command": (url, known, sshd), "asyncssh": other}
        times: dict[str, list[float]] = {name: [] for name in (*places, CLASSIC)}
        for turn in range(rounds + 2):
            for name, (address, hosts, _) in places.items():
                took = ls_remote(address, hosts, key)
                if turn >= 2:
                    times[name].append(took)
            took = ls_remote(url, known, key, "-o KexAlgorithms=curve25519-sha256")
            if turn >= 2:
                times[CLASSIC].append(took)
        base = statistics.median(times["OpenSSH, forced command"])
        classic = statistics.median(times[CLASSIC])
        print(f"{CLASSIC}: ls-remote p50 {classic * 1000:6.1f} ms ({classic / base:.2f})")
        for name, (address, hosts, pid) in places.items():
            median = statistics.median(times[name])
            tried = [clone_seconds(address, hosts, key, folder / "clone") for _ in range(CLONES)]
            whole = [took for took in tried if took is not None]
            clones = f"{statistics.median(whole):.2f} s" if whole else "never"
            with ThreadPoolExecutor(CLONES) as pool:
                started = time.perf_counter()
                folders = [folder / f"clone-{number}" for number in range(CLONES)]
                together = list(pool.map(partial(clone_seconds, address, hosts, key), folders))
                seconds = time.perf_counter() - started
            each = asyncio.run(hold(asyncssh, address, key, idle, pid))
            all_whole = sum(took is not None for took in together)
            print(
                f"{name:24} ls-remote p50 {median * 1000:6.1f} ms ({median / base:.2f}), "
                f"clone of 50 MB {clones} ({len(whole)} of {CLONES} whole), "
                f"{CLONES} at once {seconds:.1f} s ({all_whole} whole), "
                f"idle connection {each:7.0f} kB ({idle} held), {rounds} rounds interleaved",
                flush=True,
            )


if __name__ == "__main__":
    help_asked(__doc__)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30, int(sys.argv[2]) if len(sys.argv) > 2 else 100)
