"""``askel worker``: serve an app until told to stop."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import structlog

from askel import App, AskelError, InvalidOptionError
from askel.state import check_compat
from askel.workflow import THREAD_NAME
from askeld.cli.arguments import (
    add_redis_options,
    duration_argument,
    load_app,
    required_url,
)
from askeld.cli.exits import Exit, exit_for
from askeld.config import WorkerConfig
from askeld.failpoints import failpoint
from askeld.observability import configure_logs
from askeld.worker import Worker

EPILOG = """\
examples:
  askel worker shop:app
  askel worker shop:app --queue warehouse --concurrency 50
  REDIS_URL=redis://10.0.0.5:6379 python -m askeld shop:app

SIGTERM drains: nothing new is read, running steps end, the rest is handed back, exit 0.
A second signal stops at once.
"""

#: Durations a worker takes: option -> (field of WorkerConfig, help).
_DURATIONS = {
    "lease": ("lease_ms", "how long an owner may be silent (10s)"),
    "claim-idle": ("claim_idle_ms", "silence after which work is taken over (12s)"),
    "linger": ("linger_ms", "how long a waiting run is kept in memory (10s)"),
    "drain-timeout": ("drain_ms", "how long running steps may take at the end (25s)"),
    "unknown-after": ("unknown_after_ms", "give up on a name no worker has (10min)"),
    "retention-every": ("retention_ms", "how often retention policies are applied (30s)"),
    "not-found-after": ("not_found_after_ms", "give up on a run that is not there (25s)"),
}
_COUNTS = {
    "concurrency": "entries worked on at a time (500)",
    "threads": "threads for steps that are not async (40)",
    "max-deliveries": "deliveries of a command that kills its worker (5)",
}

_LEVELS = ("debug", "info", "warning", "error")

_GC_THRESHOLD = (10_000, 20, 20)
#: How long threads may take to notice that nothing more is to be done, in seconds.
_STUCK_S = 0.5


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("app", nargs="?", default=os.environ.get("ASKEL_APP"), help="module:app")
    add_redis_options(parser)
    add_worker_options(parser)
    parser.set_defaults(call=work, verb=verb)


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that tune a worker; each has its ``ASKEL_…`` variable."""
    parser.add_argument(
        "--queue", action="append", metavar="NAME", help="serve this queue, too (repeatable)"
    )
    for name, line in _COUNTS.items():
        parser.add_argument(f"--{name}", metavar="N", help=f"{line} [{_variable(name)}]")
    for name, (_, line) in _DURATIONS.items():
        parser.add_argument(f"--{name}", metavar="TIME", help=f"{line} [{_variable(name)}]")
    parser.add_argument("--log-level", choices=_LEVELS, help="what to log (info) [ASKEL_LOG_LEVEL]")
    parser.add_argument(
        "--compat",
        metavar="SYSTEM",
        help="pikku: share the prefix with Node services [ASKEL_COMPAT]",
    )
    parser.add_argument(
        "--allow-unsafe-redis", action="store_true", help="accept a Redis that evicts or is old"
    )


def _variable(name: str) -> str:
    return f"ASKEL_{name.replace('-', '_').upper()}"


def config_from(options: argparse.Namespace, url: str, **defaults: int) -> WorkerConfig:
    """Return the settings: flag, else environment, else *defaults*, else those of WorkerConfig."""
    settings: dict[str, object] = {**defaults, "url": url, "prefix": options.prefix}
    for name in _COUNTS:
        where, text = given(options, name)
        if text is not None:
            settings[name.replace("-", "_")] = _count(where, text)
    for name, (field, _) in _DURATIONS.items():
        where, text = given(options, name)
        if text is not None:
            settings[field] = duration_argument(where, text)
    queues = options.queue or [q for q in os.environ.get("ASKEL_QUEUES", "").split(",") if q]
    settings["queues"] = ("", *queues)
    settings["compat"] = _compat(*given(options, "compat"))
    settings["allow_unsafe"] = options.allow_unsafe_redis
    settings["clock_offset_ms"] = int(os.environ.get("ASKEL_CLOCK_OFFSET_MS", "0"))
    return WorkerConfig(**settings)  # type: ignore[arg-type]


