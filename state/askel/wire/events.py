"""Waiting for runs to end: one reader of the events stream serves everybody in the process."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from askel.errors import RunNotFoundError, StoreError, WaitTimeoutError
from askel.state import (
    TERMINAL,
    Connection,
    Keys,
    RunStatus,
    WorkflowRun,
    fields_of,
    is_passing,
    read_run,
)
from askel.state.codec import PLAIN, Codec
from askel.wire.starts import Start

_BLOCK_MS = 10_000
#: How often a waited-for run is read although no event came, in case the stream was trimmed.
REREAD_S = 15.0
#: The first of the pauses after which a start is looked for that may take the place of a run.
_FIRST_REREAD_S = 0.25
_PAUSE_S = 0.2
#: How long a Redis that cannot be reached at first is asked again, in seconds.
_PATIENCE_S = 2.0


class _Waiting(asyncio.Event):
    """Set when there is news of the run that somebody waits for."""

    deleted = False


class RunWaiter:
    """Wakes those who wait for runs, from the events stream; nobody polls.

    The reader runs only while somebody waits. It has a connection of its own because it blocks.
    """

    def __init__(
        self, commands: Connection, blocking: Connection, keys: Keys, codec: Codec = PLAIN
    ) -> None:
        """Read runs by *commands* and events by *blocking*, payloads by *codec*."""
        self._commands = commands
        self._blocking = blocking
        self._keys = keys
        self._codec = codec
        self._waiting: dict[str, set[_Waiting]] = defaultdict(set)
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def wait(
        self,
        run_id: str,
        *,
        timeout_s: float | None,
        must_exist: bool,
        start: Start | None = None,
    ) -> WorkflowRun:
        """Return the run once it has ended; with *start* the one that came of it.

        A connection that is lost while waiting is waited out, too.

        Raises:
            ConflictError: The start was refused.
            StoreError: Redis could not be asked at first.
            RunNotFoundError: It does not exist, and *must_exist* (else it may be created yet), or
                it was deleted while somebody waited.
            WaitTimeoutError: It has not ended within *timeout_s*.
        """
        woken, known = _Waiting(), must_exist
        read = start.read if start else partial(self._read, run_id)
        # No event tells of a start that was refused because of the run that is there.
        pause_s = _FIRST_REREAD_S if start and start.may_replace else REREAD_S
        self._waiting[run_id].add(woken)
        try:
            async with asyncio.timeout(timeout_s):
                self._ensure_reader()
                await self._ready.wait()
                run = await self._read_patiently(read, _PATIENCE_S)
                while True:
                    if run is not None and run.status in TERMINAL:
                        return run
                    # What was deleted may have had the id before the run that is to come.
                    is_gone = run is None and (known or woken.deleted)
                    if is_gone and (known or start is None or not await start.may_come()):
                        raise RunNotFoundError(run_id)
                    known = known or run is not None
                    with suppress(TimeoutError):
                        await asyncio.wait_for(woken.wait(), REREAD_S if run else pause_s)
                    woken.clear()
                    pause_s = min(2 * pause_s, REREAD_S)
                    run = await self._read_patiently(read)
        except TimeoutError:
            msg = f"run {run_id!r} has not ended within {timeout_s:g} s; it goes on"
            raise WaitTimeoutError(msg) from None
        finally:
            self._waiting[run_id].discard(woken)
            if not self._waiting[run_id]:
                del self._waiting[run_id]

    async def close(self) -> None:
        """Stop the reader and close its connection."""
        await self._stop_reader()
        await self._blocking.close()

    async def _read(self, run_id: str) -> WorkflowRun | None:
        flat = await self._commands.send("HGETALL", self._keys.run(run_id))
        return read_run(fields_of(flat), self._codec) if flat else None

    async def _read_patiently(
        self, read: Callable[[], Awaitable[WorkflowRun | None]], patience_s: float = math.inf
    ) -> WorkflowRun | None:
        end = time.monotonic() + patience_s
        while True:
            try:
                return await read()
            except StoreError as error:
                if not is_passing(error) or time.monotonic() > end:
                    raise
            await asyncio.sleep(_PAUSE_S)

    def _ensure_reader(self) -> None:
        if self._reader is None or self._reader.done():
            self._ready.clear()
            self._reader = asyncio.create_task(self._follow())

    async def _stop_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _follow(self) -> None:
        """Read events while somebody waits; after a lost connection wake all to look anew."""
        last: str | None = None
        # The read under way is left to end by itself: cancelled, it would still block its
        # connection, and whoever waits next would wait for that.
        while self._waiting:
            try:
                if last is None:
                    last = await self._newest()
                    if self._ready.is_set():
                        self._wake_all()  # what happened meanwhile was not seen
                    self._ready.set()
                reply = await self._blocking.send(
                    "XREAD", "COUNT", 1000, "BLOCK", _BLOCK_MS, "STREAMS", self._keys.events, last
                )
            except StoreError:
                self._ready.set()  # whoever waits sees the error by its own read
                last = None
                await asyncio.sleep(_PAUSE_S)
                continue
            for entry, flat in reply[0][1] if reply else ():
                last = entry.decode()
                fields = fields_of(flat)
                status = fields.get("status", b"").decode()
                if status in _ENDS:
                    for event in self._waiting.get(fields.get("run_id", b"").decode(), ()):
                        event.deleted = event.deleted or status == _DELETED
                        event.set()

    async def _newest(self) -> str:
        reply = await self._blocking.send("XREVRANGE", self._keys.events, "+", "-", "COUNT", 1)
        return reply[0][0].decode() if reply else "0"

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()


#: The status in the event of a run that was deleted, ended or not.
_DELETED = "deleted"
_ENDS = frozenset({*(str(status) for status in RunStatus if status in TERMINAL), _DELETED})
