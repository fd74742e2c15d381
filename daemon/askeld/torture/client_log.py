"""What the client asked for and what it was told: one line a fact, in the order of events.

An operation is one command that is to be applied once, known by its id. It is invoked, perhaps
several times, and each invocation ends ``ok`` (Redis has it), ``fail`` (it was certainly not
taken) or ``unknown`` (nobody can say; the client then invokes it again under the same id).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, Self

import msgspec

Outcome = Literal["invoke", "ok", "fail", "unknown"]


class ClientEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line: what became of an operation, and when by the client's clock (ms).

    Args:
        op: The id of the operation, which is the id of its command.
        kind: The type of the command, ``run.start`` for instance.
        run_id: The run it is about.
        outcome: What is told of it here.
        at: When.
        entry: With ``ok``: the id of the stream's entry.
        expected: With the first ``invoke`` of a start: what the run returns if it completes.
    """

    op: str
    kind: str
    run_id: str
    outcome: Outcome
    at: int
    entry: str = ""
    expected: int | None = None


class Operation(msgspec.Struct):
    """All that the log says of one operation."""

    op: str
    kind: str
    run_id: str
    invoked: int = 0
    accepted: int = 0
    unknown: int = 0
    first_invoked_at: int = 0
    first_ok_at: int | None = None
    expected: int | None = None


class ClientLog:
    """Written by the load generator, read by the judge; a file, so that it outlives its process."""

    def __init__(self, path: Path) -> None:
        """Append to *path*."""
        self.path = path
        self._file: BinaryIO = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        """Close the file at the end of the block."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; it can still be read."""
        self._file.close()

    def write(
        self,
        op: str,
        kind: str,
        run_id: str,
        outcome: Outcome,
        *,
        entry: str = "",
        expected: int | None = None,
    ) -> None:
        """Append one line, with the time it is now."""
        at = time.time_ns() // 1_000_000
        line = ClientEntry(op, kind, run_id, outcome, at, entry, expected)
        self._file.write(msgspec.json.encode(line) + b"\n")

    def __iter__(self) -> Iterator[ClientEntry]:
        """Yield all lines in order."""
        decoder = msgspec.json.Decoder(ClientEntry)
        with self.path.open("rb") as file:
            for line in file:
                yield decoder.decode(line)

    def operations(self) -> dict[str, Operation]:
        """Return every operation by its id, in order of its first invocation."""
        found: dict[str, Operation] = {}
        for line in self:
            one = found.setdefault(line.op, Operation(line.op, line.kind, line.run_id))
            if line.outcome == "invoke":
                one.invoked += 1
                one.first_invoked_at = one.first_invoked_at or line.at
                one.expected = line.expected if one.expected is None else one.expected
            elif line.outcome == "ok":
                one.accepted += 1
                one.first_ok_at = one.first_ok_at or line.at
            elif line.outcome == "unknown":
                one.unknown += 1
        return found
