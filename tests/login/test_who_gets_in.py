"""Whom the agent says a rule keeps out, sshd keeps out: both are asked about the same accounts, settings and keys."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keyrack.agent.sshd import login_verdict, refused_logins
from keyrack.agent.sshd.login_check import LoginCheck
from keyrack.agent.sshd.settings import Sshd
from keyrack.agent.system import programs
from keyrack.protocol.host_document import AuthorizedKey, HostDocument
from tests.login.observed_host import AdoptedHost, accounts
from tests.login.private_sshd import Key, strict_folder

NAME = "krtwo"
TODAY = int(time.time() // 86400)
PAM = "UsePAM yes"
LAST_DAY = ("chage", "-d", str(TODAY - 90), "-M", "90")


@pytest.fixture(scope="module")
def host() -> Iterator[AdoptedHost]:
    with ExitStack() as stack:
        stack.enter_context(accounts())
        host = AdoptedHost(stack.enter_context(strict_folder()))
        host.prepare()
        stack.callback(host.stop)
        yield host


@pytest.fixture
def account() -> Iterator[Callable[..., None]]:
    """Changes the account by a program, for one test."""

    def change(*words: str) -> None:
        if words:
            subprocess.run([*words, *([] if words[0] == "sed" else [NAME])], check=True, capture_output=True)

    shadow = Path("/etc/shadow").read_bytes()
    yield change
    Path("/etc/shadow").write_bytes(shadow)
    change("usermod", "-s", "/bin/sh", "-p", "*")
    change("chage", "-d", str(TODAY), "-M", "99999", "-I", "-1", "-E", "-1")


@pytest.fixture
def had(host: AdoptedHost) -> Iterator[Callable[[str], None]]:
    """Puts settings before all others, for one test."""
    text = host.config.read_text("ascii")

    def put(settings: str) -> None:
        host.config.write_text(f"{settings}\n{text}", "ascii")

    yield put
    host.config.write_text(text, "ascii")


def judged(host: AdoptedHost) -> tuple[str, bool]:
    """Why nobody gets in, and whether somebody could work there."""
    document = HostDocument("h", 1, datetime.now(UTC), {NAME: [AuthorizedKey(host.keys[NAME].public)]})
    (verdict,) = found = LoginCheck(Sshd(str(host.config))).verdicts(document)
    return verdict.words, login_verdict.opens_for_long(found, 600)


def gets_in(host: AdoptedHost) -> bool:
    """Whether a command runs there."""
    try:
        host.start_sshd()
        ended = host.client.login(host.keys[NAME], NAME, "echo inside")
        return ended.returncode == 0 and "inside" in ended.stdout
    finally:
        host.stop_sshd()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", ()),
        (PAM, ()),
        (PAM, ("chage", "-E", str(TODAY + 1))),
        (PAM, ("chage", "-E", str(TODAY))),
        ("", ("chage", "-E", str(TODAY))),
        ("", ("chage", "-E", str(TODAY - 1))),
        (PAM, ("chage", "-d", "0")),
        (PAM, ("chage", "-d", str(TODAY - 89), "-M", "90")),
        (PAM, LAST_DAY),
        (PAM, ("chage", "-d", str(TODAY - 91), "-M", "90")),
        ("", ("chage", "-d", str(TODAY - 91), "-M", "90")),
        (PAM, ("chage", "-d", str(TODAY - 96), "-M", "90", "-I", "5")),
        ("MaxSessions 0", ()),
        ("ChrootDirectory /nosuch/%u", ()),
        ("ChrootDirectory %h", ()),  # the account's own
        ("ChrootDirectory /run", ()),  # without a shell in it
        ("ChrootDirectory /", ()),
        ("ForceCommand /bin/true", ()),
        ("", ("usermod", "-s", "/bin/true")),
        ("", ("usermod", "-s", "/bin/sync")),
        ("", ("usermod", "-s", "LINK")),
        ("ForceCommand /nosuch/program", ()),
        ("MaxAuthTries 0", ()),
        ("MaxAuthTries 1", ()),
        ("Match User krtwo\n  PubkeyAuthentication no\n  AuthenticationMethods publickey\nMatch all", ()),
        ("Match User krone\n  PubkeyAuthentication no\n  AuthenticationMethods publickey\nMatch all", ()),
        ("Match User krtwo\n  RevokedKeys none\nMatch all", ()),
        ("RevokedKeys /dev/null\nMatch Group krtwo\n  RevokedKeys NONE\nMatch all", ()),
        ("Match User krone\n  RevokedKeys none\nMatch all", ()),
        ("RevokedKeys none", ()),
        ("Match RDomain *\n  PubkeyAuthentication no\nMatch all", ()),
        ("Match RDomain vrf1\n  PubkeyAuthentication no\nMatch all", ()),
        (PAM, ("sed", "-i", "/^krtwo:/d", "/etc/shadow")),
        ("", ("sed", "-i", "/^krtwo:/d", "/etc/shadow")),
        (PAM, ("usermod", "-L")),
        ("", ("usermod", "-L")),
    ],
)
def test_sshd_and_the_agent_agree(
    host: AdoptedHost,
    account: Callable[..., None],
    had: Callable[[str], None],
    settings: str,
    words: tuple[str, ...],
) -> None:
    if settings == PAM and not os.path.exists("/etc/pam.d/sshd"):
        pytest.skip("sshd has no PAM here")
    if "LINK" in words:
        link = host.etc / "a-shell"
        link.symlink_to("/usr/sbin/nologin")
        words = ("usermod", "-s", str(link))
    account(*words)
    had(settings)
    inside = gets_in(host)
    why, opens = judged(host)
    if words == LAST_DAY:
        assert "last day" in why  # PAM lets it in or does not, by its version
    else:
        assert inside == (not why), why
    if not inside:
        assert not opens


@pytest.mark.parametrize("settings", ["ForceCommand internal-sftp", "ForceCommand id", "ChrootDirectory /", ""])
def test_an_account_for_file_transfer_alone_does_not_count_as_a_login(
    host: AdoptedHost, account: Callable[..., None], had: Callable[[str], None], settings: str
) -> None:
    """Its key opens it, and nothing of this host can be mended by that."""
    if not settings:
        account("usermod", "-s", "/usr/bin/git-shell")
    had(settings)
    assert judged(host) == ("", False)


def test_a_revoked_keys_file_of_the_hosts_own_counts(host: AdoptedHost, had: Callable[[str], None]) -> None:
    """What is in it is refused, and where sshd cannot read it, it takes no key at all."""
    file = host.etc / "revoked-by-hand"
    file.write_text(f"# lost\n{host.keys[NAME].public} lost\n", "ascii")
    had(f"RevokedKeys {file}")
    assert not gets_in(host)
    document = HostDocument("h", 1, datetime.now(UTC), {NAME: [AuthorizedKey(host.keys[NAME].public)]})
    check = LoginCheck(Sshd(str(host.config)))

    def words() -> str:
        (verdict,) = check.verdicts(document)
        return verdict.words

    assert f"it is revoked on this host (RevokedKeys {file})" in words()
    file.write_text("# nobody\n", "ascii")
    assert gets_in(host)
    assert words() == ""
    file.unlink()
    assert not gets_in(host)
    assert f"sshd takes no key while it cannot read its RevokedKeys {file}" in words()
    file.write_text("", "ascii")
    assert words() == ""
    file.unlink()
    os.mkfifo(file)  # sshd waits for ever for who writes there, the agent does not
    assert "it is no regular file" in words()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n \t\n# OTHER\n#",
        "# OURS",
        "OTHER OURS",
        "  OURS",
        "OURS\r\n",
        "OTHER\r\n",
        "# lost\r\n\r\n",
        "OTHER\njunk\n",
        "junk",
        "no-pty OURS",
        "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
        "\ufeffOTHER",
        "ssh-rsa BASE64",
        "OTHER\nOURS and more",
        "OTHER\x00junk\n",
        "\x00junk\n",
        "CERTIFIED-OURS",
        "CERTIFIED-OTHER",
        "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t",
    ],
)
def test_lines_of_revoked_keys_are_read_as_sshd_reads_them(
    host: AdoptedHost, had: Callable[[str], None], text: str
) -> None:
    """A key in a comment is not revoked, and a line that is no key refuses all of them."""
    file = host.etc / "revoked-lines"
    ours, other = (host.keys[name].public for name in (NAME, "rogue"))
    for name, public in (("CERTIFIED-OURS", ours), ("CERTIFIED-OTHER", other)):
        if name in text:
            (host.folder / "certified.pub").write_text(f"{public}\n", "ascii")
            command = ["ssh-keygen", "-q", "-s", str(host.ca), "-I", "x", str(host.folder / "certified.pub")]
            subprocess.run(command, check=True, timeout=60)
            text = text.replace(name, (host.folder / "certified-cert.pub").read_text("ascii"))
    text = text.replace("OURS", ours).replace("OTHER", other).replace("BASE64", ours.split()[1])
    file.write_text(text, "utf-8")
    had(f"RevokedKeys {file}")
    why, _ = judged(host)
    assert gets_in(host) == (not why), why


def test_a_krl_counts(host: AdoptedHost, had: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A KRL is judged by ssh-keygen; without that program it is not guessed, and broken it lets nobody in."""
    file = host.etc / "revoked.krl"
    mine, others = (host.keys[name].path.with_suffix(".pub") for name in (NAME, "rogue"))
    had(f"RevokedKeys {file}")
    document = HostDocument("h", 1, datetime.now(UTC), {NAME: [AuthorizedKey(host.keys[NAME].public)]})
    check = LoginCheck(Sshd(str(host.config)))

    def words(*revoked: Path) -> str:
        if revoked:
            subprocess.run(["ssh-keygen", "-k", "-f", file, *revoked], check=True, capture_output=True)
        (verdict,) = check.verdicts(document)
        return verdict.words

    assert words(others) == ""
    assert gets_in(host)
    assert f"it is revoked on this host (RevokedKeys {file})" in words(others, mine)
    assert not gets_in(host)
    with monkeypatch.context() as changed:
        found = programs.find
        changed.setattr(programs, "find", lambda name: None if name == "ssh-keygen" else found(name))
        assert "cannot be known" in words()
    file.write_bytes(b"SSHKRL\n\0broken")
    assert "sshd takes no key while it cannot read its RevokedKeys" in words()
    assert not gets_in(host)


