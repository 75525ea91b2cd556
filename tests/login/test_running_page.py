"""docs/running.md's way from an empty Debian to a served fleet, each line as it is written, on a booted Debian.

Its packages and the program's are there beforehand (scripts/hosts.sh), so nothing is fetched from anywhere. The tree is
first an older version of itself, and upgraded at the end as the page says.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from keyrack import __version__
from tests.login.debian_host import SYSTEMS, DebianHost
from tests.login.private_sshd import strict_folder
from tests.ports import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent
OLDER = "0.0.9"
KEYRACK = "runuser -u keyrack -- /opt/keyrack/.venv/bin/keyrack"
ENROLMENT = "/var/lib/keyrack-agent/enrolment.json"

pytestmark = pytest.mark.timeout(1500)  # the system may still be being made


def lines_of_the_page() -> list[str]:
    """The code blocks of the section, in their order."""
    page = (ROOT / "docs" / "running.md").read_text("utf-8")
    section = page.split("## From an empty Debian to a served fleet\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.S)


def test_each_line_works_as_it_is_written() -> None:
    locked = SYSTEMS / "fleet" / "opt" / "wheels" / "requirements.lock"
    if locked.exists() and locked.read_bytes() != (ROOT / "requirements.lock").read_bytes():
        pytest.skip("the Debian of this test has other packages of Python's: `sh scripts/hosts.sh fleet` makes it anew")
    with strict_folder() as folder:
        host = DebianHost("fleet", folder, free_port())
        put_an_older_tree(folder / "changes")
        try:
            host.boot()
            *blocks, upgrade = lines_of_the_page()
            for block in blocks:
                paste(host, host.run(f"set -eu\n{block}"))
            serves(host)
            upgraded(host, upgrade)
        finally:
            host.shut_down()


def serves(host: DebianHost) -> None:
    """All of it runs, with few rights, and the host that was enrolled asks."""
    assert "ok" in host.run("systemctl is-active keyrack keyrack-git nginx && echo ok")
    # The account that serves could not: it would compile all that it loads each time.
    assert "main.cpython" in host.run("ls /opt/keyrack/src/keyrack/cli/__pycache__")
    shown = host.run(f"{KEYRACK} hosts list --data /var/lib/keyrack")
    assert re.search(r"^1 +web-1 .*ago", shown, re.M), shown
    level = host.run("systemd-analyze security keyrack --no-pager | tail -1")
    assert float(re.findall(r"([0-9.]+) (?:OK|SAFE)", level)[0]) < 3.0, level


def upgraded(host: DebianHost, block: str) -> None:
    """The older agent goes on through it, and is replaced by the host's line, as the host that it was."""
    assert reported_version(host) == OLDER
    enrolment = host.run(f"cat {ENROLMENT}")
    host.run(f"sed -i 's/{OLDER}/{__version__}/' /opt/keyrack/src/keyrack/__init__.py")
    host.run(f"set -eu\n{block}")
    assert f'"{__version__}"' in host.run("curl -fsS https://keys.example.org/healthz")
    assert OLDER in host.run("keyrack-agent --version")
    restarted = float(host.run("date +%s"))
    # It notes an unchanged answer once a minute, and waits for the next one for half of that.
    wait_until(lambda: last_contact(host) > restarted, "an older agent that goes on", 180)

    paste(host, host.run(f"{KEYRACK} hosts enrol web-1 --data /var/lib/keyrack"))
    assert __version__ in host.run("keyrack-agent --version")
    assert host.run(f"cat {ENROLMENT}") == enrolment
    wait_until(lambda: reported_version(host) == __version__, "the new agent's report")


def put_an_older_tree(changes: Path) -> None:
    """This tree with an older version's name, where the page has it, and a name for its service."""
    tree = changes / "opt" / "keyrack"
    shutil.copytree(
        ROOT, tree, ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache", ".hypothesis")
    )
    file = tree / "src" / "keyrack" / "__init__.py"
    text = file.read_text("utf-8")
    file.write_text(text.replace(f'"{__version__}"', f'"{OLDER}"'), "utf-8")
    (changes / "etc" / "hosts").write_text("127.0.0.1 localhost keys.example.org\n", "ascii")


def paste(host: DebianHost, printed: str) -> None:
    """What a command prints for root to paste on the host, pasted."""
    for line in printed.splitlines():
        if "/agent/install.sh" in line:
            said = host.run(line)
            # A curl that fails leaves the shell with nothing to do, which ends well.
            assert "see how it fares" in said, said


def reported_version(host: DebianHost) -> str:
    """The version that the service shows for the host's agent."""
    shown = host.run(f"{KEYRACK} hosts show web-1 --data /var/lib/keyrack")
    found = re.search(r"^agent +(\S+)", shown, re.M)
    assert found, shown
    return found[1]


def last_contact(host: DebianHost) -> float:
    """When the agent last noted an answer of its service, in seconds since 1970."""
    return float(json.loads(host.run("cat /var/lib/keyrack-agent/status.json"))["contact_at"])
