"""GitLab's key API: python-gitlab as it comes from the package index, and what it does not show of the wire."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gitlab
import httpx2
import pytest

from keyrack.ssh.public_key import parse
from keyrack.store.git import git_access
from keyrack.store.hosts import host_reports
from tests.core.keys_for_tests import fresh_line
from tests.services import Service, running, settings_for


@pytest.fixture
def alice(team: Service) -> Iterator[gitlab.Gitlab]:
    """python-gitlab with alice's token."""
    with gitlab.Gitlab(team.url, private_token="token-of-alice") as client:
        client.auth()
        yield client


def refused(client: gitlab.Gitlab, key: str, **more: str) -> tuple[int | None, Any]:
    """How python-gitlab is refused a key: the status and the message, which is no text where fields are named."""
    with pytest.raises(gitlab.GitlabCreateError) as caught:
        client.user.keys.create({"title": "desk", "key": key, **more})  # type: ignore[union-attr]
    return caught.value.response_code, caught.value.error_message


def test_python_gitlab_adds_lists_shows_and_deletes_a_key(team: Service, alice: gitlab.Gitlab) -> None:
    user = alice.user
    assert user is not None
    assert user.username == "alice"
    line = fresh_line("alice@example.com")
    added = user.keys.create({"title": "desk", "key": line, "usage_type": "auth"})
    assert added.title == "desk"
    words = added.key.split(" ", 2)
    assert words[:2] == line.split(" ")[:2]
    assert words[2] == "alice (127.0.0.1)", "the comment of whoever uploaded it goes nowhere"
    assert added.expires_at is None
    assert added.created_at.endswith("Z")
    assert [key.id for key in user.keys.list(get_all=True)] == [added.id]
    assert user.keys.get(added.id).key == added.key
    assert alice.users.get(user.id).keys.list(get_all=True)[0].id == added.id
    assert alice.users.list(username="alice", get_all=True)[0].id == user.id
    # The same key through another API: there is one core.
    codearts = team.call("GET", "/v4/user/keys", headers={"X-Auth-Token": "token-of-alice"}).json()
    assert [key["id"] for key in codearts["keys"]] == [added.id]
    user.keys.delete(added.id)
    assert user.keys.list(get_all=True) == []
    with pytest.raises(gitlab.GitlabGetError) as caught:
        user.keys.get(added.id)
    assert (caught.value.response_code, caught.value.error_message) == (404, "404 Key Not Found")
    with pytest.raises(gitlab.GitlabDeleteError) as gone:
        user.keys.delete(added.id)
    assert gone.value.response_code == 404


def test_administrators_find_keys_and_give_them_to_others(team: Service, alice: gitlab.Gitlab) -> None:
    with gitlab.Gitlab(team.url, oauth_token="token-of-olga") as olga:
        person = olga.users.list(username="alice", get_all=True)[0]
        assert [one.username for one in olga.users.list(search="LIC", get_all=True)] == ["alice"]
        line = fresh_line()
        added = person.keys.create({"title": "from olga", "key": line})
        fingerprint = team.call("GET", "/api/keyrack/v1/user-keys", token="token-of-olga").json()["items"][0][
            "fingerprint"
        ]
        found = olga.keys.get(fingerprint=fingerprint)
        assert (found.id, found.user["username"]) == (added.id, "alice")
        assert olga.keys.get(added.id).id == added.id
        wrong = "SHA256:" + "A" * 43
        with pytest.raises(gitlab.GitlabHttpError) as caught:
            olga.keys.get(fingerprint=wrong)
        assert (caught.value.response_code, caught.value.error_message) == (404, "404 Key Not Found")
        assert [key.title for key in alice.user.keys.list(get_all=True)] == ["from olga"]  # type: ignore[union-attr]
        person.keys.delete(added.id)
        end = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
        ending = person.keys.create({"title": "a month", "key": fresh_line(), "expires_at": end.isoformat()})
        assert datetime.fromisoformat(ending.expires_at) == end
        person.keys.delete(ending.id)
    assert alice.user.keys.list(get_all=True) == []  # type: ignore[union-attr]


