"""The audit log shows any change to it: in the database, in an export, and to a host that saw what it was."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, text, update

from keyrack import app
from keyrack.agent.service.witness import Witness
from keyrack.agent.state import StateFolder
from keyrack.core.audit import chain, events, export, retention, verify_export, verify_log
from keyrack.core.hosts import contacts, enrolment, servers
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials
from keyrack.core.people import actors
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, EventFilter
from keyrack.protocol import audit_tree
from keyrack.store.audit import audit_log
from keyrack.store.audit import events as stored_events
from keyrack.store.sealing import event_seals
from keyrack.store.tables import audit_checkpoints, audit_leaves, audit_nodes
from keyrack.store.tables import events as held
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.core.set_back import to_before
from tests.core.undone_transaction import DatabaseInTransaction, Undo
from tests.statements import prepared_statements

ALTERATIONS = 1000 if os.environ.get("KEYRACK_LONG") else 40
OPERATOR = actors.system_actor(channel="cli")


def chained(instance: Instance) -> None:
    while chain.extend(instance):
        pass


def outcome(instance: Instance) -> verify_export.Verification:
    return verify_log.verify(instance, OPERATOR)


def alter(instance: Instance, statement: Any) -> None:
    """Past Keyrack."""
    instance.database.write(lambda connection: connection.execute(statement))


def rewrite(instance: Instance, statement: Any) -> None:
    """By whoever holds the instance's key, beside a service that was started since: nothing of it is unsealed."""

    def command(connection: Connection) -> None:
        connection.execute(statement)
        for row in connection.execute(select(held)).mappings().all():
            seal = event_seals.of(connection, dict(row))
            connection.execute(update(held).where(held.c.id == row["id"]).values(seal=seal))
        audit_log.forget(connection)

    instance.database.write(command)
    instance.checkpoints.newest = None
    chained(instance)


def alarms(instance: Instance, owner: Actor) -> list[str]:
    return [one.summary for one in events.find(instance, owner, limit=20).items if one.level == "alarm"]


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
            inside = replace(instance, database=DatabaseInTransaction(instance, connection))  # type: ignore[arg-type]
            found.append(outcome(inside).problem)
            raise Undo

        with pytest.raises(Undo):
            instance.database.write(command)
        assert any(word in found[0] for word in words), f"{words} are not in {found} (KEYRACK_SEED={seed})"
    assert outcome(instance).problem == ""


def test_an_export_is_verified_without_the_database(log: Team) -> None:
    instance = log.instance
    lines = list(export.lines(instance, OPERATOR))
    by_key = lambda text, signature: instance.key.signed(text, signature, audit_tree.NAMESPACE)  # noqa: E731
    fine = verify_export.verify(lines, by_key)
    assert fine.problem == ""
    assert fine.records == json.loads(lines[0])["records"] == len(rows(instance))

    def problem(changed: list[str]) -> str:
        return verify_export.verify(changed, by_key).problem

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
    assert verify_export.verify(lines, lambda text, signature: False).problem != ""


