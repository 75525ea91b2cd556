"""`keyrack up`: try everything on this machine, service and demo host; must not be used in production."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from keyrack.app import open_instance
from keyrack.cli import options
from keyrack.cli.connection.explained import explained, unanswered
from keyrack.cli.connection.operator import operator
from keyrack.cli.machine.alone import alone, serving_alone, serving_git_alone
from keyrack.cli.machine.demo_host import DemoHost
from keyrack.cli.machine.serve import check_free, set_up_logging, uvicorn_arguments
from keyrack.cli.machine.stopping import Stopping
from keyrack.core.hosts import servers
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials
from keyrack.core.people import actors
from keyrack.core.workspace import first_start
from keyrack.core.workspace.first_start import FirstAdmin
from keyrack.errors import Refusal
from keyrack.git.host import GitHost
from keyrack.model import Server
from keyrack.private_sshd import HOW_TO_GET_SSHD, PrivateSshdError, end_left_over, find_sshd, safe_place
from keyrack.serving import web_application
from keyrack.settings import Settings
from keyrack.store.database import DatabaseUnavailable
from keyrack.web import listening

READY_SECONDS = 30.0
LOCK = "demo.lock"
DEMO_FILE = "demo.json"
PREVIOUS_DEMO_FILE = "demo.json.before"
LABEL = "my-laptop"


@click.command(name="up")
@options.listen
@options.data
@options.public_url
@click.option(
    "--sshd-port",
    default=2222,
    show_default=True,
    envvar="KEYRACK_SSHD_PORT",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="The demo host's SSH port on loopback.",
)
@click.option(
    "--git-port",
    default=2223,
    show_default=True,
    envvar="KEYRACK_GIT_PORT",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="The port of Git over SSH on loopback.",
)
def command(sshd_port: int, git_port: int, **given: Any) -> None:
    """Try Keyrack: service, embedded database and a demo host with an sshd of its own, all on loopback.

    Prints a curl line that registers a key and an ssh line that logs in with it, and writes DIR/demo.json
    once it is ready. Stop it with Ctrl-C; started again, it goes on with the same data.
    """
    # The APIs make clone addresses from this setting.
    settings = options.settings(**given, git_listen=f"127.0.0.1:{git_port}")
    set_up_logging()
    with explained():
        data = settings.data.resolve()
        check_free((*settings.host_and_port, "--listen"))
        _end_left_over(data, sshd_port)
        check_free(
            (*settings.host_and_port, "--listen"),
            ("127.0.0.1", sshd_port, "--sshd-port"),
            ("127.0.0.1", git_port, "--git-port"),
        )
    with contextlib.ExitStack() as held:
        with explained():
            held.enter_context(_alone(data))
            held.enter_context(serving_alone(settings))
            instance = open_instance(settings)
        _run(instance, sshd_port, git_port)


def _run(instance: Instance, sshd_port: int, git_port: int) -> None:
    """Run everything until it is stopped; exits with words where it cannot."""
    try:
        Demo(instance, sshd_port, git_port).run()
    except Refusal as refusal:
        raise click.ClickException(refusal.message) from None
    except DatabaseUnavailable as error:
        raise unanswered(error) from None
    except PrivateSshdError as error:
        raise click.ClickException(str(error)) from None
    finally:
        instance.database.close()


def _end_left_over(data: Path, sshd_port: int) -> None:
    """End what an earlier run that was killed has left running, as it holds the ports."""
    if (data / LOCK).exists():
        with contextlib.suppress(PrivateSshdError), _alone(data):
            if (sshd := find_sshd()) is not None:
                DemoHost(data / "demo-host", sshd_port, sshd).end_left_over()
            end_left_over(safe_place(data / "git-host"))


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Hold the data folder, as two runs would end each other's parts. A run that is killed no longer holds it."""
    words = f"Another `keyrack up` runs on {data}; stop it first, or name another folder with --data."
    with alone(data / LOCK, words):
        yield


