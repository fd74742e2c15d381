"""Round trips: how often each write and each read waits for Redis, counted on the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from askel import RedisWorkflowService
from benchmarks.arena import Arena
from benchmarks.figures import Measured, SkippedError, Value
from benchmarks.relay import Relay, relay
from benchmarks.servers import private_server

# As many changes as one transaction is given here: two for each step.
_BATCH = 50


async def round_trips(arena: Arena, *, steps: int) -> Measured:
    """Make each call once, on a run of *steps* steps where it reads, and count its round trips."""
    if arena.binary is None:
        raise SkippedError("round trips are counted on a server that is started for it: no --redis")
    with private_server(arena.binary) as url:
        port = urlsplit(url).port
        assert port is not None
        async with relay(port) as (counter, through), RedisWorkflowService(through) as service:
            run_id = await _prepare(service, steps)
            values = {}
            for name, call in _calls(service, run_id).items():
                values[name] = Value(await _counted(counter, call), "round trips")
    return Measured(values, {"steps": steps})


async def _counted(counter: Relay, call: Callable[[], Awaitable[object]]) -> int:
    before = counter.round_trips
    await call()
    return counter.round_trips - before


async def _prepare(service: RedisWorkflowService, steps: int) -> str:
    """Make a run of *steps* steps, and have the server learn every script."""
    run_id = await service.create_run("bench")
    for first in range(1, steps, _BATCH):  # one less: a call that is counted inserts the last
        async with service.transaction(run_id) as tx:
            for number in range(first, min(first + _BATCH, steps)):
                step = tx.insert_step_state(f"step {number}", "noop", {"n": number})
                _ = tx.set_step_result(step.step_id, number)
    other = await service.create_run("bench")
    for call in _calls(service, other).values():
        await call()
    return run_id


def _calls(
    service: RedisWorkflowService, run_id: str
) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return the calls by name, in the order in which they can be made."""
    step_ids: dict[str, str] = {}

    async def insert(name: str) -> None:
        step_ids[name] = (await service.insert_step_state(run_id, name, "noop", 1)).step_id

    async def ten_changes() -> None:
        async with service.transaction(run_id) as tx:
            for number in range(10):
                _ = tx.update_run_state(f"variable {number}", number)

    return {
        "create_run": lambda: service.create_run("bench"),
        "insert_step_state": lambda: insert("a"),
        "set_step_scheduled": lambda: service.set_step_scheduled(step_ids["a"]),
        "set_step_running": lambda: service.set_step_running(step_ids["a"]),
        "set_step_error": lambda: service.set_step_error(step_ids["a"], ValueError("x")),
        "create_retry_attempt": lambda: service.create_retry_attempt(step_ids["a"]),
        "set_step_result": lambda: service.set_step_result(step_ids["a"], 1),
        "transaction of ten": ten_changes,
        "get_run": lambda: service.get_run(run_id),
        "get_step_state": lambda: service.get_step_state(run_id, "a"),
        "get_run_history": lambda: service.get_run_history(run_id),
        "get_run_steps": lambda: service.get_run_steps(run_id),
        "get_run_status": lambda: service.get_run_status(run_id),
        "get_run_timeline": lambda: service.get_run_timeline(run_id),
        "get_completed_graph_state": lambda: service.get_completed_graph_state(run_id),
        "list_runs": lambda: service.list_runs(limit=50),
        "update_run_status": lambda: service.update_run_status(run_id, "completed"),
        "delete_run": lambda: service.delete_run(run_id),
    }
