"""Lifecycles: runs of ten steps from creation to completion, by askel and by the Node package."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from askel import RedisWorkflowService, StepOptions
from benchmarks.arena import Arena
from benchmarks.figures import BenchmarkError, Measured, Value
from benchmarks.payloads import Payloads
from benchmarks.peer import drive
from benchmarks.server_stats import command_values, read_stats, server_values

STEPS = 10
PAYLOAD_BYTES = 100
#: What the engine writes for a step of its own.
OPTIONS = StepOptions(retries=5, retry_delay="exponential")
# So many of the runs are read back to see that all was done.
_LOOKED = 20

Lifecycle: TypeAlias = Callable[[RedisWorkflowService, Payloads], Awaitable[str]]


async def by_calls(service: RedisWorkflowService, payloads: Payloads) -> str:
    """Drive one run call by call: 42 writes."""
    payload = payloads.next
    run_id = await service.create_run("bench", payload(), wire={"type": "bench"})
    for number in range(STEPS):
        name = f"step {number}"
        step = await service.insert_step_state(run_id, name, "noop", payload(), OPTIONS)
        await service.set_step_scheduled(step.step_id)
        await service.set_step_running(step.step_id)
        await service.set_step_result(step.step_id, payload())
    await service.update_run_status(run_id, "completed", payload())
    return run_id


async def by_transactions(service: RedisWorkflowService, payloads: Payloads) -> str:
    """Drive one run with one write per step: 12 writes."""
    payload = payloads.next
    run_id = await service.create_run("bench", payload(), wire={"type": "bench"})
    for number in range(STEPS):
        async with service.transaction(run_id) as tx:
            step = tx.insert_step_state(f"step {number}", "noop", payload(), OPTIONS)
            _ = tx.set_step_scheduled(step.step_id)
            _ = tx.set_step_running(step.step_id)
            _ = tx.set_step_result(step.step_id, payload())
    await service.update_run_status(run_id, "completed", payload())
    return run_id


async def drive_runs(
    service: RedisWorkflowService, lifecycle: Lifecycle, payloads: Payloads, runs: int, lanes: int
) -> list[str]:
    """Keep *lanes* runs in flight until *runs* have been driven; return their ids."""
    run_ids: list[str] = []
    left = iter(range(runs))

    async def lane() -> None:
        run_ids.extend([await lifecycle(service, payloads) for _ in left])

    await asyncio.gather(*(lane() for _ in range(lanes)))
    return run_ids


async def askel(
    arena: Arena, *, lifecycle: Lifecycle, runs: int, in_flight: int, warm_up: int
) -> Measured:
    """Drive runs through one service, which has one connection."""
    payloads = Payloads(PAYLOAD_BYTES)
    async with RedisWorkflowService(arena.url, key_prefix=arena.keys.prefix) as service:
        await drive_runs(service, lifecycle, payloads, warm_up, in_flight)
        before = await read_stats(arena.control)
        cpu, began = time.process_time(), time.perf_counter()
        run_ids = await drive_runs(service, lifecycle, payloads, runs, in_flight)
        seconds = time.perf_counter() - began
        cpu_us = (time.process_time() - cpu) * 1e6
        after = await read_stats(arena.control)
        steps = await _succeeded(service, run_ids[-_LOOKED:])
    values = {
        "per_second": Value(runs / seconds, "runs/s"),
        "client_cpu": Value(cpu_us / runs, "µs/run"),
        **server_values(before, after, units=runs, unit="run"),
    }
    values["cpu"] = Value(values["client_cpu"].number + values["server_cpu"].number, "µs/run")
    return Measured(
        values, _counts(run_ids, runs, steps), command_values(before, after, units=runs)
    )


async def node(arena: Arena, *, runs: int, in_flight: int, warm_up: int) -> Measured:
    """Let the Node package drive runs, with and without automatic pipelining; the better counts."""
    payloads = Payloads(PAYLOAD_BYTES).values
    found = {
        pipelining: await drive(
            payloads,
            mode="lifecycles",
            url=arena.url,
            prefix=arena.keys.prefix,
            pipelining=pipelining,
            runs=runs,
            inFlight=in_flight,
            warmUp=warm_up,
            looked=_LOOKED,
        )
        for pipelining in (False, True)
    }
    best = min(found.values(), key=lambda one: one["seconds"])
    values = {
        "per_second": Value(runs / best["seconds"], "runs/s"),
        "plain_per_second": Value(runs / found[False]["seconds"], "runs/s"),
        "pipelining_per_second": Value(runs / found[True]["seconds"], "runs/s"),
        "client_cpu": Value(best["cpuUs"] / runs, "µs/run"),
        "server_cpu": Value(best["serverUs"] / runs, "µs/run"),
        "cpu": Value((best["cpuUs"] + best["serverUs"]) / runs, "µs/run"),
        "commands": Value(best["commands"], "calls/run"),
    }
    return Measured(values, _counts(best["ids"], runs, best["steps"]))


async def _succeeded(service: RedisWorkflowService, run_ids: list[str]) -> int:
    """Return how many steps of the runs succeeded, all runs being completed."""
    steps = 0
    for run_id in run_ids:
        run = await service.get_run(run_id)
        if run is None or run.status != "completed":
            raise BenchmarkError(f"run {run_id} did not complete")
        attempts = await service.get_run_history(run_id)
        steps += sum(attempt.status == "succeeded" for attempt in attempts)
    return steps


def _counts(run_ids: list[str], runs: int, steps: int) -> dict[str, int]:
    looked = min(_LOOKED, runs)
    if len(set(run_ids)) != runs or steps != looked * STEPS:
        raise BenchmarkError(
            f"{len(set(run_ids))} of {runs} runs, and of {looked} of them {steps} steps succeeded"
        )
    return {"runs": runs, "runs_looked_at": looked, "steps_succeeded": steps}
