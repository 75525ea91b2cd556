"""A host with a past is observed, planned, enforced, undone and given back: real sshd, accounts, agent and service."""

from __future__ import annotations

import pwd
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection

from keyrack.agent.keys import other_sources
from keyrack.agent.state import StateFolder
from keyrack.agent.system.accounts import NOT_ALLOWED, Accounts
from keyrack.agent.system.local import read
from keyrack.agent.system.lookup import exists
from keyrack.core.audit import events
from keyrack.core.hosts import facts, modes, reports, servers, system_users, unmanaged_keys
from keyrack.core.keys import credentials, revocation
from keyrack.errors import Refusal
from keyrack.model import EventFilter, UnmanagedKey
from keyrack.protocol.host_document import DesiredAccount, HostDocument
from keyrack.ssh.public_key import fingerprint_of
from keyrack.store.hosts import servers as server_rows
from tests.login.observed_host import (
    ACCOUNTS,
    AdoptedHost,
    accounts,
    accounts_of_directories,
    owner,
    remove_accounts,
)
from tests.login.private_sshd import Key, strict_folder
from tests.services import Service, running, settings_for
from tests.ssh.sshd_verdicts import version_of
from tests.waiting import wait_until

SERVER = 1
HASH = "$6$saltsalt$" + "a" * 86


class Scene:
    """The host, its service, and what both say."""

    def __init__(self, host: AdoptedHost, service: Service, stack: ExitStack) -> None:
        self.host = host
        self.service = service
        self._stack = stack

    def found(self) -> list[UnmanagedKey]:
        """What the service knows of the host's own keys."""
        return list(unmanaged_keys.find(self.service.instance, owner(), SERVER, limit=100).items)

    def wait_for(self, count: int) -> list[UnmanagedKey]:
        """The same, once there are so many."""
        wait_until(lambda: len([one for one in self.found() if one.in_force]) >= count, f"{count} unmanaged keys")
        return self.found()

    def accept(self, *names: str) -> None:
        """Accept the keys of accounts."""
        for one in self.found():
            if one.username in names and one.kind == "key" and one.comment != "rogue@nowhere":
                unmanaged_keys.accept(self.service.instance, owner(), SERVER, one.id)

    def enforcement(self) -> object:
        """How far the host says it is."""
        return servers.get(self.service.instance, owner(), SERVER).facts.get("enforcement")

    def enforce(self) -> None:
        """Switch enforcing on, and return once the host is sure of it."""
        modes.set_mode(self.service.instance, owner(), SERVER, "enforce")
        wait_until(lambda: self.enforcement() == "enforce", "enforcing in force")

    def events(self) -> list[str]:
        """The summaries of the server's events, newest first."""
        return [
            event.summary
            for event in events.find(self.service.instance, owner(), EventFilter(server_id=SERVER), limit=100).items
        ]

    def wait_for_event(self, words: str) -> None:
        """Return once an event says this."""
        wait_until(lambda: any(words in summary for summary in self.events()), words)

    def mode(self) -> str:
        """What is asked of the host."""
        return servers.get(self.service.instance, owner(), SERVER).mode

    def obeyed(self) -> bool:
        """Whether the host has said that it obeys the newest document."""
        server = servers.get(self.service.instance, owner(), SERVER)
        return server.applied_revision == server.revision

    def plan(self) -> facts.EnforcingPlan | None:
        """What the host said that enforcing would change beyond keys."""
        return facts.plan_of(servers.get(self.service.instance, owner(), SERVER))

    def sshd_facts(self) -> Mapping[str, str]:
        """What the host says its sshd does."""
        facts: Mapping[str, str] = servers.get(self.service.instance, owner(), SERVER).facts.get("sshd", {})
        return facts

    def set_columns(self, **values: object) -> None:
        """Set columns of the server, with a new revision."""

        def change(connection: Connection) -> None:
            server_rows.change(connection, SERVER, values)
            server_rows.raise_revision(connection, SERVER, self.service.instance.now())

        self.service.instance.database.write(change)

    def ask_of_sshd(self, wanted: Mapping[str, str]) -> None:
        """Ask for settings of sshd, even ones that no API would take."""
        self.set_columns(sshd=dict(wanted))

    def add(self, key: Key, label: str, *, temporary: bool) -> None:
        """Put a key on the first account."""
        with suppress(Refusal):  # it is there already
            system_users.create(self.service.instance, owner(), SERVER, username="krone")
        credentials.add(
            self.service.instance,
            owner(),
            SERVER,
            label=label,
            username="krone",
            public_key=key.public,
            temporary=temporary,
        )

    def document(self, accounts: Mapping[str, DesiredAccount]) -> HostDocument:
        """A document that speaks of accounts."""
        return HostDocument("h_1", 1, datetime.now(UTC), {}, accounts=accounts)

    def stop_service(self) -> None:
        """End the service."""
        self._stack.close()


