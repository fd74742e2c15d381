"""What Node services wrote, told in the entries of a history. Pure.

They keep one record per attempt, with the time of each status, beside the hash of the step. What
the list does not say already becomes an entry of its own. Which came first within an attempt its
statuses say: the clocks of two systems are not compared where that decides.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from askel.state.models import StepStatus
from askel.state.reads.history import HistoryEntry
from askel.state.reads.records import read_ms

_RANKS = {"pending": 0, "scheduled": 1, "running": 2, "suspended": 3, "succeeded": 4, "failed": 4}
_STAMPS = {"pending": "createdAt"} | {
    status: f"{status}At" for status in ("scheduled", "running", "succeeded", "failed")
}
_CLOSED = {"succeeded": "result", "failed": "error"}
_LAST = 5


class ForeignStep(msgspec.Struct, frozen=True):
    """A step: its hash, and the members of its history in the order of the attempts."""

    name: str
    fields: dict[str, bytes]
    members: list[bytes]


class _Addition(msgspec.Struct, frozen=True):
    """An entry to be put between those of the list, and what it must come after."""

    entry: HistoryEntry
    order: tuple[int, int]


def merged_entries(
    run: Mapping[str, bytes],
    entries: Sequence[HistoryEntry],
    steps: Sequence[ForeignStep],
    variables: Mapping[str, bytes],
) -> list[HistoryEntry]:
    """Return *entries* with what the hashes and the records of attempts tell beyond them.

    Args:
        run: The hash of the run.
        entries: The list.
        steps: Every step of the run.
        variables: The run's variables as they are, JSON text by name.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for place, entry in enumerate(entries):
        places.setdefault((entry.kind, entry.name), []).append(place)
    additions: list[_Addition] = []
    for step in steps:
        own = [entries[place] for place in places.get(("step", step.name), [])]
        additions += _of_step(step, own)
    additions += _of_run(run, [entries[place] for place in places.get(("run", ""), [])])
    at = read_ms(run.get("updatedAt")) or 0
    for name, text in variables.items():
        known = places.get(("state", name))
        if not known or bytes(entries[known[-1]].value) != text:
            entry = HistoryEntry(kind="state", at=at, name=name, value=msgspec.Raw(text))
            additions.append(_Addition(entry, (1, _LAST)))
    return _placed(entries, additions, places) if additions else list(entries)


def _of_step(step: ForeignStep, own: Sequence[HistoryEntry]) -> Iterator[_Addition]:
    """Yield what the list does not say of a step; *own* are its entries there."""
    described = _described(step)
    own = [entry for entry in own if entry.status]  # others note something and move nothing
    # The last word on each attempt, in the list or added to it: (rank, status, outcome).
    last = {
        entry.attempt: (*_order(entry)[1:], _status(entry), _outcome_of(entry)) for entry in own
    }
    known: dict[int, set[str]] = {}
    for entry in own:
        known.setdefault(entry.attempt, set()).add(_status(entry))
    for member in filter(None, map(_decoded, step.members)):
        attempt = int(member["attemptCount"])
        said = known.get(attempt, set())
        for status, at, text in _changes(member):
            if status in said or (status == "pending" and said):
                continue
            rank = _RANKS[status]
            yield _addition(described, attempt, status, at, text, rank)
            if attempt not in last or last[attempt][0] < rank:
                last[attempt] = (rank, status, text)
    # The hash has the last word on the newest attempt: a writer may have died after it.
    status = step.fields.get("status", b"").decode("utf-8", "replace")
    attempt = int(step.fields.get("attemptCount") or 1)
    text = step.fields.get(_CLOSED.get(status, ""), b"")
    if status in _RANKS and last.get(attempt, (0, "", b""))[1:] != (status, text):
        at = read_ms(step.fields.get("updatedAt")) or 0
        yield _addition(described, attempt, status, at, text, _LAST)


def _addition(
    step: HistoryEntry, attempt: int, status: str, at: int, text: bytes, rank: int
) -> _Addition:
    """Return a change of an attempt of *step*, which is its entry without any change."""
    outcome = {_CLOSED[status]: msgspec.Raw(text)} if status in _CLOSED else {}
    entry = msgspec.structs.replace(step, attempt=attempt, status=status, at=at, **outcome)
    return _Addition(entry, (attempt, rank))


