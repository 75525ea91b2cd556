"""Every page on PostgreSQL, whose questions are put otherwise than SQLite's."""

from __future__ import annotations

from pathlib import Path

import httpx2

from keyrack.core.audit import alarms, webhooks
from keyrack.core.hosts import enrolment, reports, servers
from keyrack.core.keys import freezes, grants, requests, user_keys
from keyrack.core.people import actors, users, web_sessions
from keyrack.web.console import live
from keyrack.web.console.api import PAGES
from tests.console.conftest import COOKIE, session_of
from tests.console.test_routes import address
from tests.core.keys_for_tests import fresh_line
from tests.plain_http import PLAIN
from tests.services import TEAM, Service, running, settings_for

KEYRACK = actors.system_actor(1)
FILTERED = (
    "/hosts?state=silent",
    "/hosts?state=behind",
    "/hosts?state=new&q=web",
    "/access?tag=web&account=deploy",
    "/access.csv",
    "/activity?person=olga&q=key",
    "/activity?kind=refused",
    "/activity?kind=alarm",
    "/activity?kind=keys",
    "/settings?type=ssh-rsa&bits=3072",
    "/people?q=a",
    "/search?q=web",
    "/people/alice",
)


def fill(service: Service) -> str:
    """Something of each kind; answers the fingerprint of a key."""
    instance = service.instance
    alice = next(one for one in users.find(instance, KEYRACK) if one.name == "alice")
    actor = web_sessions.actor_of(alice, address="127.0.0.1")
    key = user_keys.add(instance, actor, title="laptop", public_key=fresh_line(), duration="12h")
    grants.give(instance, KEYRACK, user_id=alice.id, tag="web", system_user="deploy")
    requests.ask(instance, actor, server="web-1", system_user="deploy", duration="1h", reason="to look")
    freezes.freeze(instance, KEYRACK, user="alice")
    webhooks.create(instance, KEYRACK, url="https://alerts.example.org/x", level="alarm")
    alarms.raise_once(instance, 1, "tried", "Somebody tried something")
    enrolment.enrol(instance, servers.invite(instance, KEYRACK, 1), {"host": "web-1"}, address="192.0.2.10")
    server = servers.get(instance, KEYRACK, 1)
    started = f"{instance.now():%Y-%m-%dT%H:%M:%SZ}"
    login = {"id": "1-1", "user": "deploy", "address": "203.0.113.5", "fingerprint": "", "started_at": started}
    reports.ingest(instance, server, {"revision": server.revision, "state": "applied", "sessions": [login]})
    for _ in range(2):  # what is counted is added to what was
        instance.tallies.logins(KEYRACK.workspace_id, 3, instance.now())
        instance.tallies.write(instance.database, instance.now())
    return str(key.fingerprint)


def test_every_page_and_the_stream_work_on_postgresql(postgresql_url: str, tmp_path: Path) -> None:
    with running(settings_for(tmp_path / "data", postgresql_url)) as service:
        service.apply(TEAM)
        key = fill(service)
        with httpx2.Client(base_url=service.url, headers={"Accept": "text/html"}, verify=PLAIN, timeout=30) as client:
            client.cookies.set(COOKIE, session_of(service, "olga"), domain="127.0.0.1")
            pages = [address(page) for page in PAGES if page.method == "GET" and not page.path.startswith("/login/")]
            seen = {path: client.get(path) for path in (*pages, *FILTERED, f"/revoke/{key}", f"/keys/{key}")}
            assert not [(path, answer.text) for path, answer in seen.items() if answer.status_code >= 500]
            assert "Somebody tried something" in seen["/"].text
            assert '<td class="number">7</td>' in seen["/"].text, "twice three logins, and the one of the host"
            with client.stream("GET", "/live?host=1&person=alice&requests=1") as answer:
                words = (line for line in answer.iter_lines() if line.startswith("event: "))
                assert next(words) == f"event: {live.CHANGED}"
