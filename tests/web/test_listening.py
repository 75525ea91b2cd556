"""Many connections at once are taken in few rounds of the event loop, so that nobody waits behind all of them."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import uvicorn
import uvloop

from keyrack.web import listening
from keyrack.web.protocol import BoundedProtocol
from tests.ports import free_port

MANY = 200


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers everything with ok."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


def test_many_connections_are_taken_in_few_rounds() -> None:
    port = free_port()
    config = uvicorn.Config(
        application, host="127.0.0.1", port=port, http=BoundedProtocol, lifespan="off", log_config=None, backlog=2048
    )
    server = listening.ListeningServer(config)
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

    thread = threading.Thread(target=lambda: uvloop.run(serve()), daemon=True)
    thread.start()
    thread.join(60)
    assert rounds, "the service did not take all connections"
    assert rounds[0] < MANY / 4


def _asked(clients: list[socket.socket]) -> list[bytes]:
    """The first line of what each is answered."""
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    lines = [client.recv(1000).partition(b"\r\n")[0] for client in clients]
    for client in clients:
        client.close()
    return lines
