"""Every typed caller of a script, what it must send, and what each answer means to it.

`CASES` is read against the headers of the Lua files by test_script_headers.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.stubs import CountedIds, StubConnection

from askel import (
    RedisWorkflowService,
)
from askel.state import (
    Activated,
    Activations,
    Attempts,
    Begun,
    Entry,
    IfExists,
    Keys,
    Recording,
    Refusal,
    RunStatus,
    Scripts,
    StepDecision,
    StepResult,
    Sweeping,
    Swept,
    Timers,
    Turn,
    Turned,
)

K = Keys("p")
STREAM = "p:commands:q"
ENTRY = Entry(STREAM, "5-1", (b"type", b"run.start"))
RUN_KEYS = dict(zip(("run", "ctl", "history", "lock"), K.run_keys("r"), strict=True))
STEP_ID = "r:s:suffix"
STEP_HASH = [
    b"stepId",
    STEP_ID.encode(),
    b"status",
    b"pending",
    b"createdAt",
    b"1000",
    b"updatedAt",
    b"1000",
]
ACTIVATED = [3, b"w", b"running", b"{}", [b"{}"]]
ACTIVE = Activated(3, "w", "running", b"{}", [b"{}"])
BUSY = Refusal("BUSY", pttl=9)


@dataclass
class Case:
    """One caller: what it sends by the header's names, and what each answer is to it."""

    script: str
    drive: Callable[[StubConnection], Awaitable[Any]]
    keys: dict[str, Any]
    args: dict[str, Any]
    answers: dict[str, tuple[list[Any], Any]] = field(default_factory=dict)
    """By word: the rest of the answer, and the value returned or the exception raised."""
    id: str = ""


def caller(kind: Any, stub: StubConnection) -> Any:
    """Return a caller of the run protocol on *stub*."""
    return kind(Scripts(stub), K, consumer="me", lease_ms=70, robbed_limit=3, clock_offset_ms=11)


def service(stub: StubConnection) -> RedisWorkflowService:
    """Return a state service on *stub*."""
    made = RedisWorkflowService(
        "redis://127.0.0.1:1", key_prefix="p", ids=CountedIds(), clock_offset_ms=11
    )
    made.connection, made.scripts = stub, Scripts(stub)
    return made


def refused(*words: str) -> dict[str, tuple[list[Any], Any]]:
    """Return the answers that a caller passes on as they are."""
    return {word: ([], Refusal(word)) for word in words}


