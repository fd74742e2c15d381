"""The callers that look for stuck runs: what they send, and what each answer means to them."""

from __future__ import annotations

from tests.state.calls import STREAM, Case, K, caller

from askel.state import OpenStep, RunFacts, Watching

QUIET = RunFacts(
    run_id="r",
    now=9,
    workflow="w",
    status="running",
    created_at=1,
    updated_at=1,
    turn=3,
    steps=(OpenStep("s", "pending", "f", 2, 5, "5s", "", 1),),
)

WATCHING = [
    Case(
        "watch",
        lambda s: caller(Watching, s).quiet_runs(every_ms=40),
        {
            "watch": K.watch,
            "index": K.runs_by_status("running"),
            "run_stem": "p:run:",
            "ctl_stem": "p:ctl:",
        },
        {"every_ms": 40, "quiet_ms": 40, "limit": 1_000, "offset": 11},
        {"OK": ([2, [b"r"]], (["r"], 40)), "WAIT": ([7], (None, 7))},
    ),
    Case(
        "take_up",
        lambda s: caller(Watching, s).take_up(STREAM, every_ms=40),
        {"stream": STREAM, "turn": K.sweep("q")},
        {
            "group": "askeld",
            "every_ms": 40,
            "limit": 1_000,
            "offset": 11,
        },
        {"OK": ([[b"5-1"]], ["5-1"]), "WAIT": ([7], [])},
    ),
    Case(
        "revive",
        lambda s: caller(Watching, s).revive(QUIET),
        {"run": K.run("r"), "ctl": K.ctl("r"), "commands": K.commands_default},
        {"run_id": "r", "turn": 3},
        {"OK": ([], True), "MOVED": ([], False)},
    ),
    Case(
        "rearm",
        lambda s: caller(Watching, s).rearm(QUIET, QUIET.steps[0], b"timer"),
        {
            "run": K.run("r"),
            "ctl": K.ctl("r"),
            "step": K.step("r", "s"),
            "history": K.history("r"),
            "timers": K.timers,
            "commands": K.commands_default,
        },
        {
            "run_id": "r",
            "name": "s",
            "status": "pending",
            "attempt": 2,
            "member": b"timer",
            "opening": '"t":"step","name":"s","status":"pending","attempt":2',
            "reach": 5_000,
            "offset": 11,
            "dry": "0",
        },
        {
            "OK": ([b"9"], True),
            "FIRED": ([b"9"], False),
            "DRIVEN": ([b"9"], False),
            "MOVED": ([], False),
            "UNKNOWN": ([], False),
        },
    ),
]
