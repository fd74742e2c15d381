"""Actors: the runs that this process drives, one driver each."""

from __future__ import annotations

import anyio

from askel.state import (
    Activated,
    Activations,
    IfExists,
    Recording,
    Refusal,
    Renewed,
    RunStatus,
    SerializedError,
    Turn,
    started_body,
    status_body,
)
from askel.wire import RunStart
from askel.workflow import Activation, Ended, RunDriver
from askeld.context import WorkerContext
from askeld.observability import LogObserver
from askeld.renewal import Authority, Held

POISON = SerializedError(
    message="the run was taken over again and again without any progress", name="PoisonRun"
)

#: How often in a row a run is loaded again as it was, because its next turn does not fit.
_MOST_CONFLICTS = 8
_FIRST_PAUSE_S = 0.05


class Actors:
    """Starts, activates and drives runs; pokes the drivers of runs that have news."""

    def __init__(
        self, context: WorkerContext, activations: Activations, recording: Recording
    ) -> None:
        """Drive runs through *activations*."""
        self._context = context
        self._activations = activations
        self._recording = recording
        self._drivers: dict[str, RunDriver] = {}
        self._count = 0
        self._drained = anyio.Event()

    def __len__(self) -> int:
        """Return how many runs are driven here."""
        return len(self._drivers)

    def poke(self, run_id: str) -> None:
        """Tell the driver of *run_id*, if there is one here, that the history has grown."""
        driver = self._drivers.get(run_id)
        if driver is not None:
            driver.poke()

    def drain(self) -> None:
        """Let running attempts end, then hand every run back."""
        self._drained.set()
        for driver in list(self._drivers.values()):
            driver.drain()

    async def hand_back(self, held: Held) -> None:
        """Give up the run that *held* is the token of, whatever of it is still executed."""
        by = held.authority
        await self._activations.requeue(held.entry, by.nonce, by.run_id)

    async def start(self, held: Held, run_id: str, command: RunStart) -> Refusal | None:
        """Start the run of a ``run.start`` and drive it; return why that was refused, if it was."""
        if command.workflow not in self._context.app.workflows:
            return Refusal("UNKNOWN", detail=command.workflow)
        level = self._context.app.workflows[command.workflow].durability
        owner = self._owner()
        loaded = await self._activations.start(
            held.entry,
            owner,
            run_id,
            command.workflow,
            command.input.encode(),
            started_body(command.workflow, command.id),
            policy=IfExists(command.if_exists),
            durability=command.durability or (str(level) if level else ""),
            command_id=command.id,
        )
        return await self._go_on(held, run_id, owner, loaded)

    async def advance(self, held: Held, run_id: str) -> Refusal | None:
        """Drive the run whose token *held* is; return why that was refused, if it was."""
        # Looked up before the run is taken: a process that lacks the code must not own the run.
        workflow = await self._activations.workflow_of(run_id)
        if workflow is not None and workflow not in self._context.app.workflows:
            return Refusal("UNKNOWN", detail=workflow)
        owner = self._owner()
        loaded = await self._activations.activate(held.entry, owner, run_id)
        return await self._go_on(held, run_id, owner, loaded)

    async def _go_on(
        self, held: Held, run_id: str, owner: str, loaded: Activated | Refusal
    ) -> Refusal | None:
        conflicts, known = 0, -1
        while isinstance(loaded, Activated):
            ended = await self._drive(held, run_id, owner, loaded)
            if ended is Ended.HANDED_BACK:
                await self._activations.requeue(held.entry, owner, run_id)
            if ended is not Ended.CONFLICT:
                return None
            # Whatever changes a run adds to its history.
            conflicts = conflicts + 1 if len(loaded.history) == known else 0
            known = len(loaded.history)
            if conflicts == _MOST_CONFLICTS:
                await self._stall_misfit(held, run_id)
                return None
            if conflicts:
                await self._pause(_FIRST_PAUSE_S * 2 ** (conflicts - 1))
            owner = self._owner()
            loaded = await self._activations.activate(held.entry, owner, run_id)
        if loaded.word == "POISON":
            await self._give_up(held, run_id)
            return None
        return loaded

    async def _pause(self, seconds: float) -> None:
        """Wait, without counting as work; cut short when the worker drains."""
        with self._context.work.waiting(), anyio.move_on_after(seconds):
            await self._drained.wait()

    async def _stall_misfit(self, held: Held, run_id: str) -> None:
        """Give up a run whose every turn is refused, though nobody else changes it."""
        self._context.log.error("run_misfit", run_id=run_id, tries=_MOST_CONFLICTS + 1)
        why = "the keys of its steps do not fit its history: mend them, then resume the run"
        await self.stall(held, run_id, why, name="RunMisfit")

    async def _drive(self, held: Held, run_id: str, owner: str, loaded: Activated) -> Ended:
        config = self._context.config
        activation = Activation(
            self._context.app,
            self._context.keys,
            self._context.ids,
            run_id=run_id,
            owner=owner,
            loaded=loaded,
        )
        lingers = len(self._drivers) < config.max_lingering
        driver = RunDriver(
            self._activations,
            activation,
            self._context.executor,
            LogObserver(
                self._context.log.bind(run_id=run_id, workflow=loaded.workflow),
                self._context.alarm,
                self._context.work.idle,
                held.progress,
            ),
            entry=held.entry,
            linger_s=config.linger_ms / 1_000 if lingers else 0,
        )
        known, told = len(loaded.history), loaded.status

        def news(renewed: Renewed) -> None:
            nonlocal known, told
            if renewed.length > known or renewed.status != told:
                known, told = renewed.length, renewed.status
                driver.poke()

        held.authority = Authority(
            run_id=run_id,
            field="owner",
            holder_key=self._context.keys.ctl(run_id),
            nonce=owner,
            lost=lambda: driver.stop(Ended.LOST),
            news=news,
        )
        self._drivers[run_id] = driver
        if held.progress is not None:
            driver.poke()  # a suspect that waits says by an empty turn that it killed nobody
        if self._drained.is_set():
            driver.drain()
        try:
            ended = await driver.drive()
        finally:
            if self._drivers.get(run_id) is driver:
                del self._drivers[run_id]
        if driver.refused is not None:
            self._context.log.error("run_refused", run_id=run_id, error=driver.refused.code)
            why = f"Redis refuses a key of the run ({driver.refused.code}): mend it, then resume"
            await self.stall(held, run_id, why, name="StoreRefused")
        return ended

    async def exists(self, run_id: str) -> bool:
        """Tell whether there is such a run."""
        return await self._activations.workflow_of(run_id) is not None

    async def stall(self, held: Held, run_id: str, why: str, *, name: str = "UnknownName") -> None:
        """Give up a run that cannot go on as things are: it becomes ``stalled``.

        One that is suspended stays so; its resumption brings the question back.
        """
        error = self._context.app.codec.encode(SerializedError(message=why, name=name))
        while True:
            owner = self._owner()
            loaded = await self._activations.activate(held.entry, owner, run_id)
            if isinstance(loaded, Activated):
                seen = len(loaded.history)
                turn = Turn(run_id, owner, loaded.turn, seen, owner, [], [], "passivate")
                if loaded.status == RunStatus.RUNNING:
                    turn.end, turn.outcome, turn.json = "stalled", "error", error
                answer = await self._activations.turn(turn, held.entry)
                loaded = Refusal(answer.word, pttl=answer.pttl)
            if loaded.word not in {"BUSY", "BEHIND"}:
                return
            await wait_out(loaded)

    async def _give_up(self, held: Held, run_id: str) -> None:
        """Fail a run whose every owner died, and keep its token as a dead letter."""
        error = self._context.app.codec.encode(POISON)
        body = status_body(RunStatus.FAILED, error=error)
        while True:
            answer = await self._recording.settle(
                None, run_id, RunStatus.FAILED, body, outcome="error", json=error
            )
            if not isinstance(answer, Refusal) or answer.word != "BUSY":
                break
            await wait_out(answer)
        await self._recording.bury(held.entry, "poison", POISON.message)
        self._context.log.error("run_poisoned", run_id=run_id)

    def _owner(self) -> str:
        self._count += 1
        return f"{self._activations.consumer}/{self._count}"


async def wait_out(refusal: Refusal, longest_s: float = 0.25) -> None:
    """Wait for the lock that stood in the way, or a moment."""
    await anyio.sleep(min(max(refusal.pttl, 1) / 1_000, longest_s))
