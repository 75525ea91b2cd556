"""Where requests come from behind proxies: the last hop that is not trusted, and nothing that a client wrote."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from keyrack.settings import Settings
from keyrack.web.proxies import Proxies
from tests.plain_http import PLAIN
from tests.ports import free_port
from tests.web.runcloud_team import serving


def seen(peer: str, *headers: tuple[str, str], header: str = "x-forwarded-for") -> tuple[str, Any]:
    """The address and whether it counts as shared, for a peer with headers; 127.0.0.1 and 10/8 are trusted."""
    trusted = [ipaddress.ip_network("127.0.0.1"), ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    scope: dict[str, Any] = {"client": (peer, 4711), "headers": raw, "scheme": "http"}
    Proxies(trusted, header).set_client(scope)
    return scope["client"][0], scope.get("state", {}).get("shared_address", False)


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("198.51.100.1, 203.0.113.5", "203.0.113.5"),
        ("203.0.113.5, 10.1.2.3", "203.0.113.5"),
        ("6.6.6.6, 203.0.113.5, 10.1.2.3, 10.9.9.9", "203.0.113.5"),
        ("203.0.113.5:4711", "203.0.113.5"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("10.1.2.3", "10.1.2.3"),
        ("203.0.113.5, unknown", "127.0.0.1"),
        ("203.0.113.5, unknown, 10.1.2.3", "10.1.2.3"),
        ("", "127.0.0.1"),
        (",,,", "127.0.0.1"),
        ('"; DROP TABLE events', "127.0.0.1"),
    ],
)
def test_the_last_hop_that_is_not_trusted_is_the_client(value: str, client: str) -> None:
    # Where only a proxy's own address is known, all of its clients have that.
    shared = client.startswith(("127.", "10."))
    assert seen("127.0.0.1", ("X-Forwarded-For", value)) == (client, shared)


def test_each_proxy_may_add_a_header_line_of_its_own() -> None:
    lines = (("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "203.0.113.5"), ("X-Forwarded-For", "10.0.0.1"))
    assert seen("127.0.0.1", *lines) == ("203.0.113.5", False)


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=203.0.113.5;proto=https;by=10.0.0.1", "203.0.113.5"),
        ('for=6.6.6.6, for="[2001:db8::1]:4711"', "2001:db8::1"),
        ("for=203.0.113.5, for=10.0.0.1", "203.0.113.5"),
        ("for=_hidden", "127.0.0.1"),
        ("proto=https", "127.0.0.1"),
    ],
)
def test_forwarded_is_read_where_the_proxies_write_it(value: str, client: str) -> None:
    lying = ("X-Forwarded-For", "6.6.6.6")
    assert seen("127.0.0.1", ("Forwarded", value), lying, header="forwarded") == (client, client == "127.0.0.1")
    # A client can send the other header through a proxy that does not know it.
    assert seen("127.0.0.1", ("Forwarded", value)) == ("127.0.0.1", True)


def test_forwarded_addresses_count_only_from_trusted_proxies() -> None:
    assert seen("203.0.113.9") == ("203.0.113.9", False)
    assert seen("203.0.113.9", ("X-Forwarded-For", "10.0.0.1")) == ("203.0.113.9", True)
    assert seen("203.0.113.9", ("Forwarded", "for=10.0.0.1")) == ("203.0.113.9", True)


@pytest.mark.parametrize("value", ["localhost", "10.0.0.1/8", "127.0.0.1 10.0.0.1", "*"])
def test_a_setting_that_names_no_network_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="trusted_proxies"):
        Settings(trusted_proxies=value)


NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {url};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_read_timeout 60s;
        }}
    }}
}}
"""


def test_behind_a_real_nginx(team_folder: Path, tmp_path: Path) -> None:
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(program).exists():
        pytest.skip("no nginx")
    with serving(team_folder, tmp_path / "data", trusted_proxies="127.0.0.1") as service:
        port = free_port()
        (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=port, url=service.url))
        proxy = subprocess.Popen([program, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)])
        try:
            for address in ("127.0.0.2", "127.0.0.3"):
                with httpx2.Client(transport=httpx2.HTTPTransport(verify=PLAIN, local_address=address)) as client:
                    body = {"name": address, "ipAddress": "192.0.2.9", "provider": "x"}
                    lying = {"Authorization": "Bearer token-of-olga", "X-Forwarded-For": "6.6.6.6"}
                    deadline = time.monotonic() + 20
                    while True:
                        try:
                            answer = client.post(f"http://127.0.0.1:{port}/api/v3/servers", json=body, headers=lying)
                            break
                        except httpx2.ConnectError:
                            assert time.monotonic() < deadline
                            time.sleep(0.05)
                    assert answer.status_code == 200, answer.text
        finally:
            proxy.terminate()
            proxy.wait(20)
        rows = "SELECT address FROM events WHERE summary LIKE '%127.0.0.%' ORDER BY id"
        found = service.instance.database.read(lambda connection: connection.execute(text(rows)).scalars().all())
        assert list(found) == ["127.0.0.2", "127.0.0.3"]