@pytest.mark.parametrize("rule", ["LocalAddress 127.0.0.1", "LocalAddress 127.0.0.0/8", "LocalPort PORT"])
def test_a_rule_for_the_only_place_where_sshd_listens_keeps_everybody_out(
    host: AdoptedHost, had: Callable[[str], None], rule: str
) -> None:
    """Nobody comes to another address or port of it, so it is no rule for some alone."""
    text = host.config.read_text("ascii")
    host.config.write_text(
        f"{text}\nMatch {rule.replace('PORT', str(host.port))}\n  PubkeyAuthentication no\n", "ascii"
    )
    try:
        key = AuthorizedKey(host.keys[NAME].public)
        (verdict,) = LoginCheck(Sshd(str(host.config))).judge({NAME: [key]}, [], everywhere=True)
        assert not gets_in(host)
        assert "PubkeyAuthentication no" in verdict.words
    finally:
        host.config.write_text(text, "ascii")


@pytest.mark.parametrize(
    ("listen", "rule"),
    [
        ("127.0.0.5", "LocalAddress 127.0.0.1"),
        ("127.0.0.5", "LocalAddress 127.0.0.0/29"),
        ("127.0.0.5", "LocalAddress 127.0.0.0/8,!127.0.0.5"),
        ("::1", "LocalAddress 127.0.0.0/8"),
        ("::1", "LocalAddress *"),
    ],
)
def test_an_sshd_on_several_addresses_is_judged_by_each(host: AdoptedHost, listen: str, rule: str) -> None:
    text = host.config.read_text("ascii")
    head = f"ListenAddress {listen}\n{text}"
    host.config.write_text(f"{head}\nMatch {rule}\n  PubkeyAuthentication no\n", "ascii")
    key = host.keys[NAME]
    try:
        host.start_sshd()
        alias = f"HostKeyAlias=[127.0.0.1]:{host.port}"
        ways = [["-o", f"HostName={address}", "-o", alias] for address in ("127.0.0.1", listen)]
        inside = any(host.client.login(key, NAME, extra=way).returncode == 0 for way in ways)
        (verdict,) = LoginCheck(Sshd(str(host.config))).judge({NAME: [AuthorizedKey(key.public)]}, [], everywhere=True)
        assert inside == (not verdict.words), verdict.words
        assert inside == (rule not in ("LocalAddress 127.0.0.0/29", "LocalAddress *"))
    finally:
        host.stop_sshd()
        host.config.write_text(text, "ascii")


