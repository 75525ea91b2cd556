"""Names in addresses: each reads as one name, can be asked for by itself, and is told from others by sight."""

from __future__ import annotations

from typing import Any

import pytest

from keyrack.errors import Refusal
from tests.services import TEAM, Service

OLGA = "token-of-olga"
BASE = "/api/keyrack/v1"
MADE: dict[str, dict[str, Any]] = {
    "/people/{}": {},
    "/groups/{}": {"members": []},
    "/request-rules/{}": {"approvers": 1},
    "/servers/{}": {"address": "192.0.2.9"},
}


@pytest.mark.parametrize("path", MADE)
@pytest.mark.parametrize("name", ["a%00b", "a%ffb", "%C3", "a%ed%a0%80"])
def test_a_path_that_is_no_text_makes_nothing(unchanged_team: Service, path: str, name: str) -> None:
    answer = unchanged_team.call("PUT", BASE + path.format(name), token=OLGA, json=MADE[path])
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "path-malformed")


@pytest.mark.parametrize("path", ["/people/{}", "/groups/{}", "/request-rules/{}"])
@pytest.mark.parametrize("name", ["olga%20", "%20olga", "olga%C2%A0", "%E3%80%80olga", "..", "%2E"])
def test_a_name_that_looks_like_another_or_like_a_folder_is_not_made(
    unchanged_team: Service, path: str, name: str
) -> None:
    # The client would put . and .. out of the address by itself.
    answer = unchanged_team.client.request(
        "PUT",
        unchanged_team.url + BASE + path.format(name.replace(".", "%2E")),
        headers={"Authorization": f"Bearer {OLGA}"},
        json=MADE[path],
    )
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "name")


@pytest.mark.parametrize("name", ["a/b", "..", " x"])
def test_iam_makes_none_either(unchanged_team: Service, name: str) -> None:
    answer = unchanged_team.call(
        "POST", "/v3/users", headers={"X-Auth-Token": OLGA}, json={"user": {"name": name, "password": "a password"}}
    )
    assert answer.status_code == 400


@pytest.mark.parametrize("name", ["Ada Lovelace", "o'hara", "a@example.org", "žofie", "李", "x.y", "..."])
def test_names_of_people_are_taken(team: Service, name: str) -> None:
    made = team.call("PUT", f"{BASE}/people/{name}", token=OLGA, json={})
    assert (made.status_code, made.json()["name"]) == (200, name)
    assert team.call("GET", f"{BASE}/people/{name}", token=OLGA).status_code == 200


@pytest.mark.parametrize("address", ["300.1.1.1", "192.0.2", "12345", "web.example.7", "1.2.3.4."])
def test_an_address_that_is_nearly_one_is_refused(unchanged_team: Service, address: str) -> None:
    body = {"name": "n", "ipAddress": address}
    answer = unchanged_team.call("POST", "/api/v3/servers", token=OLGA, json=body)
    assert (answer.status_code, list(answer.json()["errors"])) == (422, ["ipAddress"])


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "web-1", "7up.example.org", "db.example.org.", "h2"])
def test_addresses_are_taken(team: Service, address: str) -> None:
    body = {"name": "n", "ipAddress": address}
    assert team.call("POST", "/api/v3/servers", token=OLGA, json=body).json()["ipAddress"] == address


def test_what_a_query_takes_is_said_in_plain_words(unchanged_team: Service) -> None:
    for address, words in (
        ("/people/alice/offboard?preview=maybe", "preview takes true or false."),
        ("/people/alice/offboard?preview=", "preview takes true or false."),
    ):
        answer = unchanged_team.call("POST", BASE + address, token=OLGA, json={})
        assert (answer.status_code, answer.json()["error"]["message"]) == (422, words)


def test_nobody_is_called_by_the_word_for_oneself(unchanged_team: Service) -> None:
    """Such a user could be neither seen, changed nor removed at /people/me."""
    asked = {"user": {"name": "me", "password": "a long password"}}
    answer = unchanged_team.call("POST", "/v3/users", headers={"X-Auth-Token": OLGA}, json=asked)
    assert answer.status_code == 400
    assert "stands for whoever asks" in answer.text
    with pytest.raises(Refusal) as refused:
        unchanged_team.apply(f'{TEAM}[[users]]\nname = "me"\nrole = "member"\n')
    assert "stands for whoever asks" in refused.value.message


def test_no_workspace_is_one_blank_from_another(unchanged_team: Service) -> None:
    """A blank behind a name in the file made a second workspace, and everything in it anew."""
    for name in ("acme ", " acme", "acme\u00a0"):
        with pytest.raises(Refusal) as refused:
            unchanged_team.apply(f'[workspace]\nname = "{name}"\n')
        assert "blank" in refused.value.message
