"""What others write into SQLite, which keeps any value in any column, costs its row and no list or page."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Table

from keyrack.core.hosts import servers
from keyrack.core.keys import key_sources, requests
from keyrack.core.people import actors, api_tokens, users
from keyrack.store import tables
from keyrack.store.tables.columns import Flag, Json, Moment
from keyrack.web.native.api import ENDPOINTS
from tests.console import lifelike
from tests.console.conftest import COOKIE, session_of
from tests.console.screenshots import addresses, example
from tests.plain_http import PLAIN
from tests.services import Service, running, settings_for

BASE = "/api/keyrack/v1"
LONG = os.environ.get("KEYRACK_LONG")
# Which are tried else: bytes and texts in tables without a seal, and a host's facts.
FEW = (
    ("webhook_deliveries", 0),
    ("webhook_deliveries", 2),
    ("servers", 0),
    ("servers", 2),
    ("freezes", 4),
    ("user_keys", 1),
    ("access_requests", 1),
)
NO_TEXT = b"\x00\xff"
OF_ANY: tuple[Any, ...] = (NO_TEXT, None)
OF_NUMBERS: tuple[Any, ...] = (*OF_ANY, "x", 1.5, -1, 2**62)
OF_TEXT: tuple[Any, ...] = (*OF_ANY, "x", "", "\x00")
WITHIN = object()  # what stands there, with a number for each of its values
OF_JSON: tuple[Any, ...] = (*OF_ANY, WITHIN, "x", "7", "[7]", '{"a": [7]}')
# Whose token and session these calls are made with: the owner's, who came first, and the last of each.
OWN_FIRST = ("workspaces", "users")
OWN_LAST = ("tokens", "web_sessions")
QUERIES = {
    "server": "SELECT id FROM servers ORDER BY id LIMIT 1",
    "session": "SELECT id FROM sessions ORDER BY id LIMIT 1",
    "event": "SELECT max(id) FROM events",
    "grant": "SELECT id FROM grants ORDER BY id LIMIT 1",
    "group": "SELECT name FROM groups ORDER BY id LIMIT 1",
    "person": "SELECT name FROM users ORDER BY id LIMIT 1 OFFSET 1",
    "credential": "SELECT id FROM credentials ORDER BY id LIMIT 1",
    "freeze": "SELECT id FROM freezes ORDER BY id LIMIT 1",
    "request": "SELECT id FROM access_requests ORDER BY id LIMIT 1",
    "offboarding": "SELECT id FROM offboardings ORDER BY id LIMIT 1",
    "token": "SELECT id FROM tokens ORDER BY id LIMIT 1",
    "webhook": "SELECT id FROM webhooks ORDER BY id LIMIT 1",
    "repository": "SELECT id FROM repositories ORDER BY id LIMIT 1",
    "key": "SELECT id FROM user_keys ORDER BY id LIMIT 1",
}
MORE = (
    "/keys/receipts?fingerprint={fingerprint}",
    "/keys/findings?kind=unowned",
    "/events?cursor=&search=a",
    "/servers?cursor=",
    "/grants?cursor=",
    "/tokens?cursor=",
    "/requests?state=pending",
    "/servers/{server}/unmanaged-keys?state=new,ignored,accepted,removing,gone",
    "/access?server={server}",
)


class Odd:
    """A service with a bit of everything, whose database others write to as well."""

    def __init__(self, service: Service, path: Path) -> None:
        self.service, self.path = service, path
        self.token = ""
        self.pages: tuple[str, ...] = ()

    def others(self) -> sqlite3.Connection:
        """A connection past Keyrack, which is bound to nothing."""
        opened = sqlite3.connect(self.path, isolation_level=None)
        opened.execute("PRAGMA foreign_keys = OFF")
        return opened

    def failing(self, client: httpx2.Client) -> list[str]:
        """The lists and pages that are not answered."""
        wrong = []
        for path in self.pages:
            answer = client.get(path, headers={"Accept": "text/html", "Authorization": f"Bearer {self.token}"})
            # Of a server whose row is not as Keyrack wrote it nothing is said.
            if answer.status_code >= 500 and not (answer.status_code == 503 and "/access?server=" in path):
                wrong.append(f"{path} {answer.status_code}")
        return wrong


def make(odd: Odd) -> None:
    """Something in each table that people see, and a call for each list and page."""
    service = odd.service
    made = lifelike.make(service.instance, people=14, hosts=8)
    users.create_workspace(service.instance, actors.system_actor(), "umbrella")
    requests.put_rule(service.instance, made.owner, name="two for root", system_user="root", approvers=2)
    key_sources.put(service.instance, made.owner, made.people[2].name, "github", account="octocat", url=None)
    servers.delete(service.instance, made.owner, made.hosts[-1][0].id)
    for _ in range(2):
        session_of(service, made.people[1].name)
    odd.token = api_tokens.make(service.instance, made.owner, name="all", scopes=["*"]).secret
    with closing(odd.others()) as raw:
        found = {name: raw.execute(query).fetchone() for name, query in QUERIES.items()}
        (fingerprint,) = raw.execute("SELECT fingerprint FROM revoked_keys").fetchone()
    values = {name: "1" if row is None else str(row[0]) for name, row in found.items()}
    values |= {"username": "deploy", "kind": "github", "fingerprint": fingerprint, "rule": "two%20for%20root"}
    native = [one.path for one in ENDPOINTS if one.method == "GET"]
    paths = [BASE + re.sub(r"\{(\w+)\}", lambda name: values[name[1]], path) for path in (*native, *MORE)]
    odd.pages = (*paths, *addresses(service).values(), f"/people/{example(service, 'offboard/x')}")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Odd]:
    """One for the file: whatever others write is put back."""
    folder = tmp_path_factory.mktemp("odd") / "data"
    with running(settings_for(folder, "", rate_limit=10**6)) as service:
        found = Odd(service, folder / "keyrack.db")
        make(found)
        yield found


@pytest.fixture(scope="module")
def client(odd: Odd) -> Iterator[httpx2.Client]:
    """A browser of the owner's."""
    with httpx2.Client(base_url=odd.service.url, verify=PLAIN, timeout=60) as made:
        made.cookies.set(COOKIE, session_of(odd.service, "olga"), domain="127.0.0.1")
        yield made