def test_a_key_is_found_by_its_md5_fingerprint(team: Service) -> None:
    line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGSDlWjdJfpyvb3xRdsh/PLO1iCd556ig7oFByNKi7Lx"
    team.call("POST", "/api/v4/user/keys", token="token-of-alice", json={"title": "desk", "key": line})
    md5 = "8b:16:b5:ad:1a:66:69:3b:14:5b:ce:50:55:ae:c3:89"
    found = team.call("GET", f"/api/v4/keys?fingerprint={md5}", token="token-of-olga")
    assert found.json()["user"]["username"] == "alice", found.text
    wrong = team.call("GET", "/api/v4/keys?fingerprint=zz", token="token-of-olga")
    assert wrong.status_code == 400
    assert "Failed to return the key" in wrong.json()["message"]


def test_members_may_not_give_keys_to_others_nor_see_whose_a_key_is(team: Service, alice: gitlab.Gitlab) -> None:
    key = alice.user.keys.create({"title": "desk", "key": fresh_line()})  # type: ignore[union-attr]
    for method, path in (
        ("POST", "/api/v4/users/1/keys"),
        ("DELETE", f"/api/v4/users/2/keys/{key.id}"),
        ("GET", f"/api/v4/keys/{key.id}"),
        ("GET", "/api/v4/users"),
    ):
        body = {"title": "mine", "key": fresh_line()} if method == "POST" else None
        answer = team.call(method, path, token="token-of-bob", json=body)
        assert answer.status_code == 403, (method, path, answer.text)
        assert answer.json()["message"] == "403 Forbidden"
    assert [one.id for one in alice.user.keys.list(get_all=True)] == [key.id]  # type: ignore[union-attr]


def test_nobody_acts_as_another_user_and_no_key_becomes_somebody_elses(team: Service) -> None:
    body = {"title": "desk", "key": fresh_line()}
    for headers, path in (({"Sudo": "alice"}, "/user/keys"), ({}, "/user/keys?sudo=2")):
        answer = team.call("POST", f"/api/v4{path}", token="token-of-olga", headers=headers, json=body)
        assert answer.status_code == 403
        assert "POST /users/ID/keys" in answer.json()["detail"]
    named: dict[str, Any]
    for named in ({"json": body | {"sudo": "alice"}}, {"data": body | {"sudo": "2"}}):
        answer = team.call("POST", "/api/v4/user/keys", token="token-of-olga", **named)
        assert (answer.status_code, answer.json()["message"]) == (403, "403 Forbidden"), answer.text
    assert team.call("GET", "/api/v4/user/keys", token="token-of-olga").json() == []


def test_refusals_have_gitlabs_words(team: Service, alice: gitlab.Gitlab) -> None:
    line = fresh_line()
    alice.user.keys.create({"title": "desk", "key": line})  # type: ignore[union-attr]
    assert refused(alice, line) == (400, {"fingerprint_sha256": ["has already been taken"]})
    own = team.call("POST", "/api/v4/user/keys", token="token-of-alice", json={"title": "again", "key": line}).json()
    assert "You registered this key already: title 'desk'" in own["detail"]
    other = team.call("POST", "/api/v4/user/keys", token="token-of-bob", json={"title": "mine", "key": line}).json()
    assert "another user" in other["detail"]
    assert "alice" not in other["detail"]
    assert refused(alice, "ssh-ed25519 nonsense")[1] == {
        "key": ["is invalid"],
        "fingerprint": ["cannot be generated"],
        "fingerprint_sha256": ["cannot be generated"],
    }
    assert "key is missing" in str(
        team.call("POST", "/api/v4/user/keys", token="token-of-alice", json={"title": "x"}).json()["error"]
    )
    assert "usage_type" in str(refused(alice, fresh_line(), usage_type="signing")[1])
    assert "expires_at" in str(refused(alice, fresh_line(), expires_at="soon")[1])
    assert len(alice.user.keys.list(get_all=True)) == 1  # type: ignore[union-attr]


