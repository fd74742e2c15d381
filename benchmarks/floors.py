"""The floors: what the connection and the scripts can do when nothing stands around them.

Calls are packed beforehand by the product's own callers, so the bytes are the very same; measured
is only their sending, by as many tasks as a worker would have, each awaiting every reply.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

from askel import RedisWorkflowService
from askel.state import (
    Activated,
    Activations,
    Attempts,
    Entry,
    Scripts,
    StepDecision,
    StepResult,
    SystemIds,
    Turn,
    load_scripts,
    started_body,
    step_body,
)
from askel.wire import RunStart, encode_command
from benchmarks.arena import Arena
from benchmarks.figures import BenchmarkError, Measured, Value, percentile
from benchmarks.server_stats import command_values, read_stats, server_values

Call = tuple[str | bytes | int, ...]

# As long as those that a worker makes: keys and nonces are copied in every call.
_CONSUMER = "some-host.example-12345-0123abcd"
_SUFFIX = "abcdefgh"
_DONE = b"null"


class _Packer(Scripts):
    """Takes down the calls of the product's callers instead of sending them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._known = load_scripts()

    async def insist(
        self,
        name: str,
        keys: Sequence[str],
        args: Sequence[str | bytes | int],
        *,
        patience_s: float | None,  # noqa: ARG002 - the signature of the product
    ) -> tuple[list[Any], bool]:
        self.calls.append(("EVALSHA", self._known[name].sha, len(keys), *keys, *args))
        # An answer that each caller takes: a refusal which all their scripts have.
        return [b"BUSY", 0], False


