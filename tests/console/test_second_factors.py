"""Codes from an app, recovery codes and passkeys, as a person and as a thief meets them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import timedelta

import httpx2
import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.console.conftest import COOKIE, session_of
from tests.console.rows import kept
from tests.console.test_sign_in import browser, form_token, sign_in
from tests.services import Service

HERE = "/settings/sign-in"


def code_of(secret: str, service: Service) -> str:
    """What an app shows at this moment."""
    made = TOTP(base64.b32decode(secret), 6, SHA1(), 30, enforce_key_length=False)
    return made.generate(int(service.instance.now().timestamp())).decode()


def post(client: httpx2.Client, path: str, shown: str = "/logout", **fields: str) -> httpx2.Response:
    """Send a form of a page."""
    return client.post(path, data={"csrf": form_token(client.get(shown).text), **fields})


@pytest.fixture
def later(console: Service) -> Iterator[list[timedelta]]:
    """The service's clock is this much ahead: a list of one."""
    instance, passed = console.instance, [timedelta()]
    clock = instance.now
    object.__setattr__(instance, "now", lambda: clock() + passed[0])
    yield passed
    object.__setattr__(instance, "now", clock)


def test_codes_from_an_app_and_recovery(console: Service, later: list[timedelta]) -> None:
    with browser(console, "alice") as client:
        begun = post(client, f"{HERE}/app").text
        assert 'class="segno"' in begun, "what a phone's camera reads"
        secret = re.search(r'data-copy="([A-Z2-7]{32})"', begun)
        carried = re.search(r'name="carried" value="([^"]+)"', begun)
        assert secret is not None
        assert carried is not None
        assert post(client, f"{HERE}/app/confirm", carried=carried[1], code="000000").status_code == 422
        first = code_of(secret[1], console)
        done = post(client, f"{HERE}/app/confirm", carried=carried[1], code=first)
        recovery = re.findall(r"\b[a-z2-9]{4}-[a-z2-9]{4}-[a-z2-9]{4}\b", done.text)
        assert len(set(recovery)) == 10
        # They are shown this once.
        assert recovery[0] not in client.get(HERE).text
        assert secret[1] not in client.get(HERE).text

    def by_iam(code: str | None = None, name: str = "alice") -> httpx2.Response:
        who = {"name": name, "password": f"{name}'s password", "domain": {"name": "acme"}}
        identity = {"methods": ["password"], "password": {"user": who}}
        if code is not None:
            identity |= {"methods": ["password", "totp"], "totp": {"user": {"passcode": code}}}
        return console.call("POST", "/v3/auth/tokens", json={"auth": {"identity": identity}})

    # What a password does not open here, it opens nowhere.
    answers = (by_iam(), by_iam("000000"), by_iam(first))
    assert [one.status_code for one in answers] == [401, 401, 401]
    assert not any("X-Subject-Token" in one.headers for one in answers)
    assert "code" in answers[0].json()["error"]["message"]
    later[0] += timedelta(seconds=60)
    issued = by_iam(code_of(secret[1], console))
    assert (issued.status_code, issued.json()["token"]["methods"]) == (201, ["password", "totp"])
    assert by_iam("000000", "audrey").json()["token"]["methods"] == ["password"], "a code that nobody asked for"
    assert by_iam(recovery[-1]).status_code == 201
    assert by_iam(recovery[-1]).status_code == 401, "used already"

    def half(client: httpx2.Client) -> httpx2.Response:
        answer = sign_in(client, "alice", "alice's password", next="/settings/sign-in")
        assert answer.headers["location"] == "/login/second"
        assert COOKIE not in client.cookies
        assert client.get("/").status_code == 303
        return answer

    later[0] += timedelta(seconds=90)
    with browser(console) as client:
        half(client)
        assert post(client, "/login/second", "/login/second", code=first).status_code == 401, "used already"
        right = code_of(secret[1], console)
        answer = post(client, "/login/second", "/login/second", code=right)
        assert (answer.status_code, answer.headers["location"]) == (303, HERE)
        assert client.get("/").status_code == 200
    with browser(console) as client:
        half(client)
        assert post(client, "/login/second", "/login/second", code=right).status_code == 401, "the same code again"
        assert post(client, "/login/second", "/login/second", code=recovery[3].upper()).status_code == 303
    with browser(console) as client:
        half(client)
        assert post(client, "/login/second", "/login/second", code=recovery[3]).status_code == 401
        later[0] += timedelta(minutes=11)
        assert client.get("/login/second").headers["location"] == "/login", "a password holds for ten minutes"


def test_dangerous_changes_ask_again(console: Service, later: list[timedelta]) -> None:
    with browser(console, "mallory") as client:
        assert post(client, f"{HERE}/app").status_code == 200
        later[0] = timedelta(minutes=11)
        asked = post(client, f"{HERE}/codes", extra="kept <b>", confirmed="yes")
        assert asked.status_code == 403
        assert "Is it you?" in asked.text
        assert 'name="extra" value="kept &lt;b&gt;"' in asked.text
        assert post(client, f"{HERE}/app", proof_password="wrong").status_code == 403
        assert post(client, f"{HERE}/app", proof_password="mallory's password").status_code == 200
        assert post(client, f"{HERE}/app").status_code == 200, "that holds for ten minutes"


def test_a_mistyped_name_is_refused_before_a_password_is_asked_for(console: Service, later: list[timedelta]) -> None:
    with browser(console, "olga") as client:
        later[0] = timedelta(minutes=11)
        wrong = post(client, "/offboard/mallory", confirm="malory", reason="left")
        assert wrong.status_code == 422
        assert "Type mallory to confirm; nothing was changed." in wrong.text
        assert 'value="left"' in wrong.text
        assert "Is it you?" in post(client, "/offboard/mallory", confirm="mallory", reason="left").text


