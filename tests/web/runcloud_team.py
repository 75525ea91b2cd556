"""What tests of RunCloud's API start from: more tokens for the team, and a host's agent over HTTP."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.services import TEAM, Service, running, settings_for

ACCESS_KEY = ("RUNCLOUDKEY", "the secret of olga's access key")
OLGA = 'tokens = [{ name = "root", token = "token-of-olga", scopes = ["*"] }]'
MORE = f"""tokens = [
  {{ name = "root", token = "token-of-olga", scopes = ["*"] }},
  {{ name = "reader", token = "token-to-read-keys", scopes = ["credentials:read"] }},
]
access_keys = [{{ id = "{ACCESS_KEY[0]}", secret = "{ACCESS_KEY[1]}" }}]"""
BASIC = "Basic " + base64.b64encode(":".join(ACCESS_KEY).encode()).decode()

LOGINS: dict[str, dict[str, str]] = {
    "owner": {"Authorization": "Bearer token-of-olga"},
    "reader": {"Authorization": "Bearer token-to-read-keys"},
    "stranger": {"Authorization": "Bearer token-of-victor"},
    "wrong": {"Authorization": "Bearer no-such-token"},
    "access key": {"Authorization": BASIC},
    "nobody": {},
}


@contextmanager
def serving(team_folder: Path, folder: Path, database: str = "", **settings: Any) -> Iterator[Service]:
    """A service of its own on a copy of the team's folder, with the tokens above, and with other settings."""
    shutil.copytree(team_folder, folder)
    with running(settings_for(folder, database, **settings)) as service:
        assert OLGA in TEAM
        service.apply(TEAM.replace(OLGA, MORE))
        yield service


class Agent:
    """The agent of one server, as the service sees it: it enrols, fetches its document and reports."""

    def __init__(self, service: Service, server_id: int, token: str = "token-of-olga") -> None:
        self._service = service
        script = service.call("GET", f"/api/v3/servers/{server_id}/installationscript", token=token).json()["script"]
        found = re.search(r"KEYRACK_AGENT_TOKEN=(\S+)", script)
        assert found is not None, script
        facts = {"token": found[1], "os": "debian", "os_version": "12", "agent_version": "0.1.0", "hostname": "web-1"}
        enrolled = service.call("POST", "/agent/v1/enroll", json=facts)
        assert enrolled.status_code == 200, enrolled.text
        self.secret = enrolled.json()["secret"]

    def document(self) -> Mapping[str, Any]:
        """What the host must obey now."""
        answer = self._service.call("GET", "/agent/v1/document", token=self.secret)
        assert answer.status_code == 200, answer.text
        document: Mapping[str, Any] = json.loads(answer.json()["document"])
        return document

    def obey(self, **reported: Any) -> Mapping[str, Any]:
        """Report that the present document is obeyed, with more to tell; answers what the service says to that."""
        report = {"revision": self.document()["revision"], "state": "applied", **reported}
        answer = self._service.call("POST", "/agent/v1/report", token=self.secret, content=json.dumps(report))
        assert answer.status_code == 200, answer.text
        said: Mapping[str, Any] = answer.json()
        return said