async def ping(arena: Arena, *, tasks: int, pings: int, alone: int) -> Measured:
    """PING through the multiplexed connection, each awaited."""
    calls: list[list[Call]] = [[("PING",)] * (pings // tasks)] * tasks
    before = await read_stats(arena.control)
    seconds, cpu_us, _ = await _drive(arena, calls, b"PONG")
    after = await read_stats(arena.control)
    count = tasks * (pings // tasks)
    values = {
        "per_second": Value(count / seconds, "calls/s"),
        "client_cpu": Value(cpu_us / count, "µs/call"),
        "server_cpu": Value((after.cpu_us - before.cpu_us) / count, "µs/call"),
    }
    _, _, waits = await _drive(arena, [[("PING",)] * alone], b"PONG")
    values["alone_p50"] = Value(statistics.median(waits) * 1e3, "ms")
    return Measured(values, {"calls": count})


async def commit(arena: Arena, *, runs: int, turns: int, alone: int) -> Measured:
    """The turn of an in-process step: completes one, begins the next, in one script."""
    calls = await _prepare_turns(arena, [turns] * runs + [alone])
    return await _measure(arena, calls[:runs], calls[runs], units=runs * turns, unit="turn")


async def step_command(arena: Arena, *, runs: int, steps: int, tasks: int) -> Measured:
    """The two scripts of a ``step.execute``: an attempt begins, and is completed."""
    service = RedisWorkflowService(arena.url, key_prefix=arena.keys.prefix)
    async with service:
        run_ids = await asyncio.gather(*(service.create_run("bench") for _ in range(runs)))
    await arena.create_group()
    await arena.fill(list(run_ids), steps)
    entries = await arena.read(_CONSUMER, runs * steps)
    calls = [await _pack_step(arena, entry) for entry in entries]
    shares = [list(chain.from_iterable(calls[task::tasks])) for task in range(tasks)]
    return await _measure(arena, shares, None, units=runs * steps, unit="step")


async def _measure(
    arena: Arena,
    calls: Sequence[Sequence[Call]],
    alone: Sequence[Call] | None,
    *,
    units: int,
    unit: str,
) -> Measured:
    before = await read_stats(arena.control)
    seconds, cpu_us, _ = await _drive(arena, calls, b"OK")
    after = await read_stats(arena.control)
    values = {
        "per_second": Value(units / seconds, f"{unit}s/s"),
        "client_cpu": Value(cpu_us / units, f"µs/{unit}"),
        **server_values(before, after, units=units, unit=unit),
    }
    if alone is not None:
        _, _, waits = await _drive(arena, [alone], b"OK")
        values["alone_p50"] = Value(statistics.median(waits) * 1e3, "ms")
        values["alone_p99"] = Value(percentile(waits, 0.99) * 1e3, "ms")
    return Measured(values, {"units": units}, command_values(before, after, units=units))


async def _drive(
    arena: Arena, calls: Sequence[Sequence[Call]], wanted: bytes
) -> tuple[float, float, list[float]]:
    """Send each task's calls one after the other; return seconds, our CPU in µs, and each wait."""
    send = arena.control.send
    waits: list[float] = []
    clock = time.perf_counter

    async def one(mine: Sequence[Call]) -> None:
        for call in mine:
            sent_at = clock()
            answer = await send(*call)
            waits.append(clock() - sent_at)
            word = answer[0] if isinstance(answer, list) else answer
            if word != wanted:
                raise BenchmarkError(f"{call[0]!r} was answered {word!r}")

    cpu, began = time.process_time(), clock()
    await asyncio.gather(*(one(mine) for mine in calls))
    return clock() - began, (time.process_time() - cpu) * 1e6, waits


async def _prepare_turns(arena: Arena, turns: Sequence[int]) -> list[list[Call]]:
    """Start a run for each of *turns* and begin its first step; return the packed turns."""
    control, keys = arena.control, arena.keys
    await arena.create_group()
    command = encode_command(RunStart(workflow="bench", input=arena.payload.decode()))
    for _ in turns:
        await control.send("XADD", keys.commands_default, "*", *command)
    ids = SystemIds()
    activations = Activations(Scripts(control), keys, consumer=_CONSUMER)
    prepared = []
    for number, entry in enumerate(await arena.read(_CONSUMER, len(turns))):
        run_id, owner = ids.run_id(), f"{_CONSUMER}/{number}"
        body = started_body("bench")
        loaded = await activations.start(entry, owner, run_id, "bench", arena.payload, body)
        if not isinstance(loaded, Activated):
            raise BenchmarkError(f"a run could not be started: {loaded.word}")
        packer = _Packer()
        packing = Activations(packer, keys, consumer=_CONSUMER)
        for turn in range(turns[number] + 1):
            await packing.turn(_turn(run_id, owner, turn, arena.payload), entry)
        answer = await control.send(*packer.calls[0])
        if answer[0] != b"OK":
            raise BenchmarkError(f"the first turn of a run was answered {answer[0]!r}")
        prepared.append(packer.calls[1:])
    return prepared


def _turn(run_id: str, owner: str, number: int, payload: bytes) -> Turn:
    """Return the turn that completes step *number* - 1 and begins step *number*."""
    seen = max(2 * number, 1)
    results = []
    if number:
        results.append(
            StepResult(
                f"step {number - 1}",
                "running",
                1,
                f"{_SUFFIX}{number - 1}",
                "succeeded",
                _DONE,
                seen,
            )
        )
    name = f"step {number}"
    step_id = f"{run_id}:{name}:{_SUFFIX}"
    fields: tuple[str | bytes | int, ...] = ("stepId", step_id, "data", payload, "rpcName", "noop")
    if number:
        fields += ("fromStepName", f"step {number - 1}")
    fields += ("retries", 5, "retryDelay", "exponential")
    body = f'{step_body(name, "running", 1, "noop")},"seen":{seen}'
    decision = StepDecision(name, "", "", "running", 1, f"{_SUFFIX}{number}", body, fields)
    return Turn(run_id, owner, number, seen, f"{_SUFFIX}{number}.{number}", results, [decision])


async def _pack_step(arena: Arena, entry: Entry) -> list[Call]:
    """Return the calls that begin and complete the attempt of a ``step.execute`` entry."""
    words = [field.decode() for field in entry.fields]
    command = dict(zip(words[::2], words[1::2], strict=True))
    run_id, name, nonce = command["run_id"], command["step_name"], _SUFFIX
    packer = _Packer()
    attempts = Attempts(packer, arena.keys, consumer=_CONSUMER)
    await attempts.begin(
        entry,
        run_id,
        name,
        nonce=nonce,
        step_id=f"{run_id}:{name}:{_SUFFIX}",
        rpc_name="noop",
        data=arena.payload,
        retries=5,
        retry_delay="exponential",
    )
    await attempts.complete(
        entry,
        run_id,
        name,
        nonce=nonce,
        attempt=1,
        becomes="succeeded",
        json=_DONE,
        final=True,
        timer=json.dumps([""]).encode(),
    )
    return packer.calls
