"""What several scripts of the protocol share."""

from __future__ import annotations

from typing import Any

from tests.model.store import RunState, Store, require

Answer = tuple[Any, ...]
Broken = frozenset[str]


def is_held(run: RunState, me: Any) -> bool:
    """Tell whether somebody who is neither *me* nor the run's activation has the lock."""
    return run.lock is not None and run.lock not in (me, run.owner)


def unlock(run: RunState, me: Any, broken: Broken) -> None:
    """Give the lock back if it is ours."""
    if "unlock-bare" in broken:
        require(run.lock in (None, me), f"released the lock of {run.lock}")
        run.lock = None
    elif run.lock == me:
        run.lock = None


def disown(run: RunState) -> None:
    """Nobody drives the run: it has no owner, and the owner's lock goes with him."""
    if run.lock is not None and run.lock == run.owner:
        run.lock = None
    run.token, run.owner = 0, None


def drive(store: Store, number: int) -> None:
    """See to it that somebody decides on what was recorded."""
    run = store.runs[number]
    if not run.token:
        run.token = store.add(("advance", number))


def tell_parent(store: Store, number: int) -> None:
    """A child that has ended sends its parent word, in the script that ends it."""
    if number == 1:
        store.add(("child-ended", 0, "child"))


def is_from_before(store: Store, number: int, entry: int, name: str | None, broken: Broken) -> bool:
    """Settle a command that was sent to the run that had the id before, and was deleted."""
    since = store.runs[number].since
    if not since or entry > since or "ignores-since" in broken:
        return False
    if store.drop(entry):
        store.settle(name, "known")
    return True


def end(store: Store, number: int, status: str) -> None:
    """Give the run its last status."""
    store.append(number, ("run", status))
    store.runs[number].status = status
    tell_parent(store, number)
