"""Rounds of torture, one after the other, each on data of its own.

An append-only file that is judged is never rewritten, and every restart loads all of it. Many
short rounds therefore show more in an hour than a long one, in which nearly all time is loading.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import msgspec

from askeld.server_binary import ServerBinary
from askeld.torture.campaign import Show, run_campaign
from askeld.torture.config import TortureConfig
from askeld.torture.report import Report, Round
from askeld.torture.totals import add_up

#: The largest seed; after it comes 0.
MAX_SEED = 1_000_000_000


def seed_of(seed: int, number: int) -> int:
    """Return the seed of round *number*, from 1: the first has the one that was given."""
    return (seed + number - 1) % (MAX_SEED + 1)


def config_of(config: TortureConfig, number: int, rounds: int) -> TortureConfig:
    """Return what round *number* of *rounds* is: seed, prefix and directory are its own."""
    seed = seed_of(config.seed, number)
    return msgspec.structs.replace(
        config,
        seed=seed,
        prefix=f"{config.prefix}-{number}",
        directory=config.directory / f"round-{number}",
        title=f"round {number} of {rounds}, seed {seed}",
    )


async def run_rounds(
    config: TortureConfig,
    rounds: int,
    show: Show,
    *,
    tell: Callable[[str], None],
    control: bool = True,
    keep: bool = False,
    binary: ServerBinary | None = None,
) -> Report:
    """Do *rounds* times what *config* says, each on a server or a prefix of its own; add it up.

    A round that cannot be brought to its end is the last; those before it are reported, and what
    ended it is a failure. The control is tortured in the first round only: the faults are the
    same in all.

    Args:
        config: What each round is; the seed is that of the first.
        rounds: How many.
        show: Called now and then with what is under way.
        tell: Called with a line when a round begins, and when it has ended.
        control: Whether to torture the naive worker, too.
        keep: Whether the directory of a round stays when that has ended.
        binary: The server to run; by default what is found.
    """
    done: list[Report] = []
    died: list[str] = []
    for number in range(1, rounds + 1):
        one = config_of(config, number, rounds)
        one.directory.mkdir()
        tell(f"{one.title} begins")
        try:
            done.append(
                await run_campaign(one, show, control=control and number == 1, binary=binary)
            )
        except Exception as error:
            if not done:
                raise
            died.append(f"{one.title} was not brought to its end: {_leaf(error)}")
            tell(died[0])
            break
        finally:
            if not keep:
                shutil.rmtree(one.directory, ignore_errors=True)
        tell(f"{one.title} ended: {_summary(done[-1])}")
    total = add_up(done)
    if died:
        total.failures += died
        seed = seed_of(config.seed, len(done) + 1)
        total.rounds.append(Round(seed, 0.0, 0, 0, "not brought to its end"))
    return total


def _leaf(error: BaseException) -> str:
    """Say in one line what is at the bottom of *error*."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _summary(report: Report) -> str:
    """Say in a few words what a round has shown."""
    (one,) = add_up([report]).rounds
    return f"{one.verdict}; {one.runs} runs, {one.deaths} deaths, {one.seconds:.0f} s"
