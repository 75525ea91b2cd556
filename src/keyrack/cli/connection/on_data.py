"""A command's calls on an instance's own data, as its operator; must hold no rule, the core has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from keyrack.cli.connection.operator_context import OperatorContext, operator_context
from keyrack.cli.connection.transport import CallRefused, Calls, naming, texts
from keyrack.cli.output.ends import Unreachable
from keyrack.errors import Kind, Refusal
from keyrack.web.native import catalogue

STATUS = {Kind.MISSING: 404, Kind.FORBIDDEN: 403, Kind.TAKEN: 409, Kind.INVALID: 422}


class OnData(Calls):
    """The same calls that the API has, answered in this process."""

    def __init__(self, at: OperatorContext) -> None:
        self._at = at

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, Any] | None = None
    ) -> Any:
        """The same call, as Calls.ask has it."""
        try:
            answer = catalogue.answer(self._at.instance, self._at.actor, method, path, body or {}, texts(query))
        except Refusal as refusal:
            if refusal.kind is Kind.UNAVAILABLE:
                raise Unreachable(refusal.message) from None
            words = naming(refusal.message, refusal.field)
            raise CallRefused(STATUS.get(refusal.kind, 400), refusal.code, words) from None
        return json.loads(bytes(answer.body)) if answer.body else None

    def now(self) -> datetime:
        """The time by this machine's clock, in UTC."""
        return self._at.instance.now()


@contextmanager
def on_data(given: dict[str, Any]) -> Iterator[Calls]:
    """The calls on the data that options, settings or the usual folder name; exits with words where there is none."""
    with operator_context(given, or_logged_in=True) as at:
        yield OnData(at)
