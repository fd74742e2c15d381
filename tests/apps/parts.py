"""Steps and workflows of which the tests of the daemon put their runs together."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import anyio

from askel import App, Run, StepContext, StepFailedError

app = App("parts")


@app.step(retries=3, retry_delay="10ms")
async def echo(data: Any) -> Any:
    """Return what it is given."""
    return data


@app.step(retries=3, retry_delay="10ms")
def echo_sync(data: Any) -> Any:
    """Return what it is given, from a thread."""
    return data


@app.step(retries=3, retry_delay="10ms")
async def flaky(fails: int, ctx: StepContext) -> str:
    """Fail as often as it is told to."""
    if ctx.attempt <= fails:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return "ok"


@app.step(retries=2, retry_delay="0ms")
async def flaky_at_once(fails: int, ctx: StepContext) -> str:
    """Fail as often as it is told to; tried again without a pause."""
    return await flaky(fails, ctx)


@app.step(retries=1, retry_delay="10ms")
async def broken(data: Any) -> None:
    """Fail, always."""
    raise ValueError(f"it was {data}")


@app.step(retries=0)
async def unspeakable(data: Any) -> Any:
    """Return what JSON cannot carry."""
    return {"a": object()}


@app.step(retries=3, retry_delay="10ms")
async def wait_for_file(path: str) -> str:
    """End when a test says so, by making a file; leave a mark that it has begun."""
    Path(f"{path}.begun").touch()
    while not Path(path).exists():  # noqa: ASYNC110 - the test that makes it is another process
        await anyio.sleep(0.005)
    return "opened"


@app.step(retries=3, retry_delay="10ms")
async def block(seconds: float) -> str:
    """Block the event loop, as careless code does."""
    time.sleep(seconds)
    return "blocked"


@app.step(retries=0, name="die")
async def die(data: Any) -> None:
    """Take the process down, whoever runs it."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.step(retries=9, retry_delay="0ms")
async def die_again(data: Any) -> None:
    """Take the process down, in every attempt."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.workflow
async def one_step(run: Run, data: Any) -> Any:
    """Do one step."""
    return await run.do("only", echo, data)


@app.workflow
async def journey(run: Run, data: Any) -> list[Any]:
    """Do everything once: a step, a retry, a fan-out, a sleep, a step of a queue, a last step."""
    first = await run.do("first", echo, 1)
    tried = await run.do("tried", flaky, 1)
    a, b, c = await run.gather(
        run.do("a", echo, "a"),
        run.do("b", flaky_at_once, 1),
        run.do("c", echo_sync, "c"),
    )
    await run.sleep("rest", "20ms")
    packed = await run.do("packed", "flaky", 1, queue="warehouse", retries=2, retry_delay="10ms")
    last = await run.do("last", echo, data)
    return [first, tried, a, b, c, packed, last]


JOURNEY = [1, "ok", "a", "ok", "c", "ok"]
"""What `journey` returns before its input."""


@app.workflow
async def waits(run: Run, path: str) -> str:
    """Wait in a step until a file is there, then do another."""
    said = await run.do("gate", wait_for_file, path)
    return await run.do("after", echo, said)


@app.workflow
async def queued(run: Run, data: Any) -> Any:
    """Leave the work to a queue."""
    return await run.do("far", "echo", data, queue="warehouse")


@app.workflow
async def foreign(run: Run, data: Any) -> Any:
    """Leave the work to a worker in another language."""
    return await run.do("pack", "packOrder", data, queue="rust", retries=0)


@app.workflow
async def rests(run: Run, duration: str) -> str:
    """Sleep between two steps."""
    await run.do("before", echo, 1)
    await run.sleep("rest", duration)
    return await run.do("after", echo, "rested")


@app.workflow
async def does(run: Run, step: str) -> Any:
    """Do the one step that it is told, here."""
    return await run.do("it", step, 9)


@app.workflow
async def gives_up(run: Run, data: Any) -> str:
    """Go on when a step has failed for good."""
    try:
        await run.do("it", broken, data)
    except StepFailedError as error:
        return await run.do("amends", echo, str(error))
    return "no failure"


nothing = App("nothing")
"""An app that lacks everything."""


@app.step(retries=3, retry_delay="1ms")
async def key_of_second_attempt(ctx: StepContext) -> list[Any]:
    """Fail once, then return the idempotency key and the attempt."""
    if ctx.attempt == 1:
        raise ConnectionError("once")
    return [ctx.idempotency_key, ctx.attempt]


@app.workflow
async def foreign_twice(run: Run, data: Any) -> Any:
    """Leave the work to a worker in another language, and wait for another that never comes."""
    await run.do("pack", "packOrder", data, queue="rust", retries=0)
    return await run.do("ship", "shipOrder", data, queue="nobody")


@app.step(retries=0)
def thread_at_gate(data: Any, ctx: StepContext) -> str:
    """Wait in a thread for a file of the run's name; leave another when it is over."""
    folder = Path(os.environ["ASKEL_TEST_GATES"])
    while not (folder / ctx.run_id).exists():
        time.sleep(0.005)
    (folder / f"{ctx.run_id}.done").touch()
    return "late"