def test_pages_have_gitlabs_headers_and_python_gitlab_follows_them(team: Service, alice: gitlab.Gitlab) -> None:
    user = alice.user
    assert user is not None
    made = [user.keys.create({"title": f"key {number}", "key": fresh_line()}).id for number in range(5)]
    assert [key.id for key in user.keys.list(per_page=2, iterator=True)] == made[::-1]
    headers = {"PRIVATE-TOKEN": "token-of-alice"}
    answer = team.call("GET", "/api/v4/user/keys?page=2&per_page=2", headers=headers)
    names = ("X-Total", "X-Total-Pages", "X-Page", "X-Per-Page", "X-Next-Page", "X-Prev-Page")
    assert [answer.headers[name] for name in names] == ["5", "3", "2", "2", "3", "1"]
    assert set(answer.links) == {"first", "prev", "next", "last"}
    sought = team.call("GET", "/api/v4/users?username=alice&per_page=1", headers=headers)
    first = team.call("GET", sought.links["first"]["url"].removeprefix(team.url), headers=headers)
    assert [one["username"] for one in first.json()] == ["alice"], first.text
    named = team.call("GET", "/api/v4/users?username=alice&private_token=hunter2", headers=headers)
    assert "hunter2" not in str(named.headers)
    last = team.call("GET", "/api/v4/user/keys?page=3&per_page=2", headers=headers)
    assert last.headers["X-Next-Page"] == ""
    assert team.call("GET", "/api/v4/user/keys?page=0", headers=headers).status_code == 400
    same = team.call("GET", "/api/v4/user/keys", headers={**headers, "If-None-Match": "*"})
    assert (same.status_code, same.content) == (304, b"")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"PRIVATE-TOKEN": "wrong"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic eDp5"},
        {"PRIVATE-TOKEN": "wrong", "Authorization": "Bearer token-of-alice"},
        {"PRIVATE-TOKEN": ""},
    ],
)
def test_a_request_without_a_valid_token_shows_nothing(team: Service, headers: dict[str, str]) -> None:
    answer = team.call("GET", "/api/v4/user", headers=headers)
    assert (answer.status_code, answer.json()["message"]) == (401, "401 Unauthorized")


@pytest.mark.parametrize("other", ["Bearer token-of-bob", "Bearer wrong", "Basic eDp5"])
def test_the_private_token_counts_before_another_one(team: Service, other: str) -> None:
    """As GitLab has it; a client behind a proxy with a password of its own was locked out."""
    headers = {"PRIVATE-TOKEN": "token-of-alice", "Authorization": other}
    assert team.call("GET", "/api/v4/user", headers=headers).json()["username"] == "alice"
    headers = {"PRIVATE-TOKEN": "", "Authorization": "Bearer token-of-bob"}
    assert team.call("GET", "/api/v4/user", headers=headers).json()["username"] == "bob"
    two = [("PRIVATE-TOKEN", "token-of-alice"), ("PRIVATE-TOKEN", "token-of-bob")]
    assert httpx2.get(f"{team.url}/api/v4/user", headers=two).status_code == 401


def curl(team: Service, *words: str) -> tuple[int, Any]:
    """What alice is answered to a form that curl sends."""
    asked = ["curl", "-s", "-w", "\n%{http_code}", "-H", "PRIVATE-TOKEN: token-of-alice", *words]
    done = subprocess.run([*asked, f"{team.url}/api/v4/user/keys"], capture_output=True, text=True, check=True)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def test_a_form_in_parts_is_taken_as_curl_sends_it(team: Service, tmp_path: Path) -> None:
    """GitLab's own examples use --form; each such call was refused, as no form."""
    line, file = fresh_line("büro"), tmp_path / "key.pub"
    file.write_text(line + "\n", "utf-8")
    title = 'Büro "laptop" = 1'
    end = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    status, made = curl(team, "--form", f"title={title}", "--form", f"key=<{file}", "--form", f"expires_at={end}")
    assert (status, made["title"], made["expires_at"][:10]) == (201, title, end)
    assert made["key"].split(" ")[:2] == line.split(" ")[:2]
    status, answer = curl(team, "--form", "title=x", "--form", f"key=@{file}")
    assert status == 400
    assert "--form 'key=<FILE'" in answer["detail"]
    assert curl(team, "--form", "title=x") == (400, {"error": "key is missing"})
    assert curl(team, "--form", "title=x", "--form", "title=y")[0] == 400
    assert curl(team, "--form", "title=x", "--form", "sudo=bob")[0] == 403


