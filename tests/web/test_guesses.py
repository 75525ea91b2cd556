"""Guesses at every client, from one address and from many: they are slowed down, and nobody's owner is shut out."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from keyrack.core.people import throttle
from keyrack.core.people.throttle import Throttle, network
from tests.services import Service
from tests.web.runcloud_team import ACCESS_KEY, BASIC, Agent, serving
from tests.web.set_clock import Clock

STRANGER, OWNER = "203.0.113.5", "198.51.100.9"


@pytest.fixture
def proxied(team_folder: Path, tmp_path: Path) -> Iterator[Service]:
    """A service behind a trusted proxy, which this test plays: it names any client it likes."""
    with serving(team_folder, tmp_path / "data", trusted_proxies="127.0.0.1", token_guesses=30) as service:
        stop_clocks(service)
        yield service


def stop_clocks(service: Service) -> None:
    """Let nothing that was spent come back while a test runs, however slowly it does."""
    service.instance.throttle._clock = lambda: 1000.0
    service.instance.refusals._clock = lambda: 1000.0


def sign_in(service: Service, user: str, password: str, *, at: str | None = None, **domain: str) -> httpx2.Response:
    """A sign-in, through the proxy for a client at an address."""
    who = {"name": user, "password": password, "domain": domain or {"name": "acme"}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": who}}}}
    return service.call("POST", "/v3/auth/tokens", json=body, headers={} if at is None else {"X-Forwarded-For": at})


def refusals(service: Service) -> list[Any]:
    """The events of what was refused: reason, address, details."""
    service.instance.refusals.write(service.instance.database, everything=True)
    rows = "SELECT reason, address, details, workspace_id FROM events WHERE outcome = 'refused' ORDER BY id"
    return list(service.instance.database.read(lambda connection: connection.execute(text(rows)).all()))


def test_passwords_cannot_be_guessed_from_one_address(proxied: Service) -> None:
    answers = [sign_in(proxied, "olga", f"guess {number}", at=STRANGER) for number in range(60)]
    assert [answer.status_code for answer in answers] == [401] * 20 + [429] * 40
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert answers[-1].json()["error_code"] == "APIGW.0308"
    # The right one is not tried either, nor is another user's, and nobody learns who exists.
    assert sign_in(proxied, "olga", "olga's password", at=STRANGER).status_code == 429
    assert sign_in(proxied, "alice", "alice's password", at=STRANGER).status_code == 429
    assert sign_in(proxied, "nobody", "x", at=STRANGER).status_code == 429
    assert sign_in(proxied, "olga", "olga's password", at=OWNER).status_code == 201
    # One event at once, one with the count of the rest.
    found = refusals(proxied)
    assert [(row.reason, row.address) for row in found] == [("sign-in-failed", STRANGER)] * 2
    assert '"times": 19' in str(found[1].details) or found[1].details == {"times": 19}


def test_tokens_cannot_be_guessed_by_asking_about_them(proxied: Service) -> None:
    """Whoever may see other people's tokens learns of each subject whether it is one."""
    headers = {"X-Auth-Token": "token-of-olga", "X-Forwarded-For": STRANGER}
    for method, most in (("GET", 20), ("DELETE", 10)):
        statuses = [
            proxied.call(
                method, "/v3/auth/tokens", headers=headers | {"X-Subject-Token": f"{method} {number}"}
            ).status_code
            for number in range(most)
        ]
        assert statuses == [404] * most
    ask = headers | {"X-Subject-Token": "one more"}
    assert proxied.call("GET", "/v3/auth/tokens", headers=ask).status_code == 429
    mine = headers | {"X-Subject-Token": "token-of-olga"}
    assert proxied.call("GET", "/v3/auth/tokens", headers=mine).status_code == 200


def test_the_metrics_token_cannot_be_guessed(team_folder: Path, tmp_path: Path) -> None:
    secret = "a token to read metrics"
    more: dict[str, Any] = {"metrics_token": secret, "token_guesses": 5, "trusted_proxies": "127.0.0.1"}
    with serving(team_folder, tmp_path / "data", **more) as service:
        stop_clocks(service)
        at = {"X-Forwarded-For": STRANGER}
        statuses = [service.call("GET", "/metrics", token=f"no {n}", headers=at).status_code for n in range(7)]
        assert statuses == [401] * 5 + [429] * 2
        assert service.call("GET", "/metrics", token=secret, headers=at).status_code == 429
        assert service.call("GET", "/metrics", token=secret, headers={"X-Forwarded-For": OWNER}).status_code == 200


def test_guesses_at_names_that_do_not_exist_are_slowed_alike(proxied: Service) -> None:
    wanted = [401] * 20 + [429] * 5
    assert [sign_in(proxied, "nobody", "x", at=STRANGER).status_code for _ in range(25)] == wanted
    assert [sign_in(proxied, "x", "x", at=OWNER, name=f"no {n}").status_code for n in range(25)] == wanted
    # The workspace that was named has them in its log, as if it were a user's name; the ones there are not, nobody.
    assert [(row.reason, row.address) for row in refusals(proxied)] == [("sign-in-failed", STRANGER)] * 2


