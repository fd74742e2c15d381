"""Scenarios of listing, deletion, retention and reindexing: how each answer comes about."""

import pytest
from tests.state.scenarios import answers

from askel import LockError, RunActiveError
from askel.state.writes.deletion import delete_call


def refused(call):
    """Make the call of a method that raises what the answer means."""

    async def caught():
        with pytest.raises((RunActiveError, LockError)):
            await call()

    return caught


async def ended(w, run_id="r"):
    """A completed run with two steps and a variable."""
    for name in ("s", "t"):
        await w.step(run_id, name)
    await w.service.update_run_status(run_id, "completed", output=1)


@answers("list_runs", "OK")
async def _(w):
    for run_id in ("r1", "r2", "r3"):
        await w.run(run_id)
    return lambda: w.service.list_runs(workflow_name="w", status="running", limit=2)


def delete(w, **given):
    return lambda: w.service.delete_run("r", **given)


@answers("delete_run", "OK")
async def _(w):
    await w.started()
    await w.step(name="s")
    await w.service.update_run_state("r", "n", 1)
    await w.redis.set(f"{w.keys.prefix}:step-lock:r:s", "somebody", px=60_000)
    await w.run("another")
    return delete(w, force=True)


@answers("delete_run", "ALREADY")
async def _(w):
    await ended(w)
    await delete(w)()
    return delete(w)


@answers("delete_run", "NOTFOUND")
async def _(w):
    return delete(w)


@answers("delete_run", "ACTIVE")
async def _(w):
    await w.step()
    return refused(delete(w))


@answers("delete_run", "BUSY")
async def _(w):
    await ended(w)
    await w.hold_lock()
    return refused(delete(w))


@answers("delete_run", "LOCKLOST")
async def _(w):
    await ended(w)
    await w.hold_lock()
    return lambda: w.scripts.run(*delete_call(w.keys, "r", holder="robbed", forced=True))


def set_policy(w):
    return lambda: w.service.set_retention("w", ttl="1h")


@answers("set_retention", "OK")
async def _(w):
    return set_policy(w)


@answers("set_retention", "ALREADY")
async def _(w):
    await set_policy(w)()
    return set_policy(w)


@answers("expired", "OK")
async def _(w):
    await ended(w)
    return lambda: w.scripts.run("expired", [w.keys.runs], [0, "w", 0, 0, 0, 0, 10])


@answers("prune_timers", "OK")
async def _(w):
    await ended(w)
    await w.redis.zadd(w.keys.timers, {"m": 1})
    return lambda: w.scripts.run(
        "prune_timers", [w.keys.timers, w.keys.run("")], ["m", "r", "another"]
    )


@answers("measure_runs", "OK")
async def _(w):
    await ended(w)
    keys = [w.keys.runs, *w.keys.stems()]
    return lambda: w.scripts.run("measure_runs", keys, ["w", 100])


@answers("index_runs", "OK")
async def _(w):
    await ended(w)
    await w.redis.delete(*w.keys.run_indexes("w"))
    keys = [w.keys.runs, w.keys.run("")]
    return lambda: w.scripts.run("index_runs", keys, ["0", "r", "nobody"])


@answers("prune_index", "OK")
async def _(w):
    await ended(w)
    index = w.keys.runs_ended("w")
    await w.redis.zadd(index, {"nobody": 5})
    keys = [index, w.keys.runs, w.keys.run("")]
    return lambda: w.scripts.run("prune_index", keys, ["0", "ended", "w", "r", "nobody"])


@answers("prune_workflows", "OK")
async def _(w):
    await w.run()
    await w.redis.zadd(w.keys.workflows, {"nothing": 0})
    return lambda: w.scripts.run("prune_workflows", [w.keys.runs], ["0", "w", "nothing"])


def name_steps(w):
    keys = [w.keys.run("r"), w.keys.steps("r"), w.keys.step_stem("r")]
    return lambda: w.scripts.run("index_steps", keys, ["0", "t", "s"])


@answers("index_steps", "OK")
async def _(w):
    await ended(w)
    await w.redis.delete(w.keys.steps("r"))
    return name_steps(w)


@answers("index_steps", "NOTFOUND")
async def _(w):
    return name_steps(w)


def erase(w):
    keys = [*w.keys.run_keys("r"), *w.keys.step_keys("r"), w.keys.step("r", "stray")]
    return lambda: w.scripts.run("erase_orphan", keys, ["0"])


@answers("erase_orphan", "OK")
async def _(w):
    await ended(w)
    await w.redis.hset(w.keys.step("r", "stray"), "status", "pending")
    await w.redis.delete(w.keys.run("r"))
    return erase(w)


@answers("erase_orphan", "EXISTS")
async def _(w):
    await w.run()
    return erase(w)
