"""`keyrack apply`: the file does what it says, twice changes nothing, and what is wrong is said."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from sqlalchemy import Connection, update

from keyrack.cli.apply import command
from keyrack.core.git import repositories
from keyrack.core.hosts import server_list, servers
from keyrack.core.instance import Instance
from keyrack.core.keys import grants, key_policy
from keyrack.core.people import actors, tokens, users
from keyrack.core.workspace import apply as workspace_apply
from keyrack.core.workspace import export as workspace_export
from keyrack.core.workspace import schema as workspace_schema
from keyrack.errors import Refusal
from keyrack.model import Actor
from keyrack.store.keys import key_sources
from keyrack.store.people import workspaces
from keyrack.store.tables import key_policies, metadata
from tests.core.all_damaged_rows import damaged
from tests.core.keys_for_tests import fresh_line, records

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
HIGH = 2_000_000_000


def bearer(instance: Instance, secret: str) -> Actor | None:
    """Who calls with this token, None if it is not in force."""
    try:
        return tokens.authenticate(instance, secret, address="203.0.113.9", channel="api")
    except Refusal:
        return None


def test_two_exports_are_equal_whichever_rows_were_written_since(instance: Instance) -> None:
    entries = [f'{{ title = "{title}", public_key = "{fresh_line()}" }}' for title in ("one", "two", "three", "four")]
    more = f"""
[workspace]
name = "acme"
[[users]]
name = "anna"
role = "member"
keys = [{entries[0]}, {entries[1]}]
key_sources = [{{ kind = "github", account = "anna" }}, {{ kind = "gitlab", account = "anna" }}]
[[groups]]
name = "dev"
members = ["anna"]
[[repositories]]
path = "acme/also"
members = [{{ user = "alice", role = "viewer" }}, {{ user = "anna", role = "developer" }}]
deploy_keys = [{entries[2]}, {entries[3]}]
"""
    for text in (FILE, more):
        workspace_apply.apply(instance, text, SECRETS)
    database = instance.database
    workspace = database.read(lambda connection: workspaces.workspace_by_name(connection, "acme"))
    assert workspace is not None

    def exported() -> list[str]:
        text = workspace_export.export(instance, actors.system_actor(workspace.id), workspace)
        return [line for line in text.splitlines() if not line.startswith("#")]

    def rewrite(connection: Connection) -> None:
        # PostgreSQL puts a row that is written anew behind the others, and reads small tables whole once it knows them.
        if database.dialect == "postgresql":
            connection.exec_driver_sql("ANALYZE")
        for name in ("users", "user_keys", "groups", "repositories", "repository_members", "deploy_keys"):
            connection.exec_driver_sql(f"UPDATE {name} SET id = id WHERE id = (SELECT min(id) FROM {name})")
        key_sources.change(connection, 1, {"next_at": instance.now() + timedelta(days=9)})

    before = exported()
    database.write(rewrite)
    assert exported() == before


def test_applying_a_file_twice_changes_nothing(instance: Instance) -> None:
    said: list[str] = []
    first = workspace_apply.apply(instance, FILE, SECRETS, said.append)
    assert first == said
    assert len(first) >= 8
    assert workspace_apply.apply(instance, FILE, SECRETS) == []
    actor = actors.system_actor(1)
    server = server_list.find(instance, actor).items[0]
    assert (server.name, server.tags) == ("web-1", ("web",))
    alice = bearer(instance, "a-token-of-alice")
    assert alice is not None
    assert alice.policies == ("codeartsrepo::*",)


def test_applying_a_changed_file_changes_what_differs(instance: Instance) -> None:
    workspace_apply.apply(instance, FILE, SECRETS)
    changed = FILE.replace('tags = ["web"]', 'tags = ["web", "db"]').replace('role = "member"', 'role = "admin"')
    changed = changed.replace("192.0.2.10", "192.0.2.11").replace('scopes = ["*"]', 'scopes = ["servers:*"]')
    changed = changed.replace('role = "developer"', 'role = "viewer"').replace("id = 4242", "visibility = 10")
    done = workspace_apply.apply(instance, changed, SECRETS)
    assert done == [
        "change the rights of alice: member to admin",
        "change token ci of alice: scopes servers:* instead of *",
        "change server web-1: address 192.0.2.11 instead of 192.0.2.10",
        "tag server web-1: db",
        "change repository acme/site: alice viewer",
        "change repository acme/site: visibility 10, protect_default false",
    ]
    assert workspace_apply.apply(instance, changed, SECRETS) == []
    actor = actors.system_actor(1)
    server = server_list.find(instance, actor).items[0]
    assert (server.address, server.tags) == ("192.0.2.11", ("db", "web"))
    alice = bearer(instance, "a-token-of-alice")
    assert alice is not None
    assert (alice.role, alice.scopes) == ("admin", ("servers:*",))


def test_a_password_is_set_once(instance: Instance) -> None:
    """Who changed a password keeps it, whatever the file says, until somebody asks for the file's again."""
    workspace_apply.apply(instance, FILE, SECRETS)
    alice = users.find(instance, actors.system_actor(1))[0]
    users.change_password(instance, actors.system_actor(1), alice.id, "alice's own choice")
    assert workspace_apply.apply(instance, FILE, SECRETS) == []
    who = tokens.SignIn(password="alice's own choice", user_name="alice", workspace_name="acme")
    assert tokens.sign_in(instance, who, tokens.Scope(), address="203.0.113.9").secret
    assert workspace_apply.apply(instance, FILE, SECRETS, reset_secrets=True) == ["reset the password of alice"]
    assert workspace_apply.apply(instance, FILE, SECRETS, reset_secrets=True) == []
    with pytest.raises(Refusal):
        tokens.sign_in(instance, who, tokens.Scope(), address="203.0.113.9")


