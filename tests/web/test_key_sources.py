"""Users' keys follow their accounts at GitHub and GitLab, in every state that an account can be in."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from keyrack.core.hosts import documents
from keyrack.core.keys import key_sync
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.keys import key_sources as stored_sources
from keyrack.web import outgoing
from keyrack.web.outgoing import Outgoing
from tests.core.keys_for_tests import fresh_line
from tests.services import Service, running, settings_for


@dataclass
class Elsewhere:
    """A service outside that plays GitHub and GitLab: the account octo, as the test says it is."""

    keys: list[str] = field(default_factory=list)
    number: int = 7
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    no_length: bool = False
    kind: str = "text/plain; charset=utf-8"
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, known: str) -> tuple[int, dict[str, str], bytes]:
        """What is said to a GET."""
        self.asked.append(path)
        if self.status != 200:
            return self.status, self.headers, b""
        if path == "/octo.keys":
            tag = f'"{hash(tuple(self.keys))}"'
            body = "".join(f"{line}\n" for line in self.keys).encode()
            return (304, {}, b"") if known == tag else (200, {"ETag": tag, "Content-Type": self.kind}, body)
        if path == "/api/v3/users/octo":
            return 200, {}, json.dumps({"login": "octo", "id": self.number}).encode()
        if path == "/api/v4/users?username=octo":
            return 200, {}, json.dumps([{"username": "octo", "id": self.number}] if self.number else []).encode()
        return 404, {}, b""


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    """The service outside, on a port of its own."""
    plays = Elsewhere()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = plays.answer(self.path, self.headers.get("If-None-Match", ""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if plays.no_length:
                self.flush_headers()  # and hangs up in the middle of the head
                return
            self.send_header("Content-Length", str(len(body) + 100 * plays.cut))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    plays.url = f"http://127.0.0.1:{server.server_port}"
    yield plays
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def service(team_data: tuple[Path, str], tmp_path: Path) -> Iterator[Service]:
    """The team's service on each kind of database, which looks by itself never and may ask on loopback."""
    source, database = team_data
    folder = tmp_path / "data"
    shutil.copytree(source, folder)
    with running(settings_for(folder, database, key_source_minutes=0, key_source_networks="127.0.0.0/8")) as service:
        grant = {"user": "alice", "tag": "web", "system_user": "deploy"}
        service.call("POST", "/api/keyrack/v1/grants", token="token-of-olga", json=grant)
        yield service


PATH = "/api/keyrack/v1/people/alice/key-sources"


def name(service: Service, elsewhere: Elsewhere, kind: str = "github", token: str = "token-of-alice") -> None:
    """Alice names her account."""
    body = {"account": "octo", "url": elsewhere.url}
    answer = service.call("PUT", f"{PATH}/{kind}", token=token, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "new"


def sync(service: Service) -> tuple[str, str]:
    """Look now; the state and why."""
    answer = service.call("POST", f"{PATH}/sync", token="token-of-alice")
    assert answer.status_code == 200, answer.text
    found = answer.json()["items"][0]
    return found["state"], found["words"]


def held(service: Service) -> set[str]:
    """The keys that alice has and that her server's document has, which are the same."""
    keys = {one["key"].rpartition(" alice")[0] for one in service.call("GET", "/api/v4/users/alice/keys").json()}
    signed = documents.signed(service.instance, 1)
    assert signed is not None
    document = json.loads(signed.text)
    document.pop("revoked")
    sent = json.dumps(document)
    assert all(key in sent for key in keys), sent
    assert sent.count("ssh-ed25519 ") == len(keys), sent
    return keys


def bare(*lines: str) -> set[str]:
    """The keys in lines."""
    return {parse(line).canonical for line in lines}


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_keys_follow_the_account_elsewhere(service: Service, elsewhere: Elsewhere, kind: str) -> None:
    one, two, own = fresh_line(), fresh_line(), fresh_line()
    service.call("POST", "/api/v4/user/keys", token="token-of-alice", json={"title": "own", "key": own})
    elsewhere.keys = [one, own]
    name(service, elsewhere, kind)
    assert sync(service) == ("in step", "")
    assert held(service) == bare(one, own)
    elsewhere.keys = [two]
    assert sync(service) == ("in step", "")
    assert held(service) == bare(two, own), "what she registered herself is not the account's to take away"
    asked = len(elsewhere.asked)
    assert sync(service) == ("in step", "")
    assert elsewhere.asked[asked:] == ["/octo.keys"], "what did not change is asked for once, by its ETag"
    elsewhere.keys = []
    assert sync(service) == ("in step", "")
    assert held(service) == bare(own), "an empty list of an account that is there is one"


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_a_vanished_or_renamed_account_is_an_alarm_and_deletes_nothing(
    service: Service, elsewhere: Elsewhere, kind: str
) -> None:
    one = fresh_line()
    elsewhere.keys = [one]
    name(service, elsewhere, kind)
    sync(service)
    elsewhere.status = 404
    assert sync(service)[0] == "gone"
    elsewhere.status, elsewhere.number, elsewhere.keys = 200, 8, [fresh_line()]
    state, words = sync(service)
    assert (state, "another account" in words) == ("renamed", True)
    elsewhere.keys = []
    assert sync(service)[0] == "renamed"
    elsewhere.status, elsewhere.headers = 302, {"Location": "/users/sign_in"}
    assert sync(service)[0] == "moved"
    assert held(service) == bare(one)
    alarms = service.call("GET", "/api/keyrack/v1/events?per_page=100", token="token-of-olga").json()["items"]
    reasons = [one["reason"] for one in alarms if one["reason"].startswith("key-source")]
    assert reasons == ["key-source-moved", "key-source-renamed", "key-source-gone"], "each once"
    elsewhere.status, elsewhere.headers, elsewhere.number, elsewhere.keys = 200, {}, 7, [one]
    assert sync(service) == ("in step", ""), "it is back"
    if kind == "gitlab":
        elsewhere.number, elsewhere.keys = 0, []
        assert sync(service)[0] == "gone"
        assert held(service) == bare(one)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"status": 500}, "no answer"),
        ({"status": 429, "headers": {"Retry-After": "600"}}, "waiting"),
        ({"status": 403, "headers": {"X-RateLimit-Remaining": "0"}}, "waiting"),
        ({"cut": True}, "no answer"),
        ({"no_length": True}, "no answer"),
        ({"kind": "text/html"}, "no answer"),
        ({"keys": ["x" * 300_000]}, "no answer"),
        ({"keys": ["<!doctype html>"]}, "no answer"),
    ],
)
def test_an_incomplete_answer_of_a_source_changes_nothing(
    service: Service, elsewhere: Elsewhere, change: dict[str, Any], state: str
) -> None:
    one = fresh_line()
    elsewhere.keys = [one]
    name(service, elsewhere)
    sync(service)
    elsewhere.keys = []
    for what, value in change.items():
        setattr(elsewhere, what, value)
    assert sync(service)[0] == state
    assert held(service) == bare(one)


