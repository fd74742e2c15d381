"""Nudges: hints between processes that a run has news; losing one costs a renewal interval."""

from __future__ import annotations

import anyio

from askel import StoreError
from askel.state import Connection, Keys, owner_process, send_nudge
from askeld.actors import Actors
from askeld.health import Pulse

_LENGTH = 1_000
_BLOCK_MS = 2_000
_PAUSE_S = 0.5


class Nudges:
    """Sends hints to the owners of runs, wherever they are."""

    def __init__(self, connection: Connection, keys: Keys, consumer: str, actors: Actors) -> None:
        """Send through *connection* as *consumer*."""
        self._connection = connection
        self._keys = keys
        self._consumer = consumer
        self._actors = actors

    def tell(self, owner: str, run_id: str) -> None:
        """Tell *owner* (empty: nobody) that *run_id* has news; does not wait."""
        if not owner:
            return
        if owner_process(owner) == self._consumer:
            self._actors.poke(run_id)
            return
        send_nudge(self._connection, self._keys, owner, run_id)


class NudgeLoop:
    """Reads the hints meant for this process."""

    def __init__(
        self, connection: Connection, keys: Keys, consumer: str, actors: Actors, pulse: Pulse
    ) -> None:
        """Read by *connection*, which blocks."""
        self._connection = connection
        self._key = keys.nudge(consumer)
        self._actors = actors
        self._pulse = pulse
        self._last = "0"
        self._stopping = False

    def stop(self) -> None:
        """Read nothing more."""
        self._stopping = True

    async def run(self) -> None:
        """Pass hints on until stopped."""
        while not self._stopping:
            self._pulse.beat(_BLOCK_MS / 1_000)
            try:
                await self.run_once()
            except StoreError:
                await anyio.sleep(_PAUSE_S)

    async def run_once(self) -> int:
        """Read one batch; return how many hints that were."""
        reply = await self._connection.send(
            "XREAD", "COUNT", _LENGTH, "BLOCK", _BLOCK_MS, "STREAMS", self._key, self._last
        )
        entries = reply[0][1] if reply else []
        for entry, fields in entries:
            self._last = entry.decode()
            self._actors.poke(fields[1].decode())
        return len(entries)
