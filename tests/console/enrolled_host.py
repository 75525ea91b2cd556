"""web-1 of the console's tests, enrolled, with reports as its agent sends them, and people with keys on it."""

from __future__ import annotations

from typing import Any

import pytest

from keyrack.core.hosts import enrolment, reports, servers
from keyrack.core.keys import user_keys
from keyrack.core.people import actors, users
from keyrack.model import User
from tests.services import Service

KEYRACK = actors.system_actor(1)


class Host:
    """web-1 as its agent would speak for it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        token = servers.invite(service.instance, KEYRACK, 1)
        enrolment.enrol(service.instance, token, {"host": "web-1"}, address="192.0.2.10")

    def report(self, *found: dict[str, Any], **more: Any) -> None:
        """Say that all is obeyed that is decided by now, and which keys were found."""
        server = servers.get(self.service.instance, KEYRACK, 1)
        report = {"revision": server.revision, "state": "applied", "keys_found": list(found), **more}
        reports.ingest(self.service.instance, server, report)


@pytest.fixture(scope="module")
def host(console: Service) -> Host:
    """web-1, enrolled."""
    return Host(console)


def person(service: Service, name: str, *, keys: tuple[str, ...] = ()) -> User:
    """Somebody of the team, with keys."""
    user = next(one for one in users.find(service.instance, KEYRACK) if one.name == name)
    for line in keys:
        user_keys.add(service.instance, KEYRACK, title="laptop", public_key=line, user_id=user.id)
    return user
