"""Root on an enrolled host has its agent's secret: no call with it shows or changes anything of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from tests.services import Service
from tests.web.runcloud_team import Agent, serving

OTHERS = ("other-host", "192.0.2.77")
TABLES = ("servers", "credentials", "revocations", "grants", "users", "groups", "tokens", "user_keys", "system_users")
BODIES: tuple[Any, ...] = (
    {},
    [],
    {"server_id": 2, "host": "h_2", "server": 2, "revision": 1, "state": "applied"},
    {"revision": 2**62, "state": "applied", "lineage": "ffffffff"},
    {"revision": -1, "state": "applied"},
    {"revision": 1, "state": "failed", "problems": ["\u202e\x00" * 500]},
    {"uses": [{"fingerprint": "SHA256:" + "A" * 43, "server_id": 2, "at": 1, "address": "::1"}]},
    {"sessions": [{"id": "1-1", "server_id": 2, "username": "root"}], "checkpoint": {"size": 2**40, "root": "00"}},
    {"audit": 10**9, "document": "{}", "signature": "x", "piece": 10**9, "pieces": 10**9},
    {"token": "x" * 100_000, "facts": {"hostname": OTHERS[0]}},
)


def of_others(service: Service) -> dict[str, list[Any]]:
    """All rows that decide but those of the host's own server, on either database; not when another host was last seen,
    which is noted some seconds later.
    """

    def rows(connection: Connection) -> dict[str, list[Any]]:
        return {
            name: [
                tuple(value for column, value in row._mapping.items() if column != "seen_at")
                for row in connection.execute(text(f"SELECT * FROM {name} ORDER BY 1, 2"))
                if not (name == "servers" and row[0] == 1)
            ]
            for name in TABLES
        }

    return service.instance.database.read(rows)


def routes(service: Service) -> list[tuple[str, str]]:
    """Every call that the service describes, for the server that is another's, and those of agents."""
    described = service.call("GET", "/openapi.json").json()["paths"]
    found = [(method.upper(), path) for path, methods in described.items() for method in methods if len(method) < 7]
    return [(method, path.replace("{", "").replace("}", "")) for method, path in found if method != "OPTIONS"]


def test_an_agents_secret_shows_and_changes_nothing_of_other_hosts(team_data: tuple[Path, str], tmp_path: Path) -> None:
    source, database = team_data
    with serving(source, tmp_path / "data", database) as service:
        values = {"name": OTHERS[0], "ipAddress": OTHERS[1]}
        made = service.call("POST", "/api/v3/servers", token="token-of-olga", json=values)
        assert made.status_code < 300
        mine, other = Agent(service, 1), Agent(service, made.json()["id"])
        other.obey()
        before, answers = of_others(service), []
        for path in ("enroll", "document", "report", "last-document"):
            for body in BODIES:
                for method in ("POST", "GET"):
                    asked = "?revision=0&wait=0&server_id=2&audit=999999" if method == "GET" else ""
                    answer = service.call(method, f"/agent/v1/{path}{asked}", token=mine.secret, json=body)
                    assert answer.status_code < 500, (path, body, answer.text)
                    answers.append(answer.text)
        every = routes(service)
        assert len(every) > 100
        for method, path in every:
            headers = {"X-Auth-Token": mine.secret, "PRIVATE-TOKEN": mine.secret}
            answer = service.call(method, path, token=mine.secret, headers=headers, json={})
            assert answer.status_code < 500, (method, path, answer.text)
            answers.append(answer.text)
        assert [text for text in answers if any(word in text for word in OTHERS) or other.secret in text] == []
        assert of_others(service) == before
        assert other.document()["revision"] >= 1
