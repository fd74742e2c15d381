"""Signals of one run: those that wait to be taken, and the waits that none has come for."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable


class Mailbox:
    """Gives each signal to one wait of its name, in the order of the history and of the code."""

    def __init__(self, is_open: Callable[[str], bool]) -> None:
        """Ask *is_open* whether the wait with a key is still awaited: its time may be over."""
        self._is_open = is_open
        self._kept: defaultdict[str, deque[bytes]] = defaultdict(deque)
        self._waits: defaultdict[str, deque[str]] = defaultdict(deque)

    def take(self, name: str) -> bytes | None:
        """Return what the oldest signal *name* carries that is kept; None where none is."""
        kept = self._kept[name]
        return kept.popleft() if kept else None

    def wait(self, name: str, key: str) -> None:
        """Let the wait *key* have the next signal called *name*."""
        self._waits[name].append(key)

    def deliver(self, name: str, data: bytes) -> str | None:
        """Return the key of the wait that a signal is for; None: it is kept."""
        waits = self._waits[name]
        while waits:
            key = waits.popleft()
            if self._is_open(key):
                return key
        self._kept[name].append(data)
        return None
