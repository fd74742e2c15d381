"""Reclaim: entries of consumers that died are taken over; those that keep killing are buried."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from askel import StoreError, StoreReplyError
from askel.state import GROUP, Connection, Entry, Recording, Scripts, Sweeping, Swept
from askeld.context import WorkerContext
from askeld.renewal import Held
from askeld.server_clock import ServerClock
from askeld.suspects import Suspects

#: How often a worker without room looks for some, while others may have the turn. The script that
#: hands out turns answers so, too, while there is more to be claimed.
_ASKS_PER_TURN = 8
#: How many times ``claim_idle_ms`` a suspect is at work alone, at most: then the next one begins.
_SURVIVED = 3
_FORGET_EVERY = 60
_FORGET_IDLE_MS = 3_600_000
_MOST_PENDING = 20_000


class Reclaim:
    """Sweeps the pending lists, in turns with the other workers; the place reached is in Redis."""

    def __init__(
        self,
        context: WorkerContext,
        connection: Connection,
        recording: Recording,
        sweeping: Sweeping,
        streams: list[str],
        poisoned: Callable[[Entry, int], Awaitable[bool]],
    ) -> None:
        """Sweep *streams* for entries that nobody has renewed for ``claim_idle_ms``.

        Args:
            context: Of the worker.
            connection: The way to Redis.
            recording: The scripts.
            sweeping: The turns in which workers sweep. It must not send a call again.
            streams: What the worker serves.
            poisoned: Buries an entry that was delivered too often; False if it must not be.
        """
        self._connection = connection
        self._scripts = Scripts(connection)
        self._recording = recording
        self._sweeping = sweeping
        self._streams = streams
        self._poisoned = poisoned
        self._config = context.config
        self._suspects = Suspects(_SURVIVED * self._config.claim_idle_ms / 1_000)
        self._work = context.work
        self._log = context.log
        self._pulse = context.health.pulse("reclaim")
        self._wait_ms = 0
        # One for each: what is not to be believed is the idle time since that stream was swept.
        self._clocks = {stream: ServerClock() for stream in streams}
        self._unsure: set[str] = set()
        self._refused: dict[str, str] = {}
        self._sweeps = 0
        self._stopping = anyio.Event()

    def stop(self) -> None:
        """Take nothing more over."""
        self._stopping.set()

    async def run(self) -> None:
        """Sweep until stopped; trouble with Redis is left to the next sweep."""
        while not self._stopping.is_set():
            await self.run_once()
            self._pulse.beat(self._wait_ms / 1_000)
            with anyio.move_on_after(self._wait_ms / 1_000):
                await self._stopping.wait()

    async def run_once(self) -> int:
        """Take every turn that is free, on each stream; return how many entries were taken over."""
        taken, self._wait_ms = 0, self._config.sweep_ms
        for stream in self._streams:
            try:
                taken += await self._sweep(stream)
                self._refused.pop(stream, None)
            except StoreReplyError as error:
                self._away()
                self._tell_refused(stream, error)
            except StoreError as error:
                # What was claimed by a call whose reply was lost is pending for us by now.
                self._unsure.add(stream)
                self._away()
                self._log.debug("sweep_interrupted", stream=stream, error=str(error))
        return taken

    async def _sweep(self, stream: str) -> int:
        """Sweep *stream* for as long as it is our turn and there is room."""
        taken = 0
        if stream in self._unsure:
            taken += await self._take_up(stream)
        while not self._stopping.is_set():
            self._pulse.beat()
            room = self._work.room
            if room <= 0:
                if self._work.is_paused:
                    self._away()
                self._ask_again(0)
                break
            asked_at = time.monotonic()
            swept = await self._sweeping.sweep(
                stream,
                idle_ms=self._config.claim_idle_ms,
                room=room,
                every_ms=self._config.sweep_ms,
                expected_ms=self._clocks[stream].expected_ms(),
            )
            if by_ms := self._clocks[stream].told(swept.now_ms, asked_at):
                self._log.warning("server_clock_jumped", stream=stream, by_ms=by_ms)
            taken += self._begin(stream, swept)
            if not swept.goes_on:
                self._ask_again(swept.wait_ms)
                break
        self._sweeps += 1
        if self._sweeps % _FORGET_EVERY == 0:
            await self._forget_the_dead(stream)
        return taken

    def _away(self) -> None:
        """Count the time since the last sweep of any stream as one in which nobody could renew."""
        for clock in self._clocks.values():
            clock.away()

    def _ask_again(self, wait_ms: int) -> None:
        """Ask for the turn in *wait_ms*, but not all the time while there is no room."""
        least_ms = max(self._config.sweep_ms // _ASKS_PER_TURN, 1)
        self._wait_ms = min(self._wait_ms, max(wait_ms, least_ms))

    def _begin(self, stream: str, swept: Swept) -> int:
        """Begin work on what was claimed, but for what is in work here: that was renewed by it."""
        for entry_id in swept.lost:
            self._log.warning(
                "command_dead_lettered", entry_id=entry_id, stream=stream, reason="body_lost"
            )
        fresh = [claim for claim in swept.claimed if self._work.is_new(claim[0])]
        for entry, deliveries in fresh:
            self._work.begin(entry, partial(self._admit, deliveries))
        return len(fresh)

    async def _take_up(self, stream: str) -> int:
        """Begin work on what is pending for us and not in work: a lost reply named it."""
        reply = await self._connection.send(
            "XPENDING", stream, GROUP, "-", "+", _MOST_PENDING, self._recording.consumer
        )
        self._unsure.discard(stream)
        claimed = [(Entry(stream, item[0].decode()), int(item[3])) for item in reply]
        return self._begin(stream, Swept(tuple(claimed)))

    def _tell_refused(self, stream: str, error: StoreReplyError) -> None:
        """Log once why *stream* cannot be swept. A group that is gone is made by the reader."""
        if "NOGROUP" not in str(error) and self._refused.get(stream) != error.code:
            self._refused[stream] = error.code
            self._log.warning("sweep_refused", stream=stream, error=error.code)

    async def _admit(self, deliveries: int, held: Held) -> bool:
        """Read the entry, and tell whether it is to be worked on.

        One that has been delivered as often as allowed is poison. Whatever was at work beside the
        poison looks like it; so in their last delivery entries are worked on one at a time, and
        only the one that kills its worker then is counted on. One that goes on for long without
        doing so is no longer waited for.
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
        """Wait until no other suspect is at work, or that survived; False when we stop before."""
        admitted = False

        async def give_up() -> None:
            await self._stopping.wait()
            tasks.cancel_scope.cancel()

        self._work.idle(is_idle=True)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(give_up)
                await self._suspects.admit(held)
                admitted = True
                tasks.cancel_scope.cancel()
        finally:
            self._work.idle(is_idle=False)
        return admitted

    async def _forget_the_dead(self, stream: str) -> None:
        """Remove consumers that have long been gone and hold nothing: names are never reused."""
        for flat in await self._connection.send("XINFO", "CONSUMERS", stream, GROUP):
            facts = dict(zip(flat[::2], flat[1::2], strict=True))
            if facts[b"pending"] == 0 and facts[b"idle"] > _FORGET_IDLE_MS:
                await self.forget(stream, facts[b"name"].decode())

    async def forget(self, stream: str, consumer: str) -> None:
        """Remove *consumer* from the group of *stream*, unless an entry is pending for it."""
        await self._scripts.run("forget_consumer", [stream], [GROUP, consumer])
