"""Webhooks, syslog and a file of events, with real receivers: signed, at least once, not into private networks."""

from __future__ import annotations

import hmac
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from keyrack.cli.main import main
from keyrack.core.audit import alarms, webhooks
from keyrack.core.audit.webhooks import DueDeliveries
from keyrack.core.keys.key_sync import HttpAnswer
from keyrack.core.people.actors import system_actor
from keyrack.store.audit import events
from keyrack.store.audit import webhooks as stored
from keyrack.store.tables import events as event_rows
from keyrack.store.tables import webhooks as webhook_rows
from tests.core.test_audit_chain import rewrite
from tests.services import Service, running, settings_for
from tests.waiting import DEADLINE_SECONDS
from tests.web.test_native import call

PATH = "/webhooks"


class Receiver:
    """A service elsewhere that takes events. status: what it answers next, then 200."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        self.statuses: list[int] = []
        self.url = ""

    def events(self) -> list[Any]:
        """What came, without the tests."""
        return [delivery["event"] for delivery in (json.loads(body) for _, body in self.got) if delivery["event"]]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a port of its own, until the block ends."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.paths.append(self.path)
            receiver.got.append((dict(self.headers.items()), body))
            status = receiver.statuses.pop(0) if receiver.statuses else 200
            self.send_response(status)
            if status == 302:
                self.send_header("Location", receiver.url + "elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def eventually(question: Callable[[], Any]) -> Any:
    """The first answer that is one, or a failure after a while."""
    until = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < until:
        found = question()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver elsewhere."""
    with receiving() as made:
        yield made


@pytest.fixture
def team(team_folder: Path, tmp_path: Path) -> Iterator[Service]:
    """The team's service, which may send to this machine, and writes events to a file and to syslog."""
    folder = tmp_path / "data"
    shutil.copytree(team_folder, folder)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        more = {"webhook_networks": "127.0.0.0/8", "syslog": f"unix:{tmp_path / 'log'}"}
        with running(settings_for(folder, "", event_lines=tmp_path / "events.jsonl", **more)) as service:
            service.log = log  # type: ignore[attr-defined]
            yield service


def test_putting_a_webhook_by_its_address_twice_changes_nothing(team: Service) -> None:
    wanted = {"url": "https://alerts.example.org/keyrack", "level": "alarm", "actions": ["grants:*"]}
    made = call(team, "PUT", PATH, wanted)
    assert made["secret"].startswith("krwh_")
    again = call(team, "PUT", PATH, wanted)
    assert again == made | {"secret": None}
    assert call(team, "PUT", PATH, wanted | {"secret": made["secret"]})["secret"] is None
    event = call(team, "GET", "/events")["items"][0]
    assert call(team, "PUT", PATH, wanted)["id"] == made["id"]
    assert call(team, "GET", "/events")["items"][0] == event
    changed = call(team, "PUT", PATH, wanted | {"level": "warning"})
    assert (changed["id"], changed["level"], changed["actions"]) == (made["id"], "warning", ["grants:*"])
    other = call(team, "PUT", PATH, wanted | {"secret": "another secret of mine"})
    assert (other["id"], other["secret"]) == (made["id"], "another secret of mine")
    held = team.instance.database.read(lambda connection: stored.get(connection, 1, made["id"]))
    assert held is not None
    context = f"webhook 1 {wanted['url']}"
    assert team.instance.key.decrypt(held.encrypted_secret, context) == "another secret of mine"
    call(team, "PUT", PATH, wanted | {"url": "ftp://alerts.example.org/"}, status=422)
    call(team, "PUT", PATH, wanted, token="token-of-alice", status=403)
    call(team, "POST", PATH, wanted, status=201)
    assert call(team, "PUT", PATH, wanted, status=409)["error"]["code"] == "several-webhooks"


def test_an_alarm_arrives_signed_within_seconds_and_is_shown(team: Service, receiver: Receiver) -> None:
    url = f"{receiver.url.removesuffix('/')}?token=here"  # without a path, which is / then
    made = call(team, "POST", PATH, {"url": url}, status=201)
    (listed,) = call(team, "GET", PATH)["items"]
    assert made == {**listed, "secret": made["secret"]}
    call(team, "PUT", "/groups/ops", {"members": ["alice"]})  # of level info: not sent
    alarms.raise_once(team.instance, 1, "seal-broken", "A row was changed.")
    eventually(receiver.events)
    headers, body = receiver.got[-1]
    assert receiver.paths[-1] == "/?token=here"
    (event,) = [one for one in receiver.events() if one["level"] == "alarm"]
    assert (event["summary"], event["server_id"]) == ("Alarm: A row was changed.", 1)
    stamp = headers["X-Keyrack-Timestamp"].encode()
    assert abs(int(stamp) - time.time()) < 60
    signed = hmac.new(made["secret"].encode(), stamp + b"." + body, "sha256").hexdigest()
    assert headers["X-Keyrack-Signature"] == f"sha256={signed}"
    sent = eventually(lambda: [one for one in deliveries(team, made["id"]) if one["state"] == "delivered"])[0]
    assert (str(sent["id"]), sent["event"], sent["status"]) == (headers["X-Keyrack-Delivery"], event["id"], 200)
    held = team.instance.database.read(lambda c: c.execute(webhook_rows.select()).mappings().one())
    assert made["secret"].encode() not in held["encrypted_secret"]
    assert made["secret"] not in json.dumps(call(team, "GET", "/events?per_page=200"))


