"""Worker processes that start in hundredths of a second, forked by one that has imported all.

They are real processes of their own session and run the same `askel worker`; only the imports were
done before.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, Self

from tests.helpers.workers import WorkerProcess

from askeld.cli import main
from askeld.cli.arguments import load_app
from askeld.config import WorkerConfig
from askeld.observability import configure_logs
from askeld.process import leave, serve

_context: ForkServerContext = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["pytest", "tests.helpers.forked", "tests.apps.parts"])


class ForkedWorker(WorkerProcess):
    """A `WorkerProcess` without the time to start an interpreter; takes the same arguments.

    Args:
        app: As there.
        settings: Fields of `WorkerConfig` for which there is no option.
        options: As there.
    """

    def __init__(self, app: str, *, settings: Mapping[str, Any] | None = None, **options: Any):
        super().__init__(app, **options)
        self._settings = settings

    async def __aenter__(self) -> Self:
        arguments = self._command[self._command.index("worker") :]
        for path in (self.stdout_path, self.stderr_path):
            path.touch()  # whoever looks does not wait for the process
        process = _context.Process(
            target=_work,
            args=(
                arguments,
                self._settings,
                self._env,
                self._cwd,
                self.stdout_path,
                self.stderr_path,
            ),
        )
        process.start()
        self._process: Any = _Popen(process)
        return self


class _Popen:
    """What `WorkerProcess` needs of `subprocess.Popen`, for a forked process."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        assert process.pid is not None
        self.pid = process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _work(
    arguments: Sequence[str],
    settings: Mapping[str, Any] | None,
    env: Mapping[str, str],
    cwd: Path,
    out: Path,
    err: Path,
) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:0] = env["PYTHONPATH"].split(os.pathsep)
    for path, stream in ((os.devnull, 0), (out, 1), (err, 2)):
        flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if stream else 0)
        os.dup2(os.open(path, flags, 0o600), stream)
    if settings is None:
        sys.exit(main(arguments))
    configure_logs("info")
    config = WorkerConfig(url=env["REDIS_URL"], prefix=env["ASKEL_PREFIX"], **settings)
    sys.exit(leave(serve(load_app(arguments[1]), config, "worker")))
