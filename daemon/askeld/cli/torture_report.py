"""The report of ``askel torture``, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from askeld.cli.campaign_tables import Row, print_lines, print_rows, wide_console
from askeld.torture.report import GOOD, Report, Round


def print_report(report: Report) -> None:
    """Print all that a person needs to believe the verdict, or to look further."""
    console = wide_console()
    console.print(
        f"[bold]askel {report.askel}[/] under torture, {_seeds(report)}, {report.server}, "
        f"durability {report.durability}, mode {report.mode}, {report.workers} workers"
    )
    print_rows(console, "Load", _load(report))
    _print_faults(console, report)
    _print_rounds(console, report.rounds)
    print_rows(console, "What became of it", _outcome(report))
    for title, lines in (
        ("LEFT OUT", [f"{name}: {why}" for name, why in report.skipped.items()]),
        ("Violations", report.told),
        ("The first run that is wrong", report.first_violating_run),
        ("Stuck", report.stuck),
        ("What stands around", report.diagnosis),
        ("Worth a look", report.mishaps),
        ("Said of the judgement", report.notes),
        ("Guards", report.failures),
        ("Left on your Redis", report.kept),
    ):
        print_lines(console, title, lines)
    _print_verdict(console, report)


def _seeds(report: Report) -> str:
    if not report.rounds:
        return f"seed {report.seed}"
    return f"{len(report.rounds)} rounds from seed {report.seed}"


def _load(report: Report) -> Iterator[Row]:
    rate = f"{report.runs_per_second:.0f} runs and {report.steps_per_second:.0f} steps a second"
    yield "runs started", report.runs, rate
    for status, count in sorted(report.runs_by_status.items()):
        yield f"  {status}", count, ""
    yield "seconds under faults", f"{report.load_s:.1f}", f"planned {report.seconds:.0f}"
    yield "seconds to drain", f"{report.drained_s:.1f}", "until nothing was left to do"
    yield "worker deaths", report.deaths, ""
    for name, count in report.commands.items():
        yield f"commands {name}", count, ""


def _outcome(report: Report) -> Iterator[Row]:
    allowed = ": allowed, the power was cut between two syncs" if report.may_lose else ""
    yield "lost", report.lost, f"accepted commands without a trace{allowed}"
    yield "duplicated", report.duplicated, "what happened twice"
    yield "stuck", len(report.stuck), ""
    yield "violations", report.violations, f"in {report.evaluated} evaluations of the invariants"
    for status, count in sorted(report.attempts.items()):
        yield f"attempts {status}", count, ""
    ratio = f"{report.executions} calls of handlers for {report.steps} results"
    yield "re-execution ratio", f"{report.re_execution_ratio:.3f}", ratio
    for answer, count in report.refused_stale_writes.items():
        yield f"stale writes: {answer}", count, "refused by the server's scripts"
    if report.points:
        # A point at which no worker was to die yet says nothing.
        counts = [report.points.get(name, 0) for name, due in report.points_planned.items() if due]
        points = f"{len(counts)} named points" + (
            f", each at least {min(counts)} times" if counts else ""
        )
        yield "failpoints", sum(report.points.values()), points
        most = ", in the round that has the most" if report.rounds else ""
        yield "  at awaits", report.awaits, f"different ones{most}"
    if report.control is not None:
        broke = f"by {report.control['deaths']} deaths in {report.control['runs']} runs"
        yield "naive control broke", report.control["violations"], broke


def _print_faults(console: Console, report: Report) -> None:
    table = Table(title="Faults", title_justify="left", box=None, pad_edge=False)
    table.add_column("fault", style="dim")
    for name in ("planned", "bit", "recovered", "min s", "median s", "max s"):
        table.add_column(name, justify="right")
    for name, fault in report.faults.items():
        spread = fault.recovery_s
        times = (
            [str(spread.count), *(f"{s:.3f}" for s in (spread.min, spread.median, spread.max))]
            if spread
            else ["-"] * 4
        )
        table.add_row(name, str(fault.planned), str(fault.bites), *times)
    console.print()
    console.print(table)
    if report.rounds:
        console.print(
            "(median: of the rounds' medians, each weighed by what recovered)", style="dim"
        )


def _print_rounds(console: Console, rounds: list[Round]) -> None:
    if not rounds:
        return
    table = Table(title="Rounds", title_justify="left", box=None, pad_edge=False)
    for name in ("seed", "seconds", "runs", "deaths"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for one in rounds:
        verdict = Text(one.verdict, style="green" if one.verdict == GOOD else "bold red")
        table.add_row(str(one.seed), f"{one.seconds:.0f}", str(one.runs), str(one.deaths), verdict)
    console.print()
    console.print(table)


def _print_verdict(console: Console, report: Report) -> None:
    judged = f"judged by {report.judged_by}"
    console.print()
    if report.is_good:
        console.print(Text(f"Nothing broke; {judged}.", style="bold green"))
    elif report.is_broken:
        console.print(Text(f"Promises were broken; {judged}.", style="bold red"))
    else:
        told = f"Nothing broke, but too little was tried to say so; {judged}."
        console.print(Text(told, style="bold red"))