@pytest.fixture
def scene(team_folder: Path, tmp_path: Path) -> Iterator[Scene]:
    data = tmp_path / "data"
    shutil.copytree(team_folder, data)
    with ExitStack() as outer:
        outer.enter_context(accounts())
        host = AdoptedHost(outer.enter_context(strict_folder()))
        host.prepare()
        outer.callback(host.stop)
        host.start_sshd()
        with ExitStack() as stack:
            service = stack.enter_context(running(settings_for(data, "")))
            yield Scene(host, service, stack)


def test_everything_is_found_and_nothing_is_changed(scene: Scene) -> None:
    host = scene.host
    before = host.snapshot()
    host.enrol(scene.service, SERVER)
    host.start_agent()
    found = {(one.username, one.comment): one for one in scene.wait_for(8)}
    assert {name for name, one in found.items() if one.in_force} >= {
        ("krone", "one"),
        ("krtwo", "two"),
        ("krtwo", "rogue@nowhere"),
        ("krthree", "three"),
        ("krfour", "four"),
        ("krfive", "five"),
        ("krfive", "authority"),
        ("krfive", ""),  # the command
        ("*", "everywhere"),
    }
    assert found["krone", "one"].options == 'from="127.0.0.1",no-pty'
    assert found["krthree", "three"].path == str(host.etc / "odd" / "krthree.pub")
    assert found["krfive", "authority"].kind == "cert-authority"
    assert found["krfive", ""].path == f"{host.etc}/helper %u"
    after = {path: what for path, what in host.snapshot().items() if f"{host.etc}/keyrack" not in path}
    assert after == before
    for name in ACCOUNTS:
        assert host.client.lets_in(host.keys[name], name)
    assert host.client.lets_in(host.keys["rogue"], "krtwo")
    assert any("Found by hand on web-1" in summary for summary in scene.events())


