"""A server's life through RunCloud's API alone: created, installed as printed, used, and deleted, with a real sshd."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.login.contained_host import Machine, machine
from tests.login.private_sshd import Key, strict_folder
from tests.ports import free_port
from tests.services import Service
from tests.waiting import wait_until

PASSWORD = "correct horse battery"


class Caller:
    """A program that knows RunCloud's API, and one server."""

    def __init__(self, service: Service) -> None:
        self._service = service
        created = self.ask("POST", "/servers", {"name": "shop-1", "ipAddress": "127.0.0.1"})
        self.server = f"/servers/{created['id']}"
        assert (created["connected"], created["online"]) == (False, False)

    def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """One call and what it answers."""
        answer = self._service.call(method, f"/api/v3{path}", token="token-of-olga", json=body)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def here(self, method: str, path: str = "", body: Any = None) -> Any:
        """One call about the server."""
        return self.ask(method, self.server + path, body)


@pytest.fixture
def host() -> Iterator[Machine]:
    """A host of its own that nobody has enrolled."""
    with strict_folder() as folder, machine(folder, free_port()) as made:
        yield made


def account_of(host: Machine, name: str) -> str:
    """An account's line of the host's password file, "" where there is none."""
    return host.run(f"getent passwd {name}", check=False).strip()


def test_a_server_is_created_installed_used_and_deleted(team: Service, host: Machine, tmp_path: Path) -> None:
    caller = Caller(team)
    key = Key.make(tmp_path / "key")
    early = caller.here("POST", "/ssh/credentials", {"label": "early", "username": "root", "publicKey": key.public})
    assert (early["state"], early["delivered_at"]) == ("pending", None)
    assert not host.client.lets_in(key, "root")

    install_as_printed(caller, host)
    wait_until(lambda: caller.here("GET", f"/ssh/credentials/{early['id']}")["state"] == "delivered", "delivery")
    host.client.wait_until_open(key, "root")
    gone = caller.here("DELETE", f"/ssh/credentials/{early['id']}")
    assert gone["label"] == "early"
    host.client.wait_until_closed(key, "root")

    user = make_the_system_user(caller, host)
    added = caller.here("POST", "/ssh/credentials", {"label": "ci", "username": "shop", "publicKey": key.public})
    host.client.wait_until_open(key, "shop")
    assert host.client.login(key, "shop", "id -un").stdout == "shop\n"
    change_ssh_config(caller, host)
    end_a_session(caller, host, key)
    assert host.client.lets_in(key, "shop")

    caller.here("DELETE", f"/ssh/credentials/{added['id']}")
    host.client.wait_until_closed(key, "shop")
    delete_the_system_user(caller, host, user)

    last = caller.here("POST", "/ssh/credentials", {"label": "last", "username": "root", "publicKey": key.public})
    assert caller.here("DELETE")["name"] == "shop-1"
    caller.ask("GET", caller.server, status=404)
    caller.ask("GET", f"{caller.server}/ssh/credentials/{last['id']}", status=404)


def install_as_printed(caller: Caller, host: Machine) -> None:
    """Run the line exactly as the API answers it; then the server is connected and online."""
    host.run(caller.here("GET", "/installationscript")["script"])
    wait_until(lambda: (now := caller.here("GET"))["connected"] and now["online"], "an enrolled and online server")
    now = caller.here("GET")
    assert now["os"]
    assert now["agentVersion"]
    wait_until(lambda: host.effective()["authorizedkeysfile"] == "/etc/ssh/keyrack/keys/%u", "enforcing")


