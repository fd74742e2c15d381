"""A private server that can be killed, lose its power and be sent into another time.

The append-only file is on and never rewritten, so that all of it can be judged. Two shims may lie
between the server and the system (`askeld.torture.shims`): one notes what was really fsynced, so
that a power cut takes away exactly the rest; one moves the wall clock.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

import anyio
import redis

from askeld.embedded import EmbeddedServer
from askeld.server_binary import ServerBinary
from askeld.torture import shims

Fsync = Literal["always", "everysec", "no"]

_DATA = (".aof", ".rdb", ".manifest")
_TIMEOUT_S = 10.0
#: An append-only file that is never rewritten takes long to load, and longer on a busy machine.
_READY_S = 300.0


class TortureServer:
    """One server for torture, on the same port and data from start to start.

    Args:
        directory: Where the data and the notes of the shims lie; empty, or of an earlier start.
        fsync: The server's ``appendfsync``.
        binary: What to run; by default what is found.
        options: Further options of the server.

    Attributes:
        without: Why power cuts and clock jumps cannot be simulated here; empty where they can.
        turn: Held by who does something to the server that others must not do meanwhile.
    """

    def __init__(
        self,
        directory: Path,
        *,
        fsync: Fsync = "always",
        binary: ServerBinary | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        # The server has another working directory, and must find the notes.
        self.directory = directory = directory.absolute()
        self.fsync = fsync
        self.without = shims.unavailable()
        self.turn = anyio.Lock()
        self._synced = directory / "synced"
        self._durable: dict[tuple[int, int], int] = {}
        directory.mkdir(parents=True, exist_ok=True)
        self._clock = _Offset(directory / "clock")
        self._server = EmbeddedServer(
            directory / "data",
            binary=binary,
            port=0,
            options={"appendfsync": fsync, "auto-aof-rewrite-percentage": "0"} | (options or {}),
            environment=self._environment(),
            ready_timeout_s=_READY_S,
        )
        self._starting_since: float | None = None

    def _environment(self) -> dict[str, str]:
        if self.without:
            return {}
        try:
            libraries = [shims.compiled(name) for name in ("clock", "sync")]
        except shims.ShimError as error:
            self.without = str(error)
            return {}
        return {
            "LD_PRELOAD": ":".join(map(str, libraries)),
            "ASKEL_CLOCK_FILE": str(self._clock.path),
            "ASKEL_SYNC_FILE": str(self._synced),
        }

    @property
    def url(self) -> str:
        """The address; the same after every restart."""
        return self._server.url

    @property
    def port(self) -> int:
        """The TCP port; the same after every restart."""
        return self._server.port

    @property
    def aof(self) -> Path:
        """Where the append-only file lies."""
        return self._server.directory

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._server.running

    @property
    def starting_s(self) -> float:
        """For how long it has been starting, its data loading; 0 where it is not."""
        since = self._starting_since
        return 0.0 if since is None else time.monotonic() - since

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop it."""
        self.stop()

    def start(self) -> None:
        """Start it, or start it again, and wait until it has loaded its data and answers.

        Raises:
            EmbeddedServerError: It does not, for minutes.
        """
        self._durable = {_identity(path): path.stat().st_size for path in self._data()}
        self._synced.write_bytes(b"")
        self._starting_since = time.monotonic()
        try:
            self._server.start()
        finally:
            self._starting_since = None
        maps = Path("/proc", str(self._server.pid), "maps")
        if not self.without and "askel-shims" not in maps.read_text("utf-8"):
            self.without = (
                f"the server in {self.aof} did not take the shims in: is it linked statically?"
            )

    async def restart(self) -> None:
        """Start it again, in a thread; who is cancelled meanwhile does not wait for its data.

        Raises:
            EmbeddedServerError: It does not answer, for minutes.
        """
        try:
            await anyio.to_thread.run_sync(self.start, abandon_on_cancel=True)
        except anyio.get_cancelled_exc_class():
            if (pid := self._server.pid) is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)  # upon which the thread ends
            raise

    def stop(self) -> None:
        """End it properly."""
        self._server.stop()

    def kill(self) -> None:
        """SIGKILL: what it wrote is kept by the system, fsynced or not."""
        self._server.kill()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Let it answer nobody for the time of the block; what it is sent waits for it."""
        pid = self._server.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def cut_power(self) -> int:
        """End it as a power cut does, and return how many bytes that took away.

        Every file of its data is cut to what was fsynced of it.

        Raises:
            ShimError: That cannot be known on this machine.
        """
        if self.without:
            raise shims.ShimError(self.without)
        self.kill()
        durable, lost = {**self._durable, **self._synced_sizes()}, 0
        for path in self._data():
            size, kept = path.stat().st_size, durable.get(_identity(path), 0)
            if size > kept:
                os.truncate(path, kept)
                lost += size - kept
        return lost

    def move_clock(self, seconds: float) -> None:
        """Set the server's wall clock to *seconds* from the true time; it may be running.

        Raises:
            ShimError: That is not possible on this machine.
        """
        if self.without:
            raise shims.ShimError(self.without)
        self._clock.set(round(seconds * 1e9))

    def clock_drift(self) -> float:
        """Return how many seconds the server's clock is ahead of this machine's, as it says."""
        with self.client() as client:
            seconds, microseconds = client.time()
        return float(seconds + microseconds / 1e6 - time.time())

    def client(self) -> redis.Redis:
        """Return a client that goes straight to the server; the caller closes it."""
        return redis.Redis.from_url(self.url, socket_timeout=_TIMEOUT_S, protocol=2)

    def _synced_sizes(self) -> dict[tuple[int, int], int]:
        found: dict[tuple[int, int], int] = {}
        for line in self._synced.read_bytes().splitlines():
            device, inode, size = map(int, line.split())
            found[device, inode] = size
        return found

    def _data(self) -> list[Path]:
        folder = self._server.directory
        return [path for path in folder.rglob("*") if path.suffix in _DATA and path.is_file()]


def _identity(path: Path) -> tuple[int, int]:
    """Name a file whatever it is called: files are renamed into their places."""
    status = path.stat()
    return status.st_dev, status.st_ino


class _Offset:
    """A number in a file that a running server sees at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(struct.pack("=q", 0))

    def set(self, nanoseconds: int) -> None:
        with self.path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as place:
            place[:] = struct.pack("=q", nanoseconds)
