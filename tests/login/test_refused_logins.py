"""What the agent tells of who could log in is what the real ssh meets: settings, accounts and keys made by chance."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keyrack.agent.sshd import refused_logins
from keyrack.agent.sshd.login_check import LoginCheck
from keyrack.agent.sshd.settings import Sshd, SshdProblem
from keyrack.protocol.host_document import AuthorizedKey, HostDocument
from keyrack.ssh import revoked_keys
from keyrack.ssh.authorized_keys import key_line
from keyrack.ssh.public_key import fingerprint_of
from tests.login.observed_host import AdoptedHost, PatientSshClient, accounts, set_home
from tests.login.private_sshd import Key, SshClient, patience, strict_folder
from tests.ports import free_port

LONG = os.environ.get("KEYRACK_LONG") == "1"
COUNT = 200 if LONG else 8
FIRST = int(os.environ.get("KEYRACK_SEED", "0"))  # another number makes other cases
MORE = 1000  # from this number on there are other rules, and a second port
WIDER = 100_000  # and from this one on more directives, rules by address, and homes of other kinds
MIXED = 200_000  # and from this one on files that are included, two rules, most with "!", and a key with `from`
OFTEN = ("", "127.0.0.2", "127.9.8.7")  # from where somebody comes: named by rules, and by none
FROM_ELSEWHERE = (*OFTEN, "127.9.8.1", "127.44.0.1")  # so that each `from` and each rule of MIXED leaves somebody
FOUND = (
    163,
    157_111,
)  # a forced command and a shell that ends every login, no shell in a ChrootDirectory: found by the long form
ACCOUNTS = ("krone", "krtwo", "root")
GROUP = "krones"

ONE_OF = {
    "PermitRootLogin": ("yes", "no", "prohibit-password", "forced-commands-only"),
    "PubkeyAuthentication": ("yes", "yes", "yes", "no"),
    "AllowUsers": ("", "", "krone", "kr*", "k?two root", "krtwo@127.0.0.0/8 krone", "*"),
    "DenyUsers": ("", "", "", "krtwo", "ro?t", "krone@192.0.2.1"),
    "AllowGroups": ("", "", "", GROUP, "root kr*", "nobodies"),
    "DenyGroups": ("", "", "", GROUP, "root"),
    "AuthenticationMethods": ("", "", "", "publickey", "publickey,keyboard-interactive", "any", "publickey,publickey"),
    "PubkeyAcceptedAlgorithms": ("", "", "", "-ssh-ed25519", "rsa-sha2-512", "+ssh-rsa"),
    "RequiredRSASize": ("", "", "3072"),
    "ForceCommand": ("", "", "", "/bin/echo forced", "internal-sftp", "/usr/sbin/nologin"),
    "ChrootDirectory": ("", "", "", "", "/nosuch", "%h", "/"),
    "MaxSessions": ("", "", "", "", "0"),
    "AuthorizedKeysFile": (
        "OURS",
        "OURS",
        "OURS",
        '"OURS"',
        ".ssh/none OURS",
        "none",
        ".ssh/authorized_keys",
        "KEYS/%%u",
    ),
}
RULES = (
    "",
    "",
    "Match User krone",
    "Match Group krones",
    "Match User kr*,!krtwo",
    "Match Address 192.0.2.0/24",
    "Match all",
)

MORE_OF = {
    "PubkeyAcceptedAlgorithms": ("", "", "", "ssh-rsa,ssh-ed25519", "^ssh-rsa", "rsa-sha2-*,ssh-ed25519", "ecdsa-*"),
    "PubkeyAuthOptions": ("", "", "touch-required", "verify-required"),
    "AuthorizedPrincipalsFile": ("", "", ".ssh/none"),
    "TrustedUserCAKeys": ("", "", "CA"),
    "AllowUsers": ("", "", "krone@127.0.0.1 root krtwo@127.*", "krone root@* krtwo", "*@127.0.0.0/8"),
}
MORE_RULES = (
    "",
    "",
    "",
    "Match LocalPort PORT",
    "Match LocalPort OTHER",
    "Match User krtwo LocalPort PORT",
    "Match User *,!krone",
    "Match Group !krones,*",
    "Match User krone Group kr*",
    "Match Group root",
)


WIDER_OF = {
    "AuthenticationMethods": (
        "",
        "",
        "publickey,password publickey",
        "password publickey,keyboard-interactive",
        "publickey password",
        "password keyboard-interactive",
    ),
    "PubkeyAcceptedAlgorithms": ("", "", "ssh-ed25519*", "-rsa*,ssh-ed25519", "rsa-sha2-512,ecdsa-sha2-*", "ssh-*"),
    "RevokedKeys": ("", "", "", "EMPTY", "RSA", "/nosuch/revoked", "/etc"),
    "AllowUsers": ("", "", "krone@127.0.0.1", "krtwo@127.0.0.2 root", "k* root@192.0.2.1", "!krone kr* root"),
    "DenyUsers": ("", "", "krone@127.0.0.1", "krtwo@127.0.0.*", "*one", "!krone krtwo"),
    "MaxAuthTries": ("", "", "1", "2"),
    "StrictModes": ("", "", "yes", "no"),
    "PermitUserEnvironment": ("", "yes", "LANG,LC_*"),
    "ExposeAuthInfo": ("", "yes", "no"),
    "PermitTTY": ("", "no"),
    "AuthorizedKeysFile": (
        "OURS",
        "OURS",
        '"KEYS/%u" ".ssh/with blank"',
        "none",
        "none OURS",
        "KEYS//%u",
        "KEYS/./%u",
        "KEYS/../keys/%u",
        ".ssh/authorized_keys",
        "KEYS/%%u OURS",
    ),
}
WIDER_RULES = (
    "",
    "Match Address 127.0.0.1",
    "Match Address *,!127.0.0.1",
    "Match LocalPort OTHER",
    "Match Address 127.0.0.2,192.0.2.0/24 User krone",
    "Match LocalAddress 127.0.0.1",
    "Match LocalPort PORT",
    "Match User !krone,*",
    "Match User *,!kr*",
    'Match User "krtwo"',
    "Match Host 127.0.0.1",
    "Match Group krones,!root",
)
WIDER_BELOW = (
    "AllowUsers krone",
    "DenyUsers krtwo",
    "DenyGroups krones",
    "AuthorizedKeysFile none",
    "AuthorizedKeysFile OURS",
    "MaxSessions 0",
    "ChrootDirectory /nosuch",
    "RevokedKeys /nosuch/revoked",
    "RevokedKeys RSA",
    "PubkeyAcceptedAlgorithms -ssh-ed25519",
    "PermitRootLogin no",
    "AuthenticationMethods password publickey",
    "RequiredRSASize 3072",
)
MIXED_RULES = (
    "Match Address !127.0.0.2,127.0.0.0/8",
    "Match Address *,!127.9.0.0/16 User krtwo",
    "Match User !krone,* Address 127.0.0.0/8",
    "Match User *,!krone,!root",
    "Match Group !krones,* User kr*",
    "Match Host !127.0.0.1,*",
    "Match Host 127.9.* Group *,!root",
    "Match Address 127.9.8.0/24,!127.9.8.7",
    "Match LocalAddress !127.0.0.1,*",
    "Match all",
)
MIXED_BELOW = (*WIDER_BELOW, "AllowUsers *@!127.0.0.2,127.*", "DenyUsers *@127.9.*", "PubkeyAuthentication no")
FROM = (
    "127.0.0.1",
    "127.0.0.0/8",
    "!127.0.0.1,127.*",
    "127.9.8.?,!127.9.8.7",
    "10.0.0.0/8",
    "*,!127.0.0.0/16",
    "!127.0.0.0/8,*",
    "192.0.2.1,127.0.0.2",
    "localhost",
    "::1",
    "127.0.0.2/31",
)
INCLUDES = ("", "FILES/*.conf", "FILES/[12]0-?.conf", '"FILES/20-b.conf" FILES/1*', "FILES/none* FILES/?0-*.conf")


@dataclass
class Case:
    """One set of settings and what is done to the accounts. bound: `from` of one more key; files: what is included."""

    number: int
    settings: list[str] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)
    bound: str = ""
    files: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def make(cls, number: int) -> Case:
        """By chance, and the same again for the same number. A few settings differ from the usual at once."""
        chance = random.Random(number)
        case = cls(number)
        one_of = ONE_OF if number < MORE else {**ONE_OF, **MORE_OF}
        one_of = one_of if number < WIDER else {**one_of, **WIDER_OF}
        chosen = set(chance.sample(sorted(one_of), 3))
        for keyword, values in one_of.items():
            value = chance.choice(values) if keyword in chosen else values[0]
            if keyword == "PermitRootLogin" and keyword not in chosen:
                value = "yes"
            if value:
                case.settings.append(f"{keyword} {value}")
        if number >= MIXED:
            case.mix(chance)
        rule = chance.choice(RULES if number < MORE else MORE_RULES if number < WIDER else WIDER_RULES)
        if number >= MIXED:
            pass
        elif rule and number >= WIDER:
            case.settings += [rule, f"    {chance.choice(WIDER_BELOW)}"]
        elif rule:
            keyword = chance.choice(
                ("PermitRootLogin", "PubkeyAuthentication", "ForceCommand", "AuthenticationMethods")
            )
            value = next(filter(None, reversed(ONE_OF[keyword])))
            case.settings += [rule, f"    {keyword} {value}"]
        wild: tuple[list[str], ...] = (
            [],
            [],
            ["usermod", "-s", "/nonexistent/shell"],
            ["usermod", "-s", "/usr/sbin/nologin"],
            ["usermod", "-L"],
            ["usermod", "-p", "!"],
            ["chage", "-E", "1"],
            ["usermod", "-aG", GROUP],
        )
        if number >= WIDER:
            wild = (*wild, ["chmod-home", "g+w"], ["chmod-home", "000"], ["link-home"], ["usermod", "-d", "/nosuch"])
        for name in ("krone", "krtwo"):
            words = chance.choice(wild)
            if words:
                case.commands.append([*words, name])
        return case

    def mix(self, chance: random.Random) -> None:
        """Two rules, each with what stands below it in the file or in one that is included there; and the key."""
        self.bound = chance.choice(FROM)
        include = chance.choice(INCLUDES)
        if include:
            half = chance.randrange(len(self.settings) + 1)
            self.files = {"10-a.conf": self.settings[:half], "20-b.conf": self.settings[half:]}
            # What is included ends its own rules; they hold for nothing after it.
            self.files["10-a.conf"] += [chance.choice(MIXED_RULES), f"    {chance.choice(MIXED_BELOW)}"]
            self.settings = [f"Include {include}"]
        for name in ("below-1", "below-2"):
            below = chance.choice(MIXED_BELOW)
            if chance.random() < 0.5:
                self.files[name] = [below]
                below = f"Include FILES/{name[:-1]}[{name[-1]}]"
            self.settings += [chance.choice(MIXED_RULES), f"    {below}"]


class Host(AdoptedHost):
    """One whose settings are made anew for each case; key files lie where Keyrack's would."""

    def begin(self) -> None:
        self.prepare()
        self.other = PatientSshClient(free_port(), self.client.known_hosts)
        with self.client.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{self.other.port} {(self.etc / 'host_key.pub').read_text('ascii')}")
        self.ours = self.etc / "keyrack" / "keys"
        self.ours.mkdir(parents=True)
        self.revoked = self.etc / "keyrack" / "revoked"
        self.rsa = Key.make(self.folder / "key-rsa", "rsa", 2048)
        # None of these stands in a file of the accounts' own, too.
        self.bound = Key.make(self.folder / "key-bound")
        plain, forced, ended, self.gone = (Key.make(self.folder / f"key-{name}") for name in ("a", "b", "c", "gone"))
        now = datetime.now(UTC)
        users: dict[str, list[AuthorizedKey]] = {}
        for name in ACCOUNTS:
            entries = [
                AuthorizedKey(plain.public),
                AuthorizedKey(self.rsa.public),
                AuthorizedKey(forced.public, options=('command="/bin/echo key"',)),
                AuthorizedKey(ended.public, expires_at=now - timedelta(hours=1)),
                AuthorizedKey(self.gone.public),
            ]
            lines = [key_line(entry.public_key, entry.options, entry.expires_at) for entry in entries]
            (self.ours / name).write_text("".join(f"{line}\n" for line in lines), "ascii")
            users[name] = entries
        self.revoked.write_bytes(revoked_keys.render([self.gone.public]))
        self.users = users  # the document's own lists
        self.document = HostDocument("h", 1, now, users, revoked=(self.gone.public,))
        self.pairs = [plain, self.rsa, forced, ended, self.gone]
        (self.etc / "revoked-rsa").write_bytes(revoked_keys.render([self.gone.public, self.rsa.public]))
        (self.etc / "revoked-empty").write_bytes(revoked_keys.render([self.gone.public]))

    def become(self, case: Case) -> None:
        base = [
            f"Port {self.port}",
            *([f"Port {self.other.port}"] if case.number >= MORE else []),
            "ListenAddress 127.0.0.1",
            f"HostKey {self.etc}/host_key",
            f"PidFile {self.etc}/sshd.pid",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication yes",
            "UsePAM no",
            "MaxStartups 100",
            "Subsystem sftp internal-sftp",
            "SetEnv SHLVL=1",
            *patience().splitlines(),
        ]
        # The first of a keyword counts.
        text = "\n".join([*base, *case.settings, ""])
        if "\nRevokedKeys" not in text:
            text = text.replace("\nSetEnv", f"\nRevokedKeys {self.revoked}\nSetEnv", 1)
        self.bind(case)
        folder = self.etc / "included"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, lines in case.files.items():
            (folder / name).write_text(self.filled("\n".join([*lines, ""])), "ascii")
        self.config.write_text(self.filled(text), "ascii")

    def bind(self, case: Case) -> None:
        """Have one more key that opens from somewhere alone, or not."""
        for name, entries in self.users.items():
            entries[5:] = [AuthorizedKey(self.bound.public, options=(f'from="{case.bound}"',))] if case.bound else []
            lines = [key_line(entry.public_key, entry.options, entry.expires_at) for entry in entries]
            (self.ours / name).write_text("".join(f"{line}\n" for line in lines), "ascii")

    def filled(self, text: str) -> str:
        """With this host's own paths and ports."""
        text = text.replace("FILES", str(self.etc / "included"))
        text = text.replace("RevokedKeys RSA", f"RevokedKeys {self.etc}/revoked-rsa")
        text = text.replace("RevokedKeys EMPTY", f"RevokedKeys {self.etc}/revoked-empty")
        text = text.replace("OURS", f"{self.ours}/%u").replace("KEYS", str(self.ours))
        text = text.replace("TrustedUserCAKeys CA", f"TrustedUserCAKeys {self.ca}.pub")
        return text.replace("PORT", str(self.port)).replace("OTHER", str(self.other.port))


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with ExitStack() as stack:
        stack.enter_context(accounts(("krone", "krtwo", "krfive", "krthree", "krfour")))
        subprocess.run(["groupadd", "-f", GROUP], check=True)
        stack.callback(subprocess.run, ["groupdel", GROUP], check=False, capture_output=True)
        host = Host(stack.enter_context(strict_folder()))
        host.begin()
        stack.callback(host.stop)
        yield host