@pytest.mark.parametrize("name", ["olga", "nobody"])
def test_guesses_at_an_account_count_together_however_its_workspace_is_named(proxied: Service, name: str) -> None:
    """Were it so for users alone, the guesses that are left would tell who is one."""
    uid = str(
        proxied.instance.database.read(
            lambda connection: connection.execute(text("SELECT uid FROM workspaces WHERE name = 'acme'")).scalar()
        )
    )
    named = [sign_in(proxied, name, "guess", at=STRANGER).status_code for _ in range(2)]
    assert named == [401, 401]
    for number in range(48):
        sign_in(proxied, name, "guess", at=f"10.0.{number}.7")
    statuses = [sign_in(proxied, name, "guess", at=OWNER, id=uid).status_code for _ in range(3)]
    assert statuses == [401, 401, 429]


def test_a_crowd_cannot_shut_the_owner_out(proxied: Service) -> None:
    statuses = [
        sign_in(proxied, "olga", "guess", at=f"10.{number // 250}.{number % 250}.7").status_code
        for number in range(120)
        for _ in range(3)
    ]
    # After what the account stands, each of them has two tries and no third.
    assert statuses[-3:] == [401, 401, 429]
    assert sign_in(proxied, "olga", "olga's password", at="192.0.2.200").status_code == 201, "from a new address"
    assert sign_in(proxied, "alice", "alice's password", at="10.0.3.7").status_code == 201, "another account"
    assert len(refusals(proxied)) <= 21, "ten events, ten counts of those, one of all others"


def test_a_user_who_signed_in_from_an_address_is_not_shut_out_by_guesses_from_it(proxied: Service) -> None:
    assert sign_in(proxied, "olga", "olga's password", at=STRANGER).status_code == 201
    for number in range(30):
        sign_in(proxied, f"somebody {number}", "guess", at=STRANGER)
    assert sign_in(proxied, "alice", "alice's password", at=STRANGER).status_code == 429
    assert sign_in(proxied, "olga", "olga's password", at=STRANGER).status_code == 201


BEARERS = ("/api/v3/ping", "/api/v2/ping", "/api/keyrack/v1/servers", "/agent/v1/document")


@pytest.mark.parametrize("path", [*BEARERS, "/v4/user/keys", "/v1/users/sshkey", "/v3/auth/catalog"])
def test_tokens_cannot_be_guessed(proxied: Service, path: str) -> None:
    name = "Authorization" if path in BEARERS else "X-Auth-Token"

    def ask(secret: str, at: str) -> httpx2.Response:
        sent = f"Bearer {secret}" if path in BEARERS else secret
        return proxied.call("GET", path, headers={name: sent, "X-Forwarded-For": at})

    right = Agent(proxied, 1).secret if path.startswith("/agent") else "token-of-olga"
    other = "token-of-victor"
    assert ask(right, STRANGER).status_code == 200
    answers = [ask(f"guess-{number}", STRANGER) for number in range(40)]
    assert [answer.status_code for answer in answers] == [401] * 30 + [429] * 10
    assert int(answers[-1].headers["retry-after"]) > 0
    assert answers[-1].json()
    if not path.startswith("/agent"):
        assert ask(other, STRANGER).status_code == 429, "the right one among the guesses is not told from a wrong one"
        assert ask(other, OWNER).status_code == 200
    assert ask(right, STRANGER).status_code == 200, "what held from there before still does"


def test_secrets_of_access_keys_cannot_be_guessed_by_http_basic(proxied: Service) -> None:
    def ask(sent: str, at: str) -> int:
        headers = {"Authorization": sent, "X-Forwarded-For": at}
        return proxied.call("GET", "/api/v2/ping", headers=headers).status_code

    for key_id in (ACCESS_KEY[0], "NOSUCHKEY"):
        wrong = "Basic " + base64.b64encode(f"{key_id}:guess".encode()).decode()
        assert [ask(wrong, STRANGER) for _ in range(8)] == [401] * 5 + [429] * 3
    assert ask(BASIC, STRANGER) == 429
    assert ask(BASIC, OWNER) == 200
    assert [(row.reason, row.address) for row in refusals(proxied)] == [("secret-wrong", STRANGER)] * 2


def test_enrolment_tokens_cannot_be_guessed(proxied: Service) -> None:
    def ask(number: int) -> httpx2.Response:
        sent = {"token": f"guess {number}"}
        return proxied.call("POST", "/agent/v1/enroll", json=sent, headers={"X-Forwarded-For": STRANGER})

    answers = [ask(number) for number in range(40)]
    assert [answer.status_code for answer in answers] == [403] * 30 + [429] * 10
    assert int(answers[-1].headers["retry-after"]) > 0
    assert refusals(proxied) == []


