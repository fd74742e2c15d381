"""``askel soak``: half an hour of load and faults, and whether anything grows."""

from __future__ import annotations

import argparse
import random
from functools import partial
from pathlib import Path

import anyio

from askeld.cli.campaign import (
    add_output,
    check_output,
    folder,
    number,
    progress,
    until_ended,
    write_report,
)
from askeld.cli.exits import Exit
from askeld.cli.soak_report import print_report
from askeld.torture.soak.campaign import run_soak
from askeld.torture.soak.config import FAULTS, SoakConfig
from askeld.torture.soak.runner import Soak

EPILOG = f"""\
Starts a Redis and workers of its own. All workers live as long as the soak but one, which is
killed and replaced. What goes wrong, each in its turn: {", ".join(FAULTS)}.
Memory, descriptors, tasks, threads, connections, scripts, keys, streams, pending entries and
timers are measured every few seconds. At the end a judge reads Redis' append-only file, as after
'askel torture'.

exit codes: 0 nothing grew and nothing broke, 1 something did or too little was tried, 2 usage

examples:
  askel soak
  askel soak --minutes 120 --rate 400 --every 10 --json soak.json
"""
_LINE_EVERY_S = 15.0
_MOST = 100_000
#: Parts of the time, and the most they come to: how long ended runs are kept, what is not judged,
#: and how often is measured.
_KEPT, _WARM_UP, _SAMPLE = (1 / 10, 60.0), (1 / 6, 300.0), (1 / 120, 5.0)
#: Workers apply retention that often.
_RETENTION_S = 30.0
_LEAST_WORKERS = 2


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    for name, (default, line) in {
        "minutes": ("30", "for how long there are load and faults"),
        "rate": ("200", "commands a second"),
        "every": ("30", "seconds from one fault to the next"),
        "workers": ("3", "worker processes"),
        "steps": ("2", "steps of each run"),
    }.items():
        parser.add_argument(f"--{name}", default=default, metavar="N", help=f"{line} ({default})")
    parser.add_argument("--seed", metavar="N", help="of all dice (a new one, which is printed)")
    add_output(parser)
    parser.set_defaults(call=_soak, verb=verb)


def _soak(options: argparse.Namespace) -> int:
    check_output(options.json)
    with folder(options.keep, "soak") as place, progress(_line, every_s=_LINE_EVERY_S) as show:
        config = _config(options, place)
        report = anyio.run(until_ended, partial(run_soak, config, show))
    if report is None:
        return Exit.INTERRUPTED
    write_report(report, options.json, print_report)
    return Exit.OK if report.is_good else Exit.ERROR


def _config(options: argparse.Namespace, place: Path) -> SoakConfig:
    _number = partial(number, most=_MOST)
    seconds = 60.0 * _number("--minutes", options.minutes)
    keep_s, seed = _part(_KEPT, seconds), random.SystemRandom().randrange(1_000_000)
    return SoakConfig(
        seconds=seconds,
        rate=float(_number("--rate", options.rate)),
        every_s=float(_number("--every", options.every)),
        workers=_number("--workers", options.workers, least=_LEAST_WORKERS),
        steps=_number("--steps", options.steps),
        seed=seed if options.seed is None else _number("--seed", options.seed, least=0),
        keep_s=keep_s,
        warm_up_s=max(_part(_WARM_UP, seconds), keep_s + _RETENTION_S),
        sample_s=_part(_SAMPLE, seconds),
        directory=place,
    )


def _part(part: tuple[float, float], seconds: float) -> float:
    return min(seconds * part[0], part[1])


def _line(soak: Soak, seconds: float) -> str:
    struck = "  ".join(f"{name} {count}" for name, count in soak.struck.items())
    load = soak.load
    return f"{seconds:5.0f} s  {soak.phase}: {load.counts['accepted']} commands accepted  {struck}"
