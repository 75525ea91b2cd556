"""`keyrack apply`: the file does what it says, twice changes nothing, and what is wrong is said."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from keyrack.core import people, repositories, servers, tokens, workspace_file
from keyrack.core.instance import Instance
from keyrack.errors import Refusal
from keyrack.store import people as people_rows
from keyrack.store.tables import metadata

FILE = """
[workspace]
name = "acme"
[[projects]]
name = "cn-north-4"
id = "aa2d97d7e62c4b7da3ffdfc11551f878"
[[users]]
name = "alice"
role = "member"
password_env = "ALICE"
policies = ["codeartsrepo::*"]
access_keys = [{ id = "AKEXAMPLE0001", secret = "a secret for signatures" }]
tokens = [{ name = "ci", token = "a-token-of-alice", scopes = ["*"] }]
[[groups]]
name = "ops"
members = ["alice"]
[[servers]]
name = "web-1"
address = "192.0.2.10"
system_users = ["root", "deploy"]
tags = ["web"]
[[repositories]]
id = 4242
path = "acme/site"
members = [{ user = "alice", role = "developer" }]
[[grants]]
user = "alice"
server = "web-1"
system_user = "deploy"
[[grants]]
group = "ops"
tag = "web"
system_user = "root"
"""
SECRETS = {"ALICE": "alice's password"}


def test_twice_changes_nothing(instance: Instance) -> None:
    said: list[str] = []
    first = workspace_file.apply(instance, FILE, SECRETS, said.append)
    assert first == said
    assert len(first) >= 8
    assert workspace_file.apply(instance, FILE, SECRETS) == []
    actor = people.keyrack(1)
    server = servers.find(instance, actor).items[0]
    assert (server.name, server.tags) == ("web-1", ("web",))
    bearer = tokens.lookup(instance, "a-token-of-alice")
    assert bearer is not None
    assert bearer.user.policies == ("codeartsrepo::*",)


def test_what_changed_is_changed(instance: Instance) -> None:
    workspace_file.apply(instance, FILE, SECRETS)
    changed = FILE.replace('tags = ["web"]', 'tags = ["db"]').replace('role = "member"', 'role = "admin"')
    assert len(workspace_file.apply(instance, changed, {"ALICE": "another password"})) == 3
    assert workspace_file.apply(instance, changed, {"ALICE": "another password"}) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[workspace]", "[workspaces]", "unknown name 'workspaces'"),
        ('role = "member"', 'role = "king"', "'king' is no role"),
        ('password_env = "ALICE"', 'password_env = "NOBODY"', "NOBODY is not set"),
        ('address = "192.0.2.10"', 'adress = "192.0.2.10"', "unknown name 'adress'"),
        ('server = "web-1"', 'server = "web-9"', "'web-9'"),
        ('name = "acme"', "name = ", "not valid TOML"),
        ('path = "acme/site"', 'path = "../site"', "path"),
        ('"root", "deploy"', '"Root"', "user name"),
    ],
)
def test_what_is_wrong_is_said(instance: Instance, old: str, new: str, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        workspace_file.apply(instance, FILE.replace(old, new, 1), SECRETS)


def test_no_secret_is_kept_in_clear(instance: Instance) -> None:
    workspace_file.apply(instance, FILE, SECRETS)
    secrets = (SECRETS["ALICE"], "a secret for signatures", "a-token-of-alice")

    def everything(connection: Connection) -> str:

        text = ""
        for table in metadata.sorted_tables:
            text += repr(connection.execute(table.select()).all())
        return text

    kept = instance.database.read(everything)
    for secret in secrets:
        assert secret not in kept


def test_a_password_change_ends_iam_tokens(instance: Instance) -> None:
    workspace_file.apply(instance, FILE, SECRETS)
    who = tokens.SignIn(password=SECRETS["ALICE"], user_name="alice", workspace_name="acme")
    signed_in = tokens.sign_in(instance, who, tokens.Scope(), address="203.0.113.9")
    assert tokens.lookup(instance, signed_in.secret) is not None
    people.change_password(instance, people.keyrack(1), signed_in.user.id, "another password")
    assert tokens.lookup(instance, signed_in.secret) is None
    assert tokens.lookup(instance, "a-token-of-alice") is not None


def test_repository_paths_are_strict() -> None:
    for good in ("acme/site", "a/b/c", "acme/site.js", "acme/my_site-2"):
        assert repositories.path_of(good) == good
    for bad in ("site", "/acme/site", "acme/../x", "acme/.git", "acme/-x", "acme/site.git", "acme//x", "a/b\n", "", 5):
        with pytest.raises(Refusal):
            repositories.path_of(bad)


def test_the_workspace_stays_as_it_was_named(instance: Instance) -> None:
    workspace_file.apply(instance, FILE, SECRETS)
    found = instance.database.read(lambda connection: people_rows.workspace_by_name(connection, "acme"))
    assert found is not None
