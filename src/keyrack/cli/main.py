"""The `keyrack` command; must import a subcommand's parts only when it is called, so that --help answers at once."""

from __future__ import annotations

import atexit
import errno
import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TextIO

_TAKES_CTRL_C = (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
    and threading.current_thread() is threading.main_thread()
)
"""Whether Ctrl-C raises KeyboardInterrupt in this process. While a command loads nobody would catch it, and Python
would print a traceback; so until all is loaded Ctrl-C simply ends the process.
"""
if _TAKES_CTRL_C:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import click
from click.exceptions import NoSuchCommand

from keyrack import __version__
from keyrack.cli.lazy_group import LazyGroup, meant
from keyrack.cli.output.ends import REFUSED
from keyrack.ssh.printable import printable

# Loading makes more than a hundred thousand objects that stay; collecting garbage among them took a sixth of the time
# of a short command. Commands that run long set thresholds of their own (`keyrack serve`).
gc.set_threshold(200_000, 10, 10)
atexit.register(gc.freeze)
# Pydantic would search all installed packages for plugins, which takes as long again; we use none.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNWRITTEN = (*_FULL, errno.EIO, errno.EFBIG, errno.EBADF)
_MAYBE_DONE = "What you asked for may have been done; check before you repeat it."

COMMANDS = {
    "up": ("keyrack.cli.machine.up:command", "Try Keyrack: service, database and a demo host on this machine."),
    "serve": ("keyrack.cli.machine.serve:command", "Run the service."),
    "apply": ("keyrack.cli.apply:command", "Change a workspace to match a file."),
    "login": ("keyrack.cli.login:command", "Log in to a service, so that commands go there."),
    "logout": ("keyrack.cli.logout:command", "Forget where you are logged in."),
    "servers": ("keyrack.cli.servers:command", "See and change servers, and the keys on them."),
    "export": ("keyrack.cli.export:command", "Write a workspace to a file that apply reads."),
    "repos": ("keyrack.cli.repos:command", "Create, list and change Git repositories."),
    "who-can": ("keyrack.cli.who_can:command", "See who can log in to a server, and what lets them in."),
    "access": ("keyrack.cli.who_can:of_user", "See where a user can log in, and what lets them in."),
    "grants": ("keyrack.cli.grants:command", "See, give and take back grants: who may log in where."),
    "groups": ("keyrack.cli.groups:command", "See and change groups of users."),
    "people": ("keyrack.cli.people:command", "See and change users, and what each may do."),
    "leaver": ("keyrack.cli.offboarding:command", "Remove a person everywhere, see which hosts obey, and undo it."),
    "request": ("keyrack.cli.requests:ask", "Ask to log in somewhere for a while."),
    "requests": ("keyrack.cli.requests:command", "See, approve and refuse requests for access."),
    "keys": ("keyrack.cli.keys:command", "See the SSH keys of users; claim one; put one on many servers."),
    "policy": ("keyrack.cli.key_policy:command", "See and set which keys are accepted."),
    "ssh-config": (
        "keyrack.cli.ssh_config:command",
        "Write an ssh configuration and known hosts for the servers you may log in to.",
    ),
    "sessions": ("keyrack.cli.sessions:command", "See who is logged in, and end it."),
    "freeze": ("keyrack.cli.freeze:command", "Stop keys from opening sessions until they are confirmed."),
    "sync-keys": ("keyrack.cli.sync_keys:command", "Bring users' keys in step with GitHub and GitLab, now."),
    "tokens": ("keyrack.cli.tokens:command", "See, make, rotate and revoke API tokens."),
    "webhooks": ("keyrack.cli.webhooks:command", "See and set where events are sent."),
    "audit": (
        "keyrack.cli.audit:command",
        "Read the whole audit log, by time, person, host or key; verify it; see alarms.",
    ),
    "events": ("keyrack.cli.events:command", "Read the audit log, on the instance's own data."),
    "hosts": ("keyrack.cli.hosts.hosts:command", "See and control hosts: unmanaged keys, modes, receipts, sessions."),
    "backup": ("keyrack.cli.machine.backup:command", "Copy the database, also while the service runs."),
    "restore": ("keyrack.cli.machine.restore:command", "Replace the database with a backup."),
    "tidy": ("keyrack.cli.machine.tidy:command", "Show old data that need not be kept any longer, and delete it."),
    "completion": ("keyrack.cli.completion:command", "Print a completion script for bash, zsh or fish."),
    "git-host": ("keyrack.cli.machine.git_host:command", "Serve Git over SSH."),
    "agent": ("keyrack.cli.machine.agent:command", "The program that runs on a host; also served as a single file."),
}


class Keyrack(LazyGroup):
    """The command itself: what holds for every subcommand."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Refuse arguments that are not UTF-8, for every subcommand: nothing of ours can have such a name."""
        if any("\ud800" <= character <= "\udfff" for argument in args for character in argument):
            raise click.UsageError("An argument is not UTF-8.", context)
        return super().parse_args(context, args)

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **named: Any
    ) -> Any:
        """Run the command and end the process, with the status that the command ends with, whoever reads its output.

        Help, lists and refusals alike: output that cannot be written is one line and status 1, an error's line that
        cannot be written leaves the error's status. Nothing is said where the reader went away, as with any tool.
        """
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **named)
        try:
            status = self._status(args, **named)
        except OSError as error:
            if error.errno not in _UNWRITTEN or error.filename is not None:
                raise
            _drop(sys.stdout)
            why = "no space left" if error.errno in _FULL else os.strerror(error.errno).lower()
            _show(click.ClickException(f"The output could not be written: {why}. {_MAYBE_DONE}"))
            status = REFUSED
        sys.exit(status)

    def _status(self, args: Sequence[str] | None, **named: Any) -> int:
        """What the command ends with; its errors are shown. Raises OSError where its output cannot be written."""
        try:
            status = super().main(args, standalone_mode=False, **named)
            if sys.stdout is not None:
                # Flushed here, as at Python's own end a full disk would get no words of ours.
                sys.stdout.flush()
        except (click.Abort, KeyboardInterrupt):
            click.echo("Aborted!", err=True)
            return REFUSED
        except click.ClickException as error:
            _show(error)
            return error.exit_code
        return status if isinstance(status, int) else 0

    def invoke(self, context: click.Context) -> object:
        """Run the command. An error's words may hold text that others wrote; its control characters are escaped."""
        for stream in (sys.stdout, sys.stderr):
            # A character that the terminal's encoding lacks is written as \u2026; it must not end the command half way.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(context)
        except click.ClickException as error:
            words = error.message + (meant(error) if isinstance(error, NoSuchCommand) else "")
            error.message = "\n".join(map(printable, words.split("\n")))  # type: ignore[misc]
            raise


def _show(error: click.ClickException) -> None:
    """Print the words of an error, if they can be printed."""
    try:
        error.show()
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        _drop(sys.stderr)


def _drop(stream: TextIO | None) -> None:
    """Throw away what could not be printed, or Python would try again when it ends."""
    with suppress(OSError, ValueError):
        if stream is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@click.group(
    cls=Keyrack,
    known=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="keyrack")
def main() -> None:
    """Register an SSH public key once; it opens exactly the servers and repositories it should."""


if _TAKES_CTRL_C:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if __name__ == "__main__":
    main()
