"""From the browser to a real login and its end: real Chromium, service, agent, sshd and ssh."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from keyrack.core.hosts import servers, system_users
from keyrack.core.keys import grants
from keyrack.core.people import actors, users
from tests.console.conftest import SignedIn
from tests.login.contained_host import Machine, machine
from tests.login.private_sshd import USERNAME, Key, SshClient, agent_host, strict_folder
from tests.ports import free_port
from tests.quick_ssh import KEX
from tests.services import Service
from tests.waiting import wait_until

KEYRACK = actors.system_actor(1)
HOST = "shop-2"
LONGEST_WAIT_MILLISECONDS = 180_000
# A form's end is of whole minutes: the next one that leaves time for a login before it, in the browser's own zone.
SOON = """() => {
  const at = new Date(Math.ceil((Date.now() + 25000) / 60000) * 60000);
  return new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}"""


@pytest.fixture
def bare_host() -> Iterator[Machine]:
    """A host of its own, with an account shop, that nobody has enrolled."""
    with strict_folder() as folder, machine(folder, free_port()) as made:
        made.run("useradd -m -s /bin/sh -p '*' shop")
        yield made


@pytest.fixture(scope="module")
def standing_host(console: Service) -> Iterator[SshClient]:
    """A host that enforces, where bob may log in: the real agent beside a private sshd, one for the file."""
    server = servers.create(console.instance, KEYRACK, name=HOST, address="127.0.0.1")
    if USERNAME != "root":
        system_users.create(console.instance, KEYRACK, server.id, username=USERNAME)
    bob = next(user for user in users.find(console.instance, KEYRACK) if user.name == "bob")
    grants.give(console.instance, KEYRACK, user_id=bob.id, server_id=server.id, system_user=USERNAME)
    token = servers.invite(console.instance, KEYRACK, server.id)
    with strict_folder() as folder, agent_host(folder, console.url, token) as (_, client):
        yield client


def sign_in(page: Page, name: str) -> None:
    """As a person does, by password."""
    page.context.clear_cookies()
    page.goto("/login")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(f"{name}'s password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("navigation", name="Console", exact=True)).to_be_visible()


def pasted(line: str, key: Key, host: SshClient, folder: Path) -> bool:
    """Whether a shell lets this key in by a line as it is shown; ssh has key and host key at home."""
    config = folder / "ssh_config"
    config.write_text(
        f"IdentityFile {key.path}\nIdentitiesOnly yes\nBatchMode yes\n"
        f"UserKnownHostsFile {host.known_hosts}\n{KEX.replace('=', ' ')}\n"
    )
    shell = f'ssh() {{ command ssh -F "{config}" "$@"; }}; {line} true'
    ended = subprocess.run(["bash", "-c", shell], stdin=subprocess.DEVNULL, check=False, timeout=60)
    return ended.returncode == 0


@contextmanager
def logged_in(host: SshClient, key: Key, user: str) -> Iterator[subprocess.Popen[bytes]]:
    """A login that stays, once the host lets this key in. It is the key's first: one to try it, which ends at once, may
    be listed until the agent's next report, in place of this.
    """
    given = host.command(key, user, "echo in; exec sleep 600")
    started: list[subprocess.Popen[bytes]] = []

    def is_in() -> bool:
        ssh = subprocess.Popen(given, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        started.append(ssh)
        assert ssh.stdout is not None
        return ssh.stdout.readline() == b"in\n"

    try:
        wait_until(is_in, f"a login as {user}")
        yield started[-1]
    finally:
        for ssh in started:
            ssh.kill()
            ssh.communicate()


def test_a_host_comes_by_the_line_that_is_shown_is_enforced_and_a_login_on_it_ended(
    page: Page, console: Service, bare_host: Machine, tmp_path: Path
) -> None:
    by_hand, key = Key.make(tmp_path / "by-hand"), Key.make(tmp_path / "key")
    bare_host.run("install -d -o shop -m 700 /home/shop/.ssh")
    bare_host.run(f"echo '{by_hand.public} a-contractor' >/home/shop/.ssh/authorized_keys")
    sign_in(page, "olga")
    page.goto("/hosts")
    page.get_by_role("button", name="Add host").click()
    page.get_by_label("Name").fill("shop-1")
    page.get_by_label("Address").fill("127.0.0.1")
    page.get_by_role("button", name="Add host").click()
    expect(page.get_by_text("Waiting for the host…")).to_be_visible()
    bare_host.run(page.locator("main pre").inner_text())
    # The open page hears it, without being loaded anew.
    expect(page.locator("#arrival")).to_contain_text("shop-1 is here")
    page.get_by_role("link", name="See who gets in").click()
    expect(page.get_by_role("table", name="Unmanaged keys")).to_contain_text("a-contractor")
    address = page.url

    page.get_by_text("Add an account").click()
    page.get_by_label("Account", exact=True).fill("shop")
    page.get_by_label("The host has it already").check()
    page.get_by_role("button", name="Add account").click()
    expect(page.get_by_role("heading", name="Add shop to shop-1?")).to_be_visible()
    page.get_by_role("button", name="Add account").click()
    expect(page.locator("#messages")).to_contain_text("The account shop may be named")
    page.get_by_role("link", name="Put a key on an account").click()
    page.get_by_label("Public key").fill(key.public)
    page.get_by_label("Account").select_option("shop")
    page.get_by_label("Label").fill("of the shop")
    page.get_by_role("main").get_by_role("button", name="Add key").click()
    expect(page.get_by_role("table", name="Access")).to_contain_text("of the shop")
    expect(page.get_by_role("main")).to_contain_text("nothing of it is in force before this host enforces")
    assert not bare_host.client.lets_in(key, "shop")
    assert bare_host.client.lets_in(by_hand, "shop"), "who only observes shuts nobody out"

    page.get_by_role("button", name="Enforce").click()
    expect(page.get_by_role("main")).to_contain_text("a-contractor")
    page.get_by_role("main").get_by_role("button", name=re.compile("^Enforce")).click()
    bare_host.client.wait_until_closed(by_hand, "shop")

    page.goto(address)
    with logged_in(bare_host.client, key, "shop") as inside:
        login = page.get_by_role("table", name="Sessions").get_by_role("row").filter(has_text="of the shop")
        login.get_by_role("button", name="End the login of shop").click()
        page.get_by_role("button", name="End this login on shop-1").click()
        assert inside.wait(60) != 0
    expect(page.get_by_text("Nobody is logged in.")).to_be_visible()


def test_the_first_visit_ends_in_a_login_by_the_line_that_is_shown(
    page: Page, standing_host: SshClient, tmp_path: Path
) -> None:
    key = Key.make(tmp_path / "key")
    page.goto("/login")
    page.get_by_label("User name").fill("bob")
    page.get_by_label("Password").fill("bob's password")
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile("/welcome$"))
    page.get_by_label("Present password").fill("bob's password")
    page.get_by_label("New password", exact=True).fill("a password of my own")
    page.get_by_label("New password once more").fill("a password of my own")
    page.get_by_role("button", name="Change password").click()
    assert not standing_host.lets_in(key)
    page.get_by_label("Public key").fill(key.public)
    page.get_by_role("button", name="Add key").click()
    # The open page hears it, and then the line holds what it promises.
    expect(page.get_by_text(f"in force on {HOST}")).to_be_visible()
    shown = page.locator("#lines pre").inner_text().strip()
    assert shown == f"ssh -p {standing_host.port} {USERNAME}@127.0.0.1"
    assert pasted(shown, key, standing_host, tmp_path)


def test_a_temporary_key_opens_until_its_end_alone(
    page: Page, signed_in: SignedIn, standing_host: SshClient, tmp_path: Path
) -> None:
    key = Key.make(tmp_path / "key")
    signed_in(page, "bob").goto("/keys?add=1")
    page.get_by_label("Public key").fill(key.public)
    page.get_by_label("Title").fill("borrowed laptop")
    page.get_by_label("Ends").select_option("date")
    page.get_by_label("Day and time").fill(page.evaluate(SOON))
    page.get_by_role("button", name="Add key").click()
    expect(page.locator("#delivery")).to_contain_text("In force on 1 host")
    assert standing_host.lets_in(key)
    # Nobody presses anything: its end comes, is said on the open page, and the host refuses the key by itself.
    expect(page.locator("#delivery")).to_contain_text("It has ended", timeout=LONGEST_WAIT_MILLISECONDS)
    assert not standing_host.lets_in(key)


def test_a_key_opens_a_login_and_remove_ends_it(
    page: Page, signed_in: SignedIn, standing_host: SshClient, tmp_path: Path
) -> None:
    key = Key.make(tmp_path / "key")
    # The owner lets her in, after a preview of what that does.
    signed_in(page, "olga").goto("/access/grant")
    page.get_by_label("Their name").fill("alice")
    page.get_by_label("Host or tag").fill(HOST)
    page.get_by_label("Account").fill(USERNAME)
    page.get_by_role("button", name="See what it does").click()
    page.get_by_role("button", name="Grant access").click()
    expect(page.locator("#messages")).to_contain_text(f"alice may log in as {USERNAME} on {HOST}")
    assert not standing_host.lets_in(key)

    page.context.clear_cookies()
    signed_in(page, "alice").goto("/keys")
    page.get_by_role("button", name="Add key").click()
    page.get_by_label("Public key").fill(key.public)
    page.get_by_label("Title").fill("laptop")
    page.get_by_role("button", name="Add key").click()
    expect(page.locator("#delivery")).to_contain_text("In force on 1 host")
    assert standing_host.lets_in(key)

    page.get_by_role("button", name=re.compile("^Remove this key")).click()
    page.get_by_role("heading", name=re.compile("^Remove your key")).wait_for()
    page.get_by_role("button", name=re.compile("^Remove this key")).click()
    expect(page.locator("#messages")).to_contain_text("is removed")
    # Whether that is true by now is said as soon as the host says so.
    expect(page.locator("#removed")).to_contain_text("Refused on 1 host that it opened")
    standing_host.wait_until_closed(key)
