"""Evidence: lines that processes append to one file, whole or not at all, even as they die."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec


class Evidence:
    """Where one process writes; opened O_APPEND, so that lines of many never mix."""

    def __init__(self, path: Path | str) -> None:
        """Append to *path*."""
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._pid = os.getpid()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def write(self, event: str, **facts: Any) -> None:
        """Append one line at once: it stays though the process be killed right after."""
        line = {"pid": self._pid, "at": time.time_ns() // 1_000_000, "event": event, **facts}
        os.write(self._file, msgspec.json.encode(line) + b"\n")


class EvidenceReader:
    """Reads what was appended since it was last asked."""

    def __init__(self, path: Path) -> None:
        """Read *path* from its beginning."""
        path.touch()
        self._file = path.open("rb")
        self._rest = b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def new_lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines that have been completed since the last call."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            yield msgspec.json.decode(line)
