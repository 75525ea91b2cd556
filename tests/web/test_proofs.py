"""No right gained: whatever a limited proof makes, sets or switches on may no more than the proof itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from keyrack.core.people import actors, tokens, users
from keyrack.model import Role
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.hand_signed import call as signed_call
from tests.web.sdk.clients import AccessKey

CREDENTIALS = "/v3.0/OS-CREDENTIAL/credentials"
TEMPORARY = "/v3.0/OS-CREDENTIAL/securitytokens"
PROJECT = "aa2d97d7e62c4b7da3ffdfc11551f878"
PASSWORD = "a password that was just set"

MORE = """
[workspace]
name = "acme"
[[projects]]
name = "other"
id = "bb2d97d7e62c4b7da3ffdfc11551f878"
[[users]]
name = "olga"
role = "owner"
tokens = [
  { name = "root", token = "token-of-olga", scopes = ["*"] },
  { name = "people", token = "olgas-token-for-people", scopes = ["people:*", "iam:self"] },
  { name = "people alone", token = "olgas-token-for-people-alone", scopes = ["people:*"] },
  { name = "reader", token = "olgas-token-to-read", scopes = ["credentials:read", "iam:self"] },
]
[[users]]
name = "second"
role = "owner"
password = "second's password"
[[users]]
name = "pat"
role = "member"
password = "pat's password"
policies = ["people:*"]
tokens = [{ name = "all", token = "token-of-pat-all", scopes = ["*"] }]
[[users]]
name = "gert"
role = "member"
password = "gert's password"
[[repositories]]
path = "acme/site"
members = [{ user = "gert", role = "admin" }]
"""


@dataclass(frozen=True)
class Proof:
    """What a request is proved by: a token, or an access key that signs."""

    service: Service
    token: str = ""
    key: AccessKey | None = None

    def ask(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        """One request to Huawei's APIs or, for a token, to the others as well."""
        if self.key is None:
            headers = {"X-Auth-Token": self.token, "Authorization": f"Bearer {self.token}"}
            return self.service.call(method, path, headers=headers, json=body)
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if self.key.security_token:
            headers["X-Security-Token"] = self.key.security_token
        signed = ["x-sdk-date", *(["x-security-token"] if self.key.security_token else [])]
        return signed_call(self.service, self.key, method, path, body=content, headers=headers, signed=signed)

    def reaches(self) -> set[str]:
        """What it opens, by name."""
        probes = {
            "people": "/v3/users",
            "user keys": "/v4/user/keys",
            "repository": "/v4/repositories/1",
            "own project": "/v4/repositories/2",
            "other project": "/v4/repositories/3",
            "servers": "/api/v3/servers",
            "credentials": "/api/v3/servers/1/ssh/credentials",
            "log": "/api/keyrack/v1/events",
        }
        opened = {name for name, path in probes.items() if self.ask("GET", path).status_code == 200}
        added = self.ask("POST", "/v4/user/keys", {"title": "probe"})
        return opened | ({"add user keys"} if added.status_code == 201 else set())


def user_ids(service: Service) -> dict[str, str]:
    """The IAM user ids of the team by name."""
    found = service.call("GET", "/v3/users", headers={"X-Auth-Token": "token-of-olga"}).json()["users"]
    return {user["name"]: user["id"] for user in found}


def sign_in(service: Service, name: str, password: str, **scope: Any) -> Proof | None:
    """An IAM token for a password, or None when it is not taken."""
    user = {"name": name, "password": password, "domain": {"name": "acme"}}
    identity = {"methods": ["password"], "password": {"user": user}}
    answer = service.call("POST", "/v3/auth/tokens", json={"auth": {"identity": identity, **scope}})
    return Proof(service, answer.headers["X-Subject-Token"]) if answer.status_code == 201 else None


def access_key(by: Proof, user: str | None = None) -> Proof | None:
    """A new permanent access key, one's own or another user's, or None when that is refused."""
    sent = {} if user is None else {"user_id": user}
    answer = by.ask("POST", CREDENTIALS, {"credential": sent})
    if answer.status_code != 201:
        return None
    made = answer.json()["credential"]
    return Proof(by.service, key=AccessKey(made["access"], made["secret"]))


