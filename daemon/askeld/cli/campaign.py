"""What ``askel torture`` and ``askel soak`` share: their options, progress, end and report."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import msgspec

from askel import InvalidOptionError

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Campaign(Protocol):
    """What is under way."""

    @property
    def phase(self) -> str:
        """What is being done."""


C = TypeVar("C", bound=Campaign)
R = TypeVar("R", bound=msgspec.Struct)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the report and the logs go."""
    parser.add_argument(
        "--json", metavar="FILE", help="write the report there, - for standard output"
    )
    parser.add_argument("--keep", metavar="FOLDER", help="keep logs and data there")


def check_output(target: str | None) -> None:
    """Make sure, before anything begins, that a report can be written to *target*.

    Raises:
        InvalidOptionError: It cannot; what was there is as it was.
    """
    if not target or target == "-":
        return
    path = Path(target)
    try:
        was_there = path.exists()
        with path.open("ab"):
            pass
        if not was_there:
            path.unlink()
    except OSError as error:
        msg = f"--json {target}: the report cannot be written there: {error.strerror}"
        raise InvalidOptionError(msg) from None


def write_report(report: R, target: str | None, show: Callable[[R], None]) -> None:
    """Write *report* to *target* as JSON; *show* it to people unless that is standard output."""
    text = msgspec.json.format(msgspec.json.encode(report)) + b"\n"
    if target == "-":
        sys.stdout.buffer.write(text)
        return
    show(report)
    if target:
        Path(target).write_bytes(text)


def number(name: str, text: str, *, most: int, least: int = 1) -> int:
    """Return the number that the option *name* was given.

    Raises:
        InvalidOptionError: It is none, or too small or large.
    """
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise InvalidOptionError(f"{name} {text!r:.40}: give a number from {least} to {most}")
    return int(text)


@contextmanager
def folder(kept: str | None, verb: str) -> Iterator[Path]:
    """Provide the folder *kept*, or one that is gone afterwards.

    Raises:
        InvalidOptionError: It holds something already.
    """
    if kept is None:
        with tempfile.TemporaryDirectory(prefix=f"askel-{verb}-") as made:
            yield Path(made)
        return
    path = Path(kept)
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise InvalidOptionError(f"--keep {kept}: the folder is not empty")
    yield path


async def until_ended(work: Callable[[], Awaitable[R]]) -> R | None:
    """Return what *work* returns; a signal is heeded by cleaning up, and None returned."""
    report = None
    async with anyio.create_task_group() as tasks:

        async def heed() -> None:
            with anyio.open_signal_receiver(*_ENDS) as received:
                async for _ in received:
                    tasks.cancel_scope.cancel()

        tasks.start_soon(heed)
        report = await work()
        tasks.cancel_scope.cancel()
    return report


@contextmanager
def progress(
    line_of: Callable[[C, float], str], *, every_s: float
) -> Iterator[Callable[[C], None]]:
    """Show where things stand on standard error: in place on a terminal, else now and then.

    Args:
        line_of: Given what is under way, and for how many seconds it has been.
        every_s: Where there is no terminal, after how long there is another line.
    """
    began, last, phase = time.monotonic(), float("-inf"), ""
    is_terminal = sys.stderr.isatty()

    def show(campaign: C) -> None:
        nonlocal last, phase
        now = time.monotonic()
        if not is_terminal and now - last < every_s and phase == campaign.phase:
            return
        last, phase = now, campaign.phase
        line = line_of(campaign, now - began)
        sys.stderr.write(f"\r\x1b[2K{line}" if is_terminal else f"{line}\n")
        sys.stderr.flush()

    yield show
    if is_terminal:
        sys.stderr.write("\r\x1b[2K")
