"""Enforcing begins only where somebody could log in, counts only as far as the running sshd shows it, or is put back.

Each host here is a real sshd with real accounts whose settings or files are as some administrator left them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keyrack.agent.sshd.login_check import LoginCheck
from keyrack.agent.sshd.settings import Sshd
from keyrack.core.audit import events
from keyrack.core.hosts import modes, servers, system_users
from keyrack.core.keys import credentials
from keyrack.errors import Refusal
from keyrack.model import EventFilter, Server
from keyrack.protocol.host_document import AuthorizedKey, HostDocument
from tests.agent.test_no_processes import Bound
from tests.agent.test_no_processes import bound as bound
from tests.login.observed_host import AdoptedHost, accounts, owner
from tests.login.old_sshd import in_zone, stand_in
from tests.login.private_sshd import Key, patience, sshd_path, strict_folder
from tests.services import Service, running, settings_for
from tests.waiting import wait_until

SERVER = 1
HAND = ("krtwo", "krtwo")  # a key that Keyrack does not know, and its account


class Scene:
    """The host, its service, and one key of Keyrack for the account krone."""

    def __init__(self, host: AdoptedHost, service: Service) -> None:
        self.host = host
        self.service = service
        self.key = Key.make(host.folder / "of-keyrack")

    def start(
        self,
        settings: Callable[[str], str] = lambda text: text,
        username: str = "krone",
        expires_at: datetime | None = None,
        restrictions: dict[str, object] | None = None,
    ) -> None:
        """Start sshd with its settings changed by this, and the agent; the key is on the host then."""
        self.host.config.write_text(settings(self.host.config.read_text("ascii")), "ascii")
        self.host.start_sshd()
        self.host.enrol(self.service, SERVER)
        try:
            system_users.create(self.service.instance, owner(), SERVER, username=username)
        except Refusal:
            pass  # it is there already
        credentials.add(
            self.service.instance,
            owner(),
            SERVER,
            label="k",
            username=username,
            public_key=self.key.public,
            expires_at=expires_at,
            restrictions=restrictions,
        )
        self.host.start_agent()
        wait_until(lambda: self.server.applied_revision == self.server.revision, "the key on the host")

    @property
    def server(self) -> Server:
        return servers.get(self.service.instance, owner(), SERVER)

    def summaries(self) -> list[str]:
        page = events.find(self.service.instance, owner(), EventFilter(server_id=SERVER), limit=100)
        return [event.summary for event in page.items]

    def ask(self) -> None:
        modes.set_mode(self.service.instance, owner(), SERVER, "enforce")

    def refused(self) -> str:
        """Ask for enforcing, and answer why the host does not; nobody is locked out and all files are as they were."""
        before = (self.host.config.read_bytes(), sorted(self.host.etc.glob("sshd_config.d/*")))
        self.ask()
        wait_until(lambda: self.server.mode == "observe", "a wish that ended")
        wait_until(lambda: self.server.facts.get("enforcement") == "observe", "a host that observes")
        assert (self.host.config.read_bytes(), sorted(self.host.etc.glob("sshd_config.d/*"))) == before
        return next(words for words in self.summaries() if words.startswith("Enforcing did not begin"))

    def enforced(self) -> None:
        """Ask for enforcing, and return once the host is sure of it."""
        self.ask()
        wait_until(lambda: self.server.facts.get("enforcement") == "enforce", "enforcing in force")

    def observes(self) -> None:
        """Ask for observing, and return once the host has its own settings again."""
        modes.set_mode(self.service.instance, owner(), SERVER, "observe")
        wait_until(lambda: self.server.facts.get("enforcement") == "observe", "a host that observes")

    def hand_key_works(self) -> bool:
        return self.host.client.lets_in(self.host.keys[HAND[0]], HAND[1])


@pytest.fixture
def scene(team_folder: Path, tmp_path: Path) -> Iterator[Scene]:
    data = tmp_path / "data"
    shutil.copytree(team_folder, data)
    with ExitStack() as stack:
        stack.enter_context(accounts())
        host = AdoptedHost(stack.enter_context(strict_folder()))
        host.prepare()
        stack.callback(host.stop)
        service = stack.enter_context(running(settings_for(data, "")))
        yield Scene(host, service)


def add(line: str) -> Callable[[str], str]:
    """Settings with this line before all others."""
    return lambda text: f"{line}\n{text}"


def no_pid_file(text: str) -> str:
    return "\n".join("PidFile none" if line.startswith("PidFile") else line for line in text.split("\n"))


def test_an_sshd_without_pid_file_is_found_by_its_socket_and_shown_to_obey(scene: Scene) -> None:
    scene.start(no_pid_file)
    scene.enforced()
    assert scene.host.client.lets_in(scene.key, "krone")
    assert not scene.hand_key_works()
    assert not any("not shown" in words for words in scene.server.facts.get("problems", []))


def test_an_sshd_that_accepts_one_address_alone_is_shown_to_obey_from_there(scene: Scene) -> None:
    scene.start(add("AllowUsers krone@127.0.0.1 krtwo root@192.0.2.1"))
    scene.enforced()
    assert scene.host.client.lets_in(scene.key, "krone")
    assert not scene.hand_key_works()
    assert not any("not shown" in words for words in scene.server.facts.get("problems", []))


def test_a_key_that_nobody_can_use_from_any_address_does_not_count(scene: Scene) -> None:
    scene.start(add("AllowUsers krone@10.0.0.0/8 krtwo"))  # it listens on loopback alone
    assert "AllowUsers krone@10.0.0.0/8 krtwo: only others" in scene.refused()
    assert scene.hand_key_works()


def test_an_sshd_of_another_program_name_is_reloaded_too(scene: Scene) -> None:
    program = scene.host.folder / "doorkeeper"
    shutil.copy(sshd_path(), program)
    scene.host.program = program
    scene.start(no_pid_file)
    scene.enforced()
    assert scene.host.client.lets_in(scene.key, "krone")
    assert not scene.hand_key_works()


@pytest.mark.parametrize("left", ["", "#!/bin/sh\necho no library >&2\nexit 127\n"])
def test_an_sshd_that_could_not_start_again_is_not_reloaded(scene: Scene, left: str) -> None:
    """It would, at a SIGHUP, by its program's name: an upgrade that broke off, a store that was cleared."""
    program = scene.host.folder / "doorkeeper"
    shutil.copy(sshd_path(), program)
    scene.host.program = program
    scene.start()
    away = program.rename(program.with_name("away"))
    if left:
        program.write_text(left, "ascii")
        program.chmod(0o755)
    words = f"the program of the sshd that runs, {program}, {'could not start anew: no library' if left else 'is gone'}"
    assert f"nothing was changed: {words}" in scene.refused()
    assert words in scene.host.agent("doctor").stdout
    away.rename(program)
    assert scene.hand_key_works()
    scene.enforced()
    program.rename(away)
    modes.set_mode(scene.service.instance, owner(), SERVER, "observe")
    wait_until(lambda: "is gone, so it could not start anew" in scene.host.log(), "that it is not told")
    assert scene.host.client.lets_in(scene.key, "krone")
    away.rename(program)
    scene.host.client.wait_until_open(scene.host.keys[HAND[0]], HAND[1])