def test_any_change_to_an_export_is_named(log: Team) -> None:
    """Each line of an export is looked at, and of a line each field."""
    instance = log.instance
    common = {"at": instance.now(), "action": "servers:write", "outcome": "done", "reason": "", "level": "info"}
    entry = {"target_kind": "server", "target_id": 1, "server_id": 1, "summary": "Something", "details": {}}
    instance.database.write(lambda connection: stored_events.add_many(connection, log.owner, common, [entry] * 500))
    chained(instance)
    lines = list(export.lines(instance, OPERATOR))
    head, block = lines[0], verify_export.BLOCK
    first, first_hashes, second = lines[1 : block + 1], lines[block + 1], lines[block + 2 : 2 * block + 2]
    rest = lines[block + 2 :]
    by_key = partial(instance.key.signed, namespace=audit_tree.NAMESPACE)

    def problem(changed: list[str]) -> str:
        return verify_export.verify(changed, by_key, key=instance.key.public_line).problem

    def edited(line: str, **fields: Any) -> str:
        return json.dumps({**json.loads(line), **fields})

    assert problem(lines) == ""
    whole = [head, *first, first_hashes]
    assert problem([*whole[:8], first[3], *whole[8:], *rest]) == "a record was inserted at place 7"
    assert problem([*whole[:8], first[30], *whole[8:], *rest]) == "a record was inserted at place 7"
    assert problem([*whole[:8], first[3], *whole[9:], *rest]) == "the record at place 7 is missing"
    swapped = [head, *first[:7], second[9], *first[8:], first_hashes, *second[:9], first[7], *rest[10:]]
    assert problem(swapped).startswith(f"the record at place 7 was reordered or is missing: that of place {block + 9}")
    number = json.loads(first[7])["event"]
    emptied = [*whole[:8], edited(first[7], record=None), *whole[9:], *rest]
    assert problem(emptied) == f"the record at place 7, event {number}, is missing, and was not deleted for its age"
    assert problem([*whole[:8], edited(first[7], event=number + 900), *whole[9:], *rest]).endswith("was altered")
    assert problem([*whole[:8], edited(first[7], place=9), *whole[9:], *rest]).endswith("was altered")
    assert problem([*whole[:8], edited(first[7], note="x"), *whole[9:], *rest]) == "line 9 is not of an export"
    twice = first[7].replace('"record":', '"record":{},"record":', 1)
    assert problem([*whole[:8], twice, *whole[9:], *rest]) == "line 9 is not of an export"
    assert problem([*whole, *whole[1:], *rest]) == f"records from place 0 on were inserted once more at place {block}"
    assert "records from place 0 on are missing or were reordered" in problem([head, *rest])
    assert problem([head, *first, *rest]) == "the signed hashes of the records from place 0 on are missing"
    assert problem([*lines[:-2], lines[-1]]).startswith("the signed hashes of the records from place")
    assert problem([*lines[:-1], first[0], lines[-1]]).startswith("a record was inserted at place")
    assert problem([*lines, first[0]]) == f"line {len(lines) + 1} was inserted: the log ends before it"
    assert problem([*lines, lines[-1]]) == f"line {len(lines) + 1} was inserted: the log ends before it"
    assert problem([*lines[:5], "{}", *lines[5:]]) == "line 6 is not of an export"
    assert problem([*lines[:5], "[]", *lines[5:]]) == "line 6 is not of an export"
    assert "export was cut" in problem(lines[: block + 20])
    assert problem(lines[1:]) == "line 1 is not the first line of an export"
    assert problem([edited(head, records=5), *lines[1:]]).startswith("line 1 was altered: it names 5 records")
    assert "nother instance's log" in problem([edited(head, key="ssh-ed25519 AAAA"), *lines[1:]])
    older = instance.database.read(audit_log.newest)
    assert older is not None
    servers.create(instance, log.owner, name="later", address="192.0.2.9")
    chained(instance)
    newer = list(export.lines(instance, OPERATOR))
    assert problem(newer) == ""
    changed = [*newer[:-1], json.dumps({"checkpoint": older.text, "signature": older.signature})]
    assert problem(changed).startswith("the checkpoint is an older one")
    assert (
        problem([*newer[:-1], edited(newer[-1], checkpoint=older.text)]) == "the checkpoint is not signed by this key"
    )


def test_an_event_entered_in_the_database_is_named_and_not_chained(log: Team) -> None:
    """It gets no place, people hear of it, it is named, and what comes after it is chained as ever."""
    instance = log.instance
    everything = rows(instance)
    last = everything[-1]["id"]
    strange: dict[str, Any] = {"seal": b"x" * 40, "id": 10**9}
    ways: tuple[dict[str, Any], ...] = ({}, {"seal": None}, {"summary": "Let bob in"}, strange)
    for number, changed in enumerate(ways):
        row = {**everything[4], "id": last + 100 * (number + 1), "at": instance.now(), **changed}
        alter(instance, insert(held).values(**row))
        chained(instance)
        servers.create(instance, log.owner, name=f"later-{number}", address="192.0.2.9")
        chained(instance)
        (later,) = events.find(instance, log.owner, EventFilter(search=f"later-{number}"), limit=5).items
        assert chain.prove(instance, log.owner, later.id)
        assert f"event {row['id']} was inserted" in outcome(instance).problem
        assert any(f"event {row['id']} was entered" in one for one in alarms(instance, log.owner))
        alter(instance, delete(held).where(held.c.id == row["id"]))
        assert outcome(instance).problem == ""
    row = {**everything[4], "id": rows(instance)[-1]["id"] + 100}
    alter(instance, insert(held).values(**row))
    chained(instance)
    assert outcome(instance).problem == f"event {row['id']} was inserted: it is a copy of another"


