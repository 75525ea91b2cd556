"""Whoever guesses learns of no name whether anybody has it: the same is asked, and the same is left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from keyrack.core.people import access_keys, basic_access, tokens
from keyrack.core.people.tokens import Scope, SignIn
from keyrack.errors import Kind, Refusal
from tests.core.conftest import Team
from tests.statements import each_statement


@contextmanager
def statements_of_this_thread() -> Iterator[list[str]]:
    """The statements that this thread sends to the database."""
    asked: list[str] = []
    own = threading.get_ident()
    with each_statement(lambda sql, _values: asked.append(sql) if threading.get_ident() == own else None):
        yield asked


def refused(guess: Callable[[], object]) -> tuple[str, ...]:
    """What is asked for a guess, which must be refused."""
    with statements_of_this_thread() as asked, pytest.raises(Refusal) as raised:
        guess()
    assert raised.value.kind is Kind.UNAUTHENTICATED
    return tuple(asked)


def test_unknown_names_cost_the_same_statements_as_known_ones(team: Team) -> None:
    def guess(**who: str) -> tuple[str, ...]:
        claim = SignIn(password="a guess", **who)
        return refused(lambda: tokens.sign_in(team.instance, claim, Scope(), address="203.0.113.5"))

    known = guess(user_name="olga", workspace_name="acme")
    assert len(known) == 1
    assert guess(user_name="nobody", workspace_name="acme") == known
    assert guess(user_name="olga", workspace_name="nowhere") == known
    assert guess(user_uid=team.member_user.uid) == guess(user_uid="0" * 32)


def test_unknown_access_keys_cost_the_same_statements_as_known_ones(team: Team) -> None:
    key = access_keys.create(team.instance, team.owner)

    def guess(key_id: str) -> tuple[str, ...]:
        where = "203.0.113.5"
        return refused(
            lambda: basic_access.authenticate(team.instance, key_id, "a guess", address=where, channel="test")
        )

    guess("B" * 20)  # the first time it shows of a question on PostgreSQL whether it takes a transaction
    known = guess(key.id)
    assert len(known) == 1
    assert guess("A" * 20) == known


def test_a_workspace_s_log_has_guesses_at_names_that_it_does_not_know(team: Team) -> None:
    for name in ("olga", "nobody"):
        claim = SignIn(password="a guess", user_name=name, workspace_name="acme")
        refused(lambda claim=claim: tokens.sign_in(team.instance, claim, Scope(), address="203.0.113.5"))  # type: ignore[misc]
    team.instance.refusals.write(team.instance.database, everything=True)
    rows = team.instance.database.read(
        lambda connection: connection.execute(
            text("SELECT actor_name, reason FROM events WHERE outcome = 'refused' ORDER BY id")
        ).all()
    )
    # The name that was guessed is not kept: it is now and then a password.
    assert sorted(map(tuple, rows)) == [("", "sign-in-failed"), ("olga", "sign-in-failed")]
