"""What the judge says at the end."""

from __future__ import annotations

import msgspec

from askeld.torture.invariants import Violation


class Verdict(msgspec.Struct, kw_only=True):
    """What the judge found.

    Args:
        source: What it was read from.
        transitions: Atomic steps in the append-only file.
        commands: Redis commands in it.
        evaluated: How many times a rule was applied.
        runs: Runs there were; ``by_status`` how they ended.
        turns: Turns that owners took.
        attempts: Attempts of steps that began; ``attempts_lost`` whose process died.
        redelivered: Entries that were delivered again.
        accepted: Commands of the client that Redis said it has; ``unknown`` those of which nobody
            can say.
        applied: Of all commands with an id: how many took effect.
        repeated: Entries that were found to have nothing to do: sent twice, or too late.
        dead_lettered: Commands that are dead letters.
        lost: Accepted commands of which there is no trace. With ``appendfsync everysec`` and a
            power cut that is allowed, and counted.
        duplicated: What happened twice.
        unsettled: Accepted commands that are still waiting.
        unfinished: Runs that have not ended; ``stuck`` those that nothing will move again.
        deleted: How many runs were deleted, by the status that they had.
        violations: The first thousand; ``by_kind`` counts all.
        story: All that the file tells of the first run in which something was wrong.
        notes: What could not be judged, and why.
    """

    source: str
    transitions: int = 0
    commands: int = 0
    evaluated: int = 0
    runs: int = 0
    by_status: dict[str, int] = {}
    turns: int = 0
    attempts: int = 0
    attempts_lost: int = 0
    redelivered: int = 0
    accepted: int = 0
    unknown: int = 0
    applied: int = 0
    repeated: int = 0
    dead_lettered: int = 0
    lost: int = 0
    duplicated: int = 0
    unsettled: int = 0
    unfinished: int = 0
    deleted: dict[str, int] = {}
    stuck: int = 0
    violations: list[Violation] = []
    by_kind: dict[str, int] = {}
    story: list[str] = []
    notes: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.by_kind
