"""hot-path: step commands and workflows of ten steps beside what they are made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from benchmarks import floors, loads
from benchmarks.figures import Measured
from benchmarks.registry import Benchmark, Ratio, Scenario

_IN_FLIGHT = (1, 50, 200)


def _scenarios(quick: bool) -> list[Scenario]:  # noqa: FBT001 - the one choice there is
    return [*_floors(quick=quick), *_loads(quick=quick)]


def _floors(*, quick: bool) -> list[Scenario]:
    return [
        _scenario(
            "floor-ping",
            "PING through the multiplexed connection, awaited by each of many tasks",
            floors.ping,
            tasks=100,
            pings=2_000 if quick else 100_000,
            alone=100 if quick else 2_000,
        ),
        _scenario(
            "floor-commit",
            "the turn of an in-process step, packed beforehand, awaited by a task for each run",
            floors.commit,
            runs=50 if quick else 200,
            turns=5 if quick else 100,
            alone=50 if quick else 1_000,
        ),
        _scenario(
            "floor-step-command",
            "begin and complete of a step command, packed beforehand, awaited by each task",
            floors.step_command,
            runs=10 if quick else 100,
            steps=10 if quick else 100,
            tasks=50 if quick else 500,
        ),
    ]


def _loads(*, quick: bool) -> list[Scenario]:
    scenarios = [
        _scenario(
            "step-execute",
            "step.execute commands with a handler that does nothing, one worker",
            loads.step_commands,
            runs=10 if quick else 100,
            steps=20 if quick else 50,
        )
    ]
    scenarios += [
        _scenario(
            f"workflow-{in_flight}",
            f"workflows of ten in-process steps, {in_flight} in flight, one worker",
            loads.workflows,
            workflow="ten_steps",
            runs=_runs(in_flight, quick=quick),
            in_flight=in_flight,
        )
        for in_flight in _IN_FLIGHT
    ]
    scenarios.append(
        _scenario(
            "queued-workflow-50",
            "workflows of ten steps through a queue, 50 in flight, one worker",
            loads.workflows,
            workflow="ten_queued",
            runs=_runs(50, quick=quick) // 2,
            in_flight=50,
            queued=True,
        )
    )
    return scenarios


def _runs(in_flight: int, *, quick: bool) -> int:
    if quick:
        return 10 if in_flight == 1 else in_flight
    return {1: 200, 50: 1_000}.get(in_flight, 2_000)


def _scenario(
    name: str, what: str, measure: Callable[..., Awaitable[Measured]], **settings: Any
) -> Scenario:
    return Scenario(name, what, settings, partial(measure, **settings))


def _ratios() -> tuple[Ratio, ...]:
    ratios = [
        Ratio("commits per ping", ("floor-commit", "per_second"), ("floor-ping", "per_second"))
    ]
    loads_and_floors = [("step-execute", "floor-step-command")]
    loads_and_floors += [(f"workflow-{count}", "floor-commit") for count in _IN_FLIGHT]
    loads_and_floors.append(("queued-workflow-50", "floor-step-command"))
    for load, floor in loads_and_floors:
        for below in dict.fromkeys((floor, "floor-commit", "floor-ping")):
            name = f"{load} steps per {below.removeprefix('floor-')}"
            ratios.append(Ratio(name, (load, "steps_per_second"), (below, "per_second")))
    # By the processor's time, not the clock's: what neighbours take away is not counted.
    for load, floor in loads_and_floors:
        name = f"{load} worker CPU per {floor.removeprefix('floor-')} client CPU"
        ratios.append(Ratio(name, (load, "worker_cpu"), (floor, "client_cpu")))
    for below in ("floor-commit", "floor-ping"):
        name = f"one workflow alone in {below.removeprefix('floor-')}s alone"
        ratios.append(Ratio(name, ("workflow-1", "p50"), (below, "alone_p50")))
    return tuple(ratios)


BENCHMARK = Benchmark(
    "hot-path",
    "step commands and workflows of ten steps, beside PING and bare commits in the same run",
    _scenarios,
    _ratios(),
)
