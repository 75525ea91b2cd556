"""Rules that hold for any input: a mutation of a key is the same key or a refusal, and what is written reads back."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from keyrack.ssh.authorized_keys import key_line, read, render
from keyrack.ssh.names import display_text_problem, username_problem
from keyrack.ssh.options import Restrictions, check_rendered, split_option
from keyrack.ssh.options import render as render_options
from keyrack.ssh.public_key import KeyProblem, PublicKey, parse, read_canonical
from keyrack.ssh.wire import Reader, WireError
from tests.ssh.cases import cases

VALID = [str(case["line"]).strip() for case in cases("keys_valid.jsonl")]
SMALL = [line for line in VALID if not line.startswith("ssh-rsa")]
JUNK = st.one_of(
    st.text(max_size=40), st.sampled_from([" ", "\t", "\n", "\r\n", "=", "A", "AAAA", '"', "\\", "\0", "\u200b"])
)

# Deadlines are for slow machines to miss: no limit here.
EPOCH = datetime(1970, 1, 2)  # noqa: DTZ001 - Hypothesis adds the zone itself

many = settings(max_examples=300, deadline=None)


def answer(text: object) -> PublicKey | KeyProblem:
    """The one or the other, whatever the text is."""
    try:
        return parse(text)
    except KeyProblem as problem:
        return problem


def same_key_or_refusal(text: str, canonical: str) -> None:
    key = answer(text)
    if isinstance(key, KeyProblem):
        assert key.code
        assert str(key).isprintable()
    else:
        assert key.canonical == canonical
        assert parse(key.with_comment) == key
        assert parse(key.with_comment).comment == key.comment
        assert read_canonical(key.canonical) == key


@many
@given(st.sampled_from(SMALL), st.data())
def test_a_changed_line_is_the_same_key_or_refused(line: str, data: st.DataObject) -> None:
    words = line.split(" ", 2)
    canonical = " ".join(words[:2])
    start = data.draw(st.integers(0, len(line)))
    end = data.draw(st.integers(start, min(len(line), start + 4)))
    changed = line[:start] + data.draw(JUNK) + line[end:]
    if changed.startswith(canonical) or changed.split()[:2] == words[:2]:
        same_key_or_refusal(changed, canonical)
    else:
        # Another point may be a sound key as well; but it is its own canonical form and says so.
        try:
            key = parse(changed)
        except KeyProblem:
            return
        assert key.canonical in " ".join(changed.replace("\t", " ").split())


@many
@given(st.sampled_from(SMALL), st.integers(0, 2000), st.integers(1, 255))
def test_a_flipped_bit_never_gives_the_same_key(line: str, at: int, mask: int) -> None:
    key = parse(line)
    blob = bytearray(key.blob)
    blob[at % len(blob)] ^= mask
    try:
        other = parse(f"{key.type} {base64.b64encode(blob).decode()}")
    except KeyProblem:
        return
    assert other.fingerprint != key.fingerprint
    assert other.blob == bytes(blob)


@many
@given(
    st.one_of(st.text(), st.none(), st.binary(), st.integers(), st.lists(st.text()), st.builds(str.__add__, JUNK, JUNK))
)
def test_any_other_text_is_refused_in_words(value: object) -> None:
    problem = answer(value)
    assert isinstance(problem, KeyProblem)
    assert problem.code
    assert len(str(problem)) > 20


@many
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
def test_a_comment_is_kept_byte_for_byte_or_refused(comment: str) -> None:
    canonical = " ".join(SMALL[0].split()[:2])
    try:
        key = parse(f"{canonical} {comment}")
    except KeyProblem:
        return
    assert key.comment == comment.strip(" \t\r\n").lstrip(" \t")
    assert "\n" not in key.with_comment
    assert parse(key.with_comment).comment == key.comment


@many
@given(st.binary(max_size=200))
def test_reading_any_blob_ends_in_fields_or_an_error(blob: bytes) -> None:
    reader = Reader(blob)
    taken = 0
    try:
        while reader.rest:
            taken += 4 + len(reader.string())
    except WireError:
        return
    assert taken == len(blob)


HOSTS = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z](\.[a-z]{2,5})?", fullmatch=True)
PORTS = st.one_of(st.integers(1, 65535).map(str), st.just("*"))
FORWARDS = st.one_of(
    st.builds("{}:{}".format, HOSTS, PORTS),
    st.builds("[{}]:{}".format, st.ip_addresses(v=6), PORTS),
    st.builds("{}:{}".format, st.ip_addresses(v=4), PORTS),
)
PERMISSION = st.one_of(st.none(), st.booleans())
COMMANDS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], codec="utf-8"), min_size=1, max_size=60)


@st.composite
def restrictions(draw: st.DrawFn) -> Restrictions:
    command = draw(st.one_of(st.none(), COMMANDS, st.text('\\"a, ', min_size=1, max_size=12)))
    values: dict[str, Any] = {
        "sources": tuple(draw(st.lists(st.one_of(st.ip_addresses().map(str), HOSTS), max_size=3))),
        "command": command,
        "restrict": draw(st.booleans()),
        "permitopen": tuple(draw(st.lists(FORWARDS, max_size=3, unique=True))),
        "permitlisten": tuple(draw(st.lists(st.one_of(FORWARDS, PORTS), max_size=3, unique=True))),
        "verify_required": draw(st.booleans()),
        "no_touch_required": draw(st.booleans()),
    }
    for name in ("permit_pty", "agent_forwarding", "port_forwarding", "x11_forwarding", "user_rc"):
        values[name] = draw(PERMISSION)
    try:
        return Restrictions(**values)
    except ValueError:
        return Restrictions(**{**values, "command": None})  # a command that nobody may write


@many
@given(restrictions(), st.one_of(st.none(), st.datetimes(timezones=st.just(UTC), min_value=EPOCH)))
def test_rendered_options_read_back_as_what_they_were(wanted: Restrictions, end: datetime | None) -> None:
    rendered = render_options(wanted, "sk-ssh-ed25519@openssh.com")
    check_rendered(rendered)
    canonical = " ".join(SMALL[0].split()[:2])
    (found,) = read(render([key_line(canonical, rendered, end)]))
    assert found.problem is None
    assert found.fingerprint == parse(SMALL[0]).fingerprint
    assert found.comment == ""
    assert found.options == key_line(canonical, rendered, end)[: -len(canonical) - 1]
    values = [split_option(option) for option in rendered]
    assert [value for name, value in values if name == "command"] == ([wanted.command] if wanted.command else [])
    assert [value for name, value in values if name == "from"] == ([",".join(wanted.sources)] if wanted.sources else [])
    assert tuple(value for name, value in values if name == "permitopen") == wanted.permitopen
    assert Restrictions.from_json(wanted.to_json()) == wanted


@many
@given(st.lists(st.text(max_size=60), max_size=3))
def test_options_are_refused_or_harmless(rendered: list[str]) -> None:
    try:
        check_rendered(rendered)
    except ValueError:
        return
    canonical = " ".join(SMALL[0].split()[:2])
    (found,) = read(render([key_line(canonical, rendered)]))
    assert found.problem is None
    assert found.options == ",".join(rendered)


@many
@given(st.binary(max_size=400))
def test_a_key_file_of_any_bytes_can_be_read(data: bytes) -> None:
    for key in read(data + b"\n" + SMALL[0].encode() + b"\n"):
        assert (key.options + key.comment).isprintable() or "\ufffd" in key.options + key.comment or key.problem is None
        assert key.problem or key.fingerprint
    assert read(data + b"\n" + SMALL[0].encode())[-1].fingerprint == parse(SMALL[0]).fingerprint


@many
@given(st.text())
def test_accepted_names_are_safe_in_paths_and_lines(value: str) -> None:
    if username_problem(value) is None:
        assert value.isascii()
        assert not set(value) & set("/.\\ \n:%$*?[]~@\"'")
    if display_text_problem(value, maximum=255) is None:
        assert "\n" not in value
        assert value.strip()
        value.encode("utf-8")