def strange(column: Column[Any]) -> Sequence[Any]:
    """What others may write into a column."""
    if isinstance(column.type, Json):
        return OF_JSON
    if isinstance(column.type, Flag | Moment | Integer | BigInteger):
        return OF_NUMBERS
    return (*OF_NUMBERS, "") if isinstance(column.type, LargeBinary) else OF_TEXT


@dataclass(frozen=True)
class Alteration:
    """One value in one row that others write."""

    table: str
    column: str
    row: int
    value: Any
    was: Any

    def __str__(self) -> str:
        return f"{self.table}.{self.column} = {self.value!r:.12}"

    def write(self, raw: sqlite3.Connection, value: Any) -> bool:
        """Whether the database takes it."""
        try:
            raw.execute(f'UPDATE "{self.table}" SET "{self.column}" = ? WHERE rowid = ?', (value, self.row))
        except sqlite3.IntegrityError:
            return False
        return True


def rows_of(raw: sqlite3.Connection, table: Table) -> list[int]:
    """The rows of a table that others alter, by their places: the newest, which lists begin with, and the oldest."""
    rows = [row[0] for row in raw.execute(f"SELECT rowid FROM {table.name} ORDER BY 1 DESC")]
    if table.name in OWN_FIRST:
        rows = rows[:-1]
    if table.name in OWN_LAST:
        rows = rows[1:]
    return [*rows[:10], *rows[10:][-10:]]


def turns(odd: Odd) -> list[tuple[Table, int]]:
    """What is tried at a time: a table, and which of the values of each of its columns."""
    with closing(odd.others()) as raw:
        tried = [table for table in tables.metadata.sorted_tables if rows_of(raw, table)]
    return [(table, number) for table in tried for number in range(max(len(OF_NUMBERS), len(OF_JSON)))]


def within(was: Any) -> str:
    """A list or an object whose values are of another type."""
    kept = json.loads(was) if was else None
    return json.dumps(dict.fromkeys(kept, 7) if isinstance(kept, dict) else [7 for _ in kept or ()])


def alterations(raw: sqlite3.Connection, table: Table, number: int) -> Iterator[list[Alteration]]:
    """One of each column, as many at a time as there are rows: no row has two."""
    rows = rows_of(raw, table)
    numbered = len(table.primary_key) == 1  # and its number is the row's place
    columns = [one for one in table.c if not (numbered and one.primary_key and isinstance(one.type, Integer))]
    for at in range(0, len(columns), len(rows)):
        found = []
        for column, row in zip(columns[at:], rows, strict=False):
            values = strange(column)
            (was,) = raw.execute(f'SELECT "{column.name}" FROM "{table.name}" WHERE rowid = ?', (row,)).fetchone()
            value = values[number % len(values)]
            found.append(Alteration(table.name, column.name, row, within(was) if value is WITHIN else value, was))
        yield found


def tried(odd: Odd, client: httpx2.Client, raw: sqlite3.Connection, some: Sequence[Alteration]) -> list[str]:
    """What is not answered while these stand there, which are put back."""
    written = [one for one in some if one.write(raw, one.value)]
    try:
        return odd.failing(client) if written else []
    finally:
        for one in written:
            assert one.write(raw, one.was)


@pytest.mark.timeout(7200 if LONG else 300)
def test_one_odd_row_breaks_no_list_or_page(odd: Odd, client: httpx2.Client) -> None:
    assert odd.failing(client) == []
    only = os.environ.get("KEYRACK_TABLES", "").split()
    chosen = [
        (table, number)
        for table, number in turns(odd)
        if (LONG and (not only or table.name in only)) or (table.name, number) in FEW
    ]
    assert chosen
    wrong: dict[str, list[str]] = {}
    with closing(odd.others()) as raw:
        for table, number in chosen:
            for some in alterations(raw, table, number):
                if tried(odd, client, raw, some):
                    # Which of them it is.
                    wrong |= {str(one): found for one in some if (found := tried(odd, client, raw, [one]))}
    assert not wrong


def test_the_tables_tried_here_are_those_that_pages_show(odd: Odd) -> None:
    named = {table.name for table, _ in turns(odd)}
    seen = {"unmanaged_keys", "sessions", "freezes", "access_requests", "revocations", "webhooks", "key_sources"}
    seen |= {"webhook_deliveries", "deleted_servers", "web_sessions", "servers", "events", "offboardings", "grants"}
    assert seen - named == set()
