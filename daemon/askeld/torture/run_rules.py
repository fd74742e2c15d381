"""What a run must look like, whoever drove it and whatever happened meanwhile: the rules.

They know the documented keys and the documented history, and share no code with askel: what they
accept is written down here. `violations` is pure, so that it can be shown planted mistakes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

RUN_STATUSES = ("running", "suspended", "stalled", "completed", "failed", "cancelled")
TERMINAL = ("completed", "failed", "cancelled")
_RUN_MOVES = {
    "": ("running",),
    "running": ("suspended", "stalled", *TERMINAL),
    "suspended": ("running", "failed", "cancelled"),
    "stalled": ("running", "failed", "cancelled"),
}
#: What may follow within one attempt, and what may begin the next one.
_ATTEMPT_MOVES = {
    "": ("pending", "scheduled", "running"),
    "pending": ("scheduled", "running", "succeeded", "failed"),
    "scheduled": ("running", "succeeded", "failed"),
    "running": ("succeeded", "failed", "lost"),
}
_NEXT_ATTEMPT = {"failed": ("pending", "scheduled", "running"), "lost": ("running",)}
_CLOSED = ("succeeded", "failed", "lost")


@dataclass
class RunRecord:
    """All that Redis holds of one run."""

    run_id: str
    run: dict[str, str]
    ctl: dict[str, str]
    entries: list[dict[str, Any]]
    step_names: list[str]
    steps: dict[str, dict[str, str]]
    lock: str | None = None
    #: Index name ("" for all runs, "status:x", "workflow:y") -> the run's score there.
    indexes: dict[str, float] = field(default_factory=dict)
    #: (status, seq) of the run's events, in order; None when they are not looked at.
    events: list[tuple[str, int]] | None = None
    #: Ids of the entries that are on a stream of commands.
    queued: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def status(self) -> str:
        """The status that the history ends with."""
        return str([entry["status"] for entry in self.entries if entry["t"] == "run"][-1])

    def of_step(self, name: str) -> list[dict[str, Any]]:
        """Return the history entries of one step."""
        return [entry for entry in self.entries if entry["t"] == "step" and entry["name"] == name]

    def path(self, name: str) -> list[str]:
        """Return what a step went through, as `status attempt`, for comparing with a literal."""
        return [f"{entry['status']} {entry['attempt']}" for entry in self.of_step(name)]

    def count(self, status: str) -> int:
        """Return how many step entries have *status*."""
        return sum(entry["t"] == "step" and entry["status"] == status for entry in self.entries)

    def __str__(self) -> str:
        lines = [f"run {self.run_id}: {self.run}", f"ctl {self.ctl} lock {self.lock}"]
        lines += [f"{at:4} {json.dumps(entry)[:300]}" for at, entry in enumerate(self.entries)]
        return "\n".join(lines)


def violations(record: RunRecord, *, settled: bool = True) -> list[str]:
    """Return one sentence per broken promise, each beginning with its name; empty if all hold.

    Args:
        record: What there is of the run.
        settled: Whether whoever drove a run that has ended must have noticed.
    """
    if not record.entries:
        return ["history: there is none"]
    found = list(_entry_shapes(record))
    if found:  # What is not even an entry cannot be judged further.
        return found
    found += _run_path(record)
    names = list(dict.fromkeys(e["name"] for e in record.entries if e["t"] == "step"))
    if record.step_names != names:
        found.append(f"step-list: {record.step_names} instead of {names}")
    if set(record.steps) != set(names):
        found.append(f"step-hashes: of {sorted(record.steps)} instead of {sorted(names)}")
    for name in names:
        found += _step_path(record, name)
        found += _step_hash(name, record.of_step(name), record.steps.get(name, {}))
    found += _run_hash(record)
    found += _turns(record)
    found += _timers(record)
    found += _signals(record)
    found += _indexes(record)
    if settled or record.status not in TERMINAL:
        found += _control(record)
    if record.events is not None:
        found += _events(record)
    return found


def _entry_shapes(record: RunRecord) -> Iterator[str]:
    for position, entry in enumerate(record.entries):
        if not isinstance(entry.get("at"), int) or entry.get("t") not in {
            "run",
            "step",
            "signal",
            "timer",
        }:
            yield f"shape: entry {position} is {entry}"
        elif entry["t"] == "step" and not ({"name", "status", "attempt"} <= entry.keys()):
            yield f"shape: entry {position} lacks a name, status or attempt"


def _run_path(record: RunRecord) -> Iterator[str]:
    """The run's own path: legal moves, nothing after a terminal one."""
    status, ended_at = "", None
    for position, entry in enumerate(record.entries):
        if ended_at is not None:
            yield f"after-terminal: entry {position} follows {status!r} at {ended_at}: {entry}"
        if entry["t"] != "run":
            if position == 0:
                yield "run-path: the history does not begin with the run"
            continue
        if entry["status"] not in _RUN_MOVES.get(status, ()):
            yield f"run-path: {status!r} -> {entry['status']!r} at {position}"
        status = entry["status"]
        ended_at = position if status in TERMINAL else ended_at


