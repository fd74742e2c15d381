"""What a program leaves on the machine: processes, found by a variable of their environment."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

_PROC = Path("/proc")
_NAME = "ASKEL_TEST_TRACE"


class Trace:
    """Marks a program and all that it starts; `env` is what to give it."""

    def __init__(self):
        if not (_PROC / "self" / "environ").exists():
            pytest.skip("looks for processes by /proc, which only Linux has")
        self._mark = f"{_NAME}={uuid.uuid4().hex}".encode()
        name, _, value = self._mark.decode().partition("=")
        self.env = {name: value}

    def processes(self) -> list[str]:
        """Return the command lines of those that are alive, for people."""
        found = []
        for folder in _PROC.iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            try:
                marked = self._mark in (folder / "environ").read_bytes().split(b"\0")
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # It has ended in the meantime, or is another user's.
                continue
            if marked and words:  # One that has ended and was not awaited yet has no words.
                found.append(f"{folder.name}: {words[:100]}")
        return found