def _changes(member: dict[str, Any]) -> Iterator[tuple[str, int, bytes]]:
    """Yield the statuses of one attempt: status, time, outcome."""
    before = 0
    for status, stamp in _STAMPS.items():
        at = read_ms(member.get(stamp))
        is_end = status in _CLOSED
        if is_end and member.get("status") != status:
            continue  # the time of an end that was overwritten
        if at is None and not is_end:
            continue
        before = max(at or 0, before)
        text = member.get(_CLOSED[status]) if is_end else None
        yield status, before, text.encode() if isinstance(text, str) else b""


def _of_run(run: Mapping[str, bytes], own: Sequence[HistoryEntry]) -> Iterator[_Addition]:
    """Yield the start and the status of the run, where the list does not have them."""
    status = run.get("status", b"").decode("utf-8", "replace")
    known = own[-1].status if own else "running"
    if not own:
        workflow = run.get("workflow", b"").decode("utf-8", "replace")
        at = read_ms(run.get("createdAt")) or 0
        start = HistoryEntry(kind="run", at=at, status="running", workflow=workflow)
        yield _Addition(start, (0, 0))
    if status and status != known:
        entry = HistoryEntry(
            kind="run",
            at=read_ms(run.get("updatedAt")) or 0,
            status=status,
            output=msgspec.Raw(run.get("output", b"")),
            error=msgspec.Raw(run.get("error", b"")),
        )
        yield _Addition(entry, (1, _LAST))


def _placed(
    entries: Sequence[HistoryEntry],
    additions: Sequence[_Addition],
    places: Mapping[tuple[str, str], list[int]],
) -> list[HistoryEntry]:
    """Return all entries in one order, that of the list kept.

    An addition stands where its time says, but after what came before it in its own attempt, and
    before what came after it.
    """
    times = list(itertools.accumulate((entry.at for entry in entries), max))
    keyed: list[tuple[tuple[float, int, int], HistoryEntry]] = [
        ((place, 0, 0), entry) for place, entry in enumerate(entries)
    ]
    for number, addition in enumerate(additions):
        entry = addition.entry
        low, high = 0, len(entries)
        for place in places.get((entry.kind, entry.name), []):
            if _order(entries[place]) < addition.order:
                low = place + 1
            elif place >= low:
                high = place
                break
        if addition.order == (0, 0):
            low = high = 0
        place = min(max(bisect.bisect_right(times, entry.at), low), max(high, low))
        keyed.append(((place - 0.5, entry.at, number), entry))
    return [entry for _, entry in sorted(keyed, key=lambda item: item[0])]


def _order(entry: HistoryEntry) -> tuple[int, int]:
    """Return where *entry* stands among those of its step, or of the run."""
    if entry.kind != "step":
        return 1, 0
    return entry.attempt, _RANKS.get(_status(entry), 0)


def _status(entry: HistoryEntry) -> str:
    return StepStatus.FAILED.value if entry.status == StepStatus.LOST else entry.status


def _outcome_of(entry: HistoryEntry) -> bytes:
    return bytes(entry.result) or bytes(entry.error)


def _described(step: ForeignStep) -> HistoryEntry:
    """Return an entry that says of the step what the closing one of an attempt does."""
    fields = step.fields

    def text(name: str) -> str | None:
        return fields[name].decode("utf-8", "replace") if fields.get(name) else None

    retries = fields.get("retries", b"")
    return HistoryEntry(
        kind="step",
        at=0,
        name=step.name,
        rpc_name=text("rpcName"),
        data=msgspec.Raw(fields.get("data", b"")),
        retries=int(retries) if retries.isdigit() else None,
        retry_delay=text("retryDelay"),
        from_step_name=text("fromStepName"),
        branch=text("branchTaken"),
        child_run_id=text("childRunId"),
        suffix=(text("stepId") or "").rpartition(":")[2],
    )


def _decoded(text: bytes) -> dict[str, Any] | None:
    """Return the record of an attempt; None where it is none."""
    try:
        member = msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return None
    if not isinstance(member, dict) or read_ms(member.get("attemptCount")) is None:
        return None
    return member
