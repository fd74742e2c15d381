"""What a run mirror is told of changes that landed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from askel.errors import PayloadError
from askel.state.codec import Codec
from askel.state.models import UNSET, StepStatus
from askel.state.reads.records import fields_of, read_step
from askel.state.writes.changes import (
    Change,
    Finish,
    Insert,
    Move,
    Note,
    Retry,
    SetStatus,
    SetVariable,
    inserted,
)
from askel.state.writes.mirror import MirrorTeller

_log = logging.getLogger("askel.mirror")


async def tell_changes(
    teller: MirrorTeller,
    codec: Codec,
    run_id: str,
    changes: Sequence[Change],
    at: datetime,
    answers: Sequence[Any],
) -> None:
    """Tell of each of *changes*, in order; *answers* are the script's, one each or none at all.

    A transaction that was found done already has an answer to its first change at most: what else
    it inserted is then told as it was asked for.
    """
    for place, change in enumerate(changes):
        answer = answers[place] if place < len(answers) else b""
        try:
            method, subject, *args = _call(codec, run_id, change, at, answer)
        except (PayloadError, KeyError, ValueError) as error:
            # The write has landed: that its step cannot be read is told to no caller.
            _log.warning("the run mirror is not told of a change: %s", type(error).__name__)
            continue
        await teller.tell(method, subject, *args)


def _call(codec: Codec, run_id: str, change: Change, at: datetime, answer: Any) -> tuple[Any, ...]:
    match change:
        case Insert():
            step = (
                read_step(change.step_name, fields_of(answer), codec)
                if answer and isinstance(answer, list)
                else inserted(change, at, codec.decode)
            )
            return ("insert_step_state", run_id, step)
        case Move():
            is_running = change.target is StepStatus.RUNNING
            return ("set_step_running" if is_running else "set_step_scheduled", change.step_id)
        case Finish(target=StepStatus.SUCCEEDED):
            return ("set_step_result", change.step_id, codec.decode(change.json))
        case Finish():
            return ("set_step_error", change.step_id, codec.read_error(change.json))
        case Retry():
            fields = fields_of(answer) if isinstance(answer, list) else None
            retried = None if fields is None else read_step(change.step_name, fields, codec)
            return ("create_retry_attempt", change.step_id, retried)
        case Note(field="branchTaken"):
            return ("set_branch_taken", change.step_id, change.value)
        case Note():
            return ("set_step_child_run_id", change.step_id, change.value)
        case _:
            return _call_of_run(codec, run_id, change)


def _call_of_run(codec: Codec, run_id: str, change: Change) -> tuple[Any, ...]:
    decode: Callable[[bytes], Any] = codec.decode
    if isinstance(change, SetVariable):
        return ("update_run_state", run_id, change.name, decode(change.json))
    assert isinstance(change, SetStatus)
    output = decode(change.output) if change.output else UNSET
    error = codec.read_error(change.error) if change.error else None
    return ("update_run_status", run_id, change.target, output, error)
