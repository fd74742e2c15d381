"""A relay in front of a server that counts round trips: how often a client waited for a reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_HOST = "127.0.0.1"
_CHUNK = 65_536


class Relay:
    """Passes all bytes on; ``round_trips`` counts how often the client spoke after a reply."""

    def __init__(self, port: int) -> None:
        self.round_trips = 0
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there, back = await asyncio.open_connection(_HOST, self._port)
            link = _Link(self)
            async with asyncio.TaskGroup() as group:
                group.create_task(link.pump(reader, back, is_request=True))
                group.create_task(link.pump(there, writer, is_request=False))
        finally:
            self._tasks.discard(task)
            writer.close()


class _Link:
    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._is_spoken_to = True

    async def pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_request: bool
    ) -> None:
        while chunk := await source.read(_CHUNK):
            if is_request and self._is_spoken_to:
                self._relay.round_trips += 1
            self._is_spoken_to = not is_request
            target.write(chunk)
            await target.drain()
        target.close()


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[tuple[Relay, str]]:
    """Run a relay in front of the server on *port* of this machine; give it and its URL."""
    made = Relay(port)
    server = await asyncio.start_server(made.accept, _HOST)
    async with server:
        yield made, f"redis://{_HOST}:{server.sockets[0].getsockname()[1]}"
