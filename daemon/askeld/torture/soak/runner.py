"""A soak from its first command to the time when nothing is left to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
from redis.exceptions import RedisError

from askel import RedisWorkflowService
from askeld.torture.diagnosis import describe
from askeld.torture.fault import Fault
from askeld.torture.faults.connections import Disconnect
from askeld.torture.faults.workers import SigStop
from askeld.torture.final_state import leftovers
from askeld.torture.runner import Torture
from askeld.torture.server import TortureServer
from askeld.torture.soak.archive import Archive
from askeld.torture.soak.config import SoakConfig
from askeld.torture.soak.sampler import Sampler
from askeld.torture.workers import Worker

_ATTEND_S = 2.0
_KEEP_S = 1.0
_POLL_S = 0.1
_SHOW_S = 1.0
#: Which worker dies when one is to be killed. The first stays, and one behind the proxy.
_MORTAL = 1


class Soak:
    """Long-lived workers under steady load, something going wrong now and then.

    Attributes:
        phase: What is going on.
        struck: Fault -> how often it was let loose; what of that bit, the fault itself knows.
        stuck: What has not come to an end; empty when all has.
        deaths: Workers that died although nobody killed them.
    """

    def __init__(self, config: SoakConfig, server: TortureServer) -> None:
        """Prepare a soak on *server*; start nothing."""
        self.config = config
        self.torture = Torture(config.torture, server.url, server)
        self.workers, self.load = self.torture.workers, self.torture.load
        self._client: Any = self.torture.client
        self.faults: dict[str, Fault] = {
            **self.torture.faults,
            Disconnect.name: Disconnect(self._client),
        }
        self.archive = Archive(server.aof, config.directory / "aof")
        self.phase = "load and faults"
        self.struck: Counter[str] = Counter()
        self.stuck: list[str] = []
        self.diagnosis: list[str] = []
        self.load_s = self.drained_s = 0.0
        self.compactions = 0
        self._veterans: dict[str, Worker] = {}
        self.sampler: Sampler | None = None

    @property
    def deaths(self) -> list[str]:
        """Workers that ended by themselves, and long-lived ones that are not there any more."""
        gone = [f"{name} is dead" for name, one in self._veterans.items() if one.dead.is_set()]
        return self.workers.ended + gone

    @property
    def long_lived(self) -> list[str]:
        """The workers that nobody kills."""
        return list(self._veterans)

    async def close(self) -> None:
        """Close what was opened."""
        if self.sampler is not None:
            self.sampler.close()
        await self.torture.close()

    async def run(self, show: Callable[[Soak], None]) -> Path:
        """Load, let things go wrong, let it all come to its end; return what is to be judged.

        At the end no process is left; what was stuck was still alive when it was described.
        """
        async with AsyncExitStack() as stack:
            assert self.torture.proxy is not None
            await stack.enter_async_context(self.torture.proxy.open())
            await stack.enter_async_context(self.workers.open())
            await self.workers.fill()
            await self._set_retention()
            await self._run(show)
        self.phase = "judgement"
        return self.archive.finish()

    async def _set_retention(self) -> None:
        prefix = self.config.torture.prefix
        async with RedisWorkflowService(self.torture.url, key_prefix=prefix) as service:
            await service.set_retention(None, ttl=timedelta(seconds=self.config.keep_s))

    async def _run(self, show: Callable[[Soak], None]) -> None:
        self._veterans = self._long_lived()
        pids = {name: worker.pid for name, worker in self._veterans.items()}
        config = self.config
        self.sampler = Sampler(self._client, config.torture.prefix, pids, config.directory)
        began = anyio.current_time()
        async with anyio.create_task_group() as watchers:
            watchers.start_soon(self.load.watch)
            watchers.start_soon(self._keep_file)
            watchers.start_soon(self._show, show)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.sampler.run, began, config.sample_s)
                tasks.start_soon(self._attend)
                tasks.start_soon(self._compact)
                async with anyio.create_task_group() as harm:
                    harm.start_soon(self.load.start_runs, lambda: False)
                    harm.start_soon(self._strike)
                tasks.cancel_scope.cancel()
            self.load_s = anyio.current_time() - began
            self.phase = "drain"
            await self._drain()
            watchers.cancel_scope.cancel()

    def _long_lived(self) -> dict[str, Worker]:
        found = {}
        for number, worker in enumerate(self.workers.alive.values()):
            if number != _MORTAL:
                worker.is_spared = True
                found[f"worker {number + 1}"] = worker
        return found

    async def _strike(self) -> None:
        """Let one fault strike when its time has come, and the one before is over."""
        dice, began = self.config.torture.dice("soak"), anyio.current_time()
        for number, name in enumerate(self.config.strikes()):
            await anyio.sleep_until(began + (number + 0.5) * self.config.every_s)
            # Those that must live may be stopped: that they wake up and go on is worth a look.
            for worker in self._veterans.values():
                worker.is_spared = name != SigStop.name
            self.struck[name] += 1
            await self.faults[name].strike(dice)
        for worker in self._veterans.values():
            worker.is_spared = True

    async def _attend(self) -> None:
        """Do what people do: resume what was suspended, drop dead letters that are old."""
        letters = f"{self.config.torture.prefix}:dead"
        while True:
            await anyio.sleep(_ATTEND_S)
            await self.load.resume_all()
            with suppress(RedisError):
                now = (await self._client.time())[0]
                oldest_ms = round((now - self.config.keep_s) * 1_000)
                await self._client.xtrim(letters, minid=oldest_ms, approximate=False)

    async def _keep_file(self) -> None:
        while True:
            self.archive.keep()
            await anyio.sleep(_KEEP_S)

    async def _compact(self) -> None:
        """Have the append-only file rewritten now and then, where nothing is lost by that."""
        while self.archive.can_be_rewritten:
            await anyio.sleep(self.config.compact_s)
            self.archive.keep()
            try:
                await self._client.bgrewriteaof()
            except RedisError:
                continue  # it is away, or at it: the next time, then
            self.compactions += 1

    async def _drain(self) -> None:
        """Wait until every run has ended and nothing is left; what does not move is stuck."""
        began = moved = anyio.current_time()
        await self.workers.fill()
        seen: object = None
        while left := await self._left():
            now = anyio.current_time()
            if left != seen:
                seen, moved = left, now
            if now - moved > self.config.stuck_s:
                self.stuck = left
                prefix = self.config.torture.prefix
                self.diagnosis = await describe(self._client, prefix, self.workers)
                break
            await anyio.sleep(_POLL_S)
        self.drained_s = anyio.current_time() - began

    async def _left(self) -> list[str]:
        """Return what is still to be done, one sentence for each; empty when all is over."""
        await self.load.resume_all()
        prefix = self.config.torture.prefix
        try:
            for status in ("running", "suspended", "stalled"):
                if count := await self._client.zcard(f"{prefix}:runs:status:{status}"):
                    return [f"{count} runs are {status}"]
            letters = int(await self._client.xlen(f"{prefix}:dead"))
            return await leftovers(self._client, prefix, dead=letters)
        except RedisError as error:
            return [f"Redis does not answer: {error}"]

    async def _show(self, show: Callable[[Soak], None]) -> None:
        while True:
            show(self)
            await anyio.sleep(_SHOW_S)
