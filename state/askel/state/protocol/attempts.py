"""Attempts: beginning, keeping and completing the attempts of queued steps; timers."""

from __future__ import annotations

from collections.abc import Sequence

from askel.state.keys import Keys
from askel.state.models import RunStatus
from askel.state.moves import run_sources
from askel.state.protocol.caller import GROUP, ProtocolCaller, Word, owner_to_nudge, refusal
from askel.state.protocol.recording import dead_letter_words
from askel.state.protocol.turns import Answer, Begun, Entry, Refusal, Renewed
from askel.state.reads.history import status_body


class Attempts(ProtocolCaller):
    """The scripts of a ``step.execute`` entry, fenced by attempt number and nonce."""

    async def begin(
        self,
        entry: Entry,
        run_id: str,
        step_name: str,
        *,
        nonce: str,
        step_id: str,
        rpc_name: str,
        data: bytes,
        retries: int,
        retry_delay: str,
        born: str = "",
    ) -> Begun | Refusal:
        """Begin an attempt of the step that *entry* names, in the run created at *born* if given.

        Refused with LOST, NOTFOUND, TERMINAL, GONE, CONFLICT, SPENT (``detail``: the owner to
        nudge), SUSPENDED or BUSY.
        """
        k = self.keys
        answer = await self._ask(
            "begin",
            [
                *k.run_keys(run_id),
                entry.stream,
                k.step(run_id, step_name),
                k.steps(run_id),
                k.commands_default,
            ],
            [
                GROUP,
                self.consumer,
                entry.id,
                nonce,
                self._offset,
                run_id,
                step_name,
                step_id,
                rpc_name,
                data,
                retries,
                retry_delay,
                born,
                k.queue_of(entry.stream),
            ],
        )
        if answer[0] == b"OK":
            _, attempt, retries, delay, data, born_at = answer
            return Begun(attempt, int(retries), delay.decode(), data, born_at.decode())
        words = {"LOST", "NOTFOUND", "TERMINAL", "GONE", "CONFLICT", "SPENT", "SUSPENDED"}
        return refusal(answer, words)

    async def complete(
        self,
        entry: Entry,
        run_id: str,
        step_name: str,
        *,
        nonce: str,
        attempt: int,
        becomes: str,
        json: bytes,
        final: bool,
        delay_ms: int = 0,
        timer: bytes = b"",
        retry: Sequence[str | bytes] = (),
        command_id: str = "",
    ) -> str | Refusal:
        """Record the outcome of an attempt. Returns the owner to nudge (empty: none).

        Args:
            entry: The ``step.execute`` entry, acknowledged by this call.
            run_id: The run.
            step_name: Its step.
            nonce: Of the attempt; empty for a worker that never began it here.
            becomes: ``succeeded`` or ``failed``.
            json: The result or the error.
            final: False leaves the step pending for another attempt.
            delay_ms: Pause before that attempt; with it *timer* is armed, without it *retry* sent.
            timer: The delayed command.
            retry: The fields of the command sent at once.
            command_id: Of the command that brings the outcome: applied once to a run.

        Refused with ALREADY, GONE, FENCED or BUSY; without a nonce also DUP, NOTFOUND or TERMINAL.
        """
        k, step = self.keys, self.keys.step(run_id, step_name)
        around = [entry.stream, step, k.commands_default, k.timers, entry.stream]
        answer = await self._ask(
            "complete",
            [*k.run_keys(run_id), *around],
            [
                GROUP,
                entry.id,
                nonce,
                attempt,
                self._offset,
                run_id,
                step_name,
                becomes,
                "result" if becomes == "succeeded" else "error",
                json,
                "1" if final else "0",
                delay_ms,
                timer,
                command_id,
                *retry,
            ],
        )
        return owner_to_nudge(answer, {"ALREADY", "DUP", "NOTFOUND", "TERMINAL", "GONE", "FENCED"})

    async def poison(
        self,
        entry: Entry,
        run_id: str,
        step_name: str,
        *,
        error: bytes,
        detail: str,
        deliveries: int,
        born: str = "",
    ) -> str | Refusal:
        """Bury a ``step.execute`` that killed its workers, and let its step fail for good.

        The step is left alone where it is not of the run created at *born*, if given, or is
        executed under another command that is pending.

        Returns the owner to nudge (empty: none). Refused with GONE or BUSY.
        """
        k = self.keys
        answer = await self._ask(
            "poison",
            [
                *k.run_keys(run_id),
                entry.stream,
                k.step(run_id, step_name),
                k.commands_default,
                k.dead,
            ],
            [
                GROUP,
                entry.id,
                self._offset,
                run_id,
                step_name,
                error,
                born,
                "poison",
                detail,
                deliveries,
                *dead_letter_words(entry),
            ],
        )
        return owner_to_nudge(answer, {"GONE"})

    async def stall(
        self,
        entry: Entry,
        run_id: str,
        step_name: str,
        *,
        rpc_name: str,
        born: str,
        error: bytes,
        detail: str,
    ) -> str | Refusal:
        """Bury a ``step.execute`` whose function no worker has; the run that waits is stalled.

        Returns the owner to nudge (empty: none). Refused with GONE or BUSY.
        """
        k = self.keys
        answer = await self._ask(
            "stall",
            [
                *k.run_keys(run_id),
                entry.stream,
                k.step(run_id, step_name),
                k.commands_default,
                k.events,
                k.runs,
                k.dead,
            ],
            [
                GROUP,
                entry.id,
                self._offset,
                run_id,
                born,
                rpc_name,
                run_sources(RunStatus.STALLED),
                error,
                status_body(RunStatus.STALLED, error=error),
                detail,
                *dead_letter_words(entry),
            ],
        )
        return owner_to_nudge(answer, {"GONE"})


class Timers(ProtocolCaller):
    """The scripts that move due timers to the streams."""

    async def due(self, limit: int) -> tuple[list[bytes], int, int | None]:
        """Return the due timers, the server's time, and when the next one is due (ms)."""
        answer = await self._ask("due", [self.keys.timers], [self._offset, limit])
        return answer[3], int(answer[1]), int(float(answer[2])) if answer[2] else None

    async def fire(self, timers: Sequence[tuple[bytes, str, Sequence[str]]]) -> int:
        """Send the command of each (timer, stream, fields) that is due; return how many were."""
        streams = list(dict.fromkeys(stream for _, stream, _ in timers))
        args: list[Word] = [self._offset, len(timers)]
        for member, stream, words in timers:
            args += [member, streams.index(stream) + 2, len(words), *words]
        answer = await self._ask("fire", [self.keys.timers, *streams], args)
        return int(answer[1])


def renew_call(
    keys: Keys, consumer: str, entry: Entry, run_id: str, *, field: str, holder_key: str, nonce: str
) -> tuple[str, list[str], list[Word]]:
    """Return the call of ``renew``, which the renewal thread makes on its own connection."""
    return (
        "renew",
        [entry.stream, holder_key, keys.history(run_id), keys.run(run_id)],
        [GROUP, consumer, entry.id, field, nonce],
    )


def renewed(answer: Answer) -> Renewed | None:
    """Return what ``renew`` answered; None when the entry or the work is no longer ours."""
    if answer[0] == b"OK":
        return Renewed(answer[1], answer[2].decode())
    assert answer[0] == b"LOST", f"renew answered {answer[0]!r}"
    return None