def test_a_database_set_back_to_before_seals_has_no_event_taken_as_it_stands(log: Team) -> None:
    """Somebody takes the seals away and has the next start bring the tables up to date: what he entered is named."""
    instance = log.instance
    row = {**rows(instance)[-1], "id": rows(instance)[-1]["id"] + 100, "summary": "Let bob in"}
    alter(instance, insert(held).values({name: value for name, value in row.items() if name != "seal"}))
    for statement in SET_BACK:
        alter(instance, text(statement))
    again = app.open_instance(instance.settings)
    try:
        chained(again)
        assert f"event {row['id']} was inserted" in outcome(again).problem
        assert any(f"event {row['id']} was entered" in one for one in alarms(again, log.owner))
    finally:
        again.database.close()


SET_BACK = to_before("0235", at="0230")


def test_changed_checkpoints_and_hashes_of_parts_are_found_too(log: Team) -> None:
    """Checkpoints and hashes of parts, and the end of the log, which the running service remembers."""
    instance = log.instance
    common = {"at": instance.now(), "action": "servers:write", "outcome": "done", "reason": "", "level": "info"}
    entry = {"target_kind": "server", "target_id": 1, "server_id": 1, "summary": "Something", "details": {}}
    instance.database.write(lambda connection: stored_events.add_many(connection, log.owner, common, [entry] * 300))
    later = instance.now() + timedelta(hours=2)
    object.__setattr__(instance, "now", lambda: later)
    chained(instance)
    assert outcome(instance).problem == ""
    size = len(rows(instance))
    last = audit_checkpoints.c.size == size
    cases = (
        (delete(audit_checkpoints).where(last), "the checkpoints over the records from place"),
        (update(audit_checkpoints).where(last).values(size=size + 5), "not in order"),
        (update(audit_checkpoints).where(last).values(text="{}"), "not signed"),
        (update(audit_nodes).values(hash=b"x" * 32), "hashes of parts of the first"),
        (delete(audit_nodes), "hashes of parts of the first"),
        (insert(audit_nodes).values(level=8, number=50, hash=b"x" * 32), "hashes of parts of the log were inserted"),
    )
    for statement, words in cases:
        found: list[str] = []

        def command(connection: Connection, statement: Any = statement, found: list[str] = found) -> None:
            connection.execute(statement)
            found.append(outcome(replace(instance, database=DatabaseInTransaction(instance, connection))).problem)  # type: ignore[arg-type]
            raise Undo

        with pytest.raises(Undo):
            instance.database.write(command)
        assert words in found[0]
    alter(instance, delete(audit_checkpoints).where(last))
    servers.create(instance, log.owner, name="later", address="192.0.2.9")
    chained(instance)
    assert any("its last checkpoint is over" in one for one in alarms(instance, log.owner))
    # As if it had never been: the running service knows better.
    for table in (audit_leaves, audit_nodes):
        alter(instance, delete(table))
    alter(instance, delete(audit_checkpoints))
    instance.checkpoints.newest = audit_log.SignedCheckpoint(
        json.dumps({"size": size, "root": "00" * 32, "access": 1, "at": 1}), ""
    )
    chained(instance)
    assert any(f"the audit log had {size} records and has 0 now" in one for one in alarms(instance, log.owner))


def test_events_that_were_kept_long_enough_are_not_missed(log: Team) -> None:
    instance = log.instance
    before = len(rows(instance))
    later = instance.now() + timedelta(days=5000)
    object.__setattr__(instance, "now", lambda: later)
    retention.tidy(instance, actors.system_actor())
    chained(instance)
    found = outcome(instance)
    assert found.problem == ""
    assert found.pruned == before
    lines = list(export.lines(instance, OPERATOR))
    assert (
        verify_export.verify(lines, lambda text, signature: instance.key.signed(text, signature, audit_tree.NAMESPACE))
        == found
    )
    # The event that says so cannot be made to say more.
    (tidied,) = [row for row in rows(instance) if row["action"] == "instance:tidy"]
    alter(instance, update(held).where(held.c.id == tidied["id"]).values(details={"events_until": 10**6}))
    assert outcome(instance).problem != ""


