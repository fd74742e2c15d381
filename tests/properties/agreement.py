"""What Redis must hold, key by key, when it holds what the model says; times by their relations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.properties.model import TERMINAL, Model, Run, Step

STATUSES = ("running", "suspended", "stalled", *sorted(TERMINAL))


def disagreements(model: Model, found: dict[str, Any]) -> list[str]:
    """Return one sentence per key of *found* that is not as *model* has it; empty if all are.

    Args:
        model: What should be.
        found: The whole prefix, as `read_keyspace` returns it.
    """
    wanted: dict[str, Any] = {}
    for run in model.runs.values():
        wanted |= dict(_keys_of(run, found))
        for index, score in _indexes_of(run, found):
            wanted.setdefault(index, {})[run.run_id] = score
    for run in model.runs.values():
        wanted.setdefault("runs:workflows", {})[run.workflow] = 0.0
    if model.events:
        wanted["events"] = model.events
    if model.deleted:
        wanted["runs:deleted"] = model.deleted
    present = {name: _told(name, value) for name, value in found.items() if name != "meta"}
    return [
        f"{name}: {present.get(name)!r}\n   instead of {wanted.get(name)!r}"
        for name in sorted(present.keys() | wanted.keys())
        if present.get(name) != wanted.get(name)
    ]


def _told(name: str, value: Any) -> Any:
    """Return the value of a key without what no model can know."""
    if name == "events":
        return [(e["run_id"].decode(), e["status"].decode(), int(e["seq"])) for e in value]
    if name == "runs:deleted":
        return set(value)
    if name.startswith("history:"):
        entries = [json.loads(item) for item in value]
        return [{k: v for k, v in entry.items() if k != "at"} for entry in entries]
    if name.startswith("ctl:"):
        lists = {k: value[k].decode().split() for k in ("released", "was") if k in value}
        return {k: v for k, v in value.items() if k != "lock_ms"} | lists
    if name.startswith("step:"):
        own = {k: v for k, v in value.items() if k != "nonce"}
        return own | ({"nonces": value["nonce"].decode().split()} if "nonce" in value else {})
    if name.startswith("run:"):
        own = value | ({"since": b"then"} if "since" in value else {})
        text = value.get("changes", b"").decode()
        writes = {"changes": [text[i : i + 8] for i in range(0, len(text), 8)]}
        return own | writes if text else own
    return value


def _keys_of(run: Run, found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    times = times_of(run.run_id, found)
    if times is None:
        yield f"history:{run.run_id}", run.history
        return
    yield f"history:{run.run_id}", run.history
    yield f"run:{run.run_id}", _run_hash(run, times)
    if run.steps:
        yield f"steps:{run.run_id}", [name.encode() for name in run.steps]
    for name, step in run.steps.items():
        yield f"step:{run.run_id}:{name}", _step_hash(step, times)
    if run.variables:
        yield f"run-state:{run.run_id}", {n: _json(v) for n, v in run.variables.items()}
    if run.lock is not None:
        yield f"lock:{run.run_id}", run.lock.encode()
    control: dict[str, Any] = {"was": run.made_by} if run.made_by else {}
    if run.fence:
        control["fence"] = str(run.fence).encode()
    if run.released:
        control["released"] = run.released_text.split()
    if control:
        yield f"ctl:{run.run_id}", control


def times_of(run_id: str, found: dict[str, Any]) -> list[int] | None:
    """Return the time of each history entry of a run; None where there is no history."""
    items = found.get(f"history:{run_id}")
    return None if items is None else [json.loads(item)["at"] for item in items]


def _at(times: list[int], place: int) -> bytes:
    return str(times[place]).encode() if place < len(times) else b"no such entry"


def _run_hash(run: Run, times: list[int]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": run.run_id.encode(),
        "workflow": run.workflow.encode(),
        "status": run.status.encode(),
        "input": _json(run.input),
        "createdAt": _at(times, 0),
        "updatedAt": _at(times, run.touched),
    }
    if run.is_anew:
        fields["since"] = b"then"
    if run.nonce:
        fields["nonce"] = run.nonce.encode()
    if run.previous is not None:
        fields |= {"generation": str(run.generation).encode(), "previous": run.previous.encode()}
    if run.output is not None:
        fields["output"] = _json(run.output)
    if run.error is not None:
        fields["error"] = _json(run.error)
    if run.changes:
        fields["changes"] = run.changes
    return fields


def _step_hash(step: Step, times: list[int]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "stepId": step.step_id.encode(),
        "status": step.status.encode(),
        "attemptCount": str(step.attempt).encode(),
        "rpcName": step.rpc_name.encode(),
        "data": _json(step.data),
        "createdAt": _at(times, step.first),
        "updatedAt": _at(times, step.entry),
    }
    if step.retries is not None:
        fields["retries"] = str(step.retries).encode()
    if step.nonces:
        fields["nonces"] = list(reversed(step.nonces))
    if step.outcome is not None:
        name, value = step.outcome
        fields[name] = _json(value)
    for note, name in (("branch", "branchTaken"), ("child", "childRunId")):
        if note in step.notes:
            fields[name] = step.notes[note].encode()
    return fields


def _indexes_of(run: Run, found: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Every index that has the run, and its score there."""
    times = times_of(run.run_id, found) or [0]
    created = float(times[0])
    yield "runs", created
    yield f"runs:workflow:{run.workflow}", created
    yield f"runs:status:{run.status}", created
    yield f"runs:workflow-status:{run.status}:{run.workflow}", created
    if run.status in TERMINAL:
        ends = [
            at
            for at, e in zip(times, run.history, strict=False)
            if e.get("status") in TERMINAL and e["t"] == "run"
        ]
        yield f"runs:ended:{run.workflow}", float(ends[-1]) if ends else -1.0


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
