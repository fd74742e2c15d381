"""Every exception askel raises, branched by what the caller can do about it.

    AskelError
    ├── InvalidError                 the call itself is wrong: mend it, nothing was sent
    │   ├── InvalidNameError
    │   ├── InvalidOptionError
    │   ├── BlockingCallError        a blocking call where an event loop runs: await the async one
    │   ├── PayloadError
    │   │   ├── SealedPayloadError   this process lacks what opens it: give it the key, go on
    │   │   │   └── UnknownKeyError
    │   │   └── TamperedPayloadError it was changed or damaged
    │   └── RegistrationError
    ├── NotFoundError                there is no such thing (any more)
    │   ├── RunNotFoundError
    │   ├── StepNotFoundError
    │   └── VersionNotFoundError
    ├── ConflictError                the state refuses: do not retry unchanged
    │   ├── RunExistsError
    │   ├── RunActiveError           it has not ended: end it first, or force
    │   ├── IllegalTransitionError
    │   └── StepConflictError
    ├── LockError                    somebody else is at work on the run
    │   ├── LockNotAcquiredError     wait longer, or try later
    │   ├── LockLostError            drop the work: nothing sent since has landed
    │   └── NestedLockError          this task holds the lock already
    ├── StoreError                   Redis, or the way to it
    │   ├── DamagedRecordError       a record there cannot be read: mend or delete it
    │   ├── StoreUnavailableError    nothing was sent: try again
    │   │   └── ServiceClosedError   the program closed it before: do not, or open another
    │   ├── UnknownOutcomeError      it may have been applied: send the same call again
    │   ├── NotConfirmedError        it was applied, and may yet be lost: look whether it is there
    │   ├── StoreUnsafeError         this server would lose data: change its configuration
    │   ├── StoreWipedError          it lost its data, or is another one: restore, or start anew
    │   └── StoreReplyError          Redis answered with an error
    │       ├── StoreAccessError     login or permission refused: change password, user or ACL
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
    "BlockingCallError",
    "ConflictError",
    "DamagedRecordError",
    "IllegalTransitionError",
    "InvalidError",
    "InvalidNameError",
    "InvalidOptionError",
    "LockError",
    "LockLostError",
    "LockNotAcquiredError",
    "NestedLockError",
    "NonDeterminismError",
    "NotConfirmedError",
    "NotFoundError",
    "PayloadError",
    "RegistrationError",
    "RunActiveError",
    "RunExistsError",
    "RunFailedError",
    "RunNotFoundError",
    "ScriptMissingError",
    "SealedPayloadError",
    "ServiceClosedError",
    "StepConflictError",
    "StepFailedError",
    "StepNotFoundError",
    "StoreAccessError",
    "StoreError",
    "StoreReplyError",
    "StoreUnavailableError",
    "StoreUnsafeError",
    "StoreWipedError",
    "TamperedPayloadError",
    "UnknownKeyError",
    "UnknownOutcomeError",
    "VersionNotFoundError",
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


class BlockingCallError(InvalidError):
    """A blocking method was called in a thread whose event loop it would have stopped."""


class PayloadError(InvalidError):
    """A value cannot be carried as JSON, or is larger than the limit."""


class SealedPayloadError(PayloadError):
    """A payload is compressed or encrypted, and this process lacks what opens it.

    The payload is as it should be: another process may open it, or this one with its next release.
    """


class UnknownKeyError(SealedPayloadError):
    """A payload is encrypted under a key that is not at hand."""

    def __init__(self, key_id: str) -> None:
        """Name the key by its id."""
        super().__init__(
            f"a payload is encrypted under key {key_id!r}, which is not at hand: "
            "give it to AesGcm(keys=...) here, too"
        )
        self.key_id = key_id


class TamperedPayloadError(PayloadError):
    """A sealed payload was changed, or is damaged; nothing can open it."""


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


class VersionNotFoundError(NotFoundError):
    """No version of this workflow is stored under this hash."""

    def __init__(self, workflow_name: str, graph_hash: str) -> None:
        """Name the workflow and the hash."""
        super().__init__(f"workflow {workflow_name!r} has no stored version {graph_hash!r}")
        self.workflow_name = workflow_name
        self.graph_hash = graph_hash


class ConflictError(AskelError):
    """The recorded state refuses the call. Nothing was written."""


class RunExistsError(ConflictError):
    """A run with this id exists already."""

    def __init__(
        self, run_id: str, why: str = "exists already; choose another run_id or if_exists"
    ) -> None:
        """Name the run that exists, and why it is in the way."""
        super().__init__(f"run {run_id!r} {why}")
        self.run_id = run_id


class RunActiveError(ConflictError):
    """The run has not ended, so that it is not deleted unless forced.

    Attributes:
        run_id: The run.
        status: Where it stands.
    """

    def __init__(self, run_id: str, status: str) -> None:
        """Name the run and where it stands."""
        super().__init__(f"run {run_id!r} is {status}: it is not deleted unless forced")
        self.run_id = run_id
        self.status = status


class IllegalTransitionError(ConflictError):
    """The state machine has no move from the recorded status to the one asked for."""

    def __init__(self, what: str, status: str, wanted: str) -> None:
        """Say what was to move, where it stands and where it should have gone."""
        verb = "be" if " " in wanted else "become"  # "be changed any more", "become running"
        super().__init__(f"{what} is {status}: it cannot {verb} {wanted}; nothing was written")
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
    """The lock of the run ``run_id``, or of its step ``step_name``, stands in the way."""

    def __init__(self, message: str, run_id: str, step_name: str | None = None) -> None:
        """Keep whose lock it is."""
        super().__init__(message)
        self.run_id = run_id
        self.step_name = step_name


class LockNotAcquiredError(LockError):
    """The lock was held by somebody else for as long as the caller would wait."""

    def __init__(self, run_id: str, waited_s: float, step_name: str | None = None) -> None:
        """Name the run, and the step, and how long was waited."""
        held = f"was held by another for {waited_s:.1f} s; pass a longer wait or try later"
        how = held if waited_s else "is held by another; try later"
        super().__init__(f"the lock of {_locked(run_id, step_name)} {how}", run_id, step_name)


class LockLostError(LockError):
    """The lock is no longer this holder's. Nothing sent since then under a run lock has landed."""

    def __init__(self, run_id: str, step_name: str | None = None) -> None:
        """Name the run, and the step."""
        what = "nothing more was written under it" if step_name is None else "the body was stopped"
        msg = f"the lock of {_locked(run_id, step_name)} was lost; {what}"
        super().__init__(msg, run_id, step_name)


