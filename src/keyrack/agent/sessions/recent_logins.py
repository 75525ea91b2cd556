"""Remembers the addresses and keys of recent logins, so that enforcing shuts nobody out who logs in that way.

It reads what the session watch saved (watch.py) and who is connected now; it reads no log and changes nothing.
"""

from __future__ import annotations

import ipaddress
import json
import time
from typing import Any, Dict, Iterable, Tuple

from keyrack.agent.sessions.login_log import LoggedLogin
from keyrack.agent.sessions.unknown import is_in
from keyrack.agent.sshd import listening
from keyrack.agent.sshd.login_verdict import RecentLogins
from keyrack.agent.sshd.settings import Sshd
from keyrack.agent.state import StateFolder
from keyrack.agent.system import processes

FILE = "sessions.json"  # which the session watch writes
FIELD = "comers"  # the field of it with LoginMemory.save(), by the name that older agents gave it
LARGEST_FILE = 16 * 1024 * 1024
_MAX = 200  # of addresses, and of keys
_LASTING_SECONDS = 30 * 86400.0


class LoginMemory:
    """The addresses and keys of accepted logins, each with the time of its last one."""

    def __init__(self, remembered: object) -> None:
        fields = remembered if isinstance(remembered, dict) else {}
        self._addresses = _times(fields.get("addresses"))
        self._keys = _times(fields.get("keys"))

    def add(self, logins: Iterable[LoggedLogin]) -> None:
        """Add accepted logins."""
        for login in logins:
            address = _plain(login.address)
            if address:
                self._addresses[address] = max(login.at, self._addresses.get(address, 0.0))
            if login.fingerprint:
                self._keys[login.fingerprint] = max(login.at, self._keys.get(login.fingerprint, 0.0))
        for times in (self._addresses, self._keys):
            for one in sorted(times, key=lambda name: times[name], reverse=True)[_MAX:]:
                del times[one]

    def save(self) -> Dict[str, Any]:
        """As JSON."""
        return {"addresses": self._addresses, "keys": self._keys}

    def recent(self) -> RecentLogins:
        """The addresses (newest first) and keys of logins within the last 30 days."""
        since = time.time() - _LASTING_SECONDS
        addresses = sorted(self._addresses, key=lambda one: self._addresses[one], reverse=True)
        recent_addresses = tuple(one for one in addresses if self._addresses[one] >= since)
        return RecentLogins(recent_addresses, frozenset(one for one, at in self._keys.items() if at >= since))


def read(state: StateFolder, sshd: Sshd) -> RecentLogins:
    """The addresses of those connected now, then the recent logins that the session watch saved, as far as known."""
    noted: Any = {}
    try:
        noted = json.loads(state.folder.read(FILE, LARGEST_FILE))
    except (OSError, ValueError):
        pass  # no recent logins are known
    recent = LoginMemory(noted.get(FIELD) if isinstance(noted, dict) else None).recent()
    return recent._replace(addresses=tuple(dict.fromkeys((*_connected(sshd), *recent.addresses))))


def _connected(sshd: Sshd) -> Tuple[str, ...]:
    """The addresses of connections that are logged in now, whether the log names them or not."""
    listeners = {pid for listener in sshd.listeners() for pid in listener.sshds}
    pids = {pid for pid in listeners for pid in processes.children(pid)}
    pids |= {pid for pid in processes.everything() if listening.is_lone_connection(pid)} - listeners
    peers = (peer for pid in sorted(pids) if is_in(pid) for peer in processes.peers(pid))
    addresses = (_plain(address) for address, port in peers if port)  # a listening socket has no port at its other end
    return tuple(filter(None, dict.fromkeys(addresses)))


def _times(value: object) -> Dict[str, float]:
    pairs = value.items() if isinstance(value, dict) else ()
    return {str(name): float(at) for name, at in pairs if isinstance(at, (int, float))}


def _plain(address: str) -> str:
    """An address in its canonical form; empty for text that is no address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)
