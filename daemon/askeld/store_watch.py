"""The watch on the store: one probe that says whether Redis takes writes, and what is wrong.

Everything that a worker sends again until it is answered waits by itself. What it must not do
meanwhile is read and claim: entries that it could not begin would wait here, and not where another
worker may be able to. So while the store takes no writes, there is no room for new work.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable

import anyio

from askel import StoreError, StoreUnsafeError, StoreWipedError
from askel.state import Connection, Keys, ServerFacts, StoreTrouble, probe_store, trouble_of
from askeld.health import Health
from askeld.observability import Logger

_EVERY_S = 1.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5
#: How many probes pass between two looks at what changes rarely: settings, permissions.
_LOOK_CLOSELY_EVERY = 15

# What is looked at: trouble there keeps new work from being begun.
_WRITES, _SETTINGS = "writes", "settings"
_HALTING = (_WRITES, _SETTINGS)

#: What is logged when the store gets into trouble, and what a person can do about it.
_TOLD: dict[StoreTrouble, tuple[str, str, str]] = {
    StoreTrouble.AWAY: (
        "warning",
        "store_away",
        "the worker goes on by itself when Redis answers again",
    ),
    StoreTrouble.NOT_READY: (
        "warning",
        "store_not_ready",
        "Redis is up but cannot serve yet (loading its data, or busy with a script): wait",
    ),
    StoreTrouble.READ_ONLY: (
        "error",
        "store_read_only",
        "this Redis is a replica: give the address of the primary, or that of the Sentinels",
    ),
    StoreTrouble.FULL: (
        "error",
        "store_full",
        (
            "Redis has no memory left: raise maxmemory or free some; results still land, nothing "
            "new is begun"
        ),
    ),
    StoreTrouble.UNSAFE: (
        "error",
        "store_unsafe",
        (
            "Redis refuses writes that it could not keep: look for a full disk (MISCONF), for "
            "replicas that are away (NOREPLICAS), or set maxmemory-policy noeviction"
        ),
    ),
    StoreTrouble.WRONG_TYPE: (
        "error",
        "store_wrong_type",
        "another program wrote the meta key of this prefix: remove it, or use another prefix",
    ),
}
_OTHER = ("error", "store_refused", "Redis refuses what it did not refuse before: see the error")

_OF_THE_SERVER = {StoreTrouble.READ_ONLY, StoreTrouble.FULL, StoreTrouble.UNSAFE}


class StoreWatch:
    """Probes the store, tells what changes, and lets work begin only while writes land.

    ``trouble`` and ``why`` say how it stands now (None: well); ``counts`` how often what happened
    since the start.
    """

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        log: Logger,
        *,
        health: Health,
        pause_work: Callable[[bool], None],
        inspect: Callable[[], Awaitable[ServerFacts]],
        look_closely: Callable[[], Awaitable[tuple[str, bool]]],
        after_reset: Callable[[], Awaitable[None]],
        lost: Callable[[], None],
        exit_when_wiped: bool = False,
    ) -> None:
        """Probe by *connection*.

        Args:
            connection: By which the worker's writes are sent, too.
            keys: The deployment.
            log: Told of each change once.
            health: Not ready while the store is in trouble.
            pause_work: Called with True when no new work may be begun, with False when it may.
            inspect: Checks the server, and makes the meta key where it is missing.
            look_closely: Checks what changes rarely; returns why the server is unsafe (empty: it
                is not), and whether commands were lost.
            after_reset: Makes anew what a store that lost its data needs.
            lost: Told that entries of streams were lost, and with them what drives runs.
            exit_when_wiped: Raise when the store lost its data, in the place of going on.
        """
        self._connection = connection
        self._keys = keys
        self._log = log
        self._health = health
        self._pulse = health.pulse("store")
        self._pause_work = pause_work
        self._inspect = inspect
        self._look_closely = look_closely
        self._after_reset = after_reset
        self._lost = lost
        self._exit_when_wiped = exit_when_wiped
        self._store_id = self._found = ""
        self._troubles: dict[str, tuple[StoreTrouble, str]] = {}
        self._since = 0.0
        self._told: StoreTrouble | None = None
        self._paused = False
        self._probes = 0
        self._look = anyio.Event()
        self._stopping = False
        self.counts: Counter[str] = Counter()

    @property
    def trouble(self) -> StoreTrouble | None:
        """What is wrong now; None while all is well."""
        return self._now()[0]

    @property
    def why(self) -> str:
        """What Redis, or the way to it, said last; empty while all is well."""
        return self._now()[1]

    def expect(self, store_id: str) -> None:
        """Take it from now on that the store is the one with this id."""
        self._store_id = self._found = store_id

    def stop(self) -> None:
        """Probe no more."""
        self._stopping = True
        self._look.set()

    def noticed(self, error: StoreError) -> None:
        """Look at once: somebody's write was refused, or its reply lost."""
        if self.trouble is None and trouble_of(error) is not StoreTrouble.MISSING:
            self._look.set()

    def groups_missing(self) -> None:
        """Look at once whether the store lost its data: a stream or its group is gone."""
        self.counts["group_missing"] += 1
        self._lost()
        self._look.set()

    def saw(self, part: str, error: StoreError) -> None:
        """Take note that *part* of the worker, which has a connection of its own, is in trouble."""
        trouble = trouble_of(error)
        self._look.set()
        if trouble in _OF_THE_SERVER:
            return  # for the probe to find, and to find gone: a replica answers who only reads
        self._troubles[part] = (trouble, str(error))
        self._tell()

    def well(self, part: str) -> None:
        """Take note that *part* got an answer."""
        if self._troubles.pop(part, None) is not None:
            self._tell()

    async def run(self) -> None:
        """Probe until stopped: every second, and more often while something is wrong."""
        pause_s = _FIRST_PAUSE_S
        while not self._stopping:
            self._look = anyio.Event()
            self._pulse.beat()
            trouble = await self.run_once()
            # However many call for a look, there are no more probes than these pauses allow.
            await anyio.sleep(pause_s)
            if trouble is not None:
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                continue
            pause_s = _FIRST_PAUSE_S
            self._pulse.beat(_EVERY_S)
            with anyio.move_on_after(_EVERY_S):
                await self._look.wait()

    async def run_once(self) -> StoreTrouble | None:
        """Probe once; return what keeps new work from being begun, None if nothing does.

        Raises:
            StoreWipedError: The store lost its data, and the worker was told to end then.
            StoreAccessError: The login is refused, or the permission to look.
            StoreUnsafeError: The store that is there now must not be used.
        """
        try:
            await self._probe()
            self._troubles.pop(_WRITES, None)
            self._probes += 1
            if self._probes % _LOOK_CLOSELY_EVERY == 0:
                await self.look_closely()
        except (StoreWipedError, StoreUnsafeError):
            raise
        except StoreError as error:
            trouble = trouble_of(error)
            if trouble is StoreTrouble.DENIED:
                raise
            self._troubles[_WRITES] = (trouble, str(error))
        self._tell()
        halts = next((self._troubles[part] for part in _HALTING if part in self._troubles), None)
        if (halts is not None) != self._paused:
            self._paused = not self._paused
            self._pause_work(self._paused)
        return None if halts is None else halts[0]

    async def _probe(self) -> None:
        found = await probe_store(self._connection, self._keys)
        if self._store_id and found != self._store_id:
            await self._wiped(found)

    async def look_closely(self) -> None:
        """Check what changes rarely."""
        unsafe, is_lost = await self._look_closely()
        if is_lost:
            self.counts["commands_trimmed"] += 1
            self._lost()
        if unsafe:
            self._troubles[_SETTINGS] = (StoreTrouble.UNSAFE, unsafe)
        else:
            self._troubles.pop(_SETTINGS, None)

    async def _wiped(self, found: str) -> None:
        """Say that the data is gone, and make anew what a new store needs; or end."""
        if found != self._found:
            self._found = found
            self.counts["store_wiped"] += 1
            self._log.error(
                "store_wiped",
                expected=self._store_id,
                found=found,
                hint="this Redis is not the one that was there at the start, or it lost its data: "
                "the runs of before are gone from it; restore a backup, or start them anew",
            )
        if self._exit_when_wiped:
            msg = (
                f"the store of prefix {self._keys.prefix!r} lost its data, or is another one than "
                "at the start: restore a backup, or start its runs anew"
            )
            raise StoreWipedError(msg)
        facts = await self._inspect()
        self._store_id = self._found = facts.store_id
        await self._after_reset()
        self._lost()

    def _tell(self) -> None:
        """Log what has changed since it was last said; the same trouble is said once."""
        now, why = self._now()
        if now is self._told:
            return
        before, self._told = self._told, now
        if now is None:
            away_s = round(time.monotonic() - self._since, 3)
            self._log.info("store_back", after=before, seconds=away_s)
        elif before is None:
            self._since = time.monotonic()
        if before is not None:
            self._health.clear(_TOLD.get(before, _OTHER)[1])
        if now is not None:
            level, event, hint = _TOLD.get(now, _OTHER)
            self.counts[event] += 1
            self._health.hinder(event)
            getattr(self._log, level)(event, error=why, hint=hint)

    def _now(self) -> tuple[StoreTrouble | None, str]:
        """Return the trouble that explains the most: what halts new work, else any."""
        parts = [*_HALTING, *self._troubles]
        return next((self._troubles[part] for part in parts if part in self._troubles), (None, ""))
