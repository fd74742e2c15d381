"""The judge: what really happened, by the server's own append-only file and the client's log.

It asks no daemon and shares no code with askel's state package. Every transition in the file is
held to every invariant; then what the client was promised is looked for in what became of it, and
what the server holds at the end is compared with what its file adds up to. Without a file (a Redis
that is not ours) only the end is judged, and the verdict says so.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import anyio

from askeld.torture.aof import Aof
from askeld.torture.client_log import ClientLog, Operation
from askeld.torture.command_model import Fate, op_key
from askeld.torture.final_judge import judge_end
from askeld.torture.invariants import Invariant
from askeld.torture.replay import Replay
from askeld.torture.run_model import Run
from askeld.torture.story import story_of
from askeld.torture.transition_rules import World, timer_run
from askeld.torture.verdict import Verdict

_DOUBLED = ("duplicate", "applied_twice", "command_twice", "applied_and_dead", "timer_twice")


async def judge(
    aof: Path | None,
    client: Any,
    prefix: str,
    log: ClientLog,
    *,
    may_lose: bool = False,
    is_atomic: bool = True,
    max_deliveries: int | None = None,
    sample: int = 500,
) -> Verdict:
    """Judge all that happened under *prefix*.

    Args:
        aof: The data folder of the server, or its append-only file; None where it is not ours.
        client: Of the server, for what it holds at the end; None leaves that out.
        prefix: The key prefix.
        log: What the client sent, and what it was told.
        may_lose: Whether the server may have lost what it acknowledged (a power cut with
            ``appendfsync everysec``): then a loss is counted and is no violation.
        is_atomic: False for the control, whose transitions are several commands.
        max_deliveries: That of the workers, where it is to be judged.
        sample: How many runs are read whole at the end, where there is a file; without one: all.

    Raises:
        AofError: The file cannot be read.
    """
    operations = log.operations()
    if aof is None:
        verdict = Verdict(source="the final keys", notes=[_NO_FILE])
        replay = None
    else:
        replay = Replay(prefix, max_deliveries=max_deliveries, is_atomic=is_atomic)
        verdict = await anyio.to_thread.run_sync(_judge_file, aof, replay, operations, may_lose)
    if client is not None:
        world = None if replay is None else replay.world
        found = await judge_end(client, prefix, operations, world, sample, is_atomic=is_atomic)
        _add_end(verdict, found)
    if aof is not None and verdict.violations:
        first = next((v.run_id for v in verdict.violations if v.run_id), "")
        if first:
            verdict.story = await anyio.to_thread.run_sync(story_of, aof, prefix, first)
    return verdict


_NO_FILE = (
    "the server is not ours: its append-only file was not read, only the keys that are left and "
    "the client's log; what was wrong for a moment has not been seen"
)


def _judge_file(
    aof: Path,
    replay: Replay,
    operations: dict[str, Operation],
    may_lose: bool,  # noqa: FBT001
) -> Verdict:
    file = Aof(aof)
    replay.play_base(file.base_commands())
    replay.play(file.transitions())
    replay.finish()
    verdict = Verdict(source="the append-only file", transitions=replay.transition)
    replay.transition = 0
    if file.opening is not None:
        verdict.notes.append("the file begins with a rewritten state, which was taken as it is")
    if file.is_cut:
        verdict.notes.append("the file ends within a command, which was left out")
    _judge_operations(verdict, replay, operations, may_lose=may_lose)
    _judge_runs(verdict, replay, operations)
    counts = replay.counts
    verdict.commands, verdict.evaluated = file.commands, replay.evaluated
    verdict.turns, verdict.redelivered = counts["turns"], counts["redelivered"]
    verdict.attempts, verdict.attempts_lost = counts["running"], counts["lost"]
    verdict.dead_lettered = counts["dead letters"]
    verdict.violations, verdict.by_kind = replay.violations, dict(replay.kinds)
    verdict.duplicated = sum(replay.kinds[kind] for kind in _DOUBLED)
    return verdict


def _judge_operations(
    verdict: Verdict, replay: Replay, operations: dict[str, Operation], *, may_lose: bool
) -> None:
    """Look for every accepted command in what became of the entries."""
    fates = replay.world.streams.fates
    verdict.applied = sum(fate.applied > 0 for fate in fates.values())
    verdict.repeated = sum(fate.silent for fate in fates.values())
    timers = replay.world.streams.armed_ops()
    for operation in operations.values():
        verdict.unknown += operation.unknown
        if not operation.accepted:
            continue
        verdict.accepted += 1
        fate = fates.get(op_key(operation.op, operation.kind, operation.run_id))
        run = replay.world.runs.get(operation.run_id.encode())
        told = f"{operation.kind} {operation.op!r} was accepted"
        if fate is None:
            verdict.lost += 1
            if not may_lose:
                replay.report(Invariant.COMMAND, "lost", run, f"{told}, and there is no trace")
        elif not _is_settled(fate) and operation.op not in timers:
            verdict.unsettled += 1
            replay.report(Invariant.COMMAND, "unsettled", run, f"{told}, and is still waiting")


def _is_settled(fate: Fate) -> bool:
    return bool(fate.applied or fate.dead or fate.silent)


def _judge_runs(verdict: Verdict, replay: Replay, operations: dict[str, Operation]) -> None:
    """Look at how every run has ended, and whether what has not ended ever will."""
    world = replay.world
    verdict.runs = len(world.runs)
    verdict.by_status = dict(Counter(run.status for run in world.runs.values()))
    waiting = {timer_run(member) for member in world.streams.timers}
    waiting |= {e.run_id for entries in world.streams.live.values() for e in entries.values()}
    expected = {o.run_id: o.expected for o in operations.values() if o.expected is not None}
    for run in world.runs.values():
        if not run.ended:
            verdict.unfinished += 1
            if not _will_move(run, world) and run.run_id not in waiting:
                verdict.stuck += 1
                replay.report(Invariant.TOKEN, "stuck", run, f"nothing moves it: {run.facts()}")
        wanted = expected.get(run.run_id.decode(errors="replace"))
        if run.status == "completed" and wanted is not None and run.json != b"%d" % wanted:
            told = f"it returned something else than {wanted}"
            replay.report(Invariant.RESULT, "wrong_outcome", run, told)
    verdict.deleted = dict(Counter(status for status, _ in world.deleted.values()))
    for run_id, (status, json) in world.deleted.items():
        wanted = expected.get(run_id.decode(errors="replace"))
        if status == "completed" and wanted is not None and json != b"%d" % wanted:
            told = f"{run_id!r} had returned something else than {wanted} when it was deleted"
            replay.report(Invariant.RESULT, "wrong_outcome", None, told)


def _will_move(run: Run, world: World) -> bool:
    """Tell whether an entry drives *run*, or it waits for people."""
    if run.status in {"suspended", "stalled"} or not run.is_managed:
        return True
    token = run.ctl.get(b"token", b"")
    return world.streams.find_token(token, run.run_id) is not None


def _add_end(verdict: Verdict, found: Verdict) -> None:
    """Add what was found in the final keys."""
    verdict.evaluated += found.evaluated
    verdict.violations = (verdict.violations + found.violations)[:1_000]
    kinds = Counter(verdict.by_kind) + Counter(found.by_kind)
    verdict.by_kind = dict(kinds)
    verdict.notes += found.notes
    if not verdict.transitions:
        for name in ("runs", "by_status", "attempts", "attempts_lost", "accepted", "unknown"):
            setattr(verdict, name, getattr(found, name))
        for name in ("dead_lettered", "lost", "duplicated", "unfinished", "applied", "stuck"):
            setattr(verdict, name, getattr(found, name))
