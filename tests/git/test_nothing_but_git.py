"""What Git's API must not open: shells, forwarding, environment, subsystems, other people's keys, crafted commands."""

from __future__ import annotations

import random
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keyrack.core.git import access
from keyrack.errors import Refusal
from tests.git.people import Person, Site, freeze
from tests.waiting import wait_until

ALICE, BOB = "token-of-alice", "token-of-bob"
CRAFTED = 620


@pytest.fixture
def alice(site: Site) -> Person:
    """A developer of acme/site."""
    site.repository("acme/site", alice="developer")
    return site.person("alice", token=ALICE)


def test_a_greeting_and_no_shell(alice: Person) -> None:
    for options in ((), ("-t",), ("-T",)):
        ended = alice.ssh(options=options)
        assert "Hello alice!" in ended.said
        assert alice.fingerprint in ended.said
        assert "no shell" in ended.said
    assert "PTY allocation request failed" in alice.ssh(options=("-t", "-t")).said
    ended = alice.ssh(stdin=b"touch /tmp/never; id\nexit\n")
    assert "uid=" not in ended.said


def test_a_stranger_is_told_nothing(site: Site, alice: Person) -> None:
    stranger = site.person("stranger")
    ended = stranger.ssh()
    assert ended.code == 255
    assert "Permission denied (publickey)" in ended.said
    assert "Keyrack" not in ended.said


def test_another_account_is_refused(site: Site, alice: Person) -> None:
    ended = alice.ssh(options=("-l", "nobody"))
    assert ended.code == 255
    assert "Permission denied (publickey)" in ended.said


def test_subsystems_are_refused(alice: Person) -> None:
    for name in ("sftp", "netconf"):
        ended = alice.ssh(name, options=("-s",))
        assert ended.code != 0
        assert "subsystem request failed" in ended.said


def test_port_forwarding_is_refused(site: Site, alice: Person) -> None:
    with socket.create_server(("127.0.0.1", 0)) as target:
        port = target.getsockname()[1]
        # -W asks for a connection to the target through the server.
        ended = alice.ssh(options=("-W", f"127.0.0.1:{port}"))
        assert ended.code != 0
        assert "administratively prohibited" in ended.said
    options = ("-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:9", "-N")
    ended = alice.ssh(options=options)
    assert ended.code != 0
    assert "remote port forwarding failed" in ended.said


