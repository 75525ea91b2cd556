"""Signing in through an OpenID provider: whom it brings, and what it cannot make us believe."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from keyrack.core.people import actors, groups, provider_rules, users
from keyrack.setting_values import provider_rules as rules_in
from keyrack.settings import Settings
from tests.console.conftest import COOKIE
from tests.console.test_second_factors import post
from tests.console.test_sign_in import browser
from tests.ports import free_port
from tests.services import TEAM, Service, running, settings_for

LOGOUT = "http://schemas.openid.net/event/backchannel-logout"


class Provider:
    """A provider as small as can be, which signs what a test has it say."""

    def __init__(self) -> None:
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.said: dict[str, Any] = {}
        self.token: str | None = None
        self.asked: list[dict[str, str]] = []
        self.expected: dict[str, str] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())

    def signed(self, said: dict[str, Any], *, key: Any = None, alg: str = "RS256", kid: str = "one") -> str:
        """A token; key: whose it is."""
        now = int(time.time())
        usual = {"iss": self.issuer, "aud": "keyrack", "iat": now, "exp": now + 300}
        whole = {name: value for name, value in {**usual, **said}.items() if value is not None}
        return jwt.encode(whole, self.key if key is None else key, algorithm=alg, headers={"kid": kid})

    def answer(self, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """What it answers to the service."""
        if path == "/.well-known/openid-configuration":
            names = {"authorization_endpoint": "auth", "token_endpoint": "token", "jwks_uri": "keys"}
            return 200, {"issuer": self.issuer} | {name: f"{self.issuer}/{word}" for name, word in names.items()}
        if path == "/keys":
            return 200, {"keys": [{**RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True), "kid": "one"}]}
        self.asked.append(form)
        return 200, {"id_token": self.token or self.signed({**self.expected, **self.said}), "token_type": "Bearer"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("content-length", 0))
                form = dict(parse_qsl(self.rfile.read(length).decode()))
                status, body = provider.answer(self.path, form)
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_POST = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """The provider, for the file."""
    made = Provider()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(10)


@pytest.fixture(scope="module")
def console(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose people that provider signs in."""
    folder: Path = tmp_path_factory.mktemp("provider") / "data"
    settings = settings_for(
        folder,
        "",
        oidc_issuer=provider.issuer,
        oidc_client_id="keyrack",
        oidc_client_secret="a secret",
        oidc_networks="127.0.0.0/8",
        oidc_roles="ssh-admins=admin, staff=member, /platform/staff=member",
        oidc_groups="operations=ops, /platform/operations=platform, cn=ops=directory",
        oidc_name="Example",
    )
    with running(settings) as service:
        service.apply(TEAM)
        yield service


def through(client: httpx2.Client, provider: Provider, path: str = "/login/oidc", **said: Any) -> httpx2.Response:
    """Go to the provider and come back with what it says."""
    sent = client.get(path)
    assert sent.status_code == 303
    asked = {name: values[0] for name, values in parse_qs(urlsplit(sent.headers["location"]).query).items()}
    assert asked["code_challenge_method"] == "S256"
    assert asked["response_type"] == "code"
    provider.expected = {"nonce": asked["nonce"]}
    provider.said = {"sub": "s-1", "preferred_username": "nina", "groups": ["staff"], "sid": "session-1", **said}
    return client.get("/login/oidc/callback", params={"code": "c", "state": asked["state"]})


def role_and_groups(console: Service, name: str) -> str | None:
    """What a user is here; None for one that is not there."""
    found = {user.name: user for user in users.find(console.instance, actors.system_actor(1))}
    return found[name].role.value if name in found else None


def test_the_first_sign_in_makes_the_user_by_rule(console: Service, provider: Provider) -> None:
    with browser(console) as client:
        assert "Sign in with Example" in client.get("/login").text
        assert through(client, provider, groups=["others"]).status_code == 403
        assert role_and_groups(console, "nina") is None
        answer = through(client, provider, "/login/oidc?next=/settings/sign-in", groups=["staff", "operations"])
        assert (answer.status_code, answer.headers["location"]) == (303, "/settings/sign-in")
        assert client.get("/").status_code == 200
        assert role_and_groups(console, "nina") == "member"
        assert "code_verifier" in provider.asked[-1]
    with browser(console) as client:
        # Role and groups follow; the name does not make another user.
        held = ["ssh-admins", "operations"]
        assert through(client, provider, groups=held, preferred_username="nina.b").status_code == 303
        assert role_and_groups(console, "nina") == "admin"
        assert role_and_groups(console, "nina.b") is None
    with browser(console) as client:
        assert groups.get(console.instance, actors.system_actor(1), "ops").members == ("nina",)
        assert through(client, provider, groups=[]).status_code == 403, "who lost the group comes in no more"
        assert groups.get(console.instance, actors.system_actor(1), "ops").members == (), "neither on hosts"