PART = b'--b\r\nContent-Disposition: form-data; name="title"\r\n\r\n'


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("multipart/form-data", PART + b"x\r\n--b--\r\n"),
        ("multipart/form-data; boundary=", PART + b"x\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"title=x"),
        ("multipart/form-data; boundary=b", PART + b"x"),
        ("multipart/form-data; boundary=b", b"before\r\n" + PART + b"x\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", PART + b"B\xfcro\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", PART + b"B\0ro\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", (PART + b"x\r\n") * 1001 + b"--b--\r\n"),
    ],
)
def test_a_malformed_multipart_form_is_refused(unchanged_team: Service, kind: str, content: bytes) -> None:
    answer = unchanged_team.call(
        "POST", "/api/v4/user/keys", token="token-of-alice", content=content, headers={"Content-Type": kind}
    )
    assert answer.status_code == 400


def test_keys_of_users_are_public_by_name_or_id_and_only_as_the_setting_says(team: Service) -> None:
    line = fresh_line()
    key = team.call("POST", "/api/v4/user/keys", token="token-of-alice", json={"title": "desk", "key": line}).json()
    for who in ("alice", "2"):
        shown = team.call("GET", f"/api/v4/users/{who}/keys").json()
        assert [one["id"] for one in shown] == [key["id"]]
        assert team.call("GET", f"/api/v4/users/{who}/keys/{key['id']}").json()["key"] == key["key"]
    unknown = team.call("GET", "/api/v4/users/nobody/keys")
    assert (unknown.status_code, unknown.json()["message"]) == (404, "404 User Not Found")
    assert team.call("GET", "/api/v4/users/victor/keys").status_code == 404, "of another workspace"
    assert team.call("GET", "/api/v4/users/alice/keys", token="token-of-victor").status_code == 404
    assert team.call("GET", "/api/v4/users/alice/keys", token="wrong").status_code == 401
    folder = team.instance.settings.data
    team.instance.database.close()
    with running(settings_for(folder, "", public_keys=False)) as closed:
        for path in ("/api/v4/users/alice/keys", "/api/v4/users/nobody/keys", "/alice.keys", "/nobody.keys"):
            assert closed.call("GET", path).status_code == 401
        assert closed.call("GET", "/api/v4/users/alice/keys", token="token-of-bob").status_code == 403
        for token in ("token-of-alice", "token-of-olga"):
            assert len(closed.call("GET", "/api/v4/users/alice/keys", token=token).json()) == 1


def test_the_keys_of_a_disabled_user_are_no_longer_shown(team: Service) -> None:
    line = fresh_line()
    team.call("POST", "/api/v4/user/keys", token="token-of-alice", json={"title": "desk", "key": line})
    path = f"/api/v4/users/{quote('alice')}/keys"
    assert len(team.call("GET", path).json()) == 1
    uid = next(
        user["id"]
        for user in team.call("GET", "/v3/users", headers={"X-Auth-Token": "token-of-olga"}).json()["users"]
        if user["name"] == "alice"
    )
    off = {"user": {"enabled": False}}
    assert team.call("PATCH", f"/v3/users/{uid}", headers={"X-Auth-Token": "token-of-olga"}, json=off).is_success
    assert team.call("GET", path).json() == []
    assert team.call("GET", "/alice.keys").text == ""
    assert team.call("GET", "/api/v4/users/alice").json()["state"] == "blocked"


def test_a_key_that_has_expired_on_arrival_is_refused_as_gitlab_does(alice: gitlab.Gitlab) -> None:
    assert refused(alice, fresh_line(), expires_at="2020-01-01") == (400, {"key": ["has expired"]})


