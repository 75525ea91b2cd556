"""The file of one account: written strictly, read as a real sshd reads it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from keyrack.ssh.authorized_keys import KeyLine, end_of, expiry_option, key_line, read, render
from keyrack.ssh.expiry_time import in_utc
from keyrack.ssh.public_key import parse
from tests.ssh.cases import cases, make_key, mpint, ssh_keygen, text_line
from tests.ssh.sshd import Sshd

GOOD = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHIRbfEUwbS5A/6b6HLVEWWJmeUNEZ2mRfWWONaec+Id"
FINGERPRINT = parse(GOOD).fingerprint
NOON = datetime(2026, 11, 23, 4, 0, 0, tzinfo=UTC)


def written(moment: datetime) -> str:
    """The option as it stands in a line."""
    return expiry_option(in_utc(end_of(moment)))


def test_the_end_is_written_in_utc_and_never_later_than_asked() -> None:
    assert written(NOON) == 'expiry-time="20261123035959Z"'
    assert written(NOON + timedelta(microseconds=999_999)) == 'expiry-time="20261123035959Z"'
    assert written(NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))) == 'expiry-time="20261123035959Z"'
    with pytest.raises(ValueError, match="time zone"):
        written(NOON.replace(tzinfo=None))


def test_a_key_line_is_options_end_and_key() -> None:
    assert key_line(GOOD) == GOOD
    assert key_line(GOOD, ["restrict", 'from="::1"'], NOON) == (
        f'restrict,from="::1",expiry-time="20261123035959Z" {GOOD}'
    )


def test_a_file_is_a_header_and_lines() -> None:
    written = render([GOOD, f"restrict {GOOD}"])
    assert written.startswith(b"# Written by Keyrack; changes here are lost")
    assert written.splitlines()[1:] == [GOOD.encode(), f"restrict {GOOD}".encode()]
    assert written.endswith(b"\n")
    assert render([]).count(b"\n") == 1


@pytest.mark.parametrize(
    "line",
    ["", " ", f" {GOOD}", f"{GOOD} ", f"# {GOOD}", f"{GOOD}\n{GOOD}", f"{GOOD}\r", f"{GOOD}\0", f"{GOOD} a\x85b",
     f"{GOOD} a\u2028b", f"{GOOD}\x0b", f"a\tb {GOOD}", f"{GOOD} \ud800"],
)  # fmt: skip
def test_rendering_refuses_a_key_that_is_not_one_line(line: str) -> None:
    with pytest.raises(ValueError, match="a key line"):
        render([GOOD, line])


def test_sshd_ends_a_key_at_its_end(sshd: Sshd, pair: tuple[Path, str]) -> None:
    path, public = pair
    now = datetime.now(UTC)
    sshd.authorized.write_bytes(render([key_line(public, ["restrict"], now + timedelta(hours=1))]))
    assert sshd.login(path) == "in\n"
    sshd.authorized.write_bytes(render([key_line(public, ["restrict"], now - timedelta(seconds=2))]))
    assert sshd.login(path) is None


def test_reads_lines_with_their_numbers() -> None:
    found = read(
        b"# a comment\n\n"
        + f"{GOOD} alice's laptop\n".encode()
        + f'  from="10.0.0.0/8",command="echo \\"a b\\"" {GOOD}\r\n'.encode()
        + b"nonsense\n"
        + f"cert-authority {GOOD} ca".encode()
    )
    assert found == [
        KeyLine(3, "", "ssh-ed25519", FINGERPRINT, "alice's laptop", None, GOOD),
        KeyLine(4, 'from="10.0.0.0/8",command="echo \\"a b\\""', "ssh-ed25519", FINGERPRINT, "", None, GOOD),
        KeyLine(5, "", "", None, "", "there is no key of a known type on this line"),
        KeyLine(6, "cert-authority", "ssh-ed25519", FINGERPRINT, "ca", None, GOOD, True),
    ]


def test_lists_keys_that_the_strict_parser_refuses() -> None:
    weak = text_line("ssh-rsa", mpint(3), mpint((1 << 1023) * 2 - 1))
    low_order = text_line("ssh-ed25519", (1).to_bytes(32, "little"))
    dsa = text_line("ssh-dss", mpint(1 << 1023), mpint(1 << 159), mpint(2), mpint(3))
    found = read(f"{weak} old\n{low_order} open\n{dsa} dsa\n".encode())
    assert [key.problem for key in found] == [None, None, "DSA keys are not accepted"]
    assert all(key.fingerprint for key in found)


def test_text_of_unknown_hands_is_safe_to_print() -> None:
    (found,) = read(f"{GOOD} \x1b[31m\u202eevil".encode() + b"\xff\n")
    assert found.comment == "\ufffd[31m\ufffdevil\ufffd"


# PUBLIC stands for a real key. Whether sshd lets the key in is asked of sshd itself.
LINES = [
    "PUBLIC", "PUBLIC\r", "  PUBLIC comment", "\tPUBLIC\tcomment", "PUBLIC ssh-rsa AAAA", "#PUBLIC",
    "restrict PUBLIC",
    "restrict,pty PUBLIC", "Restrict,NO-PTY PUBLIC", "restrict, pty PUBLIC", "restrict,,pty PUBLIC",
    "restrict,pty, PUBLIC",
    ",restrict PUBLIC", "unknown PUBLIC", "restrict,unknown PUBLIC", 'command="echo in" PUBLIC',
    'COMMAND="echo in" PUBLIC',
    "command=echo PUBLIC", 'command="echo in PUBLIC', 'command="echo in",command="echo in" PUBLIC',
    'command="echo in"x PUBLIC',
    'command="echo in # \\" b" PUBLIC', 'command="echo in" , PUBLIC', 'restrict="yes" PUBLIC', 'from="*" PUBLIC',
    'from="*",from="*" PUBLIC', 'expiry-time="20990101" PUBLIC', 'expiry-time="20990101Z" PUBLIC',
    'expiry-time="soon" PUBLIC',
    'expiry-time="20990101000000Z",expiry-time="20980101" PUBLIC', 'environment="A=b" PUBLIC',
    "no-touch-required PUBLIC",
    "touch-required PUBLIC", "no-restrict PUBLIC", "no-cert-authority PUBLIC", 'tunnel="0" PUBLIC',
    'permitopen="a:1" PUBLIC',
    'permitlisten="1" PUBLIC', "pty\tPUBLIC", "PUBLIC=", "verify PUBLIC", "x11-forwarding PUBLIC",
    'permitopen="a:ssh" PUBLIC', 'principals="x" PUBLIC', 'cert-authority,principals="x" PUBLIC',
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_agrees_with_sshd_about_who_gets_in(line: str, sshd: Sshd, pair: tuple[Path, str]) -> None:
    path, public = pair
    data = line.replace("PUBLIC", public).encode() + b"\n"
    sshd.authorized.write_bytes(data)
    lets_in = any(key.problem is None and not key.authority for key in read(data))
    assert (sshd.login(path) == "in\n") == lets_in, read(data)


def test_agrees_with_sshd_about_text_after_nul(sshd: Sshd, pair: tuple[Path, str]) -> None:
    path, public = pair
    for data in (public.encode() + b"\0 more\n", b"# \0" + public.encode() + b"\n", b"\0" + public.encode() + b"\n"):
        sshd.authorized.write_bytes(data)
        assert (sshd.login(path) == "in\n") == any(key.problem is None for key in read(data))


def test_finds_the_same_keys_as_ssh_keygen(tmp_path: Path) -> None:
    file = tmp_path / "authorized_keys"
    lines = [str(case["line"]).strip() for case in cases("keys_valid.jsonl")]
    lines += [f'no-pty,command="a \\" b" {line}' for line in lines]
    small = make_key(tmp_path, "small", "-t", "rsa", "-b", "1024")[1]
    file.write_text("# header\n\n" + "\n".join([*lines, small, f"  {small}"]))
    printed = [line.split()[1] for line in ssh_keygen("-l", "-f", file).splitlines()]
    assert [key.fingerprint for key in read(file.read_bytes())] == printed
