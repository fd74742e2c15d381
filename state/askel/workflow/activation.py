"""One activation of a run: turns what the code reached into decisions, and outcomes into turns.

Pure: it is told what happened and answers with the turn to send. Whoever drives it does the I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

from askel.errors import AskelError, NonDeterminismError, PayloadError, RegistrationError
from askel.state import (
    Activated,
    HistoryEntry,
    IdSource,
    Keys,
    SerializedError,
    StepDecision,
    StepResult,
    Turn,
    Turned,
    decode_entries,
)
from askel.state.codec import serialize_error
from askel.workflow.app import App
from askel.workflow.attempts import LocalAttempt, Outcome
from askel.workflow.context import SignalWait, SleepCall, StepCall
from askel.workflow.decisions import Decisions, Expected
from askel.workflow.replay import Reached, Replay, StepRecord

#: Most decisions that one turn carries; a larger fan-out takes several turns.
MAX_DECISIONS = 200
#: Most outcomes that one turn carries: Lua cannot pass on some thousand values at once.
MAX_RESULTS = 500
_LOST = SerializedError(
    message="the process that ran this attempt stopped before it ended", name="AttemptLost"
)


class Activation:
    """The deciding part of an activation: owner nonce, turn number, replayed code."""

    def __init__(
        self,
        app: App,
        keys: Keys,
        ids: IdSource,
        *,
        run_id: str,
        owner: str,
        loaded: Activated,
        inline: bool = False,
    ) -> None:
        """Replay the run that was *loaded*.

        Args:
            app: Where the run's workflow and steps are registered.
            keys: The keys of the deployment.
            ids: Where new ids come from.
            run_id: The run.
            owner: The nonce of this activation.
            loaded: The run, as the script that made us its owner answered.
            inline: Every step is executed here, and timers are kept here, not in Redis.

        Raises:
            KeyError: The app has no such workflow.
        """
        self.run_id = run_id
        self.workflow = loaded.workflow
        self.running: dict[str, LocalAttempt] = {}
        self.ended: str | None = None
        entries = decode_entries(loaded.history)
        born = entries[0].at if entries else 0
        self._decisions = Decisions(
            keys, ids, app.codec, run_id, born=str(born or ""), inline=inline
        )
        self._codec = app.codec
        self._owner = owner
        self._inline = inline
        self._number = loaded.turn
        self._sent = 0
        self._known = len(loaded.history)
        self._base = ids.suffix()
        self._attempts = 0
        self._results: list[StepResult] = []
        self._retries: dict[str, tuple[Reached, int]] = {}
        self._begun: list[LocalAttempt] = []
        self._landing: Turn | None = None
        self._stalled: AskelError | None = None
        self._replay = Replay(app, app.workflows[loaded.workflow], run_id, loaded.input, born)
        self._feed(entries, 0)

    @property
    def has_local_work(self) -> bool:
        """Whether attempts of this run are executed here, or results wait to be sent."""
        return bool(self.running or self._results)

    @property
    def has_results(self) -> bool:
        """Whether outcomes wait to be sent."""
        return bool(self._results)

    def close(self) -> None:
        """Abandon the code."""
        self._replay.close()

    def finished(self, attempt: LocalAttempt, outcome: Outcome, at: int = 0) -> None:
        """Take the outcome of an attempt that ended here, at about *at* (ms of the server)."""
        del self.running[attempt.key]
        reached = self._replay.open.get(attempt.key)
        if reached is None:
            return  # another program has recorded an outcome for the step meanwhile
        call = reached.call
        assert isinstance(call, StepCall)
        failed = outcome.error is not None
        final = not failed or outcome.permanent or attempt.attempt > call.policy.retries
        result = StepResult(
            name=attempt.key,
            expect="running",
            attempt=attempt.attempt,
            nonce=attempt.nonce,
            becomes="failed" if failed else "succeeded",
            json=outcome.json,
            seen=self._replay.fed,
            final=final,
        )
        self._results.append(result)
        if final:
            result.now = self._replay.finish(attempt.key, outcome.json, outcome.error, at)
        else:
            self._retries[attempt.key] = (reached, attempt.attempt)

    def next_due(self) -> int | None:
        """Return when the next timer kept here is due, in ms of the server's clock."""
        records = (self._replay.steps.get(key) for key in self._replay.open)
        waiting = (record for record in records if record is not None and not record.fired)
        return min((record.due for record in waiting if record.due is not None), default=None)

    def timers_due(self, now: int) -> None:
        """Take it that the server's clock shows *now*: sleeps end, retries may begin."""
        for key, reached in list(self._replay.open.items()):
            record = self._replay.steps.get(key)
            if record is None or record.due is None or record.due > now or record.fired:
                continue
            record.fired = True
            self._replay.touch(key)
            if isinstance(reached.call, StepCall):
                continue
            late = self._replay.late(key)
            result = self._waited(key, b"null", late)
            result.now = self._replay.finish(key, b"null", late, now)

    def next_turn(
        self, *, passivate: bool = False, forced: bool = False, hold: bool = False
    ) -> Turn | None:
        """Return the turn to send now, or None when there is nothing to say.

        Args:
            passivate: Give the run up if nothing of it is worked on here.
            forced: Send a turn even if it is empty, to be told of the tail.
            hold: Begin nothing.
        """
        self._begun = []
        self._stalled = self._stalled or self._replay.unreadable
        self._record_waits()
        self._results, later = self._results[:MAX_RESULTS], self._results[MAX_RESULTS:]
        # Code has been given the later outcomes already: what it reached by them may not be
        # recorded before them, or replay would meet decisions without their cause.
        if hold or later or self._stalled is not None or self._replay.status != "running":
            decisions = self._decide_held(later[0].seen if later else self._replay.fed)
        else:
            decisions = self._decide()
            if self._stalled is not None:
                decisions = self._decide_held(self._replay.fed)
        end, outcome, json = "", "", b""
        if not later:
            end, outcome, json = self._end(passivate=passivate and not decisions)
        if not (decisions or self._results or end or forced):
            return None
        self._sent += 1
        results, self._results = self._results, later
        self._landing = Turn(
            run_id=self.run_id,
            owner=self._owner,
            number=self._number,
            seen=self._replay.fed,
            nonce=f"{self._base}{self._number}.{self._sent}",
            results=results,
            decisions=decisions,
            end=end,
            outcome=outcome,
            json=json,
        )
        return self._landing

    def _record_waits(self) -> None:
        """Let the end of waits be recorded, but for those whose beginning never was, and again."""
        waited, self._replay.waited = self._replay.waited, {}
        for key, (data, late) in waited.items():
            record = self._replay.steps.get(key)
            if record is not None and record.status == "scheduled":
                result = self._waited(key, data, late)
                if not late and record.due is not None:
                    result.timer = self._decisions.timer(key, 1)

    def _waited(self, key: str, data: bytes, late: SerializedError | None) -> StepResult:
        becomes, json = ("failed", self._codec.encode(late)) if late else ("succeeded", data)
        result = StepResult(key, "scheduled", 1, "*", becomes, json, self._replay.fed)
        self._results.append(result)
        return result

    def landed(self, answer: Turned) -> list[LocalAttempt]:
        """Take the answer OK to the last turn; return the attempts to execute now."""
        turn = self._landing
        assert turn is not None
        self._number = answer.turn
        self._known = answer.length
        for decision in turn.decisions:
            due = None if decision.delay_ms is None else answer.at + decision.delay_ms
            self._replay.steps[decision.name] = StepRecord(
                decision.becomes, decision.attempt, queued=bool(decision.queue), due=due
            )
            self._retries.pop(decision.name, None)
            self._replay.touched.pop(decision.name, None)
        begun, self._begun = self._begun, []
        for attempt in begun:
            self.running[attempt.key] = attempt
        if answer.tail:
            self._absorb(answer.tail, turn.seen)
        else:
            self._replay.fed = answer.length
            self._replay.status = answer.status or self._replay.status
        return begun

    def behind(self, answer: Turned) -> None:
        """Take the answer BEHIND: nothing was written; the tail is to be considered first."""
        turn = self._landing
        assert turn is not None
        self._results = turn.results + self._results
        self._known = answer.length
        self._absorb(answer.tail, turn.seen)
        if not answer.tail and answer.status:
            self._replay.status = answer.status  # changed by a program that writes no history

    @property
    def is_behind(self) -> bool:
        """Whether more of the history is known to exist than was fed."""
        return self._known > self._replay.fed

    def _absorb(self, tail: Sequence[bytes], first: int) -> None:
        """Feed the part of the tail that others wrote; what turns wrote since is our own."""
        entries = decode_entries(tail)
        foreign = [entry for entry in entries if entry.seen is None]
        self._feed(foreign, first + len(entries) - len(foreign))
        self._replay.fed = first + len(entries)

    def _feed(self, entries: Sequence[HistoryEntry], first: int) -> None:
        try:
            self._replay.feed(entries, first)
        except NonDeterminismError as error:
            self._stalled = error

    def _end(self, *, passivate: bool) -> tuple[str, str, bytes]:
        """Return how the activation ends with this turn, if it does: end, outcome field, JSON."""
        replay = self._replay
        if self._stalled is not None and not self.running:
            if replay.status != "running":
                # Stalled already, or suspended: what has come since is for whoever resumes it.
                return ("", "", b"") if self._results else ("passivate", "", b"")
            error = SerializedError(str(self._stalled), name=type(self._stalled).__name__)
            return "stalled", "error", self._codec.encode(error)
        if replay.done and replay.status == "running" and not self.running:
            if replay.error is not None:
                return "failed", "error", self._codec.encode(serialize_error(replay.error))
            try:
                return "completed", "output", self._codec.encode(replay.value)
            except PayloadError as error:
                return "failed", "error", self._codec.encode(serialize_error(error))
        # Results must be in the history before the activation may be given up.
        if passivate and not self.running and not self._results:
            return "passivate", "", b""
        return "", "", b""

    def _decide(self) -> list[StepDecision]:
        """Return what to do about the operations that wait, in the order they were reached.

        The successors of failed attempts come first: they stand in one turn with the failure.
        """
        decisions = [self._retry(reached, failed) for reached, failed in self._failed_now()]
        touched = self._replay.touched
        for key in list(touched):
            if len(decisions) >= MAX_DECISIONS or len(self._results) >= 2 * MAX_RESULTS:
                break
            reached = self._replay.open.get(key)
            decision = reached and self._decide_one(key, reached)
            if decision:
                decisions.append(decision)  # considered again until it has landed
            else:
                touched.pop(key, None)
        return decisions

    def _decide_held(self, seen: int) -> list[StepDecision]:
        """Return the decisions without which results cannot stand: a failed attempt is to wait.

        An attempt that was lost is closed when its successor begins.

        Args:
            seen: What the decisions say that the code had seen: not more than the outcomes that
                stand behind them in the history say.
        """
        self._results = [r for r in self._results if r.final or r.becomes != "lost"]
        wait = self._decisions.wait
        return [wait(reached, failed, seen) for reached, failed in self._failed_now()]

    def _failed_now(self) -> list[tuple[Reached, int]]:
        """Return the attempts whose failure stands in this turn and that are to be repeated."""
        names = [result.name for result in self._results if not result.final]
        return [self._retries[name] for name in names if name in self._retries]

    def _decide_one(self, key: str, reached: Reached) -> StepDecision | None:
        call, record = reached.call, self._replay.steps.get(key)
        if key in self.running or key in self._retries:
            return None
        if isinstance(call, SleepCall):
            return None if record else self._decisions.sleep(reached, self._replay.fed)
        if isinstance(call, SignalWait):
            return None if record else self._decisions.wait_signal(reached, self._replay.fed)
        return self._decide_step(key, call, reached, record)

    def _decide_step(
        self, key: str, call: StepCall, reached: Reached, record: StepRecord | None
    ) -> StepDecision | None:
        if self._inline and call.definition is None:
            msg = f"step {key!r} needs {call.rpc_name!r}, which is not registered in this process"
            self._stalled = RegistrationError(msg)
            return None
        if record is None:
            return self._begin(reached, "", "", 1)
        if record.queued:
            return None
        if record.status == "running":  # by an owner that is no more
            return self._begin_after_loss(call, reached, record)
        if record.status == "pending" and record.fired:
            return self._begin(reached, "pending", record.attempt, record.attempt)
        return None

    def _begin_after_loss(
        self, call: StepCall, reached: Reached, record: StepRecord
    ) -> StepDecision | None:
        spent = record.attempt > call.policy.retries
        if not any(result.name == reached.key for result in self._results):
            self._results.append(
                StepResult(
                    name=reached.key,
                    expect="running",
                    attempt=record.attempt,
                    nonce="*",
                    becomes="lost",
                    json=self._codec.encode(_LOST),
                    seen=self._replay.fed,
                    final=spent,
                )
            )
        if spent:
            self._replay.finish(reached.key, b"", _LOST)
            return None
        return self._begin(reached, "running", record.attempt, record.attempt + 1)

    def _retry(self, reached: Reached, failed: int) -> StepDecision:
        """Begin the next attempt at once, or when its timer fires."""
        assert isinstance(reached.call, StepCall)
        if reached.call.policy.delay_ms(failed):
            return self._decisions.wait(reached, failed, self._replay.fed)
        return self._begin(reached, "running", failed, failed + 1)

    def _begin(
        self, reached: Reached, expect: str, expect_attempt: int | str, attempt: int
    ) -> StepDecision:
        """Begin an attempt here, or send it to whoever has the function."""
        call = reached.call
        assert isinstance(call, StepCall)
        now = Expected(expect, expect_attempt)
        if not (call.is_local or self._inline):
            return self._decisions.send(reached, now, attempt, self._replay.fed)
        assert call.definition is not None
        self._attempts += 1
        nonce = f"{self._base}{self._attempts}"
        self._begun.append(
            LocalAttempt(
                key=reached.key,
                attempt=attempt,
                nonce=nonce,
                definition=call.definition,
                data=call.data,
                timeout_ms=call.timeout_ms,
                run_id=self.run_id,
            )
        )
        return self._decisions.begin(reached, now, attempt, nonce, self._replay.fed)
