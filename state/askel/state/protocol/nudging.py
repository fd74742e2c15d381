"""Nudges: hints to the process that owns a run that the run has news.

A nudge is never relied on: losing one costs a renewal interval.
"""

from __future__ import annotations

from typing import Any

from askel.state.keys import Keys
from askel.state.store.connection import Connection

_LENGTH = 1_000
_TTL_MS = 60_000


def owner_process(owner: str) -> str:
    """Return the consumer that *owner* (``consumer/number``) belongs to; empty for inline runs."""
    return owner.rpartition("/")[0]


def send_nudge(connection: Connection, keys: Keys, owner: str, run_id: str) -> None:
    """Send a hint about *run_id* to the process of *owner*, without waiting for it to arrive."""
    consumer = owner_process(owner)
    if not consumer:
        return
    key = keys.nudge(consumer)
    _forget(connection.send("XADD", key, "MAXLEN", "~", _LENGTH, "*", "run_id", run_id))
    _forget(connection.send("PEXPIRE", key, _TTL_MS))


def _forget(reply: Any) -> None:
    """Let *reply* go unawaited: whatever becomes of a hint is no error."""
    if hasattr(reply, "add_done_callback"):
        reply.add_done_callback(lambda done: done.cancelled() or done.exception())
    else:
        reply.close()
