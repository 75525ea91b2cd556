"""HTTP as it comes over the wire: bodies that are too long, trailers, clients that never read, odd paths and text."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Connection

from keyrack.web import protocol
from tests.postgres import Cluster
from tests.services import TEAM, Service, running, settings_for
from tests.web.runcloud_team import Agent

SERVERS = "/api/v3/servers"
ADDS: tuple[tuple[str, dict[str, str]], ...] = (
    ("/api/v3/servers/1/ssh/credentials", {"Authorization": "Bearer token-of-olga"}),
    ("/api/keyrack/v1/servers/1/unmanaged-keys/1/ignore", {"Authorization": "Bearer token-of-olga"}),
    ("/v4/user/keys", {"X-Auth-Token": "token-of-alice"}),
    ("/v1/users/sshkey", {"X-Auth-Token": "token-of-alice"}),
    ("/v3/auth/tokens", {}),
    ("/agent/v1/enroll", {}),
)


def connected(service: Service, room: int = 0) -> socket.socket:
    """A connection to a service; room: how many bytes the client's system keeps for it, 0 for as many as usual."""
    where = urlsplit(service.url)
    connection = socket.socket()
    if room:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    connection.settimeout(30)
    connection.connect((where.hostname, where.port))
    return connection


def answer_of(connection: socket.socket) -> bytes:
    """All that a service says until it closes the connection."""
    said = b""
    while piece := connection.recv(65536):
        said += piece
    return said


