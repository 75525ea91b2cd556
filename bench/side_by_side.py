"""Keyrack beside what people would pick instead, on one host: authorized_keys over ssh, SSSD with LDAP, gitolite.

    .venv/bin/python bench/side_by_side.py [ROUNDS]

One Debian that boots (`scripts/hosts.sh directory` makes it), with its sshd, an LDAP server, SSSD and gitolite, and an
account of that host or directory for each way. A key is granted and used, and revoked and refused, ROUNDS times (3
unless said; the middle one counts); then revoked while sshd and what serves it are stopped; then used while the server
is down. A login is the middle one of fifteen, by the clock, and its ratio to one by authorized_keys. Prints a table as
docs/figures.md has it; it installs nothing, and says what is missing. A way that never lets in or out ends it.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import structlog
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from beside import ends, session
from running import CANNOT

from keyrack.core.hosts import modes
from keyrack.core.keys import credentials
from tests.login.debian_host import SYSTEMS
from tests.login.ldap_directory import SETTINGS, LdapDirectory
from tests.login.private_sshd import Key, strict_folder
from tests.login.test_debian_releases import KEYRACK, SERVER, Scene, scene_on, shorten_the_trial
from tests.services import TEAM, running, settings_for
from tests.waiting import wait_until

LOGINS = 15
NAME = "kranna"  # of the directory
FILE = "/home/deploy/.ssh/authorized_keys"
HEAD = ("", "granted, opens", "revoked, refused", "revoked while off, back", "its server down", "a session", "a login")
MISSING = (
    "theo",
    "not measured: npm has its command line alone (theoapp-cli), not its server; its agent is no package of Debian",
)


class Way(ABC):
    """One way to let somebody in. services: what is stopped, beside sshd, while the host is off."""

    title = ""
    user = "deploy"
    services = ""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene, self.run, self.client = scene, scene.host.run, scene.host.client
        self.key = Key.make(folder / self.title.split(" ")[0])

    @abstractmethod
    def grant(self) -> None:
        """Ask for it; whoever asks goes on once it is acknowledged."""

    @abstractmethod
    def revoke(self) -> None:
        """The other way round; what cannot be reached is left."""

    def opens(self) -> bool:
        return self.client.lets_in(self.key, self.user)

    def server_down(self) -> str:
        """Whether the key opens while what grants it is away, in words."""
        return "there is none"


class ByHand(Way):
    """A line in the account's own file."""

    title = "authorized_keys by ssh"

    def __init__(self, scene: Scene, folder: Path) -> None:
        super().__init__(scene, folder)
        self.is_off = False

    def grant(self) -> None:
        self.client.login(self.scene.by_hand, "deploy", f"echo {shlex.quote(self.key.public)} >> {FILE}")

    def revoke(self) -> None:
        word = shlex.quote(self.key.public.split()[1])
        if not self.is_off:
            self.client.login(
                self.scene.by_hand, "deploy", f"grep -vF {word} {FILE} > {FILE}.new; mv {FILE}.new {FILE}"
            )


class ByDirectory(Way):
    """SSSD's program, which asks anew two seconds after it asked last."""

    title = "SSSD with LDAP, asking every 2 s (5,400 s unless set)"
    user = NAME
    services = "sssd"

    def __init__(self, scene: Scene, folder: Path) -> None:
        super().__init__(scene, folder)
        self.other = Key.make(folder / "nobodys")
        self.directory = LdapDirectory(scene.host)
        self.directory.begin({NAME: self.other.public})

    def grant(self) -> None:
        self.directory.put_key(NAME, self.key.public)

    def revoke(self) -> None:
        self.directory.put_key(NAME, self.other.public)

    def server_down(self) -> str:
        self.directory.stop()
        time.sleep(3)
        return "opens, of its cache" if self.opens() else "**refused**"


class ByKeyrack(Way):
    """The agent, while the host enforces."""

    title = "Keyrack"
    services = "keyrack-agent"
    stack: ExitStack
    number = 0

    def enforce(self) -> None:
        """Have the host obey Keyrack alone."""
        self.scene.paste()
        wait_until(self.scene.obeyed, "a first report")
        self.scene.add("another")
        wait_until(self.scene.obeyed, "a key on the host")
        shorten_the_trial(self.scene)
        modes.set_mode(self.scene.service.instance, KEYRACK, SERVER, "enforce")
        wait_until(self.scene.enforces, "enforcing in force")

    def grant(self) -> None:
        instance = self.scene.service.instance
        self.number = credentials.add(
            instance, KEYRACK, SERVER, label="laptop", username=self.user, public_key=self.key.public
        ).id

    def revoke(self) -> None:
        credentials.delete(self.scene.service.instance, KEYRACK, SERVER, self.number)

    def server_down(self) -> str:
        self.stack.close()
        return "opens" if self.opens() else "**refused**"


def seconds_until(condition: Callable[[], bool]) -> float:
    """How long until it is true; a login that is refused costs a tenth of a second or two."""
    began = time.monotonic()
    wait_until(condition, "a change that counts")
    return time.monotonic() - began


