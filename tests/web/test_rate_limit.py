"""Limits of requests: each caller has its own minute, it begins again, and memory is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyrack.web import rate_limit
from keyrack.web.rate_limit import Quota, RateLimit
from tests.web.runcloud_team import serving
from tests.web.set_clock import Clock


def test_a_minute_begins_with_the_first_request_and_ends() -> None:
    clock = Clock()
    limit = RateLimit(2, clock)
    assert limit.peek("a") == Quota(2, 2)
    assert [limit.take("a").remaining, limit.take("a").remaining] == [1, 0]
    clock.now += 12.5
    assert limit.take("a") == Quota(2, 0, 48, 48)
    assert limit.peek("a") == Quota(2, 0, 48, 48)
    assert limit.take("b") == Quota(2, 1)
    clock.now += 47.5
    assert limit.take("a") == Quota(2, 1)


def test_callers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_CALLERS", 10)
    clock = Clock()
    limit = RateLimit(1, clock)
    for number in range(100):
        limit.take(number)
    assert len(limit._minutes) <= 10
    assert limit.take(99).wait > 0
    clock.now += rate_limit.WINDOW_SECONDS
    assert limit.take(99).wait == 0


def test_the_caller_whose_minute_began_first_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_CALLERS", 3)
    clock = Clock()
    limit = RateLimit(1, clock)
    limit.take("a")
    clock.now += 30
    limit.take("b")
    clock.now += 31
    for caller in ("a", "c", "d"):
        assert limit.take(caller).wait == 0
    assert [limit.take(caller).wait > 0 for caller in ("a", "c", "d")] == [True, True, True]
    assert limit.take("b").wait == 0


def test_addresses_of_one_ipv6_network_are_one_caller(team_folder: Path, tmp_path: Path) -> None:
    with serving(team_folder, tmp_path / "data", rate_limit=2, trusted_proxies="127.0.0.1") as service:

        def statuses(path: str, places: tuple[str, ...], **more: str) -> list[int]:
            headers = [{"X-Forwarded-For": place, **more} for place in places]
            return [service.call("GET", path, headers=header).status_code for header in headers]

        near = ("2001:db8::1", "[2001:db8::2]:80", "2001:db8:0:0:ffff::3")
        assert statuses("/api/v3/ping", near, Authorization="Bearer guess") == [401, 401, 429]
        assert statuses("/docs", near) == [429, 429, 429]
        assert statuses("/agent/install.sh", near) == [429, 429, 429]
        assert statuses("/docs", ("2001:db8:0:1::1", "203.0.113.1", "203.0.113.2")) == [200, 200, 200]


def test_each_token_has_its_own_limit_and_guesses_count_by_address(team_folder: Path, tmp_path: Path) -> None:
    with serving(team_folder, tmp_path / "data", rate_limit=3) as service:

        def ping(token: str | None) -> tuple[int, str, str]:
            answer = service.call("GET", "/api/v3/ping", token=token)
            return answer.status_code, answer.headers["x-ratelimit-remaining"], answer.headers.get("retry-after", "")

        assert [ping("token-of-olga")[:2] for _ in range(3)] == [(200, "2"), (200, "1"), (200, "0")]
        status, remaining, after = ping("token-of-olga")
        assert (status, remaining) == (429, "0")
        assert 1 <= int(after) <= 60
        assert ping("token-of-alice")[:2] == (200, "2")
        assert [ping(f"guess-{number}")[0] for number in range(4)] == [401, 401, 401, 429]
        assert ping(None)[0] == 429
        # Whoever has a token goes on, from the same address as well; every version shares the minute.
        assert ping("token-of-alice")[:2] == (200, "1")
        v2 = service.call("GET", "/api/v2/ping", token="token-of-alice")
        assert v2.headers["x-ratelimit-remaining"] == "0"
        assert service.call("GET", "/api/v3/agency/ping", token="token-of-alice").status_code == 429