def test_a_key_that_is_anothers_or_too_weak_is_left_out_with_words(service: Service, elsewhere: Elsewhere) -> None:
    one, bobs = fresh_line(), fresh_line()
    service.call("POST", "/api/v4/user/keys", token="token-of-bob", json={"title": "own", "key": bobs})
    elsewhere.keys = [one, bobs]
    name(service, elsewhere)
    state, words = sync(service)
    assert state == "partly"
    assert "in use by another user" in words
    assert held(service) == bare(one)


def test_a_key_that_she_deleted_here_does_not_come_back(service: Service, elsewhere: Elsewhere) -> None:
    one, two = fresh_line(), fresh_line()
    elsewhere.keys = [one]
    name(service, elsewhere)
    sync(service)
    key = service.call("GET", "/api/v4/user/keys", token="token-of-alice").json()[0]
    assert key["title"] == "github: octo"
    service.call("DELETE", f"/api/v4/user/keys/{key['id']}", token="token-of-alice")
    elsewhere.keys = [one, two]
    assert sync(service) == ("in step", "")
    assert held(service) == bare(two)


def test_removing_an_account_elsewhere_removes_its_keys_and_another_brings_its_own(
    service: Service, elsewhere: Elsewhere
) -> None:
    elsewhere.keys = [fresh_line()]
    name(service, elsewhere)
    sync(service)
    assert len(held(service)) == 1
    listed = service.call("GET", PATH, token="token-of-olga").json()["items"]
    assert [(one["account"], one["account_id"], one["keys"]) for one in listed] == [("octo", "7", 1)]
    assert service.call("DELETE", f"{PATH}/github", token="token-of-alice").status_code == 204
    assert held(service) == set()
    assert service.call("DELETE", f"{PATH}/github", token="token-of-alice").status_code == 404


def test_only_an_admin_may_name_an_account_elsewhere(service: Service, elsewhere: Elsewhere) -> None:
    body = {"account": "octo", "url": elsewhere.url}
    assert service.call("PUT", f"{PATH}/github", token="token-of-bob", json=body).status_code == 403
    assert service.call("PUT", f"{PATH}/github", token="token-of-victor", json=body).status_code == 404
    assert service.call("PUT", f"{PATH}/github", token="token-of-olga", json=body).status_code == 200
    urls = ("file:///etc/passwd", "https://example.org?", "https://example.org/#", "https://a@example.org")
    wrong_urls = ({"account": "octo", "url": url} for url in urls)
    for wrong in ({"account": "../x"}, {"account": "a b"}, {}, *wrong_urls):
        answer = service.call("PUT", f"{PATH}/github", token="token-of-alice", json=wrong)
        assert answer.status_code == 422, answer.text
    assert service.call("PUT", f"{PATH}/sourceforge", token="token-of-alice", json=body).status_code == 422


# What a gateway makes a private IPv4 address of, and what was private before fc00::/7.
GATEWAYS = ("[64:ff9b::7f00:1]", "[64:ff9b::10.0.0.1]", "[2002:a00:1::1]", "[fec0::1]", "[::127.0.0.1]")


