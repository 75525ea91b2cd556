"""The two programs that RunCloud's documentation recommends: one key onto every server, and one off every server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.core.keys_for_tests import fresh_line
from tests.services import Service

SERVERS = 200
LEAVER = fresh_line("leaver@example.com")
STAYER = fresh_line("stayer@example.com")


def ask(service: Service, method: str, path: str, body: Any = None) -> Any:
    """One call that must succeed, as those programs send it."""
    answer = service.call(method, f"/api/v3{path}", token="token-of-olga", json=body)
    assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
    return answer.json()


def walk(service: Service, path: str) -> Iterator[Any]:
    """Every item of a list, page after page, until total_pages is reached."""
    page = pages = 1
    while page <= pages:
        found = ask(service, "GET", f"{path}?perPage=40&page={page}")
        yield from found["data"]
        pages = found["meta"]["pagination"]["total_pages"]
        page += 1


def test_one_key_onto_and_off_two_hundred_servers(team: Service) -> None:
    for number in range(1, SERVERS):
        ask(team, "POST", "/servers", {"name": f"web-{number + 1}", "ipAddress": f"192.0.2.{number}"})
    servers = list(walk(team, "/servers"))
    assert len(servers) == SERVERS
    assert [server["id"] for server in servers] == sorted({server["id"] for server in servers})

    for server in servers:
        path = f"/servers/{server['id']}/ssh/credentials"
        ask(team, "POST", path, {"label": "leaver", "username": "root", "publicKey": LEAVER})
        ask(team, "POST", path, {"label": "stayer", "username": "root", "publicKey": STAYER})

    removed = 0
    for server in walk(team, "/servers"):
        for key in walk(team, f"/servers/{server['id']}/ssh/credentials"):
            if key["publicKey"] == LEAVER:
                gone = ask(team, "DELETE", f"/servers/{server['id']}/ssh/credentials/{key['id']}")
                assert gone["label"] == "leaver"
                removed += 1
    assert removed == SERVERS
    for server in walk(team, "/servers"):
        left = [key["publicKey"] for key in walk(team, f"/servers/{server['id']}/ssh/credentials")]
        assert left == [STAYER]
