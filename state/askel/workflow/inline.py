"""Inline mode: a workflow runs in the calling process, without daemons or streams.

Same code, same records, same history. The run lock is the activation's lease; after a crash
whoever wants the run to go on resumes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from askel.errors import (
    LockLostError,
    LockNotAcquiredError,
    RegistrationError,
    RunExistsError,
    RunFailedError,
    RunNotFoundError,
    StoreError,
)
from askel.names import check_run_id
from askel.state import (
    Activated,
    Activations,
    Refusal,
    RunStatus,
    Turn,
    Turned,
    codec,
    create_call,
    started_body,
)

if TYPE_CHECKING:
    from askel.state import RedisWorkflowService
    from askel.workflow.activation import LocalAttempt, Outcome
    from askel.workflow.app import App
    from askel.workflow.driver import RunDriver

LEASE_MS = 30_000
_MAX_ROUNDS = 100


class _Quiet:
    """An observer that has nothing to tell: the caller sees the run's outcome."""

    def attempt_begun(self, attempt: LocalAttempt) -> None:
        """Tell nobody."""

    def attempt_ended(self, attempt: LocalAttempt, outcome: Outcome) -> None:
        """Tell nobody."""

    def turn_taken(self, turn: Turn, answer: Turned) -> None:
        """Tell nobody."""

    def idle(self, *, is_idle: bool) -> None:
        """Tell nobody."""


async def start_inline(
    app: App, service: RedisWorkflowService, workflow: str, value: Any, run_id: str | None
) -> str:
    """Create a run and drive it to its end here; see ``App.start``."""
    _known(app, workflow)
    run_id = service.ids.run_id() if run_id is None else check_run_id(run_id)
    owner = service.ids.nonce()
    text = codec.encode(value)
    name, keys, args = create_call(
        service.keys,
        run_id,
        workflow,
        text,
        started_body(workflow),
        offset=service.clock_offset_ms,
        owner=owner,
        lease_ms=LEASE_MS,
        fields=("inline", "true"),
    )
    answer, _ = await service.scripts.insist(name, keys, args, patience_s=None)
    if answer[0] != b"OK":
        raise RunExistsError(run_id)
    return await resume_inline(app, service, run_id, owner=owner)


async def resume_inline(
    app: App, service: RedisWorkflowService, run_id: str, *, owner: str | None = None
) -> str:
    """Drive an inline run that stands still to its end; see ``App.resume``."""
    activations = Activations(
        service.scripts,
        service.keys,
        consumer="inline",
        lease_ms=LEASE_MS,
        clock_offset_ms=service.clock_offset_ms,
    )
    check_run_id(run_id)
    for _ in range(_MAX_ROUNDS):
        owner = owner or service.ids.nonce()
        loaded = await activations.adopt(owner, run_id)
        if isinstance(loaded, Refusal):
            _refuse(loaded, run_id)
            return run_id
        if await _drive(app, service, activations, run_id, owner, loaded):
            await _raise_unless_completed(service, run_id)
            return run_id
        owner = None  # what we remembered was stale: load the run again
    raise LockLostError(run_id)


async def _drive(
    app: App,
    service: RedisWorkflowService,
    activations: Activations,
    run_id: str,
    owner: str,
    loaded: Activated,
) -> bool:
    """Drive one activation; return whether the run has ended."""
    from askel.workflow.activation import Activation  # noqa: PLC0415 - they import the app
    from askel.workflow.driver import Ended, RunDriver  # noqa: PLC0415
    from askel.workflow.executor import Executor  # noqa: PLC0415

    _known(app, loaded.workflow)
    activation = Activation(
        app, service.keys, service.ids, run_id=run_id, owner=owner, loaded=loaded, inline=True
    )
    driver = RunDriver(activations, activation, Executor(), _Quiet(), entry=None)
    async with anyio.create_task_group() as tg:
        tg.start_soon(_keep_lock, service, run_id, owner, driver)
        ended = await driver.drive()
        tg.cancel_scope.cancel()
    if ended is Ended.LOST:
        raise LockLostError(run_id)
    return ended is not Ended.CONFLICT


async def _keep_lock(
    service: RedisWorkflowService, run_id: str, owner: str, driver: RunDriver
) -> None:
    """Renew the lock, and let the driver look for news, every third of the lease."""
    from askel.workflow.driver import Ended  # noqa: PLC0415 - they import the app

    while True:
        await anyio.sleep(LEASE_MS / 3_000)
        try:
            answer = await service.scripts.run(
                "renew_lock", [service.keys.lock(run_id)], [owner, LEASE_MS]
            )
        except StoreError:
            continue  # each turn proves ownership anew
        if answer[0] != b"OK":
            driver.stop(Ended.LOST)
            return
        driver.poke()


async def _raise_unless_completed(service: RedisWorkflowService, run_id: str) -> None:
    run = await service.get_run(run_id)
    if run is None:
        raise RunNotFoundError(run_id)
    if run.status is not RunStatus.COMPLETED:
        raise RunFailedError(run_id, run.status, run.error)


def _known(app: App, workflow: str) -> None:
    if workflow not in app.workflows:
        known = ", ".join(sorted(app.workflows)) or "none"
        msg = f"app {app.name!r} has no workflow {workflow!r} (it has: {known})"
        raise RegistrationError(msg)


def _refuse(refusal: Refusal, run_id: str) -> None:
    """Raise what a refused adoption means; a run that has ended is no error."""
    match refusal.word:
        case "TERMINAL":
            return
        case "NOTFOUND":
            raise RunNotFoundError(run_id)
        case "MANAGED":
            msg = f"run {run_id!r} is driven by daemons; nothing needs to resume it"
            raise RegistrationError(msg)
        case "BUSY":
            raise LockNotAcquiredError(run_id, 0)
        case _:
            raise RunFailedError(run_id, "stalled")
