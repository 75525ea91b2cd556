"""Many connections at once are taken in few rounds of the event loop, so that nobody waits behind all of them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from typing import Any

import uvicorn
import uvloop

from keyrack.web import agent_api, listening
from keyrack.web.protocol import BoundedProtocol
from keyrack.web.slices import Slices
from tests.ports import free_port

MANY = 200


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers everything with ok."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


class Agents:
    """An application that agents ask, too: it notes which paths were asked, in their order."""

    def __init__(self) -> None:
        self.slices = Slices()
        self.asked: list[str] = []

    def is_agents(self, beginning: bytes) -> bool:
        """As the service says it."""
        return beginning.startswith(agent_api.QUESTION)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers everything with ok."""
        self.asked.append(scope["path"])
        await application(scope, receive, send)


def serving(port: int, served: Any) -> uvicorn.Config:
    """How an application is served."""
    return uvicorn.Config(
        served, host="127.0.0.1", port=port, http=BoundedProtocol, lifespan="off", log_config=None, backlog=2048
    )


def in_a_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run this on a thread of its own, on uvloop."""
    thread = threading.Thread(target=lambda: uvloop.run(work), daemon=True)
    thread.start()
    thread.join(60)


def test_many_connections_are_taken_in_few_rounds() -> None:
    port = free_port()
    server = listening.ListeningServer(serving(port, application))
    rounds: list[int] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        running = loop.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        # All come while the event loop does something else.
        clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(MANY)]
        count = 0
        while len(server.server_state.connections) < MANY and count < 10 * MANY:
            await asyncio.sleep(0)
            count += 1
        rounds.append(count)
        answers = asyncio.to_thread(_asked, clients)
        assert await answers == [b"HTTP/1.1 200 OK"] * MANY
        server.should_exit = True
        await running

    in_a_loop(serve())
    assert rounds, "the service did not take all connections"
    assert rounds[0] < MANY / 4


def test_a_call_does_not_wait_until_all_agents_that_came_before_are_connected() -> None:
    port = free_port()
    agents = Agents()
    server = listening.ListeningServer(serving(port, agents), agents)
    question = agent_api.QUESTION + b"revision=0&wait=25 HTTP/1.1\r\nHost: test\r\n\r\n"
    before: list[int] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        running = loop.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        # All come while the event loop does something else, the person behind them all.
        clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(MANY)]
        for client in clients:
            client.sendall(question)
        person = socket.create_connection(("127.0.0.1", port), timeout=10)
        person.sendall(b"GET /person HTTP/1.1\r\nHost: test\r\n\r\n")
        while len(agents.asked) < MANY + 1:
            await asyncio.sleep(0)
        before.append(agents.asked.index("/person"))
        for client in (*clients, person):
            client.close()
        server.should_exit = True
        await running

    in_a_loop(serve())
    assert before, "not everybody was answered"
    assert before[0] < MANY / 2


def test_agents_that_are_not_connected_yet_are_closed_when_the_service_stops() -> None:
    port = free_port()
    agents = Agents()
    server = listening.ListeningServer(serving(port, agents), agents)
    ends: list[bytes] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        running = loop.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        steps: list[Any] = []
        agents.slices.begin = lambda caller, step: steps.append(step)  # type: ignore[method-assign]
        clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(3)]
        for client in clients:
            client.sendall(agent_api.QUESTION)
        while not steps:
            await asyncio.sleep(0.01)
        server.should_exit = True
        await running
        for step in steps:
            step()  # its turn comes too late
        ends.extend(await asyncio.to_thread(lambda: [_end(client) for client in clients]))
        for client in clients:
            client.close()

    in_a_loop(serve())
    assert ends == [b""] * 3


def _end(client: socket.socket) -> bytes:
    try:
        return client.recv(100)
    except ConnectionResetError:
        return b""


def _asked(clients: list[socket.socket]) -> list[bytes]:
    """The first line of what each is answered."""
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    lines = [client.recv(1000).partition(b"\r\n")[0] for client in clients]
    for client in clients:
        client.close()
    return lines