TWO = FILE.replace(
    '[[groups]]\nname = "ops"\nmembers = ["alice"]',
    '[[users]]\nname = "bob"\n[[groups]]\nname = "ops"\nmembers = ["alice", "bob"]',
)

REMOVALS = {
    "a member of a group": (TWO, 'members = ["alice", "bob"]', 'members = ["alice"]', "take bob out of group ops"),
    "a grant": (
        TWO,
        '[[grants]]\nuser = "alice"\nserver = "web-1"\nsystem_user = "deploy"\n',
        "",
        "take back the login of user alice as deploy on server web-1",
    ),
    "a grant with all it names": (
        TWO + '[[grants]]\nuser = "bob"\nserver = "web-1"\nsystem_user = "deploy"\n',
        '[[grants]]\nuser = "bob"\nserver = "web-1"\nsystem_user = "deploy"\n',
        "",
        "take back the login of user bob as deploy on server web-1",
    ),
    "a member of a repository": (
        TWO,
        'members = [{ user = "alice", role = "developer" }]',
        "members = []",
        "take alice out of repository acme/site",
    ),
    "a token": (
        TWO,
        'tokens = [{ name = "ci", token = "a-token-of-alice", scopes = ["*"] }]',
        "tokens = []",
        "revoke token ci of alice, which the file does not name",
    ),
    "an access key": (
        TWO,
        'access_keys = [{ id = "AKEXAMPLE0001", secret = "a secret for signatures" }]',
        "",
        "delete access key AKEXAMPLE0001 of alice",
    ),
}


@pytest.mark.parametrize("name", REMOVALS)
def test_what_the_file_leaves_out_is_named_and_removed_only_with_prune(instance: Instance, name: str) -> None:
    text, old, new, words = REMOVALS[name]
    assert old in text
    workspace_apply.apply(instance, text, SECRETS)
    less = text.replace(old, new, 1)
    left: list[str] = []
    assert workspace_apply.apply(instance, less, SECRETS, left=left.append) == []
    assert len(left) == 1
    assert words in left[0]
    assert workspace_apply.apply(instance, text, SECRETS) == []
    assert workspace_apply.apply(instance, less, SECRETS, prune=True) == left
    left.clear()
    assert workspace_apply.apply(instance, less, SECRETS, left=left.append) == []
    assert left == []


