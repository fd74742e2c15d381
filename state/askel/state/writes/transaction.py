"""Several changes of one run in one atomic write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias

from askel.errors import InvalidOptionError
from askel.state.models import UNSET, RunStatus, SerializedError, StepOptions, StepStatus
from askel.state.writes.change_makers import ChangeMakers
from askel.state.writes.changes import MAX_CHANGES, Change

Apply: TypeAlias = Callable[[str, list[Change]], Awaitable[Any]]


_OVER = "a transaction takes calls inside its block alone, and has one block: begin another"


class QueuedStep(NamedTuple):
    """A step that a transaction is about to change: ``step_id`` is for its further calls."""

    step_id: str


class Queued:
    """What a queued call returns. It may be awaited, which waits for nothing: none was sent yet.

    Attributes:
        step_id: The step that the call is about; of an insertion, the id to pass to further calls
            of the same transaction. Empty for a change of the run itself.
    """

    __slots__ = ("step_id",)

    def __init__(self, step_id: str = "") -> None:
        """Name the step."""
        self.step_id = step_id

    def __await__(self) -> Generator[Any, None, QueuedStep]:
        """Return the step at once."""
        yield from ()
        return QueuedStep(self.step_id)


class Transaction:
    """Queues writes to one run; all are applied at the end of the block, or none.

    Its methods are those of the service without the waiting: they check and encode what they are
    given, and raise for that at once. What Redis refuses is raised where the block ends, naming
    the change; then nothing was written.
    """

    __slots__ = ("_apply", "_changes", "_make", "_state", "_stem", "run_id")

    def __init__(self, run_id: str, make: ChangeMakers, apply: Apply) -> None:
        """Queue changes of *run_id*; hand them to *apply* where the block ends well."""
        self.run_id = run_id
        self._stem = f"{run_id}:"
        self._make = make
        self._apply = apply
        self._changes: list[Change] = []
        self._state = "new"

    async def __aenter__(self) -> Self:
        """Take calls from now on; only once.

        Raises:
            InvalidOptionError: The block was entered before.
        """
        if self._state != "new":
            raise InvalidOptionError(_OVER)
        self._state = "open"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take no more calls; apply what was queued, unless the body raised."""
        self._state = "over"
        if kind is None and self._changes:
            await self._apply(self.run_id, self._changes)

    def insert_step_state(
        self,
        step_name: str,
        rpc_name: str | None,
        data: Any = None,
        step_options: StepOptions | Mapping[str, Any] | None = None,
        from_step_name: str | None = None,
    ) -> Queued:
        """Insert a step, pending; one that exists for the same function is left as it is.

        The ``step_id`` of what it returns stands for the step in this transaction either way.
        """
        change = self._make.insert(
            self.run_id, step_name, rpc_name, data, step_options, from_step_name
        )
        self._add(change)
        return Queued(change.step_id)

    def set_step_scheduled(self, step_id: str) -> Queued:
        """Move a pending step to ``scheduled``."""
        return self._of_step(step_id, self._make.move(step_id, StepStatus.SCHEDULED))

    def set_step_running(self, step_id: str) -> Queued:
        """Move a pending or scheduled step to ``running``."""
        return self._of_step(step_id, self._make.move(step_id, StepStatus.RUNNING))

    def set_step_result(self, step_id: str, result: Any) -> Queued:
        """Record the result of a step."""
        return self._of_step(step_id, self._make.result(step_id, result))

    def set_step_error(self, step_id: str, error: BaseException | SerializedError | str) -> Queued:
        """Record the failure of a step's attempt."""
        return self._of_step(step_id, self._make.error(step_id, error))

    def create_retry_attempt(
        self, failed_step_id: str, status: StepStatus | str = "pending"
    ) -> Queued:
        """Begin the next attempt of a failed step."""
        return self._of_step(failed_step_id, self._make.retry(failed_step_id, status))

    def set_branch_taken(self, step_id: str, branch: str) -> Queued:
        """Note which branch the step took."""
        return self._of_step(step_id, self._make.branch(step_id, branch))

    def set_step_child_run_id(self, step_id: str, child_run_id: str) -> Queued:
        """Note which run the step began."""
        return self._of_step(step_id, self._make.child(step_id, child_run_id))

    def update_run_status(
        self,
        status: RunStatus | str,
        output: Any = UNSET,
        error: BaseException | SerializedError | str | None = None,
    ) -> Queued:
        """Move the run to *status*."""
        self._add(self._make.status(status, output, error))
        return Queued()

    def update_run_state(self, name: str, value: Any) -> Queued:
        """Set a variable of the run."""
        self._add(self._make.variable(name, value))
        return Queued()

    def _of_step(self, step_id: str, change: Change) -> Queued:
        if not step_id.startswith(self._stem):
            msg = f"step id {step_id!r} is of another run than {self.run_id!r}: one transaction "
            msg += "changes one run"
            raise InvalidOptionError(msg)
        self._add(change)
        return Queued(step_id)

    def _add(self, change: Change) -> None:
        if self._state != "open":
            raise InvalidOptionError(_OVER)
        if len(self._changes) == MAX_CHANGES:
            msg = f"a transaction takes at most {MAX_CHANGES} changes: begin another"
            raise InvalidOptionError(msg)
        self._changes.append(change)
