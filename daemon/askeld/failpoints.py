"""Points at which a test ends or stops the process, and the record it leaves of that.

``ASKEL_FAILPOINT`` says where:

* ``before_turn``, ``after_handler:3``: a named point, the first or the nth time it is reached;
* ``any:40``: the 40th named point that is reached, whichever it is;
* ``before_turn:2:stop``: at a named point, SIGSTOP in place of SIGKILL: the process goes on from
  there when it gets a SIGCONT;
* ``await:700``: when a task of the event loop is resumed for the 700th time, after whatever await
  that is.

``ASKEL_FAILPOINT_FILE`` names a file to which a line is appended at that moment.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from typing import Any

Reach = Callable[[str], None]

_ANY = "any"
_AWAIT = "await"


def arm(environment: Mapping[str, str] = os.environ) -> Reach | None:
    """Arm what the environment asks for, in the running event loop; return whom points are told.

    Raises:
        ValueError: The specification is malformed.
    """
    specification = environment.get("ASKEL_FAILPOINT")
    path = environment.get("ASKEL_FAILPOINT_FILE")
    if specification and specification.partition(":")[0] == _AWAIT:
        _arm_awaits(asyncio.get_running_loop(), int(specification.partition(":")[2] or 1), path)
        return None
    return failpoint(specification, path)


def failpoint(specification: str | None, path: str | None = None) -> Reach | None:
    """Return what kills this process at the nth reach of the named point, or None.

    Raises:
        ValueError: The specification is malformed.
    """
    if not specification:
        return None
    name, count, action = (*specification.split(":"), "", "")[:3]
    left, end = int(count or 1), {"": _die, "stop": _stop}.get(action)
    if end is None:
        msg = f"ASKEL_FAILPOINT {specification!r}: behind point and number comes stop, or nothing"
        raise ValueError(msg)

    def reach(point: str) -> None:
        nonlocal left
        if name in {point, _ANY}:
            left -= 1
            if not left:
                end(point, path)

    return reach


def _arm_awaits(loop: asyncio.AbstractEventLoop, nth: int, path: str | None) -> None:
    """Let the process die when a task of *loop* is resumed for the *nth* time from now on."""
    left = nth

    def resumed(coroutine: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            _die(f"await {_place(coroutine)}", path)

    def new_task(
        loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        return asyncio.Task(_Counted(coroutine, resumed), loop=loop, **options)

    loop.set_task_factory(new_task)


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells whenever it is resumed, and is otherwise the one it wraps."""

    def __init__(self, inner: Any, resumed: Callable[[Any], None]) -> None:
        self._inner = inner
        self._resumed = resumed

    def send(self, value: Any) -> Any:
        self._resumed(self._inner)
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        self._resumed(self._inner)
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._inner.__await__())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)  # cr_frame and the like, which anyio looks at


def _place(coroutine: Any) -> str:
    """Return the innermost function of ours that *coroutine* waits in, and the line."""
    place = getattr(coroutine, "__qualname__", "?")
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is not None and frame.f_globals.get("__name__", "").startswith("askel"):
            place = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
        coroutine = getattr(coroutine, "cr_await", None)
    return str(place)


def _die(point: str, path: str | None) -> None:
    _record("failpoint", point, path)
    os.kill(os.getpid(), signal.SIGKILL)


def _stop(point: str, path: str | None) -> None:
    _record("stoppoint", point, path)
    os.kill(os.getpid(), signal.SIGSTOP)


def _record(event: str, point: str, path: str | None) -> None:
    if path:
        at = time.time_ns() // 1_000_000
        line = {"pid": os.getpid(), "at": at, "event": event, "point": point}
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, json.dumps(line).encode() + b"\n")
        os.close(file)
