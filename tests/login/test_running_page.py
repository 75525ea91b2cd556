"""docs/running.md's way from an empty Debian to a served fleet, each line as it is written, on a booted Debian.

Its packages are installed beforehand: KEYRACK_FLEET_SYSTEM names a small Debian that has them, one of scripts/hosts.sh
after the page's own apt-get line in a chroot; without it the test is skipped.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from keyrack.cli.demo_host import free_port
from tests.login import debian_host as machines

ROOT = Path(__file__).parent.parent.parent
SYSTEM = os.environ.get("KEYRACK_FLEET_SYSTEM", "")


def lines_of_the_page() -> list[str]:
    """The code blocks of the section, in their order."""
    page = (ROOT / "docs" / "running.md").read_text("utf-8")
    section = page.split("## From an empty Debian to a served fleet\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.S)


@pytest.mark.skipif(not SYSTEM, reason="KEYRACK_FLEET_SYSTEM names no Debian with the packages")
def test_each_line_works_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = Path(SYSTEM)
    monkeypatch.setattr(machines, "SYSTEMS", system.parent)
    folder = tmp_path / "machine"
    folder.mkdir()
    host = machines.DebianHost(system.name, folder, free_port())
    shutil.copytree(
        ROOT, folder / "changes" / "opt" / "keyrack", ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__")
    )
    hosts_file = folder / "changes" / "etc" / "hosts"
    hosts_file.write_text("127.0.0.1 localhost keys.example.org\n")
    try:
        host.boot()
        for block in lines_of_the_page():
            # What the machine has already; its name service is this test's.
            block = re.sub(r"^apt-get install .*$", ":", block, flags=re.M)
            printed = host.run(f"set -eu\n{block}")
            for line in printed.splitlines():
                if "/agent/install.sh" in line:
                    host.run(line)
        assert "ok" in host.run("systemctl is-active keyrack keyrack-git nginx && echo ok")
        shown = host.run("runuser -u keyrack -- /opt/keyrack/.venv/bin/keyrack hosts list --data /var/lib/keyrack")
        assert re.search(r"^1 +web-1 .*ago", shown, re.M), shown
        level = host.run("systemd-analyze security keyrack --no-pager | tail -1")
        assert float(re.findall(r"([0-9.]+) (?:OK|SAFE)", level)[0]) < 3.0, level
    finally:
        host.shut_down()