@pytest.mark.parametrize(
    ("address", "form", "words"),
    [
        ("/offboard/mallory", {"confirm": "mallory", "reason": "x" * 1000}, "This is longer than 255 characters."),
        ("/password/mallory", {"password": "short"}, "A password has 8 to 1024 characters."),
        ("/settings/tokens", {"name": "ci", "scopes": ""}, "Name what the token may do"),
        ("/settings/access-keys", {"description": "x" * 1000}, "This is longer than 255 characters."),
        ("/settings/webhooks", {"url": "http://10.0.0.1/", "level": "info"}, "url takes the https address"),
        ("/settings/key-policy", {"type": "ssh-rsa", "bits": "12", "seen": ""}, "It was changed since it was read"),
        ("/hosts/1/mode", {"mode": "wild"}, "The mode is observe, enforce or auto."),
    ],
)
def test_a_change_that_would_be_refused_is_refused_before_a_password_is_asked_for(
    console: Service, later: list[timedelta], address: str, form: dict[str, str], words: str
) -> None:
    with browser(console, "olga") as client:
        later[0] = timedelta(minutes=11)
        wrong = post(client, address, **form)
        assert "Is it you?" not in wrong.text
        assert wrong.text.count(words) == 1, "at the form that was sent alone"


@pytest.mark.parametrize(
    ("address", "form", "words"),
    [
        ("/settings/tokens", {"name": "only-once", "scopes": "servers:read", "ends": "1h"}, "Token only-once"),
        ("/settings/access-keys", {"description": "only once"}, "Secret of access key"),
        ("/settings/webhooks", {"url": "https://alerts.example.org/", "level": "info"}, "Secret that signs"),
        (f"{HERE}/app", {}, "The key as a square code"),
    ],
)
def test_a_change_tried_before_a_password_is_asked_for_is_undone(
    console: Service, later: list[timedelta], address: str, form: dict[str, str], words: str
) -> None:
    with browser(console, "olga") as client:
        later[0] = timedelta(minutes=11)
        before = kept(console)
        assert "Is it you?" in post(client, address, **form).text
        assert kept(console) == before
        assert words in post(client, address, **form, proof_password="olga's password").text


def test_a_session_is_listed_and_ended(console: Service) -> None:
    with browser(console, "audrey") as client, browser(console, "audrey") as other:
        page = client.get(HERE).text
        assert page.count("this one") == 1
        number = re.search(r'name="id" value="(\d+)"', page)
        assert number is not None
        assert other.get("/").status_code == 200
        assert post(client, f"{HERE}/sessions/others").status_code == 303
        assert other.get("/").status_code == 303
        assert client.get("/").status_code == 200
    with browser(console, "mallory") as thief, browser(console, "audrey") as client:
        with browser(console, "audrey") as third:
            held = re.findall(r'name="id" value="(\d+)"', third.get(HERE).text)
        for number in held:
            assert post(thief, f"{HERE}/sessions/end", id=number).status_code == 404
        assert client.get("/").status_code == 200


def test_a_password_is_changed_here(console: Service) -> None:
    with browser(console, "bob") as client, browser(console, "bob") as other:
        fields = {"original": "wrong", "password": "a new password", "repeated": "a new password"}
        assert post(client, f"{HERE}/password", **fields).status_code == 422
        fields["original"] = "bob's password"
        assert post(client, f"{HERE}/password", **{**fields, "repeated": "another"}).status_code == 422
        assert post(client, f"{HERE}/password", **fields).status_code == 303
        assert client.get("/").status_code == 200
        assert other.get("/").status_code == 303
    with browser(console) as client:
        assert sign_in(client, "bob", "bob's password").status_code == 401
        assert sign_in(client, "bob", "a new password").status_code == 303


@pytest.fixture
def at_a_name(chromium: Browser, console: Service) -> Iterator[BrowserContext]:
    """A browser that opens the service by a name, which passkeys need, with an authenticator that agrees by itself."""
    context = chromium.new_context(base_url=console.url.replace("127.0.0.1", "localhost"))
    context.set_default_timeout(10_000)
    yield context
    context.close()


def authenticator(page: Page) -> None:
    """Give the page's browser a device that holds passkeys."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    device = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    session.send("WebAuthn.addVirtualAuthenticator", {"options": device})


def test_a_passkey_beside_a_password_and_alone(at_a_name: BrowserContext, console: Service) -> None:
    page = at_a_name.new_page()
    authenticator(page)
    url = console.url.replace("127.0.0.1", "localhost")
    at_a_name.add_cookies([{"name": COOKIE, "value": session_of(console, "olga"), "url": url}])
    page.goto(HERE)
    page.get_by_label("Name").fill("laptop")
    page.get_by_role("button", name="Add a passkey").click()
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    page.get_by_role("link", name="I have them").click()
    expect(page.get_by_role("table", name="Second factors")).to_contain_text("laptop")

    at_a_name.clear_cookies()
    page.goto("/login")
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()

    at_a_name.clear_cookies()
    page.goto("/login")
    page.get_by_label("User name").fill("olga")
    page.get_by_label("Password").fill("olga's password")
    page.get_by_role("button", name="Sign in").click()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or "") if request.method == "POST" else None)
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    # The same answer once more, from the same browser, opens nothing: its challenge is spent.
    again = at_a_name.request.post(
        "/login/second", data=sent[0], headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert again.status in (401, 403)
