"""The history of a run: one list of entries, read and folded into the attempts of its steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from askel.state.codec import PLAIN, Codec
from askel.state.models import StepAttempt, StepState, StepStatus, from_ms
from askel.state.reads.records import error_of


class HistoryEntry(
    msgspec.Struct,
    frozen=True,
    rename={
        "kind": "t",
        "rpc_name": "rpc",
        "retry_delay": "retryDelay",
        "from_step_name": "from",
        "suffix": "id",
        "child_run_id": "child",
        "decided_by": "by",
    },
):
    """One entry as it stands in the list.

    ``kind`` is ``run``, ``step``, ``state`` (a variable), ``signal``, ``timer`` or ``approval``.
    ``at`` and ``due`` are milliseconds of the server's clock. ``seen`` is the length of the
    history that the deciding turn had seen; it is present on what a turn wrote, and only there.
    ``waits`` marks a step that is a wait for a signal.
    ``now`` is the time that workflow code was told when it was given the outcome, if it asked.
    ``generation`` and ``previous`` stand in the first entry of a run that took another's id.
    ``final`` marks a failed attempt after which no other comes. ``result``, ``error``, ``data``,
    ``output`` and ``value`` are JSON text.
    """

    kind: str
    at: int
    status: str = ""
    name: str = ""
    attempt: int = 1
    rpc_name: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()
    retries: int | None = None
    retry_delay: str | None = None
    from_step_name: str | None = None
    suffix: str | None = None
    workflow: str | None = None
    reason: str | None = None
    command: str | None = None
    due: int | None = None
    seen: int | None = None
    now: int | None = None
    waits: bool = False
    final: bool = False
    value: msgspec.Raw = msgspec.Raw()
    branch: str | None = None
    child_run_id: str | None = None
    generation: int = 1
    previous: str | None = None
    decided_by: str | None = None


_decode_entry = msgspec.json.Decoder(HistoryEntry).decode


def decode_entries(items: Iterable[bytes]) -> list[HistoryEntry]:
    """Return the history entries in *items*, in order."""
    return [_decode_entry(item) for item in items]


_SHARED = ("step_id", "rpc_name", "data", "retries", "retry_delay", "from_step_name")
_STAMPS = {
    StepStatus.SCHEDULED: "scheduled_at",
    StepStatus.RUNNING: "running_at",
    StepStatus.SUCCEEDED: "succeeded_at",
    StepStatus.FAILED: "failed_at",
    StepStatus.LOST: "failed_at",
}


def fold_attempts(
    run_id: str, entries: Iterable[HistoryEntry], codec: Codec = PLAIN
) -> list[StepAttempt]:
    """Return one record per attempt, in the order in which the attempts began. Pure.

    What an entry does not carry (the function, the options) is taken from the step's other
    entries: the one that closes an attempt is complete. One without a status notes something of
    an attempt, which goes on, or has ended, as it was.
    """
    attempts: dict[tuple[str, int], dict[str, Any]] = {}
    shared: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry.kind != "step":
            continue
        facts = shared.setdefault(entry.name, {"step_id": f"{run_id}:{entry.name}:", "data": None})
        attempt = attempts.setdefault(
            (entry.name, entry.attempt), {"created_at": from_ms(entry.at), "result": None}
        )
        _take_facts(facts, entry, run_id, codec)
        if entry.branch is not None:
            attempt["branch_taken"] = entry.branch
        if entry.child_run_id is not None:
            attempt["child_run_id"] = entry.child_run_id
        if entry.status:
            _take_status(attempt, entry, codec)
    return [
        StepAttempt(step_name=name, attempt_count=number, **{**shared[name], **attempt})
        for (name, number), attempt in attempts.items()
    ]


def _take_facts(facts: dict[str, Any], entry: HistoryEntry, run_id: str, codec: Codec) -> None:
    if entry.suffix is not None:
        facts["step_id"] = f"{run_id}:{entry.name}:{entry.suffix}"
    if entry.data:
        facts["data"] = codec.decode(bytes(entry.data))
    for field in ("rpc_name", "retries", "retry_delay", "from_step_name"):
        if getattr(entry, field) is not None:
            facts[field] = getattr(entry, field)


def _take_status(attempt: dict[str, Any], entry: HistoryEntry, codec: Codec) -> None:
    status = StepStatus(entry.status)
    attempt["status"] = status
    attempt["updated_at"] = from_ms(entry.at)
    if status in _STAMPS:
        attempt[_STAMPS[status]] = from_ms(entry.at)
    attempt["result"] = codec.decode(bytes(entry.result)) if entry.result else None
    attempt["error"] = error_of(bytes(entry.error), codec)


def is_complete(attempt: StepAttempt) -> bool:
    """Tell whether the history alone says what the step of *attempt* is: once one was closed."""
    return not attempt.step_id.endswith(":")


def completed(attempt: StepAttempt, state: StepState) -> StepAttempt:
    """Return an open *attempt* with what its step's hash says and the history does not yet."""
    return msgspec.structs.replace(attempt, **{name: getattr(state, name) for name in _SHARED})


def quoted(text: str) -> str:
    """Return *text* as a JSON string."""
    return msgspec.json.encode(text).decode()


def started_body(workflow: str, command_id: str = "") -> str:
    """Return the members of the entry that begins a run (the scripts add the time)."""
    command = f',"command":{quoted(command_id)}' if command_id else ""
    return f'"t":"run","status":"running","workflow":{quoted(workflow)}{command}'


def status_body(
    status: str, output: bytes = b"", error: bytes = b"", *, reason: str = "", command_id: str = ""
) -> str:
    """Return the members of the entry of a run's change of status."""
    parts = [f'"t":"run","status":"{status}"']
    if output:
        parts.append(f'"output":{output.decode()}')
    if error:
        parts.append(f'"error":{error.decode()}')
    if reason:
        parts.append(f'"reason":{quoted(reason)}')
    if command_id:
        parts.append(f'"command":{quoted(command_id)}')
    return ",".join(parts)


def step_body(name: str, status: str, attempt: int, rpc_name: str | None = None) -> str:
    """Return the members of an entry that opens an attempt, or moves it on."""
    number = f',"attempt":{attempt}' if attempt > 1 else ""
    rpc = f',"rpc":{quoted(rpc_name)}' if rpc_name else ""
    return f'"t":"step","name":{quoted(name)},"status":"{status}"{number}{rpc}'