BUSY_ANSWER = {"BUSY": ([9], BUSY)}
PROTOCOL = [
    Case(
        "start",
        lambda s: caller(Activations, s).start(
            ENTRY,
            "own",
            "r",
            "w",
            b"{}",
            "body",
            policy=IfExists.AFTER_TERMINAL,
            durability="fsync",
            command_id="cid",
        ),
        {
            **RUN_KEYS,
            "stream": STREAM,
            "events": K.events,
            "runs": K.runs,
            "stem...": K.generation_stems(),
        },
        {
            "group": "askeld",
            "consumer": "me",
            "entry": "5-1",
            "owner": "own",
            "lease_ms": 70,
            "robbed_limit": 3,
            "offset": 11,
            "run_id": "r",
            "workflow": "w",
            "input": b"{}",
            "body": "body",
            "policy": "after-terminal",
            "queue": "q",
            "durability": "fsync",
            "command_id": b"cid",
        },
        {
            "OK": (ACTIVATED, ACTIVE),
            **refused("LOST", "GONE", "EXISTS", "CONFLICT", "POISON"),
            **BUSY_ANSWER,
        },
    ),
    Case(
        "activate",
        lambda s: caller(Activations, s).activate(ENTRY, "own", "r"),
        {**RUN_KEYS, "stream": STREAM},
        {
            "group": "askeld",
            "consumer": "me",
            "entry": "5-1",
            "owner": "own",
            "lease_ms": 70,
            "robbed_limit": 3,
        },
        {"OK": (ACTIVATED, ACTIVE), **refused("LOST", "GONE", "POISON"), **BUSY_ANSWER},
    ),
    Case(
        "adopt",
        lambda s: caller(Activations, s).adopt("own", "r"),
        RUN_KEYS,
        {"owner": "own", "lease_ms": 70, "robbed_limit": 3},
        {
            "OK": (ACTIVATED, ACTIVE),
            **refused("NOTFOUND", "MANAGED", "POISON"),
            **BUSY_ANSWER,
            "TERMINAL": ([b"failed"], Refusal("TERMINAL", detail="failed")),
        },
    ),
    Case(
        "requeue",
        lambda s: caller(Activations, s).requeue(ENTRY, "own", "r"),
        {"ctl": K.ctl("r"), "lock": K.lock("r"), "stream": STREAM, "commands": K.commands_default},
        {"group": "askeld", "entry": "5-1", "owner": "own", "run_id": "r"},
        {"OK": ([], True), "LOST": ([], False)},
    ),
    Case(
        "record",
        lambda s: caller(Recording, s).record(
            ENTRY, "r", "timer", "body", command_id="cid", step_name="s", attempt=2, born="9"
        ),
        {**RUN_KEYS, "stream": STREAM, "commands": K.commands_default, "step": K.step("r", "s")},
        {
            "group": "askeld",
            "entry": "5-1",
            "offset": 11,
            "run_id": "r",
            "command_id": "cid",
            "kind": "timer",
            "step_name": "s",
            "attempt": 2,
            "body": "body",
            "born": "9",
        },
        {
            "OK": ([b"own"], "own"),
            **refused("STALE", "DUP", "NOTFOUND", "GONE"),
            **BUSY_ANSWER,
            "TERMINAL": ([b"failed"], Refusal("TERMINAL", detail="failed")),
        },
    ),
    Case(
        "settle",
        lambda s: caller(Recording, s).settle(
            ENTRY, "r", RunStatus.FAILED, "body", outcome="error", json=b"{}", command_id="cid"
        ),
        {
            **RUN_KEYS,
            "stream": STREAM,
            "commands": K.commands_default,
            "events": K.events,
            "runs": K.runs,
        },
        {
            "group": "askeld",
            "entry": "5-1",
            "offset": 11,
            "run_id": "r",
            "command_id": "cid",
            "allowed": ",running,suspended,stalled,",
            "target": "failed",
            "outcome": "error",
            "json": b"{}",
            "body": "body",
        },
        {
            "OK": ([b""], ""),
            **refused("ALREADY", "DUP", "NOTFOUND", "GONE"),
            **BUSY_ANSWER,
            "ILLEGAL": ([b"completed"], Refusal("ILLEGAL", detail="completed")),
        },
    ),
    Case(
        "create_run",
        lambda s: caller(Recording, s).create(ENTRY, "r", "w", b"{}", "body"),
        {
            **RUN_KEYS,
            "events": K.events,
            "runs": K.runs,
            "stream": STREAM,
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
            "entry": "5-1",
            "body": "body",
            "nonce": "",
            "policy": "reject",
            "holder": "",
            "field...": [],
        },
        {
            "OK": ([], None),
            **refused("EXISTS", "CONFLICT", "GONE"),
            **BUSY_ANSWER,
            "LOCKLOST": ([], AssertionError),
        },
        id="create_run by a command",
    ),
    Case(
        "put_back",
        lambda s: caller(Recording, s).put_back(
            ENTRY, ("type", "run.start"), due="+5", timer=b"timer", run_id="r"
        ),
        {"stream": STREAM, "timers": K.timers, "ctl": K.ctl("r")},
        {
            "group": "askeld",
            "entry": "5-1",
            "offset": 11,
            "due": "+5",
            "member": b"timer",
            "run_id": "r",
            "word...": ["type", "run.start"],
        },
        {"OK": ([], True), "GONE": ([], False)},
    ),
    Case(
        "bury",
        lambda s: caller(Recording, s).bury(ENTRY, "why", "because", deliveries=4),
        {"stream": STREAM, "dead": K.dead},
        {
            "group": "askeld",
            "entry": "5-1",
            "offset": 11,
            "reason": "why",
            "detail": "because",
            "deliveries": 4,
            "word...": [b"type", b"run.start"],
        },
        {"OK": ([b"6-1"], True), "GONE": ([], False)},
    ),
    Case(
        "drop",
        lambda s: caller(Recording, s).drop(ENTRY),
        {"stream": STREAM},
        {"group": "askeld", "entry": "5-1", "offset": 11, "acknowledge": "1"},
        {"OK": ([5], None)},
    ),
    Case(
        "drop",
        lambda s: caller(Recording, s).age_ms(ENTRY),
        {"stream": STREAM},
        {"group": "askeld", "entry": "5-1", "offset": 11, "acknowledge": "0"},
        {"OK": ([5], 5)},
        id="drop that only asks",
    ),
    Case(
        "begin",
        lambda s: caller(Attempts, s).begin(
            ENTRY,
            "r",
            "s",
            nonce="n",
            step_id=STEP_ID,
            rpc_name="f",
            data=b"1",
            retries=2,
            retry_delay="5s",
            born="9",
        ),
        {
            **RUN_KEYS,
            "stream": STREAM,
            "step": K.step("r", "s"),
            "steps": K.steps("r"),
            "commands": K.commands_default,
        },
        {
            "group": "askeld",
            "consumer": "me",
            "entry": "5-1",
            "nonce": "n",
            "offset": 11,
            "run_id": "r",
            "step_name": "s",
            "step_id": STEP_ID,
            "rpc_name": "f",
            "data": b"1",
            "retries": 2,
            "retry_delay": "5s",
            "born": "9",
            "queue": "q",
        },
        {
            "OK": ([1, b"2", b"5s", b"1", b"9"], Begun(1, 2, "5s", b"1", "9")),
            "SPENT": ([b"own"], Refusal("SPENT", detail="own")),
            **refused("LOST", "NOTFOUND", "GONE", "CONFLICT", "SUSPENDED"),
            **BUSY_ANSWER,
            "TERMINAL": ([b"failed"], Refusal("TERMINAL", detail="failed")),
        },
    ),
    Case(
        "complete",
        lambda s: caller(Attempts, s).complete(
            ENTRY,
            "r",
            "s",
            nonce="n",
            attempt=2,
            becomes="failed",
            json=b"{}",
            final=False,
            delay_ms=40,
            timer=b"timer",
            retry=("type", "step.execute"),
            command_id="cid",
        ),
        {
            **RUN_KEYS,
            "stream": STREAM,
            "step": K.step("r", "s"),
            "commands": K.commands_default,
            "timers": K.timers,
            "retry_stream": STREAM,
        },
        {
            "group": "askeld",
            "entry": "5-1",
            "nonce": "n",
            "attempt": 2,
            "offset": 11,
            "run_id": "r",
            "step_name": "s",
            "status": "failed",
            "outcome": "error",
            "json": b"{}",
            "final": "0",
            "delay_ms": 40,
            "timer": b"timer",
            "command_id": "cid",
            "retry...": ["type", "step.execute"],
        },
        {
            "OK": ([b"own"], "own"),
            **refused("ALREADY", "DUP", "NOTFOUND", "GONE", "FENCED"),
            **BUSY_ANSWER,
            "TERMINAL": ([b"failed"], Refusal("TERMINAL", detail="failed")),
        },
    ),
    Case(
        "deliver",
        lambda s: caller(Recording, s).deliver(ENTRY, 3),
        {"stream": STREAM},
        {"group": "askeld", "consumer": "me", "entry": "5-1", "count": 3},
        {"OK": ([[b"type", b"run.start"]], ENTRY), "LOST": ([], None)},
    ),
    Case(
        "sweep",
        lambda s: caller(Sweeping, s).sweep(
            STREAM, idle_ms=90, room=30, every_ms=40, expected_ms=66
        ),
        {"stream": STREAM, "turn": K.sweep("q"), "dead": K.dead},
        {
            "group": "askeld",
            "consumer": "me",
            "idle_ms": 90,
            "room": 30,
            "every_ms": 40,
            "offset": 11,
            "expected": 66,
        },
        {
            "OK": (
                [70, b"9-0", 8, [b"5-1", 2], [b"4-0"]],
                Swept(((Entry(STREAM, "5-1"), 2),), ("4-0",), goes_on=True, wait_ms=8, now_ms=70),
            ),
            "WAIT": ([70, 7], Swept(wait_ms=7, now_ms=70)),
        },
    ),
    Case(
        "due",
        lambda s: caller(Timers, s).due(8),
        {"timers": K.timers},
        {"offset": 11, "limit": 8},
        {"OK": ([b"1000", b"2000", [b"m"]], ([b"m"], 1000, 2000))},
    ),
]