def given(options: argparse.Namespace, name: str) -> tuple[str, str | None]:
    """Return what was given for an option, and where: by its flag, else by its variable."""
    value = getattr(options, name.replace("-", "_"))
    if value is not None:
        return f"--{name}", str(value)
    return _variable(name), os.environ.get(_variable(name)) or None


def _compat(where: str, text: str | None) -> str | None:
    try:
        return check_compat(text)
    except InvalidOptionError as error:
        raise InvalidOptionError(f"{where}: {error}") from None


def _count(where: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        msg = f"{where} {text!r:.80} is no count: give 1 or more"
        raise InvalidOptionError(msg)
    return int(text)


def log_level(options: argparse.Namespace) -> str:
    """Return the log level of flag or environment.

    Raises:
        InvalidOptionError: The environment names one that does not exist.
    """
    level: str = options.log_level or os.environ.get("ASKEL_LOG_LEVEL") or "info"
    if level not in _LEVELS:
        msg = f"ASKEL_LOG_LEVEL {level!r:.80} is no level: give one of {', '.join(_LEVELS)}"
        raise InvalidOptionError(msg)
    return level


def work(options: argparse.Namespace) -> int:
    """Run a worker until SIGTERM or SIGINT."""
    if not options.app:
        msg = "which app? write askel worker module:app, or set ASKEL_APP"
        raise InvalidOptionError(msg)
    app = load_app(options.app)
    config = config_from(options, required_url(options))
    configure_logs(log_level(options))
    code = serve(app, config, options.verb)
    _leave_stuck_threads(code)
    return code


def _leave_stuck_threads(code: int) -> None:
    """End the process although a handler still blocks its thread: its step was handed back."""
    end = time.monotonic() + _STUCK_S
    for thread in threading.enumerate():
        if thread.name.startswith(THREAD_NAME):
            thread.join(max(end - time.monotonic(), 0))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)


def serve(app: App, config: WorkerConfig, verb: str) -> int:
    """Run a worker in this process for *verb*; return its exit code."""
    log = structlog.get_logger()
    # What was imported lives as long as the process: the collector need not look at it again and
    # again. Measured: a sixth of the worker's time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLD)
    try:
        return anyio.run(_serve, app, config, log, backend_options={"use_uvloop": _has_uvloop()})
    except BaseExceptionGroup as group:
        return _failed(log, verb, group)
    except AskelError as error:
        return _failed(log, verb, BaseExceptionGroup("", [error]))


async def _serve(app: App, config: WorkerConfig, log: structlog.BoundLogger) -> int:
    worker = Worker(app, config, log, reach=failpoint(os.environ.get("ASKEL_FAILPOINT")))
    stop = anyio.Event()
    async with _signals(stop) as second, anyio.create_task_group() as tasks:

        async def cut_short() -> None:
            await second.wait()
            os._exit(128 + signal.SIGTERM)

        tasks.start_soon(cut_short)
        await worker.run(stop)
        tasks.cancel_scope.cancel()
    return Exit.OK


@asynccontextmanager
async def _signals(stop: anyio.Event) -> AsyncIterator[anyio.Event]:
    """Set *stop* at the first SIGTERM or SIGINT, and the yielded event at the second."""
    second = anyio.Event()

    async def listen() -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            async for _ in received:
                (second if stop.is_set() else stop).set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        yield second
        tasks.cancel_scope.cancel()


def _failed(log: structlog.BoundLogger, verb: str, group: BaseExceptionGroup[BaseException]) -> int:
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
    sys.stderr.write(f"askel {verb}: {error}\n")
    return exit_for(error)


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401, PLC0415 - optional
    except ImportError:
        return False
    return True
