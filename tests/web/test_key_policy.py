"""The policy of keys by Keyrack's own API: shown, tried, set where nobody else did meanwhile, and held by every API."""

from __future__ import annotations

import time
from pathlib import Path

import httpx2

from keyrack.core.keys import kept_policies
from tests.cli.test_serve import serving
from tests.core.keys_for_tests import fresh_line, records
from tests.plain_http import PLAIN
from tests.postgres import Cluster
from tests.services import TEAM, Service, running, settings_for
from tests.waiting import wait_until
from tests.web.test_conditions import ask
from tests.web.test_native import call

RSA = next(one["line"] for one in records("keys_valid.jsonl") if one["name"] == "rsa-2048-e35")
OLGA = "token-of-olga"


def test_a_policy_is_tried_set_and_obeyed_by_every_api(team: Service) -> None:
    call(team, "POST", "/people/me/keys", {"title": "old", "public_key": RSA}, token="token-of-alice", status=201)
    now = call(team, "GET", "/key-policy", token="token-of-alice")
    assert (now["set_key_types"], now["set_at"], now["rsa_minimum_bits"]) == (None, None, 2048)
    (hit,) = call(team, "GET", "/key-policy/hits?key_types=ssh-ed25519,ssh-rsa&rsa_minimum_bits=3072")["items"]
    assert (hit["user"], hit["place"], hit["title"]) == ("alice", None, "old")
    assert call(team, "GET", "/key-policy/hits")["items"] == [], "as it holds now"
    call(team, "GET", "/key-policy/hits", token="token-of-alice", status=403)
    call(team, "PATCH", "/key-policy", {"rsa_minimum_bits": 3072}, token="token-of-alice", status=403)
    call(team, "PATCH", "/key-policy", {"key_types": ["ssh-dss"]}, status=422)
    made = call(team, "PATCH", "/key-policy", {"key_types": ["ssh-ed25519"]})
    assert (made["key_types"], made["set_by"], made["set_rsa_minimum_bits"]) == (["ssh-ed25519"], "olga", None)
    # What is left out is as it holds now; any is as the service was started.
    assert len(call(team, "GET", "/key-policy/hits?rsa_minimum_bits=any")["items"]) == 1
    assert call(team, "GET", "/key-policy/hits?key_types=any")["items"] == []
    for bits in ("0", "much", "20000"):
        wrong = call(team, "GET", f"/key-policy/hits?rsa_minimum_bits={bits}", status=422)
        assert wrong["error"]["field"] == "rsa_minimum_bits"
    for types in ("", "ed25519", "ssh-rsa,"):
        wrong = call(team, "GET", f"/key-policy/hits?key_types={types}", status=422)
        assert wrong["error"]["field"] == "key_types"
    body = {"label": "laptop", "username": "deploy", "publicKey": RSA}
    refused = team.call("POST", "/api/v3/servers/1/ssh/credentials", token=OLGA, json=body)
    assert refused.status_code == 422
    assert "not accepted here" in refused.text
    taken = team.call("POST", "/api/v3/servers/1/ssh/credentials", token=OLGA, json={**body, "publicKey": fresh_line()})
    assert taken.status_code == 200, taken.text
    assert call(team, "PATCH", "/key-policy", {"key_types": None})["set_key_types"] is None


def test_a_key_policy_is_not_set_over_a_change_of_somebody_else(team: Service) -> None:
    seen = ask(team, "GET", "/key-policy").headers["ETag"]
    first = ask(team, "PATCH", "/key-policy", {"rsa_minimum_bits": 3072}, If_Match=seen)
    assert first.status_code == 200, first.text
    late = ask(team, "PATCH", "/key-policy", {"rsa_minimum_bits": 2048}, If_Match=seen)
    assert (late.status_code, late.json()["error"]["code"]) == (412, "changed")
    # It holds at once for this process, though the change was committed behind the function that made it.
    refused = team.call("POST", "/api/keyrack/v1/people/me/keys", token=OLGA, json={"title": "x", "public_key": RSA})
    assert refused.json()["error"]["code"] == "key-too-short"


def test_a_second_program_on_the_same_database_obeys_within_a_second(
    cluster: Cluster, migrated_template: str, tmp_path: Path
) -> None:
    """Each sets a policy that the other, a process of its own, holds to."""
    url, folder = cluster.create_database(migrated_template), tmp_path / "data"
    rsa = {"title": "old", "public_key": RSA}
    with running(settings_for(folder, url)) as first:
        first.apply(TEAM)
        with serving(folder, url) as (_, other), httpx2.Client(base_url=other, verify=PLAIN, timeout=60) as second:
            second.headers["Authorization"] = f"Bearer {OLGA}"
            keys, policy = "/api/keyrack/v1/people/me/keys", "/api/keyrack/v1/key-policy"
            made = second.post(keys, json=rsa)
            assert made.status_code == 201, made.text
            assert second.delete(f"{keys}/{made.json()['id']}").status_code == 204
            call(first, "PATCH", "/key-policy", {"key_types": ["ssh-ed25519"]})
            time.sleep(kept_policies.FRESH_SECONDS)
            refused = second.post(keys, json=rsa)
            assert refused.status_code == 422
            assert refused.json()["error"]["code"] == "key-type-not-allowed"
            assert second.get(policy).json()["set_by"] == "olga"
            assert second.patch(policy, json={"key_types": None}).status_code == 200
            wait_until(
                lambda: first.call("POST", keys, token=OLGA, json=rsa).status_code == 201, "the looser policy here"
            )
    cluster.drop_database(url)