class Demo:
    """One run of `keyrack up`."""

    def __init__(self, instance: Instance, sshd_port: int, git_port: int) -> None:
        self._instance = instance
        self._settings: Settings = instance.settings
        self._data = instance.settings.data.resolve()
        self._sshd_port = sshd_port
        self._git_port = git_port
        self._stopping = Stopping()
        self._held = contextlib.ExitStack()
        self._application = web_application(instance)
        self._web = listening.ListeningServer(
            uvicorn.Config(self._application, **uvicorn_arguments(self._settings)), self._application
        )

    def run(self) -> None:
        """Start everything, say how to use it, and wait until it is stopped."""
        secrets_before = self._put_aside()
        web = threading.Thread(target=self._serve, name="web")
        web.start()
        host = None
        git = None
        try:
            self._wait_for("the service", lambda: self._web.started)
            click.echo(f"Keyrack serves at {self._settings.url}  (data in {self._data})")
            username = pwd.getpwuid(os.getuid()).pw_name
            admin = first_start.ensure_admin(self._instance, operator(), **secrets_before)
            server = first_start.ensure_demo_server(self._instance, admin, username)
            sshd = find_sshd()
            if sshd is None:
                click.echo(f"sshd was not found, so there is no demo host. {HOW_TO_GET_SSHD}", err=True)
            else:
                host = DemoHost(self._data / "demo-host", self._sshd_port, sshd)
                self._start_host(host, admin, server)
                first_start.note_port(self._instance, server, self._sshd_port)
                git = self._start_git()
            self._tell(admin, server, username, host, git)
            self._stopping.wait()
            click.echo("Stopping …")
        finally:
            for part in (git, host):
                if part is not None:
                    part.stop()
            self._held.close()
            self._application.let_go()
            self._web.should_exit = True
            web.join(timeout=15)

    def _put_aside(self) -> dict[str, str]:
        """The admin's token and password as the run before wrote them, if nobody else could read them.

        demo.json goes until this run is ready; what it said is kept beside it, for a run that does not become ready.
        """
        previous = self._data / PREVIOUS_DEMO_FILE
        with contextlib.suppress(FileNotFoundError):
            (self._data / DEMO_FILE).replace(previous)
        try:
            with os.fdopen(os.open(previous, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as file:
                held = os.fstat(file.fileno())
                facts = json.load(file) if held.st_uid == os.geteuid() and not held.st_mode & 0o077 else {}
        except (OSError, ValueError):
            return {}
        said = facts if isinstance(facts, dict) else {}
        named = {"token": said.get("token"), "password": said.get("admin_password")}
        return {name: value for name, value in named.items() if isinstance(value, str) and value.isascii()}

    def _serve(self) -> None:
        try:
            self._web.run()
        finally:
            self._stopping.tell()

    def _start_host(self, host: DemoHost, admin: FirstAdmin, server: Server) -> None:
        click.echo(f"Starting a demo host with an sshd on 127.0.0.1:{self._sshd_port} …")
        host.prepare()
        if server.enrolled_at is None or not host.is_enrolled(self._settings.url):
            actor = actors.system_actor(admin.workspace.id, channel="up", like=operator())
            token = servers.invite(self._instance, actor, server.id)
            host.enrol(self._settings.url, token)
        host.start()
        self._wait_for("the demo host", lambda: self._obeys(admin, server.id), look=host.agent_log)

    def _start_git(self) -> GitHost | None:
        try:
            git = GitHost(self._instance, port=self._git_port, port_option="--git-port")
            self._held.enter_context(serving_git_alone(git.directory))
            git.start()
        except PrivateSshdError as error:
            click.echo(str(error), err=True)
            return None
        return git

    def _obeys(self, admin: FirstAdmin, server_id: int) -> bool:
        actor = actors.system_actor(admin.workspace.id, channel="up", like=operator())
        now = servers.get(self._instance, actor, server_id)
        return now.applied_revision == now.revision

    def _wait_for(self, what: str, ready: Callable[[], bool], *, look: Path | None = None) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            if self._stopping.is_told():
                raise click.ClickException("Stopped before it was ready.")
            if time.monotonic() > deadline:
                words = f"{what} was not ready within {READY_SECONDS:.0f} s; see {look or self._data}."
                raise click.ClickException(words)
            time.sleep(0.02)

    def _tell(
        self, admin: FirstAdmin, server: Server, username: str, host: DemoHost | None, git: GitHost | None
    ) -> None:
        repository = first_start.ensure_demo_repository(self._instance, admin)
        facts = {
            "url": self._settings.url,
            "token": admin.token,
            "server_id": server.id,
            "ssh_host": "127.0.0.1" if host else None,
            "ssh_port": host.port if host else None,
            "username": username,
            "known_hosts": str(host.known_hosts) if host else None,
            "admin_user": admin.user.name,
            "admin_password": admin.password,
            "workspace": admin.workspace.name,
            "git_url": git.url(repository) if git else None,
            "git_known_hosts": str(git.known_hosts) if git else None,
        }
        _write_private(self._data / DEMO_FILE, json.dumps(facts, indent=1) + "\n")
        (self._data / PREVIOUS_DEMO_FILE).unlink(missing_ok=True)
        click.echo(f"Admin {admin.user.name} of workspace {admin.workspace.name}; they stay the same over a restart:")
        chosen = admin.password or "the one that you chose"
        click.echo(f"  password  {chosen}\n  API token {admin.token}\n")
        click.echo(f"Sign in with a browser at {self._settings.url}/ and go on there, or go on here.\n")
        click.echo("Register a public key (one made for this demo; put your own in its place):\n")
        key = self._demo_key()
        public_key = key.with_suffix(".pub").read_text("ascii").strip()
        click.echo(self._curl(admin, server, username, public_key) + "\n")
        if host is not None:
            click.echo("Then log in with it:\n")
            click.echo(_ssh(key, host, username) + "\n")
            click.echo(
                "Delete it again, with the id that the first line answered in place of ID; then the key is refused:\n"
            )
            click.echo(self._curl_delete(admin, server) + "\n")
        if git is not None:
            click.echo("For Git, register it as your own; you are granted the demo host, so it opens that too:\n")
            click.echo(self._curl_own(admin, public_key) + "\n")
            click.echo("Then clone a repository that you may push to:\n")
            click.echo(_clone(key, git, repository) + "\n")
        click.echo(f"What a program needs to know stands in {self._data / 'demo.json'}. Stop with Ctrl-C.")

    def _curl(self, admin: FirstAdmin, server: Server, username: str, public_key: str) -> str:
        body = {"label": self._free_label(admin, server), "username": username, "publicKey": public_key}
        arguments = [
            "curl",
            "-sS",
            f"{self._settings.url}/api/v3/servers/{server.id}/ssh/credentials",
            "-H",
            f"Authorization: Bearer {admin.token}",
            "-H",
            "Content-Type: application/json",
            "-d",
            json.dumps(body),
        ]
        return shlex.join(arguments)

    def _curl_delete(self, admin: FirstAdmin, server: Server) -> str:
        path = f"{self._settings.url}/api/v3/servers/{server.id}/ssh/credentials/ID"
        return shlex.join(["curl", "-sS", "-X", "DELETE", path, "-H", f"Authorization: Bearer {admin.token}"])

    def _curl_own(self, admin: FirstAdmin, public_key: str) -> str:
        body = json.dumps({"title": LABEL, "key": public_key})
        headers = ["-H", f"X-Auth-Token: {admin.token}", "-H", "Content-Type: application/json"]
        return shlex.join(["curl", "-sS", f"{self._settings.url}/v4/user/keys", *headers, "-d", body])

    def _free_label(self, admin: FirstAdmin, server: Server) -> str:
        actor = actors.system_actor(admin.workspace.id, channel="up", like=operator())
        page = credentials.find(self._instance, actor, server.id, search=LABEL, limit=1000)
        taken = {credential.label for credential in page.items}
        numbered = (f"{LABEL}-{number}" for number in range(2, len(taken) + 3))
        return LABEL if LABEL not in taken else next(label for label in numbered if label not in taken)

    def _demo_key(self) -> Path:
        """A throw-away key pair, so that both lines can be pasted as they stand."""
        path = self._data / "demo_key"
        if not path.exists() or not path.with_suffix(".pub").exists():
            # Without ssh-keygen: where OpenSSH is missing the service is there to be tried all the same.
            key = Ed25519PrivateKey.generate()
            private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
            _write_private(path, private.decode("ascii"))
            public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
            path.with_suffix(".pub").write_text(f"{public.decode('ascii')} keyrack-demo\n", "ascii")
        return path


def _ssh(key: Path, host: DemoHost, username: str) -> str:
    return shlex.join(
        [
            "ssh",
            "-i",
            str(key),
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            f"UserKnownHostsFile={host.known_hosts}",
            "-p",
            str(host.port),
            f"{username}@127.0.0.1",
        ]
    )


def _clone(key: Path, git: GitHost, repository: str) -> str:
    ssh = shlex.join(["ssh", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={git.known_hosts}"])
    return f"GIT_SSH_COMMAND={shlex.quote(ssh)} git clone {shlex.quote(git.url(repository))}"


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
