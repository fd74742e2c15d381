"""The rounds: every scenario once, then all again, so that a slow minute hits all of them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from benchmarks.arena import arena
from benchmarks.figures import (
    BenchmarkError,
    CommandCost,
    Figure,
    Measured,
    command_costs,
    figure,
    figures,
)
from benchmarks.registry import Benchmark, Ratio, Scenario

Tell = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True):
    """How to measure."""

    url: str
    payload: bytes
    rounds: int
    quick: bool


class ScenarioReport(msgspec.Struct):
    """One scenario over all rounds. ``counts`` are those of the last round."""

    what: str
    settings: dict[str, Any]
    counts: dict[str, int]
    figures: dict[str, Figure]
    commands: dict[str, CommandCost]


class BenchmarkReport(msgspec.Struct):
    """One benchmark. ``ratios`` are quotients within each round, which noise spares most."""

    line: str
    scenarios: dict[str, ScenarioReport]
    ratios: dict[str, Figure]


async def measure(benchmark: Benchmark, plan: Plan, tell: Tell) -> BenchmarkReport:
    """Measure every scenario of *benchmark* in each of the rounds.

    Raises:
        BenchmarkError: A scenario lost or repeated work, or could not be run.
    """
    scenarios = benchmark.scenarios(plan.quick)
    rounds: list[dict[str, Measured]] = []
    for number in range(plan.rounds):
        measured: dict[str, Measured] = {}
        for scenario in scenarios:
            tell(f"{benchmark.name}, round {number + 1} of {plan.rounds}: {scenario.name}")
            measured[scenario.name] = await _once(scenario, plan)
        rounds.append(measured)
    reports = {
        scenario.name: _report(scenario, [measured[scenario.name] for measured in rounds])
        for scenario in scenarios
    }
    ratios = {
        ratio.name: _quotient(ratio, rounds)
        for ratio in benchmark.ratios
        if all(_has(measured, place) for measured in rounds for place in (ratio.above, ratio.below))
    }
    return BenchmarkReport(benchmark.line, reports, ratios)


async def _once(scenario: Scenario, plan: Plan) -> Measured:
    async with arena(plan.url, plan.payload) as place:
        gc.collect()  # what earlier scenarios left is not to be cleared away while measuring
        try:
            return await scenario.measure(place)
        except BenchmarkError as error:
            raise BenchmarkError(f"{scenario.name}: {error}") from error


def _report(scenario: Scenario, rounds: Sequence[Measured]) -> ScenarioReport:
    return ScenarioReport(
        scenario.what,
        scenario.settings,
        rounds[-1].counts,
        figures([measured.values for measured in rounds]),
        command_costs([measured.commands for measured in rounds]),
    )


def _has(measured: dict[str, Measured], place: tuple[str, str]) -> bool:
    """Tell whether a figure was measured: not every system says how much CPU a process used."""
    scenario, name = place
    return name in measured[scenario].values


def _quotient(ratio: Ratio, rounds: Sequence[dict[str, Measured]]) -> Figure:
    def number(measured: dict[str, Measured], place: tuple[str, str]) -> float:
        scenario, name = place
        return measured[scenario].values[name].number

    quotients = [number(one, ratio.above) / number(one, ratio.below) for one in rounds]
    return figure("×", quotients)