def test_the_command_line_of_sshd_counts_as_sshd_itself_counts_it(scene: Scene) -> None:
    """What stands below a Match counts more than a command line; what no file changes keeps enforcing away."""
    by_hand = ["-o", "AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2"]
    scene.host.arguments = [*by_hand, "-oAllowUsers=krone", "-oPubkeyAuthentication=no"]
    scene.start()
    assert "PubkeyAuthentication no" in scene.refused()
    assert "AllowUsers=krone" in scene.host.agent("doctor").stdout
    scene.host.stop_sshd()
    scene.host.arguments = by_hand
    scene.host.start_sshd()
    assert scene.hand_key_works()
    scene.enforced()
    assert scene.host.client.lets_in(scene.key, "krone")
    assert not scene.hand_key_works()


def test_an_sshd_that_was_started_anew_with_other_settings_is_noticed(scene: Scene) -> None:
    scene.start()
    scene.enforced()
    scene.host.stop_sshd()
    wait_until(lambda: scene.server.facts.get("enforcement") == "unproven", "an sshd that is away")
    assert any("sshd is not running" in words for words in scene.server.facts["problems"])
    assert "BAD  sshd is not running" in scene.host.agent("doctor").stdout
    scene.host.start_sshd()
    wait_until(lambda: scene.server.facts.get("enforcement") == "enforce", "an sshd that obeys again")