@pytest.mark.timeout(3600)
def test_the_agent_reports_exactly_the_logins_that_ssh_is_refused(host: Host) -> None:
    inside = asked = 0
    wrong = []
    for number in [*range(FIRST, FIRST + COUNT), *(() if LONG else (*FOUND, MIXED))]:
        case = Case.make(number)
        host.become(case)
        if Sshd(str(host.config)).problem() is not None:
            # No sshd starts with these, so nobody gets in, and that is said.
            with pytest.raises(SshdProblem):
                LoginCheck(Sshd(str(host.config))).verdicts(host.document)
            continue
        for words in case.commands:
            change(words)
        try:
            reported = refused_logins.as_reported(
                LoginCheck(Sshd(str(host.config))), Sshd(str(host.config)), host.document, str(host.ours)
            )
            host.start_sshd()
            for name in ACCOUNTS:
                for key in [*chosen(host, number, name), *([host.bound] if case.bound else [])]:
                    entry = next(one for one in host.document.users[name] if one.public_key == key.public)
                    why = reported[name].get("why") or reported[name].get("keys", {}).get(
                        fingerprint_of(entry.public_key), ""
                    )
                    for client, address in ways(host, case):
                        opened, ended = try_login(client, case, name, key, address)
                        if opened:
                            break
                    asked += 1
                    inside += opened
                    if opened == bool(why):
                        wrong.append((number, name, opened, why, ended.returncode, case, ended.stderr[-300:]))
        finally:
            host.stop_sshd()
            restore(case)
    assert not wrong, "\n".join(map(str, wrong[:10]))
    assert asked // 16 < inside < asked * 15 // 16, f"{inside} of {asked}: cases that all are one thing show little"
    print(f"{COUNT} settings, {asked} logins, {inside} inside")


