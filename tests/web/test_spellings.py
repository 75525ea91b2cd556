"""A name in its two spellings, composed and decomposed, is one name: of users, groups, rules, servers."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from keyrack.core.people import tokens, users
from keyrack.core.work import Attempt
from keyrack.errors import Refusal
from keyrack.model import Role
from keyrack.store.people import users as rows
from tests.services import Service

OLGA = "token-of-olga"
NATIVE = "/api/keyrack/v1"
ONE = unicodedata.normalize("NFC", "björn-ångström")
OTHER = unicodedata.normalize("NFD", ONE)


@pytest.mark.parametrize(("first", "second"), [(ONE, OTHER), (OTHER, ONE)])
@pytest.mark.parametrize(
    ("path", "body"), [("people", {}), ("groups", {"members": []}), ("request-rules", {"approvers": 1})]
)
def test_a_name_in_its_other_spelling_is_the_same_one(
    team_on_each: Service, path: str, body: dict[str, Any], first: str, second: str
) -> None:
    team = team_on_each
    made = team.call("PUT", f"{NATIVE}/{path}/{first}", token=OLGA, json=body).json()
    again = team.call("PUT", f"{NATIVE}/{path}/{second}", token=OLGA, json=body).json()
    assert made == again
    assert made["name"] == ONE
    assert team.call("GET", f"{NATIVE}/{path}/{second}", token=OLGA).json()["name"] == ONE
    assert team.call("DELETE", f"{NATIVE}/{path}/{second}", token=OLGA).status_code == 204


def test_a_user_signs_in_with_either_spelling_of_their_name(team_on_each: Service) -> None:
    team = team_on_each
    body = {"user": {"name": OTHER, "password": "a good password"}}
    assert team.call("POST", "/v3/users", headers={"X-Auth-Token": OLGA}, json=body).status_code == 201
    for name in (ONE, OTHER):
        proof = {"user": {"name": name, "password": "a good password", "domain": {"name": "acme"}}}
        asked = {"auth": {"identity": {"methods": ["password"], "password": proof}}}
        assert team.call("POST", "/v3/auth/tokens", json=asked).status_code == 201
    assert team.call("POST", "/v3/users", headers={"X-Auth-Token": OLGA}, json=body).status_code == 409


def test_a_name_stored_in_the_other_spelling_is_found_and_not_made_again(team_on_each: Service) -> None:
    team = team_on_each
    actor = tokens.authenticate(team.instance, OLGA, address="192.0.2.1", channel="native")
    with Attempt(team.instance, actor, "people:write", "test", target_kind="user") as attempt:

        def store(work: Any) -> None:
            kept: dict[str, Any] = {"uid": "a" * 32, "role": Role.MEMBER, "policies": (), "password_hash": None}
            rows.add_user(work.connection, actor.workspace_id, name=OTHER, at=work.now, **kept)
            work.no_event("test")

        attempt.write(store)
    assert team.call("GET", f"{NATIVE}/people/{ONE}", token=OLGA).json()["name"] == OTHER
    with pytest.raises(Refusal) as refused:
        users.create_user(team.instance, actor, name=ONE, role=Role.MEMBER)
    assert refused.value.code == "user-taken"


def test_a_workspace_file_names_people_in_either_spelling(team: Service) -> None:
    text = (
        f'[workspace]\nname = "acme"\n[[users]]\nname = "{ONE}"\n[[groups]]\nname = "{OTHER}"\nmembers = ["{OTHER}"]\n'
    )
    grant = f'[[grants]]\n{{}} = "{OTHER}"\nserver = "web-1"\nsystem_user = "deploy"\n'
    team.apply(text + grant.format("user") + grant.format("group"))
    assert team.apply(text + grant.format("user") + grant.format("group")) == []
    assert team.call("GET", f"{NATIVE}/groups/{ONE}", token=OLGA).json()["members"] == [ONE]


def test_a_server_is_found_in_either_spelling_and_keeps_its_own(team_on_each: Service) -> None:
    team = team_on_each
    made = team.call("POST", "/api/v3/servers", token=OLGA, json={"name": OTHER, "ipAddress": "192.0.2.7"}).json()
    assert made["name"] == OTHER
    assert team.call("GET", f"{NATIVE}/servers/{ONE}", token=OLGA).json()["id"] == made["id"]
