"""The agent's command line: reads arguments, prints, answers an exit status; it decides nothing."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from typing import Any, List, NoReturn, Optional, Sequence

from keyrack import __version__
from keyrack.agent import doctor, state
from keyrack.agent.desired_state import DesiredState
from keyrack.agent.reconcile import Reconciler
from keyrack.agent.service import proxy as proxies
from keyrack.agent.service.catch_up import catch_up
from keyrack.agent.service.client import AddressProblem, NoAnswer, Sender, ServiceClient
from keyrack.agent.service.enrolment import EnrolmentProblem, enrol
from keyrack.agent.service.follow import Follower, say
from keyrack.agent.service.witness import Witness
from keyrack.agent.sessions.watch import SessionWatch
from keyrack.agent.sshd import drop_in, enforcement_record
from keyrack.agent.sshd.settings import DEFAULT_CONFIG, Sshd, SshdProblem
from keyrack.agent.state import Enrolment, StateFolder, StateProblem
from keyrack.agent.system import alone, local
from keyrack.agent.system.folder import FolderProblem
from keyrack.agent.system.identity import FOLLOWER, WATCH, Identity
from keyrack.ssh.printable import printable

_EPILOGUE = """\
exit status: 0 all is well; 1 something is wrong, as printed; 2 wrong arguments.
Every option can be given in the environment: KEYRACK_AGENT_URL for --url, and so on.
"""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one command and answer its exit status."""
    os.umask(0o022)
    given = argparse.Namespace()
    try:
        try:
            _parser().parse_args(arguments, given)
            return int(given.command(given))
        finally:
            # Flush here: a full disk would otherwise fail when Python ends, without words of ours.
            if sys.stdout is not None:
                sys.stdout.flush()
    except (AddressProblem, EnrolmentProblem, FolderProblem, StateProblem, SshdProblem) as problem:
        say(str(problem))
    except NoAnswer as error:
        say(f"no answer from the service at {given.url}: {error}")
    except PermissionError as error:
        say(f"{error.filename}: {error.strerror}; run this as root, or as the account that enrolled the host")
    except BrokenPipeError:
        _drop_output()
    except OSError as error:
        if error.filename is None:
            _drop_output()
        say(f"{error.filename or 'this machine'}: {error.strerror}")
    except KeyboardInterrupt:
        return 130
    return 1


def _drop_output() -> None:
    """Drop what could not be printed, so that Python does not try again when it ends."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """A parser that raises an error where its help cannot be written; argparse's own ignores it."""

    def _print_message(self, message: str, file: Any = None) -> None:
        stream = file or sys.stderr
        if message and stream is not None:
            stream.write(message)


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="keyrack-agent",
        description="Keeps this host's SSH keys as a Keyrack service says.",
        epilog=_EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"keyrack-agent {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    _enroll_command(commands)
    run = _command(commands, "run", _run, "follow the service until stopped")
    _option(run, "--sshd-log", "the file sshd logs to, where that is neither the journal nor syslog")
    run.add_argument("--once", action="store_true", help="fetch and apply what is new, then end")
    _command(commands, "catch-up", _catch_up, "at boot, before sshd: obey what the service wants now, or soon give up")
    for name, function, help_text in (
        ("plan", _plan, "say exactly what enforcing would change, and change nothing"),
        ("status", _status, "say how the agent fares"),
        ("doctor", _doctor, "look at everything that a login depends on"),
    ):
        shown = _command(commands, name, function, help_text)
        shown.add_argument("--json", action="store_true", help="for programs: one JSON object")
    _command(commands, "uninstall", _uninstall, "take the agent off this host, and make all files what they were")
    return parser