class NestedLockError(LockError):
    """This very lock is already held by this very task."""

    def __init__(self, run_id: str, step_name: str | None = None) -> None:
        """Name the run, and the step."""
        msg = f"the lock of {_locked(run_id, step_name)} is already held here; do not nest it"
        super().__init__(msg, run_id, step_name)


def _locked(run_id: str, step_name: str | None) -> str:
    """Return whose lock it is."""
    return f"run {run_id!r}" if step_name is None else f"step {step_name!r} of run {run_id!r}"


class StoreError(AskelError):
    """Redis or the connection to it is the trouble."""


class DamagedRecordError(StoreError):
    """What stands in Redis for a run or step cannot be read: not all of it was written by askel.

    Listings name such runs and return the others; ``delete_run(…, force=True)`` removes one.
    """

    def __init__(self, what: str, why: str) -> None:
        """Name the record, and what is wrong with it."""
        super().__init__(f"{what} cannot be read: {why}; mend its hash, or delete the run")


class StoreUnavailableError(StoreError):
    """Redis cannot be reached. The command was not sent."""


class ServiceClosedError(StoreUnavailableError):
    """The program has closed the service or client that it calls. The command was not sent."""


class UnknownOutcomeError(StoreError):
    """The connection broke after the command was sent: it may or may not have been applied.

    Every script of askel may be sent again with the same content until it gets an answer.
    """

    def __init__(self, why: str) -> None:
        """Say what broke, and what to do."""
        super().__init__(f"{why} (it may have been applied: make the same call again)")


class NotConfirmedError(StoreError):
    """The primary has it, but not everybody who should: a failover, or a crash, may yet lose it.

    Not confirmed means unknown: it may be kept all the same. Later confirmation is possible.

    Attributes:
        what: What was not confirmed.
        durability: What was asked for, ``fsync`` or ``replicated(n)``.
    """

    def __init__(self, what: str, durability: str, why: str) -> None:
        """Name what, as which, and what Redis said."""
        super().__init__(
            f"{what} is not confirmed as {durability}: {why} (it was applied on the primary, and "
            "may be lost with it; 'askel show' tells of a run whether it is there, and confirmed)"
        )
        self.what = what
        self.durability = durability


class StoreUnsafeError(StoreError):
    """This Redis would lose data silently (eviction policy, version)."""


class StoreWipedError(StoreError):
    """The store is not the one that was there before: it lost its data, or is another server."""


class StoreReplyError(StoreError):
    """Redis answered with an error reply."""

    def __init__(self, message: str) -> None:
        """Keep Redis' word for it as ``code``: the first, or what a script was told before 7.0."""
        super().__init__(message)
        said = message.rpartition("@user_script")[2].partition(": ")[2].lstrip("-").split(" ")[0]
        self.code = said if said.isupper() else message.split(" ", 1)[0]


class StoreAccessError(StoreReplyError):
    """Redis refuses the login, or the user may not run the command or touch the key.

    It does not pass by itself: nothing is sent again. ``code``: WRONGPASS NOAUTH NOPERM DENIED ERR.
    """

    @property
    def refuses_login(self) -> bool:
        """Whether nothing at all can be done there, rather than this command on these keys."""
        return self.code != "NOPERM"


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