def test_enforcing_does_what_the_plan_said(scene: Scene) -> None:
    host = scene.host
    host.enrol(scene.service, SERVER)
    host.start_agent()
    scene.wait_for(8)
    scene.accept(*ACCOUNTS)
    wait_until(lambda: all((host.etc / "keyrack" / "keys" / name).exists() for name in ACCOUNTS), "key files")
    files = host.snapshot()
    plan = host.agent("plan")
    assert plan.returncode == 0, plan.stderr
    assert f"- krtwo: {_fingerprint(scene, 'rogue@nowhere')} rogue@nowhere" in plan.stdout
    assert f"- every account: {_fingerprint(scene, 'everywhere')}" in plan.stdout
    assert "- krfive: whoever" in plan.stdout
    assert "helper %u names" in plan.stdout
    assert "krone:" not in plan.stdout
    assert f"AuthorizedKeysFile: .ssh/authorized_keys .ssh/authorized_keys2 {host.etc}/global_keys ->" in plan.stdout
    assert host.snapshot() == files, "the plan changed something"
    # The service has all of it but the keys, which stand in the report already.
    now = servers.get(scene.service.instance, owner(), SERVER).revision
    wait_until(
        lambda: (seen_plan := scene.plan()) is not None and seen_plan.revision == now, "the plan of what is decided now"
    )
    seen_plan = scene.plan()
    assert seen_plan is not None
    assert "What sshd would do otherwise" in seen_plan.sections
    assert any(line.startswith("+AuthorizedKeysFile") for line in seen_plan.sections["Files"])
    for heading, lines in seen_plan.sections.items():
        assert f"\n{heading}:\n" in plan.stdout
        for line in lines:
            assert f"\n  {line}\n" in plan.stdout
    certified = host.certified()
    assert host.client.lets_in(certified, "krfive")
    assert host.client.lets_in(host.keys["helper"], "krfive")
    scene.enforce()
    wait_until(lambda: scene.plan() is None, "that what is done is no plan any more")
    for name in ACCOUNTS:
        assert host.client.lets_in(host.keys[name], name), name
    for key in (host.keys["rogue"], host.keys["krone"]):
        assert not host.client.lets_in(key, "krtwo")
    for key in (certified, host.keys["helper"], host.keys["global"]):
        assert not host.client.lets_in(key, "krfive")
    # The options of the accepted line hold.
    assert "PTY allocation request failed" in host.client.login(host.keys["krone"], "krone", extra=["-tt"]).stderr
    assert 'from="127.0.0.1"' in (host.etc / "keyrack" / "keys" / "krone").read_text("ascii")


def test_uninstalling_gives_the_host_back_to_the_byte(scene: Scene) -> None:
    host = scene.host
    before = host.snapshot()
    host.enrol(scene.service, SERVER)
    host.start_agent()
    scene.wait_for(8)
    scene.accept("krone")
    scene.enforce()
    assert not host.client.lets_in(host.keys["rogue"], "krtwo")
    for folder in (host.etc, host.etc / "sshd_config.d"):  # as an agent that is killed while it writes there
        (folder / ".keyrack-0123456789abcdef").write_bytes(b"half of")
    ended = host.agent("uninstall")
    assert ended.returncode == 0, ended.stderr
    assert host.snapshot() == before
    assert not host.state.exists()
    host.client.wait_until_open(host.keys["rogue"], "krtwo")


def test_losing_the_service_within_the_trial_undoes_enforcing(scene: Scene) -> None:
    host = scene.host
    before = host.config.read_bytes()
    host.enrol(scene.service, SERVER, trial=8)
    host.start_agent()
    scene.wait_for(8)
    scene.accept("krone")
    modes.set_mode(scene.service.instance, owner(), SERVER, "enforce")
    host.client.wait_until_closed(host.keys["rogue"], "krtwo")
    scene.stop_service()
    host.client.wait_until_open(host.keys["rogue"], "krtwo")
    assert host.config.read_bytes() == before
    wait_until(lambda: "the service could not be reached" in host.log(), "the agent to say why")
    wait_until(lambda: "enforcing was undone" in host.agent("status").stdout, "the agent's status")
    assert host.agent("status").returncode == 1


def test_a_killed_agent_undoes_an_unfinished_trial_and_reports_it(scene: Scene) -> None:
    host = scene.host
    host.enrol(scene.service, SERVER, trial=600)
    host.start_agent()
    scene.wait_for(8)
    scene.accept("krone")
    modes.set_mode(scene.service.instance, owner(), SERVER, "enforce")
    host.client.wait_until_closed(host.keys["rogue"], "krtwo")
    host.stop_agent(signal.SIGKILL)
    host.start_agent()
    host.client.wait_until_open(host.keys["rogue"], "krtwo")
    wait_until(lambda: servers.get(scene.service.instance, owner(), SERVER).mode == "observe", "observing again")
    assert any("enforcing was undone on web-1" in summary for summary in scene.events())