def test_a_disabled_user_gets_no_key(team: Service) -> None:
    made = team.call("PATCH", "/api/keyrack/v1/people/bob", token="token-of-olga", json={"disabled": True}).json()
    body = {"title": "t", "key": fresh_line()}
    answer = team.call("POST", f"/api/v4/users/{made['id']}/keys", token="token-of-olga", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (400, "bob is disabled; enable the user first.")
    given = {"user": "bob", "server": "web-1", "system_user": "deploy"}
    grant = team.call("POST", "/api/keyrack/v1/grants", token="token-of-olga", json=given).json()
    assert grant["note"] == "bob is disabled; this opens nothing until somebody enables the user."


def test_adding_a_key_without_the_right_to_see_it_is_answered_as_done(team: Service) -> None:
    folder = team.instance.settings.data
    team.instance.database.close()
    with running(settings_for(folder, "", public_keys=False)) as closed:
        scopes = {"name": "gives", "scopes": ["people:write", "codeartsrepo:*"]}
        made = closed.call("POST", "/api/keyrack/v1/tokens", token="token-of-olga", json=scopes)
        body = {"title": "desk", "key": fresh_line()}
        given = closed.call("POST", "/api/v4/users/2/keys", token=made.json()["token"], json=body)
        assert given.status_code == 201, given.text
        assert given.json()["key"].split(" ", 2)[2] == "alice (127.0.0.1)"
        own = closed.call("GET", "/api/v4/user/keys", token="token-of-alice").json()
        assert [key["id"] for key in own] == [given.json()["id"]]


def test_a_form_may_hold_letters_as_they_are(team: Service) -> None:
    """`curl -d 'title=Büro'` sends the bytes of the terminal, and names them a form."""
    for title, sent in (("Büro", "Büro".encode()), ("Büro", b"B%C3%BCro")):
        content = b"title=" + sent + b"&key=" + quote(fresh_line(), safe="").encode()
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = team.call("POST", "/api/v4/user/keys", token="token-of-alice", content=content, headers=kind)
        assert (answer.status_code, answer.json()["title"]) == (201, title)
    for sent in (b"B\xfcro", b"B%FCro", b"B\xed\xa0\x80ro", b"B%00ro"):
        answer = team.call("POST", "/api/v4/user/keys", token="token-of-alice", content=b"title=" + sent, headers=kind)
        assert answer.status_code == 400


def test_the_last_use_of_a_key_is_shown_to_its_owner_and_administrators(team: Service, alice: gitlab.Gitlab) -> None:
    user = alice.user
    assert user is not None
    line = fresh_line()
    used, unused = (
        user.keys.create({"title": "used", "key": line}),
        user.keys.create({"title": "not", "key": fresh_line()}),
    )
    assert user.keys.get(used.id).last_used_at is None
    at = datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC)
    fingerprint = parse(line).fingerprint
    uses = [(fingerprint, at - timedelta(days=1), "203.0.113.7")]
    team.instance.database.write(lambda c: host_reports.note_uses(c, 1, uses))
    team.instance.database.write(lambda c: git_access.note_key_use(c, fingerprint, "203.0.113.7", at))
    last_used = "2026-03-04T05:06:07.890Z"
    assert user.keys.get(used.id).last_used_at == last_used
    assert {key.id: key.last_used_at for key in user.keys.list(get_all=True)} == {used.id: last_used, unused.id: None}
    with gitlab.Gitlab(team.url, private_token="token-of-olga") as olga:
        assert olga.keys.get(fingerprint=fingerprint).last_used_at == last_used
    expected = {"": None, "token-of-bob": None, "token-of-alice": last_used, "token-of-olga": last_used}
    for token, seen in expected.items():
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        for path, name in (("v4", "last_used_at"), ("v3", "last_used")):
            listed = httpx2.get(f"{team.url}/api/{path}/users/alice/keys", headers=headers).json()
            times = {key["id"]: key[name] for key in listed}
            short = None if seen is None else seen[:19]
            assert (times[used.id] or "")[:19] == (short or ""), (token, path)
            assert times[unused.id] is None
        one = httpx2.get(f"{team.url}/api/v4/users/alice/keys/{used.id}", headers=headers).json()
        assert one["last_used_at"] == seen, token
    own = httpx2.get(f"{team.url}/api/v3/user/keys", headers={"Authorization": "token token-of-alice"}).json()
    assert {key["id"]: key["last_used"] for key in own} == {used.id: "2026-03-04T05:06:07Z", unused.id: None}
    shown = httpx2.get(own[-1]["url"], headers={"Authorization": "token token-of-alice"}).json()
    assert shown["last_used"] == "2026-03-04T05:06:07Z"
