"""An operator, who acts under the name of a login of the machine, is not the user of that name."""

from __future__ import annotations

import pytest

from keyrack.core.keys import credentials, freezes, user_keys
from keyrack.core.people import actors
from keyrack.errors import Refusal
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line


def test_an_operator_of_a_users_name_does_not_confirm_the_users_key(team: Team) -> None:
    line = fresh_line()
    user_keys.add(team.instance, team.owner, title="laptop", public_key=line)
    held = credentials.add(
        team.instance, team.owner, team.server.id, username="deploy", label="laptop", public_key=line
    )
    login = actors.system_actor(team.owner.workspace_id, like=actors.operator(team.owner.name, "host"))
    with pytest.raises(Refusal, match="olga's, and nobody else can confirm it"):
        freezes.confirm_credential(team.instance, login, held.id)
    freezes.confirm_credential(team.instance, team.owner, held.id)
