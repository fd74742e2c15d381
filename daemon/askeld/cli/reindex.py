"""``askel reindex``: rebuild the indexes from the runs themselves."""

from __future__ import annotations

import argparse
import sys

import anyio

from askel import ReindexReport
from askeld.cli.arguments import add_redis_options, service_for
from askeld.cli.exits import Exit
from askeld.cli.output import one_line, print_json

EPILOG = """\
For runs that other programs wrote (the Node service keeps no indexes), and after damage. It scans
all keys of this Redis in batches while others go on working; a second pass finds nothing to mend.

examples:
  askel reindex --dry-run
  askel reindex --json
"""
_DAMAGED_SHOWN = 20


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("--dry-run", action="store_true", help="only report what would be mended")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    add_redis_options(parser)
    parser.set_defaults(call=lambda options: anyio.run(_reindex, options), verb=verb)


async def _reindex(options: argparse.Namespace) -> int:
    is_watched = sys.stderr.isatty()

    def show(report: ReindexReport) -> None:
        if is_watched:
            sys.stderr.write(f"\r{report.runs} runs seen, {report.repairs} repairs ")

    async with service_for(options) as service:
        report = await service.reindex(dry_run=options.dry_run, progress=show)
    if is_watched:
        sys.stderr.write("\n")
    if options.json:
        print_json(report)
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(report))
    return Exit.OK


def _lines(report: ReindexReport) -> list[str]:
    """Return the report for people."""
    verb = "would be " if report.dry_run else ""
    lines = [
        f"{report.runs} runs seen",
        f"{report.indexed} in no index: {verb}indexed",
        f"{report.moved} in some indexes only, or at the wrong place: {verb}put right",
        f"{report.dropped} index entries that were out of date: {verb}removed",
        f"{report.steps} steps that their run did not name: {verb}named",
        f"{report.orphans} keys left of runs that are gone: {verb}removed",
    ]
    if report.unreadable:
        shown = ", ".join(report.unreadable[:_DAMAGED_SHOWN])
        more = len(report.unreadable) - _DAMAGED_SHOWN
        rest = f" and {more} more" if more > 0 else ""
        lines.append(f"{len(report.unreadable)} runs are damaged: {one_line(shown)}{rest}")
    return lines
