"""Finds the running sshd's version, command line and time zone; must judge nothing.

They may differ from what the files on disk suggest: a package may be replaced while the old program still runs, and a
time zone may be set for one service only. So the running program itself is asked for its version, and the time zone is
the one in the environment that sshd was started with.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import select
import socket
import time
from typing import Callable, List, NamedTuple, Optional, Tuple

from keyrack.agent.sshd import command_line, listening, places
from keyrack.agent.sshd.listening import Address, Listener
from keyrack.agent.system import file_stamp, processes, programs

Version = Tuple[int, int]
UNKNOWN: Version = (0, 0)
TAKES_PATTERNS: Version = (10, 0)
"""The first OpenSSH that takes a path of AuthorizedKeysFile, with its tokens filled in, for a glob pattern."""
LOCAL_TIME = ":/etc/localtime"  # the meaning of an environment without TZ (tzset(3))

_VERSION = re.compile(r"OpenSSH_(?:for_Windows_)?([0-9]{1,3})\.([0-9]{1,3})")
_ZONE_FOLDERS = ("/usr/share/zoneinfo", "/etc/zoneinfo", "/usr/lib/zoneinfo")
_ENVIRONMENT_FILE = re.compile(r"(/\S+) \(ignore_errors=")
_DELETED = " (deleted)"
_LARGEST_ENVIRONMENT = 1 << 20
# systemd tells nothing about a template itself, so any instance of it is named.
_UNITS_OF_CONNECTIONS = ("ssh@keyrack.service", "sshd@keyrack.service")
_UNITS = ("ssh.service", "sshd.service", *_UNITS_OF_CONNECTIONS)
_ARGUMENTS = re.compile(r"argv\[\]=(.*?) ; ")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_TRIES = 30  # on a busy host most tries come too late; one takes some milliseconds
_CATCH_SECONDS = 2.0


class TimeZone(NamedTuple):
    """A time zone. tz: as the variable TZ names it; rules: changes whenever the zone's file on this host does."""

    tz: str
    rules: Tuple[object, ...] = ()

    @property
    def name(self) -> str:
        """The zone's name for people."""
        if self.tz != LOCAL_TIME:
            return f"TZ={self.tz}"
        path = os.path.realpath("/etc/localtime")
        for folder in _ZONE_FOLDERS:
            if path.startswith(folder + "/"):
                return path[len(folder) + 1 :]
        return "of /etc/localtime"


class RunningSshd:
    """The sshd that listens now. It is asked again only when other processes listen or their program was replaced."""

    def __init__(self, find: Callable[[], Tuple[Listener, ...]]) -> None:
        """find: answers the listeners at this sshd's addresses."""
        self._find = find
        self._listeners: Tuple[Listener, ...] = ()
        self._zone: Optional[str] = None
        self._given: Optional[command_line.CommandLine] = None

    def version(self) -> Version:
        """OpenSSH's version, such as (9, 2): the lowest where several sshds run; that of the installed program where
        none runs; UNKNOWN where it cannot be found out.
        """
        self._refresh()
        versions = [_version_of(*program) for program in map(_program_of, self._sshds()) if program is not None]
        if not versions:
            program = programs.find("sshd")
            versions = [] if program is None else [_version_of(program, file_stamp.stamp(program))]
        known = [version for version in versions if version != UNKNOWN]
        return min(known) if known else UNKNOWN

    def zone(self) -> TimeZone:
        """The zone in which it reads times that name no zone."""
        self._refresh()
        if self._zone is None:
            pids = self._sshds()
            near = {pid: listener.near for listener in self._listeners for pid in listener.sshds}
            zones = [_zone_of(pid, near[pid]) for pid in pids]
            if not pids and any(listener.is_systemds for listener in self._listeners):
                zones += [_tz_of_unit(unit) for unit in _UNITS_OF_CONNECTIONS]
            self._zone = next(filter(None, zones), LOCAL_TIME)
        return TimeZone(self._zone, _rules(self._zone))

    def arguments(self) -> Tuple[str, ...]:
        """The settings on its command line, as arguments for `sshd -T`."""
        return self._command_line().settings

    def perhaps_files(self) -> Tuple[str, ...]:
        """Words of its command line that may be files of AuthorizedKeysFile, or other arguments: its title does not
        tell them apart.
        """
        return self._command_line().perhaps_files

    def _command_line(self) -> command_line.CommandLine:
        self._refresh()
        if self._given is None:
            pids = self._sshds()
            given = command_line.of(pids[0]) if pids else command_line.CommandLine()
            if not pids and any(listener.is_systemds for listener in self._listeners):
                units = (_command_line_of_unit(unit) for unit in _UNITS)
                given = next((unit for unit in units if unit.options), given)
            self._given = given
        return self._given

    def _refresh(self) -> None:
        """Forget what is known if other processes listen now. Called dozens of times a pass, so it is kept cheap."""
        if not self._listeners or not listening.still(self._listeners):
            self._listeners, self._zone, self._given = self._find(), None, None

    def _sshds(self) -> List[int]:
        return sorted({pid for listener in self._listeners for pid in listener.sshds})


def _program_of(pid: int) -> Optional[Tuple[str, Tuple[object, ...]]]:
    """The program of a process, as a path that can be run, and a stamp that changes whenever the program does."""
    running = f"/proc/{pid}/exe"
    try:
        file = os.readlink(running)
    except OSError:
        return None
    now = file[: -len(_DELETED)] if file.endswith(_DELETED) else ""
    # It executes itself again by its path for each connection (sshd.c, rexec): a replaced file is what then runs.
    program = now if now and os.access(now, os.X_OK) else running
    return program, (file, file_stamp.stamp(program))


