"""Breadth-first exploration of every interleaving: the first broken promise has the shortest way.

*Safety*: no script breaks a promise, no state does (`promises`). *Liveness*: from every state that
can be reached, faults included, some way without further faults leads to a good end.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from tests.model.promises import broken_promise, is_good_end
from tests.model.world import Configuration, State, initial, moves


class Explored(NamedTuple):
    """What came of it. problem: empty when every promise is kept everywhere."""

    name: str
    problem: str
    way: list[str]
    states: int
    moves: int
    ends: int
    answers: Counter[str]
    is_complete: bool = True

    def __str__(self) -> str:
        head = f"{self.name}: {self.states} states, {self.moves} moves, {self.ends} ends"
        if not self.is_complete:
            head += " (cut off)"
        if not self.problem:
            return head
        return "\n".join([head, f"  {self.problem}, after:", *(f"    {one}" for one in self.way)])


class _Search:
    """The states met so far, and how each was reached."""

    def __init__(self, configuration: Configuration) -> None:
        first = initial(configuration)
        self.configuration = configuration
        self.number = {first: 0}
        self.states: list[State] = [first]
        self.reached: list[tuple[int, str]] = [(-1, "")]
        #: For each state, from where it is reached without a fault.
        self.before: list[list[int]] = [[]]
        self.ends: list[int] = []
        self.moves = 0
        self.answers: Counter[str] = Counter()

    def way(self, number: int) -> list[str]:
        way = []
        while number > 0:
            number, label = self.reached[number]
            way.append(label)
        return way[::-1]

    def explored(self, problem: str = "", way: list[str] | None = None, **more: bool) -> Explored:
        return Explored(
            self.configuration.name,
            problem,
            way or [],
            len(self.states),
            self.moves,
            len(self.ends),
            self.answers,
            **more,
        )

    def expand(self, number: int) -> Explored | None:
        """Meet what follows on a state; return the problem that is found with that."""
        state = self.states[number]
        problem = broken_promise(state, self.configuration)
        if problem:
            return self.explored(problem, self.way(number))
        if is_good_end(state, self.configuration):
            self.ends.append(number)
        for label, is_fault, after, broken in moves(state, self.configuration):
            self.moves += 1
            if after is None:
                return self.explored(broken, [*self.way(number), label])
            _, arrow, answer = label.partition(" -> ('")
            if arrow:
                self.answers[answer.partition("'")[0]] += 1
            if after == state:
                continue
            known = self.number.get(after)
            if known is None:
                known = self.number[after] = len(self.states)
                self.states.append(after)
                self.reached.append((number, label))
                self.before.append([])
            if not is_fault:
                self.before[known].append(number)
        return None

    def hopeless(self) -> int | None:
        """Return the first state from which no way leads to a good end."""
        good, todo = set(self.ends), list(self.ends)
        while todo:
            for number in self.before[todo.pop()]:
                if number not in good:
                    good.add(number)
                    todo.append(number)
        return next((one for one in range(len(self.states)) if one not in good), None)


def explore(configuration: Configuration, most_states: int = 1_000_000) -> Explored:
    """Explore *configuration* whole, or until a promise is broken or *most_states* are known."""
    search = _Search(configuration)
    number = 0
    while number < len(search.states):
        problem = search.expand(number)
        if problem is not None:
            return problem
        number += 1
        if len(search.states) > most_states:
            return search.explored(is_complete=False)
    stuck = search.hopeless()
    if stuck is not None:
        return search.explored("no way leads to an end any more", search.way(stuck))
    return search.explored()
