"""What must hold in every state, and what a good end is."""

from __future__ import annotations

from tests.model.program import Do, Program, Queue, Together, decide, status_of
from tests.model.store import TERMINAL, Store
from tests.model.workers import name_of
from tests.model.world import Configuration, State


def broken_promise(state: State, configuration: Configuration) -> str:
    """Return the promise that does not hold in *state*; empty if all do."""
    store = Store(state.store)
    undelivered = set(store.fresh)
    for number, run in enumerate(store.runs):
        program = configuration.programs[number]
        most = 1 + _failures(program) + _attempts_lost(configuration)
        attempts = [event[2] for event in run.history if event[0] == "begin"]
        if max(attempts, default=0) > most:
            return f"run {number} has attempt {max(attempts)}: a healthy one was robbed"
        if run.status not in {"running", "suspended"} or "no-token" in configuration.broken:
            continue
        if run.token:
            if run.token not in store.pending and run.token not in undelivered:
                return f"the token {run.token} of run {number} is on no stream and pending nowhere"
            if run.token not in store.entries:
                return f"the token {run.token} of run {number} has no entry"
        elif decide(program, run.history, None).decisions or _is_ready(program, run.history):
            return f"run {number} has news and no driver"
    return ""


def _is_ready(program: Program, history: tuple[tuple[object, ...], ...]) -> bool:
    return status_of(history) == "running" and decide(program, history, None).stands != "open"


def _failures(program: Program) -> int:
    """Return the most failures that one step of *program* has planned."""
    most = 0
    for one in program:
        if isinstance(one, Do | Queue):
            most = max(most, min(one.failures, one.retries))
        elif isinstance(one, Together):
            most = max(most, *(_failures(branch) for branch in one.branches))
    return most


def _attempts_lost(configuration: Configuration) -> int:
    faults = configuration.faults
    return faults.crash + faults.pause + faults.lost + faults.late + faults.drain


def is_good_end(state: State, configuration: Configuration) -> bool:
    """Tell whether all is quiet, and all that was accepted is settled.

    A run may end suspended, and its steps wait on the stream: nobody need resume it.
    """
    store = Store(state.store)
    waiting = {
        entry
        for entry, command in store.entries.items()
        if command[0] == "execute" and store.runs[command[1]].status == "suspended"
    }
    if (store.entries.keys() | store.pending.keys()) - waiting:
        return False
    if any(task.entry not in waiting for worker in state.workers for task in worker.tasks):
        return False
    for number, run in enumerate(store.runs):
        unborn = not run.status and (number in store.deleted or number == 1)
        at_rest = run.status == "suspended" and not run.token and not run.owner
        if run.lock is not None or not (run.status in TERMINAL or unborn or at_rest):
            return False
    was_deleted = state.left.delete < configuration.faults.delete
    sent = configuration.commands + (configuration.afterwards if was_deleted else ())
    names = {name_of(command) for command in sent}
    return names <= set(store.fates)
