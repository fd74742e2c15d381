"""The loads: what a worker process does in a second when it is given all it can take."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import anyio
import msgspec

from askel import AskelError, Client, RedisWorkflowService
from askel.state import Keys, decode_entries
from benchmarks.app import QUEUE, STEPS
from benchmarks.arena import Arena
from benchmarks.figures import BenchmarkError, Measured, Value, percentile
from benchmarks.process import WorkerProcess, worker
from benchmarks.server_stats import ServerStats, command_values, read_stats, server_values

_LONGEST_S = 60.0
_POLL_S = 0.02
_PAGE = 200


async def step_commands(arena: Arena, *, runs: int, steps: int) -> Measured:
    """Let a worker drain *steps* ``step.execute`` commands for each of *runs* runs.

    Rates are read from the times that the server put into the histories; the looking on costs it
    one XLEN in 20 ms.
    """
    count = runs * steps
    async with RedisWorkflowService(arena.url, key_prefix=arena.keys.prefix) as service:
        run_ids = list(await asyncio.gather(*(service.create_run("bench") for _ in range(runs))))
    async with worker(arena.url, arena.keys.prefix) as process:
        worker_us = process.cpu_us
        # Sent together, so that nothing of the worker's answer to the first is counted before.
        _, before = await asyncio.gather(arena.fill(run_ids, steps), read_stats(arena.control))
        await _drained(arena, process)
        after = await read_stats(arena.control)
        worker_us = _difference(process.cpu_us, worker_us)
    found = await _read_histories(arena, run_ids)
    values = {
        "steps_per_second": Value((count - 1) / _span(min(found.ends), max(found.ends)), "steps/s"),
        "steps_per_second_from_begin": Value(
            count / _span(found.begin, max(found.ends)), "steps/s"
        ),
        **_costs(before, after, worker_us, units=count, span=_span(found.begin, max(found.ends))),
    }
    counts = await _checked(arena, found, steps=count, completed=0)
    return Measured(values, counts, command_values(before, after, units=count))


async def workflows(
    arena: Arena, *, workflow: str, runs: int, in_flight: int, queued: bool = False
) -> Measured:
    """Keep *in_flight* runs of ten steps going until *runs* have ended, as a client sees it."""
    arguments = ["--queue", QUEUE] if queued else []
    waits: list[float] = []
    data = msgspec.json.decode(arena.payload)
    async with (
        worker(arena.url, arena.keys.prefix, arguments) as process,
        Client(arena.url, arena.keys.prefix) as client,
    ):
        await _closed_loop(client, workflow, data, min(in_flight, runs), in_flight, [])
        worker_us, driver_s = process.cpu_us, time.process_time()
        before, began = await read_stats(arena.control), time.perf_counter()
        run_ids = await _closed_loop(client, workflow, data, runs, in_flight, waits)
        seconds = time.perf_counter() - began
        after = await read_stats(arena.control)
        worker_us = _difference(process.cpu_us, worker_us)
        driver_us = (time.process_time() - driver_s) * 1e6
    found = await _read_histories(arena, run_ids)
    steps = runs * STEPS
    values = {
        "steps_per_second": Value(steps / seconds, "steps/s"),
        "workflows_per_second": Value(runs / seconds, "workflows/s"),
        "p50": Value(percentile(waits, 0.5) * 1_000, "ms"),
        "p99": Value(percentile(waits, 0.99) * 1_000, "ms"),
        "driver_cpu": Value(driver_us / steps, "µs/step"),
        **_costs(before, after, worker_us, units=steps, span=seconds),
    }
    counts = await _checked(arena, found, steps=steps, completed=runs)
    return Measured(values, counts, command_values(before, after, units=steps))


async def _closed_loop(
    client: Client, workflow: str, data: object, runs: int, in_flight: int, waits: list[float]
) -> list[str]:
    """Start a run whenever one has ended; add how long each took to *waits*."""
    run_ids: list[str] = []
    left = runs

    async def one_after_the_other() -> None:
        nonlocal left
        while left:
            left -= 1
            began = time.perf_counter()
            handle = await client.start(workflow, data)
            run_ids.append(handle.run_id)
            await handle.result(timeout=_LONGEST_S)
            waits.append(time.perf_counter() - began)

    try:
        await asyncio.gather(*(one_after_the_other() for _ in range(in_flight)))
    except AskelError as error:
        raise BenchmarkError(f"a run of {workflow} did not end well: {error}") from error
    return run_ids


async def _drained(arena: Arena, process: WorkerProcess) -> None:
    """Return when the stream is empty: an entry goes with the script that completes its step."""
    stream = arena.keys.commands_default
    with anyio.move_on_after(_LONGEST_S):
        while await arena.control.send("XLEN", stream):
            process.check()
            await anyio.sleep(_POLL_S)
        return
    raise BenchmarkError(f"the stream was not drained within {_LONGEST_S:g} s")


class _Found(msgspec.Struct):
    """What the histories say: what happened, and when (in ms of the server's clock)."""

    counts: dict[str, int]
    begin: int
    ends: list[int]


async def _read_histories(arena: Arena, run_ids: Sequence[str]) -> _Found:
    """Count what happened to the runs, by their histories and their status."""
    counts: Counter[str] = Counter(
        {"runs": len(run_ids), "completed": 0, "begun": 0, "steps": 0, "failed": 0, "lost": 0}
    )
    begun: list[int] = []
    ends: list[int] = []
    for first in range(0, len(run_ids), _PAGE):
        for history in await _page(arena.keys, arena, run_ids[first : first + _PAGE]):
            for entry in decode_entries(history):
                if entry.kind == "run":
                    counts["completed"] += entry.status == "completed"
                elif entry.status == "running":
                    begun.append(entry.at)
                elif entry.status == "succeeded":
                    ends.append(entry.at)
                elif entry.status in {"failed", "lost"}:
                    counts[entry.status] += 1
    if not begun or not ends:
        raise BenchmarkError("nothing was executed")
    counts["begun"], counts["steps"] = len(begun), len(ends)
    return _Found(dict(counts), min(begun), ends)


async def _page(keys: Keys, arena: Arena, run_ids: Sequence[str]) -> list[list[bytes]]:
    send = arena.control.send
    names = [keys.history(run_id) for run_id in run_ids]
    return list(await asyncio.gather(*(send("LRANGE", name, 0, -1) for name in names)))


async def _checked(arena: Arena, found: _Found, *, steps: int, completed: int) -> dict[str, int]:
    """Return the counts; BenchmarkError where not all was done, each step at its first try."""
    counts = found.counts | {"dead": int(await arena.control.send("XLEN", arena.keys.dead))}
    wanted = {"completed": completed, "begun": steps, "steps": steps}
    wanted |= {"failed": 0, "lost": 0, "dead": 0}
    wrong = {name: counts[name] for name, count in wanted.items() if counts[name] != count}
    if wrong:
        raise BenchmarkError(f"of {steps} steps in {counts['runs']} runs: {wrong}")
    return counts


def _costs(
    before: ServerStats, after: ServerStats, worker_us: float | None, *, units: int, span: float
) -> dict[str, Value]:
    """Return where the time went: per step, and how busy (1 is one processor) each side was."""
    values = server_values(before, after, units=units, unit="step")
    values["server_busy"] = Value((after.cpu_us - before.cpu_us) / 1e6 / span, "processors")
    if worker_us is not None:
        values["worker_cpu"] = Value(worker_us / units, "µs/step")
        values["worker_busy"] = Value(worker_us / 1e6 / span, "processors")
    return values


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _span(first_ms: int, last_ms: int) -> float:
    """Return the seconds between two times of the server, which counts in milliseconds."""
    return max(last_ms - first_ms, 1) / 1_000
