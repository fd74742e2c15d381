"""A sentinel that says what a test tells it to: where the primary is, since which configuration."""

from __future__ import annotations

import asyncio
from typing import Self

import hiredis


class FakeSentinel:
    """Answers what clients ask sentinels. `port` and `epoch` may change at any time.

    Use it as an async context manager. `asked` counts how often it was asked for the address.
    """

    def __init__(self, port: int, *, epoch: int = 1, host: str = "127.0.0.1") -> None:
        self.primary = port
        self.host = host
        self.epoch = epoch
        self.asked = 0
        self.silent = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        requests = hiredis.Reader()
        try:
            while data := await reader.read(65536):
                requests.feed(data)
                while (request := requests.gets()) is not False:
                    if not self.silent:
                        writer.write(self._answer([word.upper() for word in request]))
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    def _answer(self, words: list[bytes]) -> bytes:
        match words:
            case [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", _]:
                self.asked += 1
                return _array(self.host, str(self.primary))
            case [b"SENTINEL", b"MASTER", _]:
                return _array("name", "m", "config-epoch", str(self.epoch))
            case _:
                return b"+OK\r\n"


def _array(*texts: str) -> bytes:
    items = "".join(f"${len(text)}\r\n{text}\r\n" for text in texts)
    return f"*{len(texts)}\r\n{items}".encode()