def measured(way: Way, rounds: int) -> list[str]:
    """The cells of its row, but for the last; the key is revoked at the end where that can be."""
    granted, revoked, sessions = [], [], set()
    for _ in range(rounds):
        began = time.monotonic()
        way.grant()
        seconds_until(way.opens)
        granted.append(time.monotonic() - began)
        with session(way.client, way.key, way.user) as opened:
            began = time.monotonic()
            way.revoke()
            seconds_until(lambda: not way.opens())
            revoked.append(time.monotonic() - began)
            sessions.add(ends(opened))
    way.grant()
    seconds_until(way.opens)
    way.run(f"systemctl stop ssh {way.services}")
    if isinstance(way, ByHand):
        way.is_off = True  # nobody can go there
    way.revoke()
    way.run(f"systemctl start {way.services} ssh")
    first = way.opens()
    after = "**opens**, until somebody goes there" if isinstance(way, ByHand) else ""
    if not after:
        taken = seconds_until(lambda: not way.opens())
        after = f"{'opens at first, ' if first else ''}refused after {taken:.1f} s"
    return [
        f"{statistics.median(granted):.2f} s",
        f"{statistics.median(revoked):.2f} s",
        after,
        "",
        " or ".join(sorted(sessions)),
    ]


def logins(ways: list[Way]) -> list[float]:
    """The middle of some logins of each, taken in turn, in seconds."""
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(LOGINS):
        for number, way in enumerate(ways):
            began = time.monotonic()
            assert way.opens(), way.title
            taken[number].append(time.monotonic() - began)
    return [statistics.median(one) for one in taken]


def gitolite(scene: Scene, folder: Path, rounds: int) -> list[str]:
    """Its row: repositories alone, by a push of its own repository of settings."""
    run = scene.host.run
    if "gitolite" not in run("command -v gitolite", check=False):
        return ["gitolite", "not measured: `scripts/hosts.sh directory` makes a Debian that has it", *[""] * 5]
    admin, key = Key.make(folder / "admin"), Key.make(folder / "gitolite")
    run("useradd -m -s /bin/sh -p '*' -G deploy git")
    run(f"echo '{admin.public}' >/tmp/admin.pub && runuser -u git -- sh -c 'cd; gitolite setup -pk /tmp/admin.pub'")
    run(f"install -m 600 /dev/stdin /root/admin <<'END'\n{admin.path.read_text('ascii')}END")
    port = scene.host.client.port
    ssh = f"ssh -p {port} -i /root/admin -o StrictHostKeyChecking=no"
    run(f"cd /root && GIT_SSH_COMMAND='{ssh}' git clone -q git@127.0.0.1:gitolite-admin a")
    run("cd /root/a && git config user.email a@example.org && git config user.name a")
    push = f"git commit -qam x && GIT_SSH_COMMAND='{ssh}' git push -q"

    def opens() -> bool:
        return scene.host.client.login(key, "git", "info").returncode == 0

    granted, revoked = [], []
    for _ in range(rounds):
        began = time.monotonic()
        run(f"cd /root/a && echo '{key.public}' >keydir/one.pub && git add keydir && {push}")
        seconds_until(opens)
        granted.append(time.monotonic() - began)
        began = time.monotonic()
        run(f"cd /root/a && git rm -q keydir/one.pub && {push}")
        seconds_until(lambda: not opens())
        revoked.append(time.monotonic() - began)
    taken = (f"{statistics.median(one):.2f} s" for one in (granted, revoked))
    return ["gitolite (repositories of one host)", *taken, "it is the server", "it is the server", "—", "—"]


def main() -> int:
    """All that is there."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print("|", " | ".join(HEAD), "|\n" + "|---" * len(HEAD) + "|")
    if not (SYSTEMS / "directory").is_dir():
        print("make the Debian for it first: `sh scripts/hosts.sh directory`", file=sys.stderr)
        return CANNOT
    settings = SETTINGS.replace("AllowGroups root deploy", "AllowGroups root deploy git")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        of_service = ExitStack()
        stack.enter_context(of_service)
        url = f"sqlite:///{scratch}/keyrack.db"
        service = of_service.enter_context(running(settings_for(scratch / "data", url)))
        service.apply(TEAM)
        folder = stack.enter_context(strict_folder())
        scene = stack.enter_context(scene_on("directory", service, scratch, f"{settings}MaxStartups 100\n"))
        scene.prepare()
        scene.host.run("chown -R deploy:deploy /home/deploy")
        by_hand, directory = ByHand(scene, folder), ByDirectory(scene, folder)
        cells = {way.title: measured(way, rounds) for way in (by_hand, directory)}
        of_gitolite = gitolite(scene, folder, rounds)
        # Beside Keyrack that enforces no other way lets in, so the file's logins are taken before and after it.
        directory.grant()
        by_hand.is_off = False
        by_hand.grant()
        seconds_until(directory.opens)
        before = logins([by_hand, directory])
        keyrack = ByKeyrack(scene, folder)
        keyrack.stack = of_service
        keyrack.enforce()
        cells[keyrack.title] = measured(keyrack, rounds)
        keyrack.grant()
        seconds_until(keyrack.opens)
        its_own = logins([keyrack])[0]
        for way in (by_hand, directory, keyrack):
            cells[way.title][3] = way.server_down() if way is not directory else ""
        # The others are asked last: Keyrack's host is given back first.
        scene.agent("uninstall")
        after = logins([by_hand, directory])
        cells[directory.title][3] = directory.server_down()
    file, by_sssd = ((one + other) / 2 for one, other in zip(before, after, strict=True))
    costs = ((by_hand, file), (directory, by_sssd), (keyrack, its_own))
    cost = {way.title: f"{seconds * 1000:.0f} ms, {seconds / file:.2f}" for way, seconds in costs}
    for title, row in cells.items():
        print("|", " | ".join([title, *row, cost[title]]), "|")
    print("|", " | ".join(of_gitolite), "|")
    print("|", " | ".join([*MISSING, *[""] * 5]), "|")
    return 0


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
