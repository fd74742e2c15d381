"""Changes made from what a caller gives: all is checked and encoded before Redis is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from askel.errors import InvalidOptionError
from askel.names import check_name, check_run_id
from askel.state.arguments import as_options, as_status, delay_text, serialized, split_step_id
from askel.state.codec import Codec
from askel.state.ids import IdSource
from askel.state.models import UNSET, RunStatus, SerializedError, StepOptions, StepStatus
from askel.state.writes.changes import Finish, Insert, Move, Note, Retry, SetStatus, SetVariable


class ChangeMakers:
    """Makes the changes that the public write methods stand for; writes nothing."""

    def __init__(self, ids: IdSource, codec: Codec) -> None:
        """Take new ids from *ids*, encode payloads with *codec*."""
        self._ids = ids
        self._codec = codec

    def insert(
        self,
        run_id: str,
        step_name: str,
        rpc_name: str | None,
        data: Any,
        step_options: StepOptions | Mapping[str, Any] | None,
        from_step_name: str | None,
    ) -> Insert:
        """Return the insertion of a step, with an id of its own."""
        options = as_options(step_options)
        return Insert(
            check_name(step_name),
            f"{check_run_id(run_id)}:{step_name}:{self._ids.suffix()}",
            "" if rpc_name is None else check_name(rpc_name, "rpc name"),
            self._codec.encode(data),
            options.retries,
            "" if options.retry_delay is None else delay_text(options.retry_delay),
            "" if from_step_name is None else check_name(from_step_name),
        )

    def move(self, step_id: str, target: StepStatus) -> Move:
        """Return the move of a step to *target*."""
        _, name = split_step_id(step_id)
        return Move(name, step_id, target)

    def result(self, step_id: str, result: Any) -> Finish:
        """Return the success of a step."""
        _, name = split_step_id(step_id)
        return Finish(name, step_id, StepStatus.SUCCEEDED, self._codec.encode(result))

    def error(self, step_id: str, error: BaseException | SerializedError | str) -> Finish:
        """Return the failure of a step."""
        _, name = split_step_id(step_id)
        return Finish(name, step_id, StepStatus.FAILED, self._codec.encode(serialized(error)))

    def retry(self, step_id: str, status: StepStatus | str) -> Retry:
        """Return the next attempt of a step."""
        target = as_status(StepStatus, status)
        if target not in {StepStatus.PENDING, StepStatus.RUNNING}:
            msg = f"a new attempt is 'pending' or 'running', not {status!r}"
            raise InvalidOptionError(msg)
        _, name = split_step_id(step_id)
        return Retry(name, step_id, target, self._ids.nonce())

    def branch(self, step_id: str, branch: str) -> Note:
        """Return the note of the branch a step took."""
        _, name = split_step_id(step_id)
        return Note(name, step_id, "branchTaken", check_name(branch, "branch"))

    def child(self, step_id: str, child_run_id: str) -> Note:
        """Return the note of the run that a step began."""
        _, name = split_step_id(step_id)
        return Note(name, step_id, "childRunId", check_run_id(child_run_id))

    def status(self, status: RunStatus | str, output: Any, error: Any) -> SetStatus:
        """Return the move of the run to *status*: only a completed run has an output, and no error.

        Raises:
            InvalidOptionError: The status is none, or cannot have the outcome given.
        """
        target = as_status(RunStatus, status)
        if target is RunStatus.COMPLETED and error is not None:
            msg = "a completed run has no error: give an output, or another status"
            raise InvalidOptionError(msg)
        if target is not RunStatus.COMPLETED and output is not UNSET:
            msg = f"a run that is {target} has no output: give an error, or status 'completed'"
            raise InvalidOptionError(msg)
        return SetStatus(
            target,
            b"" if output is UNSET else self._codec.encode(output),
            b"" if error is None else self._codec.encode(serialized(error)),
        )

    def variable(self, name: str, value: Any) -> SetVariable:
        """Return the setting of a variable."""
        return SetVariable(check_name(name, "variable name"), self._codec.encode(value))
