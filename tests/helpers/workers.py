"""Worker processes: started, waited for, killed at named points, read by their logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.helpers.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
_SOURCES = (ROOT, ROOT / "state", ROOT / "daemon")


class WorkerProcess:
    """One `askeld worker MODULE:APP` of its own, an async context manager.

    Entering starts it and does not wait (see `wait_ready`); leaving kills what is left of it. A
    test that fails inside the block shows the end of the worker's output.

    Args:
        app: `MODULE:APP`.
        redis_url: What the worker gets as REDIS_URL; a `FaultProxy`'s url, for instance.
        prefix: Its ASKEL_PREFIX.
        directory: Where its output goes: the test's `tmp_path`.
        args: Further arguments of `worker`.
        pythonpath: Folders to import from, before the repository's own.
        cwd: Its working directory, by default *directory*.
        env: Further variables. ASKEL_* variables of this process are not handed on.
        failpoint: `name` or `name:nth`: it kills itself when it gets there (the nth time).
        clock_offset_ms: How far ahead its clock is.
        command: What to run instead of the daemon.
    """

    def __init__(
        self,
        app: str,
        *,
        redis_url: str,
        prefix: str,
        directory: Path,
        args: Sequence[str] = (),
        pythonpath: Sequence[Path | str] = (),
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        failpoint: str | None = None,
        clock_offset_ms: int | None = None,
        command: Sequence[str] = (sys.executable, "-m", "askeld", "worker"),
    ):
        self._command = [*command, app, *args]
        self._cwd = cwd or directory
        name = f"worker-{uuid.uuid4().hex[:8]}"
        self.stdout_path = directory / f"{name}.out"
        self.stderr_path = directory / f"{name}.err"
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("ASKEL_") and key != "REDIS_URL"
        }
        folders = [str(folder) for folder in (*pythonpath, *_SOURCES)]
        own = {
            "REDIS_URL": redis_url,
            "ASKEL_PREFIX": prefix,
            "PYTHONPATH": os.pathsep.join(folders),
            "PYTHONUNBUFFERED": "1",
            "ASKEL_HTTP": "off",
        }
        if failpoint is not None:
            own["ASKEL_FAILPOINT"] = failpoint
        if clock_offset_ms is not None:
            own["ASKEL_CLOCK_OFFSET_MS"] = str(clock_offset_ms)
        self._env = inherited | own | dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        with self.stdout_path.open("wb") as out, self.stderr_path.open("wb") as err:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self._cwd,
                env=self._env,
                start_new_session=True,
            )
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.kill()
        self._started.wait()
        if error is not None:
            error.add_note(self.tail())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._started.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number when a signal ended it."""
        return self._started.poll()

    def kill(self) -> None:
        """SIGKILL: nothing of it runs any more once `wait` has returned."""
        self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM: it is asked to drain."""
        self._signal(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP, as a machine that freezes."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    async def wait(self, timeout: float = 20) -> int:
        """Wait for its end and return its code; AssertionError when it runs on."""
        await wait_until(
            lambda: self.returncode is not None,
            timeout,
            lambda: f"the end of the worker\n{self.tail()}",
        )
        return self._started.wait()

    async def wait_ready(self, timeout: float = 20) -> dict[str, Any]:
        """Wait until it says that it takes work; AssertionError as soon as it has ended before."""
        return await self.wait_log("worker_ready", timeout)

    async def wait_log(self, event: str, timeout: float = 20, **fields: Any) -> dict[str, Any]:
        """Wait for a log line of this event and these fields, return the first one.

        Raises:
            AssertionError: It did not come in time, or the process ended without.
        """
        wanted = {"event": event, **fields}

        def found() -> dict[str, Any] | None:
            ended = self.returncode is not None  # Asked before reading, or a last line is missed.
            for line in self.logs():
                if all(line.get(key) == value for key, value in wanted.items()):
                    return line
            if ended:
                message = f"the worker ended with {self.returncode} without {event}"
                raise AssertionError(f"{message}\n{self.tail()}")
            return None

        line = await wait_until(found, timeout, lambda: f"{event}\n{self.tail()}")
        assert line is not None
        return line

    def logs(self) -> list[dict[str, Any]]:
        """Return its log records so far: the lines on either output that are JSON objects."""
        return [record for line in self.output().splitlines() for record in _record(line)]

    def output(self) -> str:
        """Return all that it printed so far, standard error last."""
        paths = (self.stdout_path, self.stderr_path)
        return "\n".join(path.read_text(errors="backslashreplace") for path in paths)

    def tail(self, lines: int = 30) -> str:
        """Return the end of its output, for people."""
        end = self.output().splitlines()[-lines:]
        return "\n".join([f"end of the output of worker {self.pid}:", *end])

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the worker was not started: use `async with`"
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        self._started.send_signal(number)  # Does nothing when it has ended.


def _record(line: str) -> Iterator[dict[str, Any]]:
    try:
        value = json.loads(line)
    except ValueError:
        return
    if isinstance(value, dict):
        yield value