def test_kept_deliveries_prove_what_the_audit_log_was(team: Service, receiver: Receiver, tmp_path: Path) -> None:
    made = call(team, "POST", PATH, {"url": receiver.url}, status=201)
    eventually(lambda: team.instance.checkpoints.newest)
    call(team, "POST", f"{PATH}/{made['id']}/test", status=202)
    kept = tmp_path / "delivery"
    kept.write_bytes(eventually(lambda: receiver.got)[0][1])

    def verified(*more: str) -> str:
        ended = CliRunner().invoke(main, ["audit", "verify", "--data", str(team.instance.settings.data), *more])
        return f"{ended.exit_code} {ended.output}"

    assert verified("--witness", str(kept)).startswith("0 The audit log is as it was")
    # By whoever holds the instance's key: nothing of it is unsealed.
    rewrite(team.instance, event_rows.update().values(summary="nothing happened"))
    assert verified().startswith("0 ")
    assert "are not those that were seen by a witness" in verified("--witness", str(kept))
    kept.write_text("{}")
    assert "holds no checkpoint" in verified("--witness", str(kept))


def deliveries(team: Service, webhook: int) -> list[Any]:
    """What was sent to a webhook, newest first."""
    found: list[Any] = call(team, "GET", f"{PATH}/{webhook}/deliveries")["items"]
    return found


def stop_the_clock(team: Service) -> datetime:
    """Nothing comes to be due any more, however long a test takes: when it is now."""
    now = team.instance.now()
    object.__setattr__(team.instance, "now", lambda: now)
    return now


def test_a_refused_delivery_is_tried_again_and_no_redirect_is_followed(team: Service, receiver: Receiver) -> None:
    now = stop_the_clock(team)
    made = call(team, "POST", PATH, {"url": receiver.url, "secret": "s" * 20, "level": "alarm"}, status=201)
    receiver.statuses = [302]
    queued = call(team, "POST", f"{PATH}/{made['id']}/test", status=202)
    waiting = eventually(lambda: [one for one in deliveries(team, made["id"]) if one["attempts"]])[0]
    assert (waiting["id"], waiting["state"], waiting["status"]) == (queued["id"], "waiting", 302)
    assert waiting["words"] == "It answered 302, a redirect, which is not followed."
    assert len(receiver.got) == 1
    object.__setattr__(team.instance, "now", lambda: now + webhooks.WAITS[0])
    eventually(lambda: deliveries(team, made["id"])[0]["state"] == "delivered")
    assert [json.loads(body)["type"] for _, body in receiver.got] == ["test"] * 2
    assert len({headers["X-Keyrack-Delivery"] for headers, _ in receiver.got}) == 1
    assert team.call("DELETE", f"/api/keyrack/v1{PATH}/{made['id']}", token="token-of-olga").status_code == 204
    assert call(team, "GET", PATH)["items"] == []


def test_a_name_that_is_not_found_is_named(team: Service) -> None:
    nowhere = call(team, "POST", PATH, {"url": "https://no-such-name.invalid/", "level": "alarm"}, status=201)
    call(team, "POST", f"{PATH}/{nowhere['id']}/test", status=202)
    tried = eventually(lambda: [one for one in deliveries(team, nowhere["id"]) if one["attempts"]])[0]
    assert tried["words"] == "no-such-name.invalid: its name was not found"


def test_deliveries_that_waited_are_sent_after_a_restart_and_given_up_at_last(team: Service) -> None:
    stop_the_clock(team)
    made = call(team, "POST", PATH, {"url": "http://127.0.0.1:1/", "level": "alarm"}, status=201)
    alarms.raise_once(team.instance, 1, "seal-broken", "A row was changed.")
    first = eventually(lambda: [one for one in deliveries(team, made["id"]) if one["attempts"]])[0]
    assert (first["status"], first["words"]) == (None, "127.0.0.1: it was not reached: Connection refused")

    def nobody(url: str, headers: Any, body: bytes) -> HttpAnswer:
        return HttpAnswer(500, {}, b"")

    (webhook,) = team.instance.database.read(stored.active)
    for _ in range(len(webhooks.WAITS)):
        (one,) = team.instance.database.read(lambda c: stored.deliveries(c, webhook.id, None, 5))
        assert one.event_id is not None
        event = team.instance.database.read(lambda c, number=one.event_id: events.get(c, 1, number))  # type: ignore[misc]
        assert event is not None
        assert webhooks.send(team.instance, DueDeliveries(webhook, (one,), {one.event_id: event}), nobody) == 0
    (last,) = deliveries(team, made["id"])
    assert (last["state"], last["attempts"], last["next_at"]) == ("failed", len(webhooks.WAITS) + 1, None)


