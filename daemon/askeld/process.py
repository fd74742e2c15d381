"""The process of a worker: signals, watchdog, health, and an end that means what it says.

Exit 0 says that somebody asked for the end and that it came in order. Whatever else ends the
worker ends it with another code, so that whoever supervises starts it again.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import structlog

from askel import App, AskelError
from askeld.cli.exits import Exit, exit_for
from askeld.cli.hints import explained
from askeld.config import WorkerConfig
from askeld.failpoints import arm
from askeld.notify import Notifier
from askeld.observability import Logger
from askeld.vitals import Vitals
from askeld.watchdog import Watchdog
from askeld.worker import Worker

_GC_THRESHOLD = (10_000, 20, 20)
#: How long tasks and threads that handlers left may take to notice that all is over, in seconds.
_STUCK_S = 0.5
_MOST_NAMED = 10
_DRAINING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Tasks that did not end when they were cancelled: kept, because to collect one runs its code.
_stubborn: list[asyncio.Task[object]] = []


def serve(app: App, config: WorkerConfig, verb: str) -> int:
    """Run a worker in this process for *verb*; return its exit code. `leave` with that."""
    log = structlog.get_logger()
    # What was imported lives as long as the process: the collector need not look at it again and
    # again. Measured: a sixth of the worker's time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLD)
    if not faulthandler.is_enabled():
        faulthandler.enable()  # a handler that crashes the interpreter is named, too
    try:
        return anyio.run(_serve, app, config, log, backend_options={"use_uvloop": _has_uvloop()})
    except BaseExceptionGroup as group:
        return _failed(log, verb, group)
    except BaseException as error:  # noqa: BLE001 - a SystemExit of a handler's task is no end we know
        return _failed(log, verb, BaseExceptionGroup("", [error]))
    finally:
        faulthandler.cancel_dump_traceback_later()


def leave(code: int) -> int:
    """Return *code*; or end the process, when what handlers left behind would keep it alive."""
    end = time.monotonic() + _STUCK_S
    others = [thread for thread in threading.enumerate() if _keeps_alive(thread)]
    for thread in others:
        thread.join(max(end - time.monotonic(), 0))
    stuck = [thread.name for thread in others if thread.is_alive()]
    if stuck or _stubborn:
        names = stuck + [task.get_name() for task in _stubborn]
        structlog.get_logger().warning("left_behind", names=names[:_MOST_NAMED], count=len(names))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _keeps_alive(thread: threading.Thread) -> bool:
    return thread is not threading.main_thread() and not thread.daemon


async def _serve(app: App, config: WorkerConfig, log: Logger) -> int:
    try:
        return await _work(app, config, log)
    finally:
        with anyio.CancelScope(shield=True):
            await _end_tasks(log)


async def _work(app: App, config: WorkerConfig, log: Logger) -> int:
    worker = Worker(app, config, log, reach=arm())
    log = log.bind(worker=worker.consumer_name)
    notifier = Notifier()
    stop = anyio.Event()
    watchdog = Watchdog(
        worker.health,
        notifier,
        log,
        warn_block_ms=config.warn_block_ms,
        max_block_ms=config.max_block_ms,
    )
    with _listening(config, worker, log), watchdog:
        async with _heeding(stop, notifier), anyio.create_task_group() as tasks:
            tasks.start_soon(watchdog.run)
            tasks.start_soon(Vitals(log, config.vitals_ms).run)
            await worker.run(stop, task_status=_Announcement(notifier))
            tasks.cancel_scope.cancel()
    return Exit.OK if stop.is_set() else Exit.ERROR


class _Announcement:
    """Tells systemd when the worker is ready."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier

    def started(self, value: None = None) -> None:  # noqa: ARG002 - as anyio calls it
        self._notifier.send("READY=1", "STATUS=ready")


@contextmanager
def _listening(config: WorkerConfig, worker: Worker, log: Logger) -> Iterator[None]:
    """Tell health by HTTP. A port that is in use is an error only where it was asked for."""
    if not config.http:
        yield
        return
    from askeld.http import HttpServer  # noqa: PLC0415 - a fifth of a second that is not always due

    server = HttpServer(config.http, worker.health, log)
    try:
        worker.health.address = server.start()
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        if config.http_required:
            msg = f"--http {config.http}: {why}: choose another port, or --http off"
            raise AskelError(msg) from None
        log.warning(
            "http_unavailable",
            address=config.http,
            error=why,
            hint="health is told nowhere: choose a port with --http, or --http off",
        )
    try:
        yield
    finally:
        server.stop()


@asynccontextmanager
async def _heeding(stop: anyio.Event, notifier: Notifier) -> AsyncIterator[None]:
    """Set *stop* at the first signal, end the process at the second."""
    # What whoever started us has told us to ignore (nohup) stays ignored.
    heeded = [number for number in _DRAINING if signal.getsignal(number) is not signal.SIG_IGN]

    async def listen() -> None:
        with anyio.open_signal_receiver(*heeded) as received:
            async for number in received:
                if stop.is_set():
                    sys.stdout.flush()
                    os._exit(128 + number)
                notifier.send("STOPPING=1", "STATUS=draining")
                stop.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        yield
        tasks.cancel_scope.cancel()


async def _end_tasks(log: Logger) -> None:
    """Cancel the tasks that handlers left, and leave behind those that do not end."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if not left:
        return
    names = sorted(task.get_name() for task in left)
    log.warning("tasks_left_behind", names=names[:_MOST_NAMED], count=len(left))
    for task in left:
        task.cancel()
    await asyncio.wait(left, timeout=_STUCK_S)
    for task in left:
        if not task.done():
            # Or closing the loop would wait for it.
            asyncio._unregister_task(task)  # noqa: SLF001 - documented, despite its name
            _stubborn.append(task)


def _failed(log: Logger, verb: str, group: BaseExceptionGroup[BaseException]) -> int:
    """Say why the worker ended: one line for what we know, the whole for a mistake of ours."""
    known, unknown = group.split(AskelError)
    if unknown is not None:
        log.error("worker_failed", exc_info=unknown)
        return Exit.ERROR
    assert known is not None
    error: BaseException = known
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AskelError)
    sys.stderr.write(f"askel {verb}: {explained(error)}\n")
    return exit_for(error)


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401, PLC0415 - optional
    except ImportError:
        return False
    return True
