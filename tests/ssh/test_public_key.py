"""The strict parser of public keys, against the published corpora and ssh-keygen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from keyrack.ssh.known_private import is_known
from keyrack.ssh.public_key import KeyProblem, parse, read_canonical
from tests.ssh.cases import case_input, cases, make_key, ssh_keygen, text_line

GOOD = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHIRbfEUwbS5A/6b6HLVEWWJmeUNEZ2mRfWWONaec+Id"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO5JFRpruCr+cC/AsBk1I+vNXm0Nfq5YTAw3az2GvpGJ"

# Whose key it is decides the registry, not the parser.
ABOUT_OWNERS = {"ssh-key-of-another-user", "temporary-duplicate"}

CODES = {
    "not-text", "empty", "too-long", "private-key", "several-keys", "options", "unknown-type", "certificate", "dsa",
    "not-a-key", "base64", "type-mismatch", "malformed", "control-characters", "comment", "rsa-size", "rsa-exponent",
    "weak",
}  # fmt: skip


def refusal(text: object) -> KeyProblem:
    with pytest.raises(KeyProblem) as caught:
        parse(text)
    return caught.value


@pytest.mark.parametrize("case", cases("keys_valid.jsonl"), ids=lambda case: str(case["name"]))
def test_takes_every_valid_key(case: dict[str, Any]) -> None:
    key = parse(case["line"])
    assert (key.type, key.bits, key.canonical) == (case["type"], case["bits"], case["canonical"])
    assert (key.fingerprint, key.md5) == (case["sha256"], case["md5"])
    assert key.with_comment == case["line"].strip()
    assert not is_known(key)
    assert read_canonical(key.canonical) == key


@pytest.mark.parametrize(
    "case",
    [case for case in cases("keys_valid.jsonl") if "+" in case["canonical"]],
    ids=lambda case: str(case["name"]),
)
@pytest.mark.parametrize("comment", ["", " somebody@desk", " two words"])
def test_says_that_a_form_made_blanks_of_a_keys_pluses(case: dict[str, Any], comment: str) -> None:
    problem = refusal(case["canonical"].replace("+", " ") + comment)
    assert problem.code == "base64"
    assert "%2B" in str(problem)


@pytest.mark.parametrize("line", [GOOD[:-4] + " somebody@desk", GOOD.replace("+", " ")[:-1], GOOD[:40] + " =" * 7900])
def test_a_truncated_key_with_a_comment_is_not_blamed_on_a_form(line: str) -> None:
    assert "%2B" not in str(refusal(line))


@pytest.mark.parametrize("case", cases("keys_invalid.jsonl"), ids=lambda case: f"{case['cat']}-{case['why'][:40]}")
def test_refuses_every_invalid_key(case: dict[str, Any]) -> None:
    text = case_input(case)
    problem = refusal(text)
    assert problem.code in CODES
    # Words for a person, that end in what to do, and quote nothing of what was pasted.
    assert 30 < len(str(problem)) < 400
    assert str(problem).isprintable()
    if isinstance(text, str):
        assert not [word for word in text.split() if len(word) > 26 and word in str(problem)]


@pytest.mark.parametrize(
    "case",
    [case for case in cases("keys_arguable.jsonl") if case["name"] not in ABOUT_OWNERS],
    ids=lambda case: str(case["name"]),
)
def test_does_as_recommended_with_arguable_keys(case: dict[str, Any]) -> None:
    try:
        key = parse(case_input(case))
        accepted = not is_known(key)
    except KeyProblem:
        accepted = False
    assert accepted == (case["recommend"] == "accept")
    if accepted and "canonical" in case:
        assert key.canonical == case["canonical"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "not-text"),
        (GOOD.encode(), "not-text"),
        ("", "empty"),
        (" \r\n\t", "empty"),
        (GOOD + " " * 20000, "too-long"),
        (f"{GOOD} a\n{OTHER} b", "several-keys"),
        (f"{GOOD} a {OTHER} b", "several-keys"),
        (f"{GOOD} a;{OTHER}", "several-keys"),
        (f"{GOOD},{OTHER}", "several-keys"),
        (f"{GOOD} {OTHER.split()[1]}", "several-keys"),
        (f"{GOOD} old: {OTHER.split()[0]}  {OTHER.split()[1][:20]}", "several-keys"),
        (f'restrict,command="id" {GOOD}', "options"),
        (f"no-pty {GOOD}", "options"),
        (f"ssh-dss {GOOD.split()[1]}", "dsa"),
        (f"ssh-ed25519-cert-v01@openssh.com {GOOD.split()[1]}", "certificate"),
        (GOOD.replace("ssh-ed25519", "ssh-ed448"), "unknown-type"),
        (GOOD.replace("ssh-ed25519", "SSH-ED25519"), "unknown-type"),
        (GOOD.replace("ssh-ed25519", "ecdsa-sha2-nistp256"), "type-mismatch"),
        (GOOD[:-4], "malformed"),
        (GOOD[:-3], "base64"),
        ("ssh-ed25519", "not-a-key"),
        (GOOD.split()[1], "not-a-key"),
        (f"# {GOOD}", "not-a-key"),
        (f"github.com {GOOD}", "not-a-key"),
        ("ssh-keygen -t ed25519", "not-a-key"),
        (f"{GOOD} a\tb", "control-characters"),
        (f"{GOOD} a\x1b[31mb", "control-characters"),
        (f"{GOOD} {'é' * 513}", "comment"),
    ],
)
def test_a_refused_key_says_what_is_wrong(text: object, code: str) -> None:
    assert refusal(text).code == code


def test_private_form_of_a_public_blob_is_a_private_key() -> None:
    key = parse(GOOD)
    assert refusal(text_line("ssh-ed25519", key.blob[-32:], bytes(64))).code == "private-key"


def test_equal_keys_are_equal_whatever_people_call_them() -> None:
    assert parse(f"{GOOD} work") == parse(f"\t{GOOD}   home\r\n")
    assert len({parse(f"{GOOD} work"), parse(GOOD)}) == 1
    assert parse(GOOD) != parse(OTHER)


def test_keeps_the_comment_as_it_is() -> None:
    comment = "Alice's  old 💻 \u202fcle\u0301 <b>&amp;"
    key = parse(f" {GOOD}\t {comment} ")
    assert key.comment == comment
    assert key.with_comment == f"{GOOD} {comment}"
    assert key.canonical == GOOD


def test_a_short_limit_is_a_limit_in_bytes() -> None:
    assert parse(f"{GOOD} {'é' * 9}", max_bytes=len(GOOD) + 19).comment == "é" * 9
    with pytest.raises(KeyProblem):
        parse(f"{GOOD} {'é' * 9}", max_bytes=len(GOOD) + 18)


@pytest.mark.parametrize(
    "line", [f" {GOOD}", f"{GOOD} ", f"{GOOD} comment", GOOD[:-1], GOOD.split()[1], "", f"\n{GOOD}"]
)
def test_canonical_lines_have_one_form(line: str) -> None:
    with pytest.raises(KeyProblem):
        read_canonical(line)


KINDS = [
    ("ed25519",), ("ecdsa", "-b", "256"), ("ecdsa", "-b", "384"), ("ecdsa", "-b", "521"), ("rsa", "-b", "2048"),
    ("rsa", "-b", "3072"),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "".join(kind))
def test_agrees_with_ssh_keygen_about_new_keys(kind: tuple[str, ...], tmp_path: Path) -> None:
    path, line = make_key(tmp_path, "key", "-t", *kind)
    key = parse(line)
    bits, fingerprint, comment, _ = ssh_keygen("-l", "-f", path).split()
    assert (str(key.bits), key.fingerprint, key.comment) == (bits, fingerprint, comment)
    assert key.md5 == ssh_keygen("-l", "-E", "md5", "-f", path).split()[1]


def test_agrees_with_ssh_keygen_about_every_valid_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("".join(f"{case['line']}\n" for case in cases("keys_valid.jsonl")))
    printed = [line.split()[:2] for line in ssh_keygen("-l", "-f", file).splitlines()]
    keys = [parse(case["line"]) for case in cases("keys_valid.jsonl")]
    assert printed == [[str(key.bits), key.fingerprint] for key in keys]


def test_no_key_takes_long_to_read() -> None:
    # A generous limit on all of them together, with the pathological ones: some took minutes in other parsers.
    started = time.monotonic()
    for case in cases("keys_invalid.jsonl"):
        refusal(case_input(case))
    for text in (
        "A" * 16384,
        "-" * 16384,
        "BEGIN " * 2730,
        'from="' * 2730,
        "\\" * 16384,
        "-BEGIN" * 2730,
        "AAAA" * 4096,
    ):
        refusal(text)
        refusal(f"ssh-ed25519 {text}"[:16384])
        refusal(f"{GOOD} {text}"[:16384])
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("blank", ["\u00a0", "\u2003", "\u3000"])
def test_an_unusual_blank_is_named(blank: str) -> None:
    line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPYWy8/Eq4MVfRvTpWGcn/D8FtQWMdZs8nGOYpWbjEsa"
    behind, within = "Behind the type", "In the key, or behind it,"
    for text, where in (
        (line.replace(" ", blank), behind),
        (line[:20] + blank + line[20:], within),
        (line + blank + "laptop", within),
    ):
        with pytest.raises(KeyProblem, match=f"{where} stands U\\+{ord(blank):04X}, which looks like a blank"):
            parse(text)