def _enroll_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    enroll = _command(commands, "enroll", _enroll, "make this machine a host of a service")
    _option(enroll, "--url", "the service's address, such as https://keys.example.org", needed=True)
    _option(
        enroll, "--token", "the one-time token; better in KEYRACK_AGENT_TOKEN, where `ps` does not show it", needed=True
    )
    _option(enroll, "--keys-dir", "folder for the key files, for sshd's AuthorizedKeysFile", state.DEFAULT_KEYS_FOLDER)
    _option(enroll, "--revoked-keys", "file of revoked keys, for sshd's RevokedKeys", state.DEFAULT_REVOKED_KEYS)
    _option(enroll, "--sshd-config", "sshd's settings, where they are not in the usual place")
    _option(enroll, "--ca-file", "certificate authorities to trust for the service, in place of the system's")
    _option(
        enroll,
        "--proxy",
        "the proxy that leads out to the service, or none; without it, what HTTPS_PROXY and NO_PROXY say",
    )
    enroll.add_argument("--replace", action="store_true", help="this machine is a host already: make it a new one")
    enroll.add_argument("--plain-http", action="store_true", help="speak http:// over a private network")
    _option(
        enroll,
        "--drop-in",
        'file for sshd\'s settings, which the agent then writes when it enforces; "auto": the usual place beside '
        "sshd's settings; without it, the agent leaves them alone",
    )
    _option(enroll, "--mode", "observe (only look), auto (enforce once nobody loses a way in) or enforce")
    _option(enroll, "--only-accounts", "the accounts that the service may speak for, with commas; without it, all")
    enroll.add_argument(
        "--chain-keys-command",
        action="store_true",
        help="while enforcing, let in those too whom sshd's own AuthorizedKeysCommand names, but for revoked keys",
    )
    enroll.add_argument("--allow-accounts", action="store_true", help="let the service create and remove accounts")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, function: object, help_text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help_text, description=help_text.capitalize() + ".")
    parser.set_defaults(command=function)
    _option(parser, "--state-dir", "the agent's own folder", state.DEFAULT_STATE_FOLDER)
    return parser


def _option(
    parser: argparse.ArgumentParser, flag: str, help_text: str, default: Optional[str] = None, *, needed: bool = False
) -> None:
    variable = "KEYRACK_AGENT_" + flag[2:].replace("-", "_").upper()
    value = os.environ.get(variable) or default
    shown = f" (default: {default})" if default else ""
    parser.add_argument(flag, default=value, required=needed and not value, help=f"{help_text}{shown} [{variable}]")


def _enroll(given: argparse.Namespace) -> int:
    if given.mode == "adopt":
        given.mode = "observe"  # its word before 0.2, which stands in operators' own scripts
    if given.mode not in (None, "observe", "auto", "enforce"):
        raise EnrolmentProblem("--mode is observe, auto or enforce")
    ca_file = os.path.abspath(given.ca_file) if given.ca_file else None
    proxy = given.proxy or proxies.said(given.url, os.environ)
    client = ServiceClient(given.url, plain_http=given.plain_http, ca_file=ca_file, proxy=proxy)
    decided = _decided(given)
    store = StateFolder.open(os.path.abspath(given.state_dir), create=True)
    store.lock()
    if not given.replace and store.folder.names() and _is_enrolled(store):
        say("this machine is a host already; give --replace to make it a new one (the token is not used)")
        return 1
    wanted = Enrolment(
        url=given.url,
        host="",
        secret="",
        signing_key="",
        server_name="",
        keys_folder=os.path.abspath(given.keys_dir),
        revoked_keys=os.path.abspath(given.revoked_keys),
        sshd_config=os.path.abspath(given.sshd_config) if given.sshd_config else None,
    )
    alone.hold(store, wanted, decided)
    with contextlib.closing(client):
        enrolment = enrol(
            store,
            client,
            url=given.url,
            token=given.token,
            keys_folder=wanted.keys_folder,
            revoked_keys=wanted.revoked_keys,
            sshd_config=wanted.sshd_config,
            mode=given.mode,
            ca_file=ca_file,
            proxy=proxy,
        )
    local.write(store, decided)
    if given.mode in ("observe", "auto"):
        enforcement_record.observe_first(store)
    print(printable(f"This machine is now host {enrolment.host}, server {enrolment.server_name}."))
    if decided.drop_in is not None:
        print("Nothing has changed about who may log in. See what would: keyrack-agent plan")
        print("Next: keyrack-agent run")
        return 0
    print("Its sshd must have:")
    print(f"  AuthorizedKeysFile {enrolment.keys_folder}/%u")
    print(f"  RevokedKeys {enrolment.revoked_keys}")
    print("Next: keyrack-agent run")
    return 0


def _decided(given: argparse.Namespace) -> local.Local:
    """What this host's administrator decides at enrolment. Raises EnrolmentProblem."""
    path = given.drop_in
    if path == "auto":
        path = drop_in.default_path(os.path.abspath(given.sshd_config) if given.sshd_config else DEFAULT_CONFIG)
    try:
        only = local.account_names(given.only_accounts)
    except ValueError as error:
        raise EnrolmentProblem(f"--only-accounts: {error}") from None
    return local.Local(
        given.allow_accounts,
        only,
        os.path.abspath(path) if path else None,
        chain_keys_command=given.chain_keys_command,
    )


