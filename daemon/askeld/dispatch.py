"""Dispatch: what becomes of one delivered entry.

Every entry ends in exactly one way: applied (or found applied already), put back for later, or
moved to the dead stream with a reason. Until then it is held, and so renewed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress

import anyio

from askel import RunStatus, StoreAccessError, StoreReplyError
from askel.state import (
    Attempts,
    Entry,
    Recording,
    Refusal,
    quoted,
    status_body,
)
from askel.wire import (
    Command,
    CommandError,
    RunAdvance,
    RunApprove,
    RunCancel,
    RunComplete,
    RunCreate,
    RunFail,
    RunResume,
    RunSignal,
    RunStart,
    RunSuspend,
    RunTerminate,
    StepComplete,
    StepExecute,
    StepFail,
    StepHeartbeat,
    TimerFire,
    decode_command,
    encode_command,
    encode_timer,
)
from askeld.actors import Actors
from askeld.burials import Burials
from askeld.context import WorkerContext
from askeld.new_runs import NewRuns, run_id_of
from askeld.newer import for_newer_workers
from askeld.nudges import Nudges
from askeld.reasons import reason_of
from askeld.renewal import Held
from askeld.steps import StepCommands

_FIRST_BACKOFF_MS = 50
_LONGEST_BACKOFF_MS = 5_000
_LONGEST_WAIT_S = 0.25

#: Refusals that mean the command needs nothing more: it was applied before, or is not ours.
_SETTLED = frozenset({"LOST", "GONE", "DUP", "STALE", "ALREADY"})
#: Refusals that pass: somebody holds the run lock, or the run is suspended.
_PASSING = frozenset({"BUSY", "SUSPENDED", "NOTFOUND"})

_TARGETS: dict[type, RunStatus] = {
    RunCancel: RunStatus.CANCELLED,
    RunTerminate: RunStatus.CANCELLED,
    RunSuspend: RunStatus.SUSPENDED,
    RunResume: RunStatus.RUNNING,
    RunComplete: RunStatus.COMPLETED,
    RunFail: RunStatus.FAILED,
}


class Dispatch:
    """Decodes entries and hands each to whoever applies its command."""

    def __init__(
        self,
        context: WorkerContext,
        recording: Recording,
        attempts: Attempts,
        actors: Actors,
        nudges: Nudges,
    ) -> None:
        """Dispatch to *actors*, to the steps of the app, and to *recording*."""
        self._context = context
        self._codec = context.app.codec
        self._recording = recording
        self._attempts = attempts
        self._actors = actors
        self._new_runs = NewRuns(actors, recording)
        self._steps = StepCommands(context, attempts, nudges)
        self._nudges = nudges
        self._drained = anyio.Event()
        self._bury = Burials(context, recording).bury

    def drain(self) -> None:
        """Put back what waits for something; let go on what is being worked on."""
        self._drained.set()
        self._steps.drain()
        self._actors.drain()

    async def hand_back(self, leases: Sequence[Held]) -> None:
        """Let other processes have what has not ended here: at once, not when a lease runs out."""
        for held in leases:
            if held.authority.field == "owner":
                await self._actors.hand_back(held)
            elif held.entry.fields:  # else it was claimed and not read: its lease runs out
                # What is no command was about to be buried; whoever claims it does that.
                with suppress(CommandError):
                    await self._put_back(held.entry, self._decode(held.entry))

    async def poisoned(self, entry: Entry, deliveries: int) -> bool:
        """Bury what was delivered so often without an end; False if that is not for us to judge.

        The token of a run outlives many workers; whether they made progress, the run itself knows.
        """
        detail = f"delivered {deliveries} times, and each time its worker died"
        try:
            command = self._decode(entry)
        except CommandError as error:
            if error.reason == "body_lost":
                await self._bury(entry, error.reason, error.detail, deliveries)
            else:
                await self._bury(entry, "poison", detail, deliveries)
            return True
        if isinstance(command, RunStart | RunAdvance):
            if await self._actors.exists(run_id_of(entry, command)):
                return False
        elif isinstance(command, StepExecute):
            await self._steps.poison(entry, command, detail, deliveries)
            return True
        await self._bury(entry, "poison", detail, deliveries)
        return True

    async def handle(self, held: Held) -> None:
        """Bring the entry to its end; it is held until then."""
        entry = held.entry
        try:
            command = self._decode(entry)
            if command.at is not None and not self._is_due(entry, command.at):
                await self._put_back(entry, command, due=str(command.at))
            else:
                await self._settle(held, command)
        except CommandError as error:
            if error.reason != "unknown_version" or not await self._leave_to_newer(entry):
                await self._bury(entry, error.reason, error.detail)
        except StoreReplyError as error:
            if isinstance(error, StoreAccessError):
                raise  # the command is as good as any; this process is of no use
            # This server refuses this command's keys for good; the others go on.
            await self._refused(entry, error)
        finally:
            self._context.leases.release(held)

    def _is_due(self, entry: Entry, at: int) -> bool:
        """Tell whether a command for a time of its own was sent by a timer.

        The entry's own time does not tell: after the server's clock was set back, it is ahead.
        """
        now_ms = entry.sent_at + self._context.config.clock_offset_ms
        return b"put_back" in entry.fields[::2] and at <= now_ms

    async def _refused(self, entry: Entry, error: StoreReplyError) -> None:
        """Bury what Redis refuses, but for the token of a run: that stays, to be tried again.

        An entry of a group that is gone is no longer ours: the group is made anew and delivers it.
        """
        if "NOGROUP" in str(error):
            self._context.log.info("entry_without_group", entry_id=entry.id)
            return
        command = self._decode(entry)
        if isinstance(command, RunAdvance | RunStart) and await self._recording.is_token(
            entry, run_id_of(entry, command)
        ):
            self._context.log.error("token_refused", entry_id=entry.id, error=error.code)
        else:
            await self._bury(entry, "store_refused", _first_line(error))

    async def _settle(self, held: Held, command: Command) -> None:
        """Apply *command*, waiting out what passes, until it is settled, put back or buried."""
        began = anyio.current_time()
        while True:
            refusal = await self._apply(held, command)
            if refusal is None or refusal.word in _SETTLED:
                return
            if refusal.word == "UNKNOWN":
                await self._go_back(held, command, refusal.detail)
                return
            if refusal.word == "DRAINING" or self._drained.is_set():
                await self._put_back(held.entry, command)
                return
            if refusal.word not in _PASSING or (
                refusal.word == "NOTFOUND" and await self._is_old(held.entry, began)
            ):
                await self._bury(held.entry, *reason_of(command, refusal))
                return
            longest_s = min(refusal.pttl / 1_000 or _LONGEST_WAIT_S, _LONGEST_WAIT_S)
            await self._wait(longest_s * random.uniform(0.5, 1.0))  # noqa: S311

    async def _wait(self, longest_s: float) -> None:
        """Wait, without counting as work; cut short when the worker drains."""
        with self._context.work.waiting(), anyio.move_on_after(longest_s):
            await self._drained.wait()

    async def _apply(self, held: Held, command: Command) -> Refusal | None:
        """Apply *command* once; return why not, if it was refused."""
        match command:
            case StepExecute():
                return await self._steps.execute(held, command)
            case RunAdvance():
                return await self._actors.advance(held, command.run_id)
            case RunStart() | RunCreate():
                return await self._new_runs.make(held, command)
            case TimerFire():
                return await self._record_timer(held.entry, command)
            case RunSignal():
                return await self._record_signal(held.entry, command)
            case StepComplete() | StepFail():
                return await self._complete(held.entry, command)
            case RunApprove() | StepHeartbeat():
                kind = type(command).__struct_config__.tag
                raise CommandError("unsupported", f"{kind} is not supported by this version")
            case _:
                return await self._change_status(held.entry, command)

    async def _record_timer(self, entry: Entry, command: TimerFire) -> Refusal | None:
        """Record that a timer has fired, unless it is still to come: then somebody else sent this.

        Timers send their commands as they go, and say for which generation of the run.
        """
        name = command.step_name
        sent = TimerFire(
            run_id=command.run_id, step_name=name, attempt=command.attempt, born=command.born
        )
        timer = encode_timer("", encode_command(sent))
        if not command.born or await self._recording.is_armed(timer):
            raise CommandError("not_due", "no timer has sent this: it fires when it is due")
        body = f'"t":"timer","name":{quoted(name)},"attempt":{command.attempt}'
        answer = await self._recording.record(
            entry,
            command.run_id,
            "timer",
            body,
            step_name=name,
            attempt=command.attempt,
            born=command.born,
        )
        return self._told(answer, command.run_id)

    async def _record_signal(self, entry: Entry, command: RunSignal) -> Refusal | None:
        parts = ['"t":"signal"', f'"name":{quoted(command.name)}', f'"data":{command.data}']
        if command.id:
            parts.append(f'"command":{quoted(command.id)}')
        answer = await self._recording.record(
            entry, command.run_id, "signal", ",".join(parts), command_id=command.id
        )
        return self._told(answer, command.run_id)

    async def _complete(self, entry: Entry, command: StepComplete | StepFail) -> Refusal | None:
        done = isinstance(command, StepComplete)
        answer = await self._attempts.complete(
            entry,
            command.run_id,
            command.step_name,
            nonce="",
            attempt=command.attempt,
            becomes="succeeded" if done else "failed",
            json=(command.result if isinstance(command, StepComplete) else command.error).encode(),
            final=True,
            command_id=command.id,
        )
        return self._told(answer, command.run_id)

    async def _change_status(self, entry: Entry, command: Command) -> Refusal | None:
        target, run_id = _TARGETS[type(command)], run_id_of(entry, command)
        outcome, json = "", b""
        if isinstance(command, RunComplete):
            outcome, json = "output", command.output.encode()
        elif isinstance(command, RunFail):
            outcome, json = "error", command.error.encode()
        body = status_body(
            target,
            output=json if outcome == "output" else b"",
            error=json if outcome == "error" else b"",
            reason=getattr(command, "reason", ""),
            command_id=command.id,
        )
        answer = await self._recording.settle(
            entry,
            run_id,
            target,
            body,
            outcome=outcome,
            json=json,
            command_id=command.id,
        )
        return self._told(answer, run_id)

    def _decode(self, entry: Entry) -> Command:
        limit = self._context.config.max_payload
        return decode_command(entry.fields, limit=limit, codec=self._codec)

    def _told(self, answer: str | Refusal, run_id: str) -> Refusal | None:
        if isinstance(answer, Refusal):
            return answer
        self._nudges.tell(answer, run_id)
        return None

    async def _go_back(self, held: Held, command: Command, name: str) -> None:
        """Hold a command whose name is unknown here for a moment, then let others have it."""
        entry = held.entry
        # Anybody may have sent these: a time to come would never be long ago.
        since = min(command.unknown_since or entry.sent_at, entry.sent_at)
        tries = min(max(command.tries, 0), 1_000)
        run_id = run_id_of(entry, command)
        if entry.sent_at - since > self._context.config.unknown_after_ms:
            await self._give_up(held, command, run_id, name)
            return
        # Said the 1st, 2nd, 4th, 8th time: it comes again every few seconds until somebody has it.
        log = self._context.log.debug if tries & (tries + 1) else self._context.log.info
        log("unknown_name", name=name, run_id=run_id, tries=tries + 1)
        await self._hold(tries)
        await self._put_back(entry, command, tries=tries + 1, unknown_since=since)

    async def _hold(self, tries: int) -> None:
        """Hold what is unknown here, the longer the more often it has come."""
        pause_ms = min(_FIRST_BACKOFF_MS * 2 ** min(tries, 16), _LONGEST_BACKOFF_MS)
        await self._wait(pause_ms / 1_000)

    async def _leave_to_newer(self, entry: Entry) -> bool:
        """Put a command of a newer version back; False if it is none, or nobody took it."""
        again = for_newer_workers(entry, self._context.config.unknown_after_ms)
        if again is None:
            return False
        self._context.log.info("newer_version", entry_id=entry.id, tries=again.tries + 1)
        await self._hold(again.tries)
        await self._recording.put_back(entry, again.words)
        return True

    async def _give_up(self, held: Held, command: Command, run_id: str, name: str) -> None:
        """Nobody has known the name for too long: an existing run is stalled, others are buried."""
        starts = isinstance(command, RunStart)
        if isinstance(command, StepExecute):
            await self._steps.give_up(held.entry, command)
        elif isinstance(command, RunAdvance) or (starts and await self._actors.exists(run_id)):
            why = f"no worker has {name!r}: deploy one that has, then resume the run"
            await self._actors.stall(held, run_id, why)
        else:
            why = f"no worker has {name!r}: deploy one that has, then redrive this: no run exists"
            await self._bury(held.entry, "unknown_workflow", why)
        self._context.log.warning("unknown_name_given_up", name=name, run_id=run_id)

    async def _put_back(
        self, entry: Entry, command: Command, *, due: str = "", **changed: str | int
    ) -> None:
        """Send *entry* again, at once or when *due*, with all its fields and what has changed."""
        fields = dict(zip(entry.fields[::2], entry.fields[1::2], strict=True))
        run_id = run_id_of(entry, command)
        if run_id:
            changed["run_id"] = run_id  # so that the run of a start does not depend on its entry
        if due:
            # Timers are a set: two equal commands for the same moment are told apart by this.
            changed["put_back"] = entry.id
        fields |= {name.encode(): str(value).encode() for name, value in changed.items()}
        words = [word.decode() for pair in fields.items() for word in pair]
        timer = encode_timer(self._context.keys.queue_of(entry.stream), words) if due else b""
        await self._recording.put_back(entry, words, due=due, timer=timer, run_id=run_id)
        if due:
            self._context.alarm.set(max(int(due) - entry.sent_at, 0))

    async def _is_old(self, entry: Entry, began: float) -> bool:
        """Tell whether *entry* has waited for its run for longer than any delay explains.

        By the server's clock, or by ours since *began*: the server's may have been set back.
        """
        limit_ms = self._context.config.not_found_after_ms
        if (anyio.current_time() - began) * 1_000 > limit_ms:
            return True
        return await self._recording.age_ms(entry) > limit_ms


def _first_line(error: BaseException) -> str:
    """Return what Redis said, without the arguments that it may repeat."""
    return str(error).splitlines()[0][:200]
