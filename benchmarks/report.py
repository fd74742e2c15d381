"""What people see: a table of scenarios, one of ratios, and where the time goes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from benchmarks.figures import CommandCost, Figure
from benchmarks.rounds import BenchmarkReport, ScenarioReport

_MOST_COMMANDS = 16
# A column of the first table: its head, and the figures that it shows, the first one present.
_COLUMNS = (
    ("per second", ("steps_per_second", "per_second")),
    ("p50 ms", ("p50", "alone_p50")),
    ("p99 ms", ("p99", "alone_p99")),
    ("server µs", ("server_cpu",)),
    ("scripts µs", ("server_scripts",)),
    ("client µs", ("worker_cpu", "client_cpu")),
    ("driver µs", ("driver_cpu",)),
    ("evalsha", ("evalsha",)),
    ("xreadgroup", ("xreadgroup",)),
    ("connects", ("connects",)),
    ("server busy", ("server_busy",)),
    ("worker busy", ("worker_busy",)),
)


class Table(msgspec.Struct, frozen=True):
    """A title, a head and rows of text; the first column is words, the others are numbers."""

    title: str
    head: list[str]
    rows: list[list[str]]


def tables(name: str, report: BenchmarkReport) -> list[Table]:
    """Return what *report* says, as tables."""
    found = [_scenarios(name, report), *_others(report), _ratios(report)]
    found += [one for one in (_commands(report), _skipped(report)) if one.rows]
    return found


def show(found: Sequence[Table]) -> None:
    """Print tables, by rich where it is installed."""
    try:
        from rich.console import Console  # noqa: PLC0415 - optional
        from rich.table import Table as RichTable  # noqa: PLC0415
    except ImportError:
        for table in found:
            print(plain(table))
        return
    console = Console()
    # Wide enough for all columns where nobody looks: in a file, a pipe, the log of a CI job.
    console = console if console.is_terminal else Console(width=200)
    for table in found:
        rich = RichTable(title=table.title, title_justify="left")
        for number, head in enumerate(table.head):
            rich.add_column(head, justify="right" if number else "left", no_wrap=not number)
        for row in table.rows:
            rich.add_row(*row)
        console.print(rich)


def plain(table: Table) -> str:
    """Return *table* as text in columns."""
    lines = [table.head, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.head))]
    texts = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join(["", table.title, *texts])


def shown(number: float) -> str:
    """Return *number* as people read it: no digits that are noise."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}" if number else "0"


def _scenarios(name: str, report: BenchmarkReport) -> Table:
    scenarios = {key: one for key, one in report.scenarios.items() if _has_columns(one)}
    columns = [
        (head, names)
        for head, names in _COLUMNS
        if any(set(names) & one.figures.keys() for one in scenarios.values())
    ]
    rows = [
        [scenario, *(_cell(one, names) for _, names in columns)]
        for scenario, one in scenarios.items()
    ]
    title = f"{name}: medians; µs and calls are per step, or per call, turn or run (see the JSON)"
    return Table(title, ["scenario", *(head for head, _ in columns)], rows)


def _has_columns(scenario: ScenarioReport) -> bool:
    return any(set(names) & scenario.figures.keys() for _, names in _COLUMNS)


def _others(report: BenchmarkReport) -> list[Table]:
    """Return one table for the scenarios that measure the same things of their own."""
    groups: dict[str, dict[str, ScenarioReport]] = {}
    for name, one in report.scenarios.items():
        if not _has_columns(one):
            groups.setdefault(name.split("-", 1)[0], {})[name] = one
    found = []
    for group, members in groups.items():
        names = dict.fromkeys(name for one in members.values() for name in one.figures)
        units = {name: one.figures[name].unit for one in members.values() for name in one.figures}
        rows = [
            [f"{name}, {units[name]}", *(_cell(one, (name,)) for one in members.values())]
            for name in names
        ]
        found.append(Table(group, ["figure", *members], rows))
    return found


def _skipped(report: BenchmarkReport) -> Table:
    rows = [[name, reason] for name, reason in report.skipped.items()]
    return Table("NOT MEASURED HERE", ["scenario", "what is missing"], rows)


def _cell(scenario: ScenarioReport, names: Sequence[str]) -> str:
    found = next((scenario.figures[name] for name in names if name in scenario.figures), None)
    return "" if found is None else shown(found.median)


def _ratios(report: BenchmarkReport) -> Table:
    rows = [[name, *_range(ratio)] for name, ratio in report.ratios.items()]
    return Table("ratios within each round: compare these", ["ratio", "median", "min", "max"], rows)


def _range(figure: Figure) -> list[str]:
    return [shown(figure.median), shown(figure.min), shown(figure.max)]


def _commands(report: BenchmarkReport) -> Table:
    """Return what the server did for one unit of work: calls of each command, and their time."""
    shown_ones = {name: one.commands for name, one in report.scenarios.items() if one.commands}
    dearest: dict[str, float] = {}
    for costs in shown_ones.values():
        for command, cost in costs.items():
            dearest[command] = max(dearest.get(command, 0), cost.us)
    rows = [
        [command, *(_cost(costs.get(command)) for costs in shown_ones.values())]
        for command in sorted(dearest, key=lambda command: -dearest[command])[:_MOST_COMMANDS]
    ]
    title = "the server's work per step (or turn): calls and µs; evalsha includes what it calls"
    return Table(title, ["command", *shown_ones], rows)


def _cost(cost: CommandCost | None) -> str:
    return "" if cost is None else f"{shown(cost.calls)} · {shown(cost.us)}"
