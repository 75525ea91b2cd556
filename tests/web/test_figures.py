"""Metrics: closed unless a setting opens them, with figures of ours; the log names the request in each line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2

from tests import plain_http
from tests.ports import free_port
from tests.services import Service
from tests.web.runcloud_team import Agent, serving

TOKEN = f"kr_{'abc-_' * 9}"
FIGURES = ("keyrack_requests_total", "keyrack_agents_waiting", "keyrack_hosts_behind", "keyrack_delivery_seconds")


def test_metrics_are_closed_unless_opened(team: Service) -> None:
    answer = team.call("GET", "/metrics")
    assert answer.status_code == 404
    assert "metrics_listen" in answer.text


def test_metrics_behind_a_token_and_at_an_address_of_their_own(team_folder: Path, tmp_path: Path) -> None:
    port = free_port()
    more = {"metrics_token": "a tökén to read metrics", "metrics_listen": f"127.0.0.1:{port}"}
    with serving(team_folder, tmp_path / "data", **more) as service:
        Agent(service, 1).obey()
        assert service.call("GET", "/api/v3/ping", token="wrong").status_code == 401
        assert service.call("GET", "/metrics").status_code == 401
        assert service.call("GET", "/metrics", token="token-of-olga").status_code == 401
        for text in (
            plain_http.get(
                service.url + "/metrics", headers={b"Authorization": "Bearer a tökén to read metrics".encode()}
            ).text,
            plain_http.get(f"http://127.0.0.1:{port}/metrics").text,
        ):
            for name in (*FIGURES, "keyrack_events_total", "keyrack_refused_proofs_total"):
                assert name in text
            assert 'keyrack_requests_total{api="/api/v3",outcome="4xx"} 1.0' in text
            assert 'keyrack_refused_proofs_total{kind="token",why="wrong"} 1.0' in text
            assert "olga" not in text


def test_each_line_of_the_log_names_its_request(tmp_path: Path) -> None:
    port = free_port()
    line = [sys.executable, "-m", "keyrack.cli.main", "serve", "--data", str(tmp_path), "--listen", f"127.0.0.1:{port}"]
    environment = {**os.environ, "KEYRACK_LOG_FORMAT": "json", "KEYRACK_TRUSTED_PROXIES": "127.0.0.1"}
    with (tmp_path / "log").open("w") as log:
        service = subprocess.Popen(line, stderr=log, env=environment)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    headers = {"X-Forwarded-For": "203.0.113.5"}
                    answer = plain_http.get(f"http://127.0.0.1:{port}/api/v3/servers?secret=1", headers=headers)
                    named_by_itself = f"http://127.0.0.1:{port}/api/keyrack/v1/tokens/{TOKEN}"
                    plain_http.get(named_by_itself, headers=headers)
                    break
                except httpx2.TransportError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(30)
    lines = (tmp_path / "log").read_text().splitlines()
    assert any("listening" in line and str(port) in line for line in lines), lines
    logged = [json.loads(line) for line in lines if answer.headers["x-request-id"] in line]
    assert [(one["event"], one["path"], one["status"], one["address"]) for one in logged] == [
        ("refused", "/api/v3/servers", 401, "203.0.113.5")
    ]
    assert not re.search("secret", "".join(lines))
    assert any("/api/keyrack/v1/tokens/kr_abc" in line for line in lines)
    assert not any(TOKEN in line for line in lines)
