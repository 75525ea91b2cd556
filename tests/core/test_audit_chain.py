"""The audit log shows any change to it: in the database, in an export, and to a host that saw what it was."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, select, update

from keyrack.agent.service.witness import Witness
from keyrack.agent.state import StateFolder
from keyrack.core.audit import chain, events, retention, verify
from keyrack.core.hosts import contacts, enrolment, servers
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials
from keyrack.core.people import users
from keyrack.protocol import audit_tree
from keyrack.store import audit_log
from keyrack.store.audit_tables import audit_checkpoints, audit_leaves
from keyrack.store.tables import events as held
from tests.core.altering import Inside, Undo
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line

ALTERATIONS = 1000 if os.environ.get("KEYRACK_LONG") else 40
OPERATOR = users.system_actor(channel="cli")


def chained(instance: Instance) -> None:
    while chain.extend(instance):
        pass


def outcome(instance: Instance) -> verify.Outcome:
    return verify.database(instance, OPERATOR)


def alter(instance: Instance, statement: Any) -> None:
    """Past Keyrack."""
    instance.database.write(lambda connection: connection.execute(statement))


@pytest.fixture
def log(team: Team) -> Team:
    """A log of some hundred records, in two checkpoints' time."""
    for number in range(30):
        servers.create(team.instance, team.owner, name=f"db-{number}", address="192.0.2.9")
    chained(team.instance)
    return team


def rows(instance: Instance) -> list[dict[str, Any]]:
    found = instance.database.read(lambda connection: connection.execute(select(held)).mappings().all())
    return sorted((dict(row) for row in found), key=lambda row: row["id"])


def altering(chance: random.Random, everything: list[dict[str, Any]]) -> tuple[list[Any], set[str]]:
    """Statements past Keyrack, and words of which one must name what they did."""
    one, other = chance.sample(everything[:-1], 2)
    this = held.c.id == one["id"]
    kind = chance.choice(("edit", "delete", "swap", "move", "cut", "truncate", "leaves", "swap leaves", "checkpoints"))
    first = chance.randrange(len(everything) - 1)
    if kind == "edit":
        edits = {"summary": "nothing", "actor_name": "alice", "at": one["at"] + timedelta(seconds=1), "level": "x"}
        column = chance.choice(sorted(edits))
        return [update(held).where(this).values({column: edits[column]})], {f"event {one['id']}, "}
    if kind == "delete":
        return [delete(held).where(this)], {f"event {one['id']}, "}
    if kind == "swap":
        pairs = ((one, other), (other, one))
        values = [(a["id"], {name: value for name, value in b.items() if name != "id"}) for a, b in pairs]
        named = {f"event {min(one['id'], other['id'])}, "}
        return [update(held).where(held.c.id == number).values(given) for number, given in values], named
    if kind == "move":
        return [update(held).where(this).values(id=one["id"] + 10**6)], {f"event {one['id']}, "}
    if kind == "cut":
        return [delete(held).where(held.c.id >= one["id"])], {f"event {one['id']}, "}
    if kind == "truncate":
        return [delete(held)], {f"event {everything[0]['id']}, "}
    if kind == "leaves":
        return [delete(audit_leaves).where(audit_leaves.c.position >= first)], {f"place {first} ", "checkpoints are"}
    if kind == "swap leaves":
        moves = ((first, 10**9), (first + 1, first), (10**9, first + 1))
        places = audit_leaves.c.position
        return [update(audit_leaves).where(places == a).values(position=b) for a, b in moves], {f"place {first},"}
    return [delete(audit_checkpoints)], {"checkpoints are missing"}