class _NoAnswer(Exception):
    """The program gave no answer that may be cached."""


def _version_of(program: str, stamp: Optional[Tuple[object, ...]]) -> Version:
    try:
        return _said_version(program, stamp)
    except _NoAnswer:
        return UNKNOWN


@functools.lru_cache(maxsize=16)
def _said_version(program: str, stamp: Optional[Tuple[object, ...]]) -> Version:
    """The version that a program prints; asked once for each stamp. Raises _NoAnswer where it could not be asked."""
    # Before 9.2 sshd knows no -V, and prints its version with its usage.
    ended = programs.run([program, "-V"])
    if ended.status is None or ended.status < 0:
        raise _NoAnswer
    said = _VERSION.search(ended.errors) or _VERSION.search(ended.output)
    return UNKNOWN if said is None else (int(said.group(1)), int(said.group(2)))


def _zone_of(pid: int, near: Address) -> Optional[str]:
    """The TZ that a listening sshd was started with; None where it had none, or that is unknown. near: its address.

    Since 8.2 sshd overwrites the environment that /proc shows with its title. A process that it starts for a connection
    inherits the environment and shows it for a moment. Otherwise the environment of its systemd unit is taken, or that
    of a process that started it.
    """
    environment = _environment(pid)
    if environment is None:
        environment = _environment_of_a_connection(pid, near)
    if environment is not None:
        return _tz(environment)
    has_systemd = os.path.isdir("/run/systemd/system")
    unit = listening.unit_of(pid) if has_systemd else ""
    if unit:
        return _tz_of_unit(unit)
    seen = {pid}
    while pid > 1:
        process = processes.read(pid)
        if process is None or process.parent in seen:
            return None
        pid = process.parent
        seen.add(pid)
        environment = _environment(pid)
        if environment is not None:
            return _tz(environment)
    # In a container every process has the environment of the first one, and so has the agent.
    return None if has_systemd else os.environ.get("TZ")


def _environment(pid: int) -> Optional[List[str]]:
    """The environment that a process was started with, as NAME=value; None where it cannot be seen (any more)."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            data = file.read(_LARGEST_ENVIRONMENT)
    except OSError:
        return None
    entries = [os.fsdecode(entry) for entry in data.split(b"\0")[:-1]]
    return entries if entries and all("=" in entry for entry in entries) else None


def _environment_of_a_connection(listener: int, near: Address) -> Optional[List[str]]:
    """The environment of the process that sshd starts for a connection of ours, read before its title overwrites it."""
    for _ in range(_TRIES):
        deadline = time.monotonic() + _CATCH_SECONDS
        source = (places.asking_address(), 0) if near[0].startswith("127.") else None
        try:
            with socket.create_connection(near, timeout=_CATCH_SECONDS, source_address=source) as connection:
                while time.monotonic() < deadline:
                    for child in processes.children(listener):
                        environment = _environment(child)
                        if environment is not None:
                            return environment
                    if select.select([connection], [], [], 0)[0]:
                        break  # it greets, so its title has been written
        except OSError:
            return None
    return None


def _tz(environment: List[str]) -> Optional[str]:
    return next((entry[3:] for entry in reversed(environment) if entry.startswith("TZ=")), None)


def _tz_of_unit(unit: str) -> Optional[str]:
    return _tz(_environment_of_unit(unit))


def _environment_of_unit(unit: str) -> List[str]:
    """The environment that systemd starts a unit with, as NAME=value, as far as its settings and files tell."""
    systemctl = programs.find("systemctl")
    if systemctl is None:
        return []
    said = programs.run([systemctl, "show", "--property=Environment,EnvironmentFiles", unit]).output
    given = _words(programs.run([systemctl, "show-environment"]).output.replace("\n", " "))
    for line in said.split("\n"):
        if line.startswith("Environment="):
            given += _words(line.partition("=")[2])
    for path in _ENVIRONMENT_FILE.findall(said):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            given += [word for line in file.read(_LARGEST_ENVIRONMENT).split("\n") for word in _words(line)[:1]]
    return given


def _command_line_of_unit(unit: str) -> command_line.CommandLine:
    """The command line with which a unit starts sshd, with its variables replaced, each by one or several words."""
    systemctl = programs.find("systemctl")
    if systemctl is None:
        return command_line.CommandLine()
    said = _ARGUMENTS.search(programs.run([systemctl, "show", "--property=ExecStart", unit]).output)
    if said is None:
        return command_line.CommandLine()
    known = dict(entry.split("=", 1) for entry in _environment_of_unit(unit) if "=" in entry)
    text = _VARIABLE.sub(lambda match: known.get(match.group(1) or match.group(2), ""), said.group(1))
    return command_line.read(text.split(" ")[1:], bounded=False)


def _words(text: str) -> List[str]:
    import shlex  # here, because most hosts never need it

    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return []


def _rules(tz: str) -> Tuple[object, ...]:
    name = tz[1:] if tz.startswith(":") else tz
    if name.startswith("/"):
        return (os.path.realpath(name), file_stamp.stamp(name))
    return tuple(file_stamp.stamp(os.path.join(folder, name)) for folder in _ZONE_FOLDERS)
