"""The callers that read runs whole, and of versions: what they send, what answers mean to them."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.state.calls import Case, K, service

from askel import (
    DeadLetter,
    DeadLetterPage,
    DeadLetters,
    GraphState,
    RunStatus,
    RunStatusReport,
    VersionNotFoundError,
)
from askel.state import (
    OpenStep,
    Place,
    RunFacts,
    Scripts,
    StreamFacts,
    read_facts,
    run_id_of_entry,
)
from askel.wire import NotRedrivableError

RUN_HASH = [
    *(b"id", b"r", b"workflow", b"w", b"status", b"running"),
    *(b"createdAt", b"1000", b"updatedAt", b"1000"),
]
STARTED = b'{"t":"run","at":1000,"status":"running","workflow":"w"}'
REPORT = RunStatusReport("r", RunStatus.RUNNING, datetime.fromtimestamp(1, UTC), [])
STEP_LIST = {"steps": K.steps("r"), "stem": K.step_stem("r")}

LETTER_WORDS = [
    *(b"reason", b"poison", b"detail", b"why", b"stream", K.commands_default.encode()),
    *(b"entry", b"5-1", b"deliveries", b"3", b"at", b"1000"),
    *(b"type", b"run.start", b"workflow", b"w"),
]
LETTER = DeadLetter(
    id="9-1",
    reason="poison",
    detail="why",
    stream=K.commands_default,
    entry="5-1",
    deliveries=3,
    at=datetime.fromtimestamp(1, UTC),
    type="run.start",
    names={"workflow": "w"},
)


FACTS_ANSWER = [
    b"5000",
    [b"r", b"w", b"running", None, None, b"1000", b"2000"],
    [b"5-1", b"me/1", b"4-0", b"3", b"0", b"q"],
    b"me/1",
    700,
    4,
    [b"pending", b"me", 30, 1, b"q"],
    [b"type", b"run.start"],
    2,
    [[b"s", b"running", b"f", b"2", b"5", b"exponential", b"6-0", b"q", b"1500", b"ok", b"9"]],
    [[b"gone"]],
    [[b"q", 3, 1, 1, [b"me", 20], b"4900"]],
]
FACTS = RunFacts(
    run_id="r",
    now=5_000,
    workflow="w",
    status="running",
    created_at=1_000,
    updated_at=2_000,
    token="5-1",
    owner="me/1",
    start="4-0",
    turn=3,
    lock_holder="me/1",
    lock_pttl=700,
    length=4,
    place=Place("pending", "q", "me", 30, 1),
    told={"type": "run.start"},
    open_count=2,
    steps=(
        OpenStep(
            "s",
            "running",
            "f",
            2,
            5,
            "exponential",
            "q",
            1_500,
            Place("gone"),
            "6-0",
            signal="ok",
            is_limited=True,
        ),
    ),
    streams={"q": StreamFacts("q", 3, 1, has_group=True, idle_ms={"me": 20}, swept_ms=100)},
)


def letters(stub):
    """Return the dead letters on *stub*."""
    made = DeadLetters("redis://127.0.0.1:1", "p")
    made._scripts = Scripts(stub)
    return made


READS = [
    Case(
        "list_dead",
        lambda s: letters(s).list(reason="poison", run_id="r", limit=7, cursor="10-0"),
        {"dead": K.dead},
        {"before": "10-0", "reason": "poison", "run_id": "r", "limit": 7, "reach": 10_000},
        {"OK": ([b"9-1", [b"9-1", LETTER_WORDS]], DeadLetterPage([LETTER], "9-1"))},
    ),
    Case(
        "read_facts",
        lambda s: read_facts(Scripts(s), K, "r", offset=11),
        {
            **dict(zip(("run", "ctl", "history", "lock"), K.run_keys("r"), strict=True)),
            "steps": K.steps("r"),
            "step_stem": K.step_stem("r"),
            "commands": K.commands_default,
            "sweep": K.sweep(),
        },
        {"group": "askeld", "offset": 11, "most": 20, "reach": 5_000},
        {"OK": (FACTS_ANSWER, FACTS), "NOTFOUND": ([], None)},
    ),
    Case(
        "redrive",
        lambda s: letters(s).redrive(LETTER),
        {"dead": K.dead, "stream": K.commands_default, "run": K.run("")},
        {"letter": "9-1", "run_id": run_id_of_entry(K.commands_default, "5-1")},
        {
            "OK": ([b"11-0"], True),
            "GONE": ([], False),
            "OTHER": ([], NotRedrivableError),
            "FORMER": ([], NotRedrivableError),
        },
    ),
    Case(
        "read_run",
        lambda s: service(s).get_run_status("r"),
        {"run": K.run("r"), "history": K.history("r"), **STEP_LIST},
        {"first": 0, "last": -1, "steps": 1_000},
        {"OK": ([1, RUN_HASH, [STARTED], []], REPORT), "NOTFOUND": ([], None)},
    ),
    Case(
        "read_steps",
        lambda s: service(s).get_node_results("r", ["s", "t", "s"]),
        STEP_LIST,
        {"first": 0, "last": 999, "fields": "status,result", "name...": ["s", "t"]},
        {
            "OK": (
                [-1, [b"s", [b"succeeded", b"null"], b"t", [b"running", None]]],
                {"s": None},
            )
        },
        id="read_steps by name",
    ),
    Case(
        "read_steps",
        lambda s: service(s).get_completed_graph_state("r"),
        STEP_LIST,
        {
            "first": 0,
            "last": 999,
            "fields": "status,attemptCount,retries,branchTaken",
            "name...": [],
        },
        {
            "OK": (
                [-1, [b"s", [b"succeeded", b"1", None, b"b"], b"t", [b"failed", b"1", None, None]]],
                GraphState(["s"], ["t"], {"s": "b"}),
            )
        },
        id="read_steps from the list",
    ),
    Case(
        "upsert_version",
        lambda s: service(s).upsert_workflow_version("a:b", "c%", {"n": 1}, "dsl"),
        {"version": "p:version:a%3Ab:c%25"},
        {
            "offset": 11,
            "workflow": "a:b",
            "graph_hash": "c%",
            "graph": b'{"n":1}',
            "source": "dsl",
            "status": "active",
        },
        {"OK": ([], True), "ALREADY": ([], False), "EXISTS": ([], False)},
    ),
    Case(
        "move_version",
        lambda s: service(s).update_workflow_version_status("w", "h", "declined"),
        {"version": "p:version:w:h"},
        {"status": "declined"},
        {"OK": ([], None), "ALREADY": ([], None), "NOTFOUND": ([], VersionNotFoundError)},
    ),
]
