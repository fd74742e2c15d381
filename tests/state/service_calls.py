"""The callers of the state service and of the lock: what they send, what answers mean to them."""

from __future__ import annotations

from typing import Any

from tests.helpers.stubs import StubConnection
from tests.state.calls import (
    ENTRY,
    RUN_KEYS,
    STEP_HASH,
    STEP_ID,
    STREAM,
    Case,
    K,
    service,
)

from askel import (
    IllegalTransitionError,
    LockLostError,
    LockNotAcquiredError,
    RunExistsError,
    RunNotFoundError,
    SerializedError,
    StepConflictError,
    StepNotFoundError,
    StepStatus,
)
from askel.state import Renewed, Scripts, renew_call, renewed


async def _renew(stub: StubConnection) -> Any:
    call = renew_call(K, "me", ENTRY, "r", field="owner", holder_key=K.ctl("r"), nonce="n")
    return renewed(await Scripts(stub).run(*call))


async def _transaction(stub: StubConnection) -> Any:
    async with service(stub).transaction("r") as tx:
        tx.set_step_running(STEP_ID)
        tx.update_run_state("v", 1)
        tx.set_step_result(STEP_ID, 2)


async def _lock(stub: StubConnection, *, wait: float = 0) -> Any:
    async with service(stub).run_lock("r", wait=wait) as lock:
        return lock.fence


APPLY_KEYS = {**RUN_KEYS, "commands": K.commands_default, "steps": K.steps("r")}


def apply(
    drive: Any,
    *words: Any,
    id: str,
    never: tuple[str, ...] = (),
    more: tuple[str, ...] = (K.step("r", "s"),),
    script: str = "apply",
    keys: dict[str, Any] | None = None,
    args: dict[str, Any] | None = None,
    nonce: str = "suffix1",
    answers: Any = (),
    missing: type[Exception] = RunNotFoundError,
) -> Case:
    """Return the case of a list of changes; *words* are their records.

    Args:
        drive: Makes the call.
        words: What it sends.
        id: Its name.
        never: The answers that the script has for other kinds of changes only.
        more: The keys that it needs beside those of every list.
        nonce: That of a transaction.
        answers: Where they differ from those of the others.
        missing: What is raised where there is no such run.
    """
    refusals: dict[str, tuple[list[Any], Any]] = {
        "NOTFOUND": ([0], missing),
        "CONFLICT": ([1], StepConflictError),
        "ILLEGAL": ([1, b"failed"], IllegalTransitionError),
        "TERMINAL": ([1, b"completed"], IllegalTransitionError),
        "SPENT": ([1, 3], IllegalTransitionError),
        "LOCKLOST": ([], LockLostError),
    }
    if script == "apply":
        refusals |= dict.fromkeys(never, ([1], AssertionError))
    else:  # its header does not list what other kinds of changes are answered
        refusals = {word: meaning for word, meaning in refusals.items() if word not in never}
    return Case(
        script,
        drive,
        keys or {**APPLY_KEYS, "key...": [*more]},
        args or {"holder": "", "offset": 11, "run_id": "r", "nonce": nonce, "change...": [*words]},
        {
            **refusals,
            "OK": ([b"", b"1000", b""], None),
            "ALREADY": ([b"ALREADY"], None),
            **dict(answers),
        },
        id=f"{script} {id}",
    )