def test_groups_that_are_paths_or_pairs_at_the_provider_are_names_here(console: Service, provider: Provider) -> None:
    """Keycloak lists /platform/operations, a directory behind a provider cn=ops."""
    with browser(console) as client:
        held = ["/platform/staff", "/platform/operations", "cn=ops"]
        assert through(client, provider, sub="s-9", preferred_username="kay", groups=held).status_code == 303
    assert role_and_groups(console, "kay") == "member"
    for name in ("platform", "directory"):
        assert groups.get(console.instance, actors.system_actor(1), name).members == ("kay",)


def test_a_group_with_a_comma_in_its_name_is_written_as_json(tmp_path: Path) -> None:
    directory, both = "cn=ops,ou=groups,dc=example", "Berlin, Paris"
    rules = {"oidc_groups": json.dumps({directory: "ops"}), "oidc_roles": json.dumps({both: "auditor", "*": "member"})}
    with running(settings_for(tmp_path / "data", "", **rules)) as service:
        service.apply(TEAM)
        claims = provider_rules.Claims("https://id.example.org", "lin", "lin", (directory, both), None)
        provider_rules.sign_in(service.instance, claims, address="192.0.2.1", user_agent="")
        assert role_and_groups(service, "lin") == "auditor"
        assert groups.get(service.instance, actors.system_actor(1), "ops").members == ("lin",)


@pytest.mark.parametrize(
    "wrong", ['{"a, b": 1}', '{"a": "ops", "a": "web"}', '{"a, b": {}}', '{"a, b": "ops",}', '{"": "ops"}']
)
def test_json_that_is_not_rules_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|no rule"):
        Settings(oidc_groups=wrong)


def test_an_unknown_role_in_rules_is_refused() -> None:
    with pytest.raises(ValueError, match="none of the roles"):
        Settings(oidc_roles='{"Berlin, Paris": "king"}')


def test_a_name_in_braces_is_a_pair_as_ever() -> None:
    assert rules_in("{0f4c}=ops, b=web,,") == [("{0f4c}", "ops"), ("b", "web")]


