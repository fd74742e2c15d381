"""Every exception askel raises, branched by what the caller can do about it.

    AskelError
    ├── InvalidError                 the call itself is wrong: mend it, nothing was sent
    │   ├── InvalidNameError
    │   ├── InvalidOptionError
    │   ├── PayloadError
    │   └── RegistrationError
    ├── NotFoundError                there is no such thing (any more)
    │   ├── RunNotFoundError
    │   └── StepNotFoundError
    ├── ConflictError                the state refuses: do not retry unchanged
    │   ├── RunExistsError
    │   ├── IllegalTransitionError
    │   └── StepConflictError
    ├── LockError                    somebody else is at work on the run
    │   ├── LockNotAcquiredError     wait longer, or try later
    │   ├── LockLostError            drop the work: nothing sent since has landed
    │   └── NestedLockError          this task holds the lock already
    ├── StoreError                   Redis, or the way to it
    │   ├── StoreUnavailableError    nothing was sent: try again
    │   ├── UnknownOutcomeError      it may have been applied: send the same call again
    │   ├── StoreUnsafeError         this server would lose data: change its configuration
    │   └── StoreReplyError          Redis answered with an error
    │       └── ScriptMissingError   the server forgot a script: the library loads it again
    ├── RunFailedError               the awaited run ended without completing
    ├── WaitTimeoutError             the awaited run has not ended in the time given
    ├── StepFailedError              seen by workflow code: a step failed for good
    ├── NonDeterminismError          the code no longer matches the history of the run
    └── WorkflowCodeError            workflow code did what only a step may do

Messages name ids, never payloads or secrets.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AskelError",
    "ConflictError",
    "IllegalTransitionError",
    "InvalidError",
    "InvalidNameError",
    "InvalidOptionError",
    "LockError",
    "LockLostError",
    "LockNotAcquiredError",
    "NestedLockError",
    "NonDeterminismError",
    "NotFoundError",
    "PayloadError",
    "RegistrationError",
    "RunExistsError",
    "RunFailedError",
    "RunNotFoundError",
    "ScriptMissingError",
    "StepConflictError",
    "StepFailedError",
    "StepNotFoundError",
    "StoreError",
    "StoreReplyError",
    "StoreUnavailableError",
    "StoreUnsafeError",
    "UnknownOutcomeError",
    "WaitTimeoutError",
    "WorkflowCodeError",
]


class AskelError(Exception):
    """Root of everything that askel raises on purpose."""


class InvalidError(AskelError):
    """The call is wrong in itself. Nothing was sent to Redis."""


class InvalidNameError(InvalidError):
    """A run id, step name, key prefix or workflow name is not allowed."""


class InvalidOptionError(InvalidError):
    """An option has a value that makes no sense (a duration, a count, a policy)."""


class PayloadError(InvalidError):
    """A value cannot be carried as JSON, or is larger than the limit."""


class RegistrationError(InvalidError):
    """A workflow or step cannot be registered, or is not registered here."""


class NotFoundError(AskelError):
    """What was asked for does not exist."""


class RunNotFoundError(NotFoundError):
    """No run has this id."""

    def __init__(self, run_id: str) -> None:
        """Name the run that is missing."""
        super().__init__(f"run {run_id!r} does not exist")
        self.run_id = run_id


class StepNotFoundError(NotFoundError):
    """The run has no step of this name."""

    def __init__(self, run_id: str, step_name: str) -> None:
        """Name the run and the step."""
        super().__init__(f"run {run_id!r} has no step {step_name!r}")
        self.run_id = run_id
        self.step_name = step_name


class ConflictError(AskelError):
    """The recorded state refuses the call. Nothing was written."""


class RunExistsError(ConflictError):
    """A run with this id exists already."""

    def __init__(self, run_id: str) -> None:
        """Name the run that exists."""
        super().__init__(f"run {run_id!r} exists already; choose another run_id or if_exists")
        self.run_id = run_id


class IllegalTransitionError(ConflictError):
    """The state machine has no move from the recorded status to the one asked for."""

    def __init__(self, what: str, status: str, wanted: str) -> None:
        """Say what was to move, where it stands and where it should have gone."""
        super().__init__(f"{what} is {status}: it cannot become {wanted}; nothing was written")
        self.status = status
        self.wanted = wanted


class StepConflictError(ConflictError):
    """The step exists with another function or another outcome than the one given."""

    def __init__(self, run_id: str, step_name: str, why: str) -> None:
        """Name the step and say what differs."""
        super().__init__(f"step {step_name!r} of run {run_id!r}: {why}; nothing was written")
        self.run_id = run_id
        self.step_name = step_name


class LockError(AskelError):
    """The run lock stands in the way."""


class LockNotAcquiredError(LockError):
    """The run lock was held by somebody else for as long as the caller would wait."""

    def __init__(self, run_id: str, waited_s: float) -> None:
        """Name the run and how long was waited."""
        super().__init__(
            f"the lock of run {run_id!r} was held by another for {waited_s:.1f} s; "
            "pass a longer wait or try later"
        )
        self.run_id = run_id


class LockLostError(LockError):
    """The run lock is no longer this holder's. Nothing sent since then has landed."""

    def __init__(self, run_id: str) -> None:
        """Name the run."""
        super().__init__(f"the lock of run {run_id!r} was lost; nothing more was written under it")
        self.run_id = run_id


class NestedLockError(LockError):
    """The lock of this run is already held by this very task."""

    def __init__(self, run_id: str) -> None:
        """Name the run."""
        super().__init__(f"the lock of run {run_id!r} is already held here; do not nest it")
        self.run_id = run_id


class StoreError(AskelError):
    """Redis or the connection to it is the trouble."""


class StoreUnavailableError(StoreError):
    """Redis cannot be reached. The command was not sent."""


class UnknownOutcomeError(StoreError):
    """The connection broke after the command was sent: it may or may not have been applied.

    Every script of askel may be sent again with the same content until it gets an answer.
    """


class StoreUnsafeError(StoreError):
    """This Redis would lose data silently (eviction policy, version)."""


class StoreReplyError(StoreError):
    """Redis answered with an error reply."""

    def __init__(self, message: str) -> None:
        """Keep the first word of the reply as the error's ``code``."""
        super().__init__(message)
        self.code = message.split(" ", 1)[0]


class ScriptMissingError(StoreReplyError):
    """NOSCRIPT: the script was not executed because the server does not know it."""


class RunFailedError(AskelError):
    """An awaited run ended as failed or cancelled.

    Attributes:
        status: ``failed`` or ``cancelled``.
        error: The recorded error of the run, if there is one.
    """

    def __init__(self, run_id: str, status: str, error: Any = None) -> None:
        """Name the run, how it ended and why."""
        why = f": {error.message}" if error is not None else ""
        super().__init__(f"run {run_id!r} ended {status}{why}")
        self.run_id = run_id
        self.status = status
        self.error = error


class WaitTimeoutError(AskelError):
    """The run has not ended within the time given. It goes on."""


class StepFailedError(AskelError):
    """Raised in workflow code where a step failed for good.

    Attributes:
        error: The ``SerializedError`` recorded for the last attempt.
    """

    def __init__(self, step_name: str, error: Any) -> None:
        """Carry the recorded error."""
        super().__init__(f"step {step_name!r} failed: {error.message}")
        self.step_name = step_name
        self.error = error


class NonDeterminismError(AskelError):
    """The workflow code reached something else than its history recorded."""


class WorkflowCodeError(AskelError):
    """Workflow code awaited something that is not ``run.…``; such work belongs in a step."""
