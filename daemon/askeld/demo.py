"""The demonstration: real workflows, real workers, one of them killed, and what was left of it.

What is reported is counted afterwards from the histories in Redis, not from what anybody claims.
"""

from __future__ import annotations

import csv
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec

from askel import AskelError, Client, RedisWorkflowService, RunStatus, StoreReplyError
from askel.state import GROUP, TERMINAL, HistoryEntry, SystemIds

#: Leases short enough to watch: a dead worker's work is back after about three seconds.
FAST = ("--lease", "2s", "--claim-idle", "2500ms")
CONCURRENCY = 40
#: Over how many seconds the runs are started: so there are always some in every phase.
SPREAD_S = 2.0
_READY_S = 20.0
_DRAIN_S = 5.0
_LONGEST_LINE = 500
# Becomes the worker by exec, after forking what kills it when the demonstration's process is gone
# without a word: then the pipe, which is standard input, ends before a line came. Arguments: the
# folder to remove in that case, then the worker's command. See `askeld.embedded`.
_LAUNCHER = """\
exec 3<&0 </dev/null
(
    read -r _ <&3 && exit 0
    kill -KILL $$ 2>/dev/null
    rm -rf -- "$1"
) &
shift
exec "$@" 3<&-
"""
_POLL_S = 0.05


class Progress(msgspec.Struct, frozen=True):
    """What there is to see while the demonstration runs."""

    started: int
    ended: int
    killed: int | None
    seconds: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted from the histories.

    ``lost`` counts runs that did not complete and steps of theirs without a result; ``duplicated``
    counts steps with more than one result and runs that ended more than once. ``re_executed``
    attempts were under way in the killed worker, and ``recovery_seconds`` is from the kill until
    the last of them was taken over.
    """

    runs: int
    completed: int
    steps: int
    attempts: int
    retried: int
    re_executed: int
    lost: int
    duplicated: int
    seconds: float
    steps_per_second: float
    recovery_seconds: float


class Workers:
    """Worker processes of the demonstration; their logs go to files."""

    def __init__(
        self, url: str, prefix: str, example: Path, logs: Path, settings: Sequence[str]
    ) -> None:
        """Prepare; nothing is started yet."""
        self._environment = {
            **os.environ,
            "REDIS_URL": url,
            "ASKEL_PREFIX": prefix,
            "PYTHONPATH": os.pathsep.join(
                [str(example.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
        }
        self._app = f"{example.name}.app:app"
        self._logs = logs
        self._settings = settings
        self._killed: set[int] = set()
        self._lifeline = -1
        self.processes: list[subprocess.Popen[bytes]] = []

    async def start(self, count: int) -> None:
        """Start *count* workers and return when they are ready.

        Raises:
            AskelError: One ended, or took too long; with the end of its log.
        """
        launch = ["/bin/sh", "-c", _LAUNCHER, "askel-demo", str(self._logs)]
        worker = [sys.executable, "-m", "askeld", self._app, *self._settings]
        watched, self._lifeline = os.pipe()  # Not inherited, but for `watched` as their input.
        try:
            for number in range(count):
                with (self._logs / f"worker-{number}.log").open("wb") as log:
                    self.processes.append(
                        subprocess.Popen(  # noqa: ASYNC220 - forking takes a moment, nobody waits
                            [*launch, *worker],
                            env=self._environment,
                            stdin=watched,
                            stdout=log,
                            stderr=subprocess.STDOUT,
                            start_new_session=True,
                        )
                    )
        finally:
            os.close(watched)
        end = time.monotonic() + _READY_S
        for number, process in enumerate(self.processes):
            while b'"worker_ready"' not in self._log(number):
                if process.poll() is not None or time.monotonic() > end:
                    raise self._trouble(number, "did not start")
                await anyio.sleep(_POLL_S)

    def check(self) -> None:
        """Raise AskelError if one has ended that nobody killed."""
        for number, process in enumerate(self.processes):
            if process.poll() is not None and number not in self._killed:
                raise self._trouble(number, "ended by itself")

    def _trouble(self, number: int, what: str) -> AskelError:
        """Return the error with the last thing that worker *number* said, in one line."""
        said = self._log(number).decode(errors="replace").splitlines() or ["it said nothing"]
        return AskelError(f"worker {number + 1} {what}: {said[-1][:_LONGEST_LINE]}")

    def _log(self, number: int) -> bytes:
        return (self._logs / f"worker-{number}.log").read_bytes()

    def kill(self, number: int) -> int:
        """End a worker as a power cut would; return its pid."""
        process = self.processes[number]
        self._killed.add(number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return process.pid

    def stop(self) -> None:
        """Let the workers drain, and see them end; who interrupts this has them killed."""
        try:
            for process in self.processes:
                process.terminate()
            end = time.monotonic() + _DRAIN_S
            for process in self.processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(end - time.monotonic(), 0))
        finally:
            for process in self.processes:
                process.kill()
                process.wait()
            if self._lifeline >= 0:
                os.write(self._lifeline, b"\n" * len(self.processes))
                os.close(self._lifeline)
                self._lifeline = -1


@contextmanager
def running(workers: Workers) -> Iterator[Workers]:
    """Stop the workers at the end, whatever happened."""
    try:
        yield workers
    finally:
        workers.stop()


def example_folder() -> Path:
    """Return the onboarding example: installed with the package, or in the checkout."""
    packaged = Path(__file__).parent / "examples" / "onboarding"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "examples" / "onboarding"


def read_customers(path: Path, count: int) -> list[dict[str, Any]]:
    """Return *count* inputs from the CSV file, from its beginning again when it ends."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = [{**line, "seats": int(line["seats"])} for line in csv.DictReader(file)]
    return [lines[number % len(lines)] for number in range(count)]


