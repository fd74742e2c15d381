"""What callers of the service give and get: checked arguments, and answers as exceptions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

import msgspec

from askel.durations import duration_ms, duration_text
from askel.errors import (
    IllegalTransitionError,
    InvalidNameError,
    InvalidOptionError,
    LockLostError,
    RunNotFoundError,
    StepNotFoundError,
)
from askel.names import check_name, check_run_id
from askel.state.codec import MAX_ERROR_TEXT, serialize_error, shortened
from askel.state.models import IfExists, RunStatus, SerializedError, StepOptions, StepStatus
from askel.state.protocol.turns import Answer

_Status = TypeVar("_Status", RunStatus, StepStatus)


def as_status(kind: type[_Status], status: str) -> _Status:
    """Return *status* as a member of *kind*, or raise InvalidOptionError."""
    try:
        return kind(status)
    except ValueError:
        msg = f"{status!r:.80} is no status: use one of {', '.join(kind)}"
        raise InvalidOptionError(msg) from None


def as_policy(policy: str) -> IfExists:
    """Return *policy* as a member, or raise InvalidOptionError."""
    try:
        return IfExists(policy)
    except ValueError:
        msg = f"if_exists={policy!r:.80} is not known: use one of {', '.join(IfExists)}"
        raise InvalidOptionError(msg) from None


_NO_OPTIONS = StepOptions()
_DELAYS = frozenset({str, type(None)})


def as_options(options: StepOptions | Mapping[str, Any] | None) -> StepOptions:
    """Return *options* as StepOptions, or raise InvalidOptionError."""
    if options is None:
        return _NO_OPTIONS
    if type(options) is StepOptions and type(options.retry_delay) in _DELAYS:
        retries = options.retries
        if retries is None or (type(retries) is int and retries >= 0):
            return options  # as almost all are; any other is looked at below, for the message
    try:
        given = (
            msgspec.to_builtins(options, enc_hook=str)
            if isinstance(options, StepOptions)
            else options
        )
        result = msgspec.convert(given or {}, StepOptions)
    except msgspec.ValidationError as error:
        msg = f"step options: {error}"
        raise InvalidOptionError(msg) from error
    if isinstance(options, Mapping) and (unknown := set(options) - {"retries", "retry_delay"}):
        msg = f"step options: unknown {', '.join(sorted(unknown))}; use retries and retry_delay"
        raise InvalidOptionError(msg)
    if result.retries is not None and result.retries < 0:
        msg = "step options: retries must not be negative"
        raise InvalidOptionError(msg)
    return result


def delay_text(delay: Any) -> str:
    """Return the stored text of a retry delay: a duration with its unit, or ``exponential``."""
    return "exponential" if delay == "exponential" else duration_text(duration_ms(delay))


def serialized(error: BaseException | SerializedError | str) -> SerializedError:
    """Return what is stored of *error*, a text being its message, or raise InvalidOptionError."""
    if isinstance(error, SerializedError):
        return shortened(error)
    if isinstance(error, BaseException):
        return serialize_error(error)
    if isinstance(error, str) and error:
        return SerializedError(error[:MAX_ERROR_TEXT])
    msg = f"an error is an exception, a SerializedError or a text, not a {type(error).__name__}"
    raise InvalidOptionError(msg)


# Ids as almost all are; any other is looked at part by part, for the message.
_STEP_ID = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,127}):([ -~]{1,128}):[ -9;-~]+").fullmatch
_PLAIN_LENGTH = 256


def split_step_id(step_id: str) -> tuple[str, str]:
    """Return the run id and the step name of a step id ``run:name:suffix``."""
    if not isinstance(step_id, str):
        msg = f"a step id is text, not a {type(step_id).__name__}: pass the step_id of a StepState"
        raise InvalidNameError(msg)
    return _split(step_id)


@lru_cache(maxsize=1_024)  # several calls name the same step, one after the other
def _split(step_id: str) -> tuple[str, str]:
    if len(step_id) < _PLAIN_LENGTH and (match := _STEP_ID(step_id)) is not None:
        return match[1], match[2]
    run_id, _, rest = step_id.partition(":")
    name, _, suffix = rest.rpartition(":")
    if not suffix:
        msg = f"step id {step_id!r:.80} is not allowed: pass the step_id of a StepState"
        raise InvalidNameError(msg)
    return check_run_id(run_id), check_name(name)


def raise_refusal(
    answer: Answer, run_id: str, what: str, wanted: str, *, step: str | None = None
) -> None:
    """Raise what a script's answer means for the caller; return when the write stands."""
    match answer[0]:
        case b"OK" | b"ALREADY":
            return
        case b"NOTFOUND" if step is not None:
            raise StepNotFoundError(run_id, step)
        case b"NOTFOUND":
            raise RunNotFoundError(run_id)
        case b"LOCKLOST":
            raise LockLostError(run_id)
        case b"ILLEGAL":
            raise IllegalTransitionError(what, answer[1].decode(), wanted)
        case b"TERMINAL":
            ended = f"run {run_id!r}"
            raise IllegalTransitionError(ended, answer[1].decode(), "changed any more")
        case _:
            _unknown(answer)


def _unknown(answer: Answer) -> NoReturn:
    msg = f"a script answered {answer[0]!r}, which its header does not list"
    raise AssertionError(msg)
