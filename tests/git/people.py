"""A running Git host, and people with keys of their own who use the real git and ssh against it."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from keyrack.core.git import repositories
from keyrack.core.people import actors
from keyrack.git import build
from keyrack.git.host import GitHost
from keyrack.model import EventFilter, Window
from keyrack.store.audit import events as event_rows
from keyrack.store.git import repositories as repository_rows
from keyrack.store.git.repositories import Repository
from keyrack.store.people import users as user_rows
from tests.ports import free_port
from tests.quick_ssh import KEX, quick_host_key, quick_pair
from tests.services import Service

SECONDS = 120


@dataclass
class Ended:
    """How a program ended: its exit code and all it said."""

    code: int
    said: str
    out: bytes


@dataclass
class Person:
    """A user with a key pair, and a folder to work in."""

    site: Site
    name: str
    key: Path
    folder: Path
    key_id: int = 0
    options: list[str] = field(default_factory=list)

    @property
    def public(self) -> str:
        """The public key's line."""
        return self.key.with_suffix(".pub").read_text("ascii").strip()

    @property
    def fingerprint(self) -> str:
        """SHA256:…, as ssh-keygen says it."""
        listed = run(["ssh-keygen", "-l", "-f", str(self.key)])
        return listed.said.split(" ")[1]

    def ssh_words(self) -> list[str]:
        """ssh with this key alone."""
        return [
            "ssh",
            "-F",
            "/dev/null",
            *self.options,  # before the others, as the first of a kind counts
            "-p",
            str(self.site.host.port),
            "-o",
            KEX,
            *quick_host_key(self.folder / "known_hosts"),
            "-i",
            str(self.key),
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "IdentityAgent=none",
            "-o",
            "BatchMode=yes",
            "-o",
            f"UserKnownHostsFile={self.folder / 'known_hosts'}",
            "-o",
            "StrictHostKeyChecking=yes",
        ]

    def environment(self) -> dict[str, str]:
        """What git needs to be this person."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_SSH_COMMAND": " ".join(self.ssh_words()),
            "GIT_AUTHOR_NAME": self.name,
            "GIT_AUTHOR_EMAIL": f"{self.name}@example.com",
            "GIT_COMMITTER_NAME": self.name,
            "GIT_COMMITTER_EMAIL": f"{self.name}@example.com",
            "GIT_TERMINAL_PROMPT": "0",
            # What is random does not get smaller, however hard it is tried.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "core.compression",
            "GIT_CONFIG_VALUE_0": "1",
        }

    def git(self, *arguments: str, where: Path | None = None) -> Ended:
        """Run git as this person."""
        return run(["git", *arguments], environment=self.environment(), where=where or self.folder)

    def ssh(self, *command: str, options: tuple[str, ...] = (), stdin: bytes = b"") -> Ended:
        """Run ssh as this person, with options before the host and a command after it."""
        words = [*self.ssh_words(), *options, f"{self.site.host.username}@127.0.0.1", *command]
        return run(words, stdin=stdin)

    def url(self, path: str) -> str:
        """The clone address of a repository."""
        return self.site.host.url(path)

    def commit(self, clone: Path, name: str, data: bytes = b"text\n") -> None:
        """Add a file to a clone and commit it."""
        (clone / name).write_bytes(data)
        assert self.git("add", name, where=clone).code == 0
        ended = self.git("commit", "-q", "-m", f"Add {name}", where=clone)
        assert ended.code == 0, ended.said


@dataclass
class Site:
    """A service, a Git host beside it, and a folder for people."""

    service: Service
    host: GitHost
    folder: Path

    def person(self, name: str, *, token: str | None = None, key_type: str = "ed25519") -> Person:
        """Somebody with a new key pair; token: registers the key through CodeArts' API."""
        folder = self.folder / f"{name}-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        key = folder / "key"
        if key_type == "ed25519":
            quick_pair(key, name)
        else:
            made = run(["ssh-keygen", "-q", "-t", key_type, "-N", "", "-C", name, "-f", str(key)])
            assert made.code == 0, made.said
        (folder / "known_hosts").write_bytes(self.host.known_hosts.read_bytes())
        person = Person(self, name, key, folder)
        if token is not None:
            person.key_id = self.register(token, person.public)
        return person

    def register(self, token: str, public: str) -> int:
        """Post a key to CodeArts' API; its id."""
        body = {"title": "laptop", "key": public}
        answer = self.service.call("POST", "/v4/user/keys", json=body, headers={"X-Auth-Token": token})
        assert answer.status_code in (200, 201), answer.text
        return int(answer.json()["id"])

    def unregister(self, token: str, key_id: int) -> None:
        """Delete a key through CodeArts' API."""
        answer = self.service.call("DELETE", f"/v4/user/keys/{key_id}", headers={"X-Auth-Token": token})
        assert answer.status_code == 204, answer.text

    def repository(self, path: str, **roles: str) -> Repository:
        """Make a repository of the workspace acme with these members, e.g. alice="developer"."""
        instance = self.service.instance
        members = {self.user_id(name): role for name, role in roles.items()}
        repositories.ensure(instance, actors.system_actor(1), path=path, members=members)
        found = instance.database.read(lambda connection: repository_rows.by_path(connection, path))
        assert found is not None
        return found

    def user_id(self, name: str) -> int:
        """The id of a user of the workspace acme."""
        user = self.service.instance.database.read(lambda connection: user_rows.user_by_name(connection, 1, name))
        assert user is not None
        return user.id

    def events(self, workspace_id: int = 1) -> list[tuple[str, str, str, str]]:
        """What the log says of Git, oldest first: actor, action, outcome, summary."""
        if self.host.authorizer is not None:
            self.host.authorizer.log.write()  # which otherwise happens twice a second
        found = self.service.instance.database.read(
            lambda connection: event_rows.find(connection, workspace_id, EventFilter(), Window(1000))
        )
        return [
            (event.actor_name, event.action, event.outcome, event.summary)
            for event in reversed(found.items)
            if event.channel == "git"
        ]


def freeze(site: Site, person: Person) -> None:
    """Freeze a person's keys, until they are confirmed."""
    body = {"user": person.name}
    answer = site.service.call("POST", "/api/keyrack/v1/freezes", json=body, token="token-of-olga")
    assert answer.status_code == 202, answer.text


def run(
    words: list[str], *, environment: dict[str, str] | None = None, where: Path | None = None, stdin: bytes = b""
) -> Ended:
    """Run a program to its end; never a shell."""
    ended = subprocess.run(
        words,
        input=stdin,
        capture_output=True,
        env=environment,
        cwd=where,
        check=False,
        timeout=SECONDS,
    )
    return Ended(ended.returncode, (ended.stdout + ended.stderr).decode("utf-8", "replace"), ended.stdout)


def start_host(service: Service, folder: Path, *, compiler: str | None = None) -> GitHost:
    """A Git host on a free port of loopback. compiler: as build() has it; None: what was compiled once, copied."""
    if compiler is None:
        shutil.copytree(_programs(), folder / "programs", dirs_exist_ok=True)
    host = GitHost(service.instance, port=free_port(), directory=folder, compiler=compiler)
    host.start()
    return host


@cache
def _programs() -> Path:
    """The programs that sshd and git start, compiled once for all hosts of this process."""
    folder = Path(tempfile.mkdtemp(prefix="keyrack-programs-"))
    atexit.register(shutil.rmtree, folder)
    build.build(folder)
    return folder
