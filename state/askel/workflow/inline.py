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
    Durability,
    Refusal,
    RunStatus,
    Turn,
    Turned,
    confirmed_fields,
    create_call,
    fields_of,
    read_run,
    started_body,
)
from askel.workflow.activation import Activation
from askel.workflow.attempts import LocalAttempt, Outcome
from askel.workflow.driver import Ended, RunDriver
from askel.workflow.executor import Executor
from askel.workflow.mirrored import MirroredActivations

if TYPE_CHECKING:
    from askel.state import RedisWorkflowService
    from askel.workflow.app import App

LEASE_MS = 30_000
MEMORY = Durability()
_MAX_ROUNDS = 100
_RELEASE_S = 1.0


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
    app: App,
    service: RedisWorkflowService,
    workflow: str,
    value: Any,
    run_id: str | None,
    durability: Durability = MEMORY,
) -> str:
    """Create a run and drive it to its end here; see ``App.start``."""
    _known(app, workflow)
    await service.confirmer.check(durability)
    run_id = service.ids.run_id() if run_id is None else check_run_id(run_id)
    owner = service.ids.nonce()
    text = app.codec.encode(value)
    name, keys, args = create_call(
        service.keys,
        run_id,
        workflow,
        text,
        started_body(workflow),
        offset=service.clock_offset_ms,
        owner=owner,
        lease_ms=LEASE_MS,
        fields=("inline", "true", *(("durability", str(durability)) if durability else ())),
    )
    answer, _ = await service.scripts.insist(name, keys, args, patience_s=service.resend_s)
    if answer[0] != b"OK":
        raise RunExistsError(run_id)
    facts = {"graph_hash": None, "wire": None, "deterministic": False, "planned_steps": None}
    await service.mirror.tell("create_run", run_id, workflow, value, inline=True, **facts)
    return await resume_inline(app, service, run_id, owner=owner)


async def resume_inline(
    app: App, service: RedisWorkflowService, run_id: str, *, owner: str | None = None
) -> str:
    """Drive an inline run that stands still to its end; see ``App.resume``."""
    check_run_id(run_id)
    for _ in range(_MAX_ROUNDS):
        owner = owner or service.ids.nonce()
        ended: Ended | None = None
        try:
            loaded = await _adopt(app, service, run_id, owner)
            if loaded is not None:
                ended = await _drive(app, service, run_id, owner, loaded)
        finally:
            if ended is not Ended.FINISHED:
                await _give_back(service, run_id, owner)
        if ended is Ended.LOST:
            raise LockLostError(run_id)
        if ended is not Ended.CONFLICT:
            await _raise_unless_completed(app, service, run_id)
            return run_id
        owner = None  # what we remembered was stale: load the run again
    raise LockLostError(run_id)


async def _adopt(
    app: App, service: RedisWorkflowService, run_id: str, owner: str
) -> Activated | None:
    """Own the run and load it; None when it has ended."""
    activations = _caller(app, service, patience_s=service.resend_s)
    loaded = await activations.adopt(owner, run_id)
    if isinstance(loaded, Activated):
        _known(app, loaded.workflow)
        if loaded.status != RunStatus.STALLED:
            return loaded
        # Whoever resumes a stalled run says that its code is back; replay will tell.
        await service.update_run_status(run_id, RunStatus.RUNNING)
        loaded = await activations.adopt(owner, run_id)
        if isinstance(loaded, Activated):
            return loaded
    _refuse(loaded, run_id)
    return None


async def _drive(
    app: App, service: RedisWorkflowService, run_id: str, owner: str, loaded: Activated
) -> Ended:
    """Drive one activation; return how that ended."""
    activation = Activation(
        app, service.keys, service.ids, run_id=run_id, owner=owner, loaded=loaded, inline=True
    )
    executor = Executor(codec=app.codec)
    driver = RunDriver(_caller(app, service), activation, executor, _Quiet(), entry=None)
    try:
        async with anyio.create_task_group() as tg:
            tg.start_soon(_keep_lock, service, run_id, owner, driver)
            ended = await driver.drive()
            tg.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise _only_error(group) from None
    finally:
        executor.close()
    if driver.refused is not None:
        raise driver.refused
    return ended


def _caller(
    app: App, service: RedisWorkflowService, *, patience_s: float | None = None
) -> Activations:
    options: dict[str, Any] = {
        "consumer": "inline",
        "lease_ms": LEASE_MS,
        "clock_offset_ms": service.clock_offset_ms,
        "patience_s": patience_s,
    }
    if service.mirror.is_told:
        return MirroredActivations(service, app.codec, **options)
    return Activations(service.scripts, service.keys, **options)


def _only_error(error: BaseException) -> BaseException:
    """Return what a task group has put around one error."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _give_back(service: RedisWorkflowService, run_id: str, owner: str) -> None:
    """Release the lock, if it is still ours, so that others need not wait for its lease to end."""
    ctl, lock = service.keys.ctl(run_id), service.keys.lock(run_id)
    with anyio.move_on_after(_RELEASE_S, shield=True):
        try:
            await service.scripts.run("release_lock", [ctl, lock], [owner])
        except StoreError:
            return  # it expires by itself


async def _keep_lock(
    service: RedisWorkflowService, run_id: str, owner: str, driver: RunDriver
) -> None:
    """Renew the lock, and let the driver look for news, every third of the lease."""
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


async def _raise_unless_completed(app: App, service: RedisWorkflowService, run_id: str) -> None:
    flat = await service.scripts.fetch("HGETALL", service.keys.run(run_id))
    if not flat:
        raise RunNotFoundError(run_id)
    run = read_run(fields_of(flat), app.codec)
    if run.durability:
        run = read_run(await confirmed_fields(service, run_id), app.codec)
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
