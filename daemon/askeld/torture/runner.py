"""A run under torture, from its first command to its report."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from urllib.parse import urlsplit, urlunsplit

import anyio
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from askel import InvalidOptionError
from askeld.torture.client_log import ClientLog
from askeld.torture.config import NEED_SHIMS, SETTINGS, TortureConfig
from askeld.torture.diagnosis import describe
from askeld.torture.fault import Fault
from askeld.torture.faults.clock import ClockJump
from askeld.torture.faults.drain import Drain
from askeld.torture.faults.locks import Evict
from askeld.torture.faults.proxy import ProxyFault
from askeld.torture.faults.server import OutOfMemory, PowerLoss, RedisKill
from askeld.torture.faults.workers import Failpoint, Kill9, SigStop
from askeld.torture.final_state import leftovers
from askeld.torture.load import Load
from askeld.torture.server import TortureServer
from askeld.torture.worker_process import WorkerSpec
from askeld.torture.workers import Workers

#: The named points at which workers die, each in its turn.
POINTS = tuple(
    f"{side}_{name}"
    for name in ("start", "turn", "handler", "activate", "begin", "complete", "record", "fire")
    for side in ("before", "after")
)
#: One worker of so many is connected through the proxy, where there is one.
_PROXIED_OF = 3
#: A worker that is only late must not be robbed: the naive one breaks by that alone.
_NAIVE_IDLE_MS = 2_000
_NAIVE_POINTS = ("before_command", "after_command")
_REDIS_PORT = 6379
_POLL_S = 0.05
#: Nothing has moved for so long: what the client asked for may be lost, where that is allowed.
_ASK_AGAIN_S = 2.0
_SHOW_S = 1.0
#: How many strikes of one kind may go on at the same time.
_AT_ONCE = 6
#: How many runs faults may be ahead of the load.
_AHEAD = 20


class Torture:
    """One run: workers, load and faults, side by side, then the time to get over it."""

    def __init__(
        self, config: TortureConfig, url: str, server: TortureServer | None = None
    ) -> None:
        """Prepare a run on the server at *url*, which is *server* if it is ours; start nothing."""
        self.config = config
        self.url = url
        self._server = server
        naive = config.mode == "naive"
        idle = {"claim_idle_ms": _NAIVE_IDLE_MS} if naive else {}
        self._settings = {**SETTINGS, **idle, **config.settings}
        self.log = ClientLog(config.directory / "client.jsonl")
        self.proxy = _proxy(url) if "proxy" in config.faults else None
        #: The address behind the proxy, for those who are to suffer from it; else the server's.
        self.proxied_url = _through(self.proxy, url)
        self.client = _client(url)
        self.suffering_client = _client(self.proxied_url)
        self.load = Load(config, self.suffering_client, self.client, self.log)
        self.workers = Workers(
            config.directory, config.workers, self._spec, lambda: bool(self.starting_s)
        )
        self.faults: dict[str, Fault] = {}
        #: Faults that cannot be simulated here -> why.
        self.skipped: dict[str, str] = {}
        self._hired = 0
        self._make_faults()
        self.phase = "load and faults"
        self.struck = 0
        self.stuck: list[str] = []
        self.diagnosis: list[str] = []
        self.began_ms = time.time_ns() // 1_000_000
        self.load_s = 0.0
        self.drained_s = 0.0

    @property
    def points(self) -> tuple[str, ...]:
        """The named points at which workers of this run may die."""
        return POINTS if self.config.mode == "askel" else _NAIVE_POINTS

    @property
    def points_planned(self) -> dict[str, int]:
        """How often a worker was to die at each of them, so far."""
        fault = self.faults.get(Failpoint.name)
        return dict(fault.planned) if isinstance(fault, Failpoint) else {}

    @property
    def max_deliveries(self) -> int:
        """How often a worker of this run takes the same entry."""
        return int(self._settings["max_deliveries"])

    def _make_faults(self) -> None:
        lease_s = self._settings["claim_idle_ms"] / 1_000
        known: list[Fault] = [
            Kill9(self.workers),
            Failpoint(self.workers, self.points),
            SigStop(self.workers, lease_s),
            Drain(self.workers, self._server),
            Evict(self.client, self.config.prefix),
        ]
        if self.proxy is not None:
            known.append(self.proxy)
        if self._server is not None:
            server = self._server
            known += [RedisKill(server), OutOfMemory(server), PowerLoss(server), ClockJump(server)]
        for fault in known:
            if fault.name not in self.config.faults:
                continue
            if fault.name in NEED_SHIMS and self._server is not None and self._server.without:
                self.skipped[fault.name] = self._server.without
            else:
                self.faults[fault.name] = fault

    def _spec(self, failpoint: str) -> WorkerSpec:
        folder = self.config.directory
        self._hired += 1
        url = self.url if self._hired % _PROXIED_OF else self.proxied_url
        settings = {"url": url, "prefix": self.config.prefix, "queues": self._queues(failpoint)}
        return WorkerSpec(
            mode=self.config.mode,
            settings={**self._settings, **settings},
            evidence=str(folder / "evidence.jsonl"),
            effects=str(folder / "effects.jsonl"),
            errors=str(folder / "workers.err"),
            failpoint=failpoint,
        )

    def _queues(self, failpoint: str) -> tuple[str, ...]:
        """Return what the next worker serves: some serve one queue only, while one serves all."""
        queues = tuple(self._settings["queues"])
        is_choosy = self.config.mode == "askel" and not failpoint and self._hired % 2
        if not is_choosy or not self.workers.serves(queues):
            return queues
        return (queues[self._hired // 2 % len(queues)],)

    async def close(self) -> None:
        """Close the client and its log."""
        await self.client.aclose()
        await self.suffering_client.aclose()
        self.log.close()

    async def run(self, show: Callable[[Torture], None]) -> None:
        """Start all runs while faults strike; then let it all come to its end.

        At least as many runs are started as were asked for, and more while faults still strike.
        At the end no process is left; what was stuck was still alive when it was described.
        """
        async with AsyncExitStack() as stack:
            if self.proxy is not None:
                await stack.enter_async_context(self.proxy.open())
            await stack.enter_async_context(self.workers.open())
            await self.workers.fill()
            await self._run(show)
        self.phase = "judgement"
        show(self)

    async def _run(self, show: Callable[[Torture], None]) -> None:
        began = anyio.current_time()
        async with anyio.create_task_group() as watchers:
            watchers.start_soon(self.load.watch)
            watchers.start_soon(self._show, show)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.load.start_runs, lambda: self.is_striking)
                tasks.start_soon(self._strike)
            self.load_s = anyio.current_time() - began
            self.phase = "drain"
            await self._drain()
            watchers.cancel_scope.cancel()

    @property
    def starting_s(self) -> float:
        """For how long a server of ours has been loading its data after a fault; else 0."""
        return 0.0 if self._server is None else self._server.starting_s

    @property
    def is_striking(self) -> bool:
        """Whether there are faults left to strike."""
        return self.struck < sum(self.config.faults[name] for name in self.faults)

    async def _strike(self) -> None:
        """Let every fault strike when its time has come, and the load has come as far."""
        began, planned = anyio.current_time(), self.config.strikes()
        async with anyio.create_task_group() as tasks:
            for name, fault in self.faults.items():
                times = [at for at, struck in planned if struck == name]
                tasks.start_soon(self._strike_with, fault, times, began)

    async def _strike_with(self, fault: Fault, times: list[float], began: float) -> None:
        dice = self.config.dice(fault.name)
        limit = anyio.CapacityLimiter(_AT_ONCE)

        async def strike() -> None:
            async with limit:
                await fault.strike(dice)
            self.struck += 1

        async with anyio.create_task_group() as tasks:
            for at in times:
                await anyio.sleep_until(began + at)
                await self.load.reach(self.config.runs * at / self.config.seconds - _AHEAD)
                tasks.start_soon(strike)

    async def _drain(self) -> None:
        """Wait until every run has ended and nothing is left; what does not move is stuck."""
        began = moved = asked = anyio.current_time()
        clock = self.faults.get(ClockJump.name)
        if isinstance(clock, ClockJump):
            await clock.end()
        await self.workers.fill()
        if not self.workers.serves(self._settings["queues"]):
            await self.workers.hire()  # whoever is left might serve the same queue
        seen: object = None
        while True:
            left = await self._left()
            if not left:
                break
            if left != seen:
                seen, moved = left, anyio.current_time()
            now = anyio.current_time()
            if self.config.may_lose and now - max(moved, asked) > _ASK_AGAIN_S:
                asked = now
                await self.load.complete_again()
            if now - moved > self.config.stuck_s:
                self.stuck = left
                self.diagnosis = await describe(self.client, self.config.prefix, self.workers)
                break
            await anyio.sleep(_POLL_S)
        self.drained_s = anyio.current_time() - began

    async def _left(self) -> list[str]:
        """Return what is still to be done, one sentence for each; empty when all is over."""
        await self.load.look()
        runs = self.load.there if self.config.may_lose else self.load.sent
        if self.load.ended < runs:
            await self.load.resume_all()
            return [f"{runs - self.load.ended} runs have not ended"]
        try:
            letters = int(await self.client.xlen(f"{self.config.prefix}:dead"))
            return await leftovers(self.client, self.config.prefix, dead=letters)
        except RedisError as error:
            return [f"Redis does not answer: {error}"]

    async def _show(self, show: Callable[[Torture], None]) -> None:
        while True:
            show(self)
            await anyio.sleep(_SHOW_S)


def _client(url: str) -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(
        url, retry=Retry(NoBackoff(), 0), socket_timeout=5, protocol=2
    )


def _proxy(url: str) -> ProxyFault:
    parts = urlsplit(url)
    if parts.scheme != "redis":
        msg = (
            f"--faults proxy forwards plain TCP, not {parts.scheme}://: leave it out for this Redis"
        )
        raise InvalidOptionError(msg)
    return ProxyFault(parts.hostname or "localhost", parts.port or _REDIS_PORT)


def _through(proxy: ProxyFault | None, url: str) -> str:
    """Return *url* with the proxy's place in it, user and password kept."""
    if proxy is None:
        return url
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}{at}{urlsplit(proxy.url).netloc}"))
