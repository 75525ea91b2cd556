"""Restrictions become options that sshd reads as meant, and nothing a user writes becomes another option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keyrack.ssh.authorized_keys import key_line, render
from keyrack.ssh.options import Restrictions, check_rendered, split_option
from keyrack.ssh.options import render as render_options
from tests.ssh.sshd import Sshd

FULL = Restrictions(
    sources=("10.0.0.0/8", "!10.1.2.3", "2001:db8::/32", "::1", "*.example.com", "192.168.?.*"),
    command='/usr/bin/git-shell -c "$SSH_ORIGINAL_COMMAND"',
    restrict=True,
    permit_pty=True,
    agent_forwarding=False,
    port_forwarding=True,
    x11_forwarding=False,
    user_rc=True,
    permitopen=("127.0.0.1:80", "[::1]:443", "db.example.com:*", "*:22"),
    permitlisten=("8080", "localhost:9000", "*:1"),
    verify_required=True,
    no_touch_required=True,
)
SK = "sk-ssh-ed25519@openssh.com"


def test_renders_every_restriction() -> None:
    assert render_options(FULL, SK) == [
        "restrict",
        'from="10.0.0.0/8,!10.1.2.3,2001:db8::/32,::1,*.example.com,192.168.?.*"',
        'command="/usr/bin/git-shell -c \\"$SSH_ORIGINAL_COMMAND\\""',
        "pty",
        "no-agent-forwarding",
        "port-forwarding",
        "no-X11-forwarding",
        "user-rc",
        'permitopen="127.0.0.1:80"',
        'permitopen="[::1]:443"',
        'permitopen="db.example.com:*"',
        'permitopen="*:22"',
        'permitlisten="8080"',
        'permitlisten="localhost:9000"',
        'permitlisten="*:1"',
        "verify-required",
        "no-touch-required",
    ]
    check_rendered(render_options(FULL, SK))
    assert render_options(Restrictions(), "ssh-rsa") == []


def test_json_comes_back() -> None:
    assert Restrictions.from_json(FULL.to_json()) == FULL
    assert Restrictions().to_json() == {}
    assert Restrictions.from_json({}) == Restrictions()
    assert Restrictions(permit_pty=False, sources=("::1",)).to_json() == {"permit_pty": False, "sources": ["::1"]}


@pytest.mark.parametrize(
    "value",
    [
        None, [], "restrict", {"unknown": 1}, {"restrict": 1}, {"restrict": None}, {"restrict": "yes"},
        {"permit_pty": 0},
        {"command": ["id"]}, {"command": ""}, {"command": " "}, {"command": "a\nb"}, {"command": "a\0"},
        {"command": "a\\"},
        {"command": "a\u202eb"}, {"command": "x" * 5000}, {"sources": "10.0.0.1"}, {"sources": [1]},
        {"sources": [""]},
        {"sources": ["10.0.0.1,*"]}, {"sources": ['10.0.0.1",command="id']}, {"sources": ["10.0.0.300"]},
        {"sources": ["10.0.0.1/8"]}, {"sources": ["10.0.0.0/33"]}, {"sources": ["10.0.0.0/255.0.0.0"]},
        {"sources": ["a b"]}, {"sources": ["*?" * 30 + "Z"]}, {"sources": ["10.0.0.1", "!*1*2*3*4*"]},
        {"sources": ["fe80::1%eth0"]}, {"sources": ["!!10.0.0.1"]}, {"sources": ["!10.0.0.1"]},
        {"sources": ["1.2.3"]},
        {"sources": ["::1"] * 101}, {"permitopen": ["80"]}, {"permitopen": ["a:0"]}, {"permitopen": ["a:65536"]},
        {"permitopen": ["a:01"]}, {"permitopen": ["::1:80"]}, {"permitopen": ["[x]:80"]},
        {"permitopen": ["a:80,b:80"]},
        {"permitopen": ['a:80"']}, {"permitopen": ["a: 80"]}, {"permitopen": ["a:８０"]}, {"permitlisten": ["x"]},
        {"permitlisten": [":80"]}, {"permitlisten": [""]}, {"permitlisten": ["1\n2"]}, {"permitlisten": ["-1"]},
    ],
)  # fmt: skip
def test_refuses_what_does_not_fit_its_grammar(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^[A-Za-z].*\.$"):
        Restrictions.from_json(value)


@pytest.mark.parametrize("restrictions", [Restrictions(verify_required=True), Restrictions(no_touch_required=True)])
def test_a_security_key_is_needed_for_its_options(restrictions: Restrictions) -> None:
    assert len(render_options(restrictions, SK)) == 1
    with pytest.raises(ValueError, match="security key"):
        render_options(restrictions, "ssh-ed25519")


@pytest.mark.parametrize(
    "rendered",
    [
        ["environment=\"LD_PRELOAD=/tmp/x\""], ["cert-authority"], ['principals="root"'], ['tunnel="0"'], ["agent"],
        ['expiry-time="20300101Z"'], ["PTY"], ['Command="id"'], ["command=id"], ['command="id'], ['command="id" '],
        ['command="a","b"'], ['command="a",pty'], ['command="a\\"'], ["restrict,pty"], ["restrict "], [""], ["pty\n"],
        ['command="a\nb"'], ['command="a"\n'], ['from=""'], ['from="10.0.0.0/8,"'], ['from="10.0.0.1/8"'],
        ["restrict="],
        ['restrict=""'], ["pty", "pty"], ['command="a"', 'command="b"'], ['from="::1"', 'from="*"'], [None], [b"pty"],
        ['permitopen="a:1"', 'permitopen="a:1"'], ['command="a\x00b"'], ['command=""'],
    ],
)  # fmt: skip
def test_the_agent_refuses_options_that_were_never_rendered(rendered: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        check_rendered(rendered)


ODD = [
    'a"b', 'a\\"b', 'a\\\\"', '"', '\\" x', "a,restrict,command=b", "%u %h ~", "$HOME `id` $(id)",
    "a  b\\c\\\\d", "é 日本 🔑",
    '",no-pty,environment="A=B', "#", "x\\ ",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD)
def test_a_real_sshd_gets_the_very_command(text: str, sshd: Sshd, pair: tuple[Path, str]) -> None:
    path, public = pair
    # Between single quotes, a shell leaves everything as it is; no text here holds one.
    command = f"printf %s '{text}'"
    rendered = render_options(Restrictions(command=command, restrict=True), "ssh-ed25519")
    check_rendered(rendered)
    assert split_option(rendered[1]) == ("command", command)
    sshd.authorized.write_bytes(render([key_line(public, rendered)]))
    assert sshd.login(path, "echo another command") == text


def test_a_real_sshd_knows_every_option(sshd: Sshd, pair: tuple[Path, str]) -> None:
    path, public = pair
    everywhere = Restrictions(
        **{**FULL._asdict(), "sources": ("*", "!10.1.2.3", "2001:db8::/32"), "command": "echo all"}
    )
    sshd.authorized.write_bytes(render([key_line(public, render_options(everywhere, SK))]))
    assert sshd.login(path) == "all\n"
    elsewhere = Restrictions(sources=("192.0.2.1",))
    sshd.authorized.write_bytes(render([key_line(public, render_options(elsewhere, "ssh-ed25519"))]))
    assert sshd.login(path) is None
