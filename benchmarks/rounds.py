"""The rounds: every scenario once, then all again, so that a slow minute hits all of them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from askeld.server_binary import ServerBinary
from benchmarks.arena import arena
from benchmarks.figures import (
    BenchmarkError,
    CommandCost,
    Figure,
    Measured,
    SkippedError,
    command_costs,
    figure,
    figures,
)
from benchmarks.registry import Benchmark, Ratio, Scenario

Tell = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True):
    """How to measure. ``binary`` is what serves *url*; None where that was there before."""

    url: str
    payload: bytes
    rounds: int
    quick: bool
    binary: ServerBinary | None = None


class ScenarioReport(msgspec.Struct):
    """One scenario over all rounds. ``counts`` are those of the last round."""

    what: str
    settings: dict[str, Any]
    counts: dict[str, int]
    figures: dict[str, Figure]
    commands: dict[str, CommandCost]


class BenchmarkReport(msgspec.Struct):
    """One benchmark. ``ratios`` are quotients within each round, which noise spares most.

    ``skipped`` says of each scenario that could not be measured here what it lacked.
    """

    line: str
    scenarios: dict[str, ScenarioReport]
    ratios: dict[str, Figure]
    skipped: dict[str, str] = {}


async def measure(benchmark: Benchmark, plan: Plan, tell: Tell) -> BenchmarkReport:
    """Measure every scenario of *benchmark* in each of the rounds.

    Raises:
        BenchmarkError: A scenario lost or repeated work, or could not be run.
    """
    scenarios = benchmark.scenarios(plan.quick)
    rounds: list[dict[str, Measured]] = []
    skipped: dict[str, str] = {}
    for number in range(plan.rounds):
        measured: dict[str, Measured] = {}
        for scenario in scenarios:
            if scenario.name in skipped or number >= (scenario.most_rounds or plan.rounds):
                continue
            tell(f"{benchmark.name}, round {number + 1} of {plan.rounds}: {scenario.name}")
            try:
                measured[scenario.name] = await _once(scenario, plan)
            except SkippedError as reason:
                skipped[scenario.name] = str(reason)
                tell(f"{scenario.name} is SKIPPED: {reason}")
        rounds.append(measured)
    reports = {
        scenario.name: _report(
            scenario, [one[scenario.name] for one in rounds if scenario.name in one]
        )
        for scenario in scenarios
        if scenario.name not in skipped
    }
    return BenchmarkReport(benchmark.line, reports, _ratios(benchmark, rounds), skipped)


async def _once(scenario: Scenario, plan: Plan) -> Measured:
    async with arena(plan.url, plan.payload, plan.binary) as place:
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


def _ratios(benchmark: Benchmark, rounds: Sequence[dict[str, Measured]]) -> dict[str, Figure]:
    quotients = {ratio.name: _quotients(ratio, rounds) for ratio in benchmark.ratios}
    return {name: figure("×", numbers) for name, numbers in quotients.items() if numbers}


def _quotients(ratio: Ratio, rounds: Sequence[dict[str, Measured]]) -> list[float]:
    """Return one quotient for each round that measured both.

    Not every system says how much CPU a process used, and some scenarios have fewer rounds.
    """
    pairs = [(_number(one, ratio.above), _number(one, ratio.below)) for one in rounds]
    return [above / below for above, below in pairs if above is not None and below is not None]


def _number(measured: dict[str, Measured], place: tuple[str, str]) -> float | None:
    scenario, name = place
    if scenario not in measured or name not in measured[scenario].values:
        return None
    return measured[scenario].values[name].number
