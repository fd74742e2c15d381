"""Figures: what one round measured, and what several rounds say together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import msgspec


class BenchmarkError(Exception):
    """The measurement is worth nothing; the message says why."""


class SkippedError(Exception):
    """This cannot be measured here, the rest can; the message says what is missing."""


class Value(msgspec.Struct, frozen=True):
    """One number of one round."""

    number: float
    unit: str


class CommandCost(msgspec.Struct, frozen=True):
    """What the server did for one unit of work, by command; calls inside scripts count."""

    calls: float
    us: float


class Measured(msgspec.Struct):
    """What one scenario measured in one round.

    ``counts`` are plain facts that must be consistent: how much was done, how much went wrong.
    """

    values: dict[str, Value]
    counts: dict[str, int]
    commands: dict[str, CommandCost] = {}


class Figure(msgspec.Struct, frozen=True):
    """One number over all rounds; ``rounds`` are in the order in which they were measured."""

    unit: str
    median: float
    min: float
    max: float
    rounds: list[float]


def figure(unit: str, numbers: Sequence[float]) -> Figure:
    """Return what *numbers*, one a round, say together."""
    kept = [shortened(number) for number in numbers]
    return Figure(unit, shortened(statistics.median(kept)), min(kept), max(kept), kept)


def figures(rounds: Sequence[Mapping[str, Value]]) -> dict[str, Figure]:
    """Return the figures of all *rounds*, which measured the same."""
    return {
        name: figure(value.unit, [values[name].number for values in rounds])
        for name, value in rounds[0].items()
    }


def command_costs(rounds: Sequence[Mapping[str, CommandCost]]) -> dict[str, CommandCost]:
    """Return the medians by command, the dearest first; what a round lacks counts as nothing."""
    none = CommandCost(0, 0)
    names = {name for costs in rounds for name in costs}
    medians = {
        name: CommandCost(
            shortened(statistics.median(costs.get(name, none).calls for costs in rounds)),
            shortened(statistics.median(costs.get(name, none).us for costs in rounds)),
        )
        for name in names
    }
    return dict(sorted(medians.items(), key=lambda item: -item[1].us))


def percentile(numbers: Sequence[float], share: float) -> float:
    """Return the smallest of *numbers* that at least *share* of them do not exceed."""
    ordered = sorted(numbers)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def shortened(number: float) -> float:
    """Return *number* to four significant digits: more would be noise."""
    return float(f"{number:.4g}")
