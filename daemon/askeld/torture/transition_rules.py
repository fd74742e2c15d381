"""The rules that a whole transition is held to: what must happen together, and who may do it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from askeld.torture.command_model import Entry, Streams
from askeld.torture.invariants import Invariant
from askeld.torture.run_model import Event, Report, Run
from askeld.torture.transition import Changes

_COMMANDS = frozenset({"signal", "timer"})
_CLOSED = frozenset({"succeeded", "failed"})


class World:
    """What the rules look at beside the transition: all runs, all entries, the time."""

    def __init__(self, report: Report, *, is_atomic: bool = True) -> None:
        self.report = report
        self.is_atomic = is_atomic
        """Whether hash and history change together; else they are compared at the end."""
        self.runs: dict[bytes, Run] = {}
        self.deleted: dict[bytes, tuple[str, bytes]] = {}
        """Runs that are gone -> the status that they had, and the JSON of how they ended."""
        self.streams = Streams()
        self.now = 0
        """The latest time that the server has written down anywhere."""


def check(world: World, changes: Changes) -> None:
    """Hold the transition that has ended to the rules."""
    for run, holder, before in changes.locks:
        if run.run_id not in changes.fences and before != holder:
            told = f"{_text(holder)} has its lock without a fence of its own"
            world.report(Invariant.FENCE, "no_fence", run, told)
    if world.is_atomic:
        _check_steps(world, changes)
    if changes.events:
        _check_events(world, changes)
    if changes.turn is not None:
        _not_locked(world, changes, changes.turn, "a turn")
    if changes.removed or changes.acked:
        _settle_entries(world, changes)
    if changes.disarmed:
        _check_timers(world, changes)
    for run in changes.runs:
        _check_run(world, run)


def _check_steps(world: World, changes: Changes) -> None:
    for step, run in changes.steps.items():
        if run.run_id in world.runs and not step.has and step.status:
            told = f"{step.name!r} has no hash"
            world.report(Invariant.FOLD, "step_hash", run, told)
        elif step.has:
            run.compare_step(step, world.report)


def _check_run(world: World, run: Run) -> None:
    if run.run_id not in world.runs:
        return
    if world.is_atomic:
        run.compare(world.report)
    if run.ended or not run.is_managed:
        if run.ended and world.is_atomic and b"token" not in run.ctl and run.steps:
            run.steps = {}  # nothing of it changes any more
        return
    report, token = world.report, run.ctl.get(b"token")
    if token is not None:
        run.waits = False
        if world.streams.find_token(token, run.run_id) is None:
            report(Invariant.TOKEN, "token_gone", run, f"its token {_text(token)} is on no stream")
    elif b"owner" in run.ctl:
        report(Invariant.TOKEN, "no_token", run, "it has an owner and no token")
    elif run.waits:
        report(Invariant.TOKEN, "no_token", run, "something happened and nobody is woken")
        run.waits = False
    elif run.status == "running" and any(step.is_local for step in run.steps.values()):
        # One whose owner died while it was suspended is closed by whoever drives it on.
        report(Invariant.TOKEN, "no_token", run, "an attempt is open and nobody drives it")


def _check_events(world: World, changes: Changes) -> None:
    """Hold what is recorded to who may record it, and with what."""
    writers: dict[bytes, Run] = {}
    for run, event in changes.events:
        writers[run.run_id] = run
        if event.t == "step":
            if event.status == "running":
                _begun(world, changes, run, event)
            elif event.status in _CLOSED:
                run.witness(run.step(event.name), event, world.report)
        if run.is_managed:
            _check_writer(world, changes, run, event)
    if len(writers) > 1 and not changes.renamed:
        told = f"histories of {[_text(name) for name in writers]} in one transition"
        world.report(Invariant.TENANT, "crosses_runs", next(iter(writers.values())), told)


def _check_writer(world: World, changes: Changes, run: Run, event: Event) -> None:
    """What the owner decides comes in a turn; what others record acknowledges their entry."""
    what = f"{event.t} {event.name!r} {event.status}"
    is_outcome = event.t == "step" and event.status in _CLOSED
    if event.seen is not None:
        if run is not changes.turn:
            world.report(Invariant.STALE, "no_turn", run, f"{what} outside of a turn")
    elif run.run_id not in changes.written and (event.t in _COMMANDS or is_outcome):
        if not changes.acked:
            told = f"{what} without an acknowledgement"
            world.report(Invariant.OUTBOX, "not_acknowledged", run, told)
        _not_locked(world, changes, run, what)
    if event.due is not None and not changes.armed:
        told = f"{event.name!r} waits until {event.due}, and no timer was armed"
        world.report(Invariant.OUTBOX, "no_timer", run, told)


def _begun(world: World, changes: Changes, run: Run, event: Event) -> None:
    """An attempt begins with a nonce of its own; who began it is who holds its lease."""
    step = run.step(event.name)
    if step.nonce and step.nonce == step.ran_nonce and run.run_id not in changes.written:
        told = f"{step.name!r} attempt {event.attempt} has the nonce of the one before"
        world.report(Invariant.STALE, "nonce_again", run, told)
    step.ran_nonce = step.nonce
    lease = None
    if event.seen is None:
        lease = world.streams.find_lease(step.has.get(b"lease", b""), run.run_id, step.name)
    step.holder = run.ctl.get(b"owner", b"") if lease is None else lease.consumer
    if lease is not None:
        _not_locked(world, changes, run, f"attempt {event.attempt} of {step.name!r}")


def _not_locked(world: World, changes: Changes, run: Run, what: str) -> None:
    if run.lock is not None and run.lock != run.ctl.get(b"owner") and not changes.locks:
        told = f"{what} while {_text(run.lock)} holds its lock"
        world.report(Invariant.STALE, "under_foreign_lock", run, told)


def _settle_entries(world: World, changes: Changes) -> None:
    """Find out what became of every entry that was removed from its stream."""
    report, streams = world.report, world.streams
    writers = {run for run, _ in changes.events}
    for stream, entry in changes.removed:
        run = world.runs.get(entry.run_id)
        if (stream, entry.id) not in changes.acked:
            told = f"entry {_text(entry.id)} was removed and not acknowledged"
            report(Invariant.ENTRY, "vanished", run, told)
            continue
        streams.settled += 1
        if entry.id in changes.buried:
            streams.buried(entry, report, run)
        elif entry.id in changes.tokens:
            changes.runs[changes.tokens[entry.id]] = None
        elif writers:
            streams.applied(entry, report, run)
            _check_owner_of(world, entry, writers)
        elif not changes.added and not changes.armed:
            was_deleted = entry.run_id in world.deleted
            streams.silent(entry, run, was_deleted=was_deleted, report=report)


def note_start(world: World, run: Run) -> None:
    """Note that the entry which made *run* was applied: it stays on, as its token."""
    made_by = world.streams.find_token(run.ctl.get(b"start", b""), run.run_id)
    if made_by is not None:
        world.streams.applied(made_by, world.report, run)


def _check_owner_of(world: World, entry: Entry, writers: set[Run]) -> None:
    if entry.run_id and not any(run.run_id == entry.run_id for run in writers):
        told = f"a command for run {_text(entry.run_id)} changed another"
        world.report(Invariant.TENANT, "wrong_run", next(iter(writers)), told)


def _check_timers(world: World, changes: Changes) -> None:
    """A timer that is removed sends its command in the same step, and not before it is due.

    Or the wait that it was for has ended by then: a signal came, and a turn says so.
    """
    for member, due in changes.disarmed:
        fields = _timer_fields(member)
        run = world.runs.get(fields.get("run_id", "").encode())
        if member in changes.armed or _was_heard(run, fields.get("step_name", ""), changes):
            continue
        if changes.added:
            if due > world.now:
                told = f"sent {due - world.now:.0f} ms before it was due"
                world.report(Invariant.TIMER, "timer_early", run, told)
        elif run is not None and not run.ended:
            born = fields.get("born", "").encode()
            if not born or born == run.has.get(b"createdAt"):
                told = f"a timer due at {due:.0f} was removed, and nothing sent"
                world.report(Invariant.TIMER, "timer_lost", run, told)


def _was_heard(run: Run | None, name: str, changes: Changes) -> bool:
    """Tell whether a turn ended the wait *name* of *run*, since its signal came."""
    return any(
        of is run and of.step(name).waits and event.name == name and event.status == "succeeded"
        for of, event in changes.events
        if event.seen is not None
    )


def _timer_fields(member: bytes) -> Mapping[str, str]:
    try:
        _, *words = msgspec.json.decode(member, type=list[str])
    except msgspec.MsgspecError:
        return {}
    return dict(zip(words[::2], words[1::2], strict=False))


def timer_run(member: bytes) -> bytes:
    """Return the id of the run that the timer *member* is for."""
    return _timer_fields(member).get("run_id", "").encode()


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