def test_addresses_and_people_that_may_not_be(team: Service, team_folder: Path, tmp_path: Path) -> None:
    for body, field in (
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "https://user:secret@example.org/"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://example.org/ x"}, "url"),
        ({"url": "https://example.org:0/"}, "url"),
        ({"url": "https://example.org/#"}, "url"),
        ({"url": "https://example.org/", "secret": "short"}, "secret"),
        ({"url": "https://example.org/", "level": "loud"}, "level"),
        ({"url": "https://example.org/", "actions": ["a b"]}, "actions"),
    ):
        assert call(team, "POST", PATH, body, status=422)["error"]["field"] == field
    call(team, "POST", PATH, {"url": "https://example.org/"}, token="token-of-alice", status=403)
    call(team, "GET", PATH, token="token-of-audrey")
    # What would be sent there is the log, which this token may not read.
    made = call(team, "POST", "/tokens", {"name": "hooks", "scopes": ["webhooks:*"]}, status=201)
    words = call(team, "POST", PATH, {"url": "https://example.org/"}, token=made["token"], status=403)["error"]
    assert "events:read" in words["message"]
    assert call(team, "GET", PATH, token=made["token"])["items"] == []
    folder = tmp_path / "other"
    shutil.copytree(team_folder, folder)
    with running(settings_for(folder, "")) as other:
        error = call(other, "POST", PATH, {"url": "http://example.org/"}, status=422)["error"]
        assert (error["field"], "webhook_networks names" in error["message"]) == ("url", True)
        for host in ("127.0.0.1:9", "[::ffff:10.0.0.1]", "localhost", "[fe80::1]", "169.254.169.254"):
            error = call(other, "POST", PATH, {"url": f"https://{host}/"}, status=422)["error"]
            assert (error["field"], "webhook_networks would allow it" in error["message"]) == ("url", True), host
        # What was allowed once, or is a name, is judged anew by its address whenever it is sent to.
        allowing = replace(other.instance, settings=replace(other.instance.settings, webhook_networks="127.0.0.0/8"))
        webhooks.create(allowing, system_actor(1), url="https://127.0.0.1:9/")
        (made,) = call(other, "GET", PATH)["items"]
        call(other, "POST", f"{PATH}/{made['id']}/test", status=202)
        tried = eventually(lambda: [one for one in deliveries(other, made["id"]) if one["attempts"]])[0]
        assert "webhook_networks would allow it" in tried["words"]


def test_each_event_is_a_line_of_json_and_of_syslog(team: Service, tmp_path: Path) -> None:
    noted = tmp_path / "data" / "sinks.json"  # for the one first, then for the other

    def handed_on() -> bool:
        newest = team.instance.database.read(events.newest_id)
        marks = json.loads(noted.read_text()) if noted.exists() else {}
        return {name: known[0][0] for name, known in marks.items()} == {"syslog": newest, "event_lines": newest}

    eventually(handed_on)
    call(team, "PUT", "/groups/ops", {"members": ["alice"]})
    path = tmp_path / "events.jsonl"
    lines = eventually(lambda: path.exists() and path.read_text().splitlines())
    (delivered,) = [json.loads(line) for line in lines]
    newest = call(team, "GET", "/events?per_page=1")["items"][0]
    assert (delivered["id"], delivered["summary"], delivered["actor"]) == (newest["id"], newest["summary"], "olga")
    line = team.log.recv(10_000).decode()  # type: ignore[attr-defined]
    assert line.startswith("<110>1 ")
    assert json.loads(line.partition(" event - ")[2]) == delivered
    path.rename(tmp_path / "rotated")
    call(team, "DELETE", "/groups/nobody", status=404)
    call(team, "PUT", "/groups/dev", {"members": []})
    assert "dev" in eventually(lambda: path.exists() and path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    eventually(handed_on)  # else what is said of "dev" comes before what follows is looked at
    # Where it cannot be noted how far it is, as on a full disk, it goes on, each event once, and says so once.
    with capture_logs() as logged:  # wherever a test before had the lines of this process go
        (tmp_path / "data" / "sinks.new").mkdir()
        for name in ("one", "two", "three"):
            call(team, "PUT", f"/groups/{name}", {"members": []})
            eventually(lambda name=name: f"Made group {name}" in path.read_text())  # type: ignore[misc]
    assert path.read_text().count("Made group one") == 1
    (said,) = [line for line in logged if line["event"] == "events are not handed on"]
    assert "sinks.new" in said["why"]
