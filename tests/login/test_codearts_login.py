"""A key added with the public CodeArts SDK opens a login where its user is granted one, until the SDK deletes it."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from huaweicloudsdkcodeartsrepo.v4 import (
    AddSshKeyRequest,
    CodeArtsRepoClient,
    DeleteSshKeyRequest,
    DeployKeyParamsDto,
    ListUserKeysRequest,
)

from keyrack.core.hosts import servers
from keyrack.core.people import actors
from tests.login.private_sshd import USERNAME, Key, agent_host, strict_folder
from tests.services import Service, running, settings_for
from tests.web.sdk.clients import client, credentials, make_access_key

OWNER = "token-of-olga"


def grant(service: Service, name: str) -> None:
    """Let a user of the team log in on the first server as the calling account."""
    service.apply(
        f'[workspace]\nname = "acme"\n[[grants]]\nuser = "{name}"\nserver = "web-1"\nsystem_user = "{USERNAME}"\n'
    )


def add(sdk: Any, key: Key) -> Any:
    """Register a key with the SDK."""
    return sdk.add_ssh_key(AddSshKeyRequest(body=DeployKeyParamsDto(title="laptop", key=key.public)))


def test_a_key_added_by_the_sdk_opens_a_login_until_it_is_deleted(team_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(team_folder, data)
    alices, bobs = Key.make(tmp_path / "alice"), Key.make(tmp_path / "bob")
    with ExitStack() as stack:
        folder = stack.enter_context(strict_folder())
        service = stack.enter_context(running(settings_for(data, "")))
        if USERNAME not in ("root", "deploy"):
            service.call("POST", "/api/v3/servers/1/users", token=OWNER, json={"username": USERNAME})
        grant(service, "alice")
        token = servers.invite(service.instance, actors.system_actor(1), 1)
        _, login = stack.enter_context(agent_host(folder, service.url, token))
        alice = client(CodeArtsRepoClient, service, credentials(make_access_key(service)))
        bob = client(CodeArtsRepoClient, service, credentials(make_access_key(service, "token-of-bob")))
        added = add(alice, alices)
        add(bob, bobs)
        login.wait_until_open(alices)
        # Bob has a key but no grant.
        assert not login.lets_in(bobs)
        alice.delete_ssh_key(DeleteSshKeyRequest(key_id=added.id))
        login.wait_until_closed(alices)
        assert alice.list_user_keys(ListUserKeysRequest()).total == 0
        add(alice, alices)
        login.wait_until_open(alices)
        # A leaver's keys go with the leaver.
        users = service.call("GET", "/v3/users?name=alice", headers={"X-Auth-Token": OWNER}).json()["users"]
        gone = service.call("DELETE", f"/v3/users/{users[0]['id']}", headers={"X-Auth-Token": OWNER})
        assert gone.status_code == 204
        login.wait_until_closed(alices)
