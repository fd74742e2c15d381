"""One run without Redis: a server that keeps the turn protocol, and processes that come and go.

The server is a second, plain writing-down of what the scripts do; the activation is the real one.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.stubs import CountedIds

from askel import App, Run, SerializedError, StepFailedError
from askel.state import Activated, Keys, StepDecision, StepResult, Turn, Turned, codec
from askel.workflow import Activation, LocalAttempt, Outcome

TERMINAL = {"completed", "failed", "cancelled"}


# Programs: lists of operations.


@dataclass(frozen=True)
class Do:
    """A step: fails in its first attempts, or for good; executed here or sent to a queue.

    One that *asks* is given what the code drew of time and chance, and heard last.
    """

    name: str
    number: int
    failures: int = 0
    for_good: bool = False
    queued: bool = False
    delayed: bool = False
    caught: bool = False
    asks: bool = False


@dataclass(frozen=True)
class Sleep:
    name: str


@dataclass(frozen=True)
class Wait:
    """A wait for a signal; the time of a limited one may be over before that comes."""

    name: str
    limited: bool = False


@dataclass(frozen=True)
class Gather:
    parts: tuple[tuple[Any, ...], ...]
    limit: int | None = None


class FailedError(Exception):
    """What the oracle says of a program that fails."""


def expected(program: tuple[Any, ...]) -> list[Any]:
    """Return the value of *program*, computed without any engine, or raise FailedError."""
    values: list[Any] = []
    for op in program:
        match op:
            case Do(for_good=True, caught=False):
                raise FailedError(op.number)
            case Do():
                values.append("caught" if op.for_good else 2 * op.number)
            case Sleep():
                values.append(None)
            case Wait():
                values.append("waited")
            case Gather():
                results, failures = [], []
                for part in op.parts:
                    try:
                        results.append(expected(part))
                    except FailedError as failure:
                        failures.append(failure)
                if failures:
                    raise failures[0]
                values.append(results)
    return values


async def interpret(run: Run, program: tuple[Any, ...]) -> list[Any]:
    """Run *program* as workflow code."""
    values: list[Any] = []
    heard: Any = None
    for op in program:
        match op:
            case Do():
                try:
                    drawn = [run.now(), run.random(), run.uuid(), heard] if op.asks else []
                    given = [op.number, op.failures, op.for_good, *drawn]
                    values.append(await run.do(
                        op.name, "work", given, retries=10_000,
                        retry_delay="5s" if op.delayed else 0, queue="q" if op.queued else None,
                    ))  # fmt: skip
                except StepFailedError:
                    if not op.caught:
                        raise
                    values.append("caught")
            case Sleep():
                values.append(await run.sleep(op.name, "3s"))
            case Wait():
                try:
                    heard = await run.wait_signal(op.name, timeout="4s" if op.limited else None)
                except TimeoutError:
                    heard = "late"
                values.append("waited")
            case Gather():
                parts = [interpret(run, part) for part in op.parts]
                values.append(list(await run.gather(*parts, limit=op.limit)))
    return values


def app_of(program: tuple[Any, ...]) -> App:
    """Return an app whose workflow ``program`` runs *program*."""
    app = App("simulated")

    @app.step(name="work")
    async def work(data: Any) -> Any: ...

    @app.workflow(name="program")
    async def run_program(run: Run) -> Any:
        return await interpret(run, program)

    return app


def outcome_of(attempt: int, data: bytes) -> Outcome:
    """Return how an attempt of a step ends: a function of what it was given alone."""
    number, failures, for_good, *_ = json.loads(data)
    if for_good or attempt <= failures:
        error = SerializedError(str(number), name="ValueError")
        return Outcome(codec.encode(error), error, permanent=for_good)
    return Outcome(codec.encode(2 * number))


# The server.


@dataclass
class Step:
    status: str
    attempt: int
    nonce: str
    data: bytes = b"null"
    rpc: str | None = None
    is_wait: bool = False


@dataclass
class Server:
    """What Redis holds of the run, and the scripts as far as the engine needs them."""

    tail_limit: int = 3
    status: str = "running"
    owner: str = ""
    turn: int = 0
    last: str = ""
    now: int = 1_000
    history: list[bytes] = field(
        default_factory=lambda: [b'{"at":1,"t":"run","status":"running","workflow":"program"}']
    )
    steps: dict[str, Step] = field(default_factory=dict)
    timers: dict[tuple[str, int], int] = field(default_factory=dict)
    queue: list[tuple[str, int, bytes]] = field(default_factory=list)
    boundaries: list[int] = field(default_factory=lambda: [1])
    result: bytes = b""
    signals: int = 0

    def activate(self, owner: str) -> Activated:
        """Make *owner* the run's owner."""
        self.owner = owner
        return Activated(self.turn, "program", self.status, b"null", list(self.history))

    def append(self, *entries: dict[str, Any] | str) -> None:
        """Write history entries in one step."""
        for entry in entries:
            body = entry if isinstance(entry, str) else json.dumps(entry)[1:-1]
            self.history.append(f'{{"at":{self.now},{body}}}'.encode())
        self.boundaries.append(len(self.history))

    def _answer(self, word: str, turn: Turn) -> Turned:
        tail = self.history[turn.seen : turn.seen + self.tail_limit]
        return Turned(word, self.turn, len(self.history), self.now, tail)

    def take(self, turn: Turn) -> Turned:
        """Execute TURN."""
        self.now += 1
        if self.status in TERMINAL:
            return Turned("END" if self.last == turn.nonce else "TERMINAL")
        if self.owner != turn.owner:
            return Turned("END" if self.last == turn.nonce else "LOST")
        if self.turn != turn.number:
            return self._answer("OK", turn) if self.last == turn.nonce else Turned("CONFLICT")
        if not self._holds(turn):
            return Turned("CONFLICT")
        ends_run = turn.end not in {"", "passivate"}
        begins = any(decision.becomes != "pending" for decision in turn.decisions)
        halted = self.status != "running" and (begins or ends_run)
        if (turn.end or halted) and (halted or len(self.history) != turn.seen):
            return self._answer("BEHIND", turn)
        entries = [
            *map(self._write_result, turn.results),
            *map(self._write_decision, turn.decisions),
        ]
        if ends_run:
            self.status, self.result = turn.end, turn.json
            entries.append(f'"t":"run","status":"{turn.end}","seen":{turn.seen}')
        quiet = len(self.history) == turn.seen
        if entries:
            self.append(*entries)
        self.turn, self.last = self.turn + 1, turn.nonce
        if turn.end:
            self.owner = ""
            return Turned("END")
        return (
            Turned("OK", self.turn, len(self.history), self.now, [])
            if quiet
            else self._answer("OK", turn)
        )

    def _holds(self, turn: Turn) -> bool:
        settled = set()
        for result in turn.results:
            step = self.steps.get(result.name)
            if step is None or (step.status, step.attempt) != (result.expect, result.attempt):
                return False
            if result.nonce not in {"*", step.nonce}:
                return False
            settled.add(result.name)
        for decision in turn.decisions:
            step = self.steps.get(decision.name)
            found = (step.status, step.attempt) if step else ("", "")
            if decision.name not in settled and found != (decision.expect, decision.expect_attempt):
                return False
        return True

    def _write_result(self, result: StepResult) -> str:
        step = self.steps[result.name]
        if result.final:
            step.status = "failed" if result.becomes == "lost" else result.becomes
        final = ',"final":true' if result.final and result.becomes != "succeeded" else ""
        return (
            self._closed(result.name, step, result.becomes, result.outcome, result.json, final)
            + f',"seen":{result.seen}'
            + ("" if result.now is None else f',"now":{result.now}')
        )

    @staticmethod
    def _closed(name: str, step: Step, status: str, outcome: str, text: bytes, more: str) -> str:
        rpc = f',"rpc":{json.dumps(step.rpc)}' if step.rpc else ""
        return (
            f'"t":"step","name":{json.dumps(name)},"status":"{status}","attempt":{step.attempt},"id":"x"'
            f'{rpc},"{outcome}":{text.decode()}{more}'
        )

    def _write_decision(self, decision: StepDecision) -> str:
        fields = dict(zip(decision.fields[::2], decision.fields[1::2], strict=True))
        step = self.steps.setdefault(decision.name, Step("", 0, ""))
        if fields:
            step.data, step.rpc = fields["data"], fields.get("rpcName")
            step.is_wait = "signal" in fields
        step.status, step.attempt, step.nonce = decision.becomes, decision.attempt, decision.nonce
        body = decision.body
        if decision.delay_ms is not None:
            due = self.now + decision.delay_ms
            self.timers[decision.name, decision.attempt] = due
            body += f',"due":{due}'
        if decision.queue:
            self.queue.append((decision.name, decision.attempt, step.data))
        return body

    # What others do.

    def fire(self, key: tuple[str, int]) -> None:
        """Execute RECORD of a timer."""
        name, attempt = key
        self.now = max(self.now, self.timers.pop(key))
        step = self.steps[name]
        if step.attempt != attempt or step.status not in {"scheduled", "pending"}:
            return
        if step.status == "scheduled" and not step.is_wait:
            step.status = "succeeded"
            self.append(self._closed(name, step, "succeeded", "result", b"null", ""))
        else:
            self.append({"t": "timer", "name": name, "attempt": attempt})

    def work_queue(self, rng: random.Random) -> None:
        """Execute BEGIN and COMPLETE of a queued step, perhaps in two steps."""
        name, attempt, data = self.queue.pop(rng.randrange(len(self.queue)))
        step = self.steps[name]
        if self.status in TERMINAL:
            return
        began = {"t": "step", "name": name, "status": "running", "attempt": attempt}
        outcome = outcome_of(attempt, data)
        final = outcome.error is None or outcome.permanent
        becomes = "failed" if outcome.error else "succeeded"
        closing = self._closed(
            name, step, becomes, "error" if outcome.error else "result", outcome.json,
            ',"final":true' if final and outcome.error else "",
        )  # fmt: skip
        self.append(began)
        if final:
            step.status = becomes
            self.append(closing)
            return
        step.status, step.attempt = "pending", attempt + 1
        self.append(
            closing, {"t": "step", "name": name, "status": "pending", "attempt": attempt + 1}
        )
        self.queue.append((name, attempt + 1, data))

    def signal(self, name: str) -> None:
        """Somebody sends a signal, each another one."""
        self.signals += 1
        self.append({"t": "signal", "name": name, "data": self.signals})

    def move(self, status: str) -> None:
        """Another program moves the run."""
        self.status = status
        self.append({"t": "run", "status": status})