def _step_path(record: RunRecord, name: str) -> Iterator[str]:
    """A step's path: legal moves, attempts gapless from 1, one success, budget kept, all closed."""
    entries = record.of_step(name)
    status, attempt, final = "", 1, False
    for entry in entries:
        after = f"{name!r}: {entry['status']} {entry['attempt']} after {status} {attempt}"
        if final or status == "succeeded":
            yield f"step-settled: {after}"
        if entry["attempt"] == attempt:
            if entry["status"] not in _ATTEMPT_MOVES.get(status, ()):
                yield f"step-path: {after}"
        elif entry["attempt"] == attempt + 1:
            if entry["status"] not in _NEXT_ATTEMPT.get(status, ()):
                yield f"step-path: {after}"
        else:
            yield f"attempt-gap: {after}"
        status, attempt, final = entry["status"], entry["attempt"], entry.get("final", False)
    successes = sum(entry["status"] == "succeeded" for entry in entries)
    if successes > 1:
        yield f"success-twice: {name!r} succeeded {successes} times"
    budgets = [entry["retries"] for entry in entries if "retries" in entry]
    if budgets and attempt > budgets[0] + 1:
        yield f"budget: {name!r} has {attempt} attempts with {budgets[0]} retries"
    settled = status == "succeeded" or final
    ends = (e for e in record.entries if e["t"] == "run" and e["status"] in TERMINAL)
    if any("seen" in end for end in ends) and not settled:  # the run's own code ended it
        yield f"left-open: the run has ended and {name!r} is {status} {attempt}"


def _step_hash(name: str, entries: Sequence[dict[str, Any]], step: dict[str, str]) -> Iterator[str]:
    """A step's hash is what its history adds up to."""
    last = entries[-1]
    status = "failed" if last["status"] == "lost" else last["status"]
    outcomes: dict[str, Any] = {}
    if status == "succeeded":
        outcomes = {"result": last.get("result", "absent")}
    elif status == "failed" and last.get("final"):
        outcomes = {"error": last.get("error", "absent")}
    expected: dict[str, Any] = {"status": status, "attemptCount": str(last["attempt"])}
    expected["createdAt"], expected["updatedAt"] = str(entries[0]["at"]), str(last["at"])
    for closing in (entry for entry in entries if entry["status"] in _CLOSED):
        if "id" in closing:
            expected["stepId"] = closing["id"]
        expected |= {k: str(closing[j]) for j, k in _COPIED.items() if j in closing}
        if "data" in closing and json.loads(step.get("data", "null")) != closing["data"]:
            yield f"step-hash: {name!r} has data {step.get('data')}, its history {closing['data']}"
    for key, value in expected.items():
        has = step.get(key, "").rpartition(":")[2] if key == "stepId" else step.get(key)
        if has != value:
            yield f"step-hash: {name!r} has {key} {has!r}, its history {value!r}"
    for key in ("result", "error"):
        has = json.loads(step[key]) if key in step else None
        if has != outcomes.get(key):
            yield f"step-hash: {name!r} has {key} {has!r}, its history {outcomes.get(key)!r}"


_COPIED = {
    "rpc": "rpcName",
    "retries": "retries",
    "retryDelay": "retryDelay",
    "from": "fromStepName",
}


def _run_hash(record: RunRecord) -> Iterator[str]:
    """The run's hash is what its history adds up to."""
    own = [entry for entry in record.entries if entry["t"] == "run"]
    first, last = own[0], own[-1]
    expected = {
        "id": record.run_id,
        "workflow": first.get("workflow"),
        "status": last["status"],
        "createdAt": str(first["at"]),
    }
    for key, value in expected.items():
        if record.run.get(key) != value:
            yield f"run-hash: {key} is {record.run.get(key)!r}, the history says {value!r}"
    for key in ("output", "error"):
        has = json.loads(record.run[key]) if key in record.run else None
        if has != last.get(key):
            yield f"run-hash: {key} is {has!r}, the history says {last.get(key)!r}"