def test_an_sshd_that_cannot_read_its_own_settings_keeps_the_files_that_it_reads(scene: Scene) -> None:
    """Somebody wrote a line that is none: told to read that, sshd would end, and without RevokedKeys nobody gets in."""
    host = scene.host
    scene.start()
    scene.enforced()
    host.config.write_bytes(host.config.read_bytes() + b"NoSuchKeyword yes\n")
    modes.set_mode(scene.service.instance, owner(), SERVER, "observe")
    wait_until(lambda: "goes by Keyrack's settings until" in str(scene.server.facts.get("problems")), "what is said")
    assert scene.server.facts.get("enforcement") in ("enforce", "unproven")
    ended = host.agent("uninstall")
    assert ended.returncode == 1
    assert "goes by Keyrack's settings until it can read its own" in ended.stderr
    assert "NoSuchKeyword" in ended.stderr
    assert host.client.lets_in(scene.key, "krone")
    host.config.write_bytes(host.config.read_bytes().replace(b"NoSuchKeyword yes\n", b""))
    host.stop_agent()  # which uninstalling ended
    host.start_agent()
    wait_until(lambda: scene.server.facts.get("enforcement") == "observe", "a host that observes")
    host.client.wait_until_open(host.keys[HAND[0]], HAND[1])
    assert not host.client.lets_in(scene.key, "krone")
    assert host.agent("uninstall").returncode == 0


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_settings_of_an_agent_whose_folder_is_gone_are_taken_over(scene: Scene, mode: str) -> None:
    """As in an image that was made of a host that enforced: the agent's folder goes before, sshd's settings stay."""
    host = scene.host
    scene.start()
    before = host.config.read_bytes()
    scene.enforced()
    host.stop_agent()
    shutil.rmtree(host.state)
    host.enrol(scene.service, SERVER, f"--mode={mode}")
    host.start_agent()
    note = host.state / "enforcement.json"
    wanted = f'"{"on" if mode == "enforce" else "off"}"'
    wait_until(lambda: note.exists() and wanted in note.read_text("ascii"), "what was asked")
    assert scene.hand_key_works() == (mode == "observe")
    assert host.client.lets_in(scene.key, "krone") == (mode == "enforce")
    ended = host.agent("uninstall")
    assert ended.returncode == 0, ended.stderr
    assert host.config.read_bytes() == before
    assert list((host.etc / "sshd_config.d").glob("*")) == []
    host.client.wait_until_open(host.keys[HAND[0]], HAND[1])


def test_a_question_that_sshd_could_not_be_asked_is_asked_again(bound: Bound, scene: Scene) -> None:
    """Where all processes that there may be are used up, no answer says anything of sshd or its settings."""
    host = scene.host
    scene.start()
    scene.enforced()

    def cannot_ask() -> bool:
        return "cannot be started" in str(scene.server.facts.get("problems"))

    bound.add(host.agent_pid)
    bound.most(1)
    host.config.write_bytes(host.config.read_bytes() + b"# a remark\n")
    wait_until(cannot_ask, "what is said")
    bound.most(1000)
    wait_until(lambda: not cannot_ask(), "sshd's answer")
    assert scene.server.facts.get("enforcement") == "enforce"
    bound.most(1)
    modes.set_mode(scene.service.instance, owner(), SERVER, "observe")
    wait_until(cannot_ask, "what is said")
    assert host.client.lets_in(scene.key, "krone")
    bound.most(1000)
    wait_until(lambda: scene.server.facts.get("enforcement") == "observe", "a host that observes")
    host.client.wait_until_open(host.keys[HAND[0]], HAND[1])


def test_a_stopped_sshd_keeps_enforcing_from_beginning(scene: Scene) -> None:
    scene.start()
    scene.host.stop_sshd()
    assert "sshd is not running" in scene.refused()


@pytest.mark.parametrize(
    ("settings", "username", "words"),
    [
        ("PermitRootLogin no", "root", "PermitRootLogin no"),
        ("AllowUsers krtwo", "krone", "AllowUsers krtwo"),
        ("DenyUsers kro*", "krone", "DenyUsers kro*"),
        ("DenyGroups krone", "krone", "DenyGroups krone"),
        ("PasswordAuthentication yes\nAuthenticationMethods publickey,password", "krone", "AuthenticationMethods"),
        ("PubkeyAcceptedAlgorithms rsa-sha2-512", "krone", "PubkeyAcceptedAlgorithms"),
        ("", "nosuchone", "no such account"),
    ],
)
def test_a_rule_of_sshd_that_keeps_the_only_key_out_keeps_enforcing_away(
    scene: Scene, settings: str, username: str, words: str
) -> None:
    scene.start(add(settings), username)
    reason = scene.refused()
    assert words in reason
    assert f"no key opens the account {username}" in reason


def test_a_key_too_short_for_sshd_keeps_enforcing_away(scene: Scene) -> None:
    scene.key = Key.make(scene.host.folder / "short", "rsa", 2048)
    scene.start(add("RequiredRSASize 3072"))
    assert "it has 2048 bits, and sshd wants 3072 (RequiredRSASize)" in scene.refused()
    assert scene.hand_key_works()  # an Ed25519 one


