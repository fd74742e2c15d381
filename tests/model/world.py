"""Everything that can happen next: what workers do, and the faults that are still to come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tests.model.program import Program
from tests.model.rules import Broken
from tests.model.scripts import SCRIPTS, fire
from tests.model.store import WRITER, BrokenPromiseError, Command, Store
from tests.model.workers import (
    Attempt,
    Driven,
    HandedBack,
    Refused,
    Request,
    Taken,
    Task,
    answered,
    handler_ends,
    name_of,
    request,
)


class Faults(NamedTuple):
    """How many of each kind may still happen."""

    crash: int = 0  # a process dies; another begins in its place
    pause: int = 0  # a lease, or a lock, runs out although its holder lives
    lost: int = 0  # a script is executed, its reply is lost
    late: int = 0  # a copy of a request arrives at any later time
    writer: int = 0  # an embedding program takes the run lock
    hang: int = 0  # a handler whose step was taken over never returns
    drain: int = 0  # a worker hands something back
    delete: int = 0  # somebody deletes run 0


@dataclass(frozen=True)
class Configuration:
    """What is explored: programs of the runs, commands sent, workers, faults.

    afterwards: commands sent when the run has been deleted.
    """

    name: str
    program: Program
    commands: tuple[Command, ...]
    faults: Faults
    child: Program | None = None
    afterwards: tuple[Command, ...] = ()
    workers: int = 2
    broken: Broken = field(default=frozenset())

    @property
    def programs(self) -> tuple[Program, ...]:
        """The program of each run."""
        return (self.program,) if self.child is None else (self.program, self.child)

    def without(self, *parts: str) -> Configuration:
        """Return it with parts of the protocol left out."""
        return replace(self, broken=frozenset(parts))


class Worker(NamedTuple):
    """A process: its consumer name, which is never used again, and what it has in hand."""

    consumer: int
    tasks: frozenset[Task] = frozenset()


class State(NamedTuple):
    """One state of the world."""

    store: tuple[Any, ...]
    workers: tuple[Worker, ...]
    next_consumer: int
    left: Faults
    copies: tuple[Request, ...] = ()
    is_writing: bool = False


class Move(NamedTuple):
    """What happened, whether it was a fault, and the state after it (or the promise it broke)."""

    label: str
    is_fault: bool
    state: State | None
    broken: str = ""


def initial(configuration: Configuration) -> State:
    """Return the state in which all commands have been sent and none was read."""
    store = Store.empty(len(configuration.programs))
    for command in configuration.commands:
        store.add(command)
    workers = tuple(Worker(number) for number in range(configuration.workers))
    return State(store.freeze(), workers, configuration.workers, configuration.faults)


def moves(state: State, configuration: Configuration) -> Iterator[Move]:
    """Return everything that can happen in *state*."""
    for place in range(len(state.workers)):
        yield from _reading(state, place)
        for task in state.workers[place].tasks:
            yield from _asking(state, place, task, configuration)
            yield from _handling(state, place, task, configuration)
            yield from _renewing(state, place, task, configuration)
            yield from _draining(state, place, task)
        if state.left.crash:
            worker = Worker(state.next_consumer)
            crashed = _with(state, place, worker)._replace(next_consumer=state.next_consumer + 1)
            yield Move(f"{_name(state, place)} dies", True, _spent(crashed, "crash"))
    yield from _time(state, configuration)
    yield from _copies(state, configuration)
    yield from _others(state, configuration)


# Parts of a state.


def _name(state: State, place: int) -> str:
    return f"worker {state.workers[place].consumer}"


def _with(state: State, place: int, worker: Worker) -> State:
    workers = list(state.workers)
    workers[place] = worker
    return state._replace(workers=tuple(workers))


def _having(state: State, place: int, task: Task | None, then: Task | None) -> State:
    worker = state.workers[place]
    tasks = worker.tasks - {task} if task else worker.tasks
    return _with(state, place, worker._replace(tasks=tasks | {then} if then else tasks))


def _spent(state: State, fault: str) -> State:
    return state._replace(left=state.left._replace(**{fault: getattr(state.left, fault) - 1}))


def _script(
    state: State, asked: Request, configuration: Configuration
) -> tuple[Store, tuple[Any, ...] | str]:
    """Run a script on a copy of the store; return its answer, or the promise it broke."""
    store = Store(state.store)
    try:
        return store, SCRIPTS[asked[0]](store, configuration.broken, *asked[1:])
    except BrokenPromiseError as broken:
        return store, str(broken)


# What workers do.


def _reading(state: State, place: int) -> Iterator[Move]:
    """XREADGROUP takes the next entry; XAUTOCLAIM one whose lease has run out."""
    tasks = state.workers[place].tasks
    fresh, pending = state.store[1], state.store[2]
    if fresh:
        store = Store(state.store)
        entry, store.fresh = store.fresh[0], store.fresh[1:]
        if entry not in store.entries:  # it was deleted before anybody read it
            yield Move(f"{entry} is passed over", False, state._replace(store=store.freeze()))
        else:
            yield _takes(state, place, store, entry, "reads")
    for entry, (_, has_run_out) in pending:
        if has_run_out and not any(task.entry == entry for task in tasks):
            yield _takes(state, place, Store(state.store), entry, "claims")


def _takes(state: State, place: int, store: Store, entry: int, verb: str) -> Move:
    store.pending[entry] = (state.workers[place].consumer, False)
    task = Taken(entry, store.nonce(), store.entries[entry])
    label = f"{_name(state, place)} {verb} {entry} {task.command}"
    return Move(label, False, _having(state, place, None, task)._replace(store=store.freeze()))


def _asking(state: State, place: int, task: Task, configuration: Configuration) -> Iterator[Move]:
    """A script is sent and answered; or its reply is lost; or a copy of it is still under way."""
    store = Store(state.store)
    asked = request(task, store, state.workers[place].consumer, configuration.programs)
    if asked is None:
        return
    after, answer = _script(state, asked, configuration)
    label = f"{_name(state, place)}: {asked[0]}{asked[1:]} -> {answer}"
    if isinstance(answer, str):
        yield Move(label, False, None, answer)
        return
    then = answered(task, asked, answer, after)
    moved = _having(state, place, task, then)._replace(store=after.freeze())
    yield Move(label, False, moved)
    if state.left.lost and after.freeze() != state.store:
        lost = _spent(state._replace(store=after.freeze()), "lost")
        yield Move(f"{label}, and the reply is lost", True, lost)
    if state.left.late:
        doubled = _spent(state._replace(copies=(*state.copies, asked)), "late")
        yield Move(f"{_name(state, place)}: a copy of {asked[0]} is under way", True, doubled)
    if answer[0] == "NOTFOUND" and isinstance(task, Taken) and _is_hopeless(state, task):
        refused = Refused(task.entry, name_of(task.command))
        yield Move(f"{label}, too old", False, _having(state, place, task, refused))


def _is_hopeless(state: State, task: Taken) -> bool:
    """Tell whether no start is left that could make the run the command is for."""
    return not any(
        command[0] == "start" and command[1] == task.command[1] for _, command in state.store[0]
    )


def _handling(state: State, place: int, task: Task, configuration: Configuration) -> Iterator[Move]:
    """A handler ends; or the tail of the history is shown to the owner by a nudge."""
    store, programs = Store(state.store), configuration.programs
    if isinstance(task, Driven):
        for handler in task.handlers:
            if handler[3] == "runs":
                became = handler_ends(programs, task.number, handler[0], handler[1])
                others = (task.handlers - {handler}) | {(*handler[:3], became)}
                yield Move(
                    f"{_name(state, place)}: {handler[:2]} has {became}",
                    False,
                    _having(state, place, task, task._replace(handlers=frozenset(others))),
                )
        run = store.runs[task.number]
        if run.owner == task.nonce and len(run.history) > task.seen:
            told = task._replace(seen=len(run.history))
            yield Move(f"{_name(state, place)} is nudged", False, _having(state, place, task, told))
    if isinstance(task, Attempt) and task.handler == "runs":
        became = handler_ends(programs, task.number, task.name, task.attempt)
        ended = task._replace(handler=became)
        yield Move(
            f"{_name(state, place)}: {task.name} has {became}",
            False,
            _having(state, place, task, ended),
        )
        is_ours = store.is_pending(task.entry, state.workers[place].consumer)
        if state.left.hang and not is_ours:
            hung = _having(state, place, task, task._replace(handler="hangs"))
            yield Move(f"{_name(state, place)}: {task.name} hangs", True, _spent(hung, "hang"))


def _renewing(state: State, place: int, task: Task, configuration: Configuration) -> Iterator[Move]:
    """The entry of a task is kept, or the task is dropped because it is no longer ours."""
    consumer = state.workers[place].consumer
    pending = dict(state.store[2]).get(task.entry)
    if "renews-bare" in configuration.broken:
        if pending not in (None, (consumer, False)) and isinstance(task, Driven | Attempt):
            store = Store(state.store)
            store.pending[task.entry] = (consumer, False)
            yield Move(
                f"{_name(state, place)} claims {task.entry} back",
                False,
                state._replace(store=store.freeze()),
            )
        return
    if pending == (consumer, True):
        store = Store(state.store)
        store.pending[task.entry] = (consumer, False)
        kept = state._replace(store=store.freeze())
        yield Move(f"{_name(state, place)} renews {task.entry}", False, kept)
    elif pending is None or pending[0] != consumer:
        if isinstance(task, Driven) and "no-token" in configuration.broken:
            return
        dropped = _having(state, place, task, None)
        yield Move(f"{_name(state, place)} lets {task.entry} go", False, dropped)


def _draining(state: State, place: int, task: Task) -> Iterator[Move]:
    if not state.left.drain:
        return
    if isinstance(task, Driven):
        back = HandedBack(task.entry, task.nonce, task.number)
    elif isinstance(task, Taken):
        back = HandedBack(task.entry, task.nonce, task.command[1], task.command)
    else:
        return
    handed = _spent(_having(state, place, task, back), "drain")
    yield Move(f"{_name(state, place)} drains: hands {task.entry} back", True, handed)


# What time does.


def _time(state: State, configuration: Configuration) -> Iterator[Move]:
    """Leases and locks run out, timers become due."""
    held = {(worker.consumer, task.entry) for worker in state.workers for task in worker.tasks}
    for entry, (consumer, has_run_out) in state.store[2]:
        is_held = (consumer, entry) in held
        if has_run_out or (is_held and not state.left.pause):
            continue
        store = Store(state.store)
        store.pending[entry] = (consumer, True)
        after = state._replace(store=store.freeze())
        while_held = " although it is worked on" if is_held else ""
        yield Move(
            f"the lease of {entry} runs out{while_held}",
            is_held,
            _spent(after, "pause") if is_held else after,
        )
    for timer in state.store[6]:
        store = Store(state.store)
        fire(store, configuration.broken, timer)
        yield Move(f"timer {timer} is due", False, state._replace(store=store.freeze()))
    for number, run in enumerate(Store(state.store).runs):
        if run.lock is not None:
            yield from _lock_runs_out(state, number, run.lock)


def _lock_runs_out(state: State, number: int, lock: Any) -> Iterator[Move]:
    owners = {
        task.nonce for worker in state.workers for task in worker.tasks if isinstance(task, Driven)
    }
    is_held = state.is_writing if lock == WRITER else lock in owners
    if is_held and not state.left.pause:
        return
    store = Store(state.store)
    store.runs[number].lock = None
    after = state._replace(store=store.freeze())
    label = f"the lock of run {number} runs out"
    yield Move(label, is_held, _spent(after, "pause") if is_held else after)


# What the network and others do.


def _copies(state: State, configuration: Configuration) -> Iterator[Move]:
    """A copy of a request arrives late; nobody hears the answer."""
    for copy in set(state.copies):
        left = list(state.copies)
        left.remove(copy)
        after, answer = _script(state, copy, configuration)
        label = f"a late copy of {copy[0]}{copy[1:]} -> {answer}"
        if isinstance(answer, str):
            yield Move(label, False, None, answer)
        else:
            arrived = state._replace(store=after.freeze(), copies=tuple(left))
            yield Move(label, False, arrived)


def _others(state: State, configuration: Configuration) -> Iterator[Move]:
    """A program takes the run lock, gives it back or dies; somebody deletes the run."""
    run = Store(state.store).runs[0]
    if state.left.writer and run.status and run.lock is None and not state.is_writing:
        store = Store(state.store)
        store.runs[0].lock = WRITER
        taken = state._replace(store=store.freeze(), is_writing=True)
        yield Move("a program takes the run lock", True, _spent(taken, "writer"))
    if state.is_writing:
        store = Store(state.store)
        if "unlock-bare" in configuration.broken and store.runs[0].lock not in (None, WRITER):
            yield Move("a program releases", False, None, "it released another's lock")
            return
        if store.runs[0].lock == WRITER:
            store.runs[0].lock = None
        given = state._replace(store=store.freeze(), is_writing=False)
        yield Move("the program gives the run lock back", False, given)
        yield Move("the program dies", True, state._replace(is_writing=False))
    if state.left.delete and run.status:
        asked: Request = ("delete", 0)
        after, answer = _script(state, asked, configuration)
        assert not isinstance(answer, str), answer
        for command in configuration.afterwards:
            after.add(command)
        deleted = _spent(state._replace(store=after.freeze()), "delete")
        yield Move("the run is deleted", True, deleted)