STEP_KEYS = {
    "run": K.run("r"),
    "history": K.history("r"),
    "lock": K.lock("r"),
    "step": K.step("r", "s"),
}
WRITTEN = {"holder": "", "offset": 11, "nonce": "suffix1", "step_name": "s"}
OF_A_STEP: dict[str, Any] = {"missing": StepNotFoundError}
APPLY = [
    apply(
        lambda s: service(s).update_run_status("r", "failed", error=SerializedError("no")),
        *("status", 7, 8, ",running,suspended,stalled,", "failed", b"", b'{"message":"no"}'),
        more=(K.events, K.runs),
        answers={"ILLEGAL": ([1, b"completed"], IllegalTransitionError)},
        never=("CONFLICT", "SPENT"),
        id="a status",
    ),
    apply(
        lambda s: service(s).update_run_state("r", "v", [1]),
        *("set", 7, "v", b"[1]"),
        more=(K.run_state("r"),),
        never=("CONFLICT", "SPENT", "ILLEGAL"),
        id="a variable",
    ),
    apply(
        lambda s: service(s).insert_step_state(
            "r", "s", "f", 1, {"retries": 2, "retry_delay": "5s"}, "before"
        ),
        script="insert_step",
        keys={**STEP_KEYS, "steps": K.steps("r")},
        args={
            **WRITTEN,
            "nonce": "suffix2",
            "step_id": "r:s:suffix1",
            "data": b"1",
            "field...": [
                *("rpcName", "f", "retries", 2, "retryDelay", "5s"),
                *("fromStepName", "before"),
            ],
        },
        answers={
            "OK": ([b"", b"1000", b""], StepStatus.PENDING),
            "ALREADY": ([STEP_HASH], StepStatus.PENDING),
        },
        never=("SPENT", "ILLEGAL"),
        id="of a step",
    ),
    apply(
        lambda s: service(s).set_step_running(STEP_ID),
        script="move_step",
        keys=STEP_KEYS,
        args={
            **WRITTEN,
            "step_id": STEP_ID,
            "target": "running",
        },
        never=("CONFLICT", "SPENT"),
        **OF_A_STEP,
        id="to running",
    ),
    apply(
        lambda s: service(s).set_step_result(STEP_ID, {}),
        script="finish_step",
        keys={**RUN_KEYS, "step": K.step("r", "s"), "commands": K.commands_default},
        args={
            **WRITTEN,
            "run_id": "r",
            "step_id": STEP_ID,
            "target": "succeeded",
            "json": b"{}",
        },
        never=("SPENT",),
        **OF_A_STEP,
        id="with a result",
    ),
    apply(
        lambda s: service(s).create_retry_attempt(STEP_ID, "running"),
        *("step", 7, "s", STEP_ID, "retry", "running", "nonce1"),
        nonce="suffix2",
        answers={
            "OK": ([b"", b"1000", STEP_HASH], StepStatus.PENDING),
            "ALREADY": ([STEP_HASH], StepStatus.PENDING),
        },
        never=("CONFLICT",),
        **OF_A_STEP,
        id="an attempt",
    ),
    apply(
        lambda s: service(s).set_branch_taken(STEP_ID, "left"),
        *("step", 7, "s", STEP_ID, "note", "branchTaken", "left"),
        never=("CONFLICT", "SPENT", "ILLEGAL"),
        **OF_A_STEP,
        id="a branch",
    ),
    apply(
        lambda s: service(s).set_step_child_run_id(STEP_ID, "child"),
        *("step", 7, "s", STEP_ID, "note", "childRunId", "child"),
        never=("CONFLICT", "SPENT", "ILLEGAL"),
        **OF_A_STEP,
        id="a child",
    ),
    apply(
        _transaction,
        *("step", 7, "s", STEP_ID, "running"),
        *("set", 8, "v", b"1"),
        *("succeeded", b"2"),
        more=(K.step("r", "s"), K.run_state("r")),
        answers={"OK": ([b"", b"1000", b"", b"", b""], None)},
        never=("CONFLICT", "SPENT"),
        id="a transaction",
    ),
]


async def _step_lock(stub: StubConnection) -> Any:
    async with service(stub).step_lock("r", "s", wait=0) as lock:
        return lock.fence


SERVICE = [
    Case(
        "renew",
        _renew,
        {"stream": STREAM, "hash": K.ctl("r"), "history": K.history("r"), "run": K.run("r")},
        {"group": "askeld", "consumer": "me", "entry": "5-1", "field": "owner", "nonce": "n"},
        {"OK": ([4, b"running"], Renewed(4, "running")), "LOST": ([], None)},
    ),
    Case(
        "acquire_lock",
        _lock,
        {"locked": K.run("r"), "ctl": K.ctl("r"), "lock": K.lock("r")},
        {"holder": "nonce1", "lease_ms": 30_000, "longest_ms": 60_000},
        {
            "OK": ([7], 7),
            "BUSY": ([9], LockNotAcquiredError),
            "NOTFOUND": ([], RunNotFoundError),
            "RELEASED": ([], LockLostError),
        },
    ),
    Case(
        "acquire_lock",
        _step_lock,
        {"locked": K.step("r", "s"), "ctl": K.ctl("r"), "lock": K.step_lock("r", "s")},
        {"holder": "nonce1", "lease_ms": 30_000, "longest_ms": 60_000},
        {
            "OK": ([7], 7),
            "BUSY": ([9], LockNotAcquiredError),
            "NOTFOUND": ([], StepNotFoundError),
            "RELEASED": ([], LockLostError),
        },
        id="acquire_lock of a step",
    ),
    Case(
        "create_run",
        lambda s: service(s).create_run(
            "w",
            {},
            run_id="r",
            inline=True,
            graph_hash="g",
            wire=1,
            deterministic=True,
            planned_steps=[],
            if_exists="terminate-existing",
        ),
        {
            **RUN_KEYS,
            "events": K.events,
            "runs": K.runs,
            "stream": K.commands_default,
            "stem...": K.generation_stems(),
        },
        {
            "offset": 11,
            "run_id": "r",
            "workflow": "w",
            "input": b"{}",
            "owner": "",
            "lease_ms": 0,
            "group": "askeld",
            "entry": "",
            "body": '"t":"run","status":"running","workflow":"w"',
            "nonce": "suffix1",
            "policy": "terminate-existing",
            "holder": "",
            "field...": [
                "inline",
                "true",
                "graphHash",
                "g",
                "deterministic",
                "true",
                "plannedSteps",
                b"[]",
                "wire",
                b"1",
            ],
        },
        {
            "OK": ([], "r"),
            "EXISTS": ([], RunExistsError),
            "CONFLICT": ([], RunExistsError),
            "GONE": ([], RunExistsError),
            "LOCKLOST": ([], LockLostError),
            "BUSY": ([9], LockNotAcquiredError),
        },
    ),
    *APPLY,
]