class Demo:
    """Runs the demonstration against one Redis, under a prefix of its own."""

    def __init__(self, url: str, example: Path, runs: int, workers: int = 2) -> None:
        """Prepare; *example* is the folder with ``app.py`` and ``customers.csv``."""
        self._url = url
        self._example = example
        self._runs = runs
        self._count = workers
        self.prefix = f"askel-demo-{secrets.token_hex(4)}"
        self.run_ids: list[str] = []
        self._ids = SystemIds()
        self._killed_at_ms = 0
        self._is_fit = False

    async def run(
        self, logs: Path, limit_s: float, show: Callable[[Progress], None]
    ) -> tuple[Report, str]:
        """Run everything; return the report, and a run that was interrupted and completed."""
        settings = (
            *FAST,
            "--concurrency",
            str(CONCURRENCY),
            "--http",
            "off",
            "--log-level",
            "info",
        )
        workers = Workers(self._url, self.prefix, self._example, logs, settings)
        service = RedisWorkflowService(self._url, key_prefix=self.prefix)
        async with service, Client(self._url, self.prefix) as client:
            self._is_fit = True
            with running(workers):
                await workers.start(self._count)
                began = time.monotonic()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._start_runs, client)
                    await self._watch(service, workers, began, limit_s, show)
                    tasks.cancel_scope.cancel()
                seconds = time.monotonic() - began
            return await self._count_histories(service, seconds)

    async def _start_runs(self, client: Client) -> None:
        """Start the runs one after another, evenly."""
        began = anyio.current_time()
        customers = read_customers(self._example / "customers.csv", self._runs)
        for number, customer in enumerate(customers):
            await anyio.sleep_until(began + SPREAD_S * number / self._runs)
            run_id = self._ids.run_id()
            self.run_ids.append(run_id)  # Before it is sent: what was sent has to be cleaned up.
            await client.start("onboarding", customer, run_id=run_id)

    async def _watch(
        self,
        service: RedisWorkflowService,
        workers: Workers,
        began: float,
        limit_s: float,
        show: Callable[[Progress], None],
    ) -> None:
        """Follow the runs to their end; kill the first worker when half of them have ended."""
        killed: int | None = None
        keys = service.keys
        while (seconds := time.monotonic() - began) < limit_s:
            started = await service.connection.send("ZCARD", keys.runs)
            ended = 0
            for status in TERMINAL:
                ended += await service.connection.send("ZCARD", keys.runs_by_status(status))
            if killed is None and ended * 2 >= self._runs and self._count > 1:
                now = await service.connection.send("TIME")
                self._killed_at_ms = int(now[0]) * 1_000 + int(now[1]) // 1_000
                killed = workers.kill(0)
            workers.check()
            show(Progress(started, ended, killed, seconds))
            if ended >= self._runs:
                return
            await anyio.sleep(_POLL_S)

    async def _count_histories(
        self, service: RedisWorkflowService, seconds: float
    ) -> tuple[Report, str]:
        counts: Counter[str] = Counter()
        taken_over_ms = 0
        exemplar = self.run_ids[0]
        for run_id in self.run_ids:
            entries = await service.get_history_entries(run_id)
            run_counts = count_history(entries)
            lost = [entry.at for entry in entries if entry.status == "lost"]
            if lost:
                exemplar = run_id
                taken_over_ms = max(taken_over_ms, *lost)
            counts.update(run_counts)
        recovery = max(taken_over_ms - self._killed_at_ms, 0) / 1_000 if taken_over_ms else 0.0
        report = Report(
            runs=len(self.run_ids),
            completed=counts["completed"],
            steps=counts["steps"],
            attempts=counts["attempts"],
            retried=counts["retried"],
            re_executed=counts["re_executed"],
            lost=counts["lost"],
            duplicated=counts["duplicated"],
            seconds=round(seconds, 2),
            steps_per_second=round(counts["steps"] / seconds, 1),
            recovery_seconds=round(recovery, 2),
        )
        return report, exemplar

    async def clean_up(self) -> None:
        """Remove everything this demonstration wrote.

        The workers must have ended. A Redis that was refused has nothing of ours.
        """
        if not self._is_fit:
            return
        service = RedisWorkflowService(self._url, key_prefix=self.prefix)
        keys, send = service.keys, service.connection.send
        try:
            for run_id in self.run_ids:
                await service.delete_run(run_id, force=True)
            await send("DEL", keys.runs_deleted, *map(keys.nudge, await self._consumers(service)))
            await send("DEL", keys.commands(), keys.events, keys.meta, keys.timers, keys.dead)
            await send("DEL", keys.sweep(), keys.watch)
        finally:
            await service.close()

    async def _consumers(self, service: RedisWorkflowService) -> list[str]:
        """Return the names of the workers that did not take their leave."""
        with suppress(StoreReplyError):  # There is no stream, or no group: nothing was begun.
            flats = await service.connection.send(
                "XINFO", "CONSUMERS", service.keys.commands(), GROUP
            )
            return [
                dict(zip(flat[::2], flat[1::2], strict=True))[b"name"].decode() for flat in flats
            ]
        return []