@pytest.mark.parametrize(
    "settings",
    [
        "DenyUsers krtwo@127.0.0.0/8",
        "DenyUsers krtwo@127.*",
        "DenyUsers krtwo@127.0.0.1 krtwo@127.0.0.0/24",
        "DenyUsers krtwo@!127.0.0.9,127.*",
        "AllowUsers krtwo@192.0.2.1 root",
        "AllowUsers krtwo@10.0.0.0/8,192.0.2.0/24",
        "AllowUsers krtwo@10.0.0.0/8,127.0.0.9",
        "AllowUsers krtwo@!127.0.0.1,127.0.0.9",
        "AllowUsers krtwo@127.0.0.?",
        "AllowUsers krtwo@localhost",
        "AllowUsers krtwo@::1",
        "AllowUsers kr*@127.0.0.1 krtwo@nowhere.example",
        "UseDNS yes\nAllowUsers krtwo@*.example.org",
        "Match Host localhost\n  PubkeyAuthentication no\nMatch all",
        "Match Host 127.*\n  PubkeyAuthentication no\nMatch all",
        "Match Address *,!192.0.2.0/24\n  AllowUsers root\nMatch all",
        "DenyUsers krtwo@127.0.0.1\nMatch Address *,!127.0.0.1\n  PermitTTY no\n  PubkeyAuthentication no\nMatch all",
    ],
)
def test_only_addresses_from_which_somebody_can_connect_count(
    host: AdoptedHost, had: Callable[[str], None], settings: str
) -> None:
    """An sshd on loopback alone is reached from there alone, whatever its rules say of other places."""
    had(settings)
    key = host.keys[NAME]
    (verdict,) = LoginCheck(Sshd(str(host.config))).judge({NAME: [AuthorizedKey(key.public)]}, [], everywhere=True)
    host.start_sshd()
    try:
        sources = ("127.0.0.1", "127.0.0.9", "127.83.71.3")
        inside = any(host.client.login(key, NAME, extra=["-b", source]).returncode == 0 for source in sources)
    finally:
        host.stop_sshd()
    assert inside == (not verdict.words), verdict.words