def test_removing_an_account_elsewhere_is_one_change(
    service: Service, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere.keys = [fresh_line(), fresh_line()]
    name(service, elsewhere)
    sync(service)
    before = held(service)

    def fail(connection: Connection, source_id: int) -> None:
        raise DatabaseUnavailable("it went away")

    with monkeypatch.context() as patched:
        patched.setattr(stored_sources, "remove", fail)
        assert service.call("DELETE", f"{PATH}/github", token="token-of-alice").status_code == 503
    assert held(service) == before


def test_private_addresses_are_asked_only_where_the_settings_name_them(team: Service, elsewhere: Elsewhere) -> None:
    answer = team.call("PUT", f"{PATH}/github", token="token-of-alice", json={"account": "octo", "url": elsewhere.url})
    assert answer.status_code == 422, "http"
    for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "0.0.0.0", *GATEWAYS):
        with pytest.raises(key_sync.NoHttpAnswer, match="private"):
            Outgoing(team.instance.settings)(f"https://{host}:9/octo.keys", {})
    assert elsewhere.asked == []


def test_due_sources_are_synchronised_except_those_of_disabled_users(service: Service, elsewhere: Elsewhere) -> None:
    one = fresh_line()
    elsewhere.keys = [one]
    name(service, elsewhere)
    ask = Outgoing(service.instance.settings)
    assert key_sync.sync_due(service.instance, ask) == 1
    assert held(service) == bare(one)
    headers = {"X-Auth-Token": "token-of-olga"}
    users = service.call("GET", "/v3/users", headers=headers).json()["users"]
    uid = next(user["id"] for user in users if user["name"] == "alice")
    service.call("PATCH", f"/v3/users/{uid}", headers=headers, json={"user": {"enabled": False}})
    asked = len(elsewhere.asked)
    assert key_sync.sync_due(service.instance, ask) == 0
    assert len(elsewhere.asked) == asked


def test_an_altered_source_prevents_no_other_from_being_synchronised(
    service: Service, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_sync, "BATCH_SIZE", 1)
    for kind in ("github", "gitlab"):
        name(service, elsewhere, kind)
    held = tables.key_sources
    altered = update(held).where(held.c.kind == "github").values(account="another")
    service.instance.database.write(lambda connection: connection.execute(altered))
    assert key_sync.sync_due(service.instance, Outgoing(service.instance.settings)) == 1


def test_a_service_that_says_a_byte_now_and_then_is_not_waited_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read by itself is quick: only the whole is too slow, in the head as in the body."""
    monkeypatch.setattr(outgoing, "WHOLE_SECONDS", 0.5)
    for head in (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            over = threading.Event()

            def drip(listening: socket.socket = listening, head: bytes = head, over: threading.Event = over) -> None:
                connection, _ = listening.accept()
                with connection, suppress(OSError):
                    connection.sendall(head)
                    while not over.wait(0.05):
                        connection.sendall(b"a")

            thread = threading.Thread(target=drip)
            thread.start()
            try:
                with pytest.raises(key_sync.NoHttpAnswer, match="took longer"):
                    Outgoing(service.instance.settings)(f"http://127.0.0.1:{listening.getsockname()[1]}/octo.keys", {})
            finally:
                over.set()
                thread.join(10)


@pytest.mark.parametrize("tag", ['"a\x00b"', '"a"\r\n b', "x" * 3000, "a tag", '"' + "a" * 600 + '"', '"\x1b[31m"'])
def test_a_malformed_etag_is_not_kept(
    service: Service, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, tag: str
) -> None:
    """It was sent with each later look, which then failed before it was sent, or could not be stored at all."""
    elsewhere.keys = [fresh_line()]
    name(service, elsewhere)
    plain = elsewhere.answer

    def tagged(path: str, known: str) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = plain(path, known)
        return status, headers | {"ETag": tag}, body

    monkeypatch.setattr(elsewhere, "answer", tagged)
    assert sync(service) == ("in step", "")
    elsewhere.keys.append(fresh_line())
    assert sync(service) == ("in step", "")
    assert len(held(service)) == 2


def test_words_of_the_other_side_are_text(service: Service, elsewhere: Elsewhere) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTP/1.1 \x00\x1b[31m\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        elsewhere.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        name(service, elsewhere)
        state, words = sync(service)
        thread.join(10)
    assert state == "no answer"
    assert words.isprintable()


def test_an_account_with_more_keys_than_one_may_have_is_left_off_at_the_first_too_many(
    service: Service, elsewhere: Elsewhere
) -> None:
    """Three thousand, each tried and refused at each look, were as many turns of the only writer."""
    elsewhere.keys = [fresh_line() for _ in range(service.instance.settings.max_user_keys + 50)]
    name(service, elsewhere)
    state, words = sync(service)
    assert (state, "49 more keys were left out" in words) == ("partly", True)
    mine = service.call("GET", "/api/keyrack/v1/people/me/keys", token="token-of-alice").json()
    assert mine["total"] == service.instance.settings.max_user_keys
    events = service.call("GET", "/api/keyrack/v1/events?per_page=200", token="token-of-olga").json()["items"]
    assert len([one for one in events if one["reason"] == "too-many-keys"]) == 1