def test_callers_behind_an_untrusted_proxy_share_no_limit_with_others(team_folder: Path, tmp_path: Path) -> None:
    with serving(team_folder, tmp_path / "data", token_guesses=30) as service:
        stop_clocks(service)
        assert service.call("GET", "/api/v2/ping", headers={"Authorization": BASIC}).status_code == 200
        wrong = "Basic " + base64.b64encode(f"{ACCESS_KEY[0]}:guess".encode()).decode()
        for _ in range(8):
            service.call("GET", "/api/v2/ping", headers={"Authorization": wrong, "X-Forwarded-For": STRANGER})
        owner = {"Authorization": BASIC, "X-Forwarded-For": OWNER}
        assert service.call("GET", "/api/v2/ping", headers=owner).status_code == 200
        # What it says of the client is not believed.
        for number in range(25):
            sign_in(service, "olga", "guess", at=f"203.0.113.{number}")
        assert sign_in(service, "alice", "alice's password", at="203.0.113.200").status_code == 429


def test_programs_with_old_tokens_do_not_use_up_the_limit_of_others(proxied: Service) -> None:
    signed_in = sign_in(proxied, "alice", "alice's password", at=OWNER)
    ended = signed_in.headers["x-subject-token"]
    proxied.call("DELETE", "/v3/auth/tokens", headers={"X-Auth-Token": ended, "X-Subject-Token": ended})
    for _ in range(50):
        headers = {"X-Auth-Token": ended, "X-Forwarded-For": STRANGER}
        assert proxied.call("GET", "/v4/user/keys", headers=headers).status_code == 401
    headers = {"X-Auth-Token": "token-of-alice", "X-Forwarded-For": STRANGER}
    assert proxied.call("GET", "/v4/user/keys", headers=headers).status_code == 200


def test_a_token_does_not_allow_guessing_its_owners_password(team: Service) -> None:
    headers = {"X-Auth-Token": "token-of-alice"}
    me = team.call("GET", "/v3/auth/tokens", headers={**headers, "X-Subject-Token": "token-of-alice"}).json()
    path = f"/v3/users/{me['token']['user']['id']}/password"

    def ask(number: int) -> int:
        body = {"user": {"original_password": f"guess {number}", "password": "another password"}}
        return team.call("POST", path, json=body, headers=headers).status_code

    answers = [ask(number) for number in range(25)]
    assert answers[0] in (400, 401, 403)
    assert answers[-1] == 429


def wrong() -> None:
    """A proof that does not hold."""
    raise ValueError


def tries(counts: Throttle, address: str, proof: str = "a") -> bool:
    """Whether a wrong password is tried at all."""
    try:
        counts.prove(throttle.PASSWORD, address, proof, wrong, is_guess=lambda error: True)
    except ValueError:
        return True
    except Exception:
        return False
    return True


def test_attempts_become_available_again_with_time() -> None:
    clock = Clock()
    counts = Throttle(6, 6, clock)
    assert [tries(counts, "192.0.2.1") for _ in range(7)] == [True] * 6 + [False]
    clock.now += 10
    assert [tries(counts, "192.0.2.1") for _ in range(2)] == [True, False]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_side_by_side_give_out_no_more_than_one(processes: int) -> None:
    each = [Throttle(20, 20, Clock(), processes=processes) for _ in range(processes)]
    tried = sum(tries(counts, "192.0.2.1", str(number)) for counts in each for number in range(30))
    assert tried == 20


def test_an_ipv6_network_of_one_customer_counts_as_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert network("2001:db8:1:2:3::4") == network("2001:db8:1:2::1") != network("2001:db8:1:3::1")
    assert network("::ffff:192.0.2.1") == network("192.0.2.1")
    counts = Throttle(2, 2, Clock())
    tried = sum(tries(counts, f"2001:db8:0:{number:x}::1", str(number)) for number in range(200))
    assert tried == 2 * throttle.WIDER
    monkeypatch.setattr(throttle, "MAX_BUCKETS", 100)
    for number in range(1000):
        tries(counts, f"10.0.{number // 250}.{number % 250}", str(number))
    assert len(counts._buckets) <= 100


def test_a_hundred_at_once_are_no_more_than_one_by_one() -> None:
    counts = Throttle(5, 5, Clock())
    inside = 0

    def nested() -> None:
        nonlocal inside
        inside += 1
        tries_next()
        raise ValueError

    def tries_next() -> None:
        if inside < 50:
            counts.prove(
                throttle.PASSWORD, "192.0.2.1", "a", nested, is_guess=lambda error: isinstance(error, ValueError)
            )

    with pytest.raises(Exception, match="Too many"):
        tries_next()
    assert inside == 5
