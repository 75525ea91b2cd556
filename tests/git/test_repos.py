"""`keyrack repos` as an operator uses it, and the repository it makes as a user uses that."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from keyrack.cli.main import main
from tests.git.people import Site, start_host
from tests.git.test_rights import push
from tests.login.private_sshd import strict_folder
from tests.services import Service


def repos(site: Site, *arguments: str) -> Result:
    """Run `keyrack repos …` on the site's data."""
    data = str(site.service.instance.settings.data)
    return CliRunner().invoke(main, ["repos", *arguments, "--data", data])


def test_create_use_and_list(site: Site) -> None:
    made = repos(site, "create", "acme/shop", "--workspace", "acme", "--member", "alice=developer")
    assert made.exit_code == 0, made.output
    assert made.stdout.strip().endswith("/acme/shop.git")
    alice = site.person("alice", token="token-of-alice")
    assert push(alice, "acme/shop").code == 0
    # Created again it is as it was, with its members.
    assert repos(site, "create", "acme/shop", "--workspace", "acme").exit_code == 0
    assert push(alice, "acme/shop").code == 0
    listed = repos(site, "list", "--workspace", "acme")
    titles, row = (line.split() for line in listed.stdout.splitlines())
    assert titles == ["ID", "PATH", "VISIBILITY", "BRANCH", "FOLDER", "WORKSPACE"]
    _, path, visibility, _, folder, workspace = row
    assert (path, visibility, workspace) == ("acme/shop", "0", "acme")
    assert (Path(folder) / "HEAD").exists()


def test_an_impossible_command_is_refused_in_words(site: Site) -> None:
    for words, said in (
        (("create", "acme/shop"), "--workspace"),
        (("create", "../shop", "--workspace", "acme"), "GROUP/NAME"),
        (("create", "acme/shop", "--workspace", "acme", "--member", "nobody=viewer"), "no such user: 'nobody'"),
        (("create", "acme/shop", "--workspace", "acme", "--member", "alice=king"), "viewer, developer"),
        (("list", "--workspace", "nowhere"), "acme"),
    ):
        ended = repos(site, *words)
        assert ended.exit_code != 0, words
        assert said in ended.output, ended.output
        assert "Traceback" not in ended.output


def test_a_folder_with_a_long_and_awkward_name(team: Service, tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    with strict_folder() as folder:
        host = start_host(team, folder / ("it's a longer name " + "x" * 80))
        try:
            site = Site(team, host, tmp_path / "people")
            site.repository("acme/site", alice="developer")
            assert push(site.person("alice", token="token-of-alice"), "acme/site").code == 0
        finally:
            host.stop()
