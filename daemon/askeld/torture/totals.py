"""Reports of several rounds, added up into one: what all of them together have shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from askeld.torture.report import FaultReport, Report, Round, Spread, guards

#: A kind of fault of which a round plans less than this is asked for over all rounds only.
RARE = 20
#: What must be the same in all rounds, or their sums mean nothing.
_SAME = ("askel", "mode", "durability", "may_lose", "workers")
_SUMMED = ("deaths", "restarts", "lost", "duplicated", "evaluated", "violations")
_COUNTED = (
    *("commands", "runs_by_status", "attempts", "refused_stale_writes", "points"),
    *("points_planned", "violations_by_kind"),
)
_LINES = ("stuck", "told", "diagnosis", "notes", "mishaps", "kept")


def read_reports(paths: Iterable[Path]) -> list[Report]:
    """Return the reports that single runs have written to *paths*, in the order of their seeds."""
    decoder = msgspec.json.Decoder(Report)
    return sorted((decoder.decode(path.read_bytes()) for path in paths), key=lambda one: one.seed)


def add_up(reports: Sequence[Report]) -> Report:
    """Return the sums over all *reports*, one for each round, and what is to be thought of them.

    Each round is judged by itself: what broke or was not shown in one is in the sum, with the
    round's seed. A fault that is rare in each round has to be shown by all of them together. Least
    and most of the times to recover are those of all rounds; their median is the median of the
    rounds' medians, each counted as often as there was something to recover from.

    Raises:
        ValueError: There is no report, two have the same seed, one is such a sum, or they are of
            different releases or modes.
    """
    _check(reports)
    first, total_s = reports[0], sum(one.load_s + one.drained_s for one in reports)
    runs, steps = (sum(getattr(one, name) for one in reports) for name in ("runs", "steps"))
    executions = sum(one.executions for one in reports)
    total = msgspec.structs.replace(
        first,
        server=_joined(one.server for one in reports),
        judged_by=_joined(one.judged_by for one in reports),
        runs=runs,
        steps=steps,
        seconds=sum(one.seconds for one in reports),
        load_s=round(sum(one.load_s for one in reports), 2),
        drained_s=round(sum(one.drained_s for one in reports), 2),
        runs_per_second=round(runs / total_s, 1),
        steps_per_second=round(steps / total_s, 1),
        faults=_faults(reports),
        skipped={name: why for one in reports for name, why in one.skipped.items()},
        executions=executions,
        re_execution_ratio=round(executions / steps, 3) if steps else 0.0,
        awaits=max(one.awaits for one in reports),
        first_violating_run=_first_story(reports),
        control=_controls(reports),
        **{name: sum(getattr(one, name) for one in reports) for name in _SUMMED},
        **{name: _counts(getattr(one, name) for one in reports) for name in _COUNTED},
        **{name: [*_of_seeds(reports, name)] for name in _LINES},
    )
    judged = [msgspec.structs.replace(r, failures=[*guards(r, least=RARE)]) for r in reports]
    total.failures = [*_of_seeds(judged, "failures"), *guards(total)]
    total.rounds = [_round(one) for one in judged]
    return total


def _check(reports: Sequence[Report]) -> None:
    """Raise ValueError unless sums over *reports* mean something."""
    if not reports:
        raise ValueError("no round has a report")
    if any(one.rounds for one in reports):
        raise ValueError("a report is a sum over rounds already")
    if len({one.seed for one in reports}) < len(reports):
        raise ValueError("two rounds have the same seed")
    for name in _SAME:
        found = {getattr(one, name) for one in reports}
        if len(found) > 1:
            raise ValueError(f"rounds of different {name} cannot be added up: {found}")


def _round(report: Report) -> Round:
    return Round(
        seed=report.seed,
        seconds=round(report.load_s + report.drained_s, 1),
        runs=report.runs,
        deaths=report.deaths,
        verdict=report.verdict,
    )


def _faults(reports: Sequence[Report]) -> dict[str, FaultReport]:
    names = dict.fromkeys(name for one in reports for name in one.faults)
    found = {}
    for name in names:
        each = [one.faults[name] for one in reports if name in one.faults]
        spreads = [fault.recovery_s for fault in each if fault.recovery_s is not None]
        planned, bites = sum(f.planned for f in each), sum(f.bites for f in each)
        found[name] = FaultReport(planned, bites, _over_all(spreads))
    return found


def _over_all(spreads: Sequence[Spread]) -> Spread | None:
    """Return least and most of all, and the median of medians, each weighed by its count."""
    if not spreads:
        return None
    count, seen, middle = sum(one.count for one in spreads), 0, 0.0
    for one in sorted(spreads, key=lambda one: one.median):
        seen, middle = seen + one.count, one.median
        if 2 * seen >= count:
            break
    return Spread(count, min(s.min for s in spreads), middle, max(s.max for s in spreads))


def _counts(all_counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for counts in all_counts:
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
    return total


def _of_seeds(reports: Iterable[Report], name: str) -> Iterator[str]:
    """Yield the lines that the field *name* holds, each with the seed of its round."""
    for one in reports:
        yield from (f"seed {one.seed}: {line}" for line in getattr(one, name))


def _first_story(reports: Iterable[Report]) -> list[str]:
    told = next((one for one in reports if one.first_violating_run), None)
    return [] if told is None else [f"of seed {told.seed}:", *told.first_violating_run]


def _controls(reports: Iterable[Report]) -> dict[str, Any] | None:
    """Return what the controls broke, which one round at least has shown."""
    found = [(one.seed, one.control) for one in reports if one.control is not None]
    if not found:
        return None
    sums = {n: sum(control[n] for _, control in found) for n in ("runs", "deaths", "violations")}
    told = [f"seed {seed}: {line}" for seed, control in found for line in control["told"]]
    return {**sums, "rounds": len(found), "told": told}


def _joined(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