def test_an_enforcing_that_was_refused_ends(scene: Scene) -> None:
    """It does not come true by itself when keys come later; the log tells of its refusal, beginning and end."""
    host = scene.host
    host.enrol(scene.service, SERVER)
    host.start_agent()
    scene.wait_for(8)
    modes.set_mode(scene.service.instance, owner(), SERVER, "enforce")
    scene.wait_for_event("Enforcing did not begin on web-1, which observes again: nobody could log in")
    assert scene.mode() == "observe"
    scene.accept("krone")
    wait_until(scene.obeyed, "the accepted key on the host")
    assert scene.enforcement() == "observe"
    assert host.client.lets_in(host.keys["krtwo"], "krtwo")
    scene.enforce()
    assert not host.client.lets_in(host.keys["krtwo"], "krtwo")
    modes.set_mode(scene.service.instance, owner(), SERVER, "observe")
    scene.wait_for_event("Host web-1 no longer enforces")
    events = [words for words in reversed(scene.events()) if "enforce" in words]
    begun = next(at for at, words in enumerate(events) if words.startswith("Host web-1 begins to enforce"))
    assert any(words.startswith("Host web-1 enforces") for words in events[begun:])
    host.client.wait_until_open(host.keys["krtwo"], "krtwo")


def _fingerprint(scene: Scene, comment: str) -> str:
    return next(one.fingerprint for one in scene.found() if one.comment == comment)


def test_a_setting_that_sshd_refuses_is_rolled_back(scene: Scene) -> None:
    host = scene.host
    host.enrol(scene.service, SERVER)
    host.start_agent()
    scene.wait_for(8)
    scene.accept("krone")
    scene.enforce()
    drop_in = host.etc / "sshd_config.d" / "00-keyrack.conf"
    good = drop_in.read_bytes()
    scene.ask_of_sshd({"PermitRootLogin": "sometimes"})
    wait_until(lambda: any("put back as they were" in summary for summary in scene.events()), "words about it")
    assert drop_in.read_bytes() == good
    assert host.client.lets_in(host.keys["krone"], "krone")
    scene.ask_of_sshd({"PermitRootLogin": "no", "UseDNS": "yes", "PasswordAuthentication": "no"})
    wait_until(lambda: scene.sshd_facts().get("UseDNS") == "yes", "the settings in force")
    assert scene.sshd_facts()["PermitRootLogin"] == "no"
    assert not host.client.lets_in(host.keys["global"], "root")


def test_settings_that_are_broken_already_are_not_touched(scene: Scene) -> None:
    host = scene.host
    host.enrol(scene.service, SERVER)
    host.start_agent()
    scene.wait_for(8)
    scene.accept("krone")
    with host.config.open("a") as file:
        file.write("NoSuchKeyword yes\n")
    broken = host.config.read_bytes()
    modes.set_mode(scene.service.instance, owner(), SERVER, "enforce")
    scene.wait_for_event("Enforcing did not begin on web-1")
    assert any("have a fault" in summary for summary in scene.events())
    assert host.config.read_bytes() == broken
    assert host.client.lets_in(host.keys["krone"], "krone")
    # Once its administrator has mended it, it can be asked for again.
    host.config.write_bytes(broken.replace(b"NoSuchKeyword yes\n", b""))
    scene.enforce()


def test_a_key_added_by_hand_is_found_and_decided_on(scene: Scene, tmp_path: Path) -> None:
    host = scene.host
    host.enrol(scene.service, SERVER)
    host.start_agent()
    scene.wait_for(8)
    hand = Key.make(tmp_path / "hand")
    file = Path("/home/krone/.ssh/authorized_keys")
    before = file.read_bytes()
    file.write_bytes(before + f"{hand.public} by hand\n".encode())
    assert host.client.lets_in(hand, "krone")
    wait_until(lambda: "by hand" in {one.comment for one in scene.found()}, "the key in the service")
    assert any("Found by hand on web-1" in summary for summary in scene.events())
    found = next(one for one in scene.found() if one.comment == "by hand")
    unmanaged_keys.remove(scene.service.instance, owner(), SERVER, found.id)
    host.client.wait_until_closed(hand, "krone")
    assert file.read_bytes() == before
    assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (pwd.getpwnam("krone").pw_uid, 0o600)
    wait_until(lambda: any("was taken out of" in summary for summary in scene.events()), "words that it is gone")