@app.step(retries=3, retry_delay="10ms")
async def fail_at_gate(path: str, ctx: StepContext) -> str:
    """Wait for a file, fail once, then succeed."""
    await wait_for_file(path)
    if ctx.attempt == 1:
        raise ConnectionError("once")
    return "passed"


@app.workflow
async def fails_at_gate(run: Run, path: str) -> str:
    """Do a step that fails once when a file is there."""
    return await run.do("gate", fail_at_gate, path)


class Worse(BaseException):
    """What `except Exception` does not catch."""


@app.step(retries=0)
async def exits(data: Any) -> None:
    """Call what ends a program."""
    raise SystemExit(3)


@app.step(retries=0)
async def cancels_itself(data: Any) -> None:
    """Raise what looks like a cancellation from outside."""
    raise asyncio.CancelledError


@app.step(retries=0)
def not_an_exception(data: Any) -> None:
    """Raise a BaseException, in a thread."""
    raise Worse("worse")


@app.step(retries=0)
def stops_iterating(data: Any) -> None:
    """Raise what no coroutine may."""
    raise StopIteration("over")


@app.step(retries=0, timeout="10ms")
async def too_slow(data: Any) -> None:
    """Never end."""
    await anyio.sleep_forever()


@app.step(retries=3)
async def wants_text(data: str) -> str:
    """Take only text."""
    return data


@app.workflow
async def raises(run: Run) -> None:
    """Fail of its own."""
    raise LookupError("nothing there")


@app.workflow
async def returns_an_object(run: Run) -> Any:
    """Return what JSON cannot carry."""
    return object()


@app.workflow
async def awaits_the_world(run: Run) -> None:
    """Await what only a step may."""
    await asyncio.sleep(0)


@app.workflow
async def sends_poison(run: Run) -> str:
    """Send to a queue what kills whoever takes it, and live with that."""
    try:
        await run.do("poison", "die_again", queue="warehouse", retries=9, retry_delay="0ms")
    except StepFailedError as error:
        return str(error)
    return "it lived"


@app.workflow
async def dies_here(run: Run, retries: int) -> None:
    """Take down the process that drives the run."""
    await run.do("it", die, retries=retries, retry_delay="0ms")


@app.workflow
async def kills(run: Run) -> None:
    """Take the process down before any step."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.workflow
async def many_gates(run: Run, paths: list[str]) -> None:
    """Wait for one file after another."""
    for path in paths:
        await run.do("gate", wait_for_file, path, retries=20)


@app.workflow
async def waits_in(run: Run, where: tuple[str, str]) -> str:
    """Wait for a file in a step of a queue, or here."""
    queue, path = where
    return await run.do("gate", "wait_for_file", path, queue=queue or None)


@app.workflow
async def blocks_in(run: Run, where: tuple[str, float]) -> str:
    """Block the loop in a step of a queue, or here."""
    queue, seconds = where
    return await run.do("it", "block", seconds, queue=queue or None)