def test_a_rule_for_all_of_one_family_of_addresses_leaves_the_other_open(host: AdoptedHost) -> None:
    """sshd listens on both where nothing else is said, and who comes by the other gets in."""
    config = host.etc / "both"
    rule = "Match LocalAddress 0.0.0.0/0\n  PubkeyAuthentication no\n"
    config.write_text(f"Port {host.port}\nHostKey {host.etc}/host_key\n{rule}", "ascii")
    key = AuthorizedKey(host.keys[NAME].public)
    (verdict,) = LoginCheck(Sshd(str(config))).judge({NAME: [key]}, [], everywhere=True)
    assert verdict.words == ""


@pytest.mark.parametrize(
    "taken",
    [
        "rsa-sha2-256",
        "rsa-sha2-512",
        "rsa-sha2-256,ssh-rsa",
        "rsa-sha2-256,rsa-sha2-512",
        "-rsa-sha2-512",
        "rsa-sha2-*",
    ],
)
def test_sshd_and_the_agent_agree_about_signatures(host: AdoptedHost, had: Callable[[str], None], taken: str) -> None:
    """What sshd takes is one thing, by what a client signs another."""
    key = Key.make(host.folder / f"rsa-{taken.replace('*', 'any')}", "rsa", 2048)
    file = host.etc / "rsa_keys"
    file.write_text(f"{key.public}\n", "ascii")
    had(f"PubkeyAcceptedAlgorithms {taken}\nAuthorizedKeysFile {file}")
    (verdict,) = LoginCheck(Sshd(str(host.config))).judge({NAME: [AuthorizedKey(key.public)]}, [])
    host.start_sshd()
    try:
        inside = host.client.login(key, NAME, "true").returncode == 0
    finally:
        host.stop_sshd()
    assert inside == (not verdict.words), verdict.words


