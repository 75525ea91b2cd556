"""A resolver that never answers holds nobody for long: a real one, in a network with an /etc/resolv.conf of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Neither this machine's network nor its settings are touched; a name server takes what it is asked and says nothing.
PRIVATE = 'ip link set lo up; mount --bind "$1" /etc/resolv.conf; shift; exec "$@"'
SILENT = "import socket; server = socket.socket(type=socket.SOCK_DGRAM); server.bind(('127.0.0.1', 53)); "
BOUNDED = "from keyrack.core import resolving; resolving.SECONDS = 1.0; "

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"), reason="its own network takes root"
)


def said(tmp_path: Path, program: str, options: str = "timeout:30 attempts:5") -> list[str]:
    """What a program prints where no name server answers. Raises TimeoutExpired where it waits too long."""
    settings = tmp_path / "resolv.conf"
    settings.write_text(f"nameserver 127.0.0.1\noptions {options}\n")
    given = ["unshare", "-mn", "--propagation", "private", "sh", "-ec", PRIVATE, "sh", str(settings)]
    ended = subprocess.run(
        [*given, sys.executable, "-c", SILENT + program], capture_output=True, text=True, timeout=60, check=True
    )
    return ended.stdout.splitlines()


def test_a_request_to_an_address_whose_name_does_not_resolve_is_given_up(tmp_path: Path) -> None:
    program = (
        "from keyrack.settings import Settings; from keyrack.web.outgoing import Outgoing\n"
        "from keyrack.core.keys.key_sync import NoHttpAnswer\n"
        "try: Outgoing(Settings())('https://keys.example/', {})\n"
        "except NoHttpAnswer as refused: print(refused)\n"
    )
    assert said(tmp_path, BOUNDED + program) == ["keys.example: the name keys.example was not found within 1 seconds"]


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_a_syslog_server_whose_name_does_not_resolve_is_given_up(tmp_path: Path, scheme: str) -> None:
    program = (
        "from keyrack.core.audit import sinks\n"
        f"try: sinks._send('{scheme}://log.example', [b'x'])\n"
        "except OSError as late: print(type(late).__name__)\n"
    )
    assert said(tmp_path, BOUNDED + program) == ["TimeoutError"]


def test_hanging_lookups_are_bounded_and_later_ones_succeed(tmp_path: Path) -> None:
    program = (
        "import threading\n"
        "resolving.SECONDS = 0.02\n"
        "for number in range(2 * resolving.MAX_LOOKUPS):\n"
        "    try: resolving.addresses(f'h{number}.example', 80, socket.SOCK_STREAM)\n"
        "    except TimeoutError: pass\n"
        "print(sum(thread.name == 'resolving' for thread in threading.enumerate()) == resolving.MAX_LOOKUPS)\n"
        "resolving.SECONDS = 50.0\n"
        "print(resolving.addresses('127.0.0.1', 80, socket.SOCK_STREAM)[0][1])\n"
    )
    assert said(tmp_path, BOUNDED + program, "timeout:5 attempts:1") == ["True", "('127.0.0.1', 80)"]