class Simulation:
    """Processes that drive the run: one at a time, each of which may vanish at any moment."""

    def __init__(self, program: tuple[Any, ...], rng: random.Random, **options: Any):
        self.app = app_of(program)
        self.server = Server(**options)
        self.rng = rng
        self.ids = CountedIds()
        self.crashes = 0
        self.activation: Activation | None = None
        self.local: list[LocalAttempt] = []
        self._begin()

    def _begin(self) -> None:
        owner = self.ids.nonce()
        self.local = []
        self.activation = Activation(
            self.app,
            Keys("p"),
            self.ids,
            run_id="r",
            owner=owner,
            loaded=self.server.activate(owner),
        )

    def crash(self) -> None:
        """The process dies; another one activates the run."""
        self.crashes += 1
        self.activation.close()
        self._begin()

    def take_turn(self, *, passivate: bool = False, forced: bool = True) -> None:
        """Send a turn, perhaps twice, and take its answer."""
        activation = self.activation
        turn = activation.next_turn(passivate=passivate, forced=forced or activation.is_behind)
        if turn is None:
            return
        answer = self.server.take(turn)
        if self.rng.random() < 0.2:  # the reply was lost
            answer = self.server.take(turn)
        match answer.word:
            case "OK":
                self.local += activation.landed(answer)
            case "BEHIND":
                activation.behind(answer)
            case "END":
                activation.close()
                if turn.end == "passivate":
                    self._begin()
            case word:
                msg = f"the only owner's turn was answered {word}"
                raise AssertionError(msg)

    def end_attempt(self) -> None:
        """One attempt that is executed here ends."""
        attempt = self.local.pop(self.rng.randrange(len(self.local)))
        at = self.server.now + self.rng.randint(-3, 3)  # as far as the process knows
        self.activation.finished(attempt, outcome_of(attempt.attempt, attempt.data), at)

    def something_happens(self, *, may_crash: bool) -> None:
        """One event, chosen by chance among those that can happen."""
        server, rng = self.server, self.rng
        events: list[Any] = [self.take_turn, lambda: self.take_turn(passivate=True)]
        if self.local:
            events += [self.end_attempt] * 3
        events.append(lambda: server.signal(rng.choice("abc")))
        if server.timers:
            events.append(lambda: server.fire(rng.choice(list(server.timers))))
        if server.queue:
            events.append(lambda: server.work_queue(rng))
        if server.status == "suspended":
            events.append(lambda: server.move("running"))
        if may_crash:
            events.append(self.crash)
            if server.status == "running":
                events.append(lambda: server.move("suspended"))
        rng.choice(events)()

    def run(self, steps: int) -> None:
        """Let *steps* events happen, then go on without faults until the run has ended."""
        for number in range(steps + 100_000):
            if self.server.status in {"completed", "failed", "stalled"}:
                self.activation.close()
                return
            self.something_happens(may_crash=number < steps)
        msg = "the run does not end"
        raise AssertionError(msg)