def test_two_first_sign_ins_at_once_both_enter_their_group(console: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def come(name: str) -> None:
        claims = provider_rules.Claims("https://id.example.org", name, name, ("staff", "operations"), None)
        provider_rules.sign_in(console.instance, claims, address="192.0.2.1", user_agent="")

    ensure = groups.ensure

    def late(*given: Any, **named: Any) -> bool:
        monkeypatch.setattr(groups, "ensure", ensure)
        come("second")
        return ensure(*given, **named)

    monkeypatch.setattr(groups, "ensure", late)
    come("first")
    assert set(groups.get(console.instance, actors.system_actor(1), "ops").members) >= {"first", "second"}


def test_a_first_sign_in_in_two_tabs_at_once_succeeds_in_both(console: Service) -> None:
    """As a browser that opens two tabs: one of them makes the user, and the other finds it made."""
    together = threading.Barrier(4)

    def come(name: str) -> int:
        claims = provider_rules.Claims("https://id.example.org", f"subject-{name}", name, ("staff",), None)
        together.wait(timeout=30)
        session = provider_rules.sign_in(console.instance, claims, address="192.0.2.1", user_agent="")
        return session.visitor.user.id

    for number in range(5):
        with ThreadPoolExecutor(4) as threads:
            assert len(set(threads.map(come, [f"twice-{number}"] * 4))) == 1


def test_a_name_at_the_provider_gives_nobody_an_existing_account(console: Service, provider: Provider) -> None:
    with browser(console) as client:
        answer = through(client, provider, sub="evil", preferred_username="olga", groups=["ssh-admins"])
        assert answer.status_code == 403
        assert COOKIE not in client.cookies
    with browser(console, "olga") as client:
        linked = through(client, provider, "/login/oidc?link=1", sub="olga-there", groups=["ssh-admins"])
        assert linked.headers["location"] == "/settings/sign-in"
    with browser(console) as client:
        assert through(client, provider, sub="olga-there", groups=["ssh-admins"]).status_code == 303
        assert "olga" in client.get("/").text


def test_a_wrong_or_forged_id_token_signs_nobody_in(console: Service, provider: Provider) -> None:
    wrong_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = int(time.time())
    wrong: list[dict[str, Any]] = [
        {"nonce": "another"},
        {"aud": "somebody"},
        {"aud": ["keyrack", "somebody"]},
        {"iss": "https://evil.example"},
        {"exp": now - 3600},
        {"sub": None},
        {"azp": "somebody"},
    ]
    for said in wrong:
        with browser(console) as client:
            assert through(client, provider, **said).status_code in (303, 401), said
            assert COOKIE not in client.cookies, said
    usual = {"sub": "s-1", "preferred_username": "nina", "groups": ["staff"]}
    public = b"not a key of the provider, which anybody has"
    for token in (
        provider.signed(usual, key=wrong_key),
        provider.signed(usual, key=public, alg="HS256"),
        provider.signed(usual, kid="unknown"),
        jwt.encode({**usual, "iss": provider.issuer, "aud": "keyrack"}, "", algorithm="none"),
        "no token",
    ):
        provider.token = token
        with browser(console) as client:
            through(client, provider)
            assert COOKIE not in client.cookies
    provider.token = None
    with browser(console) as client:
        through(client, provider, groups=["ssh-admins"])
        used = dict(client.cookies)
        client.get("/login/oidc")
        assert client.get("/login/oidc/callback", params={"code": "c", "state": "x"}).status_code in (303, 401)
        assert used
    with browser(console) as client:
        sent = client.get("/login/oidc")
        state = parse_qs(urlsplit(sent.headers["location"]).query)["state"][0]
        with browser(console) as other:
            other.get("/login/oidc/callback", params={"code": "c", "state": state})
            assert COOKIE not in other.cookies, "a sign-in that began in another browser"


def test_a_session_of_the_provider_lasts_no_longer_than_the_settings_say(console: Service, provider: Provider) -> None:
    """Whoever is disabled there, and the provider says nothing, is out by then, however busy the browser is."""
    instance, before = console.instance, console.instance.now
    began, step = before(), timedelta(minutes=instance.settings.session_idle_minutes - 5)
    ends = began + timedelta(hours=instance.settings.session_hours, minutes=1)
    with browser(console) as client:
        assert through(client, provider, groups=["staff"]).status_code == 303
        try:
            at = began + step
            while at < ends:
                object.__setattr__(instance, "now", lambda at=at: at)
                assert client.get("/").status_code == 200
                at += step
            object.__setattr__(instance, "now", lambda: ends)
            assert client.get("/").status_code == 303
        finally:
            object.__setattr__(instance, "now", before)


def test_the_provider_ends_sessions(console: Service, provider: Provider) -> None:
    with browser(console) as client, browser(console) as other:
        assert through(client, provider, groups=["staff"], sid="session-7").status_code == 303
        assert through(other, provider, groups=["staff"], sid="session-8").status_code == 303
        said = {"sid": "session-7", "jti": "1", "events": {LOGOUT: {}}}
        for wrong in (
            provider.signed({**said, "events": {}}),
            provider.signed({**said, "nonce": "n"}),
            provider.signed({**said, "aud": "x"}),
            provider.signed({"jti": "2", "events": {LOGOUT: {}}}),
            "x",
        ):
            assert console.client.post("/login/oidc/backchannel", data={"logout_token": wrong}).status_code == 400
        assert client.get("/").status_code == 200
        right = {"logout_token": provider.signed(said)}
        assert console.client.post("/login/oidc/backchannel", data=right).status_code == 200
        assert client.get("/").status_code == 303
        assert other.get("/").status_code == 200
        assert console.client.post("/login/oidc/backchannel", data=right).status_code != 200, "it counts once"
        assert post(other, "/logout").status_code == 303


def test_a_provider_may_write_a_name_with_any_blanks(console: Service, provider: Provider) -> None:
    with browser(console) as client:
        answer = through(client, provider, sub="s-blanks", preferred_username="Ada\u00a0 Lovelace ", groups=["staff"])
        assert answer.status_code == 303, answer.text
    assert role_and_groups(console, "Ada Lovelace") == "member"