def _is_enrolled(store: StateFolder) -> bool:
    try:
        return store.enrolment() is not None
    except StateProblem:
        return True


def _run(given: argparse.Namespace) -> int:
    # SystemExit, so that unfinished files are removed.
    signal.signal(signal.SIGTERM, _stop)
    store, enrolment = _open(given)
    # Before the lock, by which the installer tells that an agent runs: with a damaged file none does.
    local.read(store)
    store.lock()
    store.folder.sweep()
    alone.hold(store, enrolment, local.remember(store).local)
    identity = Identity(store)
    client = _client(enrolment, Sender(identity, FOLLOWER))
    desired = DesiredState(store, enrolment, say)
    reconciler = Reconciler(store, enrolment, desired)
    watch = SessionWatch(
        store,
        enrolment,
        _client(enrolment, Sender(identity, WATCH)),
        say,
        given.sshd_log,
    )
    desired.also_scan_for(lambda: watch.names)
    follower = Follower(store, reconciler, client, say, watch.obey, Witness(store, enrolment.signing_key))
    say(f"{__version__}: host {enrolment.host}, server {enrolment.server_name}, of {enrolment.url}")
    with contextlib.closing(client):
        if not given.once:
            desired.scan_in_background()
        follower.start()
        if not given.once:
            follower.run(watch.start, lambda: reconciler.start_ending_keys(say))
        return _once(follower)


def _catch_up(given: argparse.Namespace) -> int:
    """Always answers 0: whatever is wrong, sshd and the agent must start, and the agent reports it."""
    store, enrolment = _open(given)
    if any(one.sshds for one in Sshd(enrolment.sshd_config).listeners()):
        return 0  # sshd runs already
    decided = local.read(store)
    store.lock()
    alone.hold(store, enrolment, decided)
    client = _client(enrolment, Sender(Identity(store), FOLLOWER))
    reconciler = Reconciler(store, enrolment, allowed=decided.allowed)
    with contextlib.closing(client):
        catch_up(store, reconciler, client, say, decided.boot_seconds)
    return 0


def _client(enrolment: Enrolment, sender: Sender) -> ServiceClient:
    # Whether plain HTTP is fine was settled when the host enrolled.
    return ServiceClient(
        enrolment.url,
        enrolment.secret,
        plain_http=True,
        ca_file=enrolment.ca_file,
        sender=sender,
        proxy=enrolment.proxy,
    )


def _once(follower: Follower) -> int:
    """Fetch, apply and report, without waiting for news."""
    follower.step(0)
    follower.step(0)  # delivers the report of the first
    return 1 if follower.wrong else 0


def _status(given: argparse.Namespace) -> int:
    return _print(doctor.status(*_open(given)), given.json)


def _doctor(given: argparse.Namespace) -> int:
    return _print(list(doctor.examine(*_open(given))), given.json)


def _plan(given: argparse.Namespace) -> int:
    # Here, because difflib and tempfile take 2 MB and 8 ms, which the running agent never needs.
    from keyrack.agent.sshd.plan import as_object, plan

    lines = plan(*_open(given))
    if given.json:
        print(json.dumps(as_object(lines), indent=1))
        return 0
    for line in lines:
        print(printable(line.expandtabs()))
    return 0


def _uninstall(given: argparse.Namespace) -> int:
    # Here, because shutil takes 1 MB and 4 ms, which the running agent never needs.
    from keyrack.agent.uninstall import uninstall

    problems = uninstall(*_open(given), say)
    for problem in problems:
        say(problem)
    if not problems:
        print("The agent is gone from this host, and every file it changed is what it was.")
    return 1 if problems else 0


def _print(findings: List[doctor.Checked], as_json: bool) -> int:
    fine = all(finding.fine for finding in findings)
    if as_json:
        print(json.dumps({"fine": fine, "findings": [finding._asdict() for finding in findings]}, indent=1))
    for finding in () if as_json else findings:
        print(finding)
    return 0 if fine else 1


def _open(given: argparse.Namespace) -> "tuple[StateFolder, Enrolment]":
    not_yet = StateProblem(f"this machine is not enrolled (nothing in {given.state_dir}): keyrack-agent enroll --help")
    try:
        store = StateFolder.open(os.path.abspath(given.state_dir))
    except FileNotFoundError:
        raise not_yet from None
    enrolment = store.enrolment()
    if enrolment is None:
        raise not_yet
    return store, enrolment


def _stop(number: int, frame: object) -> NoReturn:
    sys.exit(0)