def temporary_key(by: Proof, *actions: str) -> Proof | None:
    """A new temporary access key, with a policy where there are actions, or None when that is refused."""
    identity: dict[str, Any] = {"methods": ["token"]}
    if actions:
        identity["policy"] = {"Statement": [{"Effect": "Allow", "Action": list(actions)}]}
    answer = by.ask("POST", TEMPORARY, {"auth": {"identity": identity}})
    if answer.status_code != 201:
        return None
    made = answer.json()["credential"]
    return Proof(by.service, key=AccessKey(made["access"], made["secret"], made["securitytoken"]))


def minted(by: Proof) -> Iterator[tuple[str, Proof]]:
    """Every proof that a proof gets, by each way there is, with the way's name."""
    service = by.service
    ways: list[tuple[str, Callable[[], Proof | None]]] = [
        ("an access key of one's own", lambda: access_key(by)),
        ("a temporary key", lambda: temporary_key(by)),
        ("a temporary key for everything", lambda: temporary_key(by, "*")),
        ("a temporary key for all, spelt out", lambda: temporary_key(by, "*:*", "codeartsrepo*", "people:*")),
    ]
    for name, number in user_ids(service).items():
        ways.append((f"an access key of {name}", lambda number=number: access_key(by, number)))  # type: ignore[misc]
        ways.append((f"the password of {name}", lambda n=name, i=number: set_password(by, n, i)))  # type: ignore[misc]
    ways.append(("a new user", lambda: new_user(by)))
    for way, make in ways:
        proof = make()
        if proof is not None:
            yield way, proof


def set_password(by: Proof, name: str, number: str) -> Proof | None:
    """Set somebody's password and sign in with it."""
    by.ask("PATCH", f"/v3/users/{number}", {"user": {"password": PASSWORD}})
    return sign_in(by.service, name, PASSWORD)


def new_user(by: Proof) -> Proof | None:
    """Make a user and sign in as that one."""
    by.ask("POST", "/v3/users", {"user": {"name": "newcomer", "password": PASSWORD}})
    return sign_in(by.service, "newcomer", PASSWORD)


@pytest.fixture
def house(team: Service) -> Service:
    """The team with owners, somebody for people alone, limited tokens and two repositories, each in its project."""
    team.apply(MORE)
    for number, project in enumerate((PROJECT, PROJECT.replace("aa", "bb", 1))):
        body = {"name": f"r{number}", "project_uuid": project}
        made = team.call("POST", "/v1/repositories", headers={"X-Auth-Token": "token-of-olga"}, json=body)
        assert made.json()["status"] == "success", made.text
    return team


def limited(service: Service, kind: str) -> Proof:
    """A limited proof of some kind."""
    if kind.startswith("olgas-token") or kind.startswith("token-of"):
        return Proof(service, kind)
    found: Proof | None
    if kind == "pat signed in":
        found = sign_in(service, "pat", "pat's password")
    elif kind == "pat's access key":
        found = access_key(Proof(service, "token-of-pat-all"))
    elif kind == "access key of a limited token":
        found = access_key(Proof(service, "olgas-token-for-people"))
    elif kind == "temporary key with a policy":
        found = temporary_key(Proof(service, "token-of-olga"), "people:*", "iam:self")
    else:
        found = sign_in(service, "olga", "olga's password", scope={"project": {"id": PROJECT}})
    assert found is not None
    return found


