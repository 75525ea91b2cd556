"""What a member, an enrolled host and strangers can do to everybody else when they do their worst, side by side.

Run: python bench/worst_neighbours.py [SECONDS]. An owner adds, lists and deletes keys the whole time, alone at first
and then beside them. Prints the owner's p50 and p99 of both, their ratio, of each kind of call too, how much the data
folder grew, and what the others were answered and how often. Where py-spy is found (on the PATH, or PY_SPY names it),
also where the service's time went meanwhile. The others run at the lowest priority, so that they take the service's
time and not the machine's.
"""

from __future__ import annotations

import base64
import collections
import http.client
import json
import multiprocessing
import os
import random
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack import app
from keyrack.core.hosts import servers
from keyrack.core.people import actors
from keyrack.settings import Settings
from tests.ports import free_port

PAUSE = 0.02  # the owner is a person's program, not a load test
OWNER = "kr_owner_0123456789abcdefghij"
MEMBER = "kr_member_0123456789abcdefghi"

TEAM = f"""
[workspace]
name = "acme"
[[users]]
name = "olga"
role = "owner"
password = "a long password of olga's"
tokens = [{{ name = "root", token = "{OWNER}", scopes = ["*"] }}]
[[users]]
name = "mallory"
role = "member"
password = "a long password of mallory's"
policies = ["codeartsrepo::*"]
tokens = [{{ name = "laptop", token = "{MEMBER}", scopes = ["*"] }}]
[[servers]]
name = "web-1"
address = "192.0.2.10"
system_users = ["deploy"]
[[servers]]
name = "web-2"
address = "192.0.2.11"
system_users = ["deploy"]
"""


