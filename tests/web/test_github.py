"""GitHub's key API: PyGithub and ssh-import-id as the package index has them, and the wire itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import github
import pytest

from tests.core.keys_for_tests import fresh_line
from tests.services import Service

BASES = ("/api/github", "/api/v3")


@pytest.fixture(params=BASES)
def alice(team: Service, request: pytest.FixtureRequest) -> Iterator[github.Github]:
    """PyGithub with alice's token, at each base."""
    client = github.Github(base_url=team.url + request.param, auth=github.Auth.Token("token-of-alice"), retry=None)
    yield client
    client.close()


def test_pygithub_adds_lists_shows_and_deletes_a_key(team: Service, alice: github.Github) -> None:
    me = alice.get_user()
    assert me.login == "alice"
    line = fresh_line("alice@example.com")
    added = me.create_key("desk", line)
    assert added.key == line.rpartition(" ")[0], "without the comment"
    assert (added.title, added.verified) == ("desk", True)
    assert [key.id for key in me.get_keys()] == [added.id]
    assert me.get_key(added.id).key == added.key
    assert [key.key for key in alice.get_user("alice").get_keys()] == [added.key]
    added.delete()
    assert list(me.get_keys()) == []
    with pytest.raises(github.UnknownObjectException) as caught:
        me.get_key(added.id)
    assert caught.value.data["message"] == "Not Found"
    with pytest.raises(github.UnknownObjectException):
        alice.get_user("nobody")


def test_pygithub_follows_the_pages(alice: github.Github) -> None:
    alice.per_page = 2
    me = alice.get_user()
    made = [me.create_key(f"key {number}", fresh_line()).id for number in range(5)]
    assert [key.id for key in me.get_keys()] == made[::-1]
    assert [key.id for key in alice.get_user("alice").get_keys()] == made


def test_refusals_have_githubs_words(team: Service, alice: github.Github) -> None:
    me = alice.get_user()
    line = fresh_line()
    me.create_key("desk", line)
    with pytest.raises(github.GithubException) as taken:
        me.create_key("again", line)
    assert taken.value.status == 422
    assert taken.value.data["message"] == "Validation Failed"
    error = {"resource": "PublicKey", "code": "custom", "field": "key", "message": "key is already in use"}
    assert taken.value.data["errors"] == [error]
    assert "You registered this key already: title 'desk'" in taken.value.data["detail"]
    with pytest.raises(github.GithubException) as invalid:
        me.create_key("again", "ssh-ed25519 nonsense")
    assert invalid.value.data["errors"][0]["message"].startswith("key is invalid")
    lacking = team.call("POST", "/api/github/user/keys", token="token-of-alice", json={})
    assert lacking.json()["errors"] == [{"resource": "PublicKey", "code": "missing_field", "field": "key"}]
    broken = team.call("POST", "/api/github/user/keys", token="token-of-alice", content=b"{")
    assert (broken.status_code, broken.json()["message"]) == (400, "Problems parsing JSON")
    with pytest.raises(github.BadCredentialsException) as wrong:
        client = github.Github(base_url=f"{team.url}/api/v3", auth=github.Auth.Token("wrong"), retry=None)
        try:
            client.get_user().login  # noqa: B018
        finally:
            client.close()
    assert wrong.value.data["message"] == "Bad credentials"


def test_runclouds_calls_at_the_same_base_stay_runclouds(team: Service) -> None:
    assert team.call("GET", "/api/v3/ping", token="token-of-olga").json() == {"message": "pong"}
    assert team.call("GET", "/api/v3/usersx", token="token-of-olga").json() == {"message": "Resources not found."}
    assert team.call("GET", "/api/v3/user/", headers={"Authorization": "token token-of-olga"}).json()["login"] == "olga"
    assert team.call("GET", "/api/v3/users/alice/nothing").json()["message"] == "Not Found"
    assert team.call("PUT", "/api/v3/user/keys", token="token-of-olga").status_code == 405


def test_a_list_that_did_not_change_is_not_sent_again(team: Service) -> None:
    path = "/api/github/users/alice/keys"
    asked = time.time()
    first = team.call("GET", path)
    tag = {"If-None-Match": first.headers["ETag"]}
    assert team.call("GET", path, headers=tag).status_code == 304
    assert int(first.headers["X-RateLimit-Remaining"]) > 0
    # Programs wait until then where nothing remains; those that find no time ask again at once.
    assert asked < int(first.headers["X-RateLimit-Reset"]) <= time.time() + 60
    team.call("POST", "/api/github/user/keys", token="token-of-alice", json={"title": "desk", "key": fresh_line()})
    assert team.call("GET", path, headers=tag).status_code == 200


def test_a_scope_that_lacks_makes_it_missing_and_a_right_that_lacks_forbidden(team: Service) -> None:
    assert team.call("GET", "/api/github/user/keys", token="token-of-mallory").status_code == 403
    team.apply(
        '[workspace]\nname = "acme"\n[[users]]\nname = "alice"\npolicies = ["codeartsrepo::*"]\n'
        'tokens = [{ name = "narrow", token = "narrow-token-of-alice", scopes = ["codeartsrepo::getUserSetting"] }]\n'
    )
    token = "narrow-token-of-alice"
    assert team.call("GET", "/api/github/user/keys", token=token).status_code == 200
    answer = team.call("POST", "/api/github/user/keys", token=token, json={"key": fresh_line()})
    assert (answer.status_code, answer.json()["message"]) == (404, "Not Found")


def test_the_keys_file_of_a_user_is_plain_text_without_comments(team: Service) -> None:
    lines = [fresh_line("one@example.com"), fresh_line()]
    for line in lines:
        team.call("POST", "/api/github/user/keys", token="token-of-alice", json={"key": line})
    team.call("POST", "/v4/user/keys", headers={"X-Auth-Token": "token-of-alice"}, json={"title": "none", "key": None})
    answer = team.call("GET", "/alice.keys")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "".join(" ".join(line.split(" ")[:2]) + "\n" for line in lines)
    assert team.call("GET", "/alice.keys", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    assert (team.call("GET", "/bob.keys").status_code, team.call("GET", "/bob.keys").text) == (200, "")
    assert team.call("GET", "/nobody.keys").status_code == 404
    assert team.call("GET", "/victor.keys").status_code == 404, "of another workspace"
    assert team.call("POST", "/alice.keys").status_code == 405


@pytest.mark.parametrize("protocol", ["lp", "gl"])
def test_ssh_import_id_fetches_the_keys_of_a_user(team: Service, protocol: str, tmp_path: Path) -> None:
    line = fresh_line("alice@example.com")
    team.call("POST", "/api/github/user/keys", token="token-of-alice", json={"title": "desk", "key": line})
    program = Path(sys.executable).with_name("ssh-import-id")
    file = tmp_path / "authorized_keys"
    environment = {**os.environ, "HOME": str(tmp_path), "URL": f"{team.url}/{{}}.keys", "GITLAB_URL": team.url}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(program), "-o", str(file), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    done = run(f"{protocol}:alice")
    assert done.returncode == 0, done.stderr
    key = line.rpartition(" ")[0]
    written = file.read_text().strip()
    assert written.startswith(key)
    assert written.endswith(f"# ssh-import-id {protocol}:alice")
    assert run(f"{protocol}:nobody").returncode != 0
    assert run("-r", f"{protocol}:alice").returncode == 0
    assert key not in file.read_text()
