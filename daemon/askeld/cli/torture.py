"""``askel torture``: kill, stop and cut everything, and see whether a promise breaks."""

from __future__ import annotations

import argparse
import random
import secrets
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio

from askel import InvalidError
from askel.state import connect
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
from askeld.cli.torture_report import print_report
from askeld.config import redis_url
from askeld.torture.campaign import removal, run_campaign
from askeld.torture.config import DURABILITIES, MODES, RATES, TortureConfig, parse_faults
from askeld.torture.report import GOOD, Report
from askeld.torture.rounds import MAX_SEED, run_rounds
from askeld.torture.runner import Torture

EPILOG = f"""\
faults: {", ".join(RATES)}
Each may say how often it strikes (sigstop:50); otherwise that depends on --seconds. Those done to
the server itself (redis-kill, power-loss, clock, oom) need one of ours: without --redis one is
started, whatever REDIS_URL names, and judged by its append-only file. With --redis a key prefix of
its own is used, and removed afterwards unless a promise was broken: then the report names it.

Runs are started evenly over the seconds, and as long as faults are left to strike: where --runs is
small, more than it says.

With --rounds each round has a server, or a prefix, of its own, a seed of its own (--seed, and one
more for each round after the first) and as many runs, seconds and faults as are given. Each is
judged by itself; the report adds them up. The control is part of the first. To see one round
again, give its seed as --seed, without --rounds.

exit codes: 0 nothing broke, 1 a promise was broken or too little was tried, 2 usage

examples:
  askel torture
  askel torture --runs 5000 --seconds 120 --faults kill9:1000,sigstop:50 --json report.json
  askel torture --rounds 20 --runs 5000 --faults kill9:600,failpoint:400,redis-kill:3
  askel torture --redis redis://staging:6379 --seconds 30
  askel torture --mode naive --seed 7       # the control: this breaks
"""
_NOTABLE_START_S = 2.0
_LINE_EVERY_S = 10.0


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    numbers = {
        "runs": ("1000", "runs to start; more while faults strike"),
        "steps": ("4", "steps of each"),
    }
    numbers |= {"workers": ("4", "worker processes"), "seconds": ("60", "how long faults strike")}
    numbers |= {"rounds": ("1", "how often to do all that, each time anew")}
    for name, (default, line) in numbers.items():
        parser.add_argument(f"--{name}", default=default, metavar="N", help=f"{line} ({default})")
    parser.add_argument("--seed", metavar="N", help="of all dice (a new one, which is printed)")
    parser.add_argument("--faults", default="all", metavar="LIST", help="which strike (all)")
    parser.add_argument("--mode", choices=MODES, default="askel", help="naive: the control (askel)")
    parser.add_argument(
        "--durability",
        choices=DURABILITIES,
        default="always",
        help="appendfsync of the server that is started (always)",
    )
    parser.add_argument(
        "--redis", metavar="URL", help="Redis to torture (one of ours; REDIS_URL is not asked)"
    )
    add_output(parser)
    parser.add_argument(
        "--no-control", action="store_true", help="do not torture the naive worker afterwards"
    )
    parser.set_defaults(call=_torture, verb=verb)


def _torture(options: argparse.Namespace) -> int:
    check_output(options.json)
    # Nobody has his Redis tortured because a variable names it.
    url = (redis_url(options.redis) or "") if options.redis else ""
    if url:
        connect(url)  # opens nothing; refuses what is no address without repeating it
    with folder(options.keep, "torture") as place:
        config = _config(options, url, place)
        rounds = number("--rounds", options.rounds, most=MAX_SEED)
        with progress(_line, every_s=_LINE_EVERY_S) as show:
            try:
                report = anyio.run(until_ended, partial(_run, config, show, rounds, options))
            except Exception as error:
                if url and not _is_refusal(error):
                    _tell(f"keys {config.prefix}* may be left there; {removal(config.prefix)}")
                raise
        if report is None:
            return Exit.INTERRUPTED
        write_report(report, options.json, print_report)
        if not report.is_good and not options.keep:
            sys.stderr.write(
                f"askel torture: say --keep FOLDER to keep the logs, and {_again(report)} "
                "to try it again\n"
            )
    return Exit.OK if report.is_good else Exit.ERROR


def _is_refusal(error: Exception) -> bool:
    """Tell whether *error* says that the call is wrong: then nothing was written anywhere."""
    group = error if isinstance(error, ExceptionGroup) else ExceptionGroup("", [error])
    return group.split(InvalidError)[0] is not None


def _again(report: Report) -> str:
    """Return the options that repeat what went wrong, one round of it if that suffices."""
    bad = [one.seed for one in report.rounds if one.verdict != GOOD]
    if report.rounds and not bad:
        return f"--rounds {len(report.rounds)} --seed {report.seed}"
    return f"--seed {bad[0] if bad else report.seed}"


def _config(options: argparse.Namespace, url: str, place: Path) -> TortureConfig:
    _number = partial(number, most=MAX_SEED)
    seconds = _number("--seconds", options.seconds)
    seed = random.SystemRandom().randrange(1_000_000)
    return TortureConfig(
        runs=_number("--runs", options.runs),
        steps=_number("--steps", options.steps),
        workers=_number("--workers", options.workers),
        seconds=float(seconds),
        seed=seed if options.seed is None else _number("--seed", options.seed, least=0),
        faults=parse_faults(options.faults, seconds, url),
        mode=options.mode,
        durability=options.durability,
        url=url,
        prefix=f"askel-torture-{secrets.token_hex(4)}",
        directory=place,
    )


async def _run(
    config: TortureConfig,
    show: Callable[[Torture], None],
    rounds: int,
    options: argparse.Namespace,
) -> Report:
    """Run the campaign, or all rounds."""
    control = not options.no_control
    if rounds == 1:
        return await run_campaign(config, show, control=control)
    keep = options.keep is not None
    return await run_rounds(config, rounds, show, tell=_tell, control=control, keep=keep)


def _tell(line: str) -> None:
    """Write a line of its own to standard error, over what a terminal shows in place."""
    sys.stderr.write(f"\r\x1b[2K{line}\n" if sys.stderr.isatty() else f"{line}\n")
    sys.stderr.flush()


def _line(torture: Torture, seconds: float) -> str:
    load = torture.load
    faults = "  ".join(
        f"{name} {fault.bites}/{torture.config.faults[name]}"
        for name, fault in torture.faults.items()
    )
    mode = "" if torture.config.mode == "askel" else f" ({torture.config.mode} control)"
    runs = f"runs {load.ended}/{load.sent} of {torture.config.runs}"
    runs += ", and more while faults strike" if load.sent > torture.config.runs else ""
    title = f"{torture.config.title}  " if torture.config.title else ""
    starting_s = torture.starting_s
    loads = f"  Redis loads its data, for {starting_s:.0f} s so far"
    loads = loads if starting_s >= _NOTABLE_START_S else ""
    return f"{seconds:5.0f} s  {title}{torture.phase}{mode}: {runs}  {faults}{loads}"
