"""Workflows whose input says what to do, so that a test can foresee what they return."""

from __future__ import annotations

import random
from typing import Any

import anyio

from askel import App, Run, StepContext

app = App("programs")

Instruction = list[Any]


@app.step(retries=99, retry_delay="5ms")
async def work(order: tuple[int, int, int], ctx: StepContext) -> int:
    """Take some milliseconds, fail some times, return the value."""
    milliseconds, fails, value = order
    await anyio.sleep(milliseconds / 1_000)
    if ctx.attempt <= fails:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return value


@app.step(retries=99, retry_delay="0ms")
def work_in_thread(order: tuple[int, int, int], ctx: StepContext) -> int:
    """Take no time, fail some times, return the value."""
    if ctx.attempt <= order[1]:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return order[2]


@app.workflow
async def program(run: Run, instructions: list[Instruction]) -> int:
    """Do what the input says and return the sum of all values."""
    total = 0
    for number, (kind, *given) in enumerate(instructions):
        if kind == "sleep":
            await run.sleep(f"sleep {number}", f"{given[0]}ms")
        elif kind == "gather":
            total += sum(await run.gather(*(_step(run, number, *part) for part in given)))
        else:
            total += await _step(run, number, kind, *given)
    return total


def _step(run: Run, number: int, kind: str, *order: int) -> Any:
    step = work_in_thread if kind == "thread" else work
    queue = "warehouse" if kind == "queue" else None
    return run.do(f"{kind} {number}", step, order, queue=queue)


def random_program(dice: random.Random) -> list[Instruction]:
    """Return instructions of every kind, in any order."""

    def step() -> Instruction:
        kind = dice.choice(["here", "here", "thread", "queue"])
        return [kind, dice.randrange(50), dice.choice([0, 0, 0, 1, 2]), dice.randrange(1_000)]

    makers = [step, step, step, lambda: ["sleep", dice.randrange(60)]]
    makers.append(lambda: ["gather", *(step() for _ in range(dice.randrange(1, 5)))])
    return [dice.choice(makers)() for _ in range(dice.randrange(2, 9))]


def outcome(instructions: list[Instruction]) -> int:
    """Return what `program` returns."""
    parts = [p for i in instructions for p in (i[1:] if i[0] == "gather" else [i])]
    return sum(part[3] for part in parts if part[0] not in {"sleep", "wait"})
