"""A key that was revoked everywhere is refused at every client in that API's own words, until an admin lifts it."""

from __future__ import annotations

from keyrack.ssh.public_key import parse
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.test_codearts_keys import add as add_codearts_key
from tests.web.test_codearts_keys import call as call_codearts
from tests.web.test_native import call
from tests.web.test_runcloud import add as add_credential


def test_each_api_refuses_a_revoked_key_in_its_own_shape(team: Service) -> None:
    line = fresh_line()
    fingerprint = parse(line).fingerprint
    team.apply('[workspace]\nname = "acme"\n[[repositories]]\nid = 1\npath = "acme/one"\n')
    assert add_credential(team, publicKey=line).status_code == 200
    call(team, "POST", "/keys/revoke", {"fingerprint": fingerprint, "reason": "laptop stolen"})

    runcloud = add_credential(team, publicKey=line)
    assert runcloud.status_code == 422
    assert "revoked everywhere" in runcloud.json()["errors"]["publicKey"][0]
    codearts = add_codearts_key(team, title="a", key=line)
    assert codearts.status_code == 400
    assert set(codearts.json()) == {"error_code", "error_msg"}
    assert "revoked everywhere" in codearts.json()["error_msg"]
    deploy = {"application": "ci", "can_push": False, "key": line, "key_title": "ci"}
    refused = call_codearts(team, "POST", "/v2/repositories/1/deploy-keys", "token-of-olga", json=deploy)
    assert refused.status_code == 400
    assert "revoked everywhere" in refused.text

    (noted,) = call(team, "GET", "/keys/revoked")["items"]
    assert (noted["fingerprint"], noted["revoked_by"], noted["reason"]) == (fingerprint, "olga", "laptop stolen")
    call(team, "POST", "/keys/lift", {"fingerprint": fingerprint}, token="token-of-alice", status=403)
    assert call(team, "POST", "/keys/lift", {"fingerprint": fingerprint}) == noted
    call(team, "POST", "/keys/lift", {"fingerprint": fingerprint}, status=404)
    assert add_credential(team, publicKey=line).status_code == 200


def test_receipts_say_that_a_fingerprint_is_needed(unchanged_team: Service) -> None:
    for query in ("", "?fingerprint=", "?fingerprint=SHA256:short", "?fingerprint=web-1"):
        answer = unchanged_team.call("GET", f"/api/keyrack/v1/keys/receipts{query}", token="token-of-olga")
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, "fingerprint"), query
    # The description says so, too.
    (asked,) = unchanged_team.call("GET", "/openapi.json").json()["paths"]["/api/keyrack/v1/keys/receipts"]["get"][
        "parameters"
    ]
    assert (asked["name"], asked["required"]) == ("fingerprint", True)