@pytest.mark.parametrize("dry_run", [True, False])
def test_tokens_of_a_user_whose_tokens_the_file_does_not_name_stay(instance: Instance, dry_run: bool) -> None:
    workspace_apply.apply(instance, TWO, SECRETS)
    actor = actors.system_actor(1)
    bob = next(user for user in users.find(instance, actor) if user.name == "bob")
    tokens.create(instance, actor, bob, name="robot", scopes=("*",), secret="made-by-hand-0001")
    noted: list[str] = []
    assert workspace_apply.apply(instance, TWO, SECRETS, prune=True, dry_run=dry_run, noted=noted.append) == []
    assert bearer(instance, "made-by-hand-0001") is not None
    assert noted == ["token robot of bob; the file says nothing of bob's tokens (tokens = [] revokes)"]
    named = TWO.replace('name = "bob"\n', 'name = "bob"\ntokens = []\n')
    assert workspace_apply.apply(instance, named, SECRETS, prune=True) == [
        "revoke token robot of bob, which the file does not name"
    ]
    assert bearer(instance, "made-by-hand-0001") is None


def test_a_tag_is_taken_with_prune_alone(instance: Instance) -> None:
    workspace_apply.apply(instance, FILE.replace('["web"]', '["web", "old"]'), SECRETS)
    assert workspace_apply.apply(instance, FILE, SECRETS) == []
    assert workspace_apply.apply(instance, FILE, SECRETS, prune=True) == ["take the tags old from server web-1"]
    assert server_list.find(instance, actors.system_actor(1)).items[0].tags == ("web",)


def test_a_dry_run_changes_nothing(instance: Instance) -> None:
    planned = workspace_apply.apply(instance, FILE, SECRETS, dry_run=True)
    assert instance.database.read(workspaces.workspaces_by_name) == ()
    assert workspace_apply.apply(instance, FILE, SECRETS) == planned


def test_a_rotated_token_ends_the_old_one(instance: Instance) -> None:
    workspace_apply.apply(instance, FILE, SECRETS)
    rotated = FILE.replace("a-token-of-alice", "another-token-of-alice")
    assert workspace_apply.apply(instance, rotated, SECRETS) == [
        "revoke token ci of alice, which another one replaces",
        "create token ci of alice",
    ]
    assert bearer(instance, "a-token-of-alice") is None
    assert bearer(instance, "another-token-of-alice") is not None
    # An ended token is never good again, and applying the file that holds it says so.
    with pytest.raises(Refusal, match=r"\[\[users\]\] number 1 \(alice\), line 7: the token 'ci' ended at"):
        workspace_apply.apply(instance, FILE, SECRETS)


def test_a_token_has_the_end_and_name_that_the_file_gives(instance: Instance) -> None:
    """Its end and its name too, not its scopes alone."""
    workspace_apply.apply(instance, FILE, SECRETS)
    year = instance.now().year + 1

    def with_end(end: str) -> str:
        return FILE.replace('scopes = ["*"]', f'scopes = ["*"], expires_at = {end}')

    limited = with_end(f"{year}-01-02T03:04:05Z").replace('"ci"', '"deploys"')
    assert workspace_apply.apply(instance, limited, SECRETS) == [
        f"change token ci of alice: name it deploys; end {year}-01-02T03:04:05Z"
    ]
    assert workspace_apply.apply(instance, limited, SECRETS) == []
    alice = bearer(instance, "a-token-of-alice")
    assert alice is not None
    assert (alice.token_name, alice.ends_at and alice.ends_at.year) == ("deploys", year)
    over = with_end("2020-01-02T03:04:05Z")
    assert workspace_apply.apply(instance, over, SECRETS) == [
        "revoke token deploys of alice, whose end in the file is past"
    ]
    assert bearer(instance, "a-token-of-alice") is None
    assert workspace_apply.apply(instance, over, SECRETS) == []


