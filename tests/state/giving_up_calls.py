"""The callers that give a step command up: what they send, and what each answer means to them."""

from __future__ import annotations

from tests.state.calls import (
    BUSY_ANSWER,
    ENTRY,
    RUN_KEYS,
    STREAM,
    Case,
    K,
    caller,
    refused,
)

from askel.state import Attempts

GIVING_UP = [
    Case(
        "poison",
        lambda s: caller(Attempts, s).poison(
            ENTRY, "r", "s", error=b"{}", detail="why", deliveries=5, born="3"
        ),
        {
            **RUN_KEYS,
            "stream": STREAM,
            "step": K.step("r", "s"),
            "commands": K.commands_default,
            "dead": K.dead,
        },
        {
            "group": "askeld",
            "entry": "5-1",
            "offset": 11,
            "run_id": "r",
            "step_name": "s",
            "error": b"{}",
            "born": "3",
            "reason": "poison",
            "detail": "why",
            "deliveries": 5,
            "word...": [b"type", b"run.start"],
        },
        {"OK": ([b"own"], "own"), **refused("GONE"), **BUSY_ANSWER},
    ),
    Case(
        "stall",
        lambda s: caller(Attempts, s).stall(
            ENTRY, "r", "s", rpc_name="f", born="3", error=b"{}", detail="why"
        ),
        {
            **RUN_KEYS,
            "stream": STREAM,
            "step": K.step("r", "s"),
            "commands": K.commands_default,
            "events": K.events,
            "runs": K.runs,
            "dead": K.dead,
        },
        {
            "group": "askeld",
            "entry": "5-1",
            "offset": 11,
            "run_id": "r",
            "born": "3",
            "rpc_name": "f",
            "allowed": ",running,",
            "error": b"{}",
            "body": '"t":"run","status":"stalled","error":{}',
            "detail": "why",
            "word...": [b"type", b"run.start"],
        },
        {"OK": ([b"own"], "own"), **refused("GONE"), **BUSY_ANSWER},
    ),
]