# A trailing hyphen, a computer's account, fully qualified names, and longer than any that useradd makes.
ODD_NAMES = ("kr.Last", "9kr-", "krhost$", f"kr{'x' * 30}@corp.example", "CORP\\kranna")


def test_accounts_of_any_name_that_hosts_have_are_accepted_and_not_locked_out(scene: Scene, tmp_path: Path) -> None:
    host = scene.host
    keys = {name: Key.make(tmp_path / f"odd-{number}") for number, name in enumerate(ODD_NAMES)}
    with accounts_of_directories(ODD_NAMES):
        for name, key in keys.items():
            host.place(name, ".ssh/authorized_keys", f"{key.public} of {name}\n")
        host.enrol(scene.service, SERVER)
        host.start_agent()
        wait_until(lambda: {one.username for one in scene.found()} >= set(ODD_NAMES), "the keys of all accounts")
        scene.accept(*ODD_NAMES)
        scene.enforce()
        # sshd since then reads the file of another name, and the host says so.
        closed = {"CORP\\kranna"} if version_of("ssh") >= (10, 0) else set()
        for name, key in keys.items():
            assert host.client.lets_in(key, name) is (name not in closed), name
        for name in closed:
            assert f"no key opens the account {name}: sshd takes the \\ in its name" in host.agent("doctor").stdout


def test_a_key_added_to_keyracks_own_file_is_removed_and_reported(scene: Scene, tmp_path: Path) -> None:
    host = scene.host
    host.enrol(scene.service, SERVER)
    host.start_agent()
    scene.wait_for(8)
    scene.accept("krone")
    scene.enforce()
    hand = Key.make(tmp_path / "hand")
    with host.pausing_agent():
        with (host.etc / "keyrack" / "keys" / "krone").open("a") as file:
            file.write(f"{hand.public} by-hand\n")
        assert host.client.lets_in(hand, "krone")
    host.client.wait_until_closed(hand, "krone")
    wait_until(lambda: "by-hand" in {one.comment for one in scene.found()}, "the key in the service")
    found = next(one for one in scene.found() if one.comment == "by-hand")
    unmanaged_keys.accept(scene.service.instance, owner(), SERVER, found.id, label="by-hand after all")
    host.client.wait_until_open(hand, "krone")


def test_no_program_names_keys_and_sshds_log_says_nothing_of_it(scene: Scene) -> None:
    """Neither one that the host has, nor one that it is given while the agent cannot see to it."""
    host = scene.host
    host.enrol(scene.service, SERVER)
    host.start_agent()
    scene.wait_for(8)
    scene.accept(*ACCOUNTS)
    wait_until(lambda: all((host.etc / "keyrack" / "keys" / name).exists() for name in ACCOUNTS), "key files")
    assert "/true" not in host.agent("plan").stdout.split("What sshd would do otherwise:")[1].split("\n\n")[0]
    scene.enforce()
    wait_until(lambda: not [one for one in scene.found() if one.kind == "command" and one.in_force], "no program")
    host.stop_agent()
    said = host.folder / "sshd.log"
    with said.open("a", encoding="utf-8") as log:
        log.write("from here on\n")
    for name in ACCOUNTS:
        assert not host.client.lets_in(host.keys["helper"], name), name
    # sshd counts the first Match that has a keyword, and a keyword for everybody before the first Match.
    command = f"AuthorizedKeysCommand {host.etc}/helper krfive\nAuthorizedKeysCommandUser root\n"
    text = host.config.read_text("ascii")
    host.config.write_text(
        text.replace("Match User krthree\n", f"{command}Match all\n{command}Match User krthree\n"), "ascii"
    )
    host.tell_sshd()
    for name in ACCOUNTS:
        assert not host.client.lets_in(host.keys["helper"], name), name
        assert host.client.lets_in(host.keys[name], name), name
    lines = said.read_text("utf-8").split("from here on\n")[1]
    assert lines.count("Failed publickey for") == 2 * len(ACCOUNTS), lines
    assert "Command" not in lines, lines


