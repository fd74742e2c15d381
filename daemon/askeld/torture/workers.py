"""The worker processes of a run under torture: hired, watched, killed, replaced."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec

from askel import AskelError
from askeld.torture.evidence import EvidenceReader
from askeld.torture.fork_server import News, Order
from askeld.torture.worker_process import WorkerSpec

_POLL_S = 0.01
_RESTART_S = 0.2
_READY_S = 30.0
_CHUNK = 65_536
#: So long a worker that was stopped speaks of what it had done before.
_REMEMBERS_MS = 1_000
#: So many workers may end by themselves before the run is given up.
_MOST_ENDED = 50


class Worker:
    """One process: its pid, whether it takes work, whether it may be harmed."""

    def __init__(self, pid: int, failpoint: str, queues: Sequence[str] = ()) -> None:
        """Know the process *pid*, which dies at *failpoint* if named, and serves *queues*."""
        self.pid = pid
        self.failpoint = failpoint
        self.queues = tuple(queues)
        self.is_spared = bool(failpoint)
        self.is_stopped = False
        self.killed_at: int | None = None
        self.ready = anyio.Event()
        self.stopped_itself = anyio.Event()
        self.dead = anyio.Event()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        if not self.dead.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class _Hiring:
    def __init__(self, failpoint: str, queues: Sequence[str]) -> None:
        self.failpoint = failpoint
        self.queues = queues
        self.there = anyio.Event()
        self.worker: Worker | None = None


class Workers:
    """Hires workers of a fork server, and knows each from its evidence.

    ``silenced`` holds when each pid fell silent (ms) and by what; ``counts`` what the evidence
    said, by event; ``stale`` how workers that had just been woken were refused; ``points`` where
    failpoints bit.
    """

    def __init__(
        self,
        directory: Path,
        count: int,
        spec: Callable[[str], WorkerSpec],
        is_server_away: Callable[[], bool] = lambda: False,
    ) -> None:
        """Keep *count* workers alive, each made to what *spec* returns.

        Args:
            directory: Where evidence is kept.
            count: How many are to be at work.
            spec: Called with the failpoint of each worker that is hired.
            is_server_away: Whether a worker cannot stay at work for now, and that is our doing.
        """
        self._directory = directory
        self._count = count
        self._spec = spec
        self._is_server_away = is_server_away
        self._orders: dict[int, _Hiring] = {}
        self._number = 0
        self._balancing = anyio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = EvidenceReader(directory / "evidence.jsonl")
        self.alive: dict[int, Worker] = {}
        self.silenced: dict[int, list[tuple[int, str]]] = {}
        self.counts: Counter[str] = Counter()
        self.stale: Counter[str] = Counter()
        self._woken: dict[int, int] = {}
        self.points: Counter[str] = Counter()
        self.mishaps: list[dict[str, Any]] = []
        self.ended: list[str] = []
        self._ended_in_a_row = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Run the fork server and watch; at the end nothing of it is left."""
        ours = self._control = self._start()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen)
                tasks.start_soon(self._watch)
                tasks.start_soon(self._restart)
                try:
                    yield
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            ours.close()  # upon which it kills them all
            self._wait()
            self.read_evidence()
            self._reader.close()

    def _start(self) -> socket.socket:
        """Start the fork server; return the socket that it listens to."""
        ours, theirs = socket.socketpair()
        with theirs, (self._directory / "workers.err").open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "askeld.torture.fork_server"],
                stdin=theirs.fileno(),
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        ours.setblocking(False)  # noqa: FBT003 - its only argument
        return ours

    def _wait(self) -> None:
        assert self._process is not None
        self._process.wait()

    async def hire(self, failpoint: str = "") -> Worker:
        """Start one more worker and return it when it is there; it may not be ready yet."""
        number, self._number = self._number, self._number + 1
        spec = self._spec(failpoint)
        hiring = self._orders[number] = _Hiring(failpoint, spec.settings["queues"])
        order = Order(number, spec)
        await self._send(msgspec.json.encode(order) + b"\n")
        with anyio.fail_after(_READY_S):
            await hiring.there.wait()
        assert hiring.worker is not None
        return hiring.worker

    async def balance(self) -> None:
        """Hire, or kill, until as many are at work as there are to be."""
        async with self._balancing:
            while len(self._active()) < self._count:
                await self.hire()
            for worker in self._active()[self._count :]:
                await self.kill(worker)

    async def fill(self) -> None:
        """Return when as many as there are to be take work."""
        await self.balance()
        for worker in self._active():
            with anyio.move_on_after(_READY_S):
                await worker.ready.wait()

    def serves(self, queues: Sequence[str]) -> bool:
        """Tell whether one of those at work serves all of *queues*."""
        return any(set(queues) <= set(worker.queues) for worker in self._active())

    def _active(self) -> list[Worker]:
        return [
            worker
            for worker in self.alive.values()
            if not worker.failpoint and not worker.is_stopped and worker.killed_at is None
        ]

    def victims(self) -> list[Worker]:
        """Return the workers that are at work and may be harmed, oldest first."""
        return [
            worker
            for worker in self.alive.values()
            if worker.ready.is_set() and not worker.is_spared and not worker.dead.is_set()
        ]

    async def kill(self, worker: Worker, by: str = "") -> bool:
        """End *worker* as a crash would, and return when it is dead; False if it was already."""
        if worker.dead.is_set() or worker.killed_at is not None:
            await worker.dead.wait()
            return False
        worker.is_spared = True
        worker.killed_at = self.silence(worker, by)
        worker.signal(signal.SIGKILL)
        await worker.dead.wait()
        return True

    def dismiss(self, worker: Worker) -> None:
        """Tell *worker* to end in order, as a deploy does; whatever it says then is expected."""
        worker.is_spared = True
        worker.killed_at = time.time_ns() // 1_000_000
        worker.signal(signal.SIGTERM)

    def silence(self, worker: Worker, by: str) -> int:
        """Note that nothing is heard of *worker* from now on, and return the time (ms)."""
        at = time.time_ns() // 1_000_000
        self.silenced.setdefault(worker.pid, []).append((at, by))
        return at

    def wake(self, worker: Worker) -> None:
        """Let *worker*, which was stopped, go on: for a while it speaks of what it remembers."""
        self._woken[worker.pid] = time.time_ns() // 1_000_000
        worker.signal(signal.SIGCONT)

    def read_evidence(self) -> None:
        """Take in what the processes have written since."""
        for line in self._reader.new_lines():
            self._heed(line)

    def _heed(self, line: dict[str, Any]) -> None:
        event, worker = line["event"], self.alive.get(line["pid"])
        match event:
            case "worker_ready":
                self._ended_in_a_row = 0
                if worker is not None:
                    worker.ready.set()
            case "failpoint":
                self.points[line["point"]] += 1
                self.silenced.setdefault(line["pid"], []).append((line["at"], "failpoint"))
                if worker is not None:
                    worker.killed_at = line["at"]
            case "stoppoint" if worker is not None:
                worker.stopped_itself.set()
            case "turn_refused" | "result_refused":
                event = f"{event} {line['answer']}"
                woken = self._woken.get(line["pid"])
                if woken is not None and line["at"] - woken <= _REMEMBERS_MS:
                    self.stale[event] += 1
            case _ if line.get("level") in {"error", "critical"}:
                self.mishaps.append(line)
        self.counts[event] += 1

    async def _send(self, data: bytes) -> None:
        while data:
            try:
                data = data[self._control.send(data) :]
            except BlockingIOError:
                await anyio.wait_writable(self._control)

    async def _listen(self) -> None:
        decoder, rest = msgspec.json.Decoder(News), b""
        while True:
            await anyio.wait_readable(self._control)
            chunk = b""
            with suppress(ConnectionError):
                chunk = self._control.recv(_CHUNK)
            if not chunk:
                text = (self._directory / "workers.err").read_text(errors="replace")
                raise AskelError(f"the fork server ended: {text.strip().splitlines()[-1:]}")
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._learn(decoder.decode(line))

    def _learn(self, news: News) -> None:
        if news.status is None:
            hiring = self._orders.pop(news.number)
            hiring.worker = self.alive[news.pid] = Worker(news.pid, hiring.failpoint, hiring.queues)
            hiring.there.set()
            return
        self.read_evidence()
        worker = self.alive.pop(news.pid)
        worker.dead.set()
        if worker.killed_at is None:
            self.ended.append(f"worker {worker.pid} ended by itself with {news.status}")
            self._ended_in_a_row += not self._is_server_away()
            if self._ended_in_a_row > _MOST_ENDED:
                text = (self._directory / "workers.err").read_text(errors="replace")
                said = text.strip().splitlines()[-1:]
                raise AskelError(f"no worker stays at work: {self.ended[-1]}: {said}")

    async def _restart(self) -> None:
        """Do what systemd would: a worker that ended by itself is started again."""
        while True:
            await anyio.sleep(_RESTART_S)
            await self.balance()

    async def _watch(self) -> None:
        while True:
            self.read_evidence()
            await anyio.sleep(_POLL_S)
