"""How decisions are written: the step's fields, the history entry, the timer or the command."""

from __future__ import annotations

from typing import NamedTuple

from askel.durations import duration_text
from askel.state import IdSource, Keys, StepDecision, step_body
from askel.state.codec import Codec
from askel.wire import StepExecute, TimerFire, encode_command, encode_timer
from askel.workflow.context import SignalWait, SleepCall, StepCall
from askel.workflow.replay import Reached

Fields = tuple[str | bytes | int, ...]


class Expected(NamedTuple):
    """What the step must be now: its status (empty: it does not exist) and its attempt."""

    status: str
    attempt: int | str


class Decisions:
    """Makes the decisions of one run. ``seen`` is the length of the history they rest on."""

    def __init__(
        self, keys: Keys, ids: IdSource, codec: Codec, run_id: str, *, born: str, inline: bool
    ) -> None:
        """Make decisions about *run_id*, created at *born* (ms).

        An *inline* run keeps its timers in memory.
        """
        self._keys = keys
        self._ids = ids
        self._codec = codec
        self._run_id = run_id
        self._born = born
        self._inline = inline

    def begin(
        self, reached: Reached, now: Expected, attempt: int, nonce: str, seen: int
    ) -> StepDecision:
        """The deciding process executes the attempt itself."""
        call = reached.call
        assert isinstance(call, StepCall)
        rpc_name = None if now.status else call.rpc_name
        return StepDecision(
            name=reached.key,
            expect=now.status,
            expect_attempt=now.attempt,
            becomes="running",
            attempt=attempt,
            nonce=nonce,
            body=_body(reached.key, "running", attempt, seen, rpc_name),
            fields=() if now.status else self._new_step(reached, call),
        )

    def send(self, reached: Reached, now: Expected, attempt: int, seen: int) -> StepDecision:
        """The attempt goes to a stream, for whoever has the function."""
        call = reached.call
        assert isinstance(call, StepCall)
        command = StepExecute(
            run_id=self._run_id,
            step_name=reached.key,
            rpc_name=call.rpc_name,
            data=call.data.decode(),
            retries=call.policy.retries,
            retry_delay=call.policy.delay,
            timeout="" if call.timeout_ms is None else duration_text(call.timeout_ms),
            born=self._born,
        )
        return StepDecision(
            name=reached.key,
            expect=now.status,
            expect_attempt=now.attempt,
            becomes="scheduled",
            attempt=attempt,
            nonce="",
            body=_body(reached.key, "scheduled", attempt, seen, call.rpc_name),
            fields=() if now.status else self._new_step(reached, call),
            queue=self._keys.commands(call.queue),
            command=tuple(encode_command(command)),
        )

    def wait(self, reached: Reached, failed: int, seen: int) -> StepDecision:
        """A failed attempt is followed by a pending one, which a timer lets begin."""
        assert isinstance(reached.call, StepCall)
        return StepDecision(
            name=reached.key,
            expect="running",
            expect_attempt=failed,
            becomes="pending",
            attempt=failed + 1,
            nonce="",
            body=_body(reached.key, "pending", failed + 1, seen),
            delay_ms=reached.call.policy.delay_ms(failed),
            timer=self.timer(reached.key, failed + 1),
        )

    def sleep(self, reached: Reached, seen: int) -> StepDecision:
        """A sleep is a step that a timer ends."""
        call = reached.call
        assert isinstance(call, SleepCall)
        return StepDecision(
            name=reached.key,
            expect="",
            expect_attempt="",
            becomes="scheduled",
            attempt=1,
            nonce="",
            body=_body(reached.key, "scheduled", 1, seen),
            fields=self._common(reached, self._codec.encode({"duration": call.delay_ms})),
            delay_ms=call.delay_ms,
            timer=self.timer(reached.key, 1),
        )

    def wait_signal(self, reached: Reached, seen: int) -> StepDecision:
        """A wait for a signal is a step that the owner ends, or a timer where it has a limit."""
        call = reached.call
        assert isinstance(call, SignalWait)
        limit: Fields = () if call.timeout_ms is None else ("timeout", call.timeout_ms)
        asked = {"signal": call.name, "timeout": call.timeout_ms}
        data = self._codec.encode(
            {name: value for name, value in asked.items() if value is not None}
        )
        return StepDecision(
            name=reached.key,
            expect="",
            expect_attempt="",
            becomes="scheduled",
            attempt=1,
            nonce="",
            body=f'{_body(reached.key, "scheduled", 1, seen)},"waits":true',
            fields=(*self._common(reached, data), "signal", call.name, *limit),
            delay_ms=call.timeout_ms,
            timer=b"" if call.timeout_ms is None else self.timer(reached.key, 1),
        )

    def _new_step(self, reached: Reached, call: StepCall) -> Fields:
        return (
            *self._common(reached, call.data),
            "rpcName",
            call.rpc_name,
            "retries",
            call.policy.retries,
            "retryDelay",
            call.policy.delay,
            *(("queue", call.queue) if call.queue else ()),
        )

    def _common(self, reached: Reached, data: bytes) -> Fields:
        step_id = f"{self._run_id}:{reached.key}:{self._ids.suffix()}"
        fields: Fields = ("stepId", step_id, "data", data)
        return fields if reached.after is None else (*fields, "fromStepName", reached.after)

    def timer(self, key: str, attempt: int) -> bytes:
        """Return the timer of a step's attempt; an inline run has none in Redis."""
        if self._inline:
            return b""
        command = TimerFire(run_id=self._run_id, step_name=key, attempt=attempt, born=self._born)
        return encode_timer("", encode_command(command))


def _body(key: str, status: str, attempt: int, seen: int, rpc_name: str | None = None) -> str:
    return f'{step_body(key, status, attempt, rpc_name)},"seen":{seen}'
