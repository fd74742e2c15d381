"""The benchmarks by name: every module in ``suites`` that has a ``BENCHMARK`` is one."""

from __future__ import annotations

import pkgutil
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

import msgspec

from benchmarks import suites
from benchmarks.arena import Arena
from benchmarks.figures import Measured


class Scenario(msgspec.Struct, frozen=True):
    """One thing to measure. ``settings`` are what its figures depend on.

    What neighbours cannot disturb (bytes, counts), or what takes long, has fewer ``most_rounds``.
    """

    name: str
    what: str
    settings: dict[str, Any]
    measure: Callable[[Arena], Awaitable[Measured]]
    most_rounds: int | None = None


class Ratio(msgspec.Struct, frozen=True):
    """Two figures of the same round and of like units, each (scenario, figure), as a quotient."""

    name: str
    above: tuple[str, str]
    below: tuple[str, str]


class Benchmark(msgspec.Struct, frozen=True):
    """Scenarios that are measured in the same rounds, so that their ratios mean something.

    ``scenarios`` is told whether to be quick: small enough for a test, too small to compare.
    """

    name: str
    line: str
    scenarios: Callable[[bool], list[Scenario]]
    ratios: tuple[Ratio, ...] = ()


def find_benchmarks() -> dict[str, Benchmark]:
    """Return every benchmark by name."""
    found = {}
    for module in pkgutil.iter_modules(suites.__path__):
        benchmark = getattr(import_module(f"{suites.__name__}.{module.name}"), "BENCHMARK", None)
        if benchmark is not None:
            found[benchmark.name] = benchmark
    return found