@pytest.mark.parametrize(
    "pattern",
    ["OURS/%u", "OURS/../ours/%u", "LINK/%u", "LINK/../ours/%u", "OURS/%x OURS/%u", "OURS/%u OURS/%x", "OURS/%"],
)
def test_keyracks_file_is_known_by_any_name(host: AdoptedHost, had: Callable[[str], None], pattern: str) -> None:
    """Through links too; a token that sshd does not know makes it break off."""
    keys, link = host.etc / "ours", host.etc / "link"
    keys.mkdir(exist_ok=True)
    (keys / NAME).write_text(f"{host.keys[NAME].public}\n", "ascii")
    link.unlink(missing_ok=True)
    link.symlink_to(keys)
    had("AuthorizedKeysFile " + pattern.replace("OURS", str(keys)).replace("LINK", str(link)))
    document = HostDocument("h", 1, datetime.now(UTC), {NAME: [AuthorizedKey(host.keys[NAME].public)]})
    sshd = Sshd(str(host.config))
    why = refused_logins.as_reported(LoginCheck(sshd), sshd, document, str(keys))[NAME].get("why", "")
    assert gets_in(host) == (not why), why


def test_a_file_that_sshd_reads_for_some_places_alone_is_read(host: AdoptedHost) -> None:
    """Where a rule names Keyrack's file for who comes from other addresses, somebody gets in."""
    text = host.config.read_text("ascii")
    keys = host.etc / "ours"
    keys.mkdir(exist_ok=True)
    (keys / NAME).write_text(f"{host.keys[NAME].public}\n", "ascii")
    rule = f"Match Address *,!127.0.0.1\n  AuthorizedKeysFile {keys}/%u\n"
    host.config.write_text(f"AuthorizedKeysFile none\n{text}\n{rule}", "ascii")
    try:
        sshd = Sshd(str(host.config))
        document = HostDocument("h", 1, datetime.now(UTC), {NAME: [AuthorizedKey(host.keys[NAME].public)]})
        host.start_sshd()
        assert host.client.login(host.keys[NAME], NAME).returncode != 0
        assert host.client.login(host.keys[NAME], NAME, extra=["-b", "127.0.0.2"]).returncode == 0
        reported = refused_logins.as_reported(LoginCheck(sshd), sshd, document, str(keys))
        assert reported[NAME] == {}
        host.config.write_text(f"AuthorizedKeysFile none\n{text}", "ascii")
        reported = refused_logins.as_reported(LoginCheck(sshd), sshd, document, str(keys))
        assert "sshd does not read Keyrack's file" in reported[NAME]["why"]
    finally:
        host.stop_sshd()
        host.config.write_text(text, "ascii")


def test_another_sshd_program_is_judged_anew(host: AdoptedHost, tmp_path: Path) -> None:
    """An upgrade: the same settings, and a program that takes other keys by them."""
    found, program = programs.find("sshd"), tmp_path / "sshd"
    assert found is not None
    document = HostDocument("h", 1, datetime.now(UTC), {NAME: [AuthorizedKey(host.keys[NAME].public)]})

    def install(more: str) -> None:
        new = program.with_suffix(".new")
        new.write_text(f'#!/bin/sh\nexec {found} "$@" {more}\n', "ascii")
        new.chmod(0o755)
        new.rename(program)

    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(programs, "_FOLDERS", (str(tmp_path), *programs._FOLDERS))
        install("")
        check = LoginCheck(Sshd(str(host.config)))
        assert [verdict.words for verdict in check.verdicts(document)] == [""]
        install("-o PubkeyAuthentication=no")
        assert "PubkeyAuthentication no" in check.verdicts(document)[0].words
