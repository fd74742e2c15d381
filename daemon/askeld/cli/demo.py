"""``askel demo``: see what it is about, in less than a minute."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from askel import InvalidOptionError, RedisWorkflowService, StoreError
from askeld.cli.arguments import given_url
from askeld.cli.exits import Exit
from askeld.cli.output import print_json
from askeld.cli.show import print_history
from askeld.demo import Demo, Progress, Report, example_folder
from askeld.embedded import EmbeddedServer

EPILOG = """\
A private Redis is started unless --redis or REDIS_URL names one; either way the demonstration
uses a key prefix of its own and removes what it wrote.

examples:
  askel demo
  askel demo --runs 1000 --json
"""
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LIMIT_S = 55.0
#: Runs per second that the slowest machine is expected to complete.
_SLOWEST = 20
_BAR = 36
_SHORT_BAR = 20
_WIDE = 116
_PIPE_WIDTH = 120


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("--runs", type=int, default=300, metavar="N", help="how many runs (300)")
    parser.add_argument("--redis", metavar="URL", help="Redis to use [REDIS_URL]")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.set_defaults(call=_demo, verb=verb)


def _demo(options: argparse.Namespace) -> int:
    if not 2 <= options.runs <= 100_000:  # noqa: PLR2004 - one before the crash, one after
        msg = f"--runs {options.runs}: give 2 to 100000"
        raise InvalidOptionError(msg)
    url = given_url(options)
    with tempfile.TemporaryDirectory(prefix="askel-demo-") as folder:
        if url is not None:
            return anyio.run(_run, options, url, Path(folder), "your Redis")
        with EmbeddedServer() as server:
            return anyio.run(_run, options, server.url, Path(folder), "a private Redis")


async def _run(options: argparse.Namespace, url: str, folder: Path, where: str) -> int:
    """Demonstrate; a signal is heeded by cleaning up, or workers and keys would be left."""
    code: int = Exit.INTERRUPTED
    async with anyio.create_task_group() as tasks:

        async def heed() -> None:
            with anyio.open_signal_receiver(*_ENDS) as received:
                async for _ in received:
                    tasks.cancel_scope.cancel()

        tasks.start_soon(heed)
        code = await _demonstrate(options, url, folder, where)
        tasks.cancel_scope.cancel()
    return code


async def _demonstrate(options: argparse.Namespace, url: str, folder: Path, where: str) -> int:
    console = Console(stderr=options.json)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(
        f"[bold]askel demo[/]  {options.runs} onboarding runs, 2 worker processes, {where}; "
        "one worker will be killed half-way"
    )
    demo = Demo(url, example_folder(), options.runs)
    limit_s = max(_LIMIT_S, options.runs / _SLOWEST)
    try:
        with _display(console, options.runs) as show:
            report, exemplar = await demo.run(folder, limit_s, show)
        service = RedisWorkflowService(url, key_prefix=demo.prefix)
        async with service:
            entries = await service.get_history_entries(exemplar)
    finally:
        with anyio.CancelScope(shield=True), suppress(StoreError):  # What went wrong is told.
            await demo.clean_up()
    if options.json:
        print_json(report)
    else:
        print_history(entries, f"History of run {exemplar}, which the crash interrupted")
        _print_report(console, report)
    if report.completed < report.runs and report.seconds >= limit_s:
        sys.stderr.write(f"askel demo: not all runs ended within {limit_s:.0f} s: a slow machine\n")
    flawless = report.completed == report.runs and not report.lost and not report.duplicated
    return Exit.OK if flawless else Exit.ERROR


@contextmanager
def _display(console: Console, runs: int) -> Iterator[Callable[[Progress], None]]:
    """Show progress in place on a terminal, and as a few lines elsewhere."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=20) as live:
            yield lambda progress: live.update(_picture(progress, runs, console.width))
        return
    shown = {"tenth": -1, "killed": False}

    def show(progress: Progress) -> None:
        tenth = progress.ended * 10 // runs
        news = progress.killed is not None and not shown["killed"]
        if tenth != shown["tenth"] or news:
            shown.update(tenth=tenth, killed=progress.killed is not None)
            console.print(_picture(progress, runs, console.width))

    yield show


def _picture(progress: Progress, runs: int, width: int) -> Text:
    is_wide = width >= _WIDE
    bar = _BAR if is_wide else _SHORT_BAR
    done = bar * progress.ended // runs
    text = Text()
    text.append("█" * done, style="green")
    text.append("░" * (bar - done), style="dim")
    text.append(f" {progress.ended}/{runs} runs ended  {progress.seconds:4.1f} s  ")
    if progress.killed is None:
        text.append("2 workers", style="cyan")
    else:
        text.append(f"worker {progress.killed} killed (SIGKILL)", style="red")
        if progress.ended < runs and is_wide:
            text.append(", the other takes over")
    return text


def _print_report(console: Console, report: Report) -> None:
    table = Table(title="What the histories say", title_justify="left", box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    rows: list[tuple[str, object, str]] = [
        ("runs completed", f"{report.completed} of {report.runs}", ""),
        ("steps", report.steps, "each with exactly one recorded result"),
        ("attempts", report.attempts, "a sleep is a step without one"),
        ("  failed, tried again", report.retried, "the payment provider is flaky on purpose"),
        ("  re-executed", report.re_executed, "under way in the killed worker"),
        ("lost", report.lost, ""),
        ("duplicated", report.duplicated, ""),
        ("seconds", f"{report.seconds:.1f}", "the crash and its recovery included"),
        ("steps per second", f"{report.steps_per_second:.0f}", ""),
        ("recovery", f"{report.recovery_seconds:.1f} s", "until the last re-executed attempt"),
    ]
    for label, value, remark in rows:
        style = ""
        if label in {"lost", "duplicated"}:
            style = "bold red" if value else "bold green"
        table.add_row(label, Text(str(value), style=style), Text(remark, style="dim"))
    console.print()
    console.print(table)
