"""The 26 kinds of handlers that harm a worker which is not on its guard, as steps.

Each kind is a step of its name; where a thread makes a difference, `NAME_sync` is the same as a
plain function. `tries` does one of them, here or by a queue, and says what became of it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from askel import App, Run, StepFailedError

app = App("poison")

#: Set when what was left behind may end; tests that do so run the worker in their own process.
released = threading.Event()
MEGABYTE = 1024 * 1024


class Worse(BaseException):
    """What `except Exception` does not catch."""


class MuteError(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def kind(function: Callable[[], Any]) -> Callable[[], Any]:
    """Register *function* as two steps: a coroutine, and a plain function for a thread."""

    async def in_loop() -> Any:
        return function()

    def in_thread() -> Any:
        return function()

    name = function.__name__
    app.step(name=name, retries=0)(in_loop)
    app.step(name=f"{name}_sync", retries=0)(in_thread)
    return function


@kind
def sys_exit() -> None:
    raise SystemExit(0)


@kind
def keyboard_interrupt() -> None:
    raise KeyboardInterrupt


@kind
def generator_exit() -> None:
    raise GeneratorExit


@kind
def base_exception() -> None:
    raise Worse("worse")


@kind
def cancelled_error() -> None:
    raise asyncio.CancelledError


@app.step(retries=0)
async def cancels_its_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@kind
def stop_iteration() -> None:
    raise StopIteration("over")


@kind
def infinite_loop() -> None:
    while not released.is_set():  # a process of its own is not released
        pass


@kind
def long_sleep() -> None:
    while not released.is_set():
        time.sleep(0.05)


@kind
def catastrophic_regex() -> None:
    re.match(r"(a+)+$", "a" * 64 + "b")


@kind
def endless_arithmetic() -> int:
    return int(pow(7, 10**9) % 10)


@app.step(retries=0, timeout="100ms")
async def swallows_cancellation() -> None:
    while not released.is_set():
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            continue


@app.step(retries=0, timeout="100ms")
async def swallows_once() -> None:
    try:
        await asyncio.sleep(3_600)
    except BaseException:  # noqa: BLE001 - that is the point
        await asyncio.sleep(3_600)


@app.step(retries=0, timeout="100ms")
def swallows_cancellation_sync() -> None:
    released.wait()


@app.step(retries=0, timeout="100ms")
async def long_shield() -> None:
    with anyio.CancelScope(shield=True):
        while not released.is_set():  # noqa: ASYNC110 - it must not be woken
            await anyio.sleep(0.05)


@kind
def segfault() -> None:
    ctypes.string_at(0)


@kind
def abort() -> None:
    os.abort()


@kind
def exits_at_once() -> None:
    os._exit(7)


@kind
def terminates_itself() -> str:
    os.kill(os.getpid(), signal.SIGTERM)
    return "terminated"


@kind
def closes_everything() -> None:
    os.closerange(3, 4096)


@kind
def memory_hog() -> int:
    """Take more than there is, where the limit for the process lies close above what it has."""
    pages = Path("/proc/self/statm").read_text("ascii").split()[0]
    taken = int(pages) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + 64 * MEGABYTE, before[1]))
    try:
        return len(bytearray(512 * MEGABYTE))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@kind
def mute_error() -> None:
    raise MuteError


@kind
def long_message() -> None:
    raise ValueError("x" * 10 * MEGABYTE)


@kind
def exception_group() -> None:
    raise BaseExceptionGroup("several", [ValueError("a"), Worse("b")])


@kind
def returns_object() -> Any:
    return {"a": object()}


@kind
def returns_lambda() -> Any:
    return lambda: 1


@kind
def returns_generator() -> Any:
    return (number for number in range(3))


@kind
def returns_tuple_keys() -> Any:
    return {(1, 2): 3}


@kind
def returns_cycle() -> Any:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


@kind
def returns_nan() -> float:
    return float("nan")


@kind
def returns_infinity() -> list[float]:
    return [1.0, float("-inf")]


@app.step(retries=0)
async def detached_task() -> str:
    async def lasts() -> None:
        while not released.is_set():  # noqa: ASYNC110 - it must not be woken
            await asyncio.sleep(0.05)

    _left.append(asyncio.create_task(lasts(), name="detached task"))
    return "left"


_left: list[asyncio.Task[None]] = []


@kind
def detached_thread() -> str:
    threading.Thread(target=released.wait, name="detached thread").start()
    return "left"


@app.step
async def harmless(data: Any) -> Any:
    return data


@app.workflow
async def tries(run: Run, what: tuple[str, str]) -> list[Any]:
    """Do the step *what* names, by the queue that it names (none: here); say how it ended."""
    name, queue = what
    return await _ended(run, name, queue, retries=0)


@app.workflow
async def tries_often(run: Run, what: tuple[str, str]) -> list[Any]:
    """Do the same, as often as it may."""
    name, queue = what
    return await _ended(run, name, queue, retries=9)


async def _ended(run: Run, name: str, queue: str, retries: int) -> list[Any]:
    options: dict[str, Any] = {"queue": queue or None, "retries": retries, "retry_delay": "0ms"}
    try:
        return ["done", await run.do("it", name, **options)]
    except StepFailedError as error:
        return ["failed", error.error.name]


@app.workflow
async def endures(run: Run, name: str) -> Any:
    """Do the step *name* without a limit of time."""
    return await run.do("it", name, timeout="1h")


@app.workflow
async def neighbour(run: Run, data: Any) -> Any:
    return await run.do("only", harmless, data)


@app.workflow
async def computes(run: Run, data: Any) -> None:
    """Do in workflow code what only a step should, and for too long."""
    await run.do("only", harmless, data)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        pass
