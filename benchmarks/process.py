"""Worker processes, and how much CPU a process has used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread

from benchmarks.figures import BenchmarkError

ROOT = Path(__file__).resolve().parents[1]
_READY_S = 20.0
_STOP_S = 15.0
_PAUSE_S = 0.02
_TAIL_LINES = 12
# The watchdog reads a pipe that only the benchmarks hold open: when they end in whatever way, it
# ends the worker, which the shell has become by then. It stays in the worker's process group, so
# that the worker's pid is not given to a stranger before.
_LAUNCHER = 'exec 3<&0 </dev/null; (read -r _ <&3; kill -KILL $$) & exec "$@" 3<&-'


class WorkerProcess:
    """One ``askel worker``, started with the settings a user gets."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def cpu_us(self) -> float | None:
        """How much CPU it has used; None where the system does not say."""
        return cpu_us(self._process.pid)

    def check(self) -> None:
        """Raise BenchmarkError if it has ended."""
        if self._process.poll() is not None:
            raise BenchmarkError(f"the worker ended with {self._process.returncode}{self._tail()}")

    async def wait_ready(self) -> None:
        """Return when it says that it takes work."""
        with anyio.move_on_after(_READY_S):
            while b"worker_ready" not in self._log.read_bytes():
                self.check()
                await anyio.sleep(_PAUSE_S)
            return
        raise BenchmarkError(f"the worker was not ready within {_READY_S:g} s{self._tail()}")

    async def stop(self) -> None:
        """Let it drain; BenchmarkError if that fails."""
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            await anyio.to_thread.run_sync(self._process.wait, _STOP_S)
        if self._process.poll() != 0:
            raise BenchmarkError(f"the worker did not stop properly{self._tail()}")

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(["; the end of its log:", *lines])


@asynccontextmanager
async def worker(
    url: str, prefix: str, arguments: Sequence[str] = ()
) -> AsyncIterator[WorkerProcess]:
    """Run a worker of the benchmarks' app for the body; it is ready when the body begins."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ASKEL_") and name != "REDIS_URL"
    }
    environment |= {"REDIS_URL": url, "ASKEL_PREFIX": prefix}
    with tempfile.TemporaryDirectory(prefix="askel-bench-") as directory:
        log = Path(directory, "worker.log")
        words = [sys.executable, "-m", "askeld", "worker", "benchmarks.app:app", *arguments]
        started = WorkerProcess(_spawn(words, environment, log), log)
        try:
            await started.wait_ready()
            yield started
            await started.stop()
        finally:
            started.kill()


def _spawn(words: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            ["/bin/sh", "-c", _LAUNCHER, "askel-bench", *words],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )


def cpu_us(pid: int) -> float | None:
    """Return the CPU time of all threads of a process in µs; None where the system does not say."""
    total = 0
    found = False
    # By thread and in nanoseconds; /proc/PID/stat counts in hundredths of a second.
    for path in Path("/proc", str(pid), "task").glob("*/schedstat"):
        with suppress(OSError):  # a thread that has just ended
            total += int(path.read_text().split()[0])
            found = True
    return total / 1_000 if found else None
