"""The worker: one process that reads commands, drives runs and executes steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import structlog
from anyio.abc import TaskStatus

from askel import App, StoreError
from askel.state import (
    Activations,
    Attempts,
    Connection,
    Keys,
    Recording,
    RedisWorkflowService,
    Scripts,
    SystemIds,
    Timers,
    connect,
)
from askel.workflow import Executor, LocalAttempt, Outcome
from askeld.actors import Actors
from askeld.alarm import TimerAlarm
from askeld.config import WorkerConfig, new_consumer
from askeld.consumer import Consumer
from askeld.dispatch import Dispatch
from askeld.nudges import NudgeLoop, Nudges
from askeld.observability import Logger
from askeld.reclaim import Reclaim
from askeld.renewal import Leases, Renewal
from askeld.steps import StepCommands
from askeld.timers import TimerLoop
from askeld.work import Work

# A blocking read may be silent for its block; only then is silence a sign of trouble.
_MARGIN_S = 5.0


class BindingExecutor(Executor):
    """Binds run, step and attempt to whatever a handler logs."""

    async def execute(self, attempt: LocalAttempt) -> Outcome:
        """Execute with the context bound; see ``Executor.execute``."""
        # Each attempt has a task, and so a context, of its own: nothing has to be unbound.
        structlog.contextvars.bind_contextvars(
            run_id=attempt.run_id, step=attempt.key, attempt=attempt.attempt
        )
        return await super().execute(attempt)


class Worker:
    """Every loop of the process, and the order in which they start and stop."""

    def __init__(
        self,
        app: App,
        config: WorkerConfig,
        log: Logger,
        *,
        reach: Callable[[str], None] | None = None,
    ) -> None:
        """Wire the parts together; nothing is opened yet."""
        self.consumer_name = config.consumer or new_consumer()
        self._app = app
        self._config = config
        self._log = log.bind(worker=self.consumer_name)
        self._keys = Keys(config.prefix)
        self._connections: list[Connection] = []
        scripts = Scripts(self._connect(_MARGIN_S, "askel"))
        common: dict[str, Any] = {
            "consumer": self.consumer_name,
            "lease_ms": config.lease_ms,
            "robbed_limit": config.max_deliveries,
            "clock_offset_ms": config.clock_offset_ms,
            "reach": reach,
        }
        recording = Recording(scripts, self._keys, **common)
        activations = Activations(scripts, self._keys, **common)
        attempts = Attempts(scripts, self._keys, **common)
        executor = BindingExecutor(threads=config.threads, reach=reach)
        ids, alarm, leases = SystemIds(), TimerAlarm(), Leases()
        self._leases = leases
        self._work = Work(leases, config.concurrency)
        self._actors = Actors(
            app, config, activations, recording, executor, ids, alarm, self._work, self._log
        )
        nudges = Nudges(self._connections[0], self._keys, self.consumer_name, self._actors)
        steps = StepCommands(app, attempts, executor, ids, nudges, alarm, self._log)
        self._dispatch = Dispatch(
            config, recording, attempts, self._actors, steps, nudges, leases, alarm, self._log
        )
        blocking_s = config.block_ms / 1_000 + _MARGIN_S
        self._consumer = Consumer(
            self._connect(blocking_s, "askel-read"),
            self._connections[0],
            self._keys,
            config,
            self.consumer_name,
            self._work,
            self._log,
        )
        self._nudge_loop = NudgeLoop(
            self._connect(blocking_s, "askel-nudge"), self._keys, self.consumer_name, self._actors
        )
        self._timers = TimerLoop(
            Timers(scripts, self._keys, **common), self._keys, alarm, self._log
        )
        self._reclaim = Reclaim(
            self._connections[0], recording, self._consumer.streams, config, self._work, self._log
        )
        self._renewal = Renewal(
            leases, config.url, self._keys, self.consumer_name, config.renew_ms, self._log
        )

    def _connect(self, timeout_s: float, name: str) -> Connection:
        connection = connect(self._config.url, timeout_s=timeout_s, name=name)
        self._connections.append(connection)
        return connection

    async def check(self) -> None:
        """Verify the server, and warn of what is allowed but unwise.

        Raises:
            StoreUnavailableError, StoreUnsafeError: The worker must not start.
        """
        service = RedisWorkflowService(
            self._config.url, key_prefix=self._config.prefix, allow_unsafe=self._config.allow_unsafe
        )
        try:
            facts = await service.init()
        finally:
            await service.close()
        if not facts.append_only:
            self._log.warning(
                "redis_not_persistent", hint="set appendonly yes, or a crash of Redis loses runs"
            )

    async def run(
        self, stop: anyio.Event, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Work until *stop* is set, then drain. A loop that fails takes everything down."""
        await self.check()
        try:
            await self._consumer.create_groups()
            async with anyio.create_task_group() as tasks:
                self._work.open(tasks, self._dispatch.handle)
                self._renewal.start(asyncio.get_running_loop())
                for loop in (self._timers, self._reclaim, self._nudge_loop):
                    tasks.start_soon(loop.run)
                tasks.start_soon(self._consumer.run)
                self._log.info(
                    "worker_ready",
                    app=self._app.name,
                    streams=self._consumer.streams,
                    workflows=sorted(self._app.workflows),
                    steps=sorted(self._app.steps),
                )
                task_status.started()
                await stop.wait()
                await self._drain()
                tasks.cancel_scope.cancel()
        finally:
            await self._close()

    async def _drain(self) -> None:
        """Stop reading, hand back what was not begun, let the rest end; renewal stops last."""
        self._log.info("worker_draining", in_work=len(self._leases))
        self._reclaim.stop()
        self._timers.stop()
        self._dispatch.drain()
        await self._consumer.stop()
        with anyio.move_on_after(self._config.drain_ms / 1_000) as scope:
            await self._work.wait_until_done()
        if scope.cancelled_caught:
            self._log.warning("drain_timed_out", in_work=len(self._leases))
            with anyio.move_on_after(_MARGIN_S):
                await self._dispatch.hand_back(self._leases.older_than(0))
        self._nudge_loop.stop()

    async def _close(self) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(_MARGIN_S):
            await self._renewal.stop()
            try:
                for stream in self._consumer.streams:
                    await self._reclaim.forget(stream, self.consumer_name)
                await self._connections[0].send("DEL", self._keys.nudge(self.consumer_name))
            except StoreError:
                pass  # whoever sweeps next forgets this consumer
            for connection in self._connections:
                await connection.close()
        self._log.info("worker_stopped")
