"""What a server was told, by MONITOR: read by a thread, kept where a word stands in the line."""

from __future__ import annotations

import re
import socket
import threading
from typing import NamedTuple, Self
from urllib.parse import urlsplit

_WORDS = re.compile(rb'"((?:[^"\\]|\\.)*)"')


class Told(NamedTuple):
    """One command: when it was executed (server's clock, in seconds), from where, its words."""

    at: float
    client: str
    words: list[str]


class Monitor:
    """Hears every command of a server, also those inside scripts, while it is entered."""

    def __init__(self, url: str, *patterns: bytes) -> None:
        """Keep the lines that hold one of *patterns*."""
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._patterns = patterns
        self._lines: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._socket = socket.create_connection(self._address)
        self._socket.sendall(b"MONITOR\r\n")
        assert self._socket.recv(5) == b"+OK\r\n"
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()

    def _read(self) -> None:
        rest = b""
        while chunk := self._socket.recv(1 << 20):
            *lines, rest = (rest + chunk).split(b"\r\n")
            self._lines += [line for line in lines if any(p in line for p in self._patterns)]

    @property
    def told(self) -> list[Told]:
        """What was kept so far, in order."""
        return [_parse(line) for line in list(self._lines)]


def _parse(line: bytes) -> Told:
    at, _, rest = line.removeprefix(b"+").partition(b" ")
    client = rest[rest.index(b"[") + 1 : rest.index(b"]")].decode()
    words = [word.decode(errors="backslashreplace") for word in _WORDS.findall(rest)]
    return Told(float(at), client, words)
