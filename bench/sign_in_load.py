"""How long others wait while a hundred people sign in at once: each password takes argon2 its tenth of a second.

    .venv/bin/python bench/sign_in_load.py [PEOPLE [SECONDS]]

One process on SQLite. Everybody signs in with the right password at once, again and again; somebody whom the service
knows looks at one key the whole time. Prints the looks' p50 and p99 alone and meanwhile, and the sign-ins' rate.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import api

from keyrack import app
from keyrack.core.workspace import apply as workspace_apply
from keyrack.settings import Settings


def sign_in(number: int) -> bytes:
    """A request for an IAM token."""
    user = {"name": f"person-{number}", "password": f"secret of person {number}", "domain": {"name": "acme"}}
    auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"domain": {"name": "acme"}}}
    return api.request("POST", "/v3/auth/tokens", {"auth": auth})


async def exchange(port: int, content: bytes) -> tuple[int, float]:
    """The status of an answer, and the seconds it took."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(content.replace(b"\r\nHost", b"\r\nConnection: close\r\nHost", 1))
    answer = await reader.read()
    writer.close()
    return int(answer[9:12]), time.perf_counter() - began


async def read_key(port: int, until: asyncio.Event) -> list[float]:
    """Look at one key every few milliseconds; the seconds each took."""
    taken = []
    while not until.is_set():
        status, seconds = await exchange(port, api.request("GET", "/api/v3/servers/1/ssh/credentials"))
        assert status == 200, status
        taken.append(seconds)
        await asyncio.sleep(0.01)
    return taken


async def measured(port: int, people: int, seconds: float) -> None:
    """Alone, then beside them."""
    for name, several in (("alone", 0), ("meanwhile", people)):
        ended = asyncio.Event()
        looking = asyncio.create_task(read_key(port, ended))
        began, statuses = time.perf_counter(), []
        while time.perf_counter() - began < seconds:
            answers = [exchange(port, sign_in(number)) for number in range(several)]
            statuses += [status for status, _ in await asyncio.gather(*answers)] if several else []
            await asyncio.sleep(0.05)
        spent = time.perf_counter() - began
        ended.set()
        taken = sorted(await looking)
        good = sum(status == 201 for status in statuses)
        print(f"p50 {name:10} {taken[len(taken) // 2] * 1e3:8.1f} ms", flush=True)
        print(f"p99 {name:10} {taken[len(taken) * 99 // 100] * 1e3:8.1f} ms", flush=True)
        print(f"    {good} of {len(statuses)} signed in, {good / spent:.1f} a second", flush=True)


def main() -> None:
    """Fill, serve, measure."""
    people = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with api.ours("", folder) as service:
            instance = app.open_instance(Settings(data=folder / "data"))
            users = [
                f'[[users]]\nname = "person-{number}"\nrole = "member"\npassword = "secret of person {number}"\n'
                for number in range(people)
            ]
            workspace_apply.apply(instance, '[workspace]\nname = "acme"\n' + "".join(users), {})
            instance.database.close()
            asyncio.run(measured(service.port, people, seconds))


if __name__ == "__main__":
    help_asked(__doc__)
    main()