def count_history(entries: Sequence[HistoryEntry]) -> Counter[str]:
    """Return what one run's history shows. Pure.

    A step that was begun must have exactly one result, and a run exactly one end: ``completed``.
    """
    begun: Counter[tuple[str, int]] = Counter()
    succeeded: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    names = {entry.name for entry in entries if entry.kind == "step"}
    for entry in entries:
        if entry.kind == "run" and entry.status in TERMINAL:
            ends[entry.status] += 1
        elif entry.kind == "step":
            begun[entry.name, entry.attempt] += entry.status == "running"
            succeeded[entry.name] += entry.status == "succeeded"
            counts["retried"] += entry.status == "failed"
            counts["re_executed"] += entry.status == "lost"
    counts["completed"] = min(ends[RunStatus.COMPLETED], 1)
    counts["steps"] = sum(1 for name in names if succeeded[name])
    counts["attempts"] = begun.total()
    counts["lost"] = sum(1 for name in names if not succeeded[name]) + (ends.total() == 0)
    counts["lost"] += ends[RunStatus.FAILED] + ends[RunStatus.CANCELLED]
    counts["duplicated"] = sum(
        count - 1 for counter in (begun, succeeded) for count in counter.values() if count > 1
    ) + max(ends.total() - 1, 0)
    return counts
