"""The host document: what is written is read back the same, and what is not of the form is refused in words."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyrack.protocol import host_document
from keyrack.protocol.host_document import AuthorizedKey, DesiredAccount, DocumentError, HostDocument, OfflinePolicy
from keyrack.ssh import public_key, sshsig, wire

KEY = sshsig.public_line(wire.string(b"ssh-ed25519") + wire.string(bytes.fromhex("d75a980182b10ab7" * 4)))
OTHER = sshsig.public_line(wire.string(b"ssh-ed25519") + wire.string(bytes.fromhex("3d4017c3e843895a" * 4)))
NOW = datetime(2026, 11, 22, 16, 0, 0, tzinfo=UTC)
FULL = HostDocument(
    host="h_3f",
    revision=17,
    issued_at=NOW,
    users={"deploy": (AuthorizedKey(KEY, NOW + timedelta(hours=12), ("restrict", "pty", 'from="10.0.0.0/8"'), "ci"),)},
    revoked=(OTHER,),
    accounts={"shop": DesiredAccount(True), "old": DesiredAccount(False)},
    sshd={"PasswordAuthentication": "no", "AllowUsers": "root deploy"},
    mode="observe",
    offline_policy=OfflinePolicy(3600, "drop-temporary"),
)


def test_the_text_is_the_documented_one() -> None:
    assert host_document.encode(FULL) == (
        '{"accounts":{"old":{"present":false},"shop":{"present":true}},"format":1,"host":"h_3f",'
        '"issued_at":"2026-11-22T16:00:00Z","mode":"adopt","revision":17,"revoked":["' + OTHER + '"],'
        '"sshd":{"AllowUsers":"root deploy","PasswordAuthentication":"no"},'
        '"stale":{"after_seconds":3600,"then":"drop-temporary"},"users":{"deploy":[{"expires_at":'
        '"2026-11-23T04:00:00Z","key":"' + KEY + '","name":"ci","options":["restrict","pty",'
        '"from=\\"10.0.0.0/8\\""]}]}}'
    )


def test_a_document_is_read_back_the_same() -> None:
    assert host_document.decode(host_document.encode(FULL)) == FULL


@given(
    moment=st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))])),
    name=st.text(max_size=100),
    revision=st.integers(0, 2**63 - 1),
)
@settings(deadline=None)
def test_any_time_and_any_title_are_read_back_the_same(moment: datetime, name: str, revision: int) -> None:
    document = FULL._replace(revision=revision, users={"a": (AuthorizedKey(KEY, moment, (), name),)})
    if moment.astimezone(UTC).year < 1 or any("\ud800" <= character <= "\udfff" for character in name):
        return
    text = host_document.encode(document)
    assert text.isascii()
    (read,) = host_document.decode(text).users["a"]
    assert read.name == name
    assert read.expires_at == moment.replace(microsecond=0)


def test_parts_that_the_last_document_had_are_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    last = host_document.decode(host_document.encode(FULL))
    more = (*FULL.users["deploy"], AuthorizedKey(OTHER, None, (), "new"))
    changed = (FULL.users["deploy"][0]._replace(expires_at=NOW),)
    new = FULL._replace(revision=18, revoked=(), users={"deploy": more, "shop": changed})
    read: list[str] = []
    strictly = public_key.read_canonical

    def reading(line: str) -> Any:
        read.append(line)
        return strictly(line)

    monkeypatch.setattr(public_key, "read_canonical", reading)
    assert host_document.decode(host_document.encode(new), last) == new
    assert read == [OTHER, KEY]


@pytest.mark.parametrize(
    "changed",
    [
        {"options": "restrict"},
        {"options": [["restrict"]]},
        {"name": ["ci"]},
        {"expires_at": {"at": 1}},
        {"key": None},
        {"not_before": "2026-11-22T16:00:00Z"},
    ],
)
def test_a_malformed_change_to_a_part_of_the_last_document_is_refused(changed: dict[str, Any]) -> None:
    last = host_document.decode(host_document.encode(FULL))
    fields = json.loads(host_document.encode(FULL))
    fields["users"]["deploy"][0] |= changed
    with pytest.raises(DocumentError, match=r"users\.deploy"):
        host_document.decode(json.dumps(fields), last)


def test_a_time_without_a_zone_is_not_written() -> None:
    with pytest.raises(ValueError, match="zone"):
        host_document.encode(FULL._replace(issued_at=NOW.replace(tzinfo=None)))


def test_unknown_fields_are_left_alone_outside_of_keys() -> None:
    fields = json.loads(host_document.encode(FULL))
    fields["weather"] = {"sun": True}
    fields["accounts"]["shop"]["shell"] = "/bin/sh"
    assert host_document.decode(json.dumps(fields)) == FULL
    fields["users"]["deploy"][0]["not_before"] = "2026-11-22T16:00:00Z"
    with pytest.raises(DocumentError, match="update"):
        host_document.decode(json.dumps(fields))


WRONG: dict[str, list[Any]] = {
    "format": [0, 2, "1", True, None, 1.0],
    "host": ["", "h 1", "h/1", "h\n", 7, None, "h" * 129],
    "revision": [-1, 1.5, "17", True, None, 2**63, 10**5000],
    "issued_at": [
        "",
        "2026-11-22",
        "2026-11-22T16:00:00+00:00",
        "2026-02-30T00:00:00Z",
        1,
        None,
        "٢026-11-22T16:00:00Z",
    ],
    "users": [
        None,
        [],
        {"-root": []},
        {"root ": []},
        {"a/b": []},
        {"": []},
        {"root": {}},
        {"root": [1]},
        {"root": [{}]},
    ],
    "accounts": [None, [], {"x": None}, {"x": {}}, {"x": {"present": 1}}, {"x y": {"present": True}}]
    + [{"x": {"present": True, "password_hash": value}} for value in (None, 1, "", "*", "$1$md5$short", "$6$a\nroot:x")]
    + [{"x": {"present": True, "deployment_key": "yes"}}],
    "revoked": [None, {}, [None], ["ssh-ed25519"], [KEY + "\n"], [KEY + " comment"], [" " + KEY]],
    "sshd": [None, [], {"a b": "no"}, {"X": "a\nb"}, {"X": ""}, {"X": 1}, {"X": ' "'}, {"Match all\nX": "y"}],
    "mode": ["", "Enforce", None, 1, ["observe"]],
    "stale": [None, {}, {"after_seconds": -1, "then": "keep"}, {"after_seconds": 1, "then": "drop"}],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_field_refuses_the_whole(name: str) -> None:
    for value in WRONG[name]:
        fields = json.loads(host_document.encode(FULL))
        del fields[name]
        with pytest.raises(DocumentError, match=f"{name}: is missing"):
            host_document.decode(json.dumps(fields))
        if value != 10**5000:  # beyond what json writes
            fields[name] = value
            text = json.dumps(fields)
        else:
            text = json.dumps(fields)[:-1] + f',"{name}":1{"0" * 5000}}}'
        with pytest.raises(DocumentError) as refused:
            host_document.decode(text)
        assert str(refused.value).isprintable()


FINGERPRINT = "SHA256:" + "a" * 43


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [1],
        [{"path": "/x"}],
        [{"path": "relative", "fingerprint": FINGERPRINT}],
        [{"path": "/x\n", "fingerprint": FINGERPRINT}],
        [{"path": "/x", "fingerprint": "MD5:aa"}],
    ],
)
def test_a_malformed_list_of_keys_to_remove_is_refused(value: Any) -> None:
    fields = json.loads(host_document.encode(FULL))
    assert "take_away" not in fields
    with pytest.raises(DocumentError, match="take_away"):
        host_document.decode(json.dumps({**fields, "take_away": value}))
    asked = FULL._replace(remove_keys=(host_document.KeyRemoval("/x", FINGERPRINT),))
    assert host_document.decode(host_document.encode(asked)) == asked


WRONG_IN_KEY: dict[str, list[Any]] = {
    "key": ["", None, KEY + " x", KEY.replace(" ", "  "), KEY[:-1], f"{KEY}\n{OTHER}", "restrict " + KEY],
    "expires_at": ["", "never", 0, "2026-11-22T16:00:00", "20261122160000Z", "0000-01-01T00:00:00Z"],
    "options": [
        None,
        "restrict",
        [1],
        ["pty,no-pty"],
        ["cert-authority"],
        ['expiry-time="20300101Z"'],
        ["restrict"] * 2,
    ],
    "name": [None, 1, "x" * 1025],
}


@pytest.mark.parametrize("name", WRONG_IN_KEY)
def test_a_wrong_key_refuses_the_whole(name: str) -> None:
    for value in WRONG_IN_KEY[name]:
        fields = json.loads(host_document.encode(FULL))
        fields["users"]["deploy"][0][name] = value
        with pytest.raises(DocumentError, match=r"users\.deploy\[0\]"):
            host_document.decode(json.dumps(fields))


def test_a_repeated_line_is_refused_but_one_key_may_have_two_lines() -> None:
    twice = FULL._replace(users={"a": (AuthorizedKey(KEY), AuthorizedKey(KEY, NOW))})
    with pytest.raises(DocumentError, match="twice"):
        host_document.decode(host_document.encode(twice))
    both = FULL._replace(users={"a": (AuthorizedKey(KEY), AuthorizedKey(KEY, NOW, ("restrict",)))})
    assert host_document.decode(host_document.encode(both)) == both


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "NaN", '{"format": NaN}', "[" * 100_000, '{"format":1,"format":1}', "\x00"]
)
def test_text_that_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        host_document.decode(text)
