"""Names in addresses: each reads as one name, can be asked for by itself, and looks different from every other."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select

from keyrack.errors import Refusal
from keyrack.store import tables
from keyrack.store.hosts import servers
from keyrack.store.people import tokens
from tests.core.keys_for_tests import fresh_line
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
def test_a_path_that_is_not_utf_8_creates_nothing(unchanged_team: Service, path: str, name: str) -> None:
    answer = unchanged_team.call("PUT", BASE + path.format(name), token=OLGA, json=MADE[path])
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "path-malformed")


@pytest.mark.parametrize("path", ["/people/{}", "/groups/{}", "/request-rules/{}"])
@pytest.mark.parametrize("name", ["olga%20", "%20olga", "olga%C2%A0", "%E3%80%80olga", "..", "%2E"])
def test_a_name_that_reads_like_another_or_like_a_folder_is_refused(
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
def test_iam_refuses_such_a_name_too(unchanged_team: Service, name: str) -> None:
    answer = unchanged_team.call(
        "POST", "/v3/users", headers={"X-Auth-Token": OLGA}, json={"user": {"name": name, "password": "a password"}}
    )
    assert answer.status_code == 400


@pytest.mark.parametrize("name", ["Ada Lovelace", "o'hara", "a@example.org", "žofie", "李", "x.y", "..."])
def test_names_of_people_in_any_script_are_accepted(team: Service, name: str) -> None:
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


def test_a_wrong_query_parameter_is_refused_in_plain_words(unchanged_team: Service) -> None:
    for address, words in (
        ("/people/alice/offboard?preview=maybe", "preview takes true or false."),
        ("/people/alice/offboard?preview=", "preview takes true or false."),
    ):
        answer = unchanged_team.call("POST", BASE + address, token=OLGA, json={})
        assert (answer.status_code, answer.json()["error"]["message"]) == (422, words)


def test_no_user_is_named_me(unchanged_team: Service) -> None:
    """Such a user could be neither seen, changed nor removed at /people/me."""
    asked = {"user": {"name": "me", "password": "a long password"}}
    answer = unchanged_team.call("POST", "/v3/users", headers={"X-Auth-Token": OLGA}, json=asked)
    assert answer.status_code == 400
    assert "stands for whoever asks" in answer.text
    with pytest.raises(Refusal) as refused:
        unchanged_team.apply(f'{TEAM}[[users]]\nname = "me"\nrole = "member"\n')
    assert "stands for whoever asks" in refused.value.message


def test_blanks_around_a_workspaces_name_are_ignored(unchanged_team: Service) -> None:
    """A blank behind a name in the file made a second workspace, and everything in it anew."""
    for name in ("acme ", " acme", "acme\u00a0"):
        with pytest.raises(Refusal) as refused:
            unchanged_team.apply(f'[workspace]\nname = "{name}"\n')
        assert "blank" in refused.value.message


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/v3/servers", {"ipAddress": "192.0.2.9"}),
        ("PATCH", "/api/v3/servers/1/settings/meta", {}),
        ("PATCH", BASE + "/servers/1", {}),
    ],
)
@pytest.mark.parametrize("name", ["7", "01", "2027", "20261231235959"])
def test_a_server_name_that_reads_like_an_id_is_refused(
    unchanged_team: Service, method: str, path: str, body: dict[str, Any], name: str
) -> None:
    answer = unchanged_team.call(method, path, token=OLGA, json={**body, "name": name})
    assert answer.status_code == 422
    assert "A name of digits alone is read as a server's id; give it a letter, as in web-13." in answer.text


@pytest.mark.parametrize("name", [".", ".."])
def test_a_server_name_that_reads_like_a_folder_is_refused(team: Service, name: str) -> None:
    """One that has such a name from before is found by its id, and may be called otherwise."""
    for method, path, body in (
        ("POST", "/api/v3/servers", {"ipAddress": "192.0.2.9"}),
        ("PATCH", BASE + "/servers/1", {}),
    ):
        answer = team.call(method, path, token=OLGA, json={**body, "name": name})
        assert answer.status_code == 422
        assert f"In addresses {name} is a folder, and names no server" in answer.text
    team.instance.database.write(lambda connection: servers.change(connection, 1, {"name": name}))
    assert team.call("GET", BASE + "/servers/1", token=OLGA).json()["name"] == name
    kept = team.call("PATCH", BASE + "/servers/1", token=OLGA, json={"name": name, "address": "192.0.2.50"})
    assert kept.status_code == 200
    renamed = team.call("PATCH", BASE + "/servers/1", token=OLGA, json={"name": "web-1"})
    assert (renamed.status_code, renamed.json()["name"]) == (200, "web-1")


def test_a_number_is_an_id_only_as_ids_are_written(team: Service) -> None:
    """A server may have such a name from before: what is meant for it must not go to the server 1."""
    made = team.call("PUT", BASE + "/servers/other", token=OLGA, json={"address": "192.0.2.8"}).json()["id"]
    team.instance.database.write(lambda connection: servers.change(connection, made, {"name": "01"}))
    seen = team.call("GET", BASE + "/servers/01", token=OLGA)
    assert (seen.status_code, seen.json()["id"]) == (200, made)
    many = {"label": "x", "username": "root", "publicKey": fresh_line("x"), "servers": ["01"]}
    given = team.call("POST", BASE + "/credentials", token=OLGA, json=many)
    assert given.status_code in (200, 201)
    assert team.call("GET", BASE + "/servers/1/credentials?search=x", token=OLGA).json()["total"] == 0


@pytest.mark.parametrize("name", ["01", "007"])
def test_digits_that_are_no_id_change_no_server(unchanged_team: Service, name: str) -> None:
    answer = unchanged_team.call("PUT", f"{BASE}/servers/{name}", token=OLGA, json={"address": "192.0.2.77"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "name")
    assert unchanged_team.call("GET", BASE + "/servers/1", token=OLGA).json()["address"] != "192.0.2.77"


WITH_BLANKS = ["web-1 ", " web-1", "web-1\u00a0", "web  1", "web\u00a01", "web\u30001"]


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/api/v3/servers", {"ipAddress": "192.0.2.9"}, "name"),
        ("PATCH", "/api/v3/servers/1/settings/meta", {}, "name"),
        ("PATCH", BASE + "/servers/1", {}, "name"),
        ("POST", BASE + "/tokens", {"scopes": ["*"]}, "name"),
        ("PUT", BASE + "/groups/{}", {"members": []}, None),
        ("PUT", BASE + "/people/{}", {}, None),
        ("PUT", BASE + "/servers/{}", {"address": "192.0.2.9"}, None),
    ],
)
@pytest.mark.parametrize("name", WITH_BLANKS)
def test_a_new_name_that_differs_by_blanks_alone_is_refused(
    unchanged_team: Service, method: str, path: str, body: dict[str, Any], field: str | None, name: str
) -> None:
    named = body if field is None else {**body, field: name}
    answer = unchanged_team.call(method, path.format(quote(name)), token=OLGA, json=named)
    assert answer.status_code == 422, answer.text
    assert "blank" in answer.text


@pytest.mark.parametrize("name", WITH_BLANKS)
def test_a_name_in_a_file_that_differs_by_blanks_alone_is_refused(unchanged_team: Service, name: str) -> None:
    token = 'tokens = [{ name = "laptop", token = "token-of-alice"'
    for text in (
        f'{TEAM}[[projects]]\nname = "{name}"\n',
        f'{TEAM}[[servers]]\nname = "{name}"\naddress = "192.0.2.9"\n',
        TEAM.replace(token, token.replace("laptop", name)),
    ):
        assert text != TEAM
        with pytest.raises(Refusal) as refused:
            unchanged_team.apply(text)
        assert "blank" in refused.value.message


@pytest.mark.parametrize("name", WITH_BLANKS)
def test_a_server_with_a_name_that_is_refused_now_is_still_reached(team: Service, name: str) -> None:
    made = team.call("PUT", BASE + "/servers/other", token=OLGA, json={"address": "192.0.2.8"}).json()["id"]
    team.instance.database.write(lambda connection: servers.change(connection, made, {"name": name}))
    seen = team.call("GET", f"{BASE}/servers/{quote(name)}", token=OLGA)
    assert (seen.status_code, seen.json()["id"]) == (200, made)
    moved = team.call("PUT", f"{BASE}/servers/{quote(name)}", token=OLGA, json={"address": "192.0.2.18"})
    assert (moved.status_code, moved.json()["id"]) == (200, made)
    text = f'{TEAM}[[servers]]\nname = "{name}"\naddress = "192.0.2.19"\n'
    assert team.apply(text)
    assert team.call("GET", f"{BASE}/servers/{made}", token=OLGA).json()["address"] == "192.0.2.19"
    renamed = team.call("PATCH", f"{BASE}/servers/{made}", token=OLGA, json={"name": "web 1"})
    assert renamed.status_code == 200


def test_a_token_of_before_keeps_its_name(team: Service) -> None:
    text, held = TEAM.replace('name = "laptop"', 'name = "laptop "'), 'token = "token-of-alice", scopes = ["*"]'
    laptops = select(tables.tokens.c.id).where(tables.tokens.c.name == "laptop")
    numbers = team.instance.database.read(lambda connection: list(connection.scalars(laptops)))
    for number in numbers:
        team.instance.database.write(partial(tokens.change_token, token_id=number, values={"name": "laptop "}))
    assert team.apply(text) == []
    assert team.apply(text.replace(held, held.replace("*", "servers:read")))
