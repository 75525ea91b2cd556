"""Asks the host's own sshd for its settings, checks that they are valid, and reloads it; must judge no account or key.

The answers are sshd's own (`sshd -T`, `sshd -t`); settings_text.py reads what no single answer shows.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from keyrack.agent.sshd import command_line, keys_command, listening, settings_text
from keyrack.agent.sshd.listening import DEFAULT_CONFIG as DEFAULT_CONFIG
from keyrack.agent.sshd.listening import Listener
from keyrack.agent.sshd.places import HERE, Place
from keyrack.agent.sshd.running import RunningSshd
from keyrack.agent.sshd.settings_text import SettingLine
from keyrack.agent.system import file_stamp, processes, programs
from keyrack.ssh.printable import printable

GREETING_SECONDS = 10.0
RELOAD_SECONDS = 15.0
_PRIVILEGE_FOLDER = "/run/sshd"
_ANSWER_SECONDS = 15.0  # how long an answer of sshd is used again while its settings are unchanged
_MAX_ANSWERS = 16  # settings files whose answers are remembered
# A greeting, or sshd's words when it refuses connections (sshd.c: MaxStartups; since 9.8 PerSourcePenalties): an
# account that makes logins from loopback fail must not make the agent believe that sshd is broken.
_SIGNS_OF_LIFE = (b"SSH-", b"Exceeded MaxStartups", b"Not allowed at this time")


# Both caches belong to the module: the agent's parts ask the same questions about the same sshd.
# The listeners, by the path of the settings, with the state of the settings that they were found by.
_found: Dict[str, Tuple[Tuple[object, ...], listening.Listening]] = {}
# What sshd answered, by the path of the settings, with the state of the files that it answered by.
_answers: "Dict[str, Tuple[Tuple[object, ...], Dict[Tuple[Optional[str], ...], Effective]]]" = {}


class SshdProblem(Exception):
    """sshd did not answer; the words say why."""


class SshdSilent(SshdProblem):
    """sshd could not be started, did not end in time or was killed, which says nothing about its settings."""


class Reloaded(NamedTuple):
    """done: sshd read its settings again; problem: why not, empty where no sshd runs."""

    done: bool
    problem: str = ""


class Effective:
    """sshd's settings for one account: the answer of `sshd -T`, keywords in lower case (since 10.6 it writes them as
    its manual does). Raises SshdProblem for output of another form.
    """

    def __init__(self, output: str, problem: str = "") -> None:
        """problem: why sshd breaks off the account's connections, whatever these settings; empty where it does not."""
        self.problem = problem
        self._output = output
        self._values: Dict[str, List[str]] = {}
        for line in output.split("\n"):
            keyword, _, value = line.partition(" ")
            if keyword:
                self._values.setdefault(keyword.lower(), []).append(value)
        # Every sshd prints these. Output without them must not be taken for an answer.
        if not {"authorizedkeysfile", "pubkeyauthentication"} <= set(self._values):
            raise SshdProblem("sshd's account of its settings (sshd -T) is in a form that this agent cannot read")

    def broken(self, problem: str) -> Effective:
        """The same settings for an account whose connections sshd breaks off; problem: why."""
        return Effective(self._output, problem)

    def having(self, keyword: str, value: str) -> Effective:
        """The same settings with another value of a keyword."""
        return Effective(f"{keyword} {value}\n{self._output}", self.problem)

    def one(self, keyword: str) -> str:
        """The first value; empty where there is none. without-password is the old name of prohibit-password."""
        value = self._values.get(keyword.lower(), [""])[0]
        return "prohibit-password" if value == "without-password" else value

    def all(self, keyword: str) -> Tuple[str, ...]:
        """Every value of a keyword that can stand more than once."""
        return tuple(self._values.get(keyword.lower(), ()))

    def patterns(self, keyword: str, lines: Iterable[SettingLine] = ()) -> Tuple[str, ...]:
        """The files that a keyword names. lines: the settings as written: `sshd -T` prints no quotes, so that a name
        with blanks is taken for several, and names need not be UTF-8.
        """
        patterns: Dict[str, None] = {}
        written: Dict[str, List[str]] = {}
        for line in lines:
            if line.keyword == keyword:
                written.setdefault(programs.text(os.fsencode(" ".join(line.values))), []).extend(line.values)
        for value in self.all(keyword):
            for pattern in written.get(value, value.split()):
                patterns.setdefault(pattern)
        return tuple(patterns)


