"""The report of ``askel soak``, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from askeld.cli.campaign_tables import Row, print_lines, print_rows, wide_console
from askeld.torture.soak.report import SoakReport

_STYLES = {"growing": "bold red", "flat": "green", "unknown": "yellow"}


def print_report(report: SoakReport) -> None:
    """Print all that a person needs to believe the verdict, or to look further."""
    console = wide_console()
    console.print(
        f"[bold]askel {report.askel}[/] soaked for {report.load_s / 60:.1f} minutes, "
        f"seed {report.seed}, {report.server}, {report.workers} workers, mode {report.mode}"
    )
    print_rows(console, "Load", _load(report))
    print_rows(console, "What became of it", _outcome(report))
    _print_trends(console, report)
    for title, lines in (
        ("Violations", report.told),
        ("The first run that is wrong", report.first_violating_run),
        ("Stuck", report.stuck),
        ("What stands around", report.diagnosis),
        ("Worth a look", report.mishaps),
        ("Said of the judgement", report.notes),
        ("Guards", report.failures),
    ):
        print_lines(console, title, lines)
    _print_verdict(console, report)


def _load(report: SoakReport) -> Iterator[Row]:
    yield "commands a second", f"{report.commands_per_second:.0f}", f"planned {report.rate:.0f}"
    yield "runs started", report.runs, ""
    for status, count in sorted(report.runs_deleted.items()):
        yield f"  {status} and deleted", count, f"after {report.keep_s:.0f} s, by retention"
    for status, count in sorted(report.runs_left_by_status.items()):
        yield f"  {status} and left", count, ""
    yield "seconds to drain", f"{report.drained_s:.1f}", "until nothing was left to do"
    for name, fault in report.faults.items():
        yield f"fault {name}", fault.struck, f"did harm {fault.bites} times"
    for name, count in report.commands.items():
        yield f"commands {name}", count, ""


def _outcome(report: SoakReport) -> Iterator[Row]:
    yield "lost", report.lost, "accepted commands without a trace"
    yield "duplicated", report.duplicated, "what happened twice"
    yield "stuck", len(report.stuck), ""
    yield "violations", report.violations, f"in {report.evaluated} evaluations of the invariants"
    yield (
        "attempts",
        report.attempts,
        f"of which {report.attempts_lost} were lost with their worker",
    )
    for name, count in report.errors.items():
        yield f"errors {name}", count, "answered by Redis during the load"


def _print_trends(console: Console, report: SoakReport) -> None:
    title = (
        f"What could grow: {report.samples} samples, the first {report.warm_up_s:.0f} s not judged;"
        f" Redis was away for {report.samples_missed}"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("series", style="dim")
    for name in ("first third", "last third", "slope per hour", "allowed"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for one in report.trends:
        values = (one.first, one.last, one.per_hour, one.allowed)
        unit = f" ({one.unit})" if one.unit else ""
        verdict = Text(one.verdict, style=_STYLES[one.verdict])
        table.add_row(f"{one.name}{unit}", *(f"{value:.6g}" for value in values), verdict)
    console.print()
    console.print(table)


def _print_verdict(console: Console, report: SoakReport) -> None:
    console.print()
    if report.is_broken:
        console.print(Text("Promises were broken.", style="bold red"))
    if report.growing:
        names = "; ".join(one.name for one in report.growing)
        console.print(Text(f"These grow: {names}.", style="bold red"))
    if report.failures:
        console.print(Text("Too little was shown: see the guards.", style="bold red"))
    if report.is_good:
        console.print(Text("Nothing grew, and nothing broke.", style="bold green"))
