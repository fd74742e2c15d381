"""``askel doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

import argparse
import sys

import anyio

from askel import AskelError
from askel.state import check_compat
from askeld.cli.arguments import add_redis_options, load_app, reading, required_url
from askeld.cli.exits import Exit
from askeld.cli.output import one_line, print_json
from askeld.doctor import Finding, Level, examine, gather

EPILOG = """\
Green is well, yellow wants a look before it hurts, red means that runs are lost or stand still, or
soon will; unknown could not be found out, mostly for want of a permission. Exit code 6 when
anything is red. Nothing is changed, and the cost does not depend on how many runs there are.

examples:
  askel doctor
  askel doctor shop:app --queue warehouse
  askel doctor --json | jq '.findings[] | select(.level == "red")'
"""

_MARKS = {Level.GREEN: "ok", Level.YELLOW: "!", Level.RED: "RED", Level.UNKNOWN: "?"}
_COLOURS = {
    Level.GREEN: "green",
    Level.YELLOW: "yellow",
    Level.RED: "bold red",
    Level.UNKNOWN: "dim",
}


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("app", nargs="?", metavar="MODULE:APP", help="compare with its workflows")
    parser.add_argument("--queue", action="append", metavar="NAME", help="look at this queue, too")
    parser.add_argument("--compat", metavar="SYSTEM", help="pikku: Node services share the prefix")
    parser.add_argument("--all", action="store_true", help="print what is green, too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_redis_options(parser)
    parser.set_defaults(call=lambda options: anyio.run(_examine, options), verb=verb)


async def _examine(options: argparse.Namespace) -> int:
    app = load_app(options.app) if options.app else None
    compat = check_compat(options.compat)
    url = required_url(options)
    try:
        async with reading(options) as service:
            facts = await gather(service, url, queues=options.queue or (), app=app, compat=compat)
        findings = examine(facts)
    except AskelError as error:
        findings = [
            Finding(
                "reachable",
                Level.RED,
                str(error),
                "start Redis, or correct REDIS_URL and its password",
            )
        ]
    else:
        findings.insert(0, Finding("reachable", Level.GREEN, f"Redis at {facts.where}"))
    if options.json:
        print_json({"healthy": _is_healthy(findings), "findings": findings})
    else:
        _print(findings, everything=options.all)
    return Exit.OK if _is_healthy(findings) else Exit.UNHEALTHY


def _is_healthy(findings: list[Finding]) -> bool:
    return all(finding.level is not Level.RED for finding in findings)


def _print(findings: list[Finding], *, everything: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 - only where it prints for people
    from rich.text import Text  # noqa: PLC0415

    console = Console(soft_wrap=True, highlight=False)
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        if finding.level is Level.GREEN and not everything:
            continue
        line = Text()
        line.append(f"{_MARKS[finding.level]:<4}", style=_COLOURS[finding.level])
        line.append(f"{finding.check:<{width}}  ", style="bold")
        line.append(one_line(finding.detail))
        console.print(line)
        if finding.fix:
            console.print(Text(f"{'':<{width + 6}}-> {finding.fix}", style="cyan"))
    counts = {level: sum(one.level is level for one in findings) for level in Level}
    summary = ", ".join(f"{count} {level}" for level, count in counts.items() if count)
    plural = "" if len(findings) == 1 else "s"
    sys.stdout.write(f"{len(findings)} check{plural}: {summary}\n")
