"""One worker under torture: the real one, whose log becomes evidence."""

from __future__ import annotations

import importlib.util
import os
import signal
import traceback
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import structlog

from askeld.config import WorkerConfig
from askeld.process import serve
from askeld.torture import leaky, naive, programs
from askeld.torture.evidence import Evidence
from askeld.worker import Worker

#: Log events below a warning that tell of something the report counts.
_COUNTED = frozenset(
    {
        "worker_ready",
        "worker_vitals",
        "turn_refused",
        "result_refused",
        "entry_lost",
        "entry_reclaimed",
    }
)
_SERIOUS = frozenset({"warning", "error", "critical", "exception"})


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker process is to be.

    Args:
        mode: ``askel``; or a control: ``naive``, or ``leaky``, the real one with leaks planted.
        settings: Fields of `WorkerConfig`.
        evidence: File for what it logs, and for the failpoint it dies at.
        effects: File for the calls of handlers; empty: none.
        errors: File for standard output and error.
        failpoint: Where it dies, as ``ASKEL_FAILPOINT``; empty: nowhere.
    """

    mode: str
    settings: dict[str, Any]
    evidence: str
    effects: str
    errors: str
    failpoint: str = ""


def work(spec: WorkerSpec) -> int:
    """Be the worker; return its exit code."""
    errors = os.open(spec.errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(errors, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ["ASKEL_FAILPOINT"] = spec.failpoint
    os.environ["ASKEL_FAILPOINT_FILE"] = spec.evidence
    evidence = Evidence(spec.evidence)
    if spec.effects:
        programs.effects[:] = [Evidence(spec.effects)]
    config = msgspec.convert(spec.settings, WorkerConfig)
    if spec.mode == "naive":
        return naive.serve(config, evidence)
    if spec.mode == "leaky":
        leaky.plant()
    _log_as(evidence)
    return serve(programs.app, config, "worker")


def warm_up() -> None:
    """Import and compile what a worker needs on its way to work, so that what is forked has it."""
    Worker(programs.app, WorkerConfig(), structlog.get_logger())  # it opens nothing yet

    async def begin() -> None:
        with anyio.open_signal_receiver(signal.SIGTERM):
            await anyio.lowlevel.checkpoint()

    anyio.run(begin, backend_options={"use_uvloop": importlib.util.find_spec("uvloop") is not None})


def _log_as(evidence: Evidence) -> None:
    """Send what the worker logs to *evidence*, as far as anybody will want to know it."""

    def keep(_logger: Any, level: str, record: Any) -> Any:
        event = record.pop("event")
        if level in _SERIOUS or event in _COUNTED:
            facts = {key: record[key] for key in record if key not in {"pid", "at", "event"}}
            facts.pop("exc_info", None)
            evidence.write(event, level=level, **{k: _plain(v) for k, v in facts.items()})
        if isinstance(error := record.get("exc_info"), BaseException):
            traceback.print_exception(error)
        raise structlog.DropEvent

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, keep],
        cache_logger_on_first_use=True,
    )


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else str(value)
