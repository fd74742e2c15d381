"""A primary with one replica, which can be frozen, or cut off while it seems to be there."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
