"""What proved somebody ends while their call is on the way, between its check and its change: nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

import pytest

from keyrack.core.git import deploy_keys, repositories
from keyrack.core.instance import Instance
from keyrack.core.keys import claims, user_keys
from keyrack.core.people import access_keys, basic_access, named_people, sign_in, tokens, users, web_sessions
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor
from keyrack.store.database import Database
from keyrack.store.people import tokens as token_rows
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.test_lost_rights import ADA, CALLS, DEPLOY, NATIVE, OLGA, WITH_ADA, done


@pytest.fixture
def team(team_on_each: Service) -> Service:
    """The team with an admin, on each kind of database."""
    team_on_each.apply(WITH_ADA)
    return team_on_each


@dataclass
class _Between:
    """A database before whose next write something else happens."""

    database: Database
    happening: Callable[[], object] | None

    def write(self, command: Any, **more: Any) -> Any:
        happening, self.happening = self.happening, None
        if happening is not None:
            happening()
        return self.database.write(command, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.database, name)


def between(instance: Instance, happening: Callable[[], object]) -> Instance:
    """The instance of one call, between whose check and change something happens."""
    return replace(instance, database=cast(Database, _Between(instance.database, happening)))


def by_token(team: Service, token: str = ADA) -> Actor:
    return tokens.authenticate(team.instance, token, address="192.0.2.1", channel="native")


def _token_revoked(team: Service) -> tuple[Actor, Callable[[], object]]:
    actor = by_token(team)
    return actor, lambda: team.call("DELETE", f"{NATIVE}/tokens/{actor.token_id}", token=OLGA).raise_for_status()


def _token_rotated(team: Service) -> tuple[Actor, Callable[[], object]]:
    actor = by_token(team)
    path = f"{NATIVE}/tokens/{actor.token_id}/rotate"
    return actor, lambda: team.call("POST", path, token=OLGA, json={"overlap": "0s"}).raise_for_status()


def _token_ended(team: Service) -> tuple[Actor, Callable[[], object]]:
    actor, now = by_token(team), team.instance.now()
    ended = {"expires_at": now - timedelta(seconds=1)}
    return actor, lambda: team.instance.database.write(
        lambda connection: token_rows.change_token(connection, actor.token_id or 0, ended)
    )


def _token_forgotten(team: Service) -> tuple[Actor, Callable[[], object]]:
    """Its row is deleted a day after its end."""
    actor, now = by_token(team), team.instance.now()
    ended = {"expires_at": now - timedelta(seconds=1)}

    def forget() -> None:
        team.instance.database.write(lambda connection: token_rows.change_token(connection, actor.token_id or 0, ended))
        team.instance.database.write(lambda connection: token_rows.remove_dead_tokens(connection, now))

    return actor, forget


def _access_key(team: Service) -> tuple[Actor, access_keys.AccessKey]:
    made = access_keys.create(team.instance, by_token(team))
    assert made.secret is not None
    actor = basic_access.authenticate(team.instance, made.id, made.secret, address="192.0.2.1", channel="runcloud")
    return actor, made


def _access_key_deleted(team: Service) -> tuple[Actor, Callable[[], object]]:
    actor, made = _access_key(team)
    return actor, lambda: access_keys.delete(team.instance, by_token(team), made.id)


def _access_key_switched_off(team: Service) -> tuple[Actor, Callable[[], object]]:
    actor, made = _access_key(team)
    return actor, lambda: access_keys.change(team.instance, by_token(team), made.id, active=False)


def _browser_ended(team: Service) -> tuple[Actor, Callable[[], object]]:
    users.change_password(team.instance, by_token(team, OLGA), _user(team, "ada").id, "ada's own password")
    begun = sign_in.by_password(team.instance, "ada", "ada's own password", address="192.0.2.1", user_agent="Firefox")
    assert isinstance(begun, web_sessions.NewWebSession)
    visitor = web_sessions.find(team.instance, begun.secret, address="192.0.2.1")
    actor = web_sessions.actor_of(visitor.user, address="192.0.2.1", session=visitor.session)
    end = lambda: web_sessions.end(team.instance, by_token(team), visitor.session.id)  # noqa: E731
    return actor, end


ENDS: dict[str, Callable[[Service], tuple[Actor, Callable[[], object]]]] = {
    "token revoked": _token_revoked,
    "token rotated": _token_rotated,
    "token ended": _token_ended,
    "token forgotten": _token_forgotten,
    "access key deleted": _access_key_deleted,
    "access key switched off": _access_key_switched_off,
    "browser's session ended": _browser_ended,
}


@pytest.mark.parametrize("way", ENDS)
def test_a_call_whose_proof_ends_on_its_way_changes_nothing(team: Service, way: str) -> None:
    actor, happening = ENDS[way](team)
    happening()
    before = done(team)
    for name, call in CALLS.items():
        with pytest.raises(Refusal) as refused:
            call(team.instance, actor)
        assert refused.value.kind is Kind.UNAUTHENTICATED, name
    assert done(team) == before


@pytest.mark.parametrize("way", ENDS)
def test_a_proof_that_ends_after_all_checks_still_refuses_the_call(team: Service, way: str) -> None:
    actor, happening = ENDS[way](team)
    with pytest.raises(Refusal) as refused:
        CALLS["credential"](between(team.instance, happening), actor)
    assert refused.value.kind is Kind.UNAUTHENTICATED


@pytest.mark.parametrize("way", ENDS)
def test_a_call_is_made_while_its_proof_holds(team: Service, way: str) -> None:
    actor, _ = ENDS[way](team)
    CALLS["credential"](team.instance, actor)
    CALLS["grant"](team.instance, actor)


OWN_KEYS: dict[str, Callable[[Instance, Actor], object]] = {
    "key": lambda instance, actor: user_keys.add(instance, actor, title="t", public_key=fresh_line()),
    "entry without a key": lambda instance, actor: user_keys.add(
        instance, actor, title="t", public_key=None, keyless=True
    ),
    "challenge": lambda instance, actor: claims.challenge(instance, actor, public_key=fresh_line()),
}


@pytest.mark.parametrize("call", OWN_KEYS)
@pytest.mark.parametrize("lost", ["right", "token", "nothing"])
def test_a_user_who_loses_the_right_to_own_keys_meanwhile_gets_none(team: Service, call: str, lost: str) -> None:
    actor = by_token(team, "token-of-alice")

    def happening() -> None:
        if lost == "right":
            body: dict[str, Any] = {"policies": ["iam:self"]}
            team.call("PATCH", f"{NATIVE}/people/alice", token=OLGA, json=body).raise_for_status()
        elif lost == "token":
            team.call("DELETE", f"{NATIVE}/tokens/{actor.token_id}", token=OLGA).raise_for_status()

    instance = between(team.instance, happening)
    if lost == "nothing":
        OWN_KEYS[call](instance, actor)
        return
    with pytest.raises(Refusal) as refused:
        OWN_KEYS[call](instance, actor)
    assert refused.value.kind is (Kind.FORBIDDEN if lost == "right" else Kind.UNAUTHENTICATED)


MEMBERS: dict[str, Callable[[Instance, Actor, int, str], object]] = {
    "deploy key": lambda instance, actor, number, _: deploy_keys.add(
        instance, actor, number, title="t", public_key=fresh_line()
    ),
    "member": lambda instance, actor, number, bob: repositories.set_member(
        instance, actor, number, user_uid=bob, role="developer", new=True
    ),
    "change": lambda instance, actor, number, _: repositories.change(instance, actor, number, visibility=20),
    "deletion": lambda instance, actor, number, _: repositories.delete(instance, actor, number),
}


@pytest.mark.parametrize("call", MEMBERS)
@pytest.mark.parametrize("lost", ["membership", "role", "nothing"])
def test_a_former_member_changes_nothing_of_a_repository(team: Service, call: str, lost: str) -> None:
    path = f"{NATIVE}/repositories"
    body: dict[str, Any] = {"path": "acme/site", "members": {"mallory": "admin"}}
    number = team.call("PUT", path, token=OLGA, json=body).raise_for_status().json()["id"]
    members = {"membership": {}, "role": {"mallory": "viewer"}, "nothing": {"mallory": "admin"}}[lost]

    def happening() -> None:
        team.call("PUT", path, token=OLGA, json={"path": "acme/site", "members": members}).raise_for_status()

    actor, instance = by_token(team, "token-of-mallory"), between(team.instance, happening)
    bob = _user(team, "bob").uid
    if lost == "nothing":
        MEMBERS[call](instance, actor, number, bob)
        return
    with pytest.raises(Refusal) as refused:
        MEMBERS[call](instance, actor, number, bob)
    assert refused.value.kind is Kind.FORBIDDEN


def test_a_token_does_nothing_after_it_was_revoked(team: Service) -> None:
    """The log has an order, and after the event that revoked the token there is none of what it proved."""
    (number,) = (one["id"] for one in _tokens(team) if one["user"] == "ada")

    def act(at: int) -> int:
        if at == 12:
            return team.call("DELETE", f"{NATIVE}/tokens/{number}", token=OLGA).status_code
        kinds: tuple[tuple[str, str, dict[str, Any]], ...] = (
            (
                "/api/v3/servers/1/ssh/credentials",
                "POST",
                {"label": f"l{at}", "username": "deploy", "publicKey": fresh_line()},
            ),
            (f"{NATIVE}/grants", "POST", {"user": "bob", **DEPLOY, "reason": str(at)}),
            (f"{NATIVE}/people/me/keys", "POST", {"title": f"t{at}", "public_key": fresh_line()}),
        )
        path, method, body = kinds[at % 3]
        return team.call(method, path, token=ADA, json=body).status_code

    with ThreadPoolExecutor(16) as pool:
        ends = list(pool.map(act, range(36)))
    assert set(ends) <= {200, 201, 204, 401}
    lines = done(team)
    (at,) = (at for at, (_, words) in enumerate(lines) if words.startswith("Revoked token"))
    assert [words for who, words in lines[at:] if who == "ada"] == []


def _tokens(team: Service) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = team.call("GET", f"{NATIVE}/tokens", token=OLGA).json()["items"]
    return found


def _user(team: Service, name: str) -> Any:
    return named_people.get(team.instance, by_token(team, OLGA), name)