def test_a_rotated_password_is_named(instance: Instance) -> None:
    """The old one still signs in, and the file's does not: that is said, and changed when it is asked for."""
    workspace_apply.apply(instance, FILE, SECRETS)
    rotated = {"ALICE": "another password of alice"}
    noted: list[str] = []
    assert workspace_apply.apply(instance, FILE, rotated, noted=noted.append) == []
    assert noted == ["the password of alice is not the file's; --reset-secrets sets it"]
    done = workspace_apply.apply(instance, FILE, rotated, reset_secrets=True, noted=noted.append)
    assert (done, len(noted)) == (["reset the password of alice"], 1)
    assert workspace_apply.apply(instance, FILE, rotated, reset_secrets=True, noted=noted.append) == []
    assert len(noted) == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "eva"\nrole = "owner"', 'name = "eva"\nrole = "member"', "last owner"),
        ('user = "alice"\nserver', 'expires_at = 2096-12-24T18:00:00Z\nuser = "alice"\nserver', "ten years"),
        ('scopes = ["*"]', 'scopes = ["*"], expires_at = 2096-12-24T18:00:00Z', "ten years"),
    ],
)
def test_a_dry_run_refuses_what_would_be_refused(instance: Instance, old: str, new: str, words: str) -> None:
    owned = FILE + '[[users]]\nname = "eva"\nrole = "owner"\n'
    workspace_apply.apply(instance, owned, SECRETS)

    def everything(connection: Connection) -> list[object]:
        return [connection.execute(table.select()).all() for table in metadata.sorted_tables]

    before = instance.database.read(everything)
    with pytest.raises(Refusal, match=words):
        workspace_apply.apply(instance, owned.replace(old, new), SECRETS, dry_run=True)
    assert instance.database.read(everything) == before


def test_every_error_of_a_file_is_named(instance: Instance) -> None:
    wrong = FILE.replace('role = "member"', 'role = "king"').replace('"192.0.2.10"', "7").replace('"ops"', '""')
    with pytest.raises(Refusal) as refused:
        workspace_apply.apply(instance, wrong, SECRETS)
    assert [line.partition(": ")[0].strip() for line in refused.value.message.split("\n")[1:]] == [
        "[[users]] number 1 (alice), line 7",
        "[[groups]] number 1 (), line 14",
        "[[servers]] number 1 (web-1), line 17",
    ]
    workspace_apply.apply(instance, FILE, SECRETS)
    unknown = FILE.replace('members = ["alice"]', 'members = ["alise"]').replace('user = "alice", role', 'user = "x"')
    with pytest.raises(Refusal) as refused:
        workspace_apply.apply(instance, unknown.replace('user = "x"', 'user = "x", role'), SECRETS)
    assert ("'alise'" in refused.value.message, "'x'" in refused.value.message) == (True, True)


def test_a_renamed_server_stays_the_same_one(instance: Instance) -> None:
    workspace_apply.apply(instance, FILE, SECRETS)
    renamed = FILE.replace('"web-1"', '"web-2"')
    with pytest.raises(Refusal, match='was = "web-1"'):
        workspace_apply.apply(instance, renamed, SECRETS)
    with_former_name = renamed.replace('name = "web-2"', 'name = "web-2"\nwas = "web-1"')
    assert workspace_apply.apply(instance, with_former_name, SECRETS) == ["change server web-2: rename it from web-1"]
    assert workspace_apply.apply(instance, with_former_name, SECRETS) == []
    assert workspace_apply.apply(instance, renamed, SECRETS) == []
    by_id = renamed.replace('name = "web-2"', 'name = "web-3"\nid = 1').replace('"web-2"', '"web-3"')
    assert workspace_apply.apply(instance, by_id, SECRETS) == ["change server web-3: rename it from web-2"]
    found = server_list.find(instance, actors.system_actor(1))
    assert [(server.id, server.name) for server in found.items] == [(1, "web-3")]


def test_a_grant_that_the_file_says_has_ended_is_a_removal_whatever_else_it_names(instance: Instance) -> None:
    workspace_apply.apply(instance, FILE, SECRETS)
    name = FILE.partition("[workspace]")[2].partition("name = ")[2].splitlines()[0]
    ended = FILE[FILE.index("[[grants]]") :].split("[[")[1].rstrip()
    text = f"[workspace]\nname = {name}\n[[{ended}\nexpires_at = 1999-01-01T00:00:00Z\n"
    assert workspace_apply.apply(instance, text, SECRETS) == []
    (taken,) = workspace_apply.apply(instance, text, SECRETS, prune=True)
    assert taken.startswith("take back the login of ")


