"""A relay in front of a Unix socket that fails as networks do, by chance from a seed; must know no protocol."""

from __future__ import annotations

import os
import random
import selectors
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.ports import free_port

WAYS = ("reset", "silent", "cut off", "half closed", "ended", "garbage", "late", "slow")
"""silent: bytes are taken and go nowhere, and the end of either side is passed on; cut off: not even that, as where a
cable is pulled, until each side has found out by itself.
"""
FOUND_OUT_SECONDS = 2.0
"""What stands for the half minute after which keepalive ends the server's side of a cable that was pulled."""
PASSES = ""


class FaultProxy:
    """Listens on loopback; what fails, and after how many bytes, is drawn for each connection while it misbehaves."""

    def __init__(self, to: Path, seed: int, found_out: float = FOUND_OUT_SECONDS) -> None:
        """found_out: seconds after which the server ends a connection that is cut off."""
        self.port = free_port()
        self._to, self._found_out = str(to), found_out
        self._chance = random.Random(seed)
        self._ways: tuple[str, ...] = ()
        self._stopping = threading.Event()
        self.relays: list[Relay] = []
        self._listening = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        """Connections that are relayed now."""
        self.relays = [one for one in self.relays if one.thread.is_alive()]
        return len(self.relays)

    def misbehave(self, *ways: str, old_too: bool = True) -> None:
        """From now on fail in one of these ways. old_too: connections that are open as well."""
        self._ways = ways
        for one in list(self.relays) if old_too else ():
            one.fail(self._chance.choice(ways), self._chance.randrange(0, 6000))

    def behave(self) -> None:
        """From now on pass on what comes over new connections; those that failed, but for slow ones, stay so."""
        self._ways = ()
        for one in list(self.relays):
            one.passes_after_all()

    def stop(self) -> None:
        """End it, with all connections."""
        self._stopping.set()
        self._thread.join(10)
        self._listening.close()
        for one in self.relays:
            one.stop()

    def _serve(self) -> None:
        self._listening.settimeout(0.05)
        while not self._stopping.is_set():
            try:
                client = self._listening.accept()[0]
            except TimeoutError:
                continue
            client.settimeout(None)
            relay = Relay(client, self._to, self._found_out)
            if self._ways:
                relay.fail(self._chance.choice(self._ways), self._chance.choice((0, 1, 9, 50, 400, 3000)))
            self.relays.append(relay)
            relay.thread.start()


class Relay:
    """One connection."""

    def __init__(self, client: socket.socket, to: str, found_out: float) -> None:
        self._client, self._to, self._found_out = client, to, found_out
        self._until = float("inf")
        self._plan: tuple[str, int] | None = None  # the way, and the bytes of either direction before it
        self._failing = PASSES
        self._stopping = False
        self.thread = threading.Thread(target=self._work, daemon=True)

    def fail(self, way: str, after: int) -> None:
        """Fail in this way once so many bytes more have passed, in either direction."""
        self._plan = (way, after)

    def passes_after_all(self) -> None:
        """What it had not come to is not to be, and what was slow is so no more."""
        self._plan = None
        if self._failing in ("late", "slow"):
            self._failing = PASSES

    def stop(self) -> None:
        """End it."""
        self._stopping = True
        self.thread.join(10)

    def _work(self) -> None:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with self._client, server, suppress(OSError):
            server.connect(self._to)
            with selectors.DefaultSelector() as ready:
                ready.register(self._client, selectors.EVENT_READ, server)
                ready.register(server, selectors.EVENT_READ, self._client)
                while ready.get_map() and not self._stopping and self._goes_on(ready, server):
                    pass

    def _goes_on(self, ready: selectors.BaseSelector, server: socket.socket) -> bool:
        if self._plan is not None and self._plan[1] <= 0:
            (self._failing, _), self._plan = self._plan, None
            if not self._begins_to_fail(server):
                return False
        if time.monotonic() > self._until:
            return False
        for key, _ in ready.select(0.05):
            one = key.fileobj
            assert isinstance(one, socket.socket)
            most = 65536 if self._plan is None else max(1, min(65536, self._plan[1]))
            data = one.recv(40 if self._failing == "slow" else most)
            if not data:
                if self._failing != "cut off":
                    return False
                ready.unregister(one)
                continue
            if self._plan is not None:
                self._plan = (self._plan[0], self._plan[1] - len(data))
            if self._failing in ("silent", "cut off"):
                continue
            if self._failing in ("late", "slow"):
                time.sleep(0.3 if self._failing == "late" else 0.01)
            key.data.sendall(data)
        return True

    def _begins_to_fail(self, server: socket.socket) -> bool:
        """What it takes at once; whether the connection stands."""
        if self._failing == "reset":
            for one in (self._client, server):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif self._failing == "half closed":
            self._client.shutdown(socket.SHUT_WR)
        elif self._failing == "cut off":
            self._until = time.monotonic() + self._found_out
        elif self._failing == "garbage":
            self._client.sendall(os.urandom(64))
        return self._failing not in ("reset", "ended")