@pytest.mark.timeout(3600 if os.environ.get("KEYRACK_LONG") else 300)
def test_each_alteration_of_a_record_is_named(log: Team) -> None:
    instance = log.instance
    assert outcome(instance).problem == ""
    everything = rows(instance)
    seed = int(os.environ.get("KEYRACK_SEED", random.randrange(10**6)))
    chance = random.Random(seed)
    for _ in range(ALTERATIONS if instance.database.dialect == "sqlite" else ALTERATIONS // 5):
        statements, words = altering(chance, everything)
        found: list[str] = []

        def command(connection: Connection, statements: list[Any] = statements, found: list[str] = found) -> None:
            for statement in statements:
                connection.execute(statement)
            inside = replace(instance, database=Inside(instance, connection))  # type: ignore[arg-type]
            found.append(outcome(inside).problem)
            raise Undo

        with pytest.raises(Undo):
            instance.database.write(command)
        assert any(word in found[0] for word in words), f"{words} are not in {found} (KEYRACK_SEED={seed})"
    assert outcome(instance).problem == ""


def test_an_export_is_verified_without_the_database(log: Team) -> None:
    instance = log.instance
    lines = list(verify.export(instance, OPERATOR))
    by_key = lambda text, signature: instance.key.signed(text, signature, audit_tree.NAMESPACE)  # noqa: E731
    fine = verify.exported(lines, by_key)
    assert fine.problem == ""
    assert fine.records == json.loads(lines[0])["records"] == len(rows(instance))

    def problem(changed: list[str]) -> str:
        return verify.exported(changed, by_key).problem

    altered = json.loads(lines[5])
    altered["record"]["summary"] = "nothing"
    assert (
        problem([*lines[:5], json.dumps(altered), *lines[6:]])
        == f"the record at place 4, event {altered['event']}, was altered"
    )
    assert problem([*lines[:5], *lines[6:]]) == "the record at place 4 is missing"
    assert problem([*lines[:5], lines[6], lines[5], *lines[7:]]) == "the record at place 4 was reordered"
    assert problem([*lines[:5], json.dumps(altered), *lines[5:]]) == "a record was inserted at place 4"
    assert "missing" in problem(lines[:-1])
    assert "missing" in problem(lines[:-3])
    forged = {"block": lines[-2], "signature": "x"}
    assert "not signed" in problem([*lines[:-2], json.dumps(forged), lines[-1]])
    assert problem([*lines[:5], "{", *lines[5:]]) == "line 6 is not of an export"
    assert verify.exported(lines, lambda text, signature: False).problem != ""


def test_events_that_were_kept_long_enough_are_not_missed(log: Team) -> None:
    instance = log.instance
    before = len(rows(instance))
    later = instance.now() + timedelta(days=5000)
    object.__setattr__(instance, "now", lambda: later)
    retention.tidy(instance, users.system_actor())
    chained(instance)
    found = outcome(instance)
    assert found.problem == ""
    assert found.pruned == before
    lines = list(verify.export(instance, OPERATOR))
    assert (
        verify.exported(lines, lambda text, signature: instance.key.signed(text, signature, audit_tree.NAMESPACE))
        == found
    )
    # The event that says so cannot be made to say more.
    (told,) = [row for row in rows(instance) if row["action"] == "instance:tidy"]
    alter(instance, update(held).where(held.c.id == told["id"]).values(details={"events_until": 10**6}))
    assert outcome(instance).problem != ""


def test_what_was_signed_is_what_the_next_checkpoint_goes_on_from(log: Team) -> None:
    """The service adds nothing to a chain that others rewrote, and says so."""
    instance = log.instance
    first = instance.database.read(audit_log.newest)
    alter(instance, delete(audit_leaves).where(audit_leaves.c.position == 3))
    servers.create(instance, log.owner, name="later", address="192.0.2.9")
    chain.extend(instance)
    assert instance.database.read(audit_log.newest) == first
    found = events.find(instance, log.owner, limit=5).items
    assert any(event.level == "alarm" and "chain of the audit log is broken" in event.summary for event in found)


def test_proofs_hold_for_whoever_checks_them_himself(log: Team) -> None:
    instance = log.instance
    newest = chain.checkpoint(instance, log.owner)
    checkpoint = audit_tree.read(newest.text)
    for event in events.find(instance, log.owner, limit=40).items:
        proof = chain.prove(instance, log.owner, event.id)
        hashed = audit_tree.leaf(proof.record.encode())
        assert audit_tree.includes(hashed, proof.position, checkpoint.size, proof.path, checkpoint.root)
        assert json.loads(proof.record)["summary"] == event.summary
    servers.create(instance, log.owner, name="later", address="192.0.2.9")
    chained(instance)
    later = audit_tree.read(chain.checkpoint(instance, log.owner).text)
    path = chain.consistency(instance, log.owner, checkpoint.size, later.size)
    assert audit_tree.extends(checkpoint.size, checkpoint.root, later.size, later.root, path)


@pytest.fixture
def witness(log: Team, tmp_path: Path) -> Witness:
    """A host's memory of the log, after one checkpoint."""
    folder = StateFolder.open(str(tmp_path / "state"), create=True)
    found = Witness(folder, log.instance.key.public_line)
    assert not found.take(handed(log, found))
    assert found.size == len(rows(log.instance))
    return found


def handed(log: Team, witness: Witness) -> Any:
    """What a host is handed beside a document."""
    return chain.for_hosts(log.instance, {witness.size}).get(witness.size)


def test_a_host_takes_what_goes_on_and_refuses_a_log_that_was_rewritten(log: Team, witness: Witness) -> None:
    """By the service itself: the signing key is right, the history is another."""
    instance = log.instance
    size = witness.size
    servers.create(instance, log.owner, name="later", address="192.0.2.9")
    chained(instance)
    assert not witness.take(handed(log, witness))
    assert witness.size == size + 1
    alter(instance, update(held).where(held.c.id == 3).values(summary="nothing happened"))
    instance.database.write(audit_log.forget)
    chained(instance)
    assert outcome(instance).problem == "", "within itself it is whole"
    assert witness.take(handed(log, witness))
    assert "are not those that were there before" in witness.problem
    servers.create(instance, log.owner, name="and-later", address="192.0.2.9")
    chained(instance)
    assert not witness.take(handed(log, witness)), "said once"
    assert witness.problem
    assert witness.size == size + 1, "and what it saw stays"
    # As after a restart.
    again = Witness(witness._state, instance.key.public_line)
    assert again.size == size + 1


def test_a_host_refuses_a_shorter_log_and_one_that_another_signed(log: Team, witness: Witness) -> None:
    instance = log.instance
    told = handed(log, witness)
    last = rows(instance)[-1]["id"]
    alter(instance, delete(held).where(held.c.id == last))
    instance.database.write(audit_log.forget)
    chained(instance)
    assert witness.take(handed(log, witness))
    assert "records and has" in witness.problem
    assert witness.take({**told, "text": told["text"].replace("size", "Size")})
    assert "signature" in witness.problem
    for strange in ("x", {}, {"text": 1, "signature": 2}, {**told, "proof": ["zz"]}, {**told, "proof": 5}):
        witness.take(strange)
        assert witness.problem


def test_a_checkpoint_comes_with_the_document(log: Team, tmp_path: Path) -> None:
    instance = log.instance
    token = servers.invite(instance, log.owner, log.server.id)
    enrolled = enrolment.enrol(instance, token, {}, address="203.0.113.1")
    credentials.add(instance, log.owner, log.server.id, label="laptop", username="deploy", public_key=fresh_line())
    chained(instance)
    secret_hash = instance.key.hash_token(enrolled.secret)
    (old, new) = contacts.answer(
        instance, [contacts.Contact(log.server.id, secret_hash, 0, "", audit=size) for size in (-1, 0)]
    )
    assert isinstance(old, contacts.Answer)
    assert isinstance(new, contacts.Answer)
    assert "checkpoint" not in json.loads(old.body), "an agent from before gets what it knows"
    checkpoint = json.loads(new.body)["checkpoint"]
    found = Witness(StateFolder.open(str(tmp_path / "state"), create=True), instance.key.public_line)
    assert not found.take(checkpoint)
    assert found.size == audit_tree.read(checkpoint["text"]).size


def test_the_last_checkpoint_is_kept_in_a_file(log: Team, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    servers.create(log.instance, log.owner, name="later", address="192.0.2.9")
    chain.extend(log.instance, (chain.file_keeper(path),))
    kept = json.loads(path.read_text())
    assert log.instance.key.signed(kept["checkpoint"], kept["signature"], audit_tree.NAMESPACE)


def test_a_kept_checkpoint_tells_a_log_that_was_rewritten_from_the_one_it_was(log: Team, tmp_path: Path) -> None:
    """By whoever holds the signing key: within itself the new log is whole, in the database and in an export."""
    instance, path = log.instance, tmp_path / "checkpoint"
    servers.create(instance, log.owner, name="later", address="192.0.2.9")
    chain.extend(instance, (chain.file_keeper(path),))
    kept = json.loads(path.read_text())
    seen = (audit_log.Signed(kept["checkpoint"], kept["signature"]),)
    by_key = partial(instance.key.signed, namespace=audit_tree.NAMESPACE)

    def problems() -> tuple[str, str]:
        lines = list(verify.export(instance, OPERATOR))
        found = verify.database(instance, OPERATOR, witnesses=seen), verify.exported(lines, by_key, witnesses=seen)
        return found[0].problem, found[1].problem

    servers.create(instance, log.owner, name="and-later", address="192.0.2.9")
    chained(instance)
    assert problems() == ("", "")
    strange = (replace(seen[0], text=kept["checkpoint"].replace("size", "Size")),)
    assert "not signed" in verify.database(instance, OPERATOR, witnesses=strange).problem

    size = audit_tree.read(kept["checkpoint"]).size
    alter(instance, update(held).where(held.c.id == 3).values(summary="nothing happened"))
    instance.database.write(audit_log.forget)
    chained(instance)
    assert outcome(instance).problem == ""
    assert problems() == (f"the first {size} records are not those that were seen by a witness",) * 2
    alter(instance, delete(held).where(held.c.id > 20))
    instance.database.write(audit_log.forget)
    chained(instance)
    assert all(f"there were {size}" in problem for problem in problems())
