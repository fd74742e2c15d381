"""state: the state service beside the Node package it re-implements, in the same run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from benchmarks import lifecycles, memory, reads, roundtrips
from benchmarks.figures import Measured
from benchmarks.registry import Benchmark, Ratio, Scenario


def _scenarios(quick: bool) -> list[Scenario]:  # noqa: FBT001 - the one choice there is
    return [
        *_lifecycles(in_flight=20 if quick else 200, quick=quick),
        *_memory(runs=30 if quick else 2_000),
        *_reads(
            crowd=200 if quick else 50_000,
            askel={"blocks": 3 if quick else 24, "times": 3 if quick else 25},
            node={"times": 5 if quick else 200},
        ),
        _scenario(
            "round-trips",
            "each call once, on a run of many steps where it reads, counted on the wire",
            roundtrips.round_trips,
            most_rounds=1,
            steps=100 if quick else 1_000,
        ),
    ]


def _lifecycles(*, in_flight: int, quick: bool) -> list[Scenario]:
    warm_up = in_flight
    return [
        _scenario(
            "lifecycle-calls",
            "runs of ten steps, call by call: 42 writes each",
            partial(lifecycles.askel, lifecycle=lifecycles.by_calls),
            runs=40 if quick else 2_000,
            in_flight=in_flight,
            warm_up=warm_up,
        ),
        _scenario(
            "lifecycle-node",
            "the same by the Node package, the better of with and without auto-pipelining",
            lifecycles.node,
            runs=40 if quick else 1_000,
            in_flight=in_flight,
            warm_up=warm_up,
        ),
        _scenario(
            "lifecycle-transaction",
            "the same with one write per step: 12 writes each",
            partial(lifecycles.askel, lifecycle=lifecycles.by_transactions),
            runs=40 if quick else 3_000,
            in_flight=in_flight,
            warm_up=warm_up,
        ),
    ]


def _memory(*, runs: int) -> list[Scenario]:
    return [
        _scenario(
            f"memory-{system}{'-recommended' if recommended else ''}",
            f"a finished run by {system}, "
            + ("the recommended redis.conf" if recommended else "default settings"),
            memory.memory,
            most_rounds=1,
            system=system,
            recommended=recommended,
            runs=runs,
        )
        for system in ("askel", "node")
        for recommended in (False, True)
    ]


def _reads(*, crowd: int, askel: dict[str, int], node: dict[str, int]) -> list[Scenario]:
    return [
        _scenario(
            f"reads-{name}",
            f"reads by {name}, alone and among {crowd:,} other runs of ten steps",
            measure,
            most_rounds=1,
            crowd=crowd,
            **settings,
        )
        for name, measure, settings in (
            ("askel", reads.askel, askel),
            ("node", reads.node, node),
        )
    ]


def _scenario(
    name: str,
    what: str,
    measure: Callable[..., Awaitable[Measured]],
    *,
    most_rounds: int | None = None,
    **settings: Any,
) -> Scenario:
    return Scenario(name, what, settings, partial(measure, **settings), most_rounds)


def _ratios() -> tuple[Ratio, ...]:
    node = ("lifecycle-node", "per_second")
    ratios = [
        Ratio("lifecycles call by call, askel per Node", ("lifecycle-calls", "per_second"), node),
        Ratio(
            "lifecycles by transaction, askel per Node",
            ("lifecycle-transaction", "per_second"),
            node,
        ),
    ]
    # By the processor's time, not the clock's: what neighbours take away is not counted.
    for kind in ("calls", "transaction"):
        name = f"CPU of a lifecycle, client and server, Node per askel, {kind}"
        ratios.append(Ratio(name, ("lifecycle-node", "cpu"), (f"lifecycle-{kind}", "cpu")))
    for figure in ("used_memory", "memory_usage"):
        name = figure.replace("_", " ")
        plain, conf = ("memory-node", figure), ("memory-node-recommended", figure)
        ratios += [
            Ratio(f"{name}, askel per Node, default settings", ("memory-askel", figure), plain),
            Ratio(
                f"{name}, askel recommended per Node default",
                ("memory-askel-recommended", figure),
                plain,
            ),
            Ratio(
                f"{name}, askel per Node, both recommended",
                ("memory-askel-recommended", figure),
                conf,
            ),
        ]
    for system in ("askel", "node"):
        scenario = f"reads-{system}"
        for read in reads.READS:
            name = f"{read} in a crowd per alone, {system}"
            ratios.append(Ratio(name, (scenario, f"{read}_crowd"), (scenario, f"{read}_alone")))
    for read in reads.READS:
        name, figure = f"{read} in a crowd, Node per askel", f"{read}_crowd"
        ratios.append(Ratio(name, ("reads-node", figure), ("reads-askel", figure)))
    return tuple(ratios)


BENCHMARK = Benchmark(
    "state",
    "the state service beside the Node package: lifecycles, memory, reads in a crowd",
    _scenarios,
    _ratios(),
)