def sockets() -> int:
    """How many this process has open: no files, of which a service that has just begun opens more by and by."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


@pytest.mark.parametrize("size", [1_000_001, 10_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long_is_answered_in_words(unchanged_team: Service, size: int, chunked: bool) -> None:
    for path, headers in ADDS:
        body: Any = iter([b"x" * 100_000] * (size // 100_000 + 1)) if chunked else b"x" * size
        request = urllib.request.Request(
            unchanged_team.url + path, body, {**headers, "Content-Type": "application/json"}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.code == 413, path
        most = "1000000" if headers else "65536"  # of those who show no proof
        assert most in refused.value.read().decode(), path
        refused.value.close()


def test_curl_reads_the_refusal_too(team: Service, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    file = tmp_path / "body"
    file.write_bytes(b"x" * 10_000_000)
    for more in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect:"]):
        line = ["curl", "-sS", "-w", "%{http_code}", "-H", "Authorization: Bearer token-of-olga", *more]
        ended = subprocess.run(
            [*line, "--data-binary", f"@{file}", team.url + ADDS[0][0]], capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stdout[-3:]) == (0, "413"), ended.stderr


def test_a_request_refused_before_its_body_is_read_is_answered(team: Service) -> None:
    for path, status in (("/api/v3/no/such/path", 404), ("/api/v3/ping", 405), ("/v4/nothing", 404), ("/nothing", 404)):
        request = urllib.request.Request(team.url + path, b"x" * 5_000_000, {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.code == status, path
        refused.value.close()


def test_a_trailer_is_not_taken_for_a_header(team: Service) -> None:
    body = json.dumps({"name": "by-trailer", "ipAddress": "192.0.2.77", "provider": "x"})
    with connected(team) as connection:
        connection.sendall(
            b"POST /api/v3/servers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\nTrailer: Authorization\r\nConnection: close\r\n\r\n"
            + b"%x\r\n%s\r\n0\r\n" % (len(body), body.encode())
            + b"Authorization: Bearer token-of-olga\r\nX-Auth-Token: token-of-olga\r\n\r\n"
        )
        assert answer_of(connection).startswith(b"HTTP/1.1 401 ")
    shown = team.call("GET", SERVERS, token="token-of-olga").text
    assert "by-trailer" not in shown


@pytest.mark.parametrize(
    "endless",
    [b"X-%d: " + b"y" * 1000 + b"\r\n", b"y" * 1000, b"1;" + b"e" * 1000 + b"\r\nx\r\n"],
    ids=["many trailers", "one long trailer", "extensions of chunks"],
)
def test_the_extensions_and_trailers_of_a_chunked_body_are_bounded(unchanged_team: Service, endless: bytes) -> None:
    with connected(unchanged_team) as connection:
        connection.sendall(
            b"POST /api/v3/servers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (b"" if endless.startswith(b"1;") else b"0\r\n" if b"\r\n" in endless else b"0\r\nX-Long: ")
        )
        sent = 0
        try:
            for number in range(70_000):
                connection.sendall(endless.replace(b"%d", b"%d" % number))
                sent += len(endless)
        except OSError:
            pass
        assert sent < 64_000_000, "it listens for ever"


@pytest.mark.parametrize("path", ["/api/v3/servers/1", "/healthz", "/docs", "/login"])
def test_a_body_that_breaks_off_in_its_first_packet_is_refused_once(
    team: Service, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    # Nobody reads the body of a method that is not supported: its answer was made, and had nowhere to go.
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\n"
    with connected(team) as connection:
        connection.sendall(head.encode())
        assert answer_of(connection).count(b"HTTP/1.1 400 ") == 1
    assert team.client.get("/healthz").status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_client_that_never_reads_is_cut_off(team: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "WRITE_SECONDS", 0.5)
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 60.0)
    assert team.call("GET", "/healthz").status_code == 200
    before = sockets()
    clients = [connected(team, room=4096) for _ in range(20)]
    try:
        for client in clients:
            client.sendall(b"GET /agent/keyrack-agent.pyz HTTP/1.1\r\nHost: x\r\n\r\n" * 30)
        # This process holds both ends of each connection; in the end only the clients' own may be left.
        most = before + len(clients) + 8
        deadline = time.monotonic() + 30
        while sockets() > most and time.monotonic() < deadline:
            time.sleep(0.05)
        assert sockets() <= most, "they are still served"
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    "request_text", ["GET /healthz HTTP/1.1\r\nHost: x\r\n", "POST /v3/auth/tokens HTTP/1.1\r\nHost: x\r\n"]
)
def test_a_client_that_stops_within_a_later_head_is_cut_off(
    team: Service, monkeypatch: pytest.MonkeyPatch, request_text: str
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    with connected(team) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in connection.recv(65536)
        connection.sendall(request_text.encode())
        began = time.monotonic()
        assert answer_of(connection) == b""
    assert time.monotonic() - began < 7, "that was the bound of a connection without a request"


def test_a_request_that_came_whole_takes_no_timer(team: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    timers = []
    real = protocol.BoundedProtocol._close_within

    def within(self: protocol.BoundedProtocol, seconds: float | None) -> None:
        if not self._parses and seconds is not None:
            timers.append(seconds)
        real(self, seconds)

    monkeypatch.setattr(protocol.BoundedProtocol, "_close_within", within)
    with connected(team) as connection:
        for _ in range(5):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in connection.recv(65536)
    assert timers == [protocol.HEAD_SECONDS], "only that of the connection, before its first request"


def test_requests_sent_ahead_are_answered_in_their_order(team: Service) -> None:
    with connected(team) as connection:
        ahead = b"".join(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" for _ in range(10))
        connection.sendall(ahead + b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = answer_of(connection)
    assert said.count(b"200 OK") == 11
    assert said.rindex(b"ready") > said.rindex(b"alive")


def test_answers_written_in_one_go_keep_their_order_and_have_an_id_each(team: Service) -> None:
    head = "GET {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-of-olga\r\n"
    paths = ["/api/v3/ping", f"{SERVERS}/1", f"{SERVERS}/1/ssh/credentials", "/api/v3/nothing", "/api/v3/ping"] * 3
    team.call("GET", "/api/v3/ping", token="token-of-olga")  # who is known is answered by the event loop itself
    with connected(team) as connection:
        connection.sendall("".join(head.format(path) + "\r\n" for path in paths).encode())
        connection.sendall((head.format(f"{SERVERS}/1") + "Connection: close\r\n\r\n").encode())
        said = answer_of(connection)
    answers = said.split(b"HTTP/1.1 ")[1:]
    kinds = [b"pong", b'"ipAddress"', b'"pagination"', b"not found", b"pong"] * 3 + [b'"ipAddress"']
    assert len(answers) == len(kinds)
    assert all(kind in answer for kind, answer in zip(kinds, answers, strict=True))
    ids = {answer.partition(b"x-request-id: ")[2][:32] for answer in answers}
    assert len(ids) == len(answers)


def test_thousands_of_requests_sent_ahead_are_cut_off(team: Service) -> None:
    answered = 0
    for _ in range(20):
        with connected(team) as connection:
            try:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 6000)
                answered += answer_of(connection).count(b"200 OK")
            except OSError:
                pass  # cut off
    assert answered <= 20 * 33, "each request read ahead costs memory and time that others wait for"


@pytest.mark.parametrize(
    "path", ["/api%2fv3/ping", "/api/v3%2Fping", "/api/v3/servers%2f1", "/v4%2fuser/keys", "/agent/v1%2fdocument"]
)
def test_an_encoded_slash_separates_nothing(unchanged_team: Service, path: str) -> None:
    headers = {"Authorization": "Bearer token-of-olga", "X-Auth-Token": "token-of-olga"}
    assert unchanged_team.call("GET", path, headers=headers).status_code == 404


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("//api/v3/ping", {"message"}),
        ("//api/keyrack/v1/servers", {"error"}),
        ("///v4/user/keys", {"error_code", "error_msg"}),
        ("//v1/users/sshkey", {"error", "status"}),
        ("//v3/auth/tokens", {"error"}),
        ("/api//v4/user/keys", {"error"}),
        ("//api/github/user", {"documentation_url", "message", "status"}),
        ("//agent/v1/document", {"error"}),
    ],
)
def test_two_slashes_are_refused_by_the_api_that_was_meant(
    unchanged_team: Service, path: str, fields: set[str]
) -> None:
    """As a base address with a slash at its end makes them: the program shows what it can read."""
    answer = unchanged_team.client.get(unchanged_team.url + path, headers={"Authorization": "Bearer token-of-olga"})
    assert (answer.status_code, set(answer.json())) == (404, fields)


NO_TEXT = ["\\u0000", "\\ud800", "a\\udfffb"]


@pytest.fixture
def held(database_url: str, tmp_path: Path) -> Iterator[Service]:
    """A service with the team, once on each database: one of them takes no NUL."""
    with running(settings_for(tmp_path / "data", database_url)) as service:
        service.apply(TEAM)
        yield service


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/agent/v1/document//", 404), ("GET", "/agent/v1/nothing", 404), ("PUT", "/agent/v1/report", 405)],
)
def test_agents_are_refused_in_their_own_shape(unchanged_team: Service, method: str, path: str, status: int) -> None:
    answer = unchanged_team.call(method, path, follow_redirects=False)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_a_flood_of_malformed_requests_does_not_flood_the_log(
    team: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in logging.getLogger("uvicorn.error.http").filters:
        monkeypatch.setattr(bound, "_minute", -1)  # what other tests sent in this minute does not count
    logging.getLogger("uvicorn").addHandler(caplog.handler)
    for request in (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"\x16\x03\r\n\r\n",
    ):
        for _ in range(20):
            with connected(team) as connection:
                connection.sendall(request)
                connection.recv(65536)
    logging.getLogger("uvicorn").removeHandler(caplog.handler)
    assert 1 <= len(caplog.records) <= 10
    assert "pip install" not in caplog.text


# Java's HttpClient offers HTTP/2 with the first request to each http:// address, and so does curl --http2.
OFFERS = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n",
    b"Upgrade: websocket\r\nconnection: keep-alive, upgrade\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: TLS/1.0\r\n",
)


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("cut", [0, 20, -3, None])
def test_an_offer_of_another_protocol_is_ignored_and_its_body_read(
    team: Service, offer: bytes, chunked: bool, cut: int | None
) -> None:
    body = b'{"title": "of an offer"}'
    length = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % len(body)
    head = b"POST /v4/user/keys HTTP/1.1\r\nHost: x\r\nX-Auth-Token: token-of-alice\r\n" + offer + length + b"\r\n"
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    after = b"GET /v4/user/keys HTTP/1.1\r\nHost: x\r\nX-Auth-Token: token-of-alice\r\nConnection: close\r\n\r\n"
    with connected(team) as connection:
        whole = head + sent + after
        places = {0: len(head), 20: 20, -3: len(head + sent) - 3, None: len(whole)}
        connection.sendall(whole[: places[cut]])
        time.sleep(0.05)  # so that they come in two packets
        connection.sendall(whole[places[cut] :])
        said = answer_of(connection)
    assert re.findall(rb"HTTP/1\.1 (\d+)", said) == [b"201", b"200"], said
    listed = json.loads(said.rpartition(b"\r\n\r\n")[2])
    assert [key["title"] for key in listed["keys"]] == ["of an offer"]


def test_offers_that_come_in_one_packet_are_answered_in_order(unchanged_team: Service) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n%b\r\n"
    with connected(unchanged_team) as connection:
        connection.sendall(b"".join(ask % offer for offer in OFFERS) + ask % b"Connection: close\r\n")
        assert re.findall(rb"HTTP/1\.1 (\d+)", answer_of(connection)) == [b"200"] * 4


@pytest.mark.parametrize("target", [b"x:1", b"/healthz", b"*"])
def test_a_tunnel_is_refused(unchanged_team: Service, target: bytes) -> None:
    with connected(unchanged_team) as connection:
        connection.sendall(b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert re.findall(rb"HTTP/1\.1 (\d+)", answer_of(connection)) == [b"400"]


@pytest.mark.parametrize("blanks", [b" ", b"\t", b" \t "])
def test_blanks_behind_a_value_are_no_part_of_it(team: Service, blanks: bytes) -> None:
    body = b'{"title": "x"}'
    values = {
        b"Host": b"x",
        b"X-Auth-Token": b"token-of-alice",
        b"Content-Type": b"application/json",
        b"Content-Length": b"%d" % len(body),
        b"Content-Encoding": b"identity",
        b"Connection": b"close",
    }
    fields = b"".join(b"%b:%b%b%b\r\n" % (name, blanks, value, blanks) for name, value in values.items())
    with connected(team) as connection:
        connection.sendall(b"POST /v4/user/keys HTTP/1.1\r\n" + fields + b"\r\n" + body)
        said = answer_of(connection)
    assert said.startswith(b"HTTP/1.1 201"), said
    assert json.loads(said.partition(b"\r\n\r\n")[2])["title"] == "x"


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "x"])
def test_a_content_coding_counts_only_where_a_body_does(team: Service, coding: str) -> None:
    headers = {"Authorization": "Bearer token-of-olga", "X-Auth-Token": "token-of-alice", "Content-Encoding": coding}
    packed = gzip.compress(b'{"title": "x"}')
    for path, status in (("/v4/user/keys", 400), ("/api/v3/servers", 422), ("/api/v4/user/keys", 400)):
        sent = headers
        if path.startswith("/api/v4"):
            sent = {"Content-Encoding": coding, "PRIVATE-TOKEN": "token-of-alice"}
        assert team.call("POST", path, headers=sent, content=packed).status_code == status, path
        assert team.call("GET", path, headers=sent).status_code == 200, path
        assert team.call("GET", path, headers=sent, content=packed).status_code == 200, path
    assert team.call("DELETE", "/v4/user/keys/99", headers=headers).status_code == 404
    assert team.call("GET", "/v4/user/keys", headers={"X-Auth-Token": "token-of-alice"}).json()["total"] == 0


@pytest.mark.parametrize("role", ["9" * 5000, "\u0664", 10**400, "", None, True, [40]])
def test_a_role_that_is_no_number_is_refused(team: Service, role: object) -> None:
    headers = {"X-Auth-Token": "token-of-olga"}
    body = {"name": "site", "project_uuid": "aa2d97d7e62c4b7da3ffdfc11551f878"}
    made = team.call("POST", "/v1/repositories", headers=headers, json=body).json()["result"]["repository_uuid"]
    answer = team.call("PUT", f"/v1/repositories/{made}/members/someone", headers=headers, json={"role": role})
    assert (answer.status_code, answer.json()["status"]) == (400, "failed")


def test_text_that_is_not_utf_8_is_refused_everywhere(held: Service) -> None:
    olga = {"Authorization": "Bearer token-of-olga", "X-Auth-Token": "token-of-olga"}
    key = "AAAAC3NzaC1lZDI1NTE5AAAAIHIRbfEUwbS5A/6b6HLVEWWJmeUNEZ2mRfWWONaec+Id"
    sign_in = '{"auth": {"identity": {"methods": ["password"], "password": {"user": %s}}}}'
    bodies = (
        ("POST", "/v3/auth/tokens", sign_in % '{"name": "olga", "password": "%s", "domain": {"name": "acme"}}'),
        ("POST", "/v3/auth/tokens", sign_in % '{"name": "%s", "password": "x", "domain": {"name": "acme"}}'),
        ("POST", "/v3/auth/tokens", sign_in % '{"name": "olga", "password": "x", "domain": {"name": "%s"}}'),
        ("POST", "/v3/auth/tokens", sign_in % '{"id": "%s", "password": "x"}'),
        ("POST", "/v3/users", '{"user": {"name": "%s", "domain_id": "x"}}'),
        ("POST", "/v4/user/keys", '{"title": "%s", "key": "ssh-ed25519 ' + key + '"}'),
        ("POST", "/v1/users/sshkey", '{"title": "%s", "key": "ssh-ed25519 ' + key + '"}'),
        ("POST", "/v1/users/sshkey", '{"%s": "t", "title": "t", "key": "k"}'),
        ("POST", "/api/v3/servers", '{"name": "n", "ipAddress": "192.0.2.9", "provider": "%s"}'),
        ("POST", "/api/v3/servers", '{"name": "%s", "ipAddress": "192.0.2.9", "provider": "x"}'),
        ("PATCH", "/api/keyrack/v1/servers/1", '{"mode": "%s"}'),
        ("POST", "/agent/v1/enroll", '{"token": "%s"}'),
    )
    for method, path, template in bodies:
        for character in NO_TEXT:
            body = template.replace("%s", character)
            answer = held.call(method, path, content=body, headers={**olga, "Content-Type": "application/json"})
            assert answer.status_code in (400, 401, 403, 422), (path, body, answer.text)
    paths = ("/v3/users/%00", "/v3.0/OS-CREDENTIAL/credentials/a%00", "/v4/repositories/%00", "/api/v3/servers/%00")
    for path in (*paths, "/api/keyrack/v1/servers/w%00b", "/v1/repositories/%00/deploy_keys", "/v3/users/%ed%a0%80"):
        assert held.call("GET", path, headers=olga).status_code in (400, 404, 405, 422), path
    form = {**olga, "Content-Type": "application/x-www-form-urlencoded"}
    answer = held.call("POST", "/api/v3/servers", content="name=%00&ipAddress=192.0.2.9&provider=x", headers=form)
    assert answer.status_code == 422
    for path in ("/api/v3/servers?search=%00", "/v4/user/keys?query=%00", "/api/keyrack/v1/servers?search=%00"):
        assert held.call("GET", path, headers=olga).status_code in (400, 422), path
    basic = "Basic " + base64.b64encode(b"a\0b:secret").decode()
    assert held.call("GET", "/api/v2/ping", headers={"Authorization": basic}).status_code == 401


def test_malformed_text_in_a_report_is_mended_and_not_refused(held: Service) -> None:
    agent = Agent(held, 1)
    report = '{"revision": 0, "state": "refused", "problems": ["caf\\udce9 \\u0000"], "agent_version": "1"}'
    answer = held.call("POST", "/agent/v1/report", content=report, token=agent.secret)
    assert answer.status_code == 200, answer.text
    events = held.call("GET", "/api/keyrack/v1/events", token="token-of-olga").json()["items"]
    assert any("caf" in event["summary"] for event in events)


ASKED = (
    ("/api/v3/servers", {"Authorization": "Bearer token-of-olga"}),
    ("/api/v2/servers", {"Authorization": "Bearer token-of-olga"}),
    ("/api/keyrack/v1/servers", {"Authorization": "Bearer token-of-olga"}),
    ("/v4/user/keys", {"X-Auth-Token": "token-of-olga"}),
    ("/v1/users/sshkey", {"X-Auth-Token": "token-of-olga"}),
    ("/v3/auth/tokens", {"X-Auth-Token": "token-of-olga", "X-Subject-Token": "token-of-olga"}),
    ("/agent/v1/document", {"Authorization": "Bearer none"}),
)


def test_an_internal_error_does_not_ask_to_try_again(team: Service) -> None:
    for table in ("tokens", "servers"):
        statement = f"ALTER TABLE {table} RENAME TO x{table}"
        team.instance.database.write(partial(Connection.exec_driver_sql, statement=statement))
    for path, headers in ASKED:
        answer = team.call("GET", path, headers=headers)
        assert answer.status_code == 500, path
        assert "retry-after" not in answer.headers
        assert answer.json(), path


def test_a_database_that_is_away_is_a_reason_to_try_again(cluster: Cluster, tmp_path: Path) -> None:
    url = cluster.create_database()
    with running(settings_for(tmp_path / "data", url)) as service:
        service.apply(TEAM)
        cluster.drop_database(url)
        for path, headers in ASKED:
            answer = service.call("GET", path, headers=headers)
            assert answer.status_code == 503, (path, answer.text)
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json(), path


LINE = "GET /healthz HTTP/1.1\r\n"
AMBIGUOUS = (
    LINE + "\r\n",
    LINE + "Host: a\r\nHost: b\r\n\r\n",
    LINE + "Host: a\r\nHost: a\r\n\r\n",
    LINE + "Host: a b\r\n\r\n",
    LINE + "Host: a/b\r\n\r\n",
    LINE + "Host: user@a\r\n\r\n",
    LINE + "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    LINE.replace("1.1", "2.0") + "Host: a\r\n\r\n",
)


@pytest.mark.parametrize("request_text", AMBIGUOUS)
def test_an_ambiguous_request_head_is_refused(unchanged_team: Service, request_text: str) -> None:
    with connected(unchanged_team) as connection:
        connection.sendall(request_text.encode())
        assert answer_of(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("head", ["GET /healthz HTTP/1.0\r\n", LINE + "Host:\r\n", LINE + "Host: [::1]:8022\r\n"])
def test_a_head_with_one_meaning_is_accepted(unchanged_team: Service, head: str) -> None:
    with connected(unchanged_team) as connection:
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")


NOT_ENCODED = (
    b"An address begins with a slash, and all in it that is a blank or not ASCII is written as %XX of its UTF-8."
)


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200_000, 431, b"The request's head is too long."),
        (b"GET /" + b"x" * 200_000, 431, b"The request's head is too long."),
        (b"NO HTTP AT ALL\r\n\r\n", 400, b"Invalid HTTP request received."),
        ("GET /v4/user/keys?query=büro HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 400, NOT_ENCODED),
        (b"GET healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400, NOT_ENCODED),
        ("GET /api/v3/servers/büro HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 400, NOT_ENCODED),
    ],
)
def test_a_malformed_request_is_answered_with_a_request_id(
    unchanged_team: Service, sent: bytes, status: int, words: bytes
) -> None:
    with connected(unchanged_team) as connection:
        connection.sendall(sent)
        head, _, body = answer_of(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert re.search(rb"\r\nx-request-id: [0-9a-f]{32}(\r\n|$)", head)
    assert body == words
