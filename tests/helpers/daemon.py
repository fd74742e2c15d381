"""Workers inside the test's own process, and what tests say to them and ask of Redis."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import redis.asyncio
import structlog
from tests.helpers.history_checker import TERMINAL, RunRecord, check_run, leftovers, read_record
from tests.helpers.waiting import wait_until

from askel import App
from askeld.config import WorkerConfig
from askeld.worker import Worker

#: Leases that are over before a test gets impatient; a worker alone in a test is never robbed.
FAST: dict[str, Any] = {
    "lease_ms": 300,
    "claim_idle_ms": 450,
    "sweep_ms": 30,
    "linger_ms": 10_000,
    "drain_ms": 5_000,
    "not_found_after_ms": 300,
    "unknown_after_ms": 400,
}
#: The fields of commands that hold JSON.
PAYLOADS = ("input", "data", "result", "error", "output")


class RunningWorker:
    """A worker at work in this process: its log records, the points it reached, its insides."""

    def __init__(
        self, app: App, config: WorkerConfig, at_point: Callable[[str], None] | None = None
    ) -> None:
        self.logs: list[dict[str, Any]] = []
        self.reached: Counter[str] = Counter()
        self._at_point = at_point
        self._stop = anyio.Event()
        self.ended = anyio.Event()
        processors = [structlog.contextvars.merge_contextvars, self._log]
        log = structlog.wrap_logger(None, processors=processors)
        self.worker = Worker(app, config, log, reach=self._reach)
        self.name = self.worker.consumer_name

    def _log(self, logger: object, level: str, record: Mapping[str, Any]) -> Any:
        self.logs.append({**record, "level": level})
        raise structlog.DropEvent

    def _reach(self, point: str) -> None:
        self.reached[point] += 1
        if self._at_point is not None:
            self._at_point(point)

    async def run(self, *, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        """Work until `stop` is called, then drain."""
        try:
            await self.worker.run(self._stop, task_status=task_status)
        finally:
            self.ended.set()

    def stop(self) -> None:
        """Ask it to drain; see `stopped`."""
        self._stop.set()

    async def stopped(self) -> None:
        """Ask it to drain, and return when it has ended."""
        self.stop()
        await self.ended.wait()

    def logged(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Return its log records of this event and these fields."""
        wanted = {"event": event, **fields}
        return [r for r in self.logs if all(r.get(key) == value for key, value in wanted.items())]


class Deployment:
    """One prefix on one server: workers are started on it, commands sent to it."""

    def __init__(self, client: redis.asyncio.Redis, url: str, prefix: str) -> None:
        self.client = client
        self.url = url
        self.prefix = prefix

    @asynccontextmanager
    async def worker(
        self, app: App, *, at_point: Callable[[str], None] | None = None, **settings: Any
    ) -> AsyncIterator[RunningWorker]:
        """Run a worker in this process, ready when entered, drained when left."""
        settings = {"url": self.url, "prefix": self.prefix, **FAST, **settings}
        running = RunningWorker(app, WorkerConfig(**settings), at_point)
        async with anyio.create_task_group() as tasks:
            await tasks.start(running.run)
            try:
                yield running
            except BaseException as error:
                error.add_note("\n".join(map(str, running.logs[-15:])))
                raise
            running.stop()

    async def send(self, type: str, queue: str = "", **fields: Any) -> str:
        """XADD a command as any program would; payloads become JSON, bytes are sent as they are."""
        words: dict[str, str | bytes] = {"type": type}
        for name, value in fields.items():
            is_json = name in PAYLOADS and not isinstance(value, bytes)
            words[name] = json.dumps(value) if is_json else _word(value)
        entry = await self.client.xadd(self.stream(queue), words)
        return entry.decode()

    def stream(self, queue: str = "") -> str:
        """Return the stream of a queue."""
        return f"{self.prefix}:commands:{queue}" if queue else f"{self.prefix}:commands"

    async def status(self, run_id: str) -> str | None:
        """Return the run's status, None when there is no run."""
        value = await self.client.hget(f"{self.prefix}:run:{run_id}", "status")
        return None if value is None else value.decode()

    async def step(self, run_id: str, name: str) -> dict[str, str]:
        """Return the hash of a step."""
        fields = await self.client.hgetall(f"{self.prefix}:step:{run_id}:{name}")
        return {key.decode(): value.decode() for key, value in fields.items()}

    async def record(self, run_id: str) -> RunRecord:
        """Return all that Redis holds of the run, unjudged."""
        return await read_record(self.client, self.prefix, run_id)

    async def until(
        self, run_id: str, status: str | tuple[str, ...] = TERMINAL, timeout: float = 15
    ) -> RunRecord:
        """Wait until the run has one of the statuses; return its record, judged.

        That its driver has let go of a run that somebody else ended is for `quiet` to see.
        """
        wanted = (status,) if isinstance(status, str) else status

        async def there() -> bool:
            return await self.status(run_id) in wanted

        try:
            await wait_until(there, timeout, f"run {run_id} {' or '.join(wanted)}")
        except AssertionError as error:
            error.add_note(str(await self.record(run_id)))
            error.add_note(str(await leftovers(self.client, self.prefix)))
            raise
        return await check_run(self.client, self.prefix, run_id, settled=False)

    async def until_completed(self, count: int, timeout: float = 20) -> int:
        """Wait until at least *count* runs have completed; return how many have."""
        completed = 0

        async def there() -> bool:
            nonlocal completed
            completed = await self.client.zcard(f"{self.prefix}:runs:status:completed")
            return completed >= count

        await wait_until(there, timeout, lambda: f"{count} completed runs, not {completed}")
        return completed

    async def until_step(self, run_id: str, name: str, *statuses: str, timeout: float = 10) -> None:
        """Wait until the step has one of the statuses."""

        async def there() -> bool:
            return (await self.step(run_id, name)).get("status") in statuses

        await wait_until(there, timeout, f"step {name} {' or '.join(statuses)}")

    async def dead_letters(self, count: int = 1, timeout: float = 10) -> list[dict[str, str]]:
        """Wait for *count* dead letters and return all there are, oldest first."""

        async def there() -> bool:
            return await self.client.xlen(f"{self.prefix}:dead") >= count

        await wait_until(there, timeout, f"{count} dead letters")
        return [
            {k.decode(): v.decode(errors="backslashreplace") for k, v in fields.items()}
            for _, fields in await self.client.xrange(f"{self.prefix}:dead")
        ]

    async def quiet(self, *, dead: int = 0, timeout: float = 10) -> None:
        """Wait until nothing is left to do: no entries, none pending, no timers, owners, locks."""
        found = [""]

        async def nothing() -> bool:
            found[:] = await leftovers(self.client, self.prefix, dead=dead)
            return not found

        await wait_until(nothing, timeout, lambda: "\n".join(found))

    async def runs(self) -> list[str]:
        """Return all run ids, oldest first."""
        return [run.decode() for run in await self.client.zrange(f"{self.prefix}:runs", 0, -1)]


def loops_of_a_worker() -> list[str]:
    """Return the names of all loops that a worker has."""
    return sorted(Worker(App("any"), WorkerConfig(), structlog.get_logger()).health._pulses)


@pytest.fixture
def deployment(redis: redis.asyncio.Redis, redis_url: str, prefix: str) -> Deployment:
    """The test's own prefix on its server."""
    return Deployment(redis, redis_url, prefix)


def _word(value: object) -> str | bytes:
    return value if isinstance(value, bytes) else str(value)
