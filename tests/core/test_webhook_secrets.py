"""A webhook whose secret was changed in the database signs nothing, says so, and takes another one."""

from __future__ import annotations

from keyrack.core.audit import webhooks
from keyrack.core.keys.key_sync import HttpAnswer
from keyrack.store import tables
from tests.core.conftest import Team

URL = "https://alerts.example.org/keyrack"
SECRET = "sixteen characters and more"


def test_a_secret_that_others_changed(team: Team) -> None:
    made = webhooks.create(team.instance, team.owner, url=URL, secret=SECRET).webhook
    webhooks.test(team.instance, team.owner, made.id)
    change = tables.webhooks.update().values(encrypted_secret=b"\0" * 60)
    team.instance.database.write(lambda connection: connection.execute(change))
    sent: list[bytes] = []

    def post(url: str, headers: object, body: bytes) -> HttpAnswer:
        sent.append(body)
        return HttpAnswer(200, {}, b"")

    (due,) = webhooks.claim(team.instance)
    assert webhooks.send(team.instance, due, post) == 0
    assert sent == []
    (delivery,) = webhooks.deliveries(team.instance, team.owner, made.id)
    assert "changed in the database" in delivery.words
    assert webhooks.put(team.instance, team.owner, url=URL, secret=SECRET).secret == SECRET
    (held,) = webhooks.find(team.instance, team.owner)
    assert held.id == made.id
    assert team.instance.key.decrypt(held.encrypted_secret, f"webhook {held.workspace_id} {URL}") == SECRET