def test_the_end_and_the_limits_of_a_grant(instance: Instance) -> None:
    workspace_apply.apply(instance, FILE, SECRETS)
    grant = 'server = "web-1"\nsystem_user = "deploy"\n'
    limited = FILE.replace(
        grant, f'{grant}expires_at = 2096-12-24T18:00:00Z\nrestrictions = {{ sources = ["192.0.2.0/24"] }}\n'
    )
    with pytest.raises(Refusal, match="ten years"):
        workspace_apply.apply(instance, limited, SECRETS)
    year = instance.now().year + 1
    limited = limited.replace("2096", str(year))
    done = workspace_apply.apply(instance, limited, SECRETS)
    assert done == [
        f"change the login of alice as deploy on web-1 until {year}-12-24T18:00:00Z with sources",
        "end the former terms of alice as deploy on web-1",
    ]
    assert workspace_apply.apply(instance, limited, SECRETS) == []
    held = [grant for grant in grants.page(instance, actors.system_actor(1)).items if grant.user_id is not None]
    assert [(grant.expires_at.year if grant.expires_at else 0, dict(grant.restrictions)) for grant in held] == [
        (year, {"sources": ["192.0.2.0/24"]})
    ]


def test_a_file_that_fails_at_its_last_change_changes_nothing(instance: Instance) -> None:
    """What only the last change finds out undoes the first ones."""
    workspace_apply.apply(instance, FILE, SECRETS)
    more = FILE.replace("[[groups]]", '[[users]]\nname = "zoe"\n[[users]]\nname = "eva"\nrole = "owner"\n[[groups]]')
    workspace_apply.apply(instance, more, SECRETS)
    wrong = more.replace('name = "zoe"', 'name = "zoe"\npolicies = ["git:fetch"]').replace(
        'role = "owner"', 'role = "member"'
    )
    with pytest.raises(Refusal, match="last owner"):
        workspace_apply.apply(instance, wrong, SECRETS)
    assert workspace_apply.apply(instance, more, SECRETS) == []
    assert workspace_apply.apply(instance, "\ufeff" + more, SECRETS) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[workspace]", "[workspaces]", "Unknown name 'workspaces'"),
        ('role = "member"', 'role = "king"', "'king' is no role"),
        ('password_env = "ALICE"', 'password_env = "NOBODY"', "NOBODY is not set"),
        ('address = "192.0.2.10"', 'adress = "192.0.2.10"', "unknown name 'adress'"),
        ('server = "web-1"', 'server = "web-9"', "'web-9'"),
        ('name = "acme"', "name = ", "not valid TOML"),
        ('path = "acme/site"', 'path = "../site"', "path"),
        ('"root", "deploy"', '"../root"', "name of the account"),
        ('tag = "web"', 'tag = "wbe"', r"\[\[grants\]\] number 2, line 30: the tag 'wbe'"),
        ('system_user = "deploy"', 'system_user = "depoly"', "the account 'depoly'"),
        ('group = "ops"\ntag', 'group = "opps"\ntag', "the group 'opps'"),
        ('members = ["alice"]', 'members = ["alise"]', "the user 'alise'"),
        ('user = "alice", role', 'user = "alise", role', "the user 'alise'"),
        ("[[groups]]", '[[users]]\nname = "alice"\n[[groups]]', "'alice' stands twice"),
        ("[[repositories]]", '[[servers]]\nname = "web-1"\naddress = "192.0.2.9"\n[[repositories]]', "stands twice"),
        ('token = "a-token-of-alice"', 'token = "ninechars"', "at least 6 different"),
        ('token = "a-token-of-alice"', 'token = "aaaaaaaaaaaaaaaaaaaaaa"', "at least 6 different"),
        ('policies = ["codeartsrepo::*"]', 'policies = ["' + "*" * 300 + '"]', "1 to 256 characters"),
        ("id = 4242", 'id = "4242"', "whole number"),
        ('role = "developer"', 'role = "boss"', "role"),
        ("id = 4242", "id = 0", r"\[\[repositories\]\] number 1 \(acme/site\), line 22: id is at least 1"),
        ('role = "member"', "role = 7", "line 7: role takes a text"),
        ('members = ["alice"]', 'members = ["alice", 7]', "members.1 takes a text"),
        ('members = ["alice"]', 'members = "alice"', "members takes a list"),
        ('scopes = ["*"]', 'scope = ["*"]', r"unknown name 'scope' in \[tokens\]; known: expires_at, name, scopes"),
        ('user = "alice", role', 'users = "alice", role', r"unknown name 'users' in \[members\]; known: role, user"),
        ('secret = "a secret for signatures"', "secret = 7", "access_keys.0.secret takes a text"),
        ('address = "192.0.2.10"\n', "", "line 17: address is needed"),
        ('name = "web-1"', 'name = "17"', "line 17: .*a server's id; give it a letter"),
        (
            'server = "web-1"\n',
            'server = "web-1"\nexpires_at = 2026-12-24\n',
            "names no zone: write 2026-12-24T00:00:00Z",
        ),
        ('server = "web-1"\n', 'server = "web-1"\nexpires_at = "2026-W52-4T10:00Z"\n', "expires_at is no time"),
        ('server = "web-1"\n', 'server = "web-1"\nexpires_at = 2026-12-24T10:00:00+23:00\n', "14 hours"),
        ('server = "web-1"\n', 'server = "web-1"\nrestrictions = "pty"\n', "restrictions takes an object"),
    ],
)
def test_an_error_in_the_file_is_named(instance: Instance, old: str, new: str, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        workspace_apply.apply(instance, FILE.replace(old, new, 1), SECRETS)
    assert instance.database.read(workspaces.workspaces_by_name) == ()


def test_the_schema_accepts_every_valid_file(instance: Instance) -> None:
    schema = workspace_schema.json_schema()
    Draft202012Validator.check_schema(schema)
    judge = Draft202012Validator(schema)
    judge.validate(tomllib.loads(FILE))
    for old, new in (("address", "adress"), ("id = 4242", 'id = "4242"'), ('role = "member"', 'role = "king"')):
        assert not judge.is_valid(tomllib.loads(FILE.replace(old, new, 1)))
    shown = CliRunner().invoke(command, ["--schema"])
    assert (shown.exit_code, json.loads(shown.output)) == (0, schema)


def test_no_secret_is_kept_in_clear(instance: Instance) -> None:
    workspace_apply.apply(instance, FILE, SECRETS)
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
    workspace_apply.apply(instance, FILE, SECRETS)
    who = tokens.SignIn(password=SECRETS["ALICE"], user_name="alice", workspace_name="acme")
    signed_in = tokens.sign_in(instance, who, tokens.Scope(), address="203.0.113.9")
    assert bearer(instance, signed_in.secret) is not None
    users.change_password(instance, actors.system_actor(1), signed_in.user.id, "another password")
    assert bearer(instance, signed_in.secret) is None
    assert bearer(instance, "a-token-of-alice") is not None


def test_repository_paths_are_strict() -> None:
    for good in ("acme/site", "a/b/c", "acme/site.js", "acme/my_site-2"):
        assert repositories.path_of(good) == good
    for bad in ("site", "/acme/site", "acme/../x", "acme/.git", "acme/-x", "acme/site.git", "acme//x", "a/b\n", "", 5):
        with pytest.raises(Refusal):
            repositories.path_of(bad)


def test_the_workspace_keeps_its_name(instance: Instance) -> None:
    workspace_apply.apply(instance, FILE, SECRETS)
    found = instance.database.read(lambda connection: workspaces.workspace_by_name(connection, "acme"))
    assert found is not None


def test_a_new_workspace_gives_servers_the_ids_that_they_had(instance: Instance) -> None:
    """And ids that the database gives from then on are others; on PostgreSQL its sequence knows nothing of it."""
    numbered = FILE.replace('name = "web-1"\n', 'name = "web-1"\nid = 7\n').replace("id = 4242\n", "id = 3\n")
    workspace_apply.apply(instance, numbered, SECRETS)
    assert workspace_apply.apply(instance, numbered, SECRETS) == []
    actor = actors.system_actor(1)
    made = [servers.create(instance, actor, name=f"more-{number}", address="192.0.2.9").id for number in range(8)]
    assert min(made) > 7
    more = '[[servers]]\nname = "more"\nid = 70\naddress = "192.0.2.11"\n'
    with pytest.raises(Refusal, match="no server with the id 70"):
        workspace_apply.apply(instance, numbered + more, SECRETS)
    for number in range(5):
        done = workspace_apply.apply(instance, numbered + f'[[repositories]]\npath = "acme/more-{number}"\n', SECRETS)
        assert done == [f"create repository acme/more-{number}: no members"]


def test_ids_as_high_as_any_that_are_taken_stand_beside_low_ones(instance: Instance) -> None:
    numbered = FILE.replace('name = "web-1"\n', f'name = "web-1"\nid = {HIGH}\n').replace(
        "id = 4242\n", f"id = {HIGH}\n"
    )
    low = """
[[servers]]
name = "web-2"
id = 5
address = "192.0.2.11"
[[repositories]]
path = "acme/two"
id = 5
members = [{ user = "alice", role = "viewer" }]
"""
    workspace_apply.apply(instance, numbered + low, SECRETS)
    assert damaged(instance, actors.system_actor(1)) == []
    assert workspace_apply.apply(instance, numbered + low, SECRETS) == []
    assert servers.create(instance, actors.system_actor(1), name="next", address="192.0.2.12").id > HIGH


def test_an_id_that_leaves_none_for_later_servers_is_refused(instance: Instance) -> None:
    beyond = FILE.replace('name = "web-1"\n', f'name = "web-1"\nid = {HIGH + 1}\n')
    with pytest.raises(Refusal, match=str(HIGH)):
        workspace_apply.apply(instance, beyond, SECRETS)


SEVERAL = """
[[grants]]
user = "alice"
all = true
system_user = "deploy"
reason = "on call"
[[grants]]
user = "alice"
tag = "later"
system_user = "deploy"
[[grants]]
user = "alice"
tag = "later"
system_user = "deploy"
expires_at = YEAR-01-01T00:00:00Z
restrictions = { sources = ["192.0.2.0/24"] }
""".replace("YEAR", str(datetime.now(UTC).year + 3))


def test_several_terms_of_one_login_stand_side_by_side(instance: Instance) -> None:
    text = FILE.replace('name = "acme"\n', 'name = "acme"\ntags = ["later"]\n', 1) + SEVERAL
    assert len([words for words in workspace_apply.apply(instance, text, SECRETS) if "let in alice" in words]) == 4
    assert workspace_apply.apply(instance, text, SECRETS, prune=True) == []
    fewer = text[: text.rindex("[[grants]]")]
    left: list[str] = []
    assert workspace_apply.apply(instance, fewer, SECRETS, left=left.append) == []
    assert left == ["take back another login of alice as deploy on tag later, on other terms"]
    assert workspace_apply.apply(instance, fewer, SECRETS, prune=True) == left
    without = fewer.replace(SEVERAL[: SEVERAL.index("tag")].rpartition("[[grants]]")[0], "\n")
    assert workspace_apply.apply(instance, without, SECRETS, prune=True) == [
        "take back the login of user alice as deploy on all servers"
    ]
    with pytest.raises(Refusal, match="the tag 'latter' is named"):
        workspace_apply.apply(instance, text.replace('tag = "later"', 'tag = "latter"'), SECRETS)


KNOWN = {one["name"]: one["line"] for one in records("keys_valid.jsonl")}
RSA, LONGER_RSA = KNOWN["rsa-2048-e35"], KNOWN["rsa-4096"]


def with_policy(*values: str) -> str:
    """The file, which says which keys are accepted."""
    return "\n".join((FILE, "[key_policy]", *values, ""))


def test_a_file_says_which_keys_are_accepted(instance: Instance) -> None:
    rsa = f'[[users]]\nname = "bob"\nkeys = [{{ public_key = "{RSA}" }}]\n'
    first = with_policy('key_types = ["ssh-ed25519", "ssh-rsa"]', "rsa_minimum_bits = 3072") + rsa
    assert workspace_apply.apply(instance, first, SECRETS)[-1] == (
        "accept keys of ssh-ed25519, ssh-rsa, RSA of at least 3072 bits"
    ), "behind the keys that it names"
    assert workspace_apply.apply(instance, first, SECRETS) == []
    owner = actors.system_actor(1)
    assert key_policy.get(instance, owner).own_bits == 3072
    assert workspace_apply.apply(instance, FILE, SECRETS, prune=True) == [], "a file without it leaves it"
    # An RSA key is refused now, until a file says otherwise, which then may name one at once.
    other = rsa.replace("bob", "carol").replace(RSA, LONGER_RSA)
    ed25519_alone = with_policy('key_types = ["ssh-ed25519"]', "rsa_minimum_bits = 3072")
    assert workspace_apply.apply(instance, ed25519_alone, SECRETS) == [
        "accept keys of ssh-ed25519, RSA of at least 3072 bits"
    ]
    with pytest.raises(Refusal, match="ssh-rsa"):
        workspace_apply.apply(instance, ed25519_alone + other, SECRETS)
    looser = with_policy() + other
    changes = workspace_apply.apply(instance, looser, SECRETS)
    assert changes[0] == "accept keys of the types that the service accepts"
    assert len(changes) == 3
    assert workspace_apply.apply(instance, looser, SECRETS) == []
    assert key_policy.get(instance, owner).own_bits is None


def test_a_file_that_is_looser_and_stricter_is_obeyed_in_two_steps(instance: Instance) -> None:
    before = with_policy('key_types = ["ssh-ed25519"]')
    workspace_apply.apply(instance, before, SECRETS)
    after = with_policy('key_types = ["ssh-rsa"]', "rsa_minimum_bits = 3072")
    named = f'[[users]]\nname = "bob"\nkeys = [{{ public_key = "{RSA}" }}, {{ public_key = "{fresh_line()}" }}]\n'
    changes = workspace_apply.apply(instance, after + named, SECRETS)
    assert changes[0] == "accept keys of ssh-ed25519, ssh-rsa, RSA of at least 2048 bits"
    assert changes[-1] == "accept keys of ssh-rsa, RSA of at least 3072 bits"
    assert key_policy.get(instance, actors.system_actor(1)).types == ("ssh-rsa",)
    # One that others changed in the database is set anew, whole.
    instance.database.write(lambda connection: connection.execute(update(key_policies).values(rsa_minimum_bits=2048)))
    again = workspace_apply.apply(instance, after + named, SECRETS)
    assert again == ["accept keys of ssh-rsa, RSA of at least 3072 bits"]
    assert not key_policy.get(instance, actors.system_actor(1)).damaged


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("key_types = []",), "at least one type"),
        (('key_types = ["ssh-dss"]',), "was started to accept"),
        (("rsa_minimum_bits = 1024",), "with which the service was started"),
        (('rsa_minimum_bits = "3072"',), "rsa_minimum_bits takes a whole number"),
        (("bits = 3072",), "unknown name 'bits' in .key_policy."),
    ],
)
def test_an_invalid_key_policy_is_refused(instance: Instance, values: tuple[str, ...], words: str) -> None:
    with pytest.raises(Refusal, match=words):
        workspace_apply.apply(instance, with_policy(*values), SECRETS)
    assert instance.database.read(workspaces.workspaces_by_name) == ()


def test_a_file_without_a_workspace_is_refused_with_what_to_write(instance: Instance) -> None:
    words = r'^Nothing was applied\. The file lacks \[workspace\]; write it with the name of yours: name = "acme"\.$'
    with pytest.raises(Refusal, match=words):
        workspace_apply.apply(instance, "", {})
