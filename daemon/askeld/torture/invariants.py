"""The promises the judge holds askel to, by name, and what breaks one.

The letters are what each is called in the judge's report.
"""

from __future__ import annotations

from enum import Enum

import msgspec


class Invariant(Enum):
    """What must hold after every single transition, whatever happens to processes and servers."""

    COMMAND = "S1: every accepted command is applied once or dead-lettered, never both or neither"
    ONCE = "S2: no transition is recorded twice"
    PATH = "S3: a history is a path of the state machine, only ever appended to"
    FOLD = "S4: the hashes of a run are what its history adds up to"
    ATTEMPTS = "S5: attempt numbers have no gaps, and one attempt is open at most"
    STALE = "S6: nobody writes who no longer owns the run, the attempt or the lock"
    FENCE = "S7: fences strictly increase"
    FINAL = "S8: a terminal run never changes"
    OUTBOX = "S9: what a transition sends, acknowledges and changes happens in one step"
    RESULT = "S10: what was recorded stays, byte for byte"
    TIMER = "S11: a timer is never early, never lost, and applied once"
    BUDGET = "S12: no more attempts than were allowed"
    POISON = "S13: what kills its worker is not delivered for ever"
    ENTRY = "S14: no entry of a stream disappears without an end"
    TENANT = "S15: a transition touches one run, and nothing outside its prefix"
    CANCEL = "S16: no attempt begins after a cancel was recorded"
    DEDUPE = "S17: a command id is applied once, and makes one run"
    TOKEN = "S18: a run with anything to do has one token that is undelivered or pending"  # noqa: S105


class Violation(msgspec.Struct, frozen=True):
    """One broken promise.

    Args:
        invariant: Which.
        kind: What is wrong, in one word.
        run_id: Of which run; empty where it is about none.
        detail: What was found, without payloads.
        transition: The place in the append-only file, counted in transitions; 0 where it was not
            read there.
    """

    invariant: str
    kind: str
    run_id: str
    detail: str
    transition: int = 0

    def __str__(self) -> str:
        """Say it in one line."""
        where = f" at transition {self.transition}" if self.transition else ""
        return f"{self.invariant} {self.kind}: run {self.run_id!r}{where}: {self.detail}"