def test_a_changed_drop_in_is_put_back(scene: Scene) -> None:
    host = scene.host
    host.enrol(scene.service, SERVER)
    host.start_agent()
    scene.wait_for(8)
    scene.accept("krone")
    scene.enforce()
    drop_in = host.etc / "sshd_config.d" / "00-keyrack.conf"
    good = drop_in.read_bytes()
    drop_in.write_text("# nothing\n", "ascii")
    host.config.write_bytes(host.config.read_bytes().split(b"\n", 2)[2])
    wait_until(lambda: drop_in.read_bytes() == good, "the file put back")
    wait_until(lambda: any("put back" in words for words in [host.log()]), "words about it")
    host.client.wait_until_closed(host.keys["rogue"], "krtwo")


@pytest.mark.parametrize(
    ("then", "lasting_stays", "temporary_stays"),
    [("keep", True, True), ("drop-temporary", True, False), ("drop-all", False, False)],
)
def test_the_offline_policy_drops_keys_after_the_services_silence(
    scene: Scene, tmp_path: Path, then: str, lasting_stays: bool, temporary_stays: bool
) -> None:
    host = scene.host
    host.enrol(scene.service, SERVER, "--mode=enforce")
    temporary = Key.make(tmp_path / "temporary")
    lasting = host.keys["krone"]
    for key, label, short in ((lasting, "lasting", False), (temporary, "temporary", True)):
        scene.add(key, label, temporary=short)
    # The service takes a minute and more; the test cannot wait for so long.
    scene.set_columns(offline_after_seconds=3, offline_then=then)
    host.start_agent()
    wait_until(lambda: scene.enforcement() == "enforce", "enforcing in force")
    assert host.client.lets_in(lasting, "krone")
    assert host.client.lets_in(temporary, "krone")
    scene.stop_service()
    wait_until(lambda: "confirmed nothing for" in host.agent("status").stdout, "words about the silence")
    assert host.client.lets_in(lasting, "krone") is lasting_stays
    assert host.client.lets_in(temporary, "krone") is temporary_stays


def test_accounts_are_made_only_where_the_host_allows_it(scene: Scene) -> None:
    host = scene.host
    host.enrol(scene.service, SERVER, "--only-accounts=krone,kr-made")
    # No agent runs: this test is the one that works in its folder.
    with accounts_gone("kr-made"):
        document = scene.document({"kr-made": DesiredAccount(True, HASH, True)})
        memory = StateFolder.open(str(host.state))
        enrolment = memory.enrolment()
        assert enrolment is not None
        refused = Accounts(memory, read(memory)).put(document.accounts)
        assert refused == [NOT_ALLOWED]
        assert not exists("kr-made")
        host.decide(allow_accounts=True)
        made = Accounts(memory, read(memory))
        assert made.put({**document.accounts, "kr-other": DesiredAccount(True)}) == [
            "this host does not let the service speak for the account kr-other"
        ]
        account = pwd.getpwnam("kr-made")
        shadow = next(line for line in Path("/etc/shadow").read_text().split("\n") if line.startswith("kr-made:"))
        assert shadow.split(":")[1] == HASH
        public = Path(account.pw_dir) / ".ssh" / "id_ed25519.pub"
        assert made.facts(document.accounts) == {
            "kr-made": {"exists": True, "deployment_key": public.read_text("ascii").strip()}
        }
        assert public.stat().st_uid == account.pw_uid
        assert made.put({"kr-made": DesiredAccount(False), "krone": DesiredAccount(False)}) == [
            "the account krone was not made by Keyrack, so it stays; remove it by hand"
        ]
        assert not exists("kr-made")
        assert Path(account.pw_dir).exists(), "a home is not Keyrack's to remove"
        memory.folder.close()