def ways(host: Host, case: Case) -> list[tuple[SshClient, str]]:
    """Over which ports and from which addresses somebody may come, where settings ask for that."""
    text = " ".join([*case.settings, *(line for lines in case.files.values() for line in lines)])
    clients = [host.client, host.other] if "LocalPort" in text else [host.client]
    by_address = "@" in text or "Match Address" in text or "Match Host" in text or bool(case.bound)
    addresses = FROM_ELSEWHERE if case.bound else OFTEN if by_address else OFTEN[:1]
    return [(client, address) for client in clients for address in addresses]


def try_login(
    client: SshClient, case: Case, name: str, key: Key, address: str
) -> tuple[bool, subprocess.CompletedProcess[str]]:
    """Whether somebody gets in, if only to carry files, and how it ended."""
    more = ["-o", "LogLevel=VERBOSE", *(["-o", f"BindAddress={address}"] if address else [])]
    ended = client.login(key, name, "exit 0", more)
    if ended.returncode and "internal-sftp" in str((case.settings, case.files)) and "Authenticated to" in ended.stderr:
        *given, _, _ = client.command(key, name, extra=more)
        given = ["-P" if word == "-p" else word for word in given[1:]]
        ended = subprocess.run(
            ["sftp", "-b", "-", *given, f"{name}@127.0.0.1"],
            input="pwd\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    return ended.returncode == 0, ended


def change(words: list[str]) -> None:
    """Do what a case does to an account."""
    home = Path("/home") / words[-1]
    if words[0] == "chmod-home":
        subprocess.run(["chmod", words[1], home], check=True)
    elif words[0] == "link-home":
        link = home.with_name(f"{home.name}-link")
        link.unlink(missing_ok=True)
        link.symlink_to(home)
        set_home(words[-1], link)
    elif words[:2] == ["usermod", "-d"]:
        set_home(words[-1], Path(words[2]))
    else:
        subprocess.run(words, check=True, capture_output=True)


def chosen(host: Host, number: int, name: str) -> list[Key]:
    """One plain one and one of the others; in the long form, now and then all."""
    if LONG and number % 5 == 0:
        return host.pairs
    return [host.pairs[0], host.pairs[1 + (number + len(name)) % 4]]


def restore(case: Case) -> None:
    for name in {words[-1] for words in case.commands}:
        home = Path("/home") / name
        given = ["usermod", "-s", "/bin/sh", "-p", "*", "-G", "", name]
        subprocess.run(given, check=True, capture_output=True)
        set_home(name, home)
        home.chmod(0o755)
        home.with_name(f"{name}-link").unlink(missing_ok=True)
        subprocess.run(["chage", "-E", "-1", name], check=True, capture_output=True)