TURN = Turn(
    "r",
    "own",
    4,
    6,
    "tn",
    results=[
        StepResult("a", "running", 1, "an", "succeeded", b"1", 5, timer=b"over"),
        StepResult("b", "running", 2, "*", "lost", b"{}", 6, final=False),
    ],
    decisions=[
        StepDecision("b", "running", 2, "pending", 3, "", "bb", delay_ms=40, timer=b"timer"),
        StepDecision(
            "c",
            "",
            "",
            "scheduled",
            1,
            "",
            "cb",
            ("stepId", "x"),
            queue=STREAM,
            command=("type", "step.execute"),
        ),
        StepDecision("d", "", "", "running", 1, "dn", "db", ("stepId", "y", "data", b"1")),
    ],
    end="completed",
    outcome="output",
    json=b"9",
)
TURN_ANSWERS: dict[str, tuple[list[Any], Any]] = {
    "OK": (
        [5, 9, b"1000", [b"{}"], b"running"],
        Turned("OK", 5, 9, 1000, [b"{}"], status="running"),
    ),
    "BEHIND": (
        [4, 9, b"1000", [b"{}"], b"running"],
        Turned("BEHIND", 4, 9, 1000, [b"{}"], status="running"),
    ),
    "BUSY": ([9], Turned("BUSY", pttl=9)),
    "TERMINAL": ([b"failed"], Turned("TERMINAL")),
    **{word: ([], Turned(word)) for word in ("END", "LOST", "GONE", "CONFLICT")},
}
