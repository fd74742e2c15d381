"""Measures what could grow: in the workers that are never killed, and in Redis."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
from redis.exceptions import RedisError

from askeld.torture.evidence import Evidence, EvidenceReader
from askeld.torture.final_state import command_streams
from askeld.torture.soak.trend import Limit, Point, Trend, trend

#: Series of each worker -> unit, and how much more of it is no growth.
OF_WORKER: dict[str, tuple[str, Limit]] = {
    "resident memory": ("MB", Limit(8.0, 0.08)),
    "descriptors": ("", Limit(4.0)),
    "threads": ("", Limit(8.0)),
    "tasks": ("", Limit(60.0, 0.3)),
}
#: Series of Redis, likewise. How many runs are kept depends on the load, which comes in waves where
#: the machine has other things to do: that none is kept for too long is told by the oldest.
OF_REDIS: dict[str, tuple[str, Limit]] = {
    "memory": ("MB", Limit(8.0, 0.4)),
    "resident memory": ("MB", Limit(24.0, 0.5)),
    "connections": ("", Limit(4.0, 0.1)),
    "cached scripts": ("", Limit(2.0)),
    "keys of no run": ("", Limit(50.0, 0.15)),
    "oldest ended run": ("s", Limit(10.0, 0.3)),
    "dead letters": ("", Limit(100.0, 0.5)),
    "pending": ("", Limit(100.0, 0.5)),
    "oldest pending": ("s", Limit(5.0, 0.5)),
    "timers": ("", Limit(100.0, 0.5)),
    "timer lateness": ("s", Limit(0.5)),
    "errors": ("a minute", Limit(30.0, 0.5)),
}
_OF_KIND = ("", Limit(50.0, 0.15))
#: Keys of these kinds belong to runs; they are told by how many there are for each run.
_OF_RUNS = frozenset({"run", "ctl", "history", "steps", "step", "run-state"})
_A_RUN = ("a run", Limit(0.1, 0.1))
_OF_STREAM = ("", Limit(200.0, 0.5))
#: Trimmed to about 10,000 entries: growing is what goes beyond.
_OF_EVENTS = ("", Limit(11_000.0))

_MB = 1_000_000
_GROUP = "askeld"
_SCANNED_AT_ONCE = 1_000


class Sampler:
    """Takes one sample of everything at a time; ``missed`` of them Redis was away for.

    ``errors`` holds how often Redis answered with which error.
    """

    def __init__(
        self, client: Any, prefix: str, workers: Mapping[str, int], directory: Path
    ) -> None:
        """Look at *workers* (name -> pid) and at what lies under *prefix*.

        What workers log is read in *directory*; samples are noted there, in ``samples.jsonl``.
        """
        self._client = client
        self._prefix = prefix
        self._workers = workers
        self._evidence = EvidenceReader(directory / "evidence.jsonl")
        self._notes = Evidence(directory / "samples.jsonl")
        self._sample: dict[str, float] = {}
        self._series: dict[str, tuple[str, Limit, list[Point]]] = {}
        self._last_errors: Counter[str] = Counter()
        self._looked_at: float | None = None
        self._counted_at: list[float] = []
        self.errors: Counter[str] = Counter()
        self.taken = self.missed = 0

    def close(self) -> None:
        """Close the files."""
        self._evidence.close()
        self._notes.close()

    async def run(self, began: float, every_s: float) -> None:
        """Take a sample every *every_s* until cancelled; times count from *began*."""
        while True:
            await self.run_once(anyio.current_time() - began)
            await anyio.sleep(every_s)

    async def run_once(self, at: float) -> None:
        """Take one sample, at the time *at* (s)."""
        self.taken += 1
        self._look_at_workers(at)
        try:
            await self._look_at_redis(at)
            await self._look_at_keys(at)
        except RedisError:
            self.missed += 1
        self._notes.write("sample", second=round(at, 1), values=self._sample)
        self._sample = {}

    def trends(self, begin: float, end: float) -> list[Trend]:
        """Return what became of each series between *begin* and *end*."""
        return [
            trend(name, unit, [point for point in points if begin <= point[0] <= end], limit)
            for name, (unit, limit, points) in self._series.items()
        ]

    def _add(self, name: str, kind: tuple[str, Limit], at: float, value: float) -> None:
        self._series.setdefault(name, (*kind, []))[2].append((at, value))
        self._sample[name] = round(value, 3)

    def _look_at_workers(self, at: float) -> None:
        for name, pid in self._workers.items():
            place = Path("/proc", str(pid))
            try:
                pages = int((place / "statm").read_text("ascii").split()[1])
                found = {
                    "resident memory": pages * os.sysconf("SC_PAGE_SIZE") / _MB,
                    "descriptors": len(list((place / "fd").iterdir())),
                    "threads": len(list((place / "task").iterdir())),
                }
            except OSError:
                continue  # that it has died is told elsewhere
            for what, value in found.items():
                self._add(f"{name}: {what}", OF_WORKER[what], at, value)
        self._hear_of_tasks(at)

    def _hear_of_tasks(self, at: float) -> None:
        names = {pid: name for name, pid in self._workers.items()}
        for line in self._evidence.new_lines():
            if line["event"] == "worker_vitals" and line["pid"] in names:
                name = f"{names[line['pid']]}: tasks"
                self._add(name, OF_WORKER["tasks"], at, line["tasks"])

    async def _look_at_redis(self, at: float) -> None:
        client, prefix = self._client, self._prefix
        facts = await client.info("memory", "clients")
        now = (await client.time())[0]
        due = await client.zrange(f"{prefix}:timers", 0, 0, withscores=True)
        found = {
            "memory": facts["used_memory"] / _MB,
            "resident memory": facts["used_memory_rss"] / _MB,
            "connections": facts["connected_clients"],
            "cached scripts": facts["number_of_cached_scripts"],
            "dead letters": await client.xlen(f"{prefix}:dead"),
            "timers": await client.zcard(f"{prefix}:timers"),
            "timer lateness": max(now - due[0][1] / 1_000, 0.0) if due else 0.0,
            "errors": await self._new_errors(at),
        }
        for what, value in found.items():
            self._add(f"redis: {what}", OF_REDIS[what], at, value)

    async def _new_errors(self, at: float) -> float:
        """Return how many errors a minute Redis has answered with since the last sample."""
        stats = await self._client.info("errorstats")
        counts = Counter({name[len("errorstat_") :]: one["count"] for name, one in stats.items()})
        has_restarted = any(counts[name] < count for name, count in self._last_errors.items())
        new = counts if has_restarted else counts - self._last_errors
        last, self._last_errors = self._looked_at, counts
        self._looked_at = at
        if last is None:
            return 0.0
        self.errors += new
        return new.total() * 60 / max(at - last, 1e-3)

    async def _look_at_keys(self, at: float) -> None:
        client, prefix = self._client, f"{self._prefix}:"
        kinds: Counter[str] = Counter()
        async for key in client.scan_iter(f"{prefix}*", count=_SCANNED_AT_ONCE):
            kinds[key.decode()[len(prefix) :].partition(":")[0]] += 1
        runs = max(kinds["run"], 1)
        for kind in _OF_RUNS & kinds.keys():
            self._add(f"keys: {kind}", _A_RUN, at, kinds.pop(kind) / runs)
        for kind in kinds:
            # A kind that comes late was there before, none times.
            none = [(then, 0.0) for then in self._counted_at]
            self._series.setdefault(f"keys: {kind}", (*_OF_KIND, none))
        others = [name.partition("keys: ")[2] for name in self._series if name.startswith("keys: ")]
        for kind in others:
            if kind not in _OF_RUNS:
                self._add(f"keys: {kind}", _OF_KIND, at, kinds[kind])
        self._counted_at.append(at)
        self._add("redis: keys of no run", OF_REDIS["keys of no run"], at, kinds.total())
        await self._look_at_oldest(at)
        await self._look_at_streams(at)

    async def _look_at_oldest(self, at: float) -> None:
        """Tell how long ago the run ended that has been kept the longest."""
        client, index = self._client, f"{self._prefix}:runs"
        oldest = []
        for workflow in await client.zrange(f"{index}:workflows", 0, -1):
            ended = f"{index}:ended:{workflow.decode()}"
            oldest += [at_ms for _, at_ms in await client.zrange(ended, 0, 0, withscores=True)]
        now = (await client.time())[0]
        since = max(now - min(oldest) / 1_000, 0.0) if oldest else 0.0
        self._add("redis: oldest ended run", OF_REDIS["oldest ended run"], at, since)

    async def _look_at_streams(self, at: float) -> None:
        client = self._client
        streams = await command_streams(client, self._prefix)
        for stream in streams:
            name = stream[len(self._prefix) + 1 :]
            self._add(f"entries: {name}", _OF_STREAM, at, await client.xlen(stream))
        told = await client.xlen(f"{self._prefix}:events")
        self._add("entries: events", _OF_EVENTS, at, told)
        pending, oldest = 0, 0.0
        seconds, microseconds = await client.time()
        for stream in streams:
            found = await client.xpending(stream, _GROUP)
            pending += found["pending"]
            if found["min"]:
                since = int(found["min"].decode().partition("-")[0]) / 1_000
                oldest = max(oldest, seconds + microseconds / 1e6 - since)
        self._add("redis: pending", OF_REDIS["pending"], at, pending)
        self._add("redis: oldest pending", OF_REDIS["oldest pending"], at, oldest)
