"""Step commands: a ``step.execute`` entry is begun, executed and completed; it is the lease."""

from __future__ import annotations

import anyio
from msgspec import structs

from askel.state import (
    TERMINAL,
    Attempts,
    Begun,
    Entry,
    Refusal,
    Renewed,
    SerializedError,
)
from askel.wire import StepExecute, encode_command, encode_timer, wire_duration_ms
from askel.workflow import LocalAttempt, Outcome, RetryPolicy, StepDefinition
from askeld.actors import wait_out
from askeld.context import WorkerContext
from askeld.nudges import Nudges
from askeld.renewal import Authority, Held


class StepCommands:
    """Executes the steps that other processes asked for."""

    def __init__(self, context: WorkerContext, attempts: Attempts, nudges: Nudges) -> None:
        """Serve the steps of the worker's app."""
        self._context = context
        self._attempts = attempts
        self._nudges = nudges
        self._draining = False

    def drain(self) -> None:
        """Begin nothing more."""
        self._draining = True

    async def execute(self, held: Held, command: StepExecute) -> Refusal | None:
        """Execute the step of *command*; return why that was refused, if it was.

        Refused with UNKNOWN (this app has no such step), DRAINING, NOTFOUND, CONFLICT, SUSPENDED
        or BUSY; in each case the entry is still pending and nothing was begun.
        """
        definition = self._context.app.steps.get(command.rpc_name)
        if definition is None:
            return Refusal("UNKNOWN", detail=command.rpc_name)
        if self._draining:
            return Refusal("DRAINING")
        policy = _policy(definition, command)
        nonce = self._context.ids.suffix()
        begun = await self._attempts.begin(
            held.entry,
            command.run_id,
            command.step_name,
            nonce=nonce,
            step_id=f"{command.run_id}:{command.step_name}:{self._context.ids.suffix()}",
            rpc_name=command.rpc_name,
            data=command.data.encode(),
            retries=policy.retries,
            retry_delay=policy.delay,
            born=command.born,
        )
        if isinstance(begun, Refusal):
            return self._not_begun(begun, command)
        attempt = LocalAttempt(
            command.step_name,
            begun.attempt,
            nonce,
            definition,
            begun.data,
            wire_duration_ms(command.timeout) if command.timeout else definition.timeout_ms,
            command.run_id,
        )
        outcome = await self._run(held, attempt)
        if outcome is not None:
            await self._complete(held, command, attempt, begun, outcome)
        return None

    async def poison(
        self, entry: Entry, command: StepExecute, detail: str, deliveries: int
    ) -> None:
        """Bury a command that killed its workers; its step fails, and whoever waits is told."""
        while True:
            answer = await self._attempts.poison(
                entry,
                command.run_id,
                command.step_name,
                error=self._context.app.codec.encode(
                    SerializedError(message=detail, name="PoisonStep")
                ),
                detail=detail,
                deliveries=deliveries,
                born=command.born,
            )
            if not isinstance(answer, Refusal):
                break
            if answer.word != "BUSY":
                return
            await wait_out(answer)
        self._context.log.error(
            "step_poisoned", run_id=command.run_id, step=command.step_name, entry_id=entry.id
        )
        self._nudges.tell(answer, command.run_id)

    async def give_up(self, entry: Entry, command: StepExecute) -> None:
        """Bury a command whose function no worker has; a run that waits for its step is stalled."""
        run_id = command.run_id
        why = (
            f"no worker has {command.rpc_name!r}: deploy one that has, redrive the dead letter of "
            f"this command (askel dead ls --run {run_id}), then resume the run"
        )
        error = SerializedError(message=why, name="UnknownName")
        while True:
            answer = await self._attempts.stall(
                entry,
                run_id,
                command.step_name,
                rpc_name=command.rpc_name,
                born=command.born,
                error=self._context.app.codec.encode(error),
                detail=why,
            )
            if not isinstance(answer, Refusal):
                break
            if answer.word != "BUSY":
                return
            await wait_out(answer)
        self._context.log.warning(
            "command_dead_lettered",
            entry_id=entry.id,
            stream=entry.stream,
            reason="unknown_step",
        )
        self._nudges.tell(answer, run_id)

    def _not_begun(self, refusal: Refusal, command: StepExecute) -> Refusal | None:
        if refusal.word in {"LOST", "GONE"}:
            return None
        if refusal.word == "SPENT":
            self._context.log.warning(
                "attempts_spent", run_id=command.run_id, step=command.step_name
            )
            self._nudges.tell(refusal.detail, command.run_id)
            return None
        return refusal

    async def _run(self, held: Held, attempt: LocalAttempt) -> Outcome | None:
        """Execute *attempt* while its entry is renewed; None when it is no longer ours to end."""
        scope = anyio.CancelScope()

        def news(renewed: Renewed) -> None:
            if renewed.status in TERMINAL:
                scope.cancel()

        held.authority = Authority(
            run_id=attempt.run_id,
            field="nonce",
            holder_key=self._context.keys.step(attempt.run_id, attempt.key),
            nonce=attempt.nonce,
            lost=scope.cancel,
            news=news,
        )
        outcome = None
        with scope:
            outcome = await self._context.executor.execute(attempt)
        if outcome is None:
            self._context.log.info(
                "attempt_abandoned",
                run_id=attempt.run_id,
                step=attempt.key,
                attempt=attempt.attempt,
            )
        return outcome

    async def _complete(
        self,
        held: Held,
        command: StepExecute,
        attempt: LocalAttempt,
        begun: Begun,
        outcome: Outcome,
    ) -> None:
        policy = RetryPolicy(begun.retries, begun.retry_delay)
        failed = outcome.error is not None
        final = not failed or outcome.permanent or attempt.attempt > policy.retries
        retry: list[str] = []
        delay_ms = 0
        if not final:
            retry = encode_command(
                structs.replace(command, tries=0, unknown_since=None, born=begun.born)
            )
            delay_ms = policy.delay_ms(attempt.attempt)
        while True:
            answer = await self._attempts.complete(
                held.entry,
                command.run_id,
                command.step_name,
                nonce=attempt.nonce,
                attempt=attempt.attempt,
                becomes="failed" if failed else "succeeded",
                json=outcome.json,
                final=final,
                delay_ms=delay_ms,
                timer=encode_timer(self._context.keys.queue_of(held.entry.stream), retry),
                retry=retry,
            )
            if not isinstance(answer, Refusal) or answer.word != "BUSY":
                break
            await wait_out(answer)
        self._told(answer, command, attempt, outcome)
        if delay_ms:
            self._context.alarm.set(delay_ms)

    def _told(
        self, answer: str | Refusal, command: StepExecute, attempt: LocalAttempt, outcome: Outcome
    ) -> None:
        log = self._context.log.debug if outcome.error is None else self._context.log.info
        log(
            "attempt_failed" if outcome.error else "attempt_succeeded",
            run_id=command.run_id,
            step=command.step_name,
            attempt=attempt.attempt,
            error=outcome.error.name if outcome.error else None,
        )
        if isinstance(answer, Refusal):
            self._context.log.debug("result_refused", run_id=command.run_id, answer=answer.word)
        else:
            self._nudges.tell(answer, command.run_id)


def _policy(definition: StepDefinition, command: StepExecute) -> RetryPolicy:
    """Return the policy that the command states, else the handler's own."""
    policy = definition.policy
    retries = policy.retries if command.retries is None else command.retries
    return RetryPolicy(retries, command.retry_delay or policy.delay)