def make_the_system_user(caller: Caller, host: Machine) -> Any:
    """Create one with a password and a deployment key; it is really there, and can be used."""
    assert account_of(host, "shop") == ""
    user = caller.here("POST", "/users", {"username": "shop", "password": PASSWORD})
    path = f"/users/{user['id']}"
    wait_until(lambda: caller.here("GET", path)["state"] == "present", "the account")
    assert account_of(host, "shop").startswith("shop:")
    assert takes_password(host, "shop", PASSWORD)

    caller.here("PATCH", f"{path}/password", {"password": "another battery staple"})
    wait_until(lambda: takes_password(host, "shop", "another battery staple"), "the new password")
    assert not takes_password(host, "shop", PASSWORD)

    line = caller.here("PATCH", f"{path}/deploymentkey")["deploymentKey"]
    if line is None:  # on a busy machine the answer does not wait for as long as the host takes
        wait_until(lambda: caller.here("GET", path)["deploymentKey"] is not None, "the deployment key")
        line = caller.here("GET", path)["deploymentKey"]
    assert host.run("cat /home/shop/.ssh/id_*.pub").split()[:2] == line.split()[:2]
    assert host.run("stat -c %a:%U /home/shop/.ssh/id_ed25519").strip() == "600:shop"
    assert caller.here("PATCH", f"{path}/deploymentkey")["deploymentKey"] == line
    return user


def takes_password(host: Machine, account: str, password: str) -> bool:
    """Whether the host's own shadow file holds this password."""
    hashed = host.run(f"getent shadow {account}").split(":")[1]
    script = "print crypt($ARGV[0], $ARGV[1]) eq $ARGV[1] ? 1 : 0"
    ended = subprocess.run(["perl", "-e", script, password, hashed], check=True, capture_output=True, timeout=60)
    return ended.stdout == b"1"


def change_ssh_config(caller: Caller, host: Machine) -> None:
    """Each setting reaches sshd, both ways, and leaves RunCloud's entry in the log."""
    names = {"passwordlessLogin": "passwordauthentication", "preventRootLogin": "permitrootlogin", "useDns": "usedns"}
    before = host.effective()
    assert [before[name] for name in names.values()] == ["yes", "yes", "no"]
    for wish, values in ((True, ["no", "no", "yes"]), (False, ["yes", "yes", "no"])):
        answer = caller.here("PATCH", "/ssh/config", dict.fromkeys(names, wish))
        assert [answer[name] for name in names] == [wish] * 3

        def done(values: list[str] = values) -> bool:
            now = host.effective()
            return [now[name] for name in names.values()] == values

        wait_until(done, f"{values} in sshd -T")
        wait_until(lambda: caller.here("GET", "/ssh/config")["state"] == "applied", "the host's word")
    entry = caller.here("GET", "/logs?search=Updated SSHD Config")["data"][0]
    assert (entry["kind"], entry["content"]) == ("High Priority Info", "Updated SSHD Config")


def end_a_session(caller: Caller, host: Machine, key: Key) -> None:
    """A login is listed with its key's label; ended through the API, it is cut and leaves the list."""
    with subprocess.Popen(
        host.client.command(key, "shop", "echo in; sleep 600"), stdout=subprocess.PIPE, text=True
    ) as ssh:
        try:
            assert ssh.stdout is not None
            assert ssh.stdout.readline() == "in\n"
            wait_until(lambda: caller.here("GET", "/ssh/sessions")["data"], "the session")
            (session,) = caller.here("GET", "/ssh/sessions")["data"]
            assert (session["user"], session["label"], session["ending"]) == ("shop", "ci", False)
            assert session["ipAddress"] == "127.0.0.1"
            assert caller.here("DELETE", f"/ssh/sessions/{session['id']}")["id"] == session["id"]
            wait_until(lambda: ssh.poll() is not None, "the end of the login")
            wait_until(lambda: caller.here("GET", "/ssh/sessions")["data"] == [], "an empty list")
            wait_until(lambda: host.run("pgrep -u shop sleep", check=False) == "", "the end of what it ran")
        finally:
            ssh.kill()


def delete_the_system_user(caller: Caller, host: Machine, user: Any) -> None:
    """With its keys, from the API and from the host; what was there before Keyrack stays."""
    caller.here("POST", "/ssh/credentials", {"label": "rest", "username": "shop", "publicKey": KEY})
    caller.here("DELETE", f"/users/{user['id']}")
    assert caller.here("GET", "/ssh/credentials")["data"] == []
    wait_until(lambda: account_of(host, "shop") == "", "the removal of the account")
    assert "rest" not in host.run("cat /etc/ssh/keyrack/keys/* 2>/dev/null", check=False)
    assert account_of(host, "root").startswith("root:")


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO5DMk8t/B0JZ0O3RCSbK5j5ekvQinGKsITyWjyzcbv7"
