"""The app that the benchmarks' workers serve: handlers that do nothing, workflows of ten steps."""

from __future__ import annotations

from typing import Any

from askel import App, Run

STEPS = 10
QUEUE = "bench"

app = App("bench")


@app.step
async def noop(data: Any) -> None:
    pass


@app.workflow
async def ten_steps(run: Run, data: Any) -> int:
    for number in range(STEPS):
        await run.do(f"step {number}", noop, data)
    return STEPS


@app.workflow
async def ten_queued(run: Run, data: Any) -> int:
    for number in range(STEPS):
        await run.do(f"step {number}", noop, data, queue=QUEUE)
    return STEPS
