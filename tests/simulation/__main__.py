"""``python -m tests.simulation SEED``: replay a seed; make small what breaks a promise."""

from __future__ import annotations

import sys

from tests.simulation.plan import minimised, plan_of
from tests.simulation.world import BrokenPromiseError, broken, simulate


def main() -> int:
    """Replay the seeds that are given; print what happened."""
    code = 0
    for seed in map(int, sys.argv[1:]):
        plan = plan_of(seed)
        problem = broken(plan)
        if not problem:
            print(f"seed {seed} keeps every promise: {dict(simulate(plan).counts)}")  # noqa: T201
            continue
        code = 1
        print(f"{told(plan, problem)}")  # noqa: T201
    return code


def told(plan, problem):
    """Return a problem, the smallest plan that has one, and what happened in that."""
    smallest = minimised(plan, broken)
    trace = ["what happened could not be replayed"]
    try:
        simulate(smallest)
    except BrokenPromiseError as error:
        trace = error.trace
    return "\n".join([problem, "the smallest plan that breaks a promise:", str(smallest), *trace])


if __name__ == "__main__":
    sys.exit(main())
