"""Hand-made histories, and an activation that replays them: no Redis, no clock."""

import json

import pytest
from tests.helpers.stubs import CountedIds

from askel import App, Run
from askel.state import Activated, Keys, Turned
from askel.workflow import Activation

app = App("replay")


@app.step(retries=1, retry_delay="5s")
async def work(number: int) -> int:
    pytest.fail("replay executes nothing")


@app.step(retries=0)
async def once(number: int) -> int:
    pytest.fail("replay executes nothing")


@app.workflow
async def pair(run: Run) -> int:
    first = await run.do("first", work, 1)
    second = await run.do("second", work, first)
    return first + second


@app.workflow
async def forked(run: Run) -> list:
    return await run.gather(
        run.do("left", work, 1), run.do("right", once, 2), run.sleep("nap", "2s")
    )


@app.workflow
async def racing(run: Run) -> list:
    """Which branch goes on first depends on which of the two steps ends first."""
    order = []

    async def branch(name: str) -> None:
        await run.do(name, work, 0)
        order.append(name)
        await run.do("same name", work, len(order))

    await run.gather(branch("left"), branch("right"))
    return order


@app.workflow
async def sent(run: Run) -> str:
    return await run.do(
        "far",
        "packOrder",
        {"id": 1},
        queue="warehouse",
        retries=2,
        retry_delay="3s",
        timeout="1min",
    )


@app.workflow
async def wide(run: Run, width: int) -> int:
    return len(await run.gather(*(run.do("n", work, number) for number in range(width))))


def entry(kind="step", status="running", name="first", attempt=1, **more):
    """A history entry as JSON text; underscores end the names that Python reserves."""
    members = {"at": 1_000, "t": kind, "status": status, **more}
    if kind in {"step", "timer"}:
        members |= {"name": name, "attempt": attempt}
    return json.dumps(members).encode()


STARTED = entry("run", workflow="w")


def begun(name="first", attempt=1, seen=1, **more):
    rpc = {"rpc": "work"} if attempt == 1 and "rpc" not in more else {}
    return entry(name=name, attempt=attempt, seen=seen, **rpc, **more)


def done(name="first", result=5, attempt=1, seen=2, **more):
    return entry(
        status="succeeded",
        name=name,
        attempt=attempt,
        result=result,
        id="x",
        rpc="work",
        seen=seen,
        **more,
    )


def failed(name="first", attempt=1, seen=2, **more):
    error = {"message": "no", "name": "ValueError"}
    return entry(
        status="failed",
        name=name,
        attempt=attempt,
        error=error,
        id="x",
        rpc="work",
        seen=seen,
        **more,
    )


def activation(workflow, *history, input=b"null", status="running", turn=0, inline=False):
    """Replay a history."""
    loaded = Activated(turn, workflow, status, input, [STARTED, *history])
    return Activation(
        app, Keys("p"), CountedIds(), run_id="r", owner="own", loaded=loaded, inline=inline
    )


def landed(active, turn, *, tail=(), at=1_000):
    """Answer a turn with OK; return the attempts to execute."""
    length = turn.seen + len(turn.results) + len(turn.decisions) + len(tail)
    return active.landed(Turned("OK", turn.number + 1, length, at, list(tail)))


def names(decisions):
    return [(d.name, d.becomes, d.attempt) for d in decisions]
