"""The worker: one process that reads commands, drives runs and executes steps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import structlog
from anyio.abc import TaskStatus

from askel import App, AskelError, StoreError
from askel.state import (
    CONFIRM_S,
    Activations,
    Attempts,
    Confirmer,
    Connection,
    Durability,
    Keys,
    Recording,
    Retention,
    Scripts,
    ServerFacts,
    Sweeping,
    SystemIds,
    Timers,
    TimerSweep,
    TokenSweep,
    Unconfirmed,
    Watching,
    connect,
)
from askel.workflow import Executor, LocalAttempt, Outcome
from askeld.actors import Actors
from askeld.alarm import TimerAlarm
from askeld.config import WorkerConfig, new_consumer
from askeld.confirming import ConfirmingLoop
from askeld.consumer import Consumer
from askeld.context import WorkerContext
from askeld.dispatch import Dispatch
from askeld.health import Health
from askeld.nudges import NudgeLoop, Nudges
from askeld.observability import Logger
from askeld.reclaim import Reclaim
from askeld.renewal import Leases, Renewal
from askeld.retention import RetentionLoop
from askeld.store_check import StoreCheck, facts_to_warn_of
from askeld.store_watch import StoreWatch
from askeld.stuck import StuckLoop
from askeld.timers import TimerLoop
from askeld.tokens import TokenLoop
from askeld.work import Work

# A blocking read may be silent for its block; only then is silence a sign of trouble.
_MARGIN_S = 5.0
#: For how long loops insist on an answer before they begin anew, and so show that they move.
_PATIENCE_S = 5.0


class LoopEndedError(AskelError):
    """A loop of the worker ended, or was cancelled, although nobody had asked for that."""


class BindingExecutor(Executor):
    """Binds run, step and attempt to whatever a handler logs, and tells of those it gives up."""

    def __init__(self, log: Logger, **options: Any) -> None:
        """Write to *log*; *options* are those of ``Executor``."""
        super().__init__(**options)
        self._log = log

    def gave_up(self, attempt: LocalAttempt) -> None:
        """Warn: something runs on whose attempt is over."""
        self._log.warning(
            "handler_abandoned",
            run_id=attempt.run_id,
            step=attempt.key,
            attempt=attempt.attempt,
            hint="it was cancelled, or its time was over, and it did not end",
        )

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
        app = app.for_compat() if config.compat else app
        self._app = app
        self._config = config
        self._log = log.bind(worker=self.consumer_name)
        self._keys = Keys(config.prefix)
        self._connections: list[Connection] = []
        self._leases = Leases()
        self._work = Work(self._leases, config.concurrency)
        #: What the process knows of itself, for whoever asks from outside.
        self.health = Health(self.consumer_name, config.watchdog_ms / 1_000)
        self._executor = BindingExecutor(
            self._log,
            threads=config.threads,
            grace_s=config.cancel_grace_ms / 1_000,
            reach=reach,
            codec=app.codec,
        )
        self.health.check("threads", lambda: self._executor.lost_threads >= config.threads)
        self.health.check("handlers", lambda: self._executor.lost_tasks >= config.concurrency)
        self._stopping = False
        context = WorkerContext(
            app=app,
            config=config,
            consumer=self.consumer_name,
            keys=self._keys,
            ids=SystemIds(),
            executor=self._executor,
            leases=self._leases,
            work=self._work,
            alarm=TimerAlarm(),
            health=self.health,
            log=self._log,
        )
        self._wire(context, reach)

    def _wire(self, context: WorkerContext, reach: Callable[[str], None] | None) -> None:
        config, keys, name = self._config, self._keys, self.consumer_name
        blocking_s = config.block_ms / 1_000 + _MARGIN_S
        commands = self._connect(_MARGIN_S, "askel")
        common: dict[str, Any] = {
            "consumer": name,
            "lease_ms": config.lease_ms,
            "robbed_limit": config.max_deliveries - 1,
            "clock_offset_ms": config.clock_offset_ms,
            "reach": reach,
        }
        scripts = Scripts(commands, config.compat)
        self._check_store = StoreCheck(config, keys, commands, self._log)
        self._store = StoreWatch(
            commands,
            keys,
            self._log,
            health=self.health,
            pause_work=self._work.pause,
            inspect=self._check_store.inspect,
            look_closely=self._look_closely,
            after_reset=self._after_reset,
            lost=self._commands_lost,
            exit_when_wiped=config.on_wiped_store == "exit",
        )
        scripts.on_trouble = self._store.noticed
        recording = Recording(scripts, keys, **common)
        self._actors = Actors(context, Activations(scripts, keys, **common), recording)
        nudges = Nudges(commands, keys, name, self._actors)
        attempts = Attempts(scripts, keys, **common)
        self._dispatch = Dispatch(context, recording, attempts, self._actors, nudges)
        self._consumer = Consumer(
            context, self._connect(blocking_s, "askel-read"), commands, self._store
        )
        pulse = self.health.pulse
        self._nudge_loop = NudgeLoop(
            self._connect(blocking_s, "askel-nudge"), keys, name, self._actors, pulse("nudges")
        )
        self._renewal = Renewal(
            leases=self._leases,
            connection=config.url,
            keys=keys,
            consumer=name,
            renew_ms=config.renew_ms,
            health=self.health,
            log=self._log,
        )
        self._wire_sweeps(context, scripts, recording, common)

    def _wire_sweeps(
        self,
        context: WorkerContext,
        scripts: Scripts,
        recording: Recording,
        common: dict[str, Any],
    ) -> None:
        """Make the loops that look after what other processes left or armed."""
        config, keys, pulse = self._config, self._keys, self.health.pulse
        impatient = {**common, "patience_s": _PATIENCE_S}
        self._timers = TimerLoop(
            Timers(scripts, keys, **impatient), keys, context.alarm, self._log, pulse("timers")
        )
        self._reclaim = Reclaim(
            context,
            self._connections[0],
            recording,
            Sweeping(scripts, keys, **common, patience_s=0),
            self._consumer.streams,
            self._dispatch.poisoned,
        )
        self._retention = RetentionLoop(
            Retention(scripts, keys, **impatient),
            TimerSweep(scripts, keys, **impatient),
            self._log,
            config.retention_ms,
            pulse("retention"),
        )
        self._tokens = TokenLoop(
            TokenSweep(scripts, keys, **impatient),
            self._log,
            pulse("tokens"),
            every_ms=config.retention_ms,
            silent_ms=config.claim_idle_ms,
        )
        self._stuck = self._watch_for_stuck_runs(scripts, impatient)
        self._confirmer = Confirmer(
            lambda: self._connect(CONFIRM_S + _MARGIN_S, "askel-confirm"), keys
        )
        self._confirming = ConfirmingLoop(
            Unconfirmed(scripts, keys, self._confirmer),
            self._log,
            pulse("confirming"),
            busy=any(self._durabilities()),
        )

    def _watch_for_stuck_runs(self, scripts: Scripts, common: dict[str, Any]) -> StuckLoop:
        return StuckLoop(
            Watching(scripts, self._keys, **common),
            scripts,
            self._consumer.streams,
            self._log,
            self.health.pulse("stuck"),
            every_ms=self._config.retention_ms,
            idle_ms=self._config.claim_idle_ms,
        )

    def _durabilities(self) -> list[Durability]:
        return [workflow.durability for workflow in self._app.workflows.values()]

    async def _look_closely(self) -> tuple[str, bool]:
        return await self._check_store.closely(self._consumer.streams)

    async def _after_reset(self) -> None:
        await self._consumer.create_groups()

    def _commands_lost(self) -> None:
        self._tokens.hurry()

    def _connect(self, timeout_s: float, name: str) -> Connection:
        connection = connect(self._config.url, timeout_s=timeout_s, name=name)
        self._connections.append(connection)
        return connection

    async def _check(self, stop: anyio.Event) -> bool:
        """Verify the server, and warn of what is allowed but unwise; False if *stop* was first.

        Raises:
            StoreError: The worker must not start.
        """
        facts = await self._check_store.until_it_serves(stop, self._prepare)
        if facts is None:
            return False
        self._store.expect(facts.store_id)
        for event, hint in facts_to_warn_of(facts).items():
            self._log.warning(event, hint=hint)
        await self._store.look_closely()  # before anything is read: then nobody could tell
        return True

    async def _prepare(self) -> ServerFacts:
        """Check the server, and make there what is missing."""
        facts = await self._check_store.inspect()
        await self._check_store.permissions()
        for level in self._durabilities():
            await self._check_store.confirmations(self._confirmer, level)
        await self._consumer.create_groups()
        return facts

    async def run(
        self, stop: anyio.Event, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Work until *stop* is set, then drain. A loop that fails takes everything down.

        Raises:
            LoopEndedError: A loop ended, or was cancelled, before *stop* was set.
        """
        try:
            if not await self._check(stop):
                return
            async with anyio.create_task_group() as tasks:
                self._work.open(tasks, self._dispatch.handle)
                self._renewal.start(asyncio.get_running_loop())
                for name, run in (
                    ("timers", self._timers.run),
                    ("reclaim", self._reclaim.run),
                    ("retention", self._retention.run),
                    ("tokens", self._tokens.run),
                    ("confirming", self._confirming.run),
                    ("stuck", self._stuck.run),
                    ("store", self._store.run),
                    ("nudges", self._nudge_loop.run),
                    ("consumer", self._consumer.run),
                    ("renewal", self._renewal.watch),
                ):
                    tasks.start_soon(self._keep, name, run)
                self.health.started()
                self._log.info(
                    "worker_ready",
                    app=self._app.name,
                    streams=self._consumer.streams,
                    workflows=sorted(self._app.workflows),
                    steps=sorted(self._app.steps),
                    max_block_ms=self._config.max_block_ms,
                    http=self.health.address,
                )
                task_status.started()
                await stop.wait()
                await self._drain()
                tasks.cancel_scope.cancel()
        finally:
            await self._close()

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a loop; it must not end before the worker is stopped, in whatever way."""
        try:
            await run()
        except anyio.get_cancelled_exc_class():
            if anyio.current_effective_deadline() == float("-inf"):
                raise
            # Nobody but a handler that cancels whatever it finds: unseen, it would end with 0.
            raise LoopEndedError(f"the loop {name} was cancelled from outside") from None
        if not self._stopping:
            raise LoopEndedError(f"the loop {name} ended although nobody asked it to")
        if name != "renewal":
            self.health.ended(name)

    async def _drain(self) -> None:
        """Stop reading, hand back what was not begun, let the rest end; renewal stops last."""
        self._stopping = True
        self.health.hinder("draining")
        self._log.info("worker_draining", in_work=len(self._leases))
        self._reclaim.stop()
        self._timers.stop()
        self._retention.stop()
        self._tokens.stop()
        self._confirming.stop()
        self._stuck.stop()
        self._dispatch.drain()
        await self._consumer.stop()
        with anyio.move_on_after(self._config.drain_ms / 1_000) as scope:
            await self._work.wait_until_done()
        if scope.cancelled_caught:
            self._log.warning("drain_timed_out", in_work=len(self._leases))
            with anyio.move_on_after(_MARGIN_S):
                await self._dispatch.hand_back(self._leases.older_than(0))
        self._nudge_loop.stop()
        self._store.stop()

    async def _close(self) -> None:
        self.health.hinder("stopped")
        self._executor.close()
        with anyio.CancelScope(shield=True), anyio.move_on_after(_MARGIN_S):
            await self._renewal.stop()
            if not self.health.is_starting:
                await self._take_leave()
            for connection in self._connections:
                await connection.close()
        if not self.health.is_starting:
            self._log.info("worker_stopped")

    async def _take_leave(self) -> None:
        """Remove what stands in Redis for this process alone."""
        with suppress(StoreError):  # whoever sweeps next forgets this consumer
            for stream in self._consumer.streams:
                await self._reclaim.forget(stream, self.consumer_name)
            await self._connections[0].send("DEL", self._keys.nudge(self.consumer_name))
