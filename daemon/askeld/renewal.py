"""Renewal: entries in work stay ours, from a thread of its own.

A handler that blocks the event loop is therefore not robbed of its step. The thread has its own
loop and connection; it asks, in one script an entry, whether the entry is pending for this
consumer and whether the owner or attempt is still ours, and tells the loop when it is not.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import msgspec

from askel import StoreError
from askel.state import Entry, Keys, Renewed, Scripts, connect, renew_call, renewed
from askeld.health import Health
from askeld.observability import Logger

_STOP_S = 5.0
# CLOCK_MONOTONIC stands still while the machine sleeps; the leases in Redis run on.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def lease_clock() -> float:
    """Return the seconds by which leases are judged: those that a suspended machine slept count."""
    return time.clock_gettime(_CLOCK)


class Authority(msgspec.Struct, frozen=True):
    """By what an entry is renewed, beside being pending for this consumer, and who is told.

    ``field`` of ``holder_key`` names the owner of the run or the nonce of the attempt; while it is
    empty, being pending is enough. Replaced as a whole: an answer to an earlier one is told to
    whom that one named.
    """

    run_id: str = ""
    field: str = ""
    holder_key: str = ""
    nonce: str = ""
    lost: Callable[[], None] | None = None
    news: Callable[[Renewed], None] | None = None


class Held(msgspec.Struct):
    """One entry this process works on.

    ``progress`` is told when the work has done what an entry that kills its worker never does.
    """

    entry: Entry
    since: float
    authority: Authority = Authority()
    progress: Callable[[], None] | None = None


class Leases:
    """Every entry this process works on. Changed by the loop only; the thread reads copies."""

    def __init__(self) -> None:
        """Begin with none."""
        self._held: dict[tuple[str, str], Held] = {}

    def __len__(self) -> int:
        """Return how many entries are in work."""
        return len(self._held)

    def __contains__(self, entry: Entry) -> bool:
        """Tell whether *entry* is in work here."""
        return (entry.stream, entry.id) in self._held

    def hold(self, entry: Entry) -> Held:
        """Keep *entry* from now on."""
        held = Held(entry, lease_clock())
        self._held[entry.stream, entry.id] = held
        return held

    def release(self, held: Held) -> None:
        """Keep it no longer, unless the entry was taken anew meanwhile."""
        place = held.entry.stream, held.entry.id
        if self._held.get(place) is held:
            del self._held[place]

    def older_than(self, seconds: float) -> list[Held]:
        """Return what has been kept for longer than *seconds* since it was taken or renewed."""
        limit = lease_clock() - seconds
        return [held for held in list(self._held.values()) if held.since <= limit]


class Renewal:
    """The renewing thread."""

    def __init__(
        self,
        *,
        leases: Leases,
        connection: Any,
        keys: Keys,
        consumer: str,
        renew_ms: int,
        health: Health,
        log: Logger,
    ) -> None:
        """Renew the entries in *leases* for *consumer* every *renew_ms*."""
        self._leases = leases
        self._connection = connection
        self._keys = keys
        self._consumer = consumer
        self._renew_s = renew_ms / 1_000
        self._pulse = health.pulse("renewal")
        self._log = log
        self._thread = threading.Thread(target=self._main, name="askel-renewal", daemon=True)
        self._stopped = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failed = anyio.Event()
        self._failure: BaseException | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread; findings are told to *loop*."""
        self._loop = loop
        self._thread.start()

    async def stop(self) -> None:
        """Stop the thread; the last thing a draining worker does."""
        self._stopped.set()
        if self._thread.is_alive():
            await anyio.to_thread.run_sync(self._thread.join, _STOP_S)

    async def watch(self) -> None:
        """Raise what the thread failed with: without it, everything in work would be taken away."""
        await self._failed.wait()
        assert self._failure is not None
        raise self._failure

    def _main(self) -> None:
        try:
            asyncio.run(self._renew_until_stopped())
        except BaseException as error:  # noqa: BLE001 - raised again in the loop
            assert self._loop is not None
            self._failure = error
            with suppress(RuntimeError):  # the loop has ended before
                self._loop.call_soon_threadsafe(self._failed.set)

    async def _renew_until_stopped(self) -> None:
        connection = connect(self._connection, name="askel-renewal")
        scripts = Scripts(connection)
        pause_s = self._renew_s / 4
        self._pulse.beat(pause_s)
        while not await asyncio.to_thread(self._stopped.wait, pause_s):
            self._pulse.beat(pause_s)
            due = self._leases.older_than(self._renew_s)
            await asyncio.gather(*(self._renew(scripts, held) for held in due))
        await connection.close()

    async def _renew(self, scripts: Scripts, held: Held) -> None:
        by = held.authority
        call = renew_call(
            self._keys,
            self._consumer,
            held.entry,
            by.run_id,
            field=by.field,
            holder_key=by.holder_key or self._keys.meta,
            nonce=by.nonce,
        )
        asked_at = lease_clock()
        try:
            answer = renewed(await scripts.run(*call))
        except StoreError as error:
            self._log.debug("renewal_failed", entry_id=held.entry.id, error=str(error))
            return
        held.since = asked_at
        tell = self._loop
        assert tell is not None
        if answer is None:
            self._log.debug("entry_lost", entry_id=held.entry.id, run_id=by.run_id)
            if by.lost is not None:
                tell.call_soon_threadsafe(by.lost)
        elif by.news is not None:
            tell.call_soon_threadsafe(by.news, answer)
