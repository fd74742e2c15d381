"""Figures of a run under torture, taken from the histories: attempts, ends, times to recover."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from askeld.torture.client_log import ClientLog
from askeld.torture.run_rules import TERMINAL

_PAGE = 500
#: What took longer than this was not a recovery, but something else.
_LONGEST_S = 120.0
_HOUR_MS = 3_600_000
#: Faults of which it is known whose work they stopped.
OF_WORKERS = ("kill9", "failpoint", "sigstop")


class _Line(msgspec.Struct):
    at: int
    t: str
    name: str = ""
    status: str = ""
    attempt: int = 1


class Lost(msgspec.Struct):
    """An attempt that was closed as lost at *at*; its run has been running since *since*."""

    run: str
    step: str
    attempt: int
    at: int
    since: int


class Figures(msgspec.Struct):
    """What the histories add up to.

    Args:
        attempts: How many attempts came to each status.
        statuses: How many runs ended how.
        wrong_ends: Runs that ended as neither their program says nor anybody asked for.
        lost: Each attempt that was closed as lost.
        times: When anything was recorded (ms of the server's clock), in order.
    """

    attempts: dict[str, int]
    statuses: dict[str, int]
    wrong_ends: list[str]
    lost: list[Lost]
    times: list[int]


async def read_figures(client: Any, prefix: str, log: ClientLog, *, around_ms: int = 0) -> Figures:
    """Read the histories of all runs.

    Args:
        client: Of the server.
        prefix: The deployment.
        log: What the client asked for.
        around_ms: The middle of a run, shorter than half an hour, in which the server's clock
            jumped by hours: times are told by this machine's clock then. 0: it did not jump.
    """
    cancelled = {o.run_id for o in log.operations().values() if o.kind == "run.cancel"}
    attempts: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    figures = Figures({}, {}, [], [], [])
    decoder = msgspec.json.Decoder(_Line)
    ids = [run.decode() for run in await client.zrange(f"{prefix}:runs", 0, -1)]
    for page in (ids[at : at + _PAGE] for at in range(0, len(ids), _PAGE)):
        pipe = client.pipeline(transaction=False)
        for run_id in page:
            pipe.lrange(f"{prefix}:history:{run_id}", 0, -1)
        for run_id, history in zip(page, await pipe.execute(), strict=True):
            lines = [decoder.decode(line) for line in history]
            for line in lines if around_ms else ():
                line.at = true_time(line.at, around_ms)
            status = _add(figures, attempts, run_id, lines)
            statuses[status] += 1
            asked = status == "cancelled" and run_id in cancelled
            if status in TERMINAL and status != "completed" and not asked:
                figures.wrong_ends.append(f"run {run_id} is {status}, which nobody asked for")
    figures.times.sort()
    figures.attempts, figures.statuses = dict(attempts), dict(statuses)
    return figures


def true_time(at: int, around_ms: int) -> int:
    """Return the time that the server told as *at* while its clock was off by whole hours."""
    return at - _HOUR_MS * round((at - around_ms) / _HOUR_MS)


def _add(figures: Figures, attempts: Counter[str], run_id: str, history: Sequence[_Line]) -> str:
    """Count one history; return the status that it ends with."""
    status, since = "", 0
    for line in history:
        figures.times.append(line.at)
        if line.t == "run":
            status, since = line.status, line.at
        elif line.t == "step":
            attempts[line.status] += 1
            if line.status == "lost":
                figures.lost.append(Lost(run_id, line.name, line.attempt, line.at, since))
    return status


class Begun(msgspec.Struct):
    """A handler was called: what the process that called it wrote."""

    pid: int
    at: int
    run: str
    step: str
    attempt: int


def read_effects(path: Path) -> list[Begun]:
    """Return every call of a handler."""
    decoder = msgspec.json.Decoder(Begun)
    if not path.exists():
        return []
    with path.open("rb") as file:
        return [decoder.decode(line) for line in file]


def recovery_of_workers(
    lost: Iterable[Lost],
    effects: Iterable[Begun],
    silenced: Mapping[int, Sequence[tuple[int, str]]],
) -> dict[str, list[float]]:
    """Return how long lost attempts were nobody's, by what silenced the process they were in.

    Attempts of runs that were suspended meanwhile are left out: those wait for people.
    """
    found: dict[str, list[float]] = {}
    calls = {(one.run, one.step, one.attempt): one for one in effects}
    for one in lost:
        call = calls.get((one.run, one.step, one.attempt))
        if call is None:
            continue
        causes = [c for c in silenced.get(call.pid, ()) if call.at <= c[0] <= one.at]
        if not causes or one.since > causes[0][0]:  # that waited for people
            continue
        at, by = causes[0]
        seconds = (one.at - at) / 1_000
        if by and seconds < _LONGEST_S:
            found.setdefault(by, []).append(seconds)
    return found


def recovery_of_server(over_at: Iterable[int], times: Sequence[int]) -> list[float]:
    """Return how long it took from each moment of *over_at* until anything was recorded."""
    places = ((at, bisect_left(times, at)) for at in over_at)
    found = [(times[place] - at) / 1_000 for at, place in places if place < len(times)]
    return [seconds for seconds in found if seconds < _LONGEST_S]
