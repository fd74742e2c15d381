"""What one transition changed, collected command by command and judged at its end."""

from __future__ import annotations

from typing import Any

from askeld.torture.command_model import Entry
from askeld.torture.run_model import Event, Run, Step


class Changes:
    """All that the commands of one transition did; one object for all of them, emptied between."""

    __slots__ = (
        "_parts",
        "acked",
        "added",
        "armed",
        "buried",
        "disarmed",
        "events",
        "fences",
        "is_dirty",
        "locks",
        "owners",
        "removed",
        "renamed",
        "runs",
        "steps",
        "tokens",
        "turn",
        "written",
    )

    def __init__(self) -> None:
        self.is_dirty = False
        self.runs: dict[Run, None] = {}
        """Every run of which a key was written."""
        self.steps: dict[Step, Run] = {}
        self.events: list[tuple[Run, Event]] = []
        self.acked: list[tuple[bytes, bytes]] = []
        """Stream (what follows the word ``commands`` in its key) and entry."""
        self.removed: list[tuple[bytes, Entry]] = []
        self.buried: set[bytes] = set()
        self.added: list[Entry] = []
        self.armed: list[bytes] = []
        self.disarmed: list[tuple[bytes, float]] = []
        self.tokens: dict[bytes, Run] = {}
        """Entries that were a run's token before."""
        self.turn: Run | None = None
        self.fences: set[bytes] = set()
        """Runs that gave out a fence."""
        self.locks: list[tuple[Run, bytes, bytes | None]] = []
        """Locks that were set: by whom, and who held the lock, or owned the run, before."""
        self.owners: dict[Run, bytes | None] = {}
        """Who owned the runs before whose owner is another now."""
        self.written: set[bytes] = set()
        """Runs that an embedding program wrote to: it needs no entry for that."""
        self.renamed: set[bytes] = set()
        self._parts: tuple[Any, ...] = (
            *(self.runs, self.steps, self.events, self.acked, self.removed, self.added),
            *(self.armed, self.disarmed, self.locks, self.tokens, self.owners),
            *(self.buried, self.fences, self.written, self.renamed),
        )

    def clear(self) -> None:
        """Forget the transition."""
        self.is_dirty, self.turn = False, None
        for part in self._parts:
            if part:
                part.clear()