def test_a_key_whose_end_has_come_keeps_enforcing_away(scene: Scene) -> None:
    end = datetime.now(UTC) + timedelta(seconds=10)
    scene.start(expires_at=end)
    wait_until(lambda: datetime.now(UTC) > end, "the end of the key")
    assert "no key of this document opens an account" in scene.refused()
    assert scene.hand_key_works()
    # A host that hears nothing of it judges by its clock.
    kept = HostDocument("h", 1, end, {"krone": [AuthorizedKey(scene.key.public, end)]})
    (verdict,) = LoginCheck(Sshd(str(scene.host.config))).verdicts(kept)
    assert verdict.words == "no key opens the account krone: its end has come"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["usermod", "-p", "!", "krone"], "locked"),
        (["usermod", "-e", "1", "krone"], "expired"),
        (["usermod", "-s", "/bin/nosuchshell", "krone"], "/bin/nosuchshell"),
        (["usermod", "-s", "/usr/sbin/nologin", "krone"], "nologin"),
    ],
)
def test_an_account_that_nobody_gets_into_keeps_enforcing_away(scene: Scene, command: list[str], words: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
    scene.start()
    assert words in scene.refused()
    assert scene.hand_key_works()


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    if subprocess.run(["chattr", "+i", str(path)], check=False, capture_output=True).returncode != 0:
        pytest.skip("this file system has no immutable files")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


def second_line_includes(scene: Scene) -> Callable[[str], str]:
    return lambda text: f"# first\nPort {scene.host.port}\nInclude {scene.host.etc}/sshd_config.d/*.conf\n{text}"


def test_an_immutable_file_puts_everything_back(scene: Scene) -> None:
    """The file of ours could be written, the line that has it read first could not."""
    (scene.host.etc / "sshd_config.d").mkdir()
    scene.start(second_line_includes(scene))
    with immutable(scene.host.config):
        assert f"Operation not permitted; {scene.host.config} is immutable (chattr -i" in scene.refused()
        scene.host.tell_sshd()
        assert scene.hand_key_works()


@contextmanager
def small_disk(path: Path, *options: str) -> Iterator[None]:
    """A file system of its own over a folder, with what is in it."""
    aside = path.with_name(f"{path.name}-aside")
    shutil.copytree(path, aside)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", path], check=False)
    if mounted.returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    try:
        shutil.copytree(aside, path, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_a_read_only_file_system_changes_nothing(scene: Scene) -> None:
    scene.start()
    place = scene.host.etc / "sshd_config.d"
    place.mkdir()
    with small_disk(place):
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        assert "Read-only file system" in scene.refused()
    assert scene.hand_key_works()


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """A folder on a file system that nobody can write, as after an error of its disk."""
    if subprocess.run(["mount", "--bind", path, path], check=False, capture_output=True).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_a_host_whose_settings_cannot_be_written_any_more_says_so_and_goes_on(scene: Scene) -> None:
    """What it enforces stays; what is revoked meanwhile is not told as done, and is done once it can be."""
    host, client = scene.host, scene.host.client
    scene.start()
    scene.enforced()
    instance = scene.service.instance
    with read_only(host.etc):
        (credential,) = credentials.find(instance, owner(), SERVER).items
        credentials.delete(instance, owner(), SERVER, credential.id)
        wait_until(lambda: any("Read-only file system" in words for words in scene.summaries()), "words about it")
        assert scene.server.applied_revision < scene.server.revision
        assert "Read-only file system" in host.agent("status").stdout
        host.stop_agent(signal.SIGKILL)
        host.start_agent()
        wait_until(lambda: host.agent("status").stdout.count("Read-only file system") > 0, "the same after a start")
        assert not scene.hand_key_works()
        modes.set_mode(instance, owner(), SERVER, "observe")
        wait_until(lambda: "Read-only" in host.log().split("in force")[-1], "words about the settings")
        assert not scene.hand_key_works()
    wait_until(lambda: scene.server.applied_revision == scene.server.revision, "what was asked meanwhile")
    client.wait_until_closed(scene.key, "krone")
    client.wait_until_open(host.keys[HAND[0]], HAND[1])


def test_a_full_file_system_puts_everything_back(scene: Scene) -> None:
    scene.start()
    place = scene.host.etc / "sshd_config.d"
    place.mkdir()
    with small_disk(place):
        subprocess.run(["dd", "if=/dev/zero", f"of={place}/filler"], check=False, capture_output=True)
        assert "No space left" in scene.refused()
    assert scene.hand_key_works()


def test_a_host_that_makes_no_key_pair_reports_why(scene: Scene) -> None:
    """Its administrator does not let the service change accounts: what was asked is refused, with the reason."""
    scene.start()
    instance = scene.service.instance
    user = next(one for one in system_users.find(instance, owner(), SERVER).items if one.username == "krone")
    system_users.ask_deployment_key(instance, owner(), SERVER, user.id)

    def refused() -> bool:
        now = system_users.get(instance, owner(), SERVER, user.id)
        return now.state == "refused" and "does not let the service create or change accounts" in now.reason

    wait_until(refused, "a refusal with its reason")


def without_include(scene: Scene) -> None:
    """A stand-in for OpenSSH 8.0, which knows no Include (tests/login/old_sshd.py)."""
    scene.host.program = stand_in(scene.host.folder / "sshd-of-then", "8.0", ("include",))


def test_an_sshd_without_include_has_the_settings_in_its_own_file(scene: Scene) -> None:
    """Before all others, also before rules for single accounts; applied, tried, kept, and taken away to the byte."""
    host, client = scene.host, scene.host.client
    real = host.etc / "sshd_config.of-this-host"
    host.config.rename(real)
    host.config.symlink_to(real)
    os.setxattr(real, "user.note", b"left by somebody")
    without_include(scene)
    scene.start(lambda text: f"Banner none\n{text.rstrip()}", username="krthree")
    before = host.snapshot()
    plan = host.agent("plan").stdout
    assert f"+++ {real}" in plan.replace(str(host.config), str(real))
    assert "+    AuthorizedKeysFile" in plan
    scene.enforced()
    # The account has a rule with another file of keys.
    assert client.lets_in(scene.key, "krthree")
    assert not client.lets_in(host.keys["krthree"], "krthree")
    assert not scene.hand_key_works()
    assert not (host.etc / "sshd_config.d").exists()
    assert host.config.is_symlink()
    status = real.stat()
    assert (status.st_mode & 0o777, os.getxattr(real, "user.note")) == (0o640, b"left by somebody")

    # Somebody edits the file, and takes of ours what is for everybody.
    text = real.read_bytes()
    real.write_bytes(text.replace(b"\nAuthorizedKeysFile", b"\n# AuthorizedKeysFile", 1))
    host.tell_sshd()
    wait_until(lambda: real.read_bytes() == text, "the settings put back")
    wait_until(lambda: client.lets_in(scene.key, "krthree"), "a login")

    scene.observes()
    assert host.snapshot() == before
    assert os.getxattr(real, "user.note") == b"left by somebody"
    assert client.lets_in(host.keys["krthree"], "krthree")
    assert scene.hand_key_works()


def test_a_file_that_cannot_be_changed_is_refused_before_anything_is(scene: Scene) -> None:
    without_include(scene)
    scene.start()
    other = scene.host.etc / "another-name"
    os.link(scene.host.config, other)
    assert "has another name" in scene.refused()
    assert scene.host.config.stat().st_nlink == 2
    other.unlink()
    with immutable(scene.host.config):
        scene.ask()
        wait_until(lambda: "Operation not permitted" in str(scene.server.facts.get("undone")), "another refusal")
    assert "nothing was changed" in str(scene.server.facts.get("undone"))
    assert scene.hand_key_works()


def test_ends_that_the_running_sshd_reads_in_another_zone_are_seen(scene: Scene) -> None:
    """sshd -r starts nothing anew for a connection, so that its zone shows nowhere; its answers tell."""
    if patience():
        pytest.skip("An sshd from 9.8 on starts another program for each connection, whatever it was told.")
    program = stand_in(scene.host.folder / "sshd-of-then", "8.9")
    scene.host.program = in_zone(scene.host.folder / "start", program, "Pacific/Niue")
    scene.host.arguments = ["-r"]
    scene.start()
    assert "takes keys whose end has passed" in scene.refused()
    assert scene.hand_key_works()


def test_ways_in_that_need_no_key_are_named_in_the_plan(scene: Scene) -> None:
    """Nothing of Keyrack ends them, so nobody may believe that its keys alone open the host then."""
    rule = "\nMatch User krtwo\nPasswordAuthentication Yes\n"
    scene.start(lambda text: f"HostbasedAuthentication yes\nPasswordAuthentication no\n{text}{rule}")
    plan = scene.host.agent("plan").stdout
    assert "  HostbasedAuthentication stays on: whoever comes from a machine that this host trusts" in plan
    assert "  PasswordAuthentication stays on for those whom a rule (Match) names: whoever knows a password" in plan
    assert "GSSAPIAuthentication" not in plan