@contextmanager
def accounts_gone(*names: str) -> Iterator[None]:
    """Whatever the block does: these accounts and their homes are gone at the end."""
    remove_accounts(names)
    try:
        yield
    finally:
        remove_accounts(names)
        for name in names:
            shutil.rmtree(Path("/home") / name, ignore_errors=True)


def test_a_command_that_names_keys_stays_beside_the_document_where_its_host_wants_that(scene: Scene) -> None:
    """It is known by name, asked as before, and a key that is revoked opens nothing, whoever names it."""
    host = scene.host
    named = host.etc / "sss_ssh_authorizedkeys"
    shutil.copy2(host.etc / "helper", named)
    host.config.write_text(host.config.read_text("ascii").replace("/helper %u", f"/{named.name} %u"), "ascii")
    host.tell_sshd()
    host.enrol(scene.service, SERVER, "--chain-keys-command")
    host.start_agent()
    scene.wait_for(8)
    (command,) = (one for one in scene.found() if one.kind == "command")
    assert command.comment == "SSSD: keys of its directory"
    scene.accept(*ACCOUNTS)
    wait_until(lambda: all((host.etc / "keyrack" / "keys" / name).exists() for name in ACCOUNTS), "key files")
    plan = host.agent("plan").stdout
    assert f"= whoever {named} %u names (SSSD: keys of its directory): AuthorizedKeysCommand goes on" in plan
    scene.enforce()
    assert host.client.lets_in(host.keys["krfive"], "krfive")
    assert host.client.lets_in(host.keys["helper"], "krfive")
    assert not host.client.lets_in(host.keys["rogue"], "krtwo")
    held = servers.get(scene.service.instance, owner(), SERVER).facts["problems"]
    assert f"AuthorizedKeysCommand {named} %u lets in whom it names, as this host's administrator decided" in held
    scene.add(host.keys["helper"], "helper", temporary=False)
    revocation.revoke_everywhere(scene.service.instance, owner(), fingerprint_of(host.keys["helper"].public))
    host.client.wait_until_closed(host.keys["helper"], "krfive")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/bin/sss_ssh_authorizedkeys", "SSSD: keys of its directory"),
        ("/usr/bin/google_authorized_keys %u", "Google OS Login"),
        ("/usr/share/ec2-instance-connect/eic_run_authorized_keys %u %f", "EC2 Instance Connect"),
        ('"/usr/local/bin/opkssh" verify %u %k %t', "opkssh: identities of OpenID providers"),
        ("/usr/bin/env userdbctl ssh-authorized-keys %u", "systemd-userdbd: keys of user records"),
        ("/usr/sbin/aad_certhandler %u %k", "Microsoft Entra login"),
        ("/usr/local/bin/keys-of-our-own %u", ""),
    ],
)
def test_programs_that_name_keys_are_known(command: str, name: str) -> None:
    assert other_sources.name_of(command) == name


def test_agents_that_write_keys_are_known_and_named_when_a_key_is_there_again(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/cloud-init").touch()
    (tmp_path / "usr/bin/google_guest_agent").touch()
    assert other_sources.writers(str(tmp_path)) == ["Google guest agent", "cloud-init"]
    server = servers.get(scene.service.instance, owner(), SERVER)
    line = {"username": "krone", "path": "/home/krone/.ssh/authorized_keys", "kind": "key", "line": 1}
    key = Key.make(tmp_path / "key").public
    line |= {"type": "ssh-ed25519", "key": key, "fingerprint": fingerprint_of(key), "in_force": True}
    for found in ([line], [], [line]):
        reported = {"facts": {"writers": ["Google guest agent"]}, "keys_found": found}
        reports.ingest(scene.service.instance, server, {"revision": 0, "state": "applied", **reported})
        server = servers.get(scene.service.instance, owner(), SERVER)
    assert any("is in /home/krone/.ssh/authorized_keys on " in words and "again" in words for words in scene.events())
    scene.wait_for_event("writes keys again and again: Google guest agent")