class Sshd:
    """One sshd. config: its settings file, None for the default one; held: its sockets, where it is known by them."""

    def __init__(self, config: Optional[str] = None, held: Tuple[Listener, ...] = ()) -> None:
        self.config = config or DEFAULT_CONFIG
        self._held = held
        self.running = RunningSshd(self.listeners)

    def problem(self) -> Optional[str]:
        """Why sshd would not start with its settings, in its own words; None where it would. Raises SshdSilent."""
        program = programs.find("sshd")
        if program is None:
            return "sshd was not found; install OpenSSH's server (openssh-server)"
        _make_privilege_folder()
        ended = _run([program, "-t", "-f", self.config])
        return None if ended.status == 0 else _said(ended)

    def runs(self) -> bool:
        """Whether a process of it listens, by the kernel's tables only, so also where sshd answers no question. True
        where that cannot be seen.
        """
        if not listening.can_be_seen():
            return True
        config = None if os.path.realpath(self.config) == os.path.realpath(DEFAULT_CONFIG) else self.config
        return any(one.sshds for one in listening.find((), config).listeners)

    def effective(
        self,
        user: Optional[str] = None,
        config: Optional[str] = None,
        place: Optional[Place] = None,
        given: Tuple[str, ...] = (),
    ) -> Effective:
        """sshd's settings for everybody, or for a login of one account from this host. Raises SshdProblem.

        config: another settings file to ask about; place: another address to log in from; given: more arguments. The
        running sshd's own command line counts too.
        """
        return self._ask(user, config, place, (*given, *self.running.arguments()))

    def _ask(
        self, user: Optional[str], config: Optional[str], place: Optional[Place], given: Sequence[str]
    ) -> Effective:
        program = programs.find("sshd")
        if program is None:
            raise SshdProblem("sshd was not found; install OpenSSH's server (openssh-server)")
        file = config or self.config
        state = (file_stamp.stamp(program), int(time.monotonic() // _ANSWER_SECONDS), settings_text.signature(file))
        lines = [*settings_text.read_lines(command_line.as_written(given)), *settings_text.lines_in(file)]
        spec = _connection_spec(lines, user, place)
        user_spec = [] if user is None else [f"user={user}"]
        command = [program, "-T", "-f", file, *given]
        if user_spec or spec:
            command += ["-C", ",".join([*user_spec, *spec])]
        named_users = settings_text.matched_users(lines)
        if named_users is None:
            return _answer(command)
        # One answer for all accounts that no rule names.
        user_asked = user if user is None or user.lower() in named_users else ""
        question = (*given, None, *spec, user_asked)
        known = _known_answers(file, state)
        if question not in known:
            effective = _answer(command)
            if settings_text.signature(file) != state[-1]:
                return effective  # of settings that changed meanwhile
            known[question] = effective
        return known[question]

    def lines(self) -> List[SettingLine]:
        """Every setting as written: those of the running sshd's command line first, those of included files where they
        are included. Unreadable files are left out.
        """
        return self._lines_with(self.config)

    def _lines_with(self, config: str) -> List[SettingLine]:
        given = command_line.as_written(self.running.arguments())
        return [*settings_text.read_lines(given), *settings_text.lines_in(config)]

    def large(self) -> List[str]:
        """The settings files of which lines() has only the beginning, because they are too large."""
        return [
            path for path in [self.config, *settings_text.included_paths(self.config)] if settings_text.is_large(path)
        ]

    def names_hosts(self, config: Optional[str] = None) -> bool:
        """Whether it asks the DNS for the names of clients (UseDNS)."""
        return settings_text.names_hosts(self._lines_with(config or self.config))

    def keys_commands(self) -> List[str]:
        """The programs of every AuthorizedKeysCommand in its settings, as written."""
        said = (" ".join(line.values) for line in self.lines() if line.keyword == "authorizedkeyscommand")
        return sorted({command for command in said if not keys_command.names_nobody(command)})

    def signature(self) -> Tuple[object, ...]:
        """A value that changes whenever a settings file or the program does, as another version may understand the same
        files differently.
        """
        program = programs.find("sshd")
        return (
            program,
            file_stamp.stamp(program) if program is not None else None,
            *settings_text.signature(self.config),
        )

    def files_changed_at(self) -> List[int]:
        """When each existing settings file was written, in nanoseconds since 1970."""
        files = filter(os.path.isfile, [self.config, *settings_text.included_paths(self.config)])
        return [stamp[3] for stamp in map(file_stamp.stamp, files) if stamp is not None]

    def reload(self) -> Reloaded:
        """Have a running sshd read its settings, and wait until it has; open sessions go on.

        It has when other sockets or other processes listen than before. Where only systemd listens, the sshd of the
        next connection reads them.
        """
        before = self.listeners()
        if not before:
            return self._reload_unseen()
        if all(one.is_systemds and not one.sshds for one in before):
            return Reloaded(done=True)
        signalled = sorted({pid for one in before for pid in one.sshds})
        if not signalled:
            who = ", ".join(str(pid) for one in before for pid, _ in one.owners) or "not to be seen"
            return Reloaded(
                done=False, problem=f"what listens at {_places(before)} is no sshd that can be told (process {who})"
            )
        gone = self.restart_problem()
        if gone:
            return Reloaded(done=False, problem=f"sshd was not told to read its settings: {gone}")
        for pid in signalled:
            problem = self._tell(pid, any(one.is_systemds for one in before if pid in one.sshds))
            if problem:
                return Reloaded(done=False, problem=problem)
        deadline = time.monotonic() + RELOAD_SECONDS
        while time.monotonic() < deadline:
            now = self.listeners()
            anew = not {(one.inode, pid) for one in before for pid in one.sshds} & {
                (one.inode, pid) for one in now for pid in one.sshds
            }
            if now and anew:
                return Reloaded(done=True)
            time.sleep(0.05)
        return Reloaded(done=False, problem="sshd was told to read its settings and did not")

    def restart_problem(self) -> str:
        """Why a listening sshd would not survive a reload, in words; empty where it would: it executes its program
        again by its path (sshd(8), SIGHUP), which somebody may have replaced or removed.
        """
        for pid in sorted({pid for one in self.listeners() for pid in one.sshds}):
            given = command_line.of(pid)
            program = f"/proc/{pid}/root{given.program}"
            # Only an absolute path: sshd cannot execute itself again by another name.
            if not given.program.startswith("/") or not processes.is_ours(pid):
                continue
            if not os.access(program, os.X_OK):
                return f"the program of the sshd that runs, {given.program}, is gone, so it could not start anew"
            ended = programs.run([given.program, "-t", "-f", self.config, *given.settings])
            if ended.status != 0 and os.path.samefile(f"/proc/{pid}/root", "/"):
                return f"the program of the sshd that runs, {given.program}, could not start anew: {_said(ended)}"
        return ""

    def _tell(self, pid: int, by_systemd: bool) -> str:
        try:
            if not by_systemd:
                os.kill(pid, signal.SIGHUP)
                return ""
            # After a signal it would open its own port, while systemd keeps the socket that clients connect to.
            unit, systemctl = listening.unit_of(pid), programs.find("systemctl")
            if unit and systemctl is not None:
                ended = programs.run([systemctl, "restart", unit], seconds=60.0)
                return "" if ended.status == 0 else f"systemctl restart {unit}: {_said(ended)}"
            os.kill(pid, signal.SIGTERM)
        except OSError as error:
            return f"sshd could not be told to read its settings: {error.strerror}"
        return ""

    def _reload_unseen(self) -> Reloaded:
        """A reload where no process listens, or where the system does not show which one."""
        if listening.can_be_seen():
            return Reloaded(done=False)
        try:
            with open(self.effective().one("pidfile"), encoding="ascii") as file:
                os.kill(int(file.read()), signal.SIGHUP)
        except (SshdProblem, OSError, ValueError):
            return Reloaded(done=False, problem="sshd could not be told to read its settings: its process is not known")
        return Reloaded(done=True)

    def listeners(self) -> Tuple[Listener, ...]:
        """The listeners at this sshd's addresses, by the kernel's tables; none where they cannot be seen."""
        if self._held:
            return self._held if listening.still(self._held) else ()
        if not listening.can_be_seen():
            return ()
        settings = (DEFAULT_CONFIG, *self.signature())
        known = _found.get(self.config)
        if known is None or known[0] != settings or not listening.is_unchanged(known[1]):
            config = None if os.path.realpath(self.config) == os.path.realpath(DEFAULT_CONFIG) else self.config
            known = _found[self.config] = settings, listening.find(self._addresses(), config)
        return known[1].listeners

    def others(self) -> str:
        """Where other sshds of this machine listen, in words; empty where none does, or this is not the default one."""
        return _places(self._beside())

    def beside(self) -> List[Sshd]:
        """The other sshds of this machine, each with its own settings and command line."""
        by_settings: Dict[Tuple[object, ...], List[Listener]] = {}
        for one in self._beside():
            pid = one.owners[0][0]
            by_settings.setdefault((listening.config_of(pid), command_line.of(pid).settings), []).append(one)
        return [Sshd(str(config), tuple(held)) for (config, _), held in sorted(by_settings.items())]

    def _beside(self) -> Tuple[Listener, ...]:
        if os.path.realpath(self.config) != os.path.realpath(DEFAULT_CONFIG) or not listening.can_be_seen():
            return ()
        known = self.listeners()
        return listening.beside(known) if known else ()

    def configured(self) -> List[Listener]:
        """Where it should listen, by its settings, whether a process does or not."""
        return [Listener(host, port, "") for host, port in self._addresses()]

    def greets(self, seconds: float = 0.0) -> bool:
        """Whether an SSH server greets a new connection, at once or within so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            places = [one.near for one in self.listeners() or self.configured()]
            if any(_greets(place) for place in places):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)

    def _addresses(self) -> List[Tuple[str, int]]:
        try:
            # Without its command line, which is known only once the listeners are found by these addresses.
            listening = self._ask(None, None, None, ()).all("listenaddress")
        except SshdProblem:
            return []
        addresses = []
        for place in listening:
            host, _, port = place.rpartition(":")
            if port.isdecimal():
                addresses.append((host.strip("[]"), int(port)))
        return addresses


def _known_answers(config: str, state: Tuple[object, ...]) -> Dict[Tuple[Optional[str], ...], Effective]:
    known = _answers.get(config)
    if known is None or known[0] != state:
        if len(_answers) >= _MAX_ANSWERS:
            _answers.clear()
        known = _answers[config] = state, {}
    return known[1]


def _answer(command: Sequence[str]) -> Effective:
    _make_privilege_folder()
    ended = _run(command)
    if ended.status != 0:
        raise SshdProblem(_said(ended))
    return Effective(ended.output)


def _run(command: Sequence[str]) -> programs.Ended:
    """Raises SshdSilent."""
    ended = programs.run(command)
    if ended.status is None:
        raise SshdSilent(_said(ended))
    if ended.status < 0:
        raise SshdSilent(f"{command[0]} was ended from outside (signal {-ended.status})")
    return ended


def _connection_spec(lines: Sequence[SettingLine], user: Optional[str], place: Optional[Place]) -> List[str]:
    """The words of -C for a connection, beside its user (sshd(8)), such as ["host=localhost", "addr=127.0.0.1", …].

    lines: the settings: what a Match in them asks for must be given, or sshd refuses to answer or ignores the rule.
    user: None for a question about everybody, which names at most a port.
    """
    spec = []
    if user is not None:
        if place is None:
            place = Place(HERE, "localhost" if settings_text.names_hosts(lines) else HERE)
        local = place.local or (HERE if place.address == HERE else _own_address())
        spec += [f"host={place.host}", f"addr={place.address}", f"laddr={local}"]
        if "rdomain" in settings_text.match_keywords(lines):
            spec.append("rdomain=")  # in no routing domain; without it sshd ignores such a rule
    if place is not None and place.port is not None:
        return [*spec, f"lport={place.port}"]
    return [*spec, *settings_text.local_port(lines)]


def _greets(address: Tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=3.0) as connection:
            connection.settimeout(3.0)
            return connection.recv(64).startswith(_SIGNS_OF_LIFE)
    except OSError:
        return False


def _own_address() -> str:
    """The address of this machine that others reach; nothing is sent to find it out."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect(("192.0.2.1", 9))  # of nobody (RFC 5737)
            return str(asking.getsockname()[0])
    except OSError:
        return HERE


def _make_privilege_folder() -> None:
    """Make the folder that Debian's sshd needs even for `sshd -T`; its unit makes it only when sshd starts."""
    if os.geteuid() == 0 and os.path.isfile("/etc/debian_version") and not os.path.exists(_PRIVILEGE_FOLDER):
        with contextlib.suppress(OSError):
            os.mkdir(_PRIVILEGE_FOLDER, 0o755)


def _places(listeners: Iterable[Listener]) -> str:
    return ", ".join(f"{one.address} port {one.port}" for one in listeners)


def _said(ended: programs.Ended) -> str:
    return printable(" ".join((ended.errors or ended.output).split()))[:300] or "sshd refused"
