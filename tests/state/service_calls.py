"""The callers of the state service and of the lock: what they send, what answers mean to them."""

from __future__ import annotations

from typing import Any

from tests.helpers.stubs import StubConnection
from tests.state.calls import (
    ENTRY,
    RUN_KEYS,
    STEP_HASH,
    STEP_ID,
    STEP_KEYS,
    STEP_REFUSALS,
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
    StepStatus,
)
from askel.state import Renewed, Scripts, renew_call, renewed


async def _renew(stub: StubConnection) -> Any:
    call = renew_call(K, "me", ENTRY, "r", field="owner", holder_key=K.ctl("r"), nonce="n")
    return renewed(await Scripts(stub).run(*call))


async def _lock(stub: StubConnection, *, wait: float = 0) -> Any:
    async with service(stub).run_lock("r", wait=wait) as lock:
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
        {name: RUN_KEYS[name] for name in ("run", "ctl", "lock")},
        {"holder": "nonce1", "lease_ms": 30_000, "longest_ms": 60_000},
        {"OK": ([7], 7), "BUSY": ([9], LockNotAcquiredError), "NOTFOUND": ([], RunNotFoundError)},
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
        ),
        {
            **RUN_KEYS,
            "events": K.events,
            "runs": K.runs,
            "stream": K.commands_default,
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
        },
    ),
    Case(
        "update_run",
        lambda s: service(s).update_run_status(
            "r", "failed", output=1, error=SerializedError("no")
        ),
        {
            **RUN_KEYS,
            "commands": K.commands_default,
            "events": K.events,
            "runs": K.runs,
        },
        {
            "holder": "",
            "offset": 11,
            "run_id": "r",
            "allowed": ",running,suspended,stalled,",
            "target": "failed",
            "output": b"1",
            "error": b'{"message":"no"}',
            "body": '"t":"run","status":"failed","output":1,"error":{"message":"no"}',
        },
        {
            "OK": ([b""], None),
            "ALREADY": ([b"failed"], None),
            "ILLEGAL": ([b"completed"], IllegalTransitionError),
            "NOTFOUND": ([], RunNotFoundError),
            "LOCKLOST": ([], LockLostError),
        },
    ),
    Case(
        "insert_step",
        lambda s: service(s).insert_step_state(
            "r", "s", "f", 1, {"retries": 2, "retry_delay": "5s"}, "before"
        ),
        {**STEP_KEYS, "steps": K.steps("r")},
        {
            "holder": "",
            "offset": 11,
            "step_name": "s",
            "rpc_name": "f",
            "body": '"t":"step","name":"s","status":"pending","attempt":1,"rpc":"f"',
            "field...": [
                "stepId",
                "r:s:suffix1",
                "data",
                b"1",
                "rpcName",
                "f",
                "retries",
                2,
                "retryDelay",
                "5s",
                "fromStepName",
                "before",
            ],
        },
        {
            "OK": ([STEP_HASH], StepStatus.PENDING),
            "EXISTS": ([STEP_HASH], StepStatus.PENDING),
            "CONFLICT": ([], StepConflictError),
            "NOTFOUND": ([], RunNotFoundError),
            "TERMINAL": ([b"completed"], IllegalTransitionError),
            "LOCKLOST": ([], LockLostError),
        },
    ),
    Case(
        "move_step",
        lambda s: service(s).set_step_running(STEP_ID),
        STEP_KEYS,
        {
            "holder": "",
            "offset": 11,
            "step_name": "s",
            "step_id": STEP_ID,
            "allowed": ",pending,scheduled,suspended,",
            "target": "running",
        },
        {"OK": ([], None), "ALREADY": ([], None), **STEP_REFUSALS},
    ),
    Case(
        "finish_step",
        lambda s: service(s).set_step_result(STEP_ID, {}),
        {**RUN_KEYS, "step": K.step("r", "s"), "commands": K.commands_default},
        {
            "holder": "",
            "offset": 11,
            "run_id": "r",
            "step_name": "s",
            "step_id": STEP_ID,
            "allowed": ",pending,scheduled,running,suspended,",
            "target": "succeeded",
            "outcome": "result",
            "json": b"{}",
        },
        {
            "OK": ([b""], None),
            "ALREADY": ([], None),
            "CONFLICT": ([], StepConflictError),
            **STEP_REFUSALS,
        },
    ),
    Case(
        "retry_step",
        lambda s: service(s).create_retry_attempt(STEP_ID, "running"),
        STEP_KEYS,
        {
            "holder": "",
            "offset": 11,
            "step_name": "s",
            "step_id": STEP_ID,
            "target": "running",
            "nonce": "nonce1",
        },
        {
            "OK": ([STEP_HASH], StepStatus.PENDING),
            "SPENT": ([2], IllegalTransitionError),
            **STEP_REFUSALS,
        },
    ),
]
