"""Stand-ins: a connection that records and answers, and ids that can be foreseen."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from askel.state import load_scripts


@dataclass
class Call:
    """One EVALSHA as it was sent."""

    script: str
    keys: list[Any]
    args: list[Any]


class StubConnection:
    """Keeps what is sent and answers scripts as it was told to; everything else gets None."""

    def __init__(self, answers: dict[str, list[Any]] | None = None):
        self.answers = answers or {}
        self.commands: list[Sequence[Any]] = []
        self._names = {script.sha: script.name for script in load_scripts().values()}

    @property
    def calls(self) -> list[Call]:
        """The scripts that were called, in order."""
        return [
            Call(self._names[sha], list(rest[:count]), list(rest[count:]))
            for name, sha, count, *rest in (c for c in self.commands if c[0] == "EVALSHA")
        ]

    def call(self, script: str) -> Call:
        """The one call of *script*."""
        (found,) = [call for call in self.calls if call.script == script]
        return found

    async def send(self, *command: Any) -> Any:
        """Keep *command*; answer a script as told."""
        await asyncio.sleep(0)
        self.commands.append(command)
        if command[0] == "EVALSHA":
            return self.answers[self._names[command[1]]]
        return None

    async def close(self) -> None:
        """Do nothing."""


class CountedIds:
    """Ids that are numbered: run1, nonce2, suffix3."""

    def __init__(self, first: int = 1):
        self._number = itertools.count(first)

    def run_id(self) -> str:
        return f"run{next(self._number)}"

    def nonce(self) -> str:
        return f"nonce{next(self._number)}"

    def suffix(self) -> str:
        return f"suffix{next(self._number)}"
