"""Replay: what workflow code does, given what is recorded. No Redis, no clock, no logger.

The history is fed entry by entry. Entries that a turn wrote say how long the history was that the
deciding code had seen; so the code is given everything in the very order in which it was given the
first time, and reaches the same steps by the same names.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

import msgspec

from askel.errors import (
    NonDeterminismError,
    PayloadError,
    SealedPayloadError,
    StepFailedError,
    TamperedPayloadError,
)
from askel.state import HistoryEntry, SerializedError
from askel.state.codec import serialize_error
from askel.workflow.app import App, WorkflowDefinition
from askel.workflow.context import Operation, Run, SignalWait, SleepCall, StepCall
from askel.workflow.fibers import Fibers, Waiter
from askel.workflow.mailbox import Mailbox
from askel.workflow.sources import Sources

_UNOPENED = (SealedPayloadError, TamperedPayloadError)


class StepRecord(msgspec.Struct):
    """What is recorded of one step: its newest attempt.

    ``fired`` tells that the timer of a retry has fired. ``queued`` tells that a stream carries it.
    """

    status: str
    attempt: int
    queued: bool = False
    fired: bool = False
    due: int | None = None


class Reached(msgspec.Struct):
    """An operation that code awaits and that has no outcome yet."""

    key: str
    call: StepCall | SleepCall | SignalWait
    waiter: Any
    after: str | None


class Replay:
    """One workflow execution, driven by what is recorded."""

    def __init__(
        self, app: App, definition: WorkflowDefinition, run_id: str, text: bytes, born_ms: int
    ) -> None:
        """Start the code on the run's input, as of *born_ms*; it runs to its first waits.

        An input that does not fit the workflow's type counts as an error that the code raised. One
        that is sealed and cannot be opened here does not: see ``unreadable``.
        """
        self.steps: dict[str, StepRecord] = {}
        self.open: dict[str, Reached] = {}
        # Open operations about which something is to be decided, perhaps: reached just now, or
        # changed by an entry. So a turn costs what happened, not what there is.
        self.touched: dict[str, None] = {}
        self.status = "running"
        self.fed = 0
        # Why a payload that the code waits for cannot be opened: the code goes no further here,
        # but it may where the right key is.
        self.unreadable: PayloadError | None = None
        self._codec = app.codec
        self._outcomes: dict[str, tuple[bytes, SerializedError | None]] = {}
        self._ordinals: Counter[str] = Counter()
        self._last_key: str | None = None
        self._unfed: deque[tuple[int, HistoryEntry]] = deque()
        #: How waits for signals have ended: with what was sent, or too late. It is to be recorded.
        self.waited: dict[str, tuple[bytes, SerializedError | None]] = {}
        self._mailbox = Mailbox(self.open.__contains__)
        self._sources = Sources(run_id, born_ms)
        arguments: list[Any] = [Run(app, run_id, definition.name, self._sources)]
        misfit = None
        if definition.takes_input:
            try:
                arguments.append(self._codec.convert(text, definition.input_type))
            except _UNOPENED as error:
                self.unreadable = error
            except PayloadError as error:
                misfit = error
        self._fibers = Fibers(_call(definition, arguments, misfit), self._reach)
        if self.unreadable is None:
            self._fibers.run()

    @property
    def done(self) -> bool:
        """Whether the workflow function has returned or raised."""
        return self._fibers.done

    @property
    def value(self) -> Any:
        """What the workflow function returned."""
        return self._fibers.value

    @property
    def error(self) -> BaseException | None:
        """What the workflow function raised."""
        return self._fibers.error

    def close(self) -> None:
        """Abandon the code."""
        self._fibers.close()

    def feed(self, entries: Iterable[HistoryEntry], first: int) -> None:
        """Give the code the *entries* that stand from position *first* on.

        Raises:
            NonDeterminismError: A recorded decision is not what the code reached.
        """
        position = first
        for entry in entries:
            if entry.seen is None:
                self._unfed.append((position, entry))
            else:
                self._feed_before(entry.seen)
                self._take(entry)
            position += 1
        self._feed_before(position)
        self.fed = position

    def finish(
        self, key: str, outcome: bytes, error: SerializedError | None, at_ms: int = 0
    ) -> int | None:
        """Give the code the final outcome of a step that has just ended here, at about *at_ms*.

        Returns:
            The time that is to be recorded with it; None where the code did not ask for the time.
        """
        before = self._sources.guess(at_ms)
        self._resolve(key, outcome, error)
        return self._sources.settle(before)

    def late(self, key: str) -> SerializedError | None:
        """Return what the code is told when the time of *key* is over; None for a sleep."""
        reached = self.open.get(key)
        if reached is None or not isinstance(reached.call, SignalWait):
            return None
        call = reached.call
        told = f"no signal {call.name!r} came within {call.timeout_ms} ms"
        return SerializedError(told, name="TimeoutError")

    def touch(self, key: str) -> None:
        """Have the step *key* considered by the next decisions, if code awaits it."""
        if key in self.open:
            self.touched[key] = None

    def _feed_before(self, position: int) -> None:
        while self._unfed and self._unfed[0][0] < position:
            self._take(self._unfed.popleft()[1])

    def _take(self, entry: HistoryEntry) -> None:
        if entry.seen is None:
            self._sources.reach(entry.at)
        elif entry.now is not None:
            self._sources.reach(entry.now)
        if entry.kind == "run":
            self.status = entry.status
        elif entry.kind == "timer":
            record = self.steps.get(entry.name)
            if record is not None and record.attempt == entry.attempt:
                record.fired = True
                self.touch(entry.name)
            late = self.late(entry.name)
            if late is not None:
                self._end_wait(entry.name, b"", late)
        elif entry.kind == "step":
            self._take_step(entry)
        elif entry.kind == "signal":
            data = bytes(entry.data) or b"null"
            key = self._mailbox.deliver(entry.name, data)
            if key is not None:
                self._end_wait(key, data, None)

    def _end_wait(self, key: str, data: bytes, late: SerializedError | None) -> None:
        self.waited[key] = (data, late)
        self._resolve(key, data, late)

    def _take_step(self, entry: HistoryEntry) -> None:
        if not entry.status:
            return  # Something is noted of the attempt, which goes on as it was.
        record = self.steps.get(entry.name)
        if record is None:
            record = self.steps[entry.name] = StepRecord(entry.status, entry.attempt)
            if entry.seen is not None and self.unreadable is None:
                self._compare(entry)
        # What no turn wrote was written for a stream entry: by begin, complete, or another program.
        queued = entry.seen is None or entry.status == "scheduled"
        if entry.attempt != record.attempt:
            record.fired = False
        record.status, record.attempt, record.queued = entry.status, entry.attempt, queued
        record.due = entry.due
        self.touch(entry.name)
        if entry.status == "succeeded":
            self._resolve(entry.name, bytes(entry.result), None)
        elif entry.final:
            self._take_failure(entry)

    def _take_failure(self, entry: HistoryEntry) -> None:
        try:
            error = self._codec.read_error(bytes(entry.error))
        except _UNOPENED as sealed:
            self.unreadable = sealed
            return
        except PayloadError as damaged:
            error = serialize_error(damaged)
        self._resolve(entry.name, b"", error)

    def _compare(self, entry: HistoryEntry) -> None:
        """Hold the first record of a step against what the code reached under that name."""
        reached = self.open.get(entry.name)
        if reached is None:
            waiting = ", ".join(repr(key) for key in self.open) or "nothing"
            msg = (
                f"the history has step {entry.name!r} where the code reached {waiting}: put the "
                "recorded step back, or give changed code a new workflow name"
            )
            raise NonDeterminismError(msg)
        recorded, now = entry.rpc_name or _wait(entry.waits), _kind(reached.call)
        if recorded != now:
            msg = (
                f"step {entry.name!r} is recorded as {recorded} where the code "
                f"now has {now}: put the recorded one back, or rename the step"
            )
            raise NonDeterminismError(msg)

    def _resolve(self, key: str, outcome: bytes, error: SerializedError | None) -> None:
        self._outcomes[key] = (outcome, error)
        reached = self.open.pop(key, None)
        if reached is not None:
            self._hand_over(key, reached.call, reached.waiter)
            self._fibers.run()

    def _hand_over(self, key: str, call: Operation, waiter: Waiter) -> None:
        outcome, error = self._outcomes[key]
        if error is not None and isinstance(call, SignalWait):
            waiter(None, TimeoutError(error.message))
        elif error is not None:
            waiter(None, StepFailedError(key, error))
        elif isinstance(call, StepCall | SignalWait):
            try:
                waiter(call.value(outcome), None)
            except _UNOPENED as sealed:
                self.unreadable = sealed
            except Exception as wrong:  # noqa: BLE001 - the code is told, and may handle it
                waiter(None, wrong)
        else:
            waiter(None, None)

    def _reach(self, call: Operation, waiter: Waiter) -> None:
        assert isinstance(call, StepCall | SleepCall | SignalWait)
        ordinal = self._ordinals[call.name]
        self._ordinals[call.name] += 1
        key = f"{call.name}#{ordinal}" if ordinal else call.name
        after, self._last_key = self._last_key, key
        if isinstance(call, SignalWait) and (kept := self._mailbox.take(call.name)) is not None:
            self._outcomes[key] = (kept, None)
        if key in self._outcomes:
            self._hand_over(key, call, waiter)
            return
        self.open[key] = Reached(key, call, waiter, after)
        self.touch(key)
        if isinstance(call, SignalWait):
            self._mailbox.wait(call.name, key)


def _kind(call: Operation) -> str:
    return call.rpc_name if isinstance(call, StepCall) else _wait(isinstance(call, SignalWait))


def _wait(for_signal: bool | None) -> str:  # noqa: FBT001
    return "a wait for a signal" if for_signal else "a sleep"


async def _call(
    definition: WorkflowDefinition, arguments: list[Any], misfit: PayloadError | None
) -> Any:
    if misfit is not None:
        raise misfit
    return await definition.fn(*arguments)
