"""Finds the processes that listen on sshd's ports, by the kernel's own tables; must signal and judge nothing.

A listener is identified by its process, the process's start time and the socket's inode: an sshd that reads its
settings again opens new sockets (sshd(8), SIGHUP), so another inode means another start, whatever the process is
called. Any account can listen and choose its process's name: only processes of root or of the agent's own account
count.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import time
from typing import Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

from keyrack.agent.sshd import command_line
from keyrack.agent.system import processes, programs
from keyrack.agent.system.sockets import Address as Address
from keyrack.agent.system.sockets import listening_sockets

DEFAULT_CONFIG = "/etc/ssh/sshd_config"

# The title of OpenSSH's listener since 8.2, after the name of its program.
_LISTENER_TITLE = re.compile(r"\[listener\] [0-9]+ of [0-9]+-[0-9]+ startups")
_PROGRAMS = ("sshd", "sshd-session")
_SYSTEMD = 1
_NOBODY_SECONDS = 1.0  # how long "nobody listens" is believed while the sockets stay the same
_UNITS = ("ssh.socket", "sshd.socket")
_STREAM = re.compile(r"(\S+):([0-9]{1,5}) \(Stream\)")


class Listener(NamedTuple):
    """A listening socket. owners: the processes that hold it, as (pid, start in ticks), as far as they can be seen."""

    address: str
    port: int
    inode: str
    owners: Tuple[Tuple[int, int], ...] = ()

    @property
    def near(self) -> Address:
        """The address and port at which this machine itself reaches it."""
        wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what sshd listens on, not we
        return wildcards.get(self.address, self.address), self.port

    @property
    def sshds(self) -> Tuple[int, ...]:
        """The pids of the sshd processes that hold it."""
        return tuple(pid for pid, _ in self.owners if is_sshd(pid))

    @property
    def is_systemds(self) -> bool:
        """Whether systemd holds it, and starts sshd when somebody connects."""
        return any(pid == _SYSTEMD for pid, _ in self.owners) and not is_sshd(_SYSTEMD)


def can_be_seen() -> bool:
    """Whether this system shows its processes and sockets as Linux does."""
    return os.path.exists("/proc/net/tcp") and os.path.isdir("/proc/self/fd")


def by_reachability(listeners: Iterable[Listener]) -> List[Listener]:
    """Listeners in the order in which they matter to people on other machines: those on loopback last."""
    return sorted(listeners, key=lambda one: (one.address == "::1" or one.address.startswith("127."), one))


class Listening(NamedTuple):
    """The answer of find(). places: the addresses searched, None for all; among: the sockets that were there at these
    places; at: when, by time.monotonic().
    """

    listeners: Tuple[Listener, ...]
    places: Optional[FrozenSet[Address]]
    among: FrozenSet[Tuple[str, Address]]
    at: float


def find(addresses: Sequence[Address], config: Optional[str]) -> Listening:
    """The listeners at these addresses; where there are none, those of sshds that were started with this settings file.

    config: None for the default file, for which systemd's sockets for ssh count too.
    """
    at = time.monotonic()
    sockets = listening_sockets()
    wanted = frozenset((_plain(host), port) for host, port in addresses)
    # With the default file, any socket counts: a new one of systemd's for ssh may be at another address.
    places = None if config is None else wanted
    if config is None:
        wanted |= _of_units()
    inodes = {inode for inode, place in sockets.items() if place in wanted}
    if inodes:
        owners = _owners(inodes)
        inodes -= _of_others(inodes - owners.keys())
    if not inodes:
        places = None
        # While no such sshd runs, the open files of all processes need not be read.
        runs = any(_is_ours(pid, config) for pid in processes.own_and_other_pids()[0])
        owners = _owners(set(sockets)) if runs else {}
        # A port that was given on the command line is not in the settings file.
        inodes = {inode for inode, pids in owners.items() if any(_is_ours(pid, config) for pid in pids)}
    listeners = []
    for inode in inodes:
        address, port = sockets[inode]
        known = [process for process in map(processes.read, owners.get(inode, ())) if process is not None]
        # A connection's process holds the listening socket for a moment too, until it closes it.
        parents = {process.pid for process in known} - {_SYSTEMD}
        owned = tuple(sorted((process.pid, process.started) for process in known if process.parent not in parents))
        listeners.append(Listener(address, port, inode, owned))
    return Listening(tuple(sorted(listeners)), places, _among(sockets, places), at)


def is_unchanged(before: Listening) -> bool:
    """Whether find() would answer the same again: it checks only the same sockets and the processes that hold them.
    Much cheaper than find(), which reads the open files of all processes.
    """
    if not before.listeners:
        # An sshd that starts opens a new socket, or takes an existing one: the latter is seen after this time only.
        if time.monotonic() - before.at >= _NOBODY_SECONDS:
            return False
    elif not all(listener.owners for listener in before.listeners):
        return False
    if _among(listening_sockets(), before.places) != before.among:
        return False
    for listener in before.listeners:
        for pid, started in listener.owners:
            process = processes.read(pid)
            if process is None or process.started != started or not processes.is_ours(pid):
                return False
            if listener.inode not in processes.sockets(pid):
                return False
    return True


def _among(sockets: Dict[str, Address], places: Optional[FrozenSet[Address]]) -> FrozenSet[Tuple[str, Address]]:
    return frozenset((inode, place) for inode, place in sockets.items() if places is None or place in places)


def still(listeners: Iterable[Listener]) -> bool:
    """Whether these listeners are unchanged: the same sockets, held by the same processes. Cheap."""
    sockets = listening_sockets()
    for listener in listeners:
        if sockets.get(listener.inode) != (listener.address, listener.port):
            return False
        for pid, started in listener.owners:
            process = processes.read(pid)
            if process is None or process.started != started:
                return False
    return True


def beside(known: Iterable[Listener]) -> Tuple[Listener, ...]:
    """The listeners of this machine's other sshds than the known ones; without ports that sessions forward."""
    known = tuple(known)
    ours = {pid for listener in known for pid, _ in listener.owners}
    # By address too: a known sshd that restarted meanwhile is no other one.
    places = {(listener.address, listener.port) for listener in known}
    sockets = {inode: place for inode, place in listening_sockets().items() if place not in places}
    others = []
    own = processes.namespace(os.getpid())
    for pid in processes.own_and_other_pids()[0]:
        process = processes.read(pid)
        if process is None or pid in ours or not _LISTENER_TITLE.search(processes.title(pid)):
            continue
        if processes.is_ours(pid) and processes.namespace(pid) in ("", own):
            inodes = processes.sockets(pid) & sockets.keys()
            others += [Listener(*sockets[inode], inode, ((pid, process.started),)) for inode in inodes]
    return tuple(sorted(others))


