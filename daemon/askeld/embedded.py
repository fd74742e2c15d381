"""A private, real Redis server as a child process that is never left behind.

**Why a watchdog and not PR_SET_PDEATHSIG.** Linux sends the parent-death signal when the *thread*
that forked ends, so a server started from a worker thread would die with that thread; the call
also needs code between fork and exec, and macOS lacks it. Instead `/bin/sh` forks a watchdog and
then becomes the server by exec. The watchdog reads a pipe whose only writing end is in the process
that called `start`: when that process ends in whatever way, SIGKILL included, the read ends and
the watchdog stops the server. It belongs to the server's process group, so the kernel cannot give
the server's pid to a stranger while the watchdog may still signal it. A child that the caller
forks *without* exec inherits the pipe, and the server then lives as long as that child.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

from askeld.server_binary import ServerBinary, find_server, nothing_found

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["EmbeddedServer", "EmbeddedServerError", "Option", "ServerBinary", "find_server"]

Option = str | tuple[str, ...]
"""The value of one server option; a tuple where the option takes several words."""

_LOOPBACK: Final = "127.0.0.1"
_SUN_PATH_BYTES: Final = 103  # The kernel's limit is 104 with a closing NUL on macOS, 108 on Linux.
_LOCK_WAIT_S: Final = 1.0  # Outlasts the shutdown of a server whose owner has just been killed.
_STOP_TIMEOUT_S: Final = 5.0
_PORT_TRIES: Final = 5  # A free port is a guess: somebody may bind it before the server does.
_LOG_TAIL_LINES: Final = 12
# Options that the lifecycle depends on, and what says the same.
_RESERVED: Final = {
    "port": "the argument port",
    "unixsocket": "the argument port=None",
    "dir": "the argument directory",
    "daemonize": "nothing: it has to stay 'no'",
}

# Arguments: a directory to remove when the owner died ('' for none), then the server's command.
# Standard input is the pipe, standard error the lock file, which the server alone keeps open.
_LAUNCHER: Final = """\
exec 3<&0 4>&2 2>&1 </dev/null
(
    exec 4>&-
    read -r _ <&3
    kill -TERM $$ 2>/dev/null || exit 0
    n=0
    while kill -0 $$ 2>/dev/null && [ $n -lt 50 ]; do n=$((n + 1)); sleep 0.1; done
    kill -KILL $$ 2>/dev/null
    [ -z "$1" ] || rm -rf -- "$1"
) &
shift
exec "$@" 3<&-
"""


class EmbeddedServerError(Exception):
    """The private server cannot be found, started or used; the message says why."""


class EmbeddedServer:
    """One private server process: a context manager, or `start` and `stop`.

    When `start` returns, this very process answers PING. It ends with the process that started it,
    even when that is killed, and whichever thread started it; a terminal's Ctrl-C does not reach
    it. The address stays the same over any number of stops and starts. The data is in an
    append-only file, fsynced every second: a killed server loses nothing, a power cut up to a
    second. Methods block (a start takes some 20 ms) and may be called from any thread; async code
    on a busy loop wraps them in `anyio.to_thread.run_sync`.

    Args:
        directory: Where the data lives, created if missing and kept; None for a temporary one that
            goes away with `stop` or with this process. One server at a time may use it.
        binary: What to run; by default what `find_server` finds.
        port: None for a unix socket that only this user can reach (where its path would be too
            long: a free TCP port), 0 for a free TCP port on 127.0.0.1, else that port.
        options: Server options that override or extend the ones given here.
        environment: Variables that the server gets beside those of this process.
        ready_timeout_s: Bound for a start, the loading of the data included.

    Raises:
        EmbeddedServerError: An option contradicts the other arguments.
    """

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        binary: ServerBinary | None = None,
        port: int | None = None,
        options: Mapping[str, Option] | None = None,
        environment: Mapping[str, str] | None = None,
        ready_timeout_s: float = 30.0,
    ) -> None:
        for name in _RESERVED.keys() & (options or {}).keys():
            raise EmbeddedServerError(
                f"the server option {name!r} cannot be overridden; use {_RESERVED[name]}"
            )
        self._given_directory = None if directory is None else Path(directory).absolute()
        self._binary = binary
        self._wanted_port = port
        self._options = dict(options or {})
        self._environment = dict(environment or {})
        self._ready_timeout_s = ready_timeout_s
        self._mutex = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._scratch: Path | None = None  # For the socket, and for the data if temporary.
        self._socket: Path | None = None
        self._port: int | None = None

    @property
    def url(self) -> str:
        """The address for a Redis client; EmbeddedServerError before the first start."""
        password = self._options.get("requirepass")
        auth = f":{quote(str(password), safe='')}@" if password else ""
        if self._socket is not None:
            return f"unix://{auth}{quote(str(self._socket))}"
        return f"redis://{auth}{_LOOPBACK}:{self.port}"

    @property
    def port(self) -> int:
        """The TCP port; EmbeddedServerError on a unix socket or before the first start."""
        if self._port is None:
            reason = "it was never started" if self._socket is None else "it has a unix socket"
            raise EmbeddedServerError(f"the embedded server has no TCP port: {reason}")
        return self._port

    @property
    def pid(self) -> int | None:
        """The server's process id, None when stopped."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def directory(self) -> Path:
        """Where data and log are; EmbeddedServerError for a temporary one before the start."""
        if self._given_directory is not None:
            return self._given_directory
        if self._scratch is None:
            raise EmbeddedServerError("the embedded server was never started: no directory yet")
        return self._scratch / "data"

    @property
    def log_path(self) -> Path:
        """What the server printed and logged; the log before has `.1` appended."""
        return self.directory / "server.log"

    def start(self) -> Self:
        """Start the server and wait until it answers; does nothing when it already runs.

        Raises:
            EmbeddedServerError: There is no binary, the directory is in use or unusable, or the
                server ended or stayed silent (then the message ends with its log). Nothing is left
                running.
        """
        with self._mutex:
            if self.running:
                return self
            self._halt(signal.SIGKILL)  # Frees what a crashed process left.
            self._binary = self._binary or find_server()
            if self._binary is None:
                raise EmbeddedServerError(nothing_found())
            try:
                self._place()
                self._launch(self._binary)
            except OSError as error:
                self.stop()
                where = self._given_directory or tempfile.gettempdir()
                raise EmbeddedServerError(
                    f"cannot run the embedded server in {where}: {error.strerror or error}"
                ) from error
            except BaseException:
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """End the server (SIGTERM, SIGKILL after 5 s), remove what is temporary; repeatable."""
        with self._mutex:
            self._halt(signal.SIGTERM)
            if self._scratch is not None:
                shutil.rmtree(self._scratch, ignore_errors=True)

    def kill(self) -> None:
        """End the server by SIGKILL, as a crash would; the data stays for the next `start`."""
        with self._mutex:
            self._halt(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _place(self) -> None:
        """Settle directories and address; for a restart, the same ones again."""
        if self._scratch is not None:
            self._scratch.mkdir(mode=0o700, exist_ok=True)
            if self._scratch.stat().st_uid != os.getuid():  # Made by somebody since our stop.
                raise EmbeddedServerError(f"{self._scratch} belongs to another user")
        elif self._given_directory is None or self._wanted_port is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="askel-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._scratch is not None and self._wanted_port is None and self._port is None:
            paths = (folder / "redis.sock" for folder in (self._scratch, self.directory))
            fitting = (path for path in paths if len(os.fsencode(path)) <= _SUN_PATH_BYTES)
            self._socket = next(fitting, None)

    def _launch(self, binary: ServerBinary) -> None:
        """Start the process under the directory's lock; a guessed port that is taken is replaced.

        Raises:
            EmbeddedServerError: The directory is in use, or the process did not get ready.
        """
        if binary.version < (7,) and (self.directory / "appendonlydir").exists():
            raise EmbeddedServerError(
                f"{self.directory} has data that the older {binary} would not see; use a newer one"
            )
        lock = self._lock_directory()
        try:
            guessing = self._socket is None and self._port is None and not self._wanted_port
            for tries_left in reversed(range(_PORT_TRIES)):
                if self._socket is None and self._port is None:
                    self._port = self._wanted_port or _free_port()
                self._spawn(binary, lock)
                if self._wait_ready():
                    return
                failure = self._failure(binary)
                self._halt(signal.SIGKILL)
                if guessing:
                    self._port = None
                if not (guessing and tries_left and "in use" in failure):
                    raise EmbeddedServerError(failure)
        finally:
            os.close(lock)

    def _lock_directory(self) -> int:
        """Lock the directory; the server inherits the lock and holds it until it ends."""
        path = self.directory / "server.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                holder = os.pread(lock, 20, 0).decode(errors="replace") or "unknown"
                os.close(lock)
                raise EmbeddedServerError(
                    f"{self.directory} is in use by another embedded server (pid {holder}); "
                    "stop it, or use its address"
                ) from None
            return lock

    def _spawn(self, binary: ServerBinary, lock: int) -> None:
        if self.log_path.exists():
            self.log_path.replace(f"{self.log_path}.1")
        doomed = "" if self._scratch is None else str(self._scratch)
        command = ["/bin/sh", "-c", _LAUNCHER, "askel-embedded", doomed, str(binary.path)]
        watched, lifeline = os.pipe()  # Not inherited, but for `watched` as the child's input.
        try:
            with self.log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    [*command, *self._arguments()],
                    stdin=watched,
                    stdout=log,
                    stderr=lock,
                    cwd=self.directory,
                    env=os.environ | self._environment,
                    start_new_session=True,
                )
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            os.close(watched)
        self._lifeline = lifeline
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(self._process.pid).encode(), 0)

    def _arguments(self) -> Iterator[str]:
        options: dict[str, Option] = {
            "dir": str(self.directory),
            "daemonize": "no",
            "logfile": "",  # Standard output: the log then has what precedes logging, too.
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
        if self._socket is not None:
            options |= {"port": "0", "unixsocket": str(self._socket), "unixsocketperm": "700"}
        else:
            options |= {"port": str(self._port), "bind": _LOOPBACK}
        for name, value in (options | self._options).items():
            yield f"--{name}"
            yield from (value,) if isinstance(value, str) else value

    def _wait_ready(self) -> bool:
        """Poll until our own process answers; False when it ended or the time is over."""
        deadline = time.monotonic() + self._ready_timeout_s
        pause_s = 0.002
        while self.running and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.1)
        return False

    def _answers(self) -> bool:
        """Whether PING is answered, by our process and not by another one on the same port."""
        unix = self._socket is not None
        try:
            with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as connection:
                connection.settimeout(1.0)
                connection.connect(str(self._socket) if unix else (_LOOPBACK, self._port))
                connection.sendall(b"PING\r\nINFO server\r\n")
                reply = b""
                while not (reply.startswith(b"-") or b"\r\nexecutable:" in reply):
                    chunk = connection.recv(4096)
                    if not chunk:
                        return False
                    reply += chunk
        except OSError:
            return False
        # A server that wants a password is up; one that loads its data answers -LOADING.
        if reply.startswith(b"-"):
            return reply.startswith((b"-NOAUTH", b"-NOPERM"))
        return b"\r\nprocess_id:%d\r\n" % (self.pid or 0) in reply

    def _failure(self, binary: ServerBinary) -> str:
        """Say why there is no server, with the end of its log."""
        status = None if self._process is None else self._process.poll()
        silent = f"did not answer within {self._ready_timeout_s:g} s"
        happened = silent if status is None else f"ended with status {status}"
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = self.log_path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return "\n".join([f"the embedded server {binary} {happened}; the end of its log:", *lines])

    def _halt(self, first: signal.Signals) -> None:
        """End the process, trying *first* at first, and free what belongs to it."""
        process = self._process
        if process is None:
            return
        try:
            process.send_signal(first)  # Does nothing when it has ended already.
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        finally:  # Only now, or the watchdog would remove what a restart needs.
            os.close(self._lifeline)
            self._lifeline, self._process = -1, None


def _free_port() -> int:
    with socket.socket(socket.AF_INET) as guess:
        guess.bind((_LOOPBACK, 0))
        port: int = guess.getsockname()[1]
        return port
