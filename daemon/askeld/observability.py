"""Logs: JSON lines with run, step and attempt bound; coloured text on a terminal."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from typing import Any, TextIO

import structlog

from askel.state import Turn, Turned
from askel.workflow import LocalAttempt, Outcome
from askeld.alarm import TimerAlarm
from askeld.terminal import harmless, harmless_lines

Logger = Any

# Without local variables, which hold payloads and secrets.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def _harmless(_logger: Logger, _level: str, record: Any) -> Any:
    """Keep what anybody has called a run from doing anything to the terminal."""
    return {
        name: harmless(value) if isinstance(value, str) else value for name, value in record.items()
    }


def _traceback(stream: TextIO, info: Any) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, info)
    stream.write(harmless_lines(text.getvalue()))


def configure_logs(level: str, *, json: bool | None = None, stream: TextIO = sys.stdout) -> None:
    """Send every log of the process, structlog's and the standard library's, to *stream*.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        json: JSON lines; by default unless *stream* is a terminal.
        stream: Where to write.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    as_json = not stream.isatty() if json is None else json
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(exception_formatter=_traceback)
    )
    last = [_TRACEBACKS, renderer] if as_json else [_harmless, renderer]
    structlog.configure(
        processors=[*_SHARED, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)


class LogObserver:
    """Logs what a driver does; sets the alarm for the timers that its turns arm."""

    def __init__(
        self,
        log: Logger,
        alarm: TimerAlarm,
        idle: Callable[..., None],
        progress: Callable[[], None] | None,
    ) -> None:
        """Write to *log*, bound to one run; report waiting to *idle*, turns to *progress*."""
        self._log = log
        self._alarm = alarm
        self._progress = progress
        self.idle = idle

    def attempt_begun(self, attempt: LocalAttempt) -> None:
        """Log at debug: this happens for every step."""
        self._log.debug("attempt_begun", step=attempt.key, attempt=attempt.attempt)

    def attempt_ended(self, attempt: LocalAttempt, outcome: Outcome) -> None:
        """Log a failure at info, a success at debug; payloads never."""
        if outcome.error is None:
            self._log.debug("attempt_succeeded", step=attempt.key, attempt=attempt.attempt)
        else:
            self._log.info(
                "attempt_failed",
                step=attempt.key,
                attempt=attempt.attempt,
                error=outcome.error.name,
            )

    def turn_taken(self, turn: Turn, answer: Turned) -> None:
        """Log what died with its worker, and the end of the run; set the alarm."""
        if self._progress is not None and answer.word in {"OK", "END"}:
            self._progress()
        for lost in (result for result in turn.results if result.becomes == "lost"):
            if lost.final and answer.word in {"OK", "END"}:
                self._log.warning("attempts_spent", step=lost.name, attempt=lost.attempt)
        for decision in turn.decisions:
            if decision.delay_ms is not None:
                self._alarm.set(decision.delay_ms)
        if answer.word == "END" and turn.end not in {"", "passivate"}:
            self._log.info("run_ended", status=turn.end, turn=turn.number)
        elif answer.word not in {"OK", "END"}:
            self._log.debug("turn_refused", answer=answer.word, turn=turn.number)
