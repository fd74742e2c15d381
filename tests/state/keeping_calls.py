"""The callers that list, delete, keep and index runs: what they send, what answers mean to them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.helpers.stubs import StubConnection
from tests.state.calls import RUN_KEYS, Case, K, service

from askel import LockLostError, LockNotAcquiredError, RunActiveError, WorkflowRun
from askel.state import Retention, RunPage, RunStatus, Scripts, TimerSweep
from askel.state.reindex import Reindexing
from askel.state.retention import StoredPolicy
from askel.state.writes.confirmation import take_marks_off

MOMENT = datetime.fromtimestamp(1, UTC)
RUN_HASH = [
    *(b"id", b"r", b"workflow", b"w", b"status", b"running"),
    *(b"createdAt", b"1000", b"updatedAt", b"1000"),
]
BELONGINGS = {
    "steps": K.steps("r"),
    "step_stem": K.step_stem("r"),
    "step_lock_stem": "p:step-lock:r:",
    "run_state": K.run_state("r"),
}
STEMS = {
    f"{kind.replace('-', '_')}_stem": f"p:{kind}:"
    for kind in ("run", "ctl", "history", "steps", "run-state", "step")
}


def retention(stub: StubConnection) -> Retention:
    """Return what applies the policies, on *stub*."""
    return Retention(Scripts(stub), K, consumer="me", clock_offset_ms=11)


def reindexing(stub: StubConnection, **replies: Any) -> Reindexing:
    """Return a pass over the keys on *stub*, which answers commands as *replies* says."""
    plain = stub.send

    async def send(*command: Any) -> Any:
        return await plain(*command) if command[0] not in replies else replies[command[0]]

    stub.send = send
    scripts = Scripts(stub)
    return Reindexing(scripts, K, dry_run=False, patience_s=0, progress=None)


async def _count(action: Any, run: Reindexing, field: str) -> int:
    await action
    return getattr(run.report, field)


async def _index(stub: StubConnection) -> Any:
    run = reindexing(stub)
    await run._index(["r", "s", "t", "u", "v"])
    report = run.report
    return report.runs, report.indexed, report.moved, report.unreadable


async def _prune(stub: StubConnection) -> int:
    run = reindexing(stub, ZSCAN=[b"0", [b"r", b"1"]])
    return await _count(run._prune("workflow-status:failed:w:x"), run, "dropped")


async def _prune_names(stub: StubConnection) -> int:
    run = reindexing(stub, ZSCAN=[b"0", [b"w", b"0"]])
    return await _count(run._prune("workflows"), run, "dropped")


async def _name_steps(stub: StubConnection) -> int:
    run = reindexing(stub)
    return await _count(run._name_steps("r", ["a", "b"]), run, "steps")


TIMER = b'["","type","timer.fire","run_id","r","step_name","s","born","5"]'


async def _sweep(stub: StubConnection) -> int:
    plain = stub.send

    async def send(*command: Any) -> Any:
        return [b"0", [TIMER, b"9"]] if command[0] == "ZSCAN" else await plain(*command)

    stub.send = send
    return await TimerSweep(Scripts(stub), K, consumer="me").run_once()


KEEPING = [
    Case(
        "prune_timers",
        _sweep,
        {"timers": K.timers, "stem": "p:run:"},
        {"timer...": [TIMER, "r", "5"]},
        {"OK": ([1], 1)},
    ),
    Case(
        "list_runs",
        lambda s: service(s).list_runs(
            workflow_name="w",
            status="running",
            since=MOMENT,
            until=MOMENT,
            limit=3,
            cursor="5:r%C3%A4",
        ),
        {"index": "p:runs:workflow-status:running:w", "stem": "p:run:"},
        {
            "since": 1_000,
            "before": 1_000,
            "after_score": "5",
            "after_id": "rä".encode(),
            "status": "running",
            "workflow": "w",
            "limit": 3,
            "reach": 1_003,
        },
        {
            "OK": (
                [1, b"4", b"\xff", [b"r", RUN_HASH, b"\xff", None, b"s", RUN_HASH]],
                RunPage(
                    [WorkflowRun("r", "w", RunStatus.RUNNING, MOMENT, MOMENT)],
                    "4:%FF",
                    ["\\xff", "s"],
                ),
            )
        },
    ),
    Case(
        "delete_run",
        lambda s: service(s).delete_run("r", force=True),
        {
            **RUN_KEYS,
            **BELONGINGS,
            "events": K.events,
            "runs": K.runs,
            "commands": K.commands_default,
            "stray...": [],
        },
        {
            "holder": "",
            "forced": "1",
            "remember": "1",
            "group": "askeld",
            "offset": 11,
            "run_id": "r",
            "nonce": "suffix1",
        },
        {
            "OK": ([b""], True),
            "ALREADY": ([], False),
            "NOTFOUND": ([], False),
            "ACTIVE": ([b"running"], RunActiveError),
            "BUSY": ([9], LockNotAcquiredError),
            "LOCKLOST": ([], LockLostError),
        },
    ),
    Case(
        "confirmed",
        lambda s: take_marks_off(Scripts(s), K, ["r", b"7", "s", b"8"]),
        {"runs": K.runs},
        {"run_id_and_mark...": ["r", b"7", "s", b"8"]},
        {"OK": ([1], 1)},
    ),
    Case(
        "set_retention",
        lambda s: service(s).set_retention("w", ttl="1min", max_runs=2, max_bytes="1KiB"),
        {"retention": "p:retention"},
        {"name": "w", "policy": b'{"ttlMs":60000,"maxRuns":2,"maxBytes":1024}'},
        {"OK": ([], None), "ALREADY": ([], None)},
    ),
    Case(
        "expired",
        lambda s: retention(s)._expired("w", StoredPolicy(ttl_ms=5, max_runs=0), 7),
        {"runs": K.runs},
        {
            "offset": 11,
            "workflow": "w",
            "ttl_ms": 5,
            "max_runs": 0,
            "max_bytes": "",
            "skip": 0,
            "limit": 7,
        },
        {"OK": ([[b"r"]], [b"r"])},
    ),
    Case(
        "measure_runs",
        lambda s: retention(s)._measure("w"),
        {"runs": K.runs, **STEMS},
        {"workflow": "w", "most": 2_000},
        {"OK": ([3, 0], None)},
    ),
    Case(
        "prune_index",
        lambda s: retention(s)._delete("w", [b"\xff"]),
        {"index": K.runs_ended("w"), "runs": K.runs, "stem": "p:run:"},
        {"dry": "0", "status": "ended", "workflow": "w", "run_id...": [b"\xff"]},
        {"OK": ([1], (0, 0))},
        id="prune_index by retention",
    ),
    Case(
        "prune_index",
        _prune,
        {"index": "p:runs:workflow-status:failed:w:x", "runs": K.runs, "stem": "p:run:"},
        {"dry": "0", "status": "failed", "workflow": "w:x", "run_id...": [b"r"]},
        {"OK": ([1], 1)},
    ),
    Case(
        "prune_workflows",
        _prune_names,
        {"runs": K.runs},
        {"dry": "0", "workflow...": [b"w"]},
        {"OK": ([1], 1)},
    ),
    Case(
        "index_runs",
        _index,
        {"runs": K.runs, "stem": "p:run:"},
        {"dry": "0", "run_id...": ["r", "s", "t", "u", "v"]},
        {"OK": ([b"snmdg"], (4, 1, 1, ["u"]))},
    ),
    Case(
        "index_steps",
        _name_steps,
        {"run": K.run("r"), "steps": K.steps("r"), "stem": K.step_stem("r")},
        {"dry": "0", "name...": ["a", "b"]},
        {"OK": ([2], 2), "NOTFOUND": ([], 0)},
    ),
    Case(
        "erase_orphan",
        lambda s: reindexing(s, LRANGE=[b"a"])._erase(
            "r", [K.history("r"), K.step("r", "a"), K.step("r", "b")]
        ),
        {**RUN_KEYS, **BELONGINGS, "stray...": [K.step("r", "b")]},
        {"dry": "0"},
        {"OK": ([4], 4), "EXISTS": ([], 0)},
    ),
]
