"""The workflow that torture runs: its input says what to do, so that its outcome is foreseen."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from typing import Any, Protocol

import anyio

from askel import App, Run, StepContext

app = App("torture")

#: ``[kind, milliseconds, fails, value]``, ``["sleep", milliseconds]``, ``["wait", milliseconds]``,
#: ``["gather", step, …]``.
Instruction = list[Any]

#: The queue that steps of the kind ``queue`` go to.
QUEUE = "warehouse"
#: The signal that some runs are sent, and some wait for.
SIGNAL = "news"
_MOST_TOGETHER = 3
_LONGEST_STEP_MS = 40
_LONGEST_SLEEP_MS = 60


class Listener(Protocol):
    """Who is told of each call of a handler."""

    def write(self, event: str, **facts: Any) -> None:
        """Hear of *event*."""


effects: list[Listener] = []
"""Where handlers say that they were called; empty: nowhere."""


@app.step(retries=1_000, retry_delay="5ms")
async def work(order: tuple[int, int, int], ctx: StepContext) -> dict[str, int]:
    """Take some milliseconds, fail some times, return the value and who computed it."""
    _told(ctx)
    milliseconds, fails, value = order
    await anyio.sleep(milliseconds / 1_000)
    if ctx.attempt <= fails:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return _witnessed(value, ctx)


@app.step(retries=1_000, retry_delay="0ms")
def work_in_thread(order: tuple[int, int, int], ctx: StepContext) -> dict[str, int]:
    """Take no time, fail some times, return the value and who computed it."""
    _told(ctx)
    if ctx.attempt <= order[1]:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return _witnessed(order[2], ctx)


@app.workflow
async def program(run: Run, instructions: list[Instruction]) -> int:
    """Do what the input says and return the sum of all values."""
    total = 0
    for number, (kind, *given) in enumerate(instructions):
        if kind == "sleep":
            await run.sleep(f"sleep {number}", f"{given[0]}ms")
        elif kind == "wait":
            with suppress(TimeoutError):
                await run.wait_signal(SIGNAL, timeout=f"{given[0]}ms")
        elif kind == "gather":
            results = await run.gather(*(_step(run, number, *part) for part in given))
            total += sum(result["value"] for result in results)
        else:
            total += (await _step(run, number, kind, *given))["value"]
    return total


def _witnessed(value: int, ctx: StepContext) -> dict[str, int]:
    """Say by which attempt, in which process: the judge compares it with who began the attempt."""
    return {"value": value, "attempt": ctx.attempt, "pid": os.getpid()}


def _told(ctx: StepContext) -> None:
    for file in effects:
        file.write("begin", run=ctx.run_id, step=ctx.step_name, attempt=ctx.attempt)


def _step(run: Run, number: int, kind: str, *order: int) -> Any:
    step = work_in_thread if kind == "thread" else work
    return run.do(f"{kind} {number}", step, order, queue=QUEUE if kind == "queue" else None)


def random_program(dice: random.Random, steps: int) -> list[Instruction]:
    """Return instructions of any kind that make exactly *steps* steps, sleeps and waits too."""
    instructions: list[Instruction] = []
    left = steps
    while left:
        kind = dice.choice(["step", "step", "step", "sleep", "wait", "gather"])
        if kind in {"sleep", "wait"}:
            instructions.append([kind, dice.randrange(_LONGEST_SLEEP_MS)])
            left -= 1
        elif kind == "gather":
            count = dice.randint(1, min(left, _MOST_TOGETHER))
            instructions.append(["gather", *(random_step(dice) for _ in range(count))])
            left -= count
        else:
            instructions.append(random_step(dice))
            left -= 1
    return instructions


def random_step(dice: random.Random) -> Instruction:
    """Return one step: in the process of the run, in a thread of it, or through a queue."""
    kind = dice.choice(["here", "here", "thread", "queue"])
    fails = dice.choice([0, 0, 0, 1, 2])
    return [kind, dice.randrange(_LONGEST_STEP_MS), fails, dice.randrange(1_000)]


def outcome(instructions: list[Instruction]) -> int:
    """Return what `program` returns."""
    parts = [p for i in instructions for p in (i[1:] if i[0] == "gather" else [i])]
    return sum(part[3] for part in parts if part[0] not in {"sleep", "wait"})
