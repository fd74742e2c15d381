"""A process that has imported everything, and forks workers in a few milliseconds.

It takes one JSON line for each worker on the socket that is its standard input, answers with its
pid, and tells of each death. It has no threads, so that what it forks is sound. When its socket
ends, because who started it stopped or died, it kills all its workers and ends.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from askeld.torture.worker_process import WorkerSpec, warm_up, work

_PR_SET_PDEATHSIG = 1
_CHUNK = 65_536


class Order(msgspec.Struct, frozen=True):
    """What the fork server is asked: a worker, under a number that the answer repeats."""

    number: int
    spec: WorkerSpec


class News(msgspec.Struct, frozen=True, omit_defaults=True):
    """What it tells: the pid of the worker that was ordered, or that one has died, and how."""

    pid: int
    number: int = -1
    status: int | None = None


def main() -> None:
    """Serve the socket at standard input until it ends."""
    control = socket.socket(fileno=0)
    waker, woken = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(woken)
    warm_up()
    gc.collect()
    gc.freeze()
    _Server(control, waker).serve()


class _Server:
    def __init__(self, control: socket.socket, waker: int) -> None:
        self._control = control
        self._waker = waker
        self._workers: set[int] = set()
        self._orders = msgspec.json.Decoder(Order)

    def serve(self) -> None:
        try:
            for order in self._read():
                pid = os.fork()
                if pid == 0:
                    self._become(order.spec)
                self._workers.add(pid)
                self._tell(News(pid, order.number))
        finally:
            for pid in self._workers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in self._workers:
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)  # so that nothing of it is left when this process has ended

    def _read(self) -> Iterator[Order]:
        rest = b""
        while True:
            ready = select.select([self._control.fileno(), self._waker], [], [])[0]
            if self._waker in ready:
                os.read(self._waker, _CHUNK)
                self._bury()
            if self._control.fileno() in ready:
                chunk = self._control.recv(_CHUNK)
                if not chunk:
                    return
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield self._orders.decode(line)

    def _bury(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._workers.discard(pid)
            self._tell(News(pid, status=os.waitstatus_to_exitcode(status)))

    def _tell(self, news: News) -> None:
        self._control.sendall(msgspec.json.encode(news) + b"\n")

    def _become(self, spec: WorkerSpec) -> None:
        """Become a worker; never returns."""
        code = 1
        try:
            _die_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.setsid()  # Ctrl-C of a terminal is for the runner
            os.close(self._waker)
            self._control.close()
            code = work(spec)
        except BaseException:  # noqa: BLE001 - the last word of a process
            traceback.print_exc()
        finally:
            with suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when the fork server ends, where the kernel can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(1)


if __name__ == "__main__":
    main()