def test_nothing_of_the_session_reaches_git(site: Site, alice: Person) -> None:
    """Agent, X11 and environment are asked for; what git is given is looked up in its own process."""
    process = subprocess.Popen(
        [
            *alice.ssh_words(),
            *("-A", "-X", "-o", "SetEnv=LD_PRELOAD=/tmp/x.so GIT_DIR=/etc PATH=/evil GIT_PROTOCOL=version=2:evil"),
            f"{site.host.username}@127.0.0.1",
            "git-upload-pack 'acme/site.git'",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(lambda: git_of(site) is not None, "git to run")
        pid = git_of(site)
        assert pid is not None
        given = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        names = {entry.partition(b"=")[0] for entry in given if entry}
        assert names == {
            b"PATH",
            b"HOME",
            b"GIT_CONFIG_NOSYSTEM",
            b"GIT_CONFIG_GLOBAL",
            b"GIT_TERMINAL_PROMPT",
            b"GIT_NO_REPLACE_OBJECTS",
            b"LC_ALL",
        }
        assert not any(b"evil" in entry for entry in given)
    finally:
        process.kill()
        process.communicate()
    wait_until(lambda: site.host.running == 0, "the operation to end")


def git_of(site: Site) -> int | None:
    """The process id of a git that serves from this site's repositories."""
    root = str(site.host.repositories).encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"upload-pack" in words and any(word.startswith(root) for word in words):
            return int(entry.name)
    return None


def test_an_offered_key_that_does_not_sign_gives_no_access(site: Site, alice: Person) -> None:
    """Bob offers alice's public key, which the server knows and would accept, and signs with his own."""
    bob = site.person("bob", token=BOB)
    borrowed = bob.folder / "borrowed"
    borrowed.with_suffix(".pub").write_text(alice.public + "\n", "ascii")
    bob.options = ["-i", str(borrowed.with_suffix(".pub"))]
    ended = bob.ssh(options=("-v",))
    assert f"Server accepts key: {borrowed}.pub" in ended.said, ended.said
    assert "Hello bob!" in ended.said
    assert "Hello alice" not in ended.said
    ended = bob.git("ls-remote", bob.url("acme/site"))
    assert ended.code != 0
    assert "There is no such repository" in ended.said
    alone = site.person("mallory")
    alone.options = bob.options
    assert "Permission denied (publickey)" in alone.ssh().said


def test_many_keys_are_tried_until_one_fits(site: Site, alice: Person) -> None:
    for _ in range(5):
        other = site.person("somebody")
        alice.options += ["-i", str(other.key)]
    alice.options += ["-i", str(alice.key)]
    assert alice.git("ls-remote", alice.url("acme/site")).code == 0


def crafted(canary: Path) -> list[bytes]:
    """Commands that must not be served: options, quotes, .., absolute paths, newlines, other verbs, overlong."""
    run = f"touch {canary}"
    verbs = ["git-upload-pack", "git-receive-pack"]
    bad_paths = [
        "", "/", "//acme/site.git", "../acme/site.git", "acme/../acme/site.git", "acme/./site.git", "./acme/site",
        "/etc/passwd", "~/acme/site", "~root", "acme/site.git//", "acme/site.git.git", "acme/site.git/../site.git",
        "acme//site.git", "acme/site.git\n", "acme/site.git\n" + run, "acme/site.git\r", "acme/\tsite", "acme/ site",
        "-acme/site", "acme/-site", "--upload-pack=" + run, "acme/.git", ".git", "acme/site.lock", "acme",
        "acme/si\\te",
        "acme/$(" + run + ")", "acme/`" + run + "`", "acme/site;" + run, "acme/site|" + run, "acme/site&" + run,
        "acme/{site,other}", "acme/s*te", "acme/s?te", "acme/[s]ite", "$HOME/acme/site", "acme/site\u00e9",
        "a\u202ecme/site",
        "acme/" + "x" * 300, "x/" * 40 + "x", "acme/site%00", "%61cme/site", "acme:site", "acme/site#main",
        "acme/site'",
        "'acme/site", "acme/'site", "acme/\"site\"", "ACME/site", "acme/Site.git", "acme/site.GIT", "acme/nothing",
    ]  # fmt: skip
    commands = [f"{verb} '{path}'" for verb in verbs for path in bad_paths]
    commands += [f"{verb} {path}" for verb in verbs for path in ("'acme/site.git", '"acme/site.git', "acme/site.git x")]
    for verb in verbs:
        commands += [
            f"{verb}  'acme/site.git'", f" {verb} 'acme/site.git'", f"{verb} 'acme/site.git' ",
            f"{verb}\t'acme/site.git'", f"{verb} 'acme/site.git'; {run}", f"{verb} 'acme/site.git'\n{run}",
            f"{verb} 'acme/site.git' && {run}", f"{verb} 'acme/site.git' --strict", f"{verb} --strict 'acme/site.git'",
            f"{verb} -c core.sshCommand='{run}' 'acme/site.git'", f"{verb} --upload-pack='{run}' 'acme/site.git'",
            f"{verb} 'acme/site.git' 'acme/site.git'", f"{verb} 'acme/'site.git", f"{verb}'acme/site.git'",
            f"{verb.replace('-', '  ', 1)} 'acme/site.git'", f"/usr/bin/{verb} 'acme/site.git'",
            f"./{verb} 'acme/site.git'",
            f"{verb.upper()} 'acme/site.git'", f"env {verb} 'acme/site.git'", f"exec {verb} 'acme/site.git'",
            f"sudo {verb} 'acme/site.git'", f"{verb}; {run}", f"{verb}", f"{verb} ", f"{verb} ''", f"$({run})",
            f"`{run}`", f"X=1 {verb} 'acme/site.git'", f"{verb} 'acme/site.git' > {canary}", f"{verb} < {canary}",
            f"{verb} 'acme/site.git'" + " " * 5000, f"{verb} '{'a' * 60000}'",
        ]  # fmt: skip
    commands += [
        run, "sh", "bash -i", f"sh -c '{run}'", "scp -t /tmp", "scp -f /etc/passwd", "rsync --server -e.LsfxC . /tmp",
        "git-upload-archive 'acme/site.git'", "git-lfs-authenticate acme/site.git download",
        "git-lfs-transfer acme/site.git upload", "git-shell", f"git-shell -c '{run}'", "git", "git config --system x y",
        "git --exec-path=/tmp upload-pack acme/site.git", "cvs server", "svnserve -t", "hg serve --stdio",
        "sftp-server", "internal-sftp", "python3 -c 1", f"| {run}", f"; {run}", f"&& {run}", f"\n{run}", "--help", "-",
        "help", "info", "whoami", "exit", "true", ":", "!", "#", "\\", "'", '"', "''", "\x01", "\x7f", "\u00e9",
    ]  # fmt: skip
    made = [command.encode() for command in commands] + [b"git-upload-pack 'acme/\xff\xfe'", b"\xff" * 50]
    dice = random.Random(20261122)
    pieces = [b"git-upload-pack", b"git-receive-pack", b" ", b"'", b"acme/site", b".git", b"/", b"..", b";", b"\n",
              b"$(" + run.encode() + b")", b"`", b"-", b"--", b'"', b"\\", b"|", b"&", b"~", b"*", b"x"]  # fmt: skip
    while len(made) < CRAFTED:
        text = b"".join(dice.choice(pieces) for _ in range(dice.randint(1, 9)))
        if not text.strip() or access.COMMAND.fullmatch(text.decode("latin-1")):
            continue
        made.append(text)
    return made


def test_crafted_commands_are_not_served(site: Site, alice: Person, tmp_path: Path) -> None:
    """Each is sent by a real ssh; one connection is shared, and every command is asked anew over it."""
    canary = tmp_path / "canary"
    control = site.folder / "c"
    shared = ("-o", f"ControlPath={control}", "-o", "ControlMaster=auto", "-o", "ControlPersist=60")
    place = f"{site.host.username}@127.0.0.1"

    def send(command: str | bytes) -> subprocess.CompletedProcess[bytes]:
        words: list[str | bytes] = [*alice.ssh_words(), *shared, place, "--", command]
        return subprocess.run(words, input=b"0000", capture_output=True, timeout=120, check=False)

    commands = crafted(canary)
    assert len(commands) >= 500
    try:
        # The good command opens the connection, and is served again when all the others were not.
        assert send("git-upload-pack 'acme/site.git'").returncode == 0
        with ThreadPoolExecutor(4) as pool:
            for command, ended in zip(commands, pool.map(send, commands), strict=True):
                assert ended.returncode != 0, command
                for sign in (b"service=", b"refs/", b"version ", b"uid="):
                    assert sign not in ended.stdout, command
                assert not canary.exists(), command
        assert send("git-upload-pack 'acme/site.git'").returncode == 0
    finally:
        alice.ssh(options=("-o", f"ControlPath={control}", "-O", "exit"))
    log = site.events()
    assert [entry[2] for entry in log].count("done") == 2
    assert not any("touch" in entry[3] for entry in log), "nothing that was sent unjudged may reach the log"


@pytest.mark.parametrize("path", ["'{}'", "{}", '"{}"', "'/{}'", "/{}", "'{}/'", "/{}/", "'/{}/'"])
@pytest.mark.parametrize("verb", ["git-upload-pack", "git upload-pack"])
def test_repository_paths_as_other_clients_write_them_are_accepted(verb: str, path: str) -> None:
    for name in ("acme/site.git", "acme/site"):
        assert access.read_command(f"{verb} {path.format(name)}".encode()) == ("fetch", "acme/site")


@pytest.mark.parametrize(
    "path",
    [
        "'acme/site",
        "acme/site'",
        "'acme/site\"",
        "acme/si te",
        "--x",
        "-x/y",
        "$HOME/x",
        "",
        "/",
        "acme/site//",
        "//acme/site",
    ],
)
def test_a_path_without_quotes_is_held_to_the_same_grammar(path: str) -> None:
    with pytest.raises(Refusal):
        access.read_command(f"git-upload-pack {path}".encode())


def test_a_command_with_nul_is_not_served() -> None:
    for command in (b"git-upload-pack 'acme/site\0.git'", b"git-upload-pack 'acme/site.git'\0", b"\0"):
        with pytest.raises(Refusal):
            access.read_command(command)


def test_a_frozen_key_opens_nothing_new_over_a_connection_that_it_opened_before(site: Site, alice: Person) -> None:
    control = site.folder / "c"
    shared = ("-o", f"ControlPath={control}", "-o", "ControlMaster=auto", "-o", "ControlPersist=60")
    try:
        assert alice.ssh(options=shared).code == 0
        freeze(site, alice)
        for command in ((), ("git-upload-pack", "'acme/site.git'"), ("ls",)):
            ended = alice.ssh(*command, options=shared)
            assert ended.code == 1
            assert "Your SSH key is frozen, and opens nothing new until it is confirmed" in ended.said
        assert "Permission denied (publickey)" in alice.ssh().said
    finally:
        alice.ssh(options=("-o", f"ControlPath={control}", "-O", "exit"))
    frozen = [entry[3] for entry in site.events() if "(key-frozen)" in entry[3]]
    session = "Refused: alice tried to open a session (key-frozen)"
    assert frozen == [session, "Refused: alice tried to fetch from acme/site (key-frozen)", session]


def test_silent_connections_from_one_address_keep_nobody_else_out(site: Site, alice: Person) -> None:
    held: list[socket.socket] = []
    turned_away = 0
    try:
        while turned_away < 20 and len(held) < 2000:
            client = socket.create_connection(("127.0.0.1", site.host.port), timeout=20)
            if _is_greeted(client):
                held.append(client)
                turned_away = 0
            else:
                client.close()
                turned_away += 1
        assert len(held) >= 100  # as many as may be behind one address
        alice.options = ["-b", "127.0.0.2"]
        ended = alice.git("ls-remote", alice.url("acme/site"))
        assert ended.code == 0, ended.said
    finally:
        for client in held:
            client.close()


def _is_greeted(client: socket.socket) -> bool:
    try:
        return client.recv(4) == b"SSH-"
    except ConnectionError:
        return False