def _turns(record: RunRecord) -> Iterator[str]:
    """What turns wrote says what they had seen: never the future, never less than before."""
    seen = 0
    for position, entry in enumerate(record.entries):
        if "seen" not in entry:
            continue
        if not 0 < entry["seen"] <= position:
            yield f"seen: entry {position} has seen {entry['seen']}"
        if entry["seen"] < seen:
            yield f"seen: entry {position} has seen {entry['seen']}, one before it {seen}"
        seen = max(seen, entry["seen"])
        if entry["t"] == "run":
            unseen = [e for e in record.entries[entry["seen"] : position] if "seen" not in e]
            if unseen:
                yield f"unseen: the turn that ended the run had not seen {unseen}"


def _timers(record: RunRecord) -> Iterator[str]:
    """No timer is early, none is applied twice; a sleep is as long as was asked for."""
    due: dict[tuple[str, int], int] = {}
    fired: Counter[tuple[str, int]] = Counter()
    for entry in record.entries:
        key = (entry.get("name", ""), entry.get("attempt", 1))
        if "due" in entry:
            due[key] = entry["due"]
            asked = json.loads(record.steps.get(key[0], {}).get("data", "null"))
            wait_ms = entry["due"] - entry["at"]
            if entry["status"] == "scheduled" and wait_ms not in asked.values():
                yield f"duration: of {key[0]!r} is {entry['due'] - entry['at']}, asked {asked}"
        sleep_over = entry["t"] == "step" and entry["status"] == "succeeded" and "rpc" not in entry
        if sleep_over and "seen" in entry and '"signal"' in json.dumps(entry.get("data")):
            continue  # a wait that a turn ended: a signal came
        if entry["t"] != "timer" and not (sleep_over and key in due):
            continue
        fired[key] += 1
        if key not in due:
            yield f"timer: of {key} fired, and nobody armed it"
        elif entry["at"] < due[key]:
            yield f"timer-early: of {key} by {due[key] - entry['at']} ms"
    yield from (f"timer-twice: of {key}" for key, count in fired.items() if count > 1)


def _signals(record: RunRecord) -> Iterator[str]:
    ids = Counter(e["command"] for e in record.entries if "command" in e)
    yield from (f"command-twice: {name!r}" for name, count in ids.items() if count > 1)


def _indexes(record: RunRecord) -> Iterator[str]:
    """The run is in exactly three indexes, everywhere with the time of its creation."""
    wanted = {"", f"status:{record.status}", f"workflow:{record.run.get('workflow')}"}
    if set(record.indexes) != wanted:
        yield f"indexes: in {sorted(record.indexes)} instead of {sorted(wanted)}"
    wrong = {n: s for n, s in record.indexes.items() if s != record.entries[0]["at"]}
    if wrong:
        yield f"indexes: scores {wrong} instead of {record.entries[0]['at']}"


def _control(record: RunRecord) -> Iterator[str]:
    """A run that has ended is nobody's; one that goes on has a token that exists, if any."""
    if record.status in TERMINAL:
        for key in ("token", "owner"):
            if key in record.ctl:
                yield f"left-behind: ctl.{key} {record.ctl[key]!r} of a run that has ended"
        if record.lock is not None:
            yield f"left-behind: the lock, held by {record.lock!r}"
    elif "token" in record.ctl and record.ctl["token"] not in record.queued:
        yield f"token: {record.ctl['token']} is on no stream"
    elif "owner" in record.ctl and "token" not in record.ctl and "start" in record.ctl:
        yield f"token: {record.ctl['owner']!r} owns the run without one"


def _events(record: RunRecord) -> Iterator[str]:
    """Each change of the run's status is told once, in order, with its place in the history."""
    wanted = [(e["status"], at) for at, e in enumerate(record.entries, 1) if e["t"] == "run"]
    # The status that a run begins with is told by its creation. What was told of a generation was
    # told under the id it had then.
    told = record.events or []
    began = [place for place, (_, seq) in enumerate(told) if seq == 1]
    latest = told[began[-1] :] if began else told
    if latest != wanted and not (_FORMER.search(record.run_id) and not told):
        yield f"events: {told} instead of {wanted}"


_FORMER = re.compile(r"\.g\d+$")
