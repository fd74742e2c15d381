"""Reclaim: entries of consumers that died are taken over; those that keep killing are buried."""

from __future__ import annotations

import anyio

from askel import StoreError
from askel.state import GROUP, Connection, Entry, Recording, Scripts
from askeld.context import WorkerContext

_COUNT = 100
_FORGET_EVERY = 60
_FORGET_IDLE_MS = 3_600_000


class Reclaim:
    """Sweeps the pending lists; the cursor is kept, so that every entry's turn comes."""

    def __init__(
        self,
        context: WorkerContext,
        connection: Connection,
        recording: Recording,
        streams: list[str],
    ) -> None:
        """Sweep *streams* for entries that nobody has renewed for ``claim_idle_ms``."""
        self._connection = connection
        self._scripts = Scripts(connection)
        self._recording = recording
        self._streams = streams
        self._config = context.config
        self._work = context.work
        self._log = context.log
        self._cursors = dict.fromkeys(streams, "0-0")
        self._sweeps = 0
        self._stopping = anyio.Event()

    def stop(self) -> None:
        """Take nothing more over."""
        self._stopping.set()

    async def run(self) -> None:
        """Sweep until stopped; trouble with Redis is left to the next sweep."""
        while not self._stopping.is_set():
            try:
                await self.run_once()
            except StoreError as error:
                self._log.debug("sweep_interrupted", error=str(error))
            with anyio.move_on_after(self._config.sweep_ms / 1_000):
                await self._stopping.wait()

    async def run_once(self) -> int:
        """Sweep each stream once; return how many entries were taken over."""
        taken = 0
        for stream in self._streams:
            while not self._stopping.is_set():
                found = await self._sweep(stream)
                taken += found
                if self._cursors[stream] == "0-0" or not found:
                    break
        self._sweeps += 1
        if self._sweeps % _FORGET_EVERY == 0:
            await self._forget_the_dead()
        return taken

    async def _sweep(self, stream: str) -> int:
        room = self._work.room
        if room <= 0:
            return 0
        reply = await self._connection.send(
            "XAUTOCLAIM",
            stream,
            GROUP,
            self._recording.consumer,
            self._config.claim_idle_ms,
            self._cursors[stream],
            "COUNT",
            min(_COUNT, room),
        )
        self._cursors[stream] = reply[0].decode()
        found = 0
        for item in reply[1]:
            # Redis 6.2 shows an entry that was deleted while pending as nothing, and keeps it.
            if item is None or item[0] is None:
                continue
            entry = Entry(stream, item[0].decode(), tuple(item[1] or ()))
            if self._work.is_new(entry):
                found += 1
                await self._take_over(entry)
        return found

    async def _take_over(self, entry: Entry) -> None:
        deliveries = await self._deliveries(entry)
        if deliveries > self._config.max_deliveries:
            detail = f"delivered {deliveries} times, and each time its worker died"
            if await self._recording.bury(entry, "poison", detail, deliveries=deliveries):
                self._log.error("command_poisoned", entry_id=entry.id, stream=entry.stream)
            return
        self._log.info("entry_reclaimed", entry_id=entry.id, deliveries=deliveries)
        self._work.begin(entry)

    async def _deliveries(self, entry: Entry) -> int:
        reply = await self._connection.send(
            "XPENDING", entry.stream, GROUP, entry.id, entry.id, 1, self._recording.consumer
        )
        return int(reply[0][3]) if reply else 1

    async def _forget_the_dead(self) -> None:
        """Remove consumers that have long been gone and hold nothing: names are never reused."""
        for stream in self._streams:
            for flat in await self._connection.send("XINFO", "CONSUMERS", stream, GROUP):
                facts = dict(zip(flat[::2], flat[1::2], strict=True))
                if facts[b"pending"] == 0 and facts[b"idle"] > _FORGET_IDLE_MS:
                    await self.forget(stream, facts[b"name"].decode())

    async def forget(self, stream: str, consumer: str) -> None:
        """Remove *consumer* from the group of *stream*, unless an entry is pending for it."""
        await self._scripts.run("forget_consumer", [stream], [GROUP, consumer])