KINDS = (
    "olgas-token-for-people",
    "olgas-token-for-people-alone",
    "olgas-token-to-read",
    "token-of-pat-all",
    "token-of-audrey",
    "pat signed in",
    "pat's access key",
    "access key of a limited token",
    "temporary key with a policy",
    "token for one project",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_made_with_limited_rights_has_no_more_than_these(house: Service, kind: str) -> None:
    proof = limited(house, kind)
    own = proof.reaches()
    if proof.key is not None and kind != "pat's access key":
        own |= Proof(house, "olgas-token-for-people").reaches()  # a signature opens no other API than Huawei's
    ways = dict(minted(proof))
    gained = {way: reached - own for way, made in ways.items() if (reached := made.reaches()) - own}
    assert gained == {}
    if "project" in kind:
        assert own == {"repository", "own project", "user keys", "add user keys"}
    # Those who may more are as they were.
    for name in ("olga", "second"):
        assert sign_in(house, name, f"{name}'s password") is not None
        assert sign_in(house, name, PASSWORD) is None


@pytest.mark.parametrize("kind", ["token-of-pat-all", "olgas-token-for-people", "pat's access key"])
def test_an_admin_of_people_cannot_change_somebody_with_more_rights(house: Service, kind: str) -> None:
    proof = limited(house, kind)
    numbers = user_ids(house)
    for name in ("olga", "second", "alice", "gert"):
        path = f"/v3/users/{numbers[name]}"
        for body in ({"password": PASSWORD}, {"enabled": False}, {"enabled": False, "password": PASSWORD}):
            assert proof.ask("PATCH", path, {"user": body}).status_code in (400, 403)
        assert proof.ask("DELETE", path).status_code == 403
        assert sign_in(house, name, f"{name}'s password") is not None
    # Whom one exceeds or equals, one deals with, as before.
    path = f"/v3/users/{numbers['mallory']}"
    assert proof.ask("PATCH", path, {"user": {"enabled": False}}).status_code == 200
    assert proof.ask("DELETE", path).status_code == 204


def test_somebody_elses_logins_count_as_a_right(house: Service) -> None:
    """Who registers keys in somebody's name gets in where they do: bob's grant makes bob more than pat."""
    more = """
[[users]]
name = "pat"
role = "member"
policies = ["people:*", "codeartsrepo:*", "git:*"]
[[grants]]
user = "bob"
server = "web-1"
system_user = "deploy"
"""
    pat = Proof(house, "token-of-pat-all")
    path = f"/v3/users/{user_ids(house)['bob']}"
    assert pat.ask("PATCH", path, {"user": {"password": PASSWORD}}).status_code == 403
    house.apply('[workspace]\nname = "acme"\n' + more.partition("[[grants]]")[0])
    assert pat.ask("PATCH", path, {"user": {"password": PASSWORD}}).status_code == 200
    house.apply('[workspace]\nname = "acme"\n' + more)
    assert pat.ask("PATCH", path, {"user": {"password": "yet another password"}}).status_code == 403
    assert sign_in(house, "bob", PASSWORD) is not None


def test_an_access_key_that_may_more_is_not_switched_on(house: Service) -> None:
    made = access_key(Proof(house, "token-of-olga"))
    assert made is not None
    assert made.key is not None
    path = f"{CREDENTIALS}/{made.key.id}"
    reader = Proof(house, "olgas-token-to-read")
    assert reader.ask("PUT", path, {"credential": {"status": "inactive"}}).status_code == 200
    assert reader.ask("PUT", path, {"credential": {"status": "active"}}).status_code == 403
    assert made.ask("GET", "/v3/projects").status_code == 401
    assert Proof(house, "token-of-olga").ask("PUT", path, {"credential": {"status": "active"}}).status_code == 200
    assert made.ask("GET", "/v3/projects").status_code == 200


def test_nothing_made_with_a_token_outlives_its_end(house: Service) -> None:
    actor = actors.system_actor(1)
    olga = next(user for user in users.find(house.instance, actor) if user.name == "olga")
    ends_at = house.instance.now() + timedelta(minutes=5)
    secret, _ = tokens.create(house.instance, actor, olga, name="short", scopes=("*",), expires_at=ends_at)
    identity = {"methods": ["token"], "token": {"duration_seconds": 86_400}}
    short = Proof(house, secret)
    temporary = short.ask("POST", TEMPORARY, {"auth": {"identity": identity}}).json()["credential"]
    assert temporary["expires_at"] == ends_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    key = access_key(short)
    assert key is not None
    assert key.ask("GET", "/v3/projects").status_code == 200


@pytest.mark.parametrize("body", [{"password": PASSWORD}, {"enabled": False}])
def test_a_refused_call_has_changed_nothing(house: Service, body: dict[str, Any]) -> None:
    """A scope that the answer alone would need must not make a refusal of what was done."""
    proof = Proof(house, "olgas-token-for-people-alone")
    mallory = user_ids(house)["mallory"]
    answer = proof.ask("PATCH", f"/v3/users/{mallory}", {"user": body})
    done = sign_in(house, "mallory", "mallory's password") is None
    assert (answer.status_code == 200) is done
    answer = proof.ask("POST", "/v3/users", {"user": {"name": "newcomer", "password": PASSWORD}})
    assert (answer.status_code == 201) is ("newcomer" in user_ids(house))


def test_a_refused_part_of_a_change_undoes_the_other_part(house: Service) -> None:
    """A second part that is refused undoes the first: the last owner keeps the password too."""
    olga = Proof(house, "token-of-olga")
    numbers = user_ids(house)
    assert olga.ask("DELETE", f"/v3/users/{numbers['second']}").status_code == 204
    herself = sign_in(house, "olga", "olga's password")
    assert herself is not None
    both = {"user": {"password": PASSWORD, "enabled": False}}
    assert herself.ask("PATCH", f"/v3/users/{numbers['olga']}", both).status_code == 400
    assert sign_in(house, "olga", "olga's password") is not None


def test_only_owners_make_owners_and_take_their_place(house: Service) -> None:
    users.create_user(house.instance, actors.system_actor(1), name="ada", role=Role.ADMIN, password="ada's password")
    ada = sign_in(house, "ada", "ada's password")
    assert ada is not None
    numbers = user_ids(house)
    assert ada.ask("PATCH", f"/v3/users/{numbers['mallory']}", {"user": {"password": PASSWORD}}).status_code == 200
    assert ada.ask("PATCH", f"/v3/users/{numbers['olga']}", {"user": {"password": PASSWORD}}).status_code == 403
    native = "/api/keyrack/v1"
    for name in ("ada", "mallory", "newcomer"):
        assert ada.ask("PUT", f"{native}/people/{name}", {"role": "owner"}).status_code == 403
    token = {"user": "olga", "name": "mine", "scopes": ["*"], "duration": "1h"}
    assert ada.ask("POST", f"{native}/tokens", token).status_code == 403
    olga = Proof(house, "token-of-olga")
    assert olga.ask("PUT", f"{native}/people/mallory", {"role": "owner"}).status_code == 200


def add_key_of(service: Service, name: str, token: str) -> int:
    """Put a key in somebody's name, and answer the status."""
    number = service.call("GET", f"/api/keyrack/v1/people/{name}", token="token-of-olga").json()["id"]
    body = {"title": "t", "key": fresh_line()}
    return service.call("POST", f"/api/v4/users/{number}/keys", token=token, json=body).status_code


def test_an_admin_without_grants_adds_no_key_for_somebody_with_grants(house: Service) -> None:
    """gwen may register no key herself, so a password of hers gains nothing; a key put in her name would log in."""
    house.apply(
        '[workspace]\nname = "acme"\n[[users]]\nname = "gwen"\nrole = "member"\n'
        '[[grants]]\nuser = "gwen"\nserver = "web-1"\nsystem_user = "deploy"\n'
    )
    pat, number = Proof(house, "token-of-pat-all"), user_ids(house)["gwen"]

    def put_key() -> int:
        return add_key_of(house, "gwen", "token-of-pat-all")

    def native(method: str, path: str, body: dict[str, Any]) -> int:
        return house.call(method, f"/api/keyrack/v1{path}", token="token-of-pat-all", json=body).status_code

    assert put_key() == 403
    assert native("PUT", "/people/gwen/key-sources/github", {"account": "pat-at-github"}) == 403
    assert pat.ask("PATCH", f"/v3/users/{number}", {"user": {"password": PASSWORD}}).status_code == 200
    # With that password she would register a key, once she had the right to.
    more = '[workspace]\nname = "acme"\n[[users]]\nname = "pat"\nrole = "member"\npolicies = '
    house.apply(more + '["people:*", "codeartsrepo:*", "git:*"]\n')
    assert native("PATCH", "/people/gwen", {"policies": ["codeartsrepo::*"]}) == 403
    house.apply(more + '["people:*", "codeartsrepo:*", "git:*", "grants:write"]\n')
    assert native("PATCH", "/people/gwen", {"policies": ["codeartsrepo::*"]}) == 200
    assert put_key() == 201


def test_a_login_that_ends_sooner_is_less(house: Service) -> None:
    """pat logs in where gwen does, but for an hour: a key in her name would stay."""
    grants = '[[grants]]\nserver = "web-1"\nsystem_user = "deploy"\n'
    house.apply(
        f'[workspace]\nname = "acme"\n[[users]]\nname = "gwen"\nrole = "member"\n{grants}user = "gwen"\n'
        f'{grants}user = "pat"\nexpires_at = {(datetime.now(UTC) + timedelta(hours=1)).isoformat()}\n'
    )
    assert add_key_of(house, "gwen", "token-of-pat-all") == 403
    house.apply(f'[workspace]\nname = "acme"\n{grants}user = "pat"\n')
    assert add_key_of(house, "gwen", "token-of-pat-all") == 201
