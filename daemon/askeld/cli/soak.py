"""``askel soak``: half an hour of load and faults, and whether anything grows."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import msgspec

from askel import InvalidOptionError
from askeld.cli.exits import Exit
from askeld.cli.soak_report import print_report
from askeld.torture.soak.campaign import run_soak
from askeld.torture.soak.config import FAULTS, SoakConfig
from askeld.torture.soak.report import SoakReport
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
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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
    parser.add_argument(
        "--json", metavar="FILE", help="write the report there, - for standard output"
    )
    parser.add_argument("--keep", metavar="FOLDER", help="keep logs and data there")
    parser.set_defaults(call=_soak, verb=verb)


def _soak(options: argparse.Namespace) -> int:
    with _folder(options.keep) as folder, _progress() as show:
        report = anyio.run(_run, _config(options, folder), show)
    if report is None:
        return Exit.INTERRUPTED
    text = msgspec.json.format(msgspec.json.encode(report)) + b"\n"
    if options.json == "-":
        sys.stdout.buffer.write(text)
    else:
        print_report(report)
        if options.json:
            Path(options.json).write_bytes(text)
    return Exit.OK if report.is_good else Exit.ERROR


def _config(options: argparse.Namespace, folder: Path) -> SoakConfig:
    seconds = 60.0 * _number("--minutes", options.minutes)
    keep_s, seed = _part(_KEPT, seconds), random.SystemRandom().randrange(1_000_000)
    return SoakConfig(
        seconds=seconds,
        rate=float(_number("--rate", options.rate)),
        every_s=float(_number("--every", options.every)),
        workers=_number("--workers", options.workers, _LEAST_WORKERS),
        steps=_number("--steps", options.steps),
        seed=seed if options.seed is None else _number("--seed", options.seed, 0),
        keep_s=keep_s,
        warm_up_s=max(_part(_WARM_UP, seconds), keep_s + _RETENTION_S),
        sample_s=_part(_SAMPLE, seconds),
        directory=folder,
    )


def _part(part: tuple[float, float], seconds: float) -> float:
    return min(seconds * part[0], part[1])


def _number(name: str, text: str, least: int = 1) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text) <= _MOST):
        raise InvalidOptionError(f"{name} {text!r:.40}: give a number from {least} to {_MOST}")
    return int(text)


@contextmanager
def _folder(kept: str | None) -> Iterator[Path]:
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="askel-soak-") as folder:
            yield Path(folder)
        return
    path = Path(kept)
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise InvalidOptionError(f"--keep {kept}: the folder is not empty")
    yield path


async def _run(config: SoakConfig, show: Callable[[Soak], None]) -> SoakReport | None:
    """Soak; a signal is heeded by cleaning up, and None returned."""
    report = None
    async with anyio.create_task_group() as tasks:

        async def heed() -> None:
            with anyio.open_signal_receiver(*_ENDS) as received:
                async for _ in received:
                    tasks.cancel_scope.cancel()

        tasks.start_soon(heed)
        report = await run_soak(config, show)
        tasks.cancel_scope.cancel()
    return report


@contextmanager
def _progress() -> Iterator[Callable[[Soak], None]]:
    """Show where things stand on standard error: in place on a terminal, else now and then."""
    began, last, phase = time.monotonic(), float("-inf"), ""
    is_terminal = sys.stderr.isatty()

    def show(soak: Soak) -> None:
        nonlocal last, phase
        now = time.monotonic()
        if not is_terminal and now - last < _LINE_EVERY_S and phase == soak.phase:
            return
        last, phase = now, soak.phase
        line = _line(soak, now - began)
        sys.stderr.write(f"\r\x1b[2K{line}" if is_terminal else f"{line}\n")
        sys.stderr.flush()

    yield show
    if is_terminal:
        sys.stderr.write("\r\x1b[2K")


def _line(soak: Soak, seconds: float) -> str:
    struck = "  ".join(f"{name} {count}" for name, count in soak.struck.items())
    load = soak.load
    return f"{seconds:5.0f} s  {soak.phase}: {load.counts['accepted']} commands accepted  {struck}"
