"""Keeps all that a server ever wrote to its append-only file, though the file be rewritten.

A server whose file is never rewritten takes longer to start the longer it has lived. One that
rewrites it begins a new part and removes the old ones: those stay here, by a second name.
"""

from __future__ import annotations

import os
from pathlib import Path

_PATTERN = "*/*.incr.aof"


class Archive:
    """The increments of one server's append-only file, in the order in which they began."""

    def __init__(self, data: Path, folder: Path) -> None:
        """Keep in *folder* what lies below *data*; both are on the same file system."""
        self._data = data
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def can_be_rewritten(self) -> bool:
        """Whether the file has parts: the single file of an older server is lost by that."""
        return any(self._data.glob(_PATTERN))

    def keep(self) -> None:
        """Keep the increments there are; called once between two rewrites at least."""
        for path in self._data.glob(_PATTERN):
            kept = self._folder / path.name
            if not kept.exists():
                os.link(path, kept)

    def finish(self) -> Path:
        """Return what the judge is to read: a manifest of all increments, or the data itself."""
        self.keep()
        parts = sorted(self._folder.glob("*.incr.aof"), key=_number)
        if not parts:
            return self._data
        manifest = self._folder / "all.manifest"
        lines = (f"file {path.name} seq {_number(path)} type i\n" for path in parts)
        manifest.write_text("".join(lines), "utf-8")
        return manifest


def _number(path: Path) -> int:
    return int(path.name.split(".")[-3])