class Caller:
    """One connection that is made anew whenever it breaks; counts answers by status."""

    def __init__(self, port: int, address: str) -> None:
        self._port = port
        self._address = address
        self._connection: http.client.HTTPConnection | None = None
        self.answers: collections.Counter[str] = collections.Counter()

    def call(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> tuple[int, bytes]:
        """The status and the body of the answer; status 0: none came."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=30, source_address=(self._address, 0)
            )
        try:
            content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            self._connection.request(method, path, content, {"Content-Type": "application/json", **headers})
            answer = self._connection.getresponse()
            text = answer.read()
            self.answers[str(answer.status)] += 1
            return answer.status, text
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = None
            self.answers["none"] += 1
            return 0, b""


def key_line() -> str:
    """A well-formed public key that nobody holds: an Ed25519 point of a random pair."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def owner(port: int, seconds: float) -> dict[str, list[float]]:
    """How long each of the owner's calls took, in milliseconds, by method."""
    caller = Caller(port, "127.0.0.1")
    headers = {"Authorization": f"Bearer {OWNER}"}
    path = "/api/v3/servers/1/ssh/credentials"
    took: dict[str, list[float]] = {"POST": [], "GET": [], "DELETE": []}

    def timed(method: str, where: str, body: Any = None) -> bytes:
        begun = time.perf_counter()
        status, text = caller.call(method, where, headers, body)
        took[method].append((time.perf_counter() - begun) * 1000)
        if status != 200:
            raise SystemExit(f"the owner was answered {status} to {method} {where}: {text[:200]!r}")
        time.sleep(PAUSE)
        return text

    ends = time.monotonic() + seconds
    number = 0
    while time.monotonic() < ends:
        number += 1
        body = {"label": f"key-{secrets.token_hex(6)}", "username": "deploy", "publicKey": key_line()}
        made = json.loads(timed("POST", path, body))
        timed("GET", path)
        timed("DELETE", f"{path}/{made['id']}")
    return took


Call = tuple[str, str, dict[str, str], Any]


def member() -> Iterator[Call]:
    """A member's calls, in turn: patterns, rows, sizes, refusals."""
    token = {"X-Auth-Token": MEMBER}
    bearer = {"Authorization": f"Bearer {MEMBER}"}
    temporary = "/v3.0/OS-CREDENTIAL/securitytokens"
    stars = ["*" * 40 + "Z", "a*" * 100 + "b", "*a" * 4000]
    while True:
        for actions in (stars, [f"{number}:" + "x" * 9000 for number in range(99)], ["*"] * 5000):
            policy = {"Version": "1.1", "Statement": [{"Effect": "Allow", "Action": actions}]}
            identity = {"methods": ["token"], "token": {"duration_seconds": 900}, "policy": policy}
            yield "POST", temporary, token, {"auth": {"identity": identity}}
        yield "POST", "/v4/user/keys", token, {"title": "t" * 250, "key": key_line()}
        yield "POST", "/v4/user/keys", token, {"title": "t", "key": "A" * 900_000}
        yield "GET", "/v4/user/keys?limit=100&query=" + "%25_" * 500, token, None
        yield "POST", "/api/v3/servers", bearer, {"name": "mine", "ipAddress": "192.0.2.1"}
        yield "POST", "/api/keyrack/v1/keys/revoke", bearer, {"publicKey": key_line()}
        yield "GET", "/api/keyrack/v1/events?limit=100000", bearer, None
        yield "POST", "/v4/user/keys", token, b'{"title":' + b"[" * 100_000


def host(secret: str) -> Iterator[Call]:
    """An enrolled host's reports: thousands of keys, sessions, long words, each time others."""
    headers = {"Authorization": f"Bearer {secret}"}
    report = "/agent/v1/report"
    while True:
        found = [_found(number) for number in range(2000)]
        sessions = [_session(str(number)) for number in range(5000)]
        others = [_session(secrets.token_hex(8)) for _ in range(5000)]
        yield "POST", report, headers, {"revision": 1, "state": "applied", "keys_found": found}
        yield "POST", report, headers, {"revision": 1, "state": "refused", "problems": [secrets.token_hex(240)] * 20}
        yield "POST", report, headers, {"revision": 1, "state": "applied", "facts": {"scan": secrets.token_hex(140)}}
        yield "POST", report, headers, {"sessions": sessions}
        yield "POST", report, headers, {"sessions": others}
        yield "POST", report, headers, {"keys_found": found[:150]}
        yield "POST", report, headers, {"keys_found": [{**key, "comment": secrets.token_hex(8)} for key in found[:150]]}
        yield "POST", report, headers, {"last_used": [_use(secrets.token_hex(40)[:43]) for _ in range(5000)]}
        yield "GET", f"/agent/v1/document?revision={random.randrange(9)}&wait=0", headers, None
        yield "POST", report, headers, b"x" * 5_000_000


def _found(number: int) -> dict[str, Any]:
    """A key that looks like one, and another each time."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + secrets.token_bytes(32)
    return {
        "username": f"user{secrets.token_hex(4)}",
        "path": f"/home/{secrets.token_hex(8)}/.ssh/authorized_keys",
        "kind": "key",
        "line": number,
        "fingerprint": "SHA256:" + secrets.token_hex(40)[:43],
        "type": "ssh-ed25519",
        "key": "ssh-ed25519 " + base64.b64encode(blob).decode(),
        "options": "",
        "comment": "c" * 100,
        "problem": "",
        "in_force": True,
    }


def _use(fingerprint: str) -> dict[str, Any]:
    return {"fingerprint": f"SHA256:{fingerprint}", "at": "2026-01-01T00:00:00Z", "address": "192.0.2.1"}


def _session(name: str) -> dict[str, Any]:
    started = "2026-01-01T00:00:00Z"
    return {"id": name, "user": "deploy", "address": "192.0.2.1", "fingerprint": "", "started_at": started}


def stranger() -> Iterator[Call]:
    """Guesses by every way to prove who one is, and large bodies from nobody."""
    while True:
        guess = secrets.token_hex(20)
        password = {"user": {"name": "olga", "password": guess, "domain": {"name": "acme"}}}
        yield "GET", "/api/v3/servers", {"Authorization": f"Bearer {guess}"}, None
        yield "POST", "/v3/auth/tokens", {}, {"auth": {"identity": {"methods": ["password"], "password": password}}}
        yield "POST", "/agent/v1/enroll", {}, {"token": guess}
        yield "GET", "/v4/user/keys", {"X-Auth-Token": guess}, None
        yield "POST", "/v3/auth/tokens", {}, b"{" * 3_000_000


def never_reading(port: int, until: float) -> None:
    """Sixty clients that ask and never read, and one that sends trailers without end."""
    idle: list[socket.socket] = []
    request = b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n" * 200
    while time.monotonic() < until:
        while len(idle) < 60:
            one = socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.5", 0))
            one.setblocking(False)
            idle.append(one)
        for one in list(idle):
            try:
                one.send(request)
            except BlockingIOError:
                pass
            except OSError:
                one.close()
                idle.remove(one)
        trailers(port)
        time.sleep(0.2)


def trailers(port: int) -> None:
    """A chunked body with two megabytes of trailers behind it."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5, source_address=("127.0.0.5", 0)) as one:
            one.sendall(b"POST /api/v3/servers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
            for number in range(200):
                one.sendall(b"X-%d: " % number + b"t" * 10_000 + b"\r\n")
    except OSError:
        pass  # cut off, as it should be


def attack(kind: str, port: int, secret: str, until: float, answers: Any) -> None:
    """One attacker's process: four connections that call without a pause."""
    os.nice(19)
    address = {"member": "127.0.0.2", "host": "127.0.0.3", "stranger": "127.0.0.4"}.get(kind, "127.0.0.5")
    if kind == "sockets":
        never_reading(port, until)
        return
    callers = [Caller(port, address) for _ in range(4)]

    def run(caller: Caller) -> None:
        calls = {"member": member, "host": lambda: host(secret), "stranger": stranger}
        for call in calls[kind]():
            if time.monotonic() >= until:
                return
            caller.call(*call)

    threads = [threading.Thread(target=run, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total: collections.Counter[str] = collections.Counter()
    for caller in callers:
        total.update(caller.answers)
    answers[kind] = dict(total)


def enrolled(port: int, data: Path) -> str:
    """The secret of a host that enrolled as the second server."""
    instance = app.open_instance(Settings(data=data))
    token = servers.invite(instance, actors.system_actor(1), 2)
    instance.database.close()
    _, text = Caller(port, "127.0.0.1").call("POST", "/agent/v1/enroll", {}, {"token": token, "agent_version": "1"})
    return str(json.loads(text)["secret"])


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def p99(values: list[float]) -> float:
    """The 99th percentile."""
    return sorted(values)[int(len(values) * 0.99)]


def measure(seconds: float) -> None:
    """Run the service, the owner alone, then the owner beside the others."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        team = Path(scratch) / "team.toml"
        team.write_text(TEAM)
        keyrack = str(Path(sys.executable).with_name("keyrack"))
        subprocess.run([keyrack, "apply", str(team), "--data", str(data)], check=True, stdout=subprocess.DEVNULL)
        port = free_port()
        with (Path(scratch) / "log").open("wb") as log:
            service = subprocess.Popen(
                [keyrack, "serve", "--listen", f"127.0.0.1:{port}", "--data", str(data)], stdout=log, stderr=log
            )
        try:
            compare(port, data, seconds, service.pid)
        finally:
            service.terminate()
            service.wait(30)


def compare(port: int, data: Path, seconds: float, pid: int) -> None:
    """Measure both, and print them."""
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.05)
    secret = enrolled(port, data)
    alone = owner(port, min(30.0, seconds))
    before = size(data)
    with multiprocessing.Manager() as shared:
        answers = shared.dict()
        until = time.monotonic() + seconds
        others = [
            multiprocessing.Process(target=attack, args=(kind, port, secret, until, answers))
            for kind in ("member", "host", "stranger", "sockets")
        ]
        for other in others:
            other.start()
        with watched(pid, seconds):
            beside = owner(port, seconds)
        for other in others:
            other.join(90)
        one, two = together(alone), together(beside)
        for name, took in (("alone", alone), ("beside them", beside)):
            print(f"owner {name}: {shown(together(took))}")
            for method, times in took.items():
                print(f"    {method:7} {shown(times)}")
        print(f"p99 beside to alone: {p99(two) / p99(one):.2f}, longest {max(two):.0f} ms")
        print(f"data folder: {(size(data) - before) / 1e6:+.1f} MB")
        print(f"service's memory: {resident(pid) / 1e6:.0f} MB")
        for kind, counts in answers.items():
            print(f"{kind:9} {sum(counts.values()) / seconds:6.1f} answers a second: {counts}")


def together(took: dict[str, list[float]]) -> list[float]:
    """The times of all kinds of calls."""
    return [time for times in took.values() for time in times]


def shown(times: list[float]) -> str:
    """What is said of times, in milliseconds."""
    return f"{len(times):6} calls, p50 {statistics.median(times):7.1f} ms, p99 {p99(times):7.1f} ms"


@contextmanager
def watched(pid: int, seconds: float) -> Iterator[None]:
    """Print at the end which functions of ours held the interpreter while the block ran, if py-spy is there."""
    spy = os.environ.get("PY_SPY") or shutil.which("py-spy")
    if spy is None:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stacks"
        command = [spy, "record", "-p", str(pid), "-d", str(max(1, int(seconds) - 2)), "-r", "50"]
        spying = subprocess.Popen(
            [*command, "--gil", "-f", "raw", "-o", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield
        finally:
            spying.wait(60)
        print_top(file.read_text())


def print_top(stacks: str, most: int = 25) -> None:
    """The functions of ours that most samples lie in, callers included; py-spy's raw form."""
    total = 0
    within: collections.Counter[str] = collections.Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        total += int(count)
        within.update({name: int(count) for name in {part.rpartition(":")[0] for part in stack.split(";")}})
    print(f"where {total} samples of the interpreter lie:")
    ours = [(count, name) for name, count in within.most_common() if "(keyrack/" in name or "(json/" in name]
    for samples, name in ours[:most]:
        print(f"    {samples / max(1, total):6.1%} {name})")


def resident(pid: int) -> int:
    """Bytes that a process holds in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    help_asked(__doc__)
    measure(float(sys.argv[1]) if len(sys.argv) > 1 else 60)
