"""What happens in one simulation: made by a seed, or made smaller from one that broke a promise."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.apps.programs import Instruction

WORKERS = 3
_END_S = 6.0


@dataclass(frozen=True)
class Event:
    """Something done at a moment: to a worker, to the store, or a command that is sent."""

    at: float
    kind: str
    worker: int = 0
    seconds: float = 0.0
    command: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if self.command:
            words = " ".join(f"{name}={value}" for name, value in self.command)
            return f"{self.at:7.3f} s  send {words}"
        for_long = f" for {self.seconds:.3f} s" if self.seconds else ""
        return f"{self.at:7.3f} s  {self.kind} worker {self.worker}{for_long}"


@dataclass(frozen=True)
class NetworkFault:
    """What happens to the n-th script of work that a worker sends in its life."""

    worker: str
    number: int
    kind: str
    seconds: float = 0.0

    def __str__(self) -> str:
        late = f" by {self.seconds:.3f} s" if self.seconds else ""
        return f"           script {self.number} of {self.worker}: {self.kind}{late}"


@dataclass(frozen=True)
class Plan:
    """All of one simulation."""

    seed: int
    programs: tuple[tuple[str, tuple[Instruction, ...]], ...]
    events: tuple[Event, ...]
    faults: tuple[NetworkFault, ...]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}"]
        lines += [f"  run {name}: {list(program)}" for name, program in self.programs]
        lines += [f"  {one}" for one in sorted(self.events, key=lambda one: one.at)]
        lines += [f"  {one}" for one in self.faults]
        return "\n".join(lines)


def plan_of(seed: int) -> Plan:
    """Return the plan of *seed*."""
    dice = random.Random(seed)
    programs = {f"r{number}": _program(dice) for number in range(dice.randint(1, 3))}
    events = [event for name in programs for event in _commands(dice, name)]
    events += [_trouble(dice) for _ in range(dice.randint(1, 6))]
    faults = tuple(_network_fault(dice) for _ in range(dice.randint(1, 8)))
    return Plan(seed, tuple((n, tuple(p)) for n, p in programs.items()), tuple(events), faults)


def _program(dice: random.Random) -> list[Instruction]:
    def step() -> Instruction:
        kind = dice.choice(["here", "here", "queue"])
        return [kind, dice.randrange(900), dice.choice([0, 0, 0, 1, 2]), dice.randrange(1_000)]

    makers = [step, step, lambda: ["sleep", dice.randrange(1_500)]]
    makers.append(lambda: ["gather", *(step() for _ in range(dice.randrange(1, 4)))])
    return [dice.choice(makers)() for _ in range(dice.randrange(1, 5))]


def _commands(dice: random.Random, name: str) -> list[Event]:
    """Return the start of a run, perhaps twice, and what disturbs it."""
    start = dice.uniform(0, 1)
    events = [_send(start, "run.start", name)]
    if dice.random() < 0.3:
        events.append(_send(start + dice.uniform(0, 2), "run.start", name))
    for _ in range(dice.choice([0, 0, 1, 2])):
        at = start + dice.uniform(0, _END_S)
        kind = dice.choice(["run.suspend", "run.signal", "run.signal", "run.cancel", "run.delete"])
        if kind == "run.delete":
            events.append(Event(at, "delete", command=(("run_id", name),)))
            continue
        number = dice.randrange(2)
        copies = range(dice.choice([1, 1, 2, 3]))
        events += [_send(at + dice.uniform(0, 1), kind, name, number) for _ in copies]
        if kind == "run.suspend":
            events.append(_send(at + dice.uniform(0, 3), "run.resume", name))
    return events


def _send(at: float, kind: str, name: str, number: int = 0) -> Event:
    words = {"type": kind, "run_id": name}
    if kind == "run.start":
        words |= {"workflow": "program", "if_exists": "return"}
    elif kind == "run.signal":
        words |= {"name": "news", "data": "1", "id": f"s{number}"}
    return Event(at, "send", command=tuple(words.items()))


def _trouble(dice: random.Random) -> Event:
    kind = dice.choice(["kill", "kill", "freeze", "freeze", "drain", "evict locks"])
    return Event(
        dice.uniform(0.05, _END_S),
        kind,
        dice.randrange(WORKERS),
        dice.uniform(1.0, 4.0) if kind == "freeze" else 0.0,
    )


def _network_fault(dice: random.Random) -> NetworkFault:
    kind = dice.choice(["lost", "lost", "late", "late", "unsent"])
    worker = f"w{dice.randrange(WORKERS)}.{dice.choice([0, 0, 0, 1])}"
    number = dice.randrange(1, dice.choice([6, 15, 30]))
    return NetworkFault(worker, number, kind, dice.uniform(0.01, 4.0) if kind == "late" else 0.0)


def minimised(plan: Plan, breaks: Callable[[Plan], Any]) -> Plan:
    """Return *plan* without what is not needed to make it break a promise, one thing at a time."""
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for part in ("programs", "events", "faults"):
            for one in getattr(plan, part):
                left = tuple(other for other in getattr(plan, part) if other is not one)
                smaller = replace(plan, **{part: left})
                if left != getattr(plan, part) and smaller.programs and breaks(smaller):
                    plan, is_smaller = smaller, True
    return plan
