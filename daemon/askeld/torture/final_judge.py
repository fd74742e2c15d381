"""What the server holds at the end: held to the rules of runs, and to what its file adds up to."""

from __future__ import annotations

from collections import Counter
from typing import Any
from zlib import crc32

from askeld.torture.client_log import Operation
from askeld.torture.final_state import command_streams, read_record
from askeld.torture.invariants import Invariant, Violation
from askeld.torture.run_rules import violations
from askeld.torture.transition_rules import World
from askeld.torture.verdict import Verdict

_RULES_OF_RECORD = 20
_DOUBLED = ("success-twice", "command-twice", "timer-twice")


async def judge_end(
    client: Any,
    prefix: str,
    operations: dict[str, Operation],
    world: World | None,
    sample: int,
    *,
    is_atomic: bool,
) -> Verdict:
    """Read runs as the server holds them; all of them where no file was read, else a sample."""
    found = Verdict(source="the final keys")
    kinds: Counter[str] = Counter()
    ids = [run.decode() for run in await client.zrange(f"{prefix}:runs", 0, -1)]
    every = 1 if world is None else max(len(ids) // max(sample, 1), 1)
    streams = await command_streams(client, prefix)
    expected = {o.run_id: o.expected for o in operations.values() if o.expected is not None}
    seen: Counter[str] = Counter()

    def report(run_id: str, invariant: Invariant, kind: str, detail: str) -> None:
        kinds[kind] += 1
        name = invariant.value.partition(":")[0]
        found.violations.append(Violation(name, kind, run_id, detail))

    for run_id in ids[::every]:
        record = await read_record(client, prefix, run_id, streams=streams, events=False)
        found.evaluated += _RULES_OF_RECORD
        seen[record.status if record.entries else "unknown"] += 1
        found.attempts += record.count("running")
        found.attempts_lost += record.count("lost")
        for sentence in violations(record, settled=False) if is_atomic else ():
            if world is not None and sentence.startswith("timer-early"):
                continue  # the clock may have jumped since: its file tells when it was sent
            report(run_id, Invariant.FOLD, sentence.partition(":")[0], sentence)
        wanted = expected.get(run_id)
        has_ended = record.run.get("status") == "completed"
        if wanted is not None and has_ended and record.run.get("output") != str(wanted):
            told = f"it returned something else than {wanted}"
            report(run_id, Invariant.RESULT, "wrong_outcome", told)
        if world is not None and await _differs(client, prefix, run_id, world):
            told = "the server does not hold the history that its file tells of"
            report(run_id, Invariant.RESULT, "not_kept", told)
    found.runs, found.by_status = len(ids), dict(seen)
    found.duplicated = sum(kinds[kind] for kind in _DOUBLED)
    found.dead_lettered = await client.xlen(f"{prefix}:dead")
    if world is None:
        await _judge_operations(client, prefix, operations, found, report)
    found.by_kind = dict(kinds)
    return found


async def _differs(client: Any, prefix: str, run_id: str, world: World) -> bool:
    run = world.runs.get(run_id.encode())
    digest = 0
    for entry in await client.lrange(f"{prefix}:history:{run_id}", 0, -1):
        digest = crc32(entry, digest)
    return run is None or run.digest != digest


async def _judge_operations(
    client: Any, prefix: str, operations: dict[str, Operation], found: Verdict, report: Any
) -> None:
    """Look for every accepted command in histories, dead letters, streams and control hashes."""
    letters = {f.get(b"id", b"") for _, f in await client.xrange(f"{prefix}:dead")}
    for operation in operations.values():
        found.unknown += operation.unknown
        if not operation.accepted:
            continue
        found.accepted += 1
        run_id = operation.run_id
        if operation.kind in {"run.start", "run.create"}:
            is_applied = bool(await client.exists(f"{prefix}:run:{run_id}"))
        elif operation.kind == "step.execute":  # called as its operation
            is_applied = bool(await client.exists(f"{prefix}:step:{run_id}:{operation.op}"))
        else:
            is_applied = bool(await client.hexists(f"{prefix}:ctl:{run_id}", f"id:{operation.op}"))
        found.applied += is_applied
        if not is_applied and operation.op.encode() not in letters:
            if await _needs_nothing(client, prefix, operation):
                continue
            found.lost += 1
            told = f"{operation.kind} {operation.op!r} was accepted, and there is no trace of it"
            report(run_id, Invariant.COMMAND, "lost", told)
    for status in ("running", "suspended", "stalled"):
        found.unfinished += await client.zcard(f"{prefix}:runs:status:{status}")


async def _needs_nothing(client: Any, prefix: str, operation: Operation) -> bool:
    """Tell whether the run was already what the command asks for: that leaves no trace."""
    return operation.kind in {"run.cancel", "run.terminate", "run.suspend", "run.resume"} and bool(
        await client.exists(f"{prefix}:run:{operation.run_id}")
    )