def have_other_root(listeners: Iterable[Listener]) -> bool:
    """Whether a process that listens has another root folder (chroot), so that its paths are not this host's."""
    for pid in {pid for listener in listeners for pid, _ in listener.owners}:
        with contextlib.suppress(OSError):
            if not os.path.samefile(f"/proc/{pid}/root", "/"):
                return True
    return False


def is_sshd(pid: int) -> bool:
    """Whether a process is OpenSSH's server, by its program file, name or title."""
    process = processes.read(pid)
    if process is None:
        return False
    with contextlib.suppress(OSError):
        file = os.readlink(f"/proc/{pid}/exe")
        if os.path.basename(file.replace(" (deleted)", "")) == "sshd":
            return processes.is_ours(pid)
    is_called_so = process.name == "sshd" or _LISTENER_TITLE.search(processes.title(pid)) is not None
    return is_called_so and processes.is_ours(pid)


def is_lone_connection(pid: int) -> bool:
    """Whether a process is a connection's sshd that no listening sshd started: systemd and inetd start one for each
    connection (sshd -i).
    """
    process = processes.read(pid)
    if process is None or not _is_of_sshd(process):
        return False
    parent = processes.read(process.parent)
    own = processes.namespace(os.getpid())
    return (parent is None or not _is_of_sshd(parent)) and processes.namespace(pid) in ("", own)


def _is_of_sshd(process: processes.Process) -> bool:
    """Whether a process is sshd or, since 9.8, sshd-session."""
    with contextlib.suppress(OSError):
        file = os.readlink(f"/proc/{process.pid}/exe")
        if os.path.basename(file.replace(" (deleted)", "")) in _PROGRAMS:
            return processes.is_ours(process.pid)
    return process.name in _PROGRAMS and processes.is_ours(process.pid)


def unit_of(pid: int) -> str:
    """The unit of systemd that a process belongs to; empty where there is none."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
        for line in file:
            name = os.path.basename(line.strip().split(":", 2)[-1])
            if name.endswith(".service"):
                return name
    return ""


def _owners(inodes: Set[str]) -> Dict[str, List[int]]:
    """The pids that hold each of these sockets (inodes), of root's processes and those of the agent's account."""
    owners: Dict[str, List[int]] = {}
    own = processes.namespace(os.getpid())
    for pid in processes.own_and_other_pids()[0]:
        numbers = processes.sockets(pid) & inodes
        if numbers and processes.is_ours(pid) and processes.namespace(pid) in ("", own):
            for inode in numbers:
                owners.setdefault(inode, []).append(pid)
    return owners


def _of_others(inodes: Set[str]) -> Set[str]:
    """Those of these sockets (inodes) that other accounts' processes hold. Slow, as other processes may have many files
    open, such as a database or a web server.
    """
    inodes_seen: Set[str] = set()
    for pid in itertools.chain(*processes.own_and_other_pids()) if inodes else ():
        numbers = processes.sockets(pid) & inodes
        if numbers and not processes.is_ours(pid):
            inodes_seen |= numbers
    return inodes_seen


def _is_ours(pid: int, config: Optional[str]) -> bool:
    return is_sshd(pid) and was_started_with(pid, config)


def was_started_with(pid: int, config: Optional[str]) -> bool:
    """Whether an sshd was started with this settings file; None: the default one."""
    return os.path.realpath(config_of(pid)) == os.path.realpath(config or DEFAULT_CONFIG)


def config_of(pid: int) -> str:
    """The path of the settings file that an sshd was started with."""
    given = command_line.of(pid).config or DEFAULT_CONFIG
    with contextlib.suppress(OSError):
        given = os.path.join(os.readlink(f"/proc/{pid}/cwd"), given)
    return given


def _of_units() -> FrozenSet[Address]:
    """The addresses at which systemd listens for sshd."""
    systemctl = programs.find("systemctl")
    if systemctl is None or not os.path.isdir("/run/systemd/system"):
        return frozenset()
    listening_places = set()
    for unit in _UNITS:
        said = programs.run([systemctl, "show", "--property=ActiveState,Listen", unit]).output
        if "ActiveState=active" in said:
            places = _STREAM.findall(said.replace("Listen=", ""))
            listening_places |= {(_plain(host.strip("[]")), int(port)) for host, port in places}
    return frozenset(listening_places)


def _plain(host: str) -> str:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            return socket.inet_ntop(family, socket.inet_pton(family, host))
    return host
