"""Reclaim: entries of consumers that died are taken over; those that keep killing are buried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from askel import StoreError, StoreReplyError
from askel.state import GROUP, Connection, Entry, Recording, Scripts
from askeld.context import WorkerContext
from askeld.renewal import Held

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
        poisoned: Callable[[Entry, int], Awaitable[bool]],
    ) -> None:
        """Sweep *streams* for entries that nobody has renewed for ``claim_idle_ms``.

        Args:
            context: Of the worker.
            connection: The way to Redis.
            recording: The scripts.
            streams: What the worker serves.
            poisoned: Buries an entry that was delivered too often; False if it must not be.
        """
        self._connection = connection
        self._scripts = Scripts(connection)
        self._recording = recording
        self._streams = streams
        self._poisoned = poisoned
        self._suspect = anyio.Semaphore(1)
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
            "JUSTID",
        )
        self._cursors[stream] = reply[0].decode()
        found = 0
        for entry_id in reply[1]:
            entry = Entry(stream, entry_id.decode())
            if self._work.is_new(entry):
                found += 1
                self._work.begin(entry, partial(self._admit, await self._deliveries(entry)))
        return found

    async def _deliveries(self, entry: Entry) -> int:
        """Return how often *entry* was delivered; claiming it (JUSTID) does not count."""
        reply = await self._connection.send(
            "XPENDING", entry.stream, GROUP, entry.id, entry.id, 1, self._recording.consumer
        )
        return int(reply[0][3]) if reply else 1

    async def _admit(self, deliveries: int, held: Held) -> bool:
        """Read the entry, and tell whether it is to be worked on.

        One that has been delivered as often as allowed is poison. Whatever was at work beside the
        poison looks like it; so in their last delivery entries are worked on one at a time, and
        only the one that kills its worker then is counted on.
        """
        try:
            return await self._admitted(deliveries, held)
        except StoreReplyError as error:
            # The group, or the whole stream, is gone; what is left of it is read anew.
            self._log.warning("entry_not_read", entry_id=held.entry.id, error=error.code)
            return False

    async def _admitted(self, deliveries: int, held: Held) -> bool:
        limit = self._config.max_deliveries
        if deliveries >= limit:
            read = await self._recording.deliver(held.entry, deliveries)
            if read is None or await self._poisoned(read, deliveries):
                return False
        if deliveries + 1 >= limit and not await self._alone(held):
            return False
        read = await self._recording.deliver(held.entry, deliveries + 1)
        if read is None:
            return False
        held.entry = read
        self._log.info("entry_reclaimed", entry_id=read.id, deliveries=deliveries + 1)
        return True

    async def _alone(self, held: Held) -> bool:
        """Wait until no other suspect is at work; False when this process stops before."""
        admitted = False

        async def give_up() -> None:
            await self._stopping.wait()
            tasks.cancel_scope.cancel()

        self._work.idle(is_idle=True)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(give_up)
                await self._suspect.acquire()
                admitted = True
                tasks.cancel_scope.cancel()
        finally:
            self._work.idle(is_idle=False)
        if admitted:

            def let_next() -> None:
                if held.progress is not None:
                    held.progress = None
                    self._suspect.release()

            held.progress = let_next
        return admitted

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
