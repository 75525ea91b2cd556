"""Signing in with a browser, and what a page that opens servers must not let happen."""

from __future__ import annotations

import re
from datetime import timedelta

import httpx2
import pytest
from playwright.sync_api import Page, expect

from keyrack.core.people import actors
from keyrack.core.people import users as people
from tests.console.conftest import COOKIE, SignedIn, session_of
from tests.plain_http import PLAIN
from tests.services import Service

HTML = {"Accept": "text/html"}


def form_token(text: str) -> str:
    """What the forms of a page carry."""
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', text)
    assert found is not None
    return found[1]


def browser(service: Service, name: str = "") -> httpx2.Client:
    """A client that keeps cookies as a browser does, signed in as somebody if a name is given."""
    client = httpx2.Client(base_url=service.url, headers=HTML, verify=PLAIN, timeout=30)
    if name:
        client.cookies.set(COOKIE, session_of(service, name))
    return client


def sign_in(client: httpx2.Client, name: str, password: str, **more: str) -> httpx2.Response:
    """Fill in the form."""
    token = form_token(client.get("/login").text)
    return client.post("/login", data={"csrf": token, "name": name, "password": password, **more})


def test_a_person_signs_in_and_out(page: Page) -> None:
    page.goto("/")
    expect(page).to_have_url(re.compile("/login$"))
    page.get_by_label("User name").fill("olga")
    page.get_by_label("Password").fill("olga's password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("navigation", name="Console", exact=True)).to_be_visible()
    page.locator("details.menu summary").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/login$"))
    page.goto("/")
    expect(page).to_have_url(re.compile("/login$"))


def test_every_wrong_sign_in_gets_the_same_answer(console: Service) -> None:
    answers = set()
    for name, password in (("olga", "wrong"), ("nobody", "wrong"), ("olga@umbrella", "olga's password"), ("", "")):
        with browser(console) as client:
            answer = sign_in(client, name, password)
            assert answer.status_code == 401
            answers.add(re.sub(r'csrf" value="[0-9a-f]+|"X-CSRF-Token": "[0-9a-f]+|value="[^"]*"', "", answer.text))
            assert COOKIE not in client.cookies
    assert len(answers) == 1


def test_a_name_may_say_its_workspace(console: Service) -> None:
    with browser(console) as client:
        assert sign_in(client, "victor@umbrella", "victor's password").status_code == 303
        assert "umbrella" in client.get("/").text


def test_signing_in_leads_on_only_to_pages_of_the_console(console: Service) -> None:
    for onward, expected in (("/hosts?a=1", "/hosts?a=1"), ("https://evil.example/", "/"), ("//evil.example", "/")):
        with browser(console) as client:
            answer = sign_in(client, "olga", "olga's password", next=onward)
            assert answer.headers["location"] == ("/welcome" if expected == "/" else expected)
    with browser(console) as client:
        assert client.get("/nothing?x=%0d%0aSet-Cookie:a").status_code in (303, 404)


@pytest.mark.parametrize("onward", ["//[", "//[zz]/", "/\\\\[", "http://[", "[", "/[", "/]x", "http:////["])
def test_the_address_to_go_on_to_may_be_any_text(console: Service, onward: str) -> None:
    with browser(console) as client:
        assert client.get("/login", params={"next": onward}).status_code == 200
        answer = sign_in(client, "olga", "olga's password", next=onward)
        assert answer.headers["location"] == (onward if onward in ("/[", "/]x") else "/welcome")


@pytest.mark.parametrize("origin", ["http://[", "http://[zz]", "//[", "[", "http://evil.example", "null\xe9"])
def test_a_form_of_another_origin_is_refused_whatever_that_is(console: Service, origin: str) -> None:
    with browser(console) as client:
        token = form_token(client.get("/login").text)
        form = {"csrf": token, "name": "olga", "password": "olga's password"}
        answer = client.post("/login", data=form, headers={b"Origin": origin.encode("latin-1")})
        assert answer.status_code == 403
        assert COOKIE not in client.cookies


def test_the_session_cookie_is_protected(console: Service) -> None:
    with browser(console) as client:
        answer = sign_in(client, "olga", "olga's password")
        said = [value for value in answer.headers.get_list("set-cookie") if value.startswith(f"{COOKIE}=")]
        assert len(said) == 1
        assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(said[0].split("; "))
        assert "Domain" not in said[0]
        secret = client.cookies[COOKIE]
        for path in ("/", "/logout", "/login"):
            assert secret not in client.get(path).text
        # What a browser keeps is no token of any API.
        token = {"Authorization": f"Bearer {secret}"}
        assert client.get("/api/keyrack/v1/servers", headers=token).status_code == 401


def test_over_tls_the_cookie_is_bound_to_the_host(console: Service) -> None:
    settings = console.instance.settings
    object.__setattr__(settings, "public_url", "https://keys.example.org")
    try:
        with browser(console) as client:
            answer = client.get("/login")
            said = answer.headers["set-cookie"]
            assert said.startswith("__Host-keyrack-form=")
            assert {"Secure", "HttpOnly", "SameSite=lax", "Path=/"} <= set(said.split("; "))
            assert "max-age" in answer.headers["strict-transport-security"]
    finally:
        object.__setattr__(settings, "public_url", "")


def test_no_password_is_accepted_over_plain_http(console: Service) -> None:
    with browser(console) as client:
        answer = client.get("/login", headers={"Host": "keys.example.org"})
        assert answer.status_code == 403
        assert "https" in answer.text


@pytest.mark.parametrize("path", ["/", "/login", "/logout", "/nothing-here"])
def test_every_page_has_a_content_security_policy(console: Service, path: str) -> None:
    with browser(console, "olga") as client:
        answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<(script|style)[^>]*>[^<]|\sstyle=|\son\w+=", answer.text)
    assert not re.search(r"(src|href)=\"(https?:)?//", answer.text)


def test_static_files_are_kept_for_ever_by_their_hash(console: Service) -> None:
    with browser(console) as client:
        found = set(re.findall(r'"(/static/[0-9a-f]{16}/[^"]+)"', client.get("/login").text))
        assert len(found) >= 5
        for address in found:
            answer = client.get(address)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
            # As a page of another version names it: there, and kept by nobody.
            other = client.get(re.sub("[0-9a-f]{16}", "0" * 16, address))
            assert (other.status_code, other.content) == (200, answer.content)
            assert other.headers["cache-control"] == "no-store"
            for wrong in (address.replace("/static/", "/static/x"), address + "x", "/static/" + address[25:]):
                assert client.get(wrong).status_code in (303, 404)


def test_a_form_of_another_page_changes_nothing(console: Service) -> None:
    with browser(console, "olga") as client:
        token = form_token(client.get("/logout").text)
        refused: tuple[tuple[dict[str, str], dict[str, str]], ...] = (
            ({}, {}),
            ({"csrf": "0" * 64}, {}),
            ({"csrf": token}, {"Origin": "https://evil.example"}),
            ({"csrf": token}, {"Sec-Fetch-Site": "cross-site"}),
            ({"csrf": token}, {"Sec-Fetch-Site": "same-site"}),
        )
        for fields, headers in refused:
            assert client.post("/logout", data=fields, headers=headers).status_code == 403
            assert client.get("/").status_code == 200
        with browser(console, "alice") as other:
            foreign = form_token(other.get("/logout").text)
        assert client.post("/logout", data={"csrf": foreign}).status_code == 403
        assert client.post("/logout", data={"csrf": token}, headers={"Origin": console.url}).status_code == 303
        assert client.get("/").status_code == 303


def test_a_stranger_cannot_sign_somebody_in_as_another(console: Service) -> None:
    fields = {"name": "mallory", "password": "mallory's password"}
    with browser(console) as client:
        assert client.post("/login", data=fields).status_code == 403
        assert COOKIE not in client.cookies


def test_programs_keep_their_first_page(console: Service) -> None:
    plain = console.client.get("/")
    assert plain.status_code == 200
    assert "Next steps" in plain.text
    assert console.client.get("/", headers={"Accept": "application/json"}).status_code == 300
    assert console.client.get("/nothing").status_code == 404
    with browser(console) as client:
        assert client.get("/").headers["location"] == "/login"


def test_a_session_ends_by_time_and_without_use(console: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = console.instance
    start = instance.now()
    for passed, status in ((timedelta(minutes=119), 200), (timedelta(minutes=240), 303)):
        with browser(console, "olga") as client:
            assert client.get("/").status_code == 200
            object.__setattr__(instance, "now", lambda passed=passed: start + passed)
            assert client.get("/").status_code == status
            object.__setattr__(instance, "now", lambda: start)


def test_sessions_end_with_the_password_and_with_the_person(console: Service) -> None:
    actor = actors.system_actor(1)
    bob = next(user for user in people.find(console.instance, actor) if user.name == "bob")
    with browser(console, "bob") as client:
        assert client.get("/").status_code == 200
        people.change_password(console.instance, actor, bob.id, "another password")
        assert client.get("/").status_code == 303
    with browser(console, "bob") as client:
        people.change(console.instance, actor, bob.id, enabled=False)
        assert client.get("/").status_code == 303
        people.change(console.instance, actor, bob.id, enabled=True)
        assert client.get("/").status_code == 303, "an ended session stays ended"


def test_keyboard_help_opens(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_hidden()
