"""A primary with one replica, which can be frozen, or cut off while it seems to be there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from tests.helpers.sentinels import plain_client

from askeld.embedded import EmbeddedServer
from askeld.server_binary import ServerBinary

_READY_S = 20.0


class Replicated:
    """Two servers, the one a replica of the other; by another port where a proxy is between."""

    def __init__(self, primary: EmbeddedServer, replica: EmbeddedServer) -> None:
        self.primary = primary
        self.replica = replica

    @property
    def url(self) -> str:
        """The address of the primary."""
        return self.primary.url

    def follow(self, port: int | None = None) -> None:
        """Let the replica follow the primary, by *port* if given; return when it does."""
        with plain_client(self.replica.port) as client:
            client.execute_command("REPLICAOF", "127.0.0.1", port or self.primary.port)

    def is_following(self) -> bool:
        """Tell whether the primary counts the replica as one that is in step."""
        with plain_client(self.primary.port) as client:
            return bool(client.execute_command("ROLE")[2])

    def promote(self) -> None:
        """Make a primary of the replica, as a failover would."""
        with plain_client(self.replica.port) as client:
            client.execute_command("REPLICAOF", "NO", "ONE")

    def freeze(self) -> None:
        """SIGSTOP for the replica: it stays connected and confirms nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.replica.pid is not None
        os.kill(self.replica.pid, number)


class Cable:
    """Carries bytes, whatever they are, to a server on this machine, until it is cut or stuck.

    Use it as an async context manager. (A `FaultProxy` frames what it carries; a snapshot on its
    way to a replica has no frames.)
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    @property
    def in_use(self) -> bool:
        """Whether anybody is connected."""
        return bool(self._writers)

    def cut(self) -> None:
        """Drop the connections and what is on its way, and take no others."""
        self._is_cut = True
        self._flows.set()
        for writer in self._writers:
            writer.transport.abort()

    def clog(self) -> None:
        """Carry nothing more, while everybody stays connected."""
        self._flows.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        other_reader, other = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._writers |= {writer, other}
        pumps = [(reader, other), (other_reader, writer)]
        await asyncio.gather(*(self._pump(*ends) for ends in pumps), return_exceptions=True)
        self._writers -= {writer, other}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._flows.wait()
                if self._is_cut:
                    break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()


@contextmanager
def replicated(binary: ServerBinary, **options: Any) -> Iterator[Replicated]:
    """Run a primary and a replica that follows it; *options* are those of both servers."""
    given = {"repl-diskless-sync-delay": "0", **options}
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(EmbeddedServer(port=0, binary=binary, options=given))
            for _ in range(2)
        ]
        pair = Replicated(*servers)
        stack.callback(pair.thaw)
        pair.follow()
        end = time.monotonic() + _READY_S
        while not pair.is_following():
            assert time.monotonic() < end, "the replica did not follow"
            time.sleep(0.02)
        yield pair