def test_no_checkpoint_is_signed_over_a_chain_that_others_rewrote(log: Team) -> None:
    """The service adds nothing to a chain that others rewrote, and says so."""
    instance = log.instance
    first = instance.database.read(audit_log.newest)
    alter(instance, delete(audit_leaves).where(audit_leaves.c.position == 3))
    servers.create(instance, log.owner, name="later", address="192.0.2.9")
    chain.extend(instance)
    assert instance.database.read(audit_log.newest) == first
    found = events.find(instance, log.owner, limit=5).items
    assert any(event.level == "alarm" and "chain of the audit log is broken" in event.summary for event in found)


def test_events_are_read_once_to_be_chained(log: Team) -> None:
    chained(log.instance)
    servers.create(log.instance, log.owner, name="later", address="192.0.2.9")
    with prepared_statements("events.summary") as asked:
        chain.extend(log.instance)
    assert len([statement for statement in asked if statement.startswith("SELECT")]) == 1
    assert outcome(log.instance).problem == ""


def test_processes_that_chain_at_once_give_each_event_one_place(log: Team) -> None:
    others = [app.open_instance(log.instance.settings) for _ in range(2)]
    done = threading.Event()

    def go_on(instance: Instance) -> None:
        while not done.is_set():
            chain.extend(instance)

    threads = [threading.Thread(target=go_on, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            servers.create(log.instance, log.owner, name=f"host-{number}", address="192.0.2.9")
            chain.extend(log.instance)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        for one in others:
            one.database.close()
    chained(log.instance)
    found = outcome(log.instance)
    assert (found.problem, found.records) == ("", len(rows(log.instance)))
    assert not [event for event in rows(log.instance) if event["level"] == "alarm"]


def includes(hashed: bytes, number: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether a proof shows that a record with this hash is there (RFC 9162, 2.1.3.2)."""
    if not 0 <= number < size:
        return False
    at, last, found = number, size - 1, hashed
    for part in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = audit_tree.node(part, found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = audit_tree.node(found, part)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def test_proofs_hold_when_they_are_checked_independently(log: Team) -> None:
    instance = log.instance
    newest = chain.checkpoint(instance, log.owner)
    checkpoint = audit_tree.read(newest.text)
    for event in events.find(instance, log.owner, limit=40).items:
        proof = chain.prove(instance, log.owner, event.id)
        hashed = audit_tree.leaf(proof.record.encode())
        assert includes(hashed, proof.position, checkpoint.size, proof.path, checkpoint.root)
        assert json.loads(proof.record)["summary"] == event.summary
    servers.create(instance, log.owner, name="later", address="192.0.2.9")
    chained(instance)
    later = audit_tree.read(chain.checkpoint(instance, log.owner).text)
    path = chain.consistency(instance, log.owner, checkpoint.size, later.size)
    assert audit_tree.extends(checkpoint.size, checkpoint.root, later.size, later.root, path)


def test_a_damaged_checkpoint_is_named_when_a_proof_is_asked_for(log: Team) -> None:
    row = {"size": 10**6, "text": "nothing", "signature": "nothing", "at": log.instance.now()}
    log.instance.database.write(lambda connection: connection.execute(audit_checkpoints.insert().values(row)))
    event = events.find(log.instance, log.owner, limit=1).items[0]
    for asked in (
        lambda: chain.consistency(log.instance, log.owner, 1, 2),
        lambda: chain.prove(log.instance, log.owner, event.id),
    ):
        with pytest.raises(Refusal) as refused:
            asked()
        assert (refused.value.kind, refused.value.code) == (Kind.UNAVAILABLE, "audit-broken")


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


def test_a_host_accepts_a_log_that_goes_on_and_refuses_one_that_was_rewritten(
    log: Team, witness: Witness, tmp_path: Path
) -> None:
    """By the service itself: the signing key is right, the history is another."""
    instance = log.instance
    size = witness.size
    servers.create(instance, log.owner, name="later", address="192.0.2.9")
    chained(instance)
    assert not witness.take(handed(log, witness))
    assert witness.size == size + 1
    rewrite(instance, update(held).where(held.c.id == 3).values(summary="nothing happened"))
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
    # What the words say is enough.
    assert not again.begin_anew()
    (tmp_path / "state" / "checkpoint.json").unlink()
    assert witness.take(handed(log, witness))
    assert (witness.problem, witness.size) == ("", len(rows(instance)))


def test_a_host_refuses_a_shorter_log_and_one_that_another_signed(log: Team, witness: Witness) -> None:
    instance = log.instance
    handed_over = handed(log, witness)
    last = rows(instance)[-1]["id"]
    rewrite(instance, delete(held).where(held.c.id == last))
    assert witness.take(handed(log, witness))
    assert "records and has" in witness.problem
    assert witness.take({**handed_over, "text": handed_over["text"].replace("size", "Size")})
    assert "signature" in witness.problem
    for strange in (
        "x",
        {},
        {"text": 1, "signature": 2},
        {**handed_over, "proof": ["zz"]},
        {**handed_over, "proof": 5},
    ):
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
    assert isinstance(old, contacts.ContactAnswer)
    assert isinstance(new, contacts.ContactAnswer)
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


def test_a_database_that_went_back_while_nothing_served_is_an_alarm(log: Team, tmp_path: Path) -> None:
    """As after pg_restore: what was taken away since counts again, and perhaps no host knows of it."""
    instance, file = log.instance, tmp_path / "audit.checkpoint"
    tables = (held, audit_leaves, audit_nodes, audit_checkpoints)
    chained(instance)
    older = instance.database.read(lambda conn: [conn.execute(select(one)).mappings().all() for one in tables])

    def put_back(connection: Connection) -> None:
        for table, found in zip(tables, older, strict=True):
            connection.execute(delete(table))
            if found:
                connection.execute(insert(table), [dict(row) for row in found])

    def serve_again() -> list[str]:
        """As a service that was just started."""
        instance.checkpoints.newest = None
        chain.recall(instance, file)
        while chain.extend(instance, (chain.file_keeper(file),)):
            pass
        return [one for one in alarms(instance, log.owner) if "went back" in one]

    def add(label: str) -> None:
        line = fresh_line()
        credentials.add(instance, log.owner, log.server.id, label=label, username="deploy", public_key=line)

    assert serve_again() == []
    add("since")
    assert serve_again() == []
    assert serve_again() == [], "it goes on"
    instance.database.write(put_back)
    (first,) = serve_again()
    assert "tokens" in first
    instance.database.write(put_back)
    for label in ("one", "two", "three"):
        add(label)
    instance.checkpoints.newest = None
    chained(instance)  # another machine's service, so that the log is longer than it was
    assert serve_again() != []


def test_a_kept_checkpoint_shows_that_a_log_was_rewritten(log: Team, tmp_path: Path) -> None:
    """By whoever holds the signing key: within itself the new log is whole, in the database and in an export."""
    instance, path = log.instance, tmp_path / "checkpoint"
    servers.create(instance, log.owner, name="later", address="192.0.2.9")
    chain.extend(instance, (chain.file_keeper(path),))
    kept = json.loads(path.read_text())
    seen = (audit_log.SignedCheckpoint(kept["checkpoint"], kept["signature"]),)
    by_key = partial(instance.key.signed, namespace=audit_tree.NAMESPACE)

    def problems() -> tuple[str, str]:
        lines = list(export.lines(instance, OPERATOR))
        found = (
            verify_log.verify(instance, OPERATOR, witnesses=seen),
            verify_export.verify(lines, by_key, witnesses=seen),
        )
        return found[0].problem, found[1].problem

    servers.create(instance, log.owner, name="and-later", address="192.0.2.9")
    chained(instance)
    assert problems() == ("", "")
    strange = (replace(seen[0], text=kept["checkpoint"].replace("size", "Size")),)
    assert "not signed" in verify_log.verify(instance, OPERATOR, witnesses=strange).problem

    size = audit_tree.read(kept["checkpoint"]).size
    rewrite(instance, update(held).where(held.c.id == 3).values(summary="nothing happened"))
    assert outcome(instance).problem == ""
    assert problems() == (f"the first {size} records are not those that were seen by a witness",) * 2
    rewrite(instance, delete(held).where(held.c.id > 20))
    assert all(f"there were {size}" in problem for problem in problems())
